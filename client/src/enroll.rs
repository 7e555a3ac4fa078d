//! `adit enroll`: from a code to a profile, with a key that never leaves this device.
//!
//! ```text
//! code ─► secret, gateway's key     key ─► request ─► gateway (known by its key) ─► certificate ─► profile
//! ```
//!
//! Nothing is overwritten unasked, whatever can be checked is checked before the code is spent, and a failure
//! leaves nothing behind.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::close::{Refusal, RefusalKind};
use adit_core::identity::{self, AuthorityRule, GroupSource, PrincipalSource};
use adit_core::session::certificate::{CertificateAsk, Issued, Occasion, Secret};
use adit_core::session::enrolment::EnrolmentConfig as Asked;
use adit_net::exit::Failure;
use adit_net::files;
use adit_pki::KeyType;
use adit_pki::csr::{self, Prepared};
use adit_pki::invitation::Code;
use adit_pki::profile::{self as text, Profile as Written};
use adit_tunnel::tls::{self, Algorithms, GatewayKey};
use adit_tunnel::{Datagram, EngineKeys, Enrolment, EnrolmentConfig, Limits, MIN_UDP_PAYLOAD};
use aws_lc_rs::rand;
use bytes::BytesMut;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use rustls::time_provider::DefaultTimeProvider;
use tokio::net::UdpSocket;
use zeroize::Zeroizing;

use crate::cli::Enroll;
use crate::profile::{Profile, authority, authority_with_port, host_and_port};
use crate::resolve::resolve;
use crate::up::{tls_config, user_agent};

/// Redeems a code and writes the profile.
///
/// # Errors
/// When the code is mistyped or refused, the gateway is another or cannot be reached, or the profile cannot be
/// written; then nothing is written.
#[allow(clippy::print_stdout)]
pub fn enroll(asked: &Enroll) -> Result<(), Failure> {
    let code: Code = asked.code.parse().map_err(|error| {
        Failure::input(&error).with_hint(Some("compare it with what `adit-server invite` printed"))
    })?;
    let gateway = host_and_port(&asked.gateway).ok_or_else(|| {
        Failure::no(format!("{:?} is not a gateway", asked.gateway))
            .with_hint(Some("for example vpn.example.com or vpn.example.com:4433"))
    })?;
    let place = Place::reserve(&asked.profile, asked.replace)?;
    let prepared =
        csr::make(None, KeyType::EcdsaP256).map_err(|error| Failure::environment(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(&error).while_doing("cannot start the runtime"))?;
    let outcome = runtime.block_on(ask(&gateway, &code, &prepared));
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    let issued = outcome?.map_err(|refusal| refused(&refusal, gateway.1))?;
    let (profile, principal) = profile(&issued, &prepared, &gateway, &asked.profile)?;
    place.write(&profile)?;
    println!(
        "{}: the profile of {principal}\n\nThe tunnel comes up with:  sudo adit up{}",
        asked.profile.display(),
        if asked.profile == Path::new(crate::cli::DEFAULT_PROFILE) {
            String::new()
        } else {
            format!(" {}", asked.profile.display())
        }
    );
    Ok(())
}

/// Sends the request and waits for what becomes of it.
async fn ask(
    gateway: &(String, u16),
    code: &Code,
    prepared: &Prepared,
) -> Result<Result<Issued, Refusal>, Failure> {
    let addresses = resolve(std::slice::from_ref(gateway)).await;
    let request = CertificateSigningRequestDer::from_pem_slice(prepared.request_pem.as_bytes())
        .map_err(|_| Failure::no("the certificate request cannot be read back"))?;
    let secret: String = code
        .secret()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let secret = Secret::parse(&secret).ok_or_else(|| Failure::no("the code has no secret"))?;
    let tls = tls::enrolment_config(
        Algorithms::for_this_cpu(),
        GatewayKey::new(*code.pin()),
        Arc::new(DefaultTimeProvider),
    )
    .map_err(|error| Failure::environment(&error))?;
    let mut seed = [0; 32];
    rand::fill(&mut seed).map_err(|_| Failure::no("the kernel gives no random bytes"))?;
    let ask = CertificateAsk {
        occasion: Occasion::Enrolment(secret),
        request: request.to_vec(),
        user_agent: Some(user_agent()),
    };
    let (host, port) = gateway;
    let engine = Enrolment::new(
        Instant::now(),
        EnrolmentConfig {
            keys: EngineKeys {
                cid_key: seed,
                reset_key: seed,
                seed,
            },
            limits: Limits {
                // A few kilobytes at most: no search for more is worth its packets.
                max_udp_payload: MIN_UDP_PAYLOAD,
                idle_timeout: IDLE_TIMEOUT,
                keep_alive: None,
            },
            tls,
            server_name: host.clone(),
            asked: Asked::new(authority(host, *port), ask),
            gateways: addresses,
        },
    );
    converse(engine)
        .await
        .map_err(|error| Failure::environment(&error).while_doing("the network cannot be used"))
}

/// Moves datagrams between the engine and the sockets until there is an outcome.
async fn converse(mut engine: Enrolment) -> std::io::Result<Result<Issued, Refusal>> {
    let v4 = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).await;
    let v6 = UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, 0)).await;
    let (v4, v6) = match (v4, v6) {
        (Err(error), Err(_)) => return Err(error),
        (v4, v6) => (v4.ok(), v6.ok()),
    };
    let (mut out, mut buf4, mut buf6) = (Vec::new(), vec![0; MAX_UDP], vec![0; MAX_UDP]);
    loop {
        let now = Instant::now();
        engine.handle_timeout(now);
        while let Some(transmit) = engine.poll_transmit(now, &mut out) {
            let socket = if transmit.destination.is_ipv4() {
                &v4
            } else {
                &v6
            };
            let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
            for datagram in out[..transmit.size].chunks(segment) {
                if let Some(socket) = socket {
                    // What is not sent is lost, and QUIC sends it again.
                    let _ = socket.send_to(datagram, transmit.destination).await;
                }
            }
        }
        if let Some(outcome) = engine.poll_outcome() {
            return Ok(outcome);
        }
        let until = engine.poll_timeout().unwrap_or(now + IDLE_TIMEOUT);
        let received = tokio::select! {
            received = receive(v4.as_ref(), &mut buf4) => Some((received, &buf4)),
            received = receive(v6.as_ref(), &mut buf6) => Some((received, &buf6)),
            () = tokio::time::sleep_until(until.into()) => None,
        };
        // An ICMP message about an earlier datagram is an error here; anybody can send one.
        if let Some((Ok((length, remote)), buf)) = received {
            let datagram = Datagram {
                remote,
                local_ip: None,
                ecn: None,
                data: BytesMut::from(&buf[..length]),
            };
            engine.handle_udp(Instant::now(), datagram);
        }
    }
}

async fn receive(
    socket: Option<&UdpSocket>,
    buf: &mut [u8],
) -> std::io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buf).await,
        None => std::future::pending().await,
    }
}

/// The text of the profile, checked as `adit up` will, and whose it is.
fn profile(
    issued: &Issued,
    prepared: &Prepared,
    gateway: &(String, u16),
    path: &Path,
) -> Result<(Zeroizing<String>, String), Failure> {
    let wrong = |what: &str| {
        Failure::no(format!("the gateway's answer cannot be used: {what}"))
            .with_hint(Some("ask who runs the gateway for a new code"))
    };
    let (host, port) = gateway;
    let dialled = vec![authority_with_port(host, *port)];
    let gateways = if issued.gateways.is_empty() {
        &dialled
    } else {
        &issued.gateways
    };
    let first = gateways.first().and_then(|first| host_and_port(first));
    let leaf = CertificateDer::from_pem_slice(issued.certificate.as_bytes())
        .map_err(|_| wrong("there is no certificate in it"))?;
    let principal = principal(&leaf).unwrap_or_else(|| "this device".to_owned());
    let text = text::render(&Written {
        gateways,
        server_name: (first.as_ref().map(|(first, _)| first) != Some(host)).then_some(host),
        principal: &principal,
        certificate_pem: &issued.certificate,
        key_pem: &prepared.key_pem,
        authority_pem: &issued.authorities,
    });
    let checked = Profile::parse(&text, path).map_err(|error| wrong(&error.to_string()))?;
    tls_config(&checked).map_err(|error| wrong(&error.to_string()))?;
    Ok((text, principal))
}

fn principal(leaf: &CertificateDer<'_>) -> Option<String> {
    let rule = AuthorityRule {
        name: String::new(),
        principal: vec![
            PrincipalSource::Email,
            PrincipalSource::Uri,
            PrincipalSource::Dns,
        ],
        groups: GroupSource::None,
        trust_domain: None,
    };
    let identity = identity::extract(leaf, &rule).ok()?;
    Some(identity.principal.to_string())
}

fn refused(refusal: &Refusal, port: u16) -> Failure {
    let failure = |what: &str| Failure::no(format!("no certificate: {what}"));
    match refusal.kind {
        RefusalKind::Unreachable => failure(&refusal.to_string()).with_hint(Some(format!(
            "check the gateway's name, and that this network lets UDP to port {port} pass"
        ))),
        // Where it issues nothing, its TLS already says no.
        RefusalKind::CertificateRequired => {
            let kind = RefusalKind::NotIssuing;
            failure(kind.text()).with_hint(Some(kind.hint()))
        }
        // How the library says it adds nothing.
        kind @ RefusalKind::WrongGatewayKey => failure(kind.text()).with_hint(Some(kind.hint())),
        kind => failure(&refusal.to_string()).with_hint(Some(kind.hint())),
    }
}

/// Where the profile will be: known to be writable before the code is spent.
struct Place {
    profile: PathBuf,
    replace: bool,
    /// A file beside it, to be sure.
    reserved: PathBuf,
    /// The directory, if it was made for this.
    made: Option<PathBuf>,
}

impl Place {
    fn reserve(profile: &Path, replace: bool) -> Result<Self, Failure> {
        if !replace && profile.symlink_metadata().is_ok() {
            return Err(Failure::no(format!("{} exists already", profile.display()))
                .with_hint(Some("--replace replaces it, --profile writes another")));
        }
        let directory = match profile.parent() {
            Some(directory) if directory != Path::new("") => directory,
            _ => Path::new("."),
        };
        let failure = |error: &files::FileError| {
            let elsewhere = || "--profile writes it elsewhere".to_owned();
            Failure::environment(error).with_hint(Some(error.hint().unwrap_or_else(elsewhere)))
        };
        let mut place = Self {
            profile: profile.to_owned(),
            replace,
            reserved: directory.join(RESERVED),
            made: None,
        };
        if !directory.exists() {
            files::create_state_directory(directory).map_err(|error| failure(&error))?;
            place.made = Some(directory.to_owned());
        }
        files::write_private(&place.reserved, b"").map_err(|error| failure(&error))?;
        Ok(place)
    }

    fn write(mut self, text: &str) -> Result<(), Failure> {
        let written = if self.replace {
            files::write_private(&self.profile, text.as_bytes())
        } else {
            files::create_private(&self.profile, text.as_bytes())
        };
        written.map_err(|error| Failure::environment(&error).with_hint(error.hint()))?;
        self.made = None;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whatever cannot be removed was not made by us, or is of no harm.
        let _ = fs::remove_file(&self.reserved);
        if let Some(directory) = &self.made {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Beside the profile while its certificate is asked for.
const RESERVED: &str = ".adit-enroll";
/// The largest UDP payload there is.
const MAX_UDP: usize = 65_535;
/// A gateway that does not answer is not waited for longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_has_its_port_unless_it_is_the_usual_one() {
        assert_eq!(authority("vpn.example.com", 443), "vpn.example.com");
        assert_eq!(authority("fd00::1", 443), "[fd00::1]");
        assert_eq!(authority("fd00::1", 4433), "[fd00::1]:4433");
    }

    #[test]
    fn a_place_that_is_given_up_is_as_it_was() {
        let root = std::env::temp_dir().join(format!("adit-enroll-{}", std::process::id()));
        let profile = root.join("adit").join("client.toml");
        let place = Place::reserve(&profile, false).unwrap();
        assert!(profile.parent().unwrap().exists());
        drop(place);
        assert!(!profile.parent().unwrap().exists());
        Place::reserve(&profile, false).unwrap().write("a").unwrap();
        assert_eq!(fs::read_to_string(&profile).unwrap(), "a");
        assert!(Place::reserve(&profile, false).is_err());
        assert_eq!(fs::read_to_string(&profile).unwrap(), "a");
        Place::reserve(&profile, true).unwrap().write("b").unwrap();
        assert_eq!(fs::read_to_string(&profile).unwrap(), "b");
        let names: Vec<_> = fs::read_dir(profile.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        fs::remove_dir_all(&root).unwrap();
    }
}
