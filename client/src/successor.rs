//! The certificate that follows the present one: asked for in the open session, written into the profile.
//!
//! At two thirds of a certificate's life a new key is made and the gateway asked to certify it; the profile is
//! replaced in one step. Nobody has to do anything, and who is revoked has no session to ask in. A profile that
//! names files for certificate and key is left alone: whoever writes those files renews them.

use std::path::PathBuf;

use adit_core::close::{Refusal, RefusalKind};
use adit_core::identity;
use adit_core::session::certificate::Issued;
use adit_net::files::{self, FileError};
use adit_pki::csr;
use adit_pki::{AuthorityError, KeyType};
use aws_lc_rs::rand;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use toml::Spanned;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::profile::{Profile, ProfileError};
use crate::up::tls_config;

/// When to ask, and what was asked.
pub struct Successor {
    path: PathBuf,
    /// The certificate that is to be followed, in DER.
    present: Vec<u8>,
    /// When to ask next, Unix time; `None` is never.
    due: Option<i64>,
    /// What is asked, until it is answered.
    prepared: Option<Prepared>,
    failures: u32,
}

struct Prepared {
    request: Vec<u8>,
    key_pem: Zeroizing<String>,
    /// Whether it is on its way.
    is_asked: bool,
}

/// Why there is no successor, though the gateway gave one or was not asked.
#[derive(Debug, thiserror::Error)]
enum SuccessorError {
    #[error("a key cannot be made")]
    Key(#[from] AuthorityError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the profile has changed and cannot be read")]
    Profile(#[from] ProfileError),
    #[error("the profile has another certificate by now")]
    Replaced,
    #[error("the answer of the gateway holds no usable certificate")]
    Unusable,
}

impl Successor {
    /// What follows the certificate of `profile`.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        let mut successor = Self {
            path: profile.path.clone(),
            present: Vec::new(),
            due: None,
            prepared: None,
            failures: 0,
        };
        if let Some(leaf) = profile.credentials.chain.first() {
            successor.schedule(leaf, i64::MIN);
        }
        successor
    }

    /// What to ask the gateway, if the time has come and nothing is asked that may still be answered.
    pub fn request(&mut self, now: i64) -> Option<Vec<u8>> {
        if self.due? > now {
            return None;
        }
        if self
            .prepared
            .as_ref()
            .is_none_or(|prepared| prepared.is_asked)
        {
            // What was asked a while ago is answered no more: its session is over.
            match Prepared::new() {
                Ok(prepared) => self.prepared = Some(prepared),
                Err(error) => {
                    warn!(%error, "the certificate cannot be renewed");
                    self.retry(now);
                    return None;
                }
            }
        }
        self.prepared
            .as_ref()
            .map(|prepared| prepared.request.clone())
    }

    /// It was asked; the answer comes within seconds, or never.
    pub fn asked(&mut self, now: i64) {
        if let Some(prepared) = &mut self.prepared {
            prepared.is_asked = true;
            self.retry(now);
        }
    }

    /// Takes the answer; whether the profile has the new certificate from now on.
    pub fn take(&mut self, outcome: &Result<Issued, Refusal>, now: i64) -> bool {
        let Some(prepared) = self.prepared.take() else {
            return false;
        };
        let issued = match outcome {
            Ok(issued) => issued,
            Err(refusal) if is_no_offer(refusal.kind) => {
                if self.failures <= 1 {
                    info!(reason = %refusal, "the gateway does not renew the certificate");
                }
                return false;
            }
            Err(refusal) => {
                warn!(reason = %refusal, "the certificate was not renewed");
                return false;
            }
        };
        match self.replace(issued, &prepared.key_pem) {
            Ok(renewed) => {
                self.failures = 0;
                if let Some(leaf) = renewed.credentials.chain.first() {
                    self.follow(leaf, now);
                }
                info!(profile = %self.path.display(), "the certificate was renewed");
                true
            }
            Err(error) => {
                warn!(%error, "the renewed certificate is not used");
                false
            }
        }
    }

    /// Goes by this certificate from now on, whoever put it into the profile.
    pub fn follow(&mut self, leaf: &[u8], now: i64) {
        if leaf != self.present {
            self.schedule(leaf, now.saturating_add(SHORTEST));
        }
    }

    /// Finds out when to ask for what follows `leaf`; not before `earliest`.
    fn schedule(&mut self, leaf: &[u8], earliest: i64) {
        self.present = leaf.to_vec();
        let is_whole = files::read_private_text(&self.path)
            .ok()
            .and_then(|text| Raw::read(&text))
            .is_some();
        let card = identity::card(leaf).ok().filter(|_| is_whole);
        self.due = card.map(|card| {
            let life = (card.not_before, card.not_after);
            two_thirds(life, chance()).max(earliest)
        });
    }

    /// Puts certificate and key into the profile.
    fn replace(&self, issued: &Issued, key_pem: &str) -> Result<Profile, SuccessorError> {
        let text = Zeroizing::new(files::read_private_text(&self.path)?);
        let present = Profile::parse(&text, &self.path)?;
        if present.credentials.chain.first().map(|leaf| &leaf[..]) != Some(&self.present) {
            return Err(SuccessorError::Replaced);
        }
        let raw = Raw::read(&text).ok_or(SuccessorError::Replaced)?;
        let renewed = raw
            .renewed(&text, &issued.certificate, key_pem)
            .ok_or(SuccessorError::Unusable)?;
        let profile = Profile::parse(&renewed, &self.path).map_err(|_| SuccessorError::Unusable)?;
        // The certificate must be for this very key.
        tls_config(&profile).map_err(|_| SuccessorError::Unusable)?;
        files::write_private(&self.path, renewed.as_bytes())?;
        Ok(profile)
    }

    fn retry(&mut self, now: i64) {
        let pause = FIRST_PAUSE << self.failures.min(MOST_DOUBLINGS);
        self.failures += 1;
        self.due = Some(now.saturating_add(pause));
    }
}

impl Prepared {
    fn new() -> Result<Self, SuccessorError> {
        let made = csr::make(None, KeyType::EcdsaP256)?;
        let request = CertificateSigningRequestDer::from_pem_slice(made.request_pem.as_bytes())
            .map_err(|_| SuccessorError::Unusable)?;
        Ok(Self {
            request: request.to_vec(),
            key_pem: made.key_pem,
            is_asked: false,
        })
    }
}

/// Where certificate and key stand in a profile that has both in itself.
#[derive(Deserialize)]
struct Raw {
    certificate: Spanned<String>,
    key: Spanned<String>,
}

impl Raw {
    fn read(text: &str) -> Option<Self> {
        let raw: Self = toml::from_str(text).ok()?;
        let is_pem = |value: &Spanned<String>| value.get_ref().contains("-----BEGIN");
        (is_pem(&raw.certificate) && is_pem(&raw.key)).then_some(raw)
    }

    /// The same text with others in their places; everything else stays, comments included.
    fn renewed(&self, text: &str, certificate: &str, key: &str) -> Option<Zeroizing<String>> {
        let mut places = [
            (self.certificate.span(), certificate),
            (self.key.span(), key),
        ];
        places.sort_by_key(|(span, _)| span.start);
        let room = text.len() + certificate.len() + key.len() + 64;
        // Room for all of it: a growing string would leave copies of the key behind.
        let mut renewed = Zeroizing::new(String::with_capacity(room));
        let mut at = 0;
        for (span, pem) in places {
            if !pem.bytes().all(is_of_pem) {
                return None;
            }
            renewed.push_str(text.get(at..span.start)?);
            renewed.push_str("\"\"\"\n");
            renewed.push_str(pem.trim_end());
            renewed.push_str("\n\"\"\"");
            at = span.end;
        }
        renewed.push_str(text.get(at..)?);
        Some(renewed)
    }
}

/// What PEM is made of (RFC 7468 §3), none of which means anything in a string of TOML.
fn is_of_pem(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=- \n".contains(&byte)
}

/// Asking again soon cannot help.
fn is_no_offer(kind: RefusalKind) -> bool {
    matches!(kind, RefusalKind::NotIssuing | RefusalKind::NotFound)
}

/// Two thirds of a life, a little earlier or later, so that what was issued together is not renewed together;
/// `chance` is between 0 and 255.
fn two_thirds((not_before, not_after): (i64, i64), chance: u8) -> i64 {
    let life = not_after.saturating_sub(not_before).max(0);
    let jitter = i128::from(life) * i128::from(chance) / (20 * 255);
    let jitter = i64::try_from(jitter).unwrap_or_default();
    not_before
        .saturating_add(life / 3 * 2)
        .saturating_sub(jitter)
}

fn chance() -> u8 {
    let mut byte = [128];
    // Without randomness everybody renews at the same time, and that is all.
    let _ = rand::fill(&mut byte);
    byte[0]
}

/// The first pause after a request, in seconds: an answer takes less, and a gateway that restarts too.
const FIRST_PAUSE: i64 = 60;
/// Up to a pause of an hour.
const MOST_DOUBLINGS: u32 = 6;
/// Certificates of minutes would be renewed all the time.
const SHORTEST: i64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\ngateways = [\"vpn.example.com\"] # one\nkey = \"\"\"\n-----BEGIN PRIVATE KEY-----\nOLD\n\"\"\"\nfull_tunnel = true\ncertificate = '''-----BEGIN CERTIFICATE-----\nOLD'''\nca = \"x\"\n";

    #[test]
    fn only_certificate_and_key_are_replaced() {
        let raw = Raw::read(TEXT).unwrap();
        let (certificate, key) = (
            "-----BEGIN CERTIFICATE-----\nNEW\n",
            "-----BEGIN PRIVATE KEY-----\nKEY\n",
        );
        let renewed = raw.renewed(TEXT, certificate, key).unwrap();
        let table: toml::Table = renewed.parse().unwrap();
        assert_eq!(table["certificate"].as_str(), Some(certificate));
        assert_eq!(table["key"].as_str(), Some(key));
        assert_eq!(table["full_tunnel"].as_bool(), Some(true));
        assert!(renewed.starts_with("# mine\ngateways = [\"vpn.example.com\"] # one\nkey = "));
        assert!(!renewed.contains("OLD"));
    }

    #[test]
    fn what_is_no_pem_does_not_get_into_the_profile() {
        let raw = Raw::read(TEXT).unwrap();
        for evil in ["\"\"\"\nfull_tunnel = false", "a\\u0022", "é"] {
            assert!(raw.renewed(TEXT, evil, "key").is_none());
        }
    }

    #[test]
    fn a_profile_that_names_files_is_left_alone() {
        let text = "certificate = \"alice.pem\"\nkey = \"-----BEGIN PRIVATE KEY-----\"\n";
        assert!(Raw::read(text).is_none());
    }

    #[test]
    fn the_time_comes_at_two_thirds_or_a_little_before() {
        for chance in [0, 77, 255] {
            let due = two_thirds((1000, 1000 + 9000), chance);
            assert!((6550..=7000).contains(&due), "{due}");
        }
        assert_eq!(two_thirds((5, 4), 0), 5);
        assert!(two_thirds((i64::MIN, i64::MAX), 255) < i64::MAX);
    }

    #[test]
    fn a_request_is_made_once_and_then_less_and_less_often() {
        let mut successor = Successor {
            path: PathBuf::from("/nonexistent"),
            present: Vec::new(),
            due: Some(100),
            prepared: None,
            failures: 0,
        };
        assert_eq!(successor.request(99), None);
        let first = successor.request(100).unwrap();
        assert_eq!(
            successor.request(105),
            Some(first.clone()),
            "no session yet"
        );
        successor.asked(105);
        assert_eq!(successor.request(105 + FIRST_PAUSE - 1), None);
        let second = successor.request(105 + FIRST_PAUSE).unwrap();
        assert_ne!(first, second, "with another key");
        let mut now = 105 + FIRST_PAUSE;
        for _ in 0..50 {
            successor.asked(now);
            let pause = successor.due.unwrap() - now;
            assert!((2 * FIRST_PAUSE..=64 * FIRST_PAUSE).contains(&pause));
            now += pause;
            assert!(successor.request(now).is_some());
        }
    }
}
