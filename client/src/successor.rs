//! The certificate that follows the present one: asked for in the open session, written into the profile.
//!
//! At two thirds of a certificate's life a new key is made and the gateway asked to certify it; the profile is
//! replaced in one step, or the files that it names for both, as a [pair]. Nobody has to do anything, and
//! who is revoked has no session to ask in. What cannot be replaced is found out before the gateway is asked.

use std::path::PathBuf;

use adit_core::close::{Refusal, Retry};
use adit_core::identity;
use adit_core::session::certificate::Issued;
use adit_net::exit;
use adit_net::files::{self, FileError};
use adit_pki::csr;
use adit_pki::{AuthorityError, KeyType};
use aws_lc_rs::rand;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde::Deserialize;
use toml::Spanned;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::pair;
use crate::profile::{Keeping, Profile, ProfileError};

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
    /// What was said already, and is not to be said every time.
    told: Option<String>,
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
            told: None,
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
            if let Err(error) = self.can_replace() {
                let text = exit::chain(&error);
                let hint = error
                    .hint()
                    .unwrap_or_else(|| "make it writable".to_owned());
                if self.is_new(&text) {
                    warn!(
                        error = text,
                        "the certificate cannot be renewed; {hint}, or set renew = false in the profile and renew it \
                         by other means"
                    );
                }
                self.pause(now, LONGEST_PAUSE);
                return None;
            }
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
            // Asking again soon cannot help.
            Err(refusal) if refusal.kind.retry() == Retry::Never => {
                if self.is_new(&refusal.to_string()) {
                    info!(reason = %refusal, "the gateway does not renew the certificate");
                }
                self.pause(now, LONGEST_PAUSE);
                return false;
            }
            Err(refusal) => {
                warn!(reason = %refusal, "the certificate was not renewed");
                return false;
            }
        };
        match self.replace(issued, &prepared.key_pem) {
            Ok(leaf) => {
                self.follow(&leaf, now);
                info!(profile = %self.path.display(), "the certificate was renewed");
                true
            }
            Err(error) => {
                warn!(
                    error = exit::chain(&error),
                    "the renewed certificate is not used"
                );
                false
            }
        }
    }

    /// Goes by this certificate from now on, whoever put it into the profile.
    pub fn follow(&mut self, leaf: &[u8], now: i64) {
        if leaf != self.present {
            self.failures = 0;
            self.told = None;
            self.schedule(leaf, now.saturating_add(SHORTEST));
        }
    }

    /// Finds out when to ask for what follows `leaf`; not before `earliest`.
    fn schedule(&mut self, leaf: &[u8], earliest: i64) {
        self.present = leaf.to_vec();
        // What cannot be read now may be when the time comes.
        let is_ours = Profile::load(&self.path).map_or(true, |profile| {
            profile.renew && profile.keeping != Keeping::Mixed
        });
        let card = identity::card(leaf).ok().filter(|_| is_ours);
        self.due = card.map(|card| {
            let life = (card.not_before, card.not_after);
            two_thirds(life, chance()).max(earliest)
        });
    }

    /// Whether what the gateway gives could be put where the present certificate is.
    fn can_replace(&self) -> Result<(), FileError> {
        match Profile::load(&self.path).map(|profile| profile.keeping) {
            Ok(Keeping::Inline) => files::probe(&files::resolved(&self.path)),
            Ok(Keeping::Files(pair)) => pair.probe(),
            // Nothing of the kind is asked; what is wrong with a changed profile is told elsewhere.
            Ok(Keeping::Mixed) | Err(_) => Ok(()),
        }
    }

    /// Puts certificate and key where the present ones are; gives the certificate.
    fn replace(&self, issued: &Issued, key_pem: &str) -> Result<Vec<u8>, SuccessorError> {
        let text = Zeroizing::new(files::read_private_text(&self.path)?);
        let present = Profile::parse(&text, &self.path)?;
        if present.credentials.chain.first().map(|leaf| &leaf[..]) != Some(&self.present) {
            return Err(SuccessorError::Replaced);
        }
        let leaf = self.usable(&issued.certificate, key_pem);
        let leaf = leaf.ok_or(SuccessorError::Unusable)?;
        match present.keeping {
            Keeping::Inline => {
                let raw = Raw::read(&text).ok_or(SuccessorError::Replaced)?;
                let renewed = raw
                    .renewed(&text, &issued.certificate, key_pem)
                    .ok_or(SuccessorError::Unusable)?;
                Profile::parse(&renewed, &self.path).map_err(|_| SuccessorError::Unusable)?;
                let path = files::resolved(&self.path);
                files::write_like(&path, &path, renewed.as_bytes())?;
            }
            Keeping::Files(pair) => pair.replace(&issued.certificate, key_pem)?,
            Keeping::Mixed => return Err(SuccessorError::Replaced),
        }
        Ok(leaf)
    }

    /// The leaf of a chain for this very key and for the holder of the present certificate.
    fn usable(&self, certificate_pem: &str, key_pem: &str) -> Option<Vec<u8>> {
        let leaf = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok()?;
        let names = |leaf: &[u8]| Some(identity::card(leaf).ok()?.names);
        let is_same = names(&leaf)? == names(&self.present)?;
        let fits = pair::fits(certificate_pem.as_bytes(), key_pem.as_bytes());
        (is_same && fits).then(|| leaf.to_vec())
    }

    /// Whether this was not the last thing said; from now on it is.
    fn is_new(&mut self, text: &str) -> bool {
        self.told.replace(text.to_owned()).as_deref() != Some(text)
    }

    fn pause(&mut self, now: i64, pause: i64) {
        self.due = Some(now.saturating_add(pause));
    }

    fn retry(&mut self, now: i64) {
        let pause = FIRST_PAUSE << self.failures.min(MOST_DOUBLINGS);
        self.failures += 1;
        self.pause(now, pause);
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
/// Where asking again cannot help unless somebody changes something first.
const LONGEST_PAUSE: i64 = FIRST_PAUSE << MOST_DOUBLINGS;
/// Certificates of minutes would be renewed all the time.
const SHORTEST: i64 = 60;

#[cfg(test)]
mod tests {
    use adit_core::close::RefusalKind;

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
    fn the_time_comes_at_two_thirds_or_a_little_before() {
        for chance in [0, 77, 255] {
            let due = two_thirds((1000, 1000 + 9000), chance);
            assert!((6550..=7000).contains(&due), "{due}");
        }
        assert_eq!(two_thirds((5, 4), 0), 5);
        assert!(two_thirds((i64::MIN, i64::MAX), 255) < i64::MAX);
    }

    fn due_at(moment: i64) -> Successor {
        Successor {
            path: PathBuf::from("/nonexistent"),
            present: Vec::new(),
            due: Some(moment),
            prepared: None,
            failures: 0,
            told: None,
        }
    }

    #[test]
    fn a_request_is_made_once_and_then_less_and_less_often() {
        let mut successor = due_at(100);
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

    #[test]
    fn what_asking_again_cannot_help_is_told_once_and_asked_each_hour() {
        let mut successor = due_at(100);
        let refused = Err(Refusal::new(RefusalKind::NotIssuing, "of that authority"));
        let mut now = 100;
        for round in 0..3 {
            assert!(successor.request(now).is_some());
            successor.asked(now);
            assert!(!successor.take(&refused, now + 1));
            assert_eq!(successor.due, Some(now + 1 + LONGEST_PAUSE));
            let text = refused.as_ref().unwrap_err().to_string();
            assert!(!successor.is_new(&text), "round {round}");
            now += 1 + LONGEST_PAUSE;
        }
        assert!(successor.is_new("something else"));
        // Another certificate begins anew.
        successor.follow(b"other", now);
        assert_eq!(successor.told, None);
    }
}
