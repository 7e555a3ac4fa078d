//! The profile: one file with everything a tunnel needs, and a private key in it.

use std::path::{Path, PathBuf};

use adit_core::config::ConfigError;
use adit_net::files::{self, FileError};
use adit_net::tun::is_interface_name;
use adit_tunnel::tls::Credentials;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use toml::Spanned;
use tracing::{info, warn};

use crate::cli::DEFAULT_INTERFACE;
use crate::pair::{Pair, Settled};

/// A checked profile.
#[derive(Debug)]
pub struct Profile {
    /// Where it was read.
    pub path: PathBuf,
    /// That file and those it names.
    pub files: Vec<PathBuf>,
    /// Host and port of each gateway, in the order to try them.
    pub gateways: Vec<(String, u16)>,
    /// The name the gateway's certificate must carry.
    pub server_name: String,
    /// Everything through the tunnel.
    pub full_tunnel: bool,
    /// Name of the TUN device.
    pub interface: String,
    /// MTU of the device; `None` chooses by the link that leads to the gateway.
    pub mtu: Option<u16>,
    /// The client's certificate and key.
    pub credentials: Credentials,
    /// Whom to believe the gateway's certificate.
    pub anchors: Vec<CertificateDer<'static>>,
    /// Where certificate and key are kept.
    pub keeping: Keeping,
    /// Whether the gateway is to be asked for the certificate that follows.
    pub renew: bool,
}

/// Where a profile keeps certificate and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// Both in itself.
    Inline,
    /// Both in files that it names.
    Files(Pair),
    /// One in itself and one in a file.
    Mixed,
}

/// What can be wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A file cannot be read, or others can.
    #[error(transparent)]
    File(#[from] FileError),
    /// The TOML is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl ProfileError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Config(error) => error.hint().map(str::to_owned),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    gateways: Spanned<Vec<Spanned<String>>>,
    server_name: Option<Spanned<String>>,
    #[serde(default)]
    full_tunnel: bool,
    interface: Option<Spanned<String>>,
    mtu: Option<Spanned<u16>>,
    certificate: Spanned<String>,
    key: Spanned<String>,
    ca: Spanned<String>,
    #[serde(default = "yes")]
    renew: bool,
}

/// The default of what is on.
fn yes() -> bool {
    true
}

impl Profile {
    /// Reads a profile and the files it names; if these were being replaced when this program was killed, that is
    /// finished first.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = files::read_private_text(path)?;
        if let Ok(raw) = toml::from_str::<Raw>(&text)
            && let Keeping::Files(pair) = raw.keeping(path)
        {
            settle(&pair);
        }
        Self::parse(&text, path)
    }

    /// Checks the text of a profile, and reads the files it names.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ProfileError> {
        let file = path.display().to_string();
        let raw: Raw =
            toml::from_str(text).map_err(|error| ConfigError::from_toml(&file, text, &error))?;
        let at = |offset: usize, key: &str, message: String| {
            ConfigError::at(&file, text, offset, key, message)
        };
        if raw.gateways.get_ref().is_empty() {
            return Err(at(raw.gateways.span().start, "gateways", "no gateway".into()).into());
        }
        let mut gateways = Vec::new();
        for gateway in raw.gateways.get_ref() {
            let parsed = host_and_port(gateway.get_ref()).ok_or_else(|| {
                at(
                    gateway.span().start,
                    "gateways",
                    format!("{:?} is not host:port", gateway.get_ref()),
                )
                .with_hint("for example \"vpn.example.com:443\" or \"[2001:db8::1]:443\"")
            })?;
            gateways.push(parsed);
        }
        let server_name = match &raw.server_name {
            Some(name) => {
                if ServerName::try_from(name.get_ref().as_str()).is_err() {
                    let message =
                        format!("{:?} is neither a DNS name nor an address", name.get_ref());
                    return Err(at(name.span().start, "server_name", message).into());
                }
                name.get_ref().clone()
            }
            None => gateways[0].0.clone(),
        };
        let keeping = raw.keeping(path);
        let interface = match raw.interface {
            Some(name) if !is_interface_name(name.get_ref()) => {
                let message = format!("{:?} cannot be the name of an interface", name.get_ref());
                return Err(at(name.span().start, "interface", message).into());
            }
            Some(name) => name.into_inner(),
            None => DEFAULT_INTERFACE.to_owned(),
        };
        if let Some(mtu) = &raw.mtu
            && !(MIN_MTU..=MAX_MTU).contains(mtu.get_ref())
        {
            let message = format!("{} is not between {MIN_MTU} and {MAX_MTU}", mtu.get_ref());
            return Err(at(mtu.span().start, "mtu", message).into());
        }
        let no = |value: &Spanned<String>, key: &str, what: &str| {
            at(value.span().start, key, format!("no {what} found")).with_hint(
                "give PEM text that starts with -----BEGIN, or the path of a file with it",
            )
        };
        let certificates = |value: &Spanned<String>,
                            key: &str|
         -> Result<Vec<CertificateDer<'static>>, ProfileError> {
            let pem = pem(value.get_ref(), path, files::read)?;
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            match found {
                Ok(found) if !found.is_empty() => Ok(found),
                Ok(_) | Err(_) => Err(no(value, key, "certificate").into()),
            }
        };
        let named = [&raw.certificate, &raw.key, &raw.ca].map(|value| named(value.get_ref(), path));
        let named: Vec<PathBuf> = named.into_iter().flatten().collect();
        let key_pem = pem(raw.key.get_ref(), path, files::read_private)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|_| no(&raw.key, "key", "private key"))?;
        Ok(Self {
            path: path.to_owned(),
            files: [path.to_owned()].into_iter().chain(named).collect(),
            server_name,
            full_tunnel: raw.full_tunnel,
            interface,
            mtu: raw.mtu.map(Spanned::into_inner),
            credentials: Credentials {
                chain: certificates(&raw.certificate, "certificate")?,
                key,
            },
            anchors: certificates(&raw.ca, "ca")?,
            gateways,
            keeping,
            renew: raw.renew,
        })
    }
}

impl Raw {
    fn keeping(&self, path: &Path) -> Keeping {
        let [certificate, key] =
            [&self.certificate, &self.key].map(|value| named(value.get_ref(), path));
        match (certificate, key) {
            (None, None) => Keeping::Inline,
            (Some(certificate), Some(key)) => Keeping::Files(Pair::new(certificate, key)),
            (Some(_), None) | (None, Some(_)) => Keeping::Mixed,
        }
    }
}

/// What a kill has interrupted; if that cannot be done, the files say what is wrong when they are read.
fn settle(pair: &Pair) {
    match pair.settle() {
        Ok(None) => {}
        Ok(Some(Settled::Finished)) => {
            info!("the renewal of certificate and key, which was interrupted, was finished");
        }
        Ok(Some(Settled::TakenBack)) => {
            info!("the renewal of certificate and key, which was interrupted, was taken back");
        }
        Err(error) => {
            warn!(%error, "an interrupted renewal of certificate and key was left as it is")
        }
    }
}

/// Inline PEM as it is, anything else as a path relative to the profile.
fn pem(
    value: &str,
    profile: &Path,
    read: impl Fn(&Path) -> Result<Vec<u8>, FileError>,
) -> Result<Vec<u8>, FileError> {
    match named(value, profile) {
        Some(file) => read(&file),
        None => Ok(value.as_bytes().to_vec()),
    }
}

/// The file that a value names, unless it is PEM itself.
fn named(value: &str, profile: &Path) -> Option<PathBuf> {
    let base = profile.parent().unwrap_or_else(|| Path::new(""));
    (!value.contains("-----BEGIN")).then(|| base.join(value))
}

/// `host:port`, `[v6]:port`, or a host alone with the port of HTTPS.
pub(crate) fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if rest.is_empty() => HTTPS,
            None => return None,
        };
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, port)
    } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
        (text, HTTPS)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, HTTPS),
        }
    };
    if port == 0 || ServerName::try_from(host).is_err() {
        return None;
    }
    Some((host.to_owned(), port))
}

/// `:authority` of a request: the port is left out when it is the default (RFC 9110 §4.2.2).
pub(crate) fn authority(host: &str, port: u16) -> String {
    match port {
        HTTPS if host.contains(':') => format!("[{host}]"),
        HTTPS => host.to_owned(),
        port => authority_with_port(host, port),
    }
}

/// The same with its port in any case, as a profile has it.
pub(crate) fn authority_with_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The port of HTTP/3 (RFC 9114 §3.1.1).
pub(crate) const HTTPS: u16 = 443;
/// Linux takes IPv6 off an interface with less (RFC 8200 §5).
const MIN_MTU: u16 = 1280;
/// Jumbo frames end near 9000.
const MAX_MTU: u16 = 9000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_addresses_and_ports_are_told_apart() {
        for (text, expected) in [
            ("vpn.example.com:4433", Some(("vpn.example.com", 4433))),
            ("vpn.example.com", Some(("vpn.example.com", 443))),
            ("192.0.2.1:443", Some(("192.0.2.1", 443))),
            ("[2001:db8::1]:4433", Some(("2001:db8::1", 4433))),
            ("2001:db8::1", Some(("2001:db8::1", 443))),
            ("[vpn]:1", None),
            ("vpn:0", None),
            ("vpn:x", None),
            ("a b:1", None),
            ("", None),
        ] {
            let expected = expected.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(host_and_port(text), expected, "{text}");
        }
    }

    #[test]
    fn the_annotated_example_is_valid_up_to_the_files_it_names() {
        let text = include_str!("../../config/client.toml");
        let error = Profile::parse(text, Path::new("/nonexistent/client.toml")).unwrap_err();
        assert!(matches!(error, ProfileError::File(_)), "{error}");
    }

    #[test]
    fn certificate_and_key_are_kept_in_the_profile_or_in_files_beside_it() {
        let keeping = |certificate: &str, key: &str| {
            let text = format!(
                "gateways = [\"vpn\"]\ncertificate = {certificate:?}\nkey = {key:?}\nca = \"\"\n"
            );
            let raw: Raw = toml::from_str(&text).unwrap();
            assert!(raw.renew, "unless it says otherwise");
            raw.keeping(Path::new("/etc/adit/client.toml"))
        };
        let pem = "-----BEGIN ANYTHING-----\n";
        assert_eq!(keeping(pem, pem), Keeping::Inline);
        assert_eq!(keeping(pem, "alice.key"), Keeping::Mixed);
        let files = Pair::new("/etc/adit/alice.pem".into(), "/run/alice.key".into());
        assert_eq!(
            keeping("alice.pem", "/run/alice.key"),
            Keeping::Files(files)
        );
    }

    #[test]
    fn an_error_has_its_line() {
        let text = "gateways = [\"vpn:x\"]\ncertificate = \"\"\nkey = \"\"\nca = \"\"\n";
        let error = Profile::parse(text, Path::new("p.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("p.toml:1: gateways: \"vpn:x\" is not host:port"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn no_gateway_makes_the_parser_panic(text in "\\PC{0,40}") {
            if let Some((host, port)) = host_and_port(&text) {
                prop_assert!(port != 0 && !host.is_empty());
            }
        }
    }
}
