//! `adit-ca issue`: a client gets one profile, a gateway a certificate and a key.
//!
//! Whatever can be refused is refused before anything is issued: the index then holds no
//! certificate that nobody has.

use std::path::{Path, PathBuf};

use adit_pki::index::State;
use adit_pki::profile::{self, Profile};
use adit_pki::store::{self, Existing, StoreError};
use adit_pki::{Authority, Credential, IssueRequest, Name, Purpose, description};
use rustix::fs::Access;

use super::failure::Failure;
use super::{Answer, Console, DAY, Delivery, Desk, IssueArgs, now};

pub(super) fn run(desk: &Desk<'_>, args: &IssueArgs) -> Result<Answer, Failure> {
    let plan = Plan::of(args)?;
    plan.carry_out(desk, &desk.open()?, args)
}

/// What is known and checked before the authority is asked.
pub(super) struct Plan {
    files: Files,
    gateways: Vec<String>,
}

impl Plan {
    pub(super) fn of(args: &IssueArgs) -> Result<Self, Failure> {
        let files = Files::of(args)?;
        files.check(args.delivery.force)?;
        let Delivery {
            gateways,
            server_name,
            ..
        } = &args.delivery;
        if args.purpose == Purpose::Gateway && !(gateways.is_empty() && server_name.is_none()) {
            return Err(Failure::input(
                "--gateway and --server-name go into the profile of a client",
            ));
        }
        server_name.as_deref().map(Name::host).transpose()?;
        let gateways = gateways
            .iter()
            .map(|text| gateway(text))
            .collect::<Result<_, _>>()?;
        Ok(Self { files, gateways })
    }

    pub(super) fn carry_out(
        self,
        desk: &Desk<'_>,
        authority: &Authority,
        args: &IssueArgs,
    ) -> Result<Answer, Failure> {
        let Self { files, gateways } = self;
        let now = now();
        let gateways = match args.purpose {
            Purpose::Client if gateways.is_empty() => {
                vec![only_gateway(desk.console, authority, now)?]
            }
            _ => gateways,
        };
        for path in files.paths() {
            for removed in store::remove_abandoned(path)? {
                desk.console.note(&format!(
                    "{} was left by a program that was ended while writing it, and was removed",
                    removed.display()
                ));
            }
        }
        let issued = authority.issue(&request(args, now), now)?;
        desk.console.detail(&format!(
            "issued {} for {} {}, valid until {}",
            issued.serial,
            issued.purpose,
            issued.principal,
            description::instant(issued.not_after),
        ));
        files
            .write(&args.delivery, &issued, &gateways)
            .map_err(|error| {
                Failure::from(error)
                    .context(format!(
                        "certificate {} was recorded, but its key is lost",
                        issued.serial
                    ))
                    .with_hint(
                        "issue another one; without its key the recorded one is of no use to anybody",
                    )
            })?;
        desk.console.data(&files.list())?;
        Ok(Answer::Yes)
    }
}

/// Where the result goes.
enum Files {
    Profile(PathBuf),
    Pair { certificate: PathBuf, key: PathBuf },
}

impl Files {
    fn of(args: &IssueArgs) -> Result<Self, Failure> {
        let output = |extension: &str| {
            args.delivery.output.clone().unwrap_or_else(|| {
                PathBuf::from(format!("{}.{extension}", file_stem(&args.principal)))
            })
        };
        match args.purpose {
            Purpose::Client => Ok(Self::Profile(output("toml"))),
            Purpose::Gateway | Purpose::Authority => {
                let certificate = output("pem");
                // Not `with_extension`: it would take `.com` off `vpn.example.com`.
                let key = match certificate.extension() {
                    Some(extension) if extension == "pem" || extension == "crt" => {
                        certificate.with_extension("key")
                    }
                    Some(extension) if extension == "key" => {
                        return Err(Failure::input(
                            "-o names the certificate; the key goes beside it with the ending .key",
                        ));
                    }
                    _ => {
                        let mut key = certificate.clone().into_os_string();
                        key.push(".key");
                        key.into()
                    }
                };
                Ok(Self::Pair { certificate, key })
            }
        }
    }

    fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Profile(path) => vec![path],
            Self::Pair { certificate, key } => vec![certificate, key],
        }
    }

    fn list(&self) -> String {
        self.paths()
            .iter()
            .map(|path| format!("{}\n", path.display()))
            .collect()
    }

    /// Refuses early what writing would refuse.
    fn check(&self, force: bool) -> Result<(), Failure> {
        self.paths()
            .into_iter()
            .try_for_each(|path| can_be_written(path, force))
    }

    fn write(
        &self,
        delivery: &Delivery,
        issued: &Credential,
        gateways: &[String],
    ) -> Result<(), StoreError> {
        let existing = if delivery.force {
            Existing::Replace
        } else {
            Existing::Keep
        };
        match self {
            Self::Profile(path) => {
                let profile = Profile {
                    server_name: delivery.server_name.as_deref(),
                    ..Profile::new(issued, gateways)
                };
                store::write(
                    path,
                    profile::render(&profile).as_bytes(),
                    store::PRIVATE,
                    existing,
                )
            }
            Self::Pair { certificate, key } => {
                store::write(key, issued.key_pem.as_bytes(), store::PRIVATE, existing)?;
                store::write(
                    certificate,
                    issued.certificate_pem.as_bytes(),
                    store::PUBLIC,
                    existing,
                )
            }
        }
    }
}

/// Refuses early what writing `path` would refuse.
pub(super) fn can_be_written(path: &Path, force: bool) -> Result<(), Failure> {
    if !force && path.symlink_metadata().is_ok() {
        return Err(StoreError::Exists {
            path: path.to_owned(),
        }
        .into());
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if path.file_name().is_none() || path.is_dir() || !folder.is_dir() {
        return Err(
            Failure::input(format!("{} cannot be a file", path.display()))
                .with_hint("-o names a file in a folder that exists"),
        );
    }
    rustix::fs::access(folder, Access::WRITE_OK).map_err(|error| StoreError::Write {
        path: path.to_owned(),
        source: error.into(),
    })?;
    Ok(())
}

fn request(args: &IssueArgs, now: i64) -> IssueRequest {
    let mut request = IssueRequest::new(args.purpose, args.principal.clone(), now);
    request.not_after = now + i64::from(args.days) * DAY;
    request.device.clone_from(&args.device);
    request
        .with_groups(args.groups.iter().cloned())
        .with_names(args.names.iter().cloned())
}

/// `host:port` from `host` or `host:port`, where an IPv6 address may stand bare or in brackets.
fn gateway(text: &str) -> Result<String, Failure> {
    let (host, port) =
        if let Some((host, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            (
                host,
                rest.strip_prefix(':')
                    .or_else(|| rest.is_empty().then_some(DEFAULT_PORT)),
            )
        } else if text.matches(':').count() == 1 {
            text.split_once(':')
                .map_or((text, None), |(host, port)| (host, Some(port)))
        } else {
            (text, Some(DEFAULT_PORT))
        };
    let port: Option<u16> = port
        .and_then(|port| port.parse().ok())
        .filter(|port| *port != 0);
    let (Ok(host), Some(port)) = (Name::host(host), port) else {
        return Err(Failure::input(format!(
            "`{text}` is not a gateway of the form vpn.example.com:443"
        )));
    };
    Ok(endpoint(&host, port))
}

fn endpoint(host: &Name, port: u16) -> String {
    match host {
        Name::Ip(std::net::IpAddr::V6(address)) => format!("[{address}]:{port}"),
        other => format!("{other}:{port}"),
    }
}

/// The gateway of a network that has one: found in the index, so that it need not be repeated for
/// every colleague. With several it is not for us to choose.
fn only_gateway(console: &Console, authority: &Authority, now: i64) -> Result<String, Failure> {
    let mut hosts: Vec<_> = authority
        .entries()?
        .into_iter()
        .filter(|entry| entry.purpose == Purpose::Gateway && entry.state(now) == State::Valid)
        .filter_map(|entry| entry.names.into_iter().next())
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    match hosts.as_slice() {
        [host] => {
            let endpoint = gateway(host)?;
            console.note(&format!("the profile connects to {endpoint}, the one gateway in the index; --gateway overrides"));
            Ok(endpoint)
        }
        [] => Err(Failure::input("a profile needs a gateway")
            .with_hint("add --gateway vpn.example.com:443")),
        hosts => Err(
            Failure::input("a profile needs a gateway, and the index has several").with_hint(
                format!("add --gateway for one or more of {}", hosts.join(", ")),
            ),
        ),
    }
}

/// The principal as a file name: a SPIFFE identity has slashes.
pub(super) fn file_stem(principal: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "@._+=-".contains(character);
    let name = principal.strip_prefix("spiffe://").unwrap_or(principal);
    name.chars()
        .map(|character| if plain(character) { character } else { '_' })
        .collect()
}

const DEFAULT_PORT: &str = "443";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_gets_the_default_port_and_brackets() {
        for (text, expected) in [
            ("vpn.example.com", "vpn.example.com:443"),
            ("vpn.example.com:8443", "vpn.example.com:8443"),
            ("192.0.2.1:443", "192.0.2.1:443"),
            ("2001:db8::1", "[2001:db8::1]:443"),
            ("[2001:db8::1]", "[2001:db8::1]:443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ] {
            assert_eq!(gateway(text).unwrap(), expected);
        }
        for text in [
            "",
            ":443",
            "a:0",
            "a:65536",
            "a:b",
            "[::1]x",
            "[::1]:",
            "a b",
            "https://a",
            "a:1:2",
        ] {
            assert!(gateway(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_spiffe_identity_makes_one_file_name() {
        assert_eq!(
            file_stem("spiffe://example.com/site/berlin"),
            "example.com_site_berlin"
        );
        assert_eq!(file_stem("alice@example.com"), "alice@example.com");
    }
}
