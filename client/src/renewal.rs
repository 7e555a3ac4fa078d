//! A renewed certificate in the profile of a tunnel that is up: noticed, and checked before anything changes.
//!
//! What is wrong with it is found here, as far as this end can tell; the session goes on as it is meanwhile. Of a
//! changed profile only certificate, key and authority count before the next start.

use std::path::PathBuf;
use std::sync::Arc;

use adit_core::identity::{self, Card, Purpose};
use adit_net::files::Versions;
use adit_tunnel::tls::{QuicClient, TlsError};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use crate::profile::{Profile, ProfileError};
use crate::up::tls_config;

/// The files that a tunnel's certificate comes from, and the certificate that counts.
#[derive(Debug)]
pub struct Watch {
    profile: PathBuf,
    files: Versions,
    leaf: CertificateDer<'static>,
    card: Card,
}

/// Why a changed profile changes nothing.
#[derive(Debug, Error)]
pub enum RenewalError {
    /// It cannot be read.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Certificate, key and authority do not make a client.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A certificate of the chain is none.
    #[error("certificate {} of the chain cannot be read", .0 + 1)]
    Unreadable(usize),
    /// It names somebody else.
    #[error("the certificate is for {found}, and this tunnel was brought up for {expected}")]
    Names {
        /// Whom it names.
        found: String,
        /// Who brought the tunnel up.
        expected: String,
    },
    /// It is not for clients.
    #[error("the certificate is not made for clients")]
    Purpose,
    /// An earlier one came back.
    #[error("the certificate is older than the one in use")]
    Older,
    /// Its time has not come, or this machine's clock is wrong.
    #[error("the certificate is not valid yet")]
    Early,
    /// Its time is over.
    #[error("the certificate has expired")]
    Late,
}

impl Watch {
    /// Watches the files of a profile that was read just now.
    ///
    /// # Errors
    /// When its own certificate cannot be read.
    pub fn new(profile: &Profile) -> Result<Self, RenewalError> {
        let leaf = profile.credentials.chain.first();
        let leaf = leaf.ok_or(RenewalError::Unreadable(0))?.clone();
        let card = identity::card(&leaf).map_err(|_| RenewalError::Unreadable(0))?;
        Ok(Self {
            profile: profile.path.clone(),
            files: Versions::of(profile.files.iter().cloned()),
            leaf,
            card,
        })
    }

    /// The certificate that counts, in DER.
    #[must_use]
    pub fn leaf(&self) -> &[u8] {
        &self.leaf
    }

    /// What it says.
    #[must_use]
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Whether a file is another than at the last look.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.files.again() != self.files
    }

    /// Reads the profile again, at `now` in seconds since 1970: what to show from now on, if that is another
    /// certificate.
    ///
    /// # Errors
    /// When it cannot take the place of the one that counts.
    pub fn look(&mut self, now: i64) -> Result<Option<Arc<QuicClient>>, RenewalError> {
        // Taken before the files are read: what changes meanwhile is looked at once more.
        self.files = self.files.again();
        let profile = Profile::load(&self.profile)?;
        for path in &profile.files {
            self.files.add(path);
        }
        let chain = &profile.credentials.chain;
        let leaf = chain.first().ok_or(RenewalError::Unreadable(0))?;
        if *leaf == self.leaf {
            return Ok(None);
        }
        let card = self.check(chain, now)?;
        let tls = tls_config(&profile)?;
        self.leaf = leaf.clone();
        self.card = card;
        Ok(Some(tls))
    }

    fn check(&self, chain: &[CertificateDer<'_>], now: i64) -> Result<Card, RenewalError> {
        let mut cards = Vec::new();
        for (index, certificate) in chain.iter().enumerate() {
            let card = identity::card(certificate);
            cards.push(card.map_err(|_| RenewalError::Unreadable(index))?);
        }
        let card = cards.swap_remove(0);
        if card.names != self.card.names {
            return Err(RenewalError::Names {
                found: card.names.join(", "),
                expected: self.card.names.join(", "),
            });
        }
        if !identity::has_purpose(&chain[0], Purpose::ClientAuth).unwrap_or(false) {
            return Err(RenewalError::Purpose);
        }
        if card.not_before < self.card.not_before {
            return Err(RenewalError::Older);
        }
        if now < card.not_before {
            return Err(RenewalError::Early);
        }
        if now > card.not_after {
            return Err(RenewalError::Late);
        }
        Ok(card)
    }
}

/// Says in time that a session ends with its certificate: in the last tenth of that, and again as it comes nearer.
#[derive(Debug)]
pub struct Ending {
    card: Card,
    /// How near it was when it was said last, in seconds.
    told: Option<i64>,
}

impl Ending {
    /// Of a session with this certificate.
    #[must_use]
    pub fn new(card: Card) -> Self {
        Self { card, told: None }
    }

    /// How many seconds are left, if that is to be said at `now`, since 1970.
    pub fn take(&mut self, now: i64) -> Option<i64> {
        let left = self.card.not_after - now;
        let tenth = (self.card.not_after - self.card.not_before) / 10;
        let stages = NEARER.into_iter().filter(|&stage| stage < tenth);
        let reached = stages.chain([tenth]).filter(|&stage| left <= stage).min()?;
        if self.told.is_some_and(|told| told <= reached) {
            return None;
        }
        self.told = Some(reached);
        Some(left.max(0))
    }

    /// The certificate's serial number.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.card.serial
    }
}

/// A week, a day, an hour, and time enough to ask for a new one by telephone.
const NEARER: [i64; 4] = [7 * 86_400, 86_400, 3600, 300];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_the_last_tenth_and_again_as_it_comes_nearer() {
        let year = 365 * 86_400;
        let mut ending = Ending::new(Card {
            names: Vec::new(),
            serial: "0a".into(),
            not_before: 0,
            not_after: year,
        });
        let told: Vec<i64> = (0..=year)
            .step_by(60)
            .filter_map(|now| ending.take(now))
            .collect();
        assert_eq!(told, [year / 10, 7 * 86_400, 86_400, 3600, 300]);
    }

    #[test]
    fn a_certificate_for_minutes_is_not_announced_by_the_day() {
        let card = Card {
            names: Vec::new(),
            serial: "0a".into(),
            not_before: 0,
            not_after: 600,
        };
        let mut ending = Ending::new(card);
        let told: Vec<i64> = (0..700).filter_map(|now| ending.take(now)).collect();
        assert_eq!(told, [60]);
    }
}
