//! Revocation lists in their files: reading them, noticing others, and saying in time that they grow old.
//!
//! A list is used after its signature was checked, and never instead of a newer one of the same authority.

use std::path::{Path, PathBuf};

use adit_core::identity::revocation::{Freshness, ListNumber};
use adit_net::files::{self, Versions};
use adit_pki::description::instant;
use adit_pki::store;
use adit_tunnel::tls::{Authorities, Authority, CrlPolicy, SignedList};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::ServerConfig;
use crate::load::LoadError;

/// Reads the lists of an authority. An intermediate that signed one stands in the same file, or in `ca.pem`
/// beside it, as in a folder of `adit-ca`.
///
/// # Errors
/// When a file cannot be read, holds no list, or one that is not of this authority.
pub fn read(authority: &Authority, paths: &[PathBuf]) -> Result<Vec<SignedList>, LoadError> {
    let mut lists = Vec::new();
    for path in paths {
        let (found, beside) = parts(path)?;
        for list in found {
            let read = authority.read_list(list.clone(), &beside).or_else(|error| {
                let folder = path.parent().unwrap_or_else(|| Path::new(""));
                let beside = [beside.clone(), certificates_in(folder)].concat();
                authority.read_list(list, &beside).map_err(|_| error)
            });
            lists.push(read.map_err(|error| LoadError::List {
                path: path.clone(),
                error,
            })?);
        }
    }
    Ok(lists)
}

/// The certificates of the authority with this `adit-ca` folder, from its root down; none if it is no such folder.
pub fn certificates_in(folder: &Path) -> Vec<CertificateDer<'static>> {
    let read = |name: &str| -> Vec<CertificateDer<'static>> {
        let pem = files::read(&folder.join(name)).unwrap_or_default();
        let certificates: Result<_, _> = CertificateDer::pem_slice_iter(&pem).collect();
        certificates.unwrap_or_default()
    };
    let above = read(store::CHAIN).into_iter().rev();
    above.chain(read(store::CERTIFICATE)).collect()
}

/// A line for each list that counts.
pub fn facts(authorities: &Authorities) -> Vec<String> {
    each(authorities)
        .map(|(authority, list)| {
            let facts = list.facts();
            format!(
                "{}: revocation list {} of {} revokes {}; the next is due by {}",
                authority.name(),
                facts.number,
                facts.issuer_name,
                facts.entries,
                instant(facts.next_update),
            )
        })
        .collect()
}

/// A line for each list that should have been replaced by `now`, since 1970.
pub fn warnings(authorities: &Authorities, now: i64) -> Vec<String> {
    each(authorities)
        .filter_map(|(authority, list)| {
            let facts = list.facts();
            let (name, policy) = (authority.name(), authority.policy());
            let state = match (facts.freshness(now), policy) {
                (Freshness::Fresh, _) => return None,
                (Freshness::Ageing, _) => "is past half its life",
                (Freshness::Expired, CrlPolicy::Soft) => {
                    "is too old; what it revokes stays revoked, what was revoked since is let in"
                }
                (Freshness::Expired, CrlPolicy::Hard) => "is too old; newcomers are refused",
            };
            Some(format!(
                "{name}: revocation list {} of {} {state}; the next is due by {}: \
                 bring a fresh one, as `adit-ca crl` writes it",
                facts.number,
                facts.issuer_name,
                instant(facts.next_update),
            ))
        })
        .collect()
}

/// The newest list of everybody who ever signed one that counted here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Newest(Vec<Seen>);

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    /// For people.
    issuer: String,
    signer: [u8; 32],
    number: ListNumber,
    /// Since 1970.
    this_update: i64,
}

impl Seen {
    fn of(list: &SignedList) -> Self {
        let facts = list.facts();
        Self {
            issuer: facts.issuer_name.clone(),
            signer: list.signer(),
            number: facts.number,
            this_update: facts.this_update,
        }
    }

    fn is_older_than(&self, other: &Self) -> bool {
        (self.number, self.this_update) < (other.number, other.this_update)
    }
}

impl Newest {
    /// Refuses lists that are older than those that counted.
    ///
    /// # Errors
    /// The first one that is.
    pub fn refuse_older(&self, wanted: &Authorities) -> Result<(), Replay> {
        for new in each(wanted).map(|(_, list)| Seen::of(list)) {
            if let Some(old) = self.of_signer(&new)
                && new.is_older_than(old)
            {
                return Err(Replay {
                    issuer: new.issuer,
                    number: new.number,
                    newest: old.number,
                });
            }
        }
        Ok(())
    }

    /// Remembers the lists that count now, and gives those that did not count before.
    pub fn remember<'a>(
        &mut self,
        authorities: &'a Authorities,
    ) -> Vec<(&'a Authority, &'a SignedList)> {
        let mut news = Vec::new();
        for (authority, list) in each(authorities) {
            let new = Seen::of(list);
            if self.of_signer(&new) != Some(&new) {
                self.0.retain(|seen| seen.signer != new.signer);
                self.0.push(new);
                news.push((authority, list));
            }
        }
        news
    }

    fn of_signer(&self, list: &Seen) -> Option<&Seen> {
        self.0.iter().find(|seen| seen.signer == list.signer)
    }
}

/// An old list in place of a newer one.
#[derive(Debug, thiserror::Error)]
#[error("revocation list {number} of {issuer} is older than list {newest}, which has counted here")]
pub struct Replay {
    issuer: String,
    number: ListNumber,
    newest: ListNumber,
}

/// Which versions of the files have been seen.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Versions,
}

impl Watch {
    /// Whether a file is not as it was at the last call; true at the first.
    pub fn changed(&mut self, config: &ServerConfig) -> bool {
        let paths = config.authorities.iter().flat_map(|one| &one.crls);
        let now = Versions::of(paths.cloned());
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

/// How old the lists were when it was told last.
#[derive(Debug, Default)]
pub struct Ages {
    told: Vec<String>,
    at: i64,
}

impl Ages {
    /// Tells what there is to warn of, such as by [`warnings`]: at once what is new, all of it every hour.
    pub fn tell(&mut self, warnings: Vec<String>, now: i64) {
        for warning in self.due(warnings, now) {
            warn!("{warning}");
        }
    }

    fn due(&mut self, warnings: Vec<String>, now: i64) -> Vec<String> {
        let again = now - self.at >= REMIND_S;
        if again {
            self.at = now;
        }
        let due = warnings
            .iter()
            .filter(|warning| again || !self.told.contains(warning))
            .cloned()
            .collect();
        self.told = warnings;
        due
    }
}

fn each(authorities: &Authorities) -> impl Iterator<Item = (&Authority, &SignedList)> {
    let all = authorities.all().iter();
    all.flat_map(|authority| authority.lists().iter().map(move |list| (authority, list)))
}

type Parts = (
    Vec<CertificateRevocationListDer<'static>>,
    Vec<CertificateDer<'static>>,
);

/// The lists of a file, and the certificates beside them.
fn parts(path: &Path) -> Result<Parts, LoadError> {
    let content = files::read(path)?;
    // Other authorities publish their lists in DER.
    if content.first() == Some(&SEQUENCE) {
        return Ok((vec![content.into()], Vec::new()));
    }
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&content).collect();
    let beside: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    match (lists, beside) {
        (Ok(lists), Ok(beside)) if !lists.is_empty() => Ok((lists, beside)),
        _ => Err(LoadError::Pem {
            path: path.to_owned(),
            what: "revocation list (X509 CRL)",
        }),
    }
}

/// The first byte of anything signed, in DER.
const SEQUENCE: u8 = 0x30;
/// How long a warning may be out of sight.
const REMIND_S: i64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_told_at_once_and_again_every_hour() {
        let mut ages = Ages::default();
        let warning = |text: &str| vec![text.to_owned()];
        assert!(ages.due(Vec::new(), 10_000).is_empty());
        assert_eq!(ages.due(warning("old"), 10_060), warning("old"));
        assert!(ages.due(warning("old"), 10_120).is_empty());
        assert_eq!(ages.due(warning("older"), 10_180), warning("older"));
        assert_eq!(ages.due(warning("older"), 13_600), warning("older"));
        assert!(ages.due(warning("older"), 17_199).is_empty());
        assert_eq!(ages.due(warning("older"), 17_200), warning("older"));
    }
}
