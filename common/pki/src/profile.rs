//! The profile of a client: the one file a user needs, as text.
//!
//! Guarantee: the text is valid TOML with the keys that `adit up` knows, whatever the arguments
//! contain. It holds a private key and belongs in a file of mode 0600.

use std::fmt::Write as _;

use toml::Value;
use zeroize::Zeroizing;

use crate::certificate::Credential;

/// What goes into a profile.
#[derive(Clone, Copy)]
pub struct Profile<'a> {
    /// `host:port`, in the order in which they are to be tried.
    pub gateways: &'a [String],
    /// The name in the gateway's certificate, if it is not the host of the first gateway.
    pub server_name: Option<&'a str>,
    /// Whose profile it is, for the comment on top.
    pub principal: &'a str,
    /// The certificate of the client, with intermediates if there are any.
    pub certificate_pem: &'a str,
    /// Its private key.
    pub key_pem: &'a str,
    /// The authority of the gateway's certificate.
    pub authority_pem: &'a str,
}

impl<'a> Profile<'a> {
    /// The profile of the holder of `credential` for gateways of the same root.
    pub fn new(credential: &'a Credential, gateways: &'a [String]) -> Self {
        Self {
            gateways,
            server_name: None,
            principal: &credential.principal,
            certificate_pem: &credential.certificate_pem,
            key_pem: &credential.key_pem,
            authority_pem: &credential.authority_pem,
        }
    }
}

/// The text of a profile.
pub fn render(profile: &Profile<'_>) -> Zeroizing<String> {
    let lengths =
        profile.certificate_pem.len() + profile.key_pem.len() + profile.authority_pem.len();
    // Room for all of it: a growing string would leave copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(lengths + lengths / 8 + FRAME));
    let gateways = profile
        .gateways
        .iter()
        .map(|gateway| Value::from(gateway.as_str()))
        .collect();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "# Adit profile of {}. Keep it secret: it holds a private key.",
        comment(profile.principal)
    );
    let _ = writeln!(
        text,
        "\n# Where to connect, tried in this order.\ngateways = {}",
        Value::Array(gateways)
    );
    if let Some(name) = profile.server_name {
        let _ = writeln!(
            text,
            "\n# The name that the gateway's certificate must carry.\nserver_name = {}",
            Value::from(name)
        );
    }
    for (comment, key, pem) in [
        (
            "Who you are: your certificate, shown to the gateway.",
            "certificate",
            profile.certificate_pem,
        ),
        (
            "Your private key: whoever has it is you.",
            "key",
            profile.key_pem,
        ),
        (
            "Whom you trust: the authority that signed the gateway's certificate.",
            "ca",
            profile.authority_pem,
        ),
    ] {
        let _ = write!(text, "\n# {comment}\n{key} = ");
        push_block(&mut text, pem);
        text.push('\n');
    }
    text
}

/// Appends a multi-line string without passing the secret through another allocation.
fn push_block(text: &mut String, pem: &str) {
    text.push_str("\"\"\"\n");
    for character in pem.trim_end().chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '\n' | '\t' => text.push(character),
            '\r' => {}
            // PEM has none; TOML allows none unescaped.
            control if control.is_control() => {}
            other => text.push(other),
        }
    }
    text.push_str("\n\"\"\"");
}

fn comment(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .collect()
}

/// More than the comments, the keys and a handful of gateways take.
const FRAME: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn render_with(gateways: &[&str], server_name: Option<&str>, key_pem: &str) -> toml::Table {
        let gateways: Vec<_> = gateways.iter().map(|&gateway| gateway.to_owned()).collect();
        let text = render(&Profile {
            gateways: &gateways,
            server_name,
            principal: "alice@example.com\n[evil]",
            certificate_pem: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            key_pem,
            authority_pem: "ca",
        });
        text.parse().unwrap()
    }

    #[test]
    fn a_profile_is_toml_with_the_keys_of_the_client() {
        let table = render_with(
            &["vpn.example.com:443", "[fd00::1]:443"],
            Some("vpn"),
            "key\r\nline\n",
        );
        let keys: Vec<_> = table.keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 5, "{keys:?}");
        assert_eq!(table["gateways"][1].as_str(), Some("[fd00::1]:443"));
        assert_eq!(table["server_name"].as_str(), Some("vpn"));
        assert_eq!(table["key"].as_str(), Some("key\nline\n"));
    }

    #[test]
    fn an_absent_server_name_is_left_out() {
        assert!(!render_with(&["a:1"], None, "key").contains_key("server_name"));
    }

    #[test]
    fn no_argument_can_leave_its_string() {
        let table = render_with(&["\"]\nevil = 1"], Some("a\"\\\n"), "\"\"\"\nevil = \"\\");
        assert!(!table.contains_key("evil"));
        assert_eq!(table["server_name"].as_str(), Some("a\"\\\n"));
        assert_eq!(table["key"].as_str(), Some("\"\"\"\nevil = \"\\\n"));
    }
}
