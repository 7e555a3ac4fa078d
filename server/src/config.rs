//! `server.toml`: what the operator wrote, checked once, trusted afterwards.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_core::config::ConfigError;
use adit_core::identity::{AuthorityRule, GroupSource, PrincipalSource, TrustDomain};
use adit_tunnel::tls::{CrlPolicy, KeyHash, NotAKeyHash};
use adit_tunnel::{InsideAddresses, SecondConnection};
use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

/// A gateway's configuration. Every path is absolute or relative to the working directory.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The UDP address clients connect to.
    pub listen: SocketAddr,
    /// The gateway's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The policy.
    pub policy: PathBuf,
    /// Leases and keys that survive a restart.
    pub state_directory: PathBuf,
    /// Where `status` asks.
    pub admin_socket: PathBuf,
    /// Where what happens is written down.
    pub audit_log: PathBuf,
    /// Who vouches for clients.
    pub authorities: Vec<AuthorityConfig>,
    /// Certificates from the gateway itself; `None` when it issues none, and TLS demands one of everybody.
    pub enrolment: Option<EnrolmentConfig>,
    /// The inside.
    pub inside: InsideConfig,
    /// What to do with a principal's second connection.
    pub second_connection: SecondConnection,
    /// Silence after which a session is given up.
    pub idle_timeout: Duration,
}

/// One authority: its certificates and how to read what it issued.
#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    /// How to read its certificates.
    pub rule: AuthorityRule,
    /// Its own certificates, PEM.
    pub certificates: PathBuf,
    /// What it revoked, PEM or DER.
    pub crls: Vec<PathBuf>,
    /// What the want of a fresh list means.
    pub crl_policy: CrlPolicy,
    /// Keys that count for nothing, in whatever certificates they stand.
    pub revoked_keys: BTreeSet<KeyHash>,
    /// Its own folder, if it is here: what it issued is listed before it is used.
    pub folder: Option<PathBuf>,
}

/// The authority that issues over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentConfig {
    /// Its folder.
    pub folder: PathBuf,
    /// Where the passphrase of its key is, if that is encrypted.
    pub passphrase_file: Option<PathBuf>,
    /// Whom clients are to believe the gateway's certificate, PEM; `None` is the root of that authority.
    pub ca: Option<PathBuf>,
    /// `host:port` of each gateway for the profiles; empty leaves each client what it dialled.
    pub gateways: Vec<String>,
    /// Certificates of the authorities that issued here before, PEM: what they issued is renewed, too.
    pub renews: Vec<PathBuf>,
}

/// The TUN side.
#[derive(Clone, Debug)]
pub struct InsideConfig {
    /// Name of the TUN device.
    pub interface: String,
    /// The gateway's own addresses with their networks.
    pub addresses: Vec<IpNet>,
    /// MTU of the device; `None` chooses by the host's links.
    pub mtu: Option<u16>,
    /// Whether the kernel is told to forward.
    pub forwarding: bool,
    /// Whether clients are hidden behind the gateway's address.
    pub masquerade: bool,
}

impl ServerConfig {
    /// Checks the text of a configuration file at `path`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let wrong = ConfigError::from_toml(&file, text, &error);
            match error.message().contains("`engines`") {
                true => wrong.with_hint(ENGINES_MOVED),
                false => wrong,
            }
        })?;
        let at = |span: std::ops::Range<usize>, key: &str, message: String| {
            ConfigError::at(&file, text, span.start, key, message)
        };
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        let resolve = |given: &Path| base.join(given);

        if raw.authority.is_empty() {
            return Err(ConfigError::whole_file(
                &file,
                "authority",
                "no authority vouches for clients",
            )
            .with_hint("add an [[authority]] section with name and certificates"));
        }
        let mut authorities: Vec<AuthorityConfig> = Vec::new();
        for authority in raw.authority {
            let name = authority.name.get_ref().clone();
            if authorities.iter().any(|known| known.rule.name == name) {
                return Err(at(
                    authority.name.span(),
                    "authority.name",
                    format!("a second authority is called {name:?}"),
                ));
            }
            if authority.principal.get_ref().is_empty() {
                return Err(at(
                    authority.principal.span(),
                    "authority.principal",
                    "no place to read the principal from".to_owned(),
                )
                .with_hint("any of \"email\", \"uri\", \"dns\" and \"cn\""));
            }
            let crl_policy = match authority.crl_policy.get_ref() {
                RawCrlPolicy::Soft => CrlPolicy::Soft,
                RawCrlPolicy::Hard => CrlPolicy::Hard,
            };
            if crl_policy == CrlPolicy::Hard && authority.crls.is_empty() {
                return Err(at(
                    authority.crl_policy.span(),
                    "authority.crl_policy",
                    "\"hard\" without a revocation list would refuse everybody".to_owned(),
                )
                .with_hint("name the authority's list in crls"));
            }
            let mut revoked_keys = BTreeSet::new();
            for text in authority.revoked_keys {
                let key: Result<KeyHash, _> = text.get_ref().parse();
                let message = |error: NotAKeyHash| format!("{:?} is {error}", text.get_ref());
                revoked_keys.insert(key.map_err(|error| {
                    at(text.span(), "authority.revoked_keys", message(error))
                        .with_hint("`adit-ca show FILE` tells the hash of a certificate's key")
                })?);
            }
            let principal = authority.principal.into_inner();
            let trust_domain = match &authority.trust_domain {
                None => None,
                Some(domain) if !principal.contains(&PrincipalSource::Uri) => {
                    let message = "no SPIFFE id is read of this authority".to_owned();
                    return Err(at(domain.span(), "authority.trust_domain", message)
                        .with_hint("add \"uri\" to principal, or take the line out"));
                }
                Some(domain) => Some(TrustDomain::parse(domain.get_ref()).map_err(|error| {
                    at(domain.span(), "authority.trust_domain", error.to_string())
                        .with_hint("as in the ids, without spiffe://: \"example.org\"")
                })?),
            };
            authorities.push(AuthorityConfig {
                rule: AuthorityRule {
                    name,
                    principal,
                    groups: authority.groups,
                    trust_domain,
                },
                certificates: resolve(&authority.certificates),
                crls: authority.crls.iter().map(|path| resolve(path)).collect(),
                crl_policy,
                revoked_keys,
                folder: authority.folder.as_deref().map(resolve),
            });
        }

        let enrolment = match raw.enrolment {
            None => None,
            Some(enrolment) => {
                for gateway in &enrolment.gateways {
                    if !is_gateway(gateway.get_ref()) {
                        let message = format!("{:?} is not host:port", gateway.get_ref());
                        let error = at(gateway.span(), "enrolment.gateways", message);
                        return Err(error.with_hint("for example \"vpn.example.com:443\""));
                    }
                }
                let gateways = enrolment.gateways.into_iter();
                Some(EnrolmentConfig {
                    folder: resolve(&enrolment.folder),
                    passphrase_file: enrolment.passphrase_file.as_deref().map(resolve),
                    ca: enrolment.ca.as_deref().map(resolve),
                    gateways: gateways.map(Spanned::into_inner).collect(),
                    renews: enrolment.renews.iter().map(|path| resolve(path)).collect(),
                })
            }
        };
        let inside = raw.inside;
        if !adit_net::tun::is_interface_name(inside.interface.get_ref()) {
            return Err(at(
                inside.interface.span(),
                "inside.interface",
                format!(
                    "{:?} cannot be the name of an interface",
                    inside.interface.get_ref()
                ),
            ));
        }
        let mut addresses: Vec<IpNet> = Vec::new();
        for address in &inside.addresses {
            let net = *address.get_ref();
            let second = addresses
                .iter()
                .any(|known| known.addr().is_ipv4() == net.addr().is_ipv4());
            if second {
                return Err(at(
                    address.span(),
                    "inside.addresses",
                    format!("{net} is the second address of its family"),
                ));
            }
            addresses.push(net);
        }
        if let Some(mtu) = &inside.mtu
            && !(MIN_MTU..=MAX_MTU).contains(mtu.get_ref())
        {
            return Err(at(
                mtu.span(),
                "inside.mtu",
                format!("{} is not between {MIN_MTU} and {MAX_MTU}", mtu.get_ref()),
            ));
        }
        let idle = raw.session.idle_timeout_s;
        if let Some(idle) = &idle
            && !(5..=3600).contains(idle.get_ref())
        {
            return Err(at(
                idle.span(),
                "session.idle_timeout_s",
                format!("{} is not between 5 and 3600", idle.get_ref()),
            ));
        }
        let state_directory = raw.state_directory.as_deref();
        let state_directory = resolve(state_directory.unwrap_or_else(|| Path::new(DEFAULT_STATE)));
        Ok(Self {
            listen: raw.listen.unwrap_or_else(default_listen),
            certificate: resolve(&raw.certificate),
            key: resolve(&raw.key),
            policy: resolve(&raw.policy),
            audit_log: match raw.audit_log {
                Some(path) => resolve(&path),
                None => state_directory.join(AUDIT_LOG),
            },
            state_directory,
            admin_socket: resolve(
                raw.admin_socket
                    .as_deref()
                    .unwrap_or_else(|| Path::new(DEFAULT_SOCKET)),
            ),
            authorities,
            enrolment,
            inside: InsideConfig {
                interface: inside.interface.into_inner(),
                addresses,
                mtu: inside.mtu.map(Spanned::into_inner),
                forwarding: inside.forwarding,
                masquerade: inside.masquerade,
            },
            second_connection: match raw.session.second_connection {
                RawSecond::Replace => SecondConnection::Replace,
                RawSecond::Refuse => SecondConnection::Refuse,
            },
            idle_timeout: Duration::from_secs(idle.map_or(DEFAULT_IDLE_S, Spanned::into_inner)),
        })
    }

    /// The gateway's own inner addresses.
    pub fn inside_addresses(&self) -> InsideAddresses {
        let mut inside = InsideAddresses::default();
        for address in &self.inside.addresses {
            match address {
                IpNet::V4(net) => inside.v4 = Some(net.addr()),
                IpNet::V6(net) => inside.v6 = Some(net.addr()),
            }
        }
        inside
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    listen: Option<SocketAddr>,
    certificate: PathBuf,
    key: PathBuf,
    policy: PathBuf,
    state_directory: Option<PathBuf>,
    admin_socket: Option<PathBuf>,
    audit_log: Option<PathBuf>,
    #[serde(default)]
    authority: Vec<RawAuthority>,
    enrolment: Option<RawEnrolment>,
    inside: RawInside,
    #[serde(default)]
    session: RawSession,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuthority {
    name: Spanned<String>,
    certificates: PathBuf,
    principal: Spanned<Vec<PrincipalSource>>,
    #[serde(default = "no_groups")]
    groups: GroupSource,
    trust_domain: Option<Spanned<String>>,
    #[serde(default)]
    crls: Vec<PathBuf>,
    #[serde(default = "soft")]
    crl_policy: Spanned<RawCrlPolicy>,
    #[serde(default)]
    revoked_keys: Vec<Spanned<String>>,
    folder: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEnrolment {
    folder: PathBuf,
    passphrase_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    #[serde(default)]
    gateways: Vec<Spanned<String>>,
    #[serde(default)]
    renews: Vec<PathBuf>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawCrlPolicy {
    Soft,
    Hard,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInside {
    #[serde(default = "default_interface")]
    interface: Spanned<String>,
    addresses: Vec<Spanned<IpNet>>,
    mtu: Option<Spanned<u16>>,
    #[serde(default = "yes")]
    forwarding: bool,
    #[serde(default)]
    masquerade: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSession {
    #[serde(default)]
    second_connection: RawSecond,
    idle_timeout_s: Option<Spanned<u64>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawSecond {
    #[default]
    Replace,
    Refuse,
}

/// `host:port`, with brackets around IPv6; what the host is, the client finds out.
fn is_gateway(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_is_one = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let possible = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && host.bytes().all(possible)
        }
    };
    host_is_one && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 443))
}

fn default_interface() -> Spanned<String> {
    Spanned::new(0..0, "adit0".to_owned())
}

fn no_groups() -> GroupSource {
    GroupSource::None
}

fn soft() -> Spanned<RawCrlPolicy> {
    Spanned::new(0..0, RawCrlPolicy::Soft)
}

fn yes() -> bool {
    true
}

/// Threads are the process's: made once, and so no part of what a reload reads.
const ENGINES_MOVED: &str =
    "take the line out; their number stands on the command line: `adit-server run --engines N`";
/// systemd's StateDirectory= of the unit in `config/systemd`.
const DEFAULT_STATE: &str = "/var/lib/adit";
/// In the state directory, which is private and there.
const AUDIT_LOG: &str = "audit.jsonl";
/// systemd's RuntimeDirectory= of the unit in `config/systemd`.
const DEFAULT_SOCKET: &str = "/run/adit/server.sock";
/// Longer than any client's keep-alive, short enough that a vanished laptop frees its session.
const DEFAULT_IDLE_S: u64 = 60;
/// Linux takes IPv6 off an interface with less (RFC 8200 §5).
const MIN_MTU: u16 = 1280;
/// Jumbo frames end near 9000; what is larger is a typing error or a loopback test.
const MAX_MTU: u16 = 9000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = include_str!("../../config/server.toml");

    #[test]
    fn the_annotated_example_is_valid_and_its_paths_are_relative_to_it() {
        let config = ServerConfig::parse(EXAMPLE, Path::new("/etc/adit/server.toml")).unwrap();
        assert_eq!(config.policy, Path::new("/etc/adit/policy.toml"));
        assert_eq!(config.authorities[0].rule.groups, GroupSource::Ou);
        assert!(config.inside.forwarding);
    }

    #[test]
    fn what_the_example_shows_in_comments_are_the_defaults() {
        let shown = EXAMPLE
            .replace("# mtu = 1400\n", "")
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(code) if code.contains(" = ") && !code.contains('.') => code,
                _ => line,
            })
            .collect::<Vec<_>>()
            .join("\n");
        let path = Path::new("/etc/adit/server.toml");
        let with_defaults = ServerConfig::parse(&shown, path).unwrap();
        let plain = ServerConfig::parse(EXAMPLE, path).unwrap();
        assert_eq!(format!("{with_defaults:?}"), format!("{plain:?}"));
    }

    #[test]
    fn the_audit_log_is_in_the_state_directory_unless_it_is_named() {
        let path = Path::new("/etc/adit/server.toml");
        let config = ServerConfig::parse(EXAMPLE, path).unwrap();
        assert_eq!(config.audit_log, Path::new("/var/lib/adit/audit.jsonl"));
        let text = EXAMPLE.replace("# audit_log = \"/var/lib", "audit_log = \"/var/log");
        let config = ServerConfig::parse(&text, path).unwrap();
        assert_eq!(config.audit_log, Path::new("/var/log/adit/audit.jsonl"));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let text = EXAMPLE.replace("listen =", "lisen =");
        let error = ServerConfig::parse(&text, Path::new("server.toml")).unwrap_err();
        let line = 1 + text.lines().position(|l| l.starts_with("lisen")).unwrap();
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("server.toml:{line}")),
            "{message}"
        );
        assert!(message.contains("lisen"), "{message}");
    }

    #[test]
    fn a_hard_policy_without_a_list_is_an_error_with_its_line() {
        let path = Path::new("/etc/adit/server.toml");
        let hard = EXAMPLE.replace("# crl_policy = \"soft\"", "crl_policy = \"hard\"");
        let config = ServerConfig::parse(&hard, path).unwrap();
        assert_eq!(config.authorities[0].crl_policy, CrlPolicy::Hard);
        assert_eq!(
            config.authorities[0].crls,
            [
                Path::new("/etc/adit/ca/crl.pem"),
                Path::new("/etc/adit/issuing/crl.pem"),
            ]
        );
        let text = hard.replace("crls = [\"ca/crl.pem\", \"issuing/crl.pem\"]", "");
        let error = ServerConfig::parse(&text, path).unwrap_err().to_string();
        let line = 1 + text
            .lines()
            .position(|l| l.starts_with("crl_policy"))
            .unwrap();
        assert!(
            error.starts_with(&format!("/etc/adit/server.toml:{line}")),
            "{error}"
        );
    }

    #[test]
    fn a_revoked_key_is_read_and_a_mistyped_one_is_an_error_with_its_line() {
        let path = Path::new("/etc/adit/server.toml");
        let hash = "5e".repeat(32);
        let with = |text: &str| {
            EXAMPLE.replace("# revoked_keys = []", &format!("revoked_keys = [{text:?}]"))
        };
        let config = ServerConfig::parse(&with(&hash), path).unwrap();
        assert_eq!(
            config.authorities[0].revoked_keys,
            BTreeSet::from([hash.parse().unwrap()])
        );
        let text = with(&hash[1..]);
        let error = ServerConfig::parse(&text, path).unwrap_err().to_string();
        let line = 1 + text
            .lines()
            .position(|line| line.starts_with("revoked_keys"))
            .unwrap();
        assert!(
            error.starts_with(&format!("/etc/adit/server.toml:{line}")),
            "{error}"
        );
    }

    #[test]
    fn enrolment_is_off_unless_the_section_is_there_and_its_gateways_are_checked() {
        let path = Path::new("/etc/adit/server.toml");
        let config = ServerConfig::parse(EXAMPLE, path).unwrap();
        let enrolment = config.enrolment.unwrap();
        assert_eq!(enrolment.folder, Path::new("/etc/adit/issuing"));
        let (before, rest) = EXAMPLE.split_once("[enrolment]").unwrap();
        let (_, after) = rest.split_once("[inside]").unwrap();
        let off = format!("{before}[inside]{after}");
        assert_eq!(ServerConfig::parse(&off, path).unwrap().enrolment, None);
        for (gateway, right) in [
            ("vpn.example.com:443", true),
            ("[fd00::1]:443", true),
            ("vpn.example.com", false),
            ("vpn.example.com:0", false),
            (":443", false),
            ("[vpn]:443", false),
            ("a b:443", false),
        ] {
            let text = EXAMPLE.replace(
                "# gateways = [\"vpn.example.com:443\"]",
                &format!("gateways = [\"{gateway}\"]"),
            );
            assert_ne!(text, EXAMPLE);
            let parsed = ServerConfig::parse(&text, path);
            assert_eq!(parsed.is_ok(), right, "{gateway}");
        }
    }

    #[test]
    fn a_second_address_of_a_family_is_an_error_with_its_line() {
        let text = EXAMPLE.replace("fd00:ad17::1/64", "10.98.0.1/24");
        let error = ServerConfig::parse(&text, Path::new("server.toml")).unwrap_err();
        assert!(error.to_string().contains("second address"), "{error}");
    }

    #[test]
    fn a_trust_domain_is_one_and_needs_uris() {
        let with = |principal: &str, domain: &str| {
            let line = format!("principal = {principal}\ntrust_domain = {domain:?}");
            let text = EXAMPLE.replace("principal = [\"email\", \"dns\"]", &line);
            assert!(text.contains(domain));
            ServerConfig::parse(&text, Path::new("server.toml"))
        };
        let config = with(r#"["uri"]"#, "example.org").unwrap();
        let domain = config.authorities[0].rule.trust_domain.as_ref();
        assert_eq!(
            domain.map(ToString::to_string).as_deref(),
            Some("example.org")
        );
        for (principal, domain, words) in [
            (r#"["email"]"#, "example.org", "no SPIFFE id is read"),
            (r#"["uri"]"#, "spiffe://example.org", "trust domain"),
        ] {
            let error = with(principal, domain).unwrap_err();
            let message = error.to_string();
            assert!(message.contains("authority.trust_domain"), "{message}");
            assert!(message.contains(words), "{message}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn the_number_of_engines_is_an_unknown_key_that_names_the_command_line() {
        let text = format!("engines = 3\n{EXAMPLE}");
        let error = ServerConfig::parse(&text, Path::new("server.toml")).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("server.toml:1: unknown field `engines`"),
            "{message}"
        );
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("adit-server run --engines N"), "{hint}");
    }

    proptest! {
        /// Half-written, garbled, cut: an error that names the file, never a panic.
        #[test]
        fn a_damaged_file_is_refused_by_name(
            cut in 0..EXAMPLE.len(),
            insert in ".{0,8}",
            drop in 0usize..20,
        ) {
            let start = (0..=cut).rev().find(|&at| EXAMPLE.is_char_boundary(at)).unwrap_or(0);
            let rest = (start + drop).min(EXAMPLE.len());
            let rest = (rest..=EXAMPLE.len()).find(|&at| EXAMPLE.is_char_boundary(at)).unwrap();
            let text = format!("{}{insert}{}", &EXAMPLE[..start], &EXAMPLE[rest..]);
            if let Err(error) = ServerConfig::parse(&text, Path::new("server.toml")) {
                prop_assert!(error.to_string().starts_with("server.toml"), "{}", error);
            }
        }
    }
}
