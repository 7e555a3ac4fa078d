//! The request paths that lead to the tunnel (RFC 9484 §3) and the scope a request asks for (§4.6).
//!
//! A template is a path with the variables `{target}` and `{ipproto}`, each at most once, or a
//! literal path: some clients cannot expand variables. An expanded value ends at the next `/`, `?`
//! or `&`. The values must fit the grammar of §4.6; a DNS name fits it but is not supported.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

/// What a request is limited to (RFC 9484 §4.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    /// The only destinations asked for; `None` is the wildcard.
    pub target: Option<IpNet>,
    /// The only IP protocol asked for; `None` is the wildcard.
    pub protocol: Option<u8>,
}

/// A path that leads to the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate(Vec<Part>);

impl PathTemplate {
    /// Matches a request's path: `None` if it leads elsewhere, an error if its variables are bad.
    pub fn expand(&self, path: &str) -> Option<Result<Scope, ScopeError>> {
        let (mut target, mut protocol) = ("*", "*");
        let mut rest = path;
        for part in &self.0 {
            match part {
                Part::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
                Part::Target => target = take_value(&mut rest),
                Part::Protocol => protocol = take_value(&mut rest),
            }
        }
        rest.is_empty().then(|| {
            Ok(Scope {
                target: parse_target(target)?,
                protocol: parse_protocol(protocol)?,
            })
        })
    }
}

impl Default for PathTemplate {
    /// The template of RFC 9484 §3 for a client that knows only host and port.
    fn default() -> Self {
        let literal = |text: &str| Part::Literal(text.to_owned());
        Self(vec![
            literal("/.well-known/masque/ip/"),
            Part::Target,
            literal("/"),
            Part::Protocol,
            literal("/"),
        ])
    }
}

impl FromStr for PathTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if !text.starts_with('/') {
            return Err(TemplateError::NotAPath);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, tail)) = rest.split_once('{') {
            let (name, tail) = tail.split_once('}').ok_or(TemplateError::Unclosed)?;
            let variable = match name {
                "target" => Part::Target,
                "ipproto" => Part::Protocol,
                _ => return Err(TemplateError::Variable(name.to_owned())),
            };
            if parts.contains(&variable) {
                return Err(TemplateError::Twice(name.to_owned()));
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(variable);
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// It does not begin with a slash.
    #[error("a path template begins with \"/\"")]
    NotAPath,
    /// A brace that is never closed.
    #[error("a variable of the path template is not closed")]
    Unclosed,
    /// A variable that RFC 9484 does not know, or in a form that is not supported.
    #[error("unknown variable {{{0}}} in the path template")]
    Variable(String),
    /// A variable twice.
    #[error("variable {{{0}}} occurs twice in the path template")]
    Twice(String),
}

/// Why the variables of a path are bad.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScopeError {
    /// The target is neither a prefix nor a name nor `*`.
    #[error("the target is neither an IP prefix without host bits nor \"*\"")]
    Target,
    /// The target is a DNS name.
    #[error("a DNS name as target is not supported, use an IP prefix or \"*\"")]
    Name,
    /// The protocol is neither a number up to 255 nor `*`.
    #[error("ipproto is neither a number from 0 to 255 nor \"*\"")]
    Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Target,
    Protocol,
}

fn take_value<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find(['/', '?', '&']).unwrap_or(rest.len());
    let (value, tail) = rest.split_at(end);
    *rest = tail;
    value
}

fn parse_target(encoded: &str) -> Result<Option<IpNet>, ScopeError> {
    let decoded = percent_decode(encoded).ok_or(ScopeError::Target)?;
    if decoded == "*" {
        return Ok(None);
    }
    let (address, length) = match decoded.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (&decoded[..], None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        let name = length.is_none() && !decoded.is_empty() && decoded.bytes().all(is_name_byte);
        return Err(if name {
            ScopeError::Name
        } else {
            ScopeError::Target
        });
    };
    let net = match length {
        None => IpNet::from(address),
        Some(length) => {
            let length = parse_decimal(length).ok_or(ScopeError::Target)?;
            IpNet::new(address, length).map_err(|_| ScopeError::Target)?
        }
    };
    if net.network() == address {
        Ok(Some(net))
    } else {
        Err(ScopeError::Target)
    }
}

fn parse_protocol(encoded: &str) -> Result<Option<u8>, ScopeError> {
    let decoded = percent_decode(encoded).ok_or(ScopeError::Protocol)?;
    if decoded == "*" {
        return Ok(None);
    }
    parse_decimal(&decoded)
        .map(Some)
        .ok_or(ScopeError::Protocol)
}

/// One to three digits, no sign (RFC 9484 §4.6).
fn parse_decimal(text: &str) -> Option<u8> {
    let digits = text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// RFC 3986 §2.1.
fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push((high << 4 | low) as u8);
    }
    String::from_utf8(out).ok()
}

/// What of reg-name (RFC 3986 §3.2.2) occurs in DNS names.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(path: &str) -> Option<Result<Scope, ScopeError>> {
        PathTemplate::default().expand(path)
    }

    #[test]
    fn wildcards_mean_everything() {
        assert_eq!(
            scope("/.well-known/masque/ip/*/*/"),
            Some(Ok(Scope::default()))
        );
        assert_eq!(
            scope("/.well-known/masque/ip/%2A/%2a/"),
            Some(Ok(Scope::default()))
        );
    }

    #[test]
    fn prefixes_and_protocols_are_read() {
        for (path, target, protocol) in [
            (
                "/.well-known/masque/ip/192.0.2.0%2F24/17/",
                Some("192.0.2.0/24"),
                Some(17),
            ),
            (
                "/.well-known/masque/ip/192.0.2.7/*/",
                Some("192.0.2.7/32"),
                None,
            ),
            (
                "/.well-known/masque/ip/2001%3Adb8%3A%3A42/*/",
                Some("2001:db8::42/128"),
                None,
            ),
            (
                "/.well-known/masque/ip/2001%3adb8%3a%3a%2f32/0/",
                Some("2001:db8::/32"),
                Some(0),
            ),
        ] {
            let expected = Scope {
                target: target.map(|net| net.parse().unwrap()),
                protocol,
            };
            assert_eq!(scope(path), Some(Ok(expected)), "{path}");
        }
    }

    #[test]
    fn bad_values_in_a_matching_path_are_errors() {
        for (values, error) in [
            ("192.0.2.1%2F24/*", ScopeError::Target),
            ("192.0.2.0%2F33/*", ScopeError::Target),
            ("192.0.2.0%2F+8/*", ScopeError::Target),
            ("192.0.2.0%2F/*", ScopeError::Target),
            ("fe80%3A%3A1%25eth0/*", ScopeError::Target),
            ("%2/*", ScopeError::Target),
            ("%ff/*", ScopeError::Target),
            ("/*", ScopeError::Target),
            ("example.com/*", ScopeError::Name),
            ("*/256", ScopeError::Protocol),
            ("*/tcp", ScopeError::Protocol),
            ("*/+6", ScopeError::Protocol),
            ("*/", ScopeError::Protocol),
        ] {
            let path = format!("/.well-known/masque/ip/{values}/");
            assert_eq!(scope(&path), Some(Err(error)), "{path}");
        }
    }

    #[test]
    fn other_paths_lead_elsewhere() {
        for path in [
            "/",
            "",
            "/.well-known/masque/ip/*/*",
            "/.well-known/masque/udp/a/1/",
            "/.well-known/masque/ip/*/*/x",
        ] {
            assert_eq!(scope(path), None, "{path}");
        }
    }

    #[test]
    fn templates_may_be_literal_or_use_a_query() {
        let vpn: PathTemplate = "/vpn".parse().unwrap();
        assert_eq!(vpn.expand("/vpn"), Some(Ok(Scope::default())));
        assert_eq!(vpn.expand("/vpn/"), None);
        let query: PathTemplate = "/ip?t={target}&i={ipproto}".parse().unwrap();
        let expected = Scope {
            target: None,
            protocol: Some(6),
        };
        assert_eq!(query.expand("/ip?t=*&i=6"), Some(Ok(expected)));
        assert_eq!(
            "/.well-known/masque/ip/{target}/{ipproto}/".parse(),
            Ok(PathTemplate::default())
        );
    }

    #[test]
    fn unusable_templates_are_refused() {
        for (text, error) in [
            ("vpn", TemplateError::NotAPath),
            ("/{target", TemplateError::Unclosed),
            ("/{host}", TemplateError::Variable("host".into())),
            ("/{?target}", TemplateError::Variable("?target".into())),
            ("/{target}/{target}", TemplateError::Twice("target".into())),
        ] {
            assert_eq!(text.parse::<PathTemplate>(), Err(error));
        }
    }

    proptest! {
        #[test]
        fn random_paths_never_panic(values in "\\PC{0,40}", template in "/\\PC{0,20}") {
            let _ = scope(&format!("/.well-known/masque/ip/{values}/"));
            if let Ok(template) = template.parse::<PathTemplate>() {
                let _ = template.expand(&values);
            }
        }
    }
}
