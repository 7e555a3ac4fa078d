//! Taking certificates back: reasons, and the list of what was revoked (RFC 5280 §5).
//!
//! Guarantee: what [`Authority::revoke`] revokes is in the index together with a signed list that
//! says so before the list is written to the folder. Numbers of lists grow, whatever is interrupted
//! and however many operators revoke at once; a list that was signed and not written is written
//! when the authority is opened next.

use std::fmt;
use std::str::FromStr;

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use serde::Serialize;
use time::Duration;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Authority, AuthorityError};
use crate::certificate;
use crate::index::{Entry, List, Stopped};
use crate::store::{self, Existing};

/// That a certificate was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revocation {
    /// When, Unix time.
    pub at: i64,
    /// Why.
    pub reason: Reason,
    /// The operator who did it, `name@host`.
    pub by: String,
}

/// Why a certificate is revoked, RFC 5280 §5.3.1.
///
/// Not offered are the reasons that can be taken back (certificateHold, removeFromCRL), because the
/// gateway ends sessions by them, and that of attribute authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// None is given.
    Unspecified,
    /// Somebody else has, or may have, the private key: a lost laptop.
    KeyCompromise,
    /// The same of an authority.
    CaCompromise,
    /// The holder has another name or place in the organisation.
    AffiliationChanged,
    /// There is a newer certificate.
    Superseded,
    /// The certificate is not needed any more.
    CessationOfOperation,
    /// The holder may no longer do what the certificate says.
    PrivilegeWithdrawn,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// Its name in RFC 5280.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }

    fn code(self) -> RevocationReason {
        match self {
            Self::Unspecified => RevocationReason::Unspecified,
            Self::KeyCompromise => RevocationReason::KeyCompromise,
            Self::CaCompromise => RevocationReason::CaCompromise,
            Self::AffiliationChanged => RevocationReason::AffiliationChanged,
            Self::Superseded => RevocationReason::Superseded,
            Self::CessationOfOperation => RevocationReason::CessationOfOperation,
            Self::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Reason {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.name().eq_ignore_ascii_case(text))
            .ok_or(())
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Authority {
    /// Revokes the certificates of these serial numbers at `now`, Unix time, and writes a list that is
    /// good for `life`.
    /// What is revoked already stays so by its first reason.
    pub fn revoke(
        &self,
        serials: &[String],
        reason: Reason,
        life: Duration,
        now: i64,
    ) -> Result<List, AuthorityError> {
        let revocation = Revocation {
            at: now,
            reason,
            by: self.operator().to_owned(),
        };
        self.issue_list(serials, Some(&revocation), life, now)
    }

    /// Revokes everything of `principal`, takes its open invitations back, and lets nothing of it be
    /// renewed until an operator issues or invites anew; `now` is Unix time.
    pub fn revoke_principal(
        &self,
        principal: &str,
        reason: Reason,
        life: Duration,
        now: i64,
    ) -> Result<Stopped, AuthorityError> {
        let revocation = Revocation {
            at: now,
            reason,
            by: self.operator().to_owned(),
        };
        let since = now - GRACE.whole_seconds();
        let stopped =
            self.index()
                .revoke_principal(principal, &revocation, since, |number, revoked| {
                    self.sign_list(number, revoked, now, life)
                })?;
        self.publish_list()?;
        Ok(stopped)
    }

    /// Writes a new list of what is revoked that is good for `life` from `now`, Unix time.
    pub fn renew_list(&self, life: Duration, now: i64) -> Result<List, AuthorityError> {
        self.issue_list(&[], None, life, now)
    }

    /// Keeps the list in the folder young: one whose life is half over at `now`, Unix time, is followed by another that
    /// is good for as long, and one that was signed but not written is written. Whoever else signs at that moment is
    /// waited for, and what they revoke is in one list or the other. Returns the newest list, and whether the folder
    /// has it since this call.
    pub fn keep_list_young(&self, now: i64) -> Result<(List, bool), AuthorityError> {
        match self.list()? {
            Some(list) if now < list.half_life() => {
                let written = self.publish_list()?;
                Ok((list, written))
            }
            old => {
                let life = |list: List| Duration::seconds(list.next_update - list.this_update);
                let list = self.renew_list(old.map_or(LIST_LIFE, life), now)?;
                Ok((list, true))
            }
        }
    }

    /// The newest list; `None` for an authority in memory that has made none.
    pub fn list(&self) -> Result<Option<List>, AuthorityError> {
        Ok(self.index().list()?)
    }

    /// Writes the newest list to the folder, unless it is there; true if it was not. Nobody else
    /// writes it meanwhile, so that what an interrupted writer left behind can be removed, too.
    pub(crate) fn publish_list(&self) -> Result<bool, AuthorityError> {
        let Some(folder) = self.folder() else {
            return Ok(false);
        };
        let path = folder.join(store::LIST);
        let mut written = false;
        self.index().publish_list(|list| {
            store::remove_temporary(folder, store::LIST)?;
            let pem = certificate::armoured("X509 CRL", &list.der);
            if store::read(&path).is_ok_and(|old| old == pem) {
                return Ok::<(), AuthorityError>(());
            }
            written = true;
            Ok(store::write(
                &path,
                pem.as_bytes(),
                store::PUBLIC,
                Existing::Replace,
            )?)
        })?;
        Ok(written)
    }

    fn issue_list(
        &self,
        serials: &[String],
        revocation: Option<&Revocation>,
        life: Duration,
        now: i64,
    ) -> Result<List, AuthorityError> {
        let since = now - GRACE.whole_seconds();
        let list = self
            .index()
            .issue_list(serials, revocation, since, |number, revoked| {
                self.sign_list(number, revoked, now, life)
            })?;
        self.publish_list()?;
        Ok(list)
    }

    fn sign_list(
        &self,
        number: i64,
        revoked: &[Entry],
        now: i64,
        life: Duration,
    ) -> Result<List, AuthorityError> {
        let next_update = now + life.whole_seconds();
        let params = CertificateRevocationListParams {
            this_update: certificate::moment(now)?,
            next_update: certificate::moment(next_update)?,
            crl_number: SerialNumber::from(number.unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().filter_map(listed).collect(),
            key_identifier_method: key_identifier(self.certificate_der()),
        };
        let signed = params.signed_by(self.issuer())?;
        Ok(List {
            number,
            this_update: now,
            next_update,
            entries: params.revoked_certs.len(),
            der: signed.der().to_vec(),
        })
    }
}

/// The entry of a list, RFC 5280 §5.3.
fn listed(entry: &Entry) -> Option<RevokedCertParams> {
    let revocation = entry.revoked.as_ref()?;
    // Written by this program as pairs of digits.
    let digits = (0..entry.serial.len()).step_by(2);
    let serial: Option<Vec<u8>> = digits
        .map(|at| u8::from_str_radix(entry.serial.get(at..at + 2)?, 16).ok())
        .collect();
    Some(RevokedCertParams {
        serial_number: SerialNumber::from_slice(&serial?),
        revocation_time: certificate::moment(revocation.at).ok()?,
        reason_code: Some(revocation.reason.code()),
        invalidity_date: None,
    })
}

/// The one in the authority's certificate, whoever made that (RFC 5280 §5.2.1).
fn key_identifier(authority: &[u8]) -> KeyIdMethod {
    let Ok((_, certificate)) = X509Certificate::from_der(authority) else {
        return KeyIdMethod::Sha256;
    };
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => {
                Some(KeyIdMethod::PreSpecified(id.0.to_vec()))
            }
            _ => None,
        })
        .unwrap_or(KeyIdMethod::Sha256)
}

/// How long a list is good for unless told otherwise: a week without the authority's key.
pub const LIST_LIFE: Duration = Duration::days(7);

/// A certificate stays listed for a day beyond its end: no clock is more wrong than that.
const GRACE: Duration = Duration::days(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back_from_its_name_in_any_case() {
        for reason in Reason::ALL {
            assert_eq!(reason.name().parse(), Ok(reason));
            assert_eq!(reason.name().to_lowercase().parse(), Ok(reason));
        }
        assert_eq!("certificateHold".parse::<Reason>(), Err(()));
    }
}
