//! Certificates from the gateway itself: for those who were invited, and for those whose own runs out.
//!
//! ```text
//! front desk ── question ──► control plane ── a thread beside it ──► authority's folder
//! front desk ◄── certificate, or a refusal ───────────┘ what happened ──► audit log
//! ```
//!
//! Whoever asks is told little: a code that is unknown is not told from one that is used or expired. The
//! records tell.

use std::net::SocketAddr;
use std::time::Duration;

use adit_core::close::{Refusal, RefusalKind};
use adit_core::identity::{Identity, Principal};
use adit_core::policy::Policy;
use adit_core::session::UserAgent;
use adit_core::session::certificate::{Issued, Secret};
use adit_net::files;
use adit_pki::csr::CertificateRequest;
use adit_pki::invitation::{self, Invitation, RedeemError, RenewError};
use adit_pki::{Authority, AuthorityError, Passphrase, Predecessor};
use adit_tunnel::tls::{self, Algorithms, Authorities, Credentials};
use adit_tunnel::{CertificateQuestion, Standing, Ticket};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tracing::warn;
use zeroize::Zeroizing;

use crate::config::{EnrolmentConfig, ServerConfig};
use crate::load::LoadError;

/// An authority that the gateway may ask.
pub struct Issuing {
    authority: Authority,
    /// What the clients of this gateway trust, PEM.
    root: String,
    /// `host:port` of each gateway, as the profiles shall have them.
    gateways: Vec<String>,
    /// What codes say of this gateway.
    pin: [u8; 16],
}

/// What became of a question, for the records.
#[derive(Debug)]
pub struct Decision {
    /// Where it came from.
    pub remote: SocketAddr,
    /// What the client says of itself.
    pub user_agent: Option<UserAgent>,
    /// What was decided.
    pub verdict: Verdict,
}

/// What was decided.
#[derive(Debug)]
pub enum Verdict {
    /// Somebody who was invited has a certificate.
    Enrolled(Facts),
    /// A certificate has a successor.
    Renewed {
        /// The successor.
        facts: Facts,
        /// Serial number of the one before.
        serial_before: String,
    },
    /// Somebody has none.
    Refused {
        /// Whose certificate was to be renewed, if it was that.
        principal: Option<Principal>,
        /// Why, as a word for scripts: more exact than what the client was told.
        kind: &'static str,
        /// Why, for people.
        reason: String,
    },
}

/// A certificate in a few words.
#[derive(Debug)]
pub struct Facts {
    /// Whose.
    pub principal: String,
    /// Its serial number.
    pub serial: String,
    /// Its last second, Unix time.
    pub not_after: i64,
}

/// Who is to be invited, and to what.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Whose certificate it will be.
    pub principal: String,
    /// Groups of the certificate.
    pub groups: Vec<String>,
    /// How long the code is good.
    pub code_life: Duration,
    /// How long the certificate is good.
    pub validity: Duration,
}

impl Issuing {
    /// Opens the authority's folder.
    ///
    /// # Errors
    /// When it is none, its key cannot be read, or clients of its root would not believe the gateway.
    pub fn open(config: &EnrolmentConfig, credentials: &Credentials) -> Result<Self, LoadError> {
        let passphrase = match &config.passphrase_file {
            Some(path) => {
                let text = Zeroizing::new(files::read_private_text(path)?);
                let line = text.lines().next().unwrap_or_default().to_owned();
                Passphrase::new(Zeroizing::new(line))
            }
            None => None,
        };
        let authority = Authority::unlock(&config.folder, passphrase.as_ref());
        let authority = authority.map_err(|error| LoadError::Authority {
            path: config.folder.clone(),
            error,
        })?;
        for repair in authority.repairs() {
            warn!("{repair}");
        }
        let predecessors = config.renews.iter().map(|path| {
            Predecessor::read(path).map_err(|error| LoadError::Predecessor {
                path: path.clone(),
                error,
            })
        });
        let authority = authority.following(predecessors.collect::<Result<_, _>>()?);
        let root = match &config.ca {
            Some(path) => files::read_text(path)?,
            None => authority.root_pem(),
        };
        let foreign = || LoadError::Foreign {
            path: config.ca.as_ref().unwrap_or(&config.folder).clone(),
        };
        if !vouches(&root, credentials) {
            return Err(foreign());
        }
        let leaf = credentials.chain.first();
        let pin = leaf.and_then(|leaf| invitation::pin(leaf));
        Ok(Self {
            root,
            pin: pin.ok_or_else(foreign)?,
            authority,
            gateways: config.gateways.clone(),
        })
    }

    /// Decides a question at `now`, Unix time; it may take as long as a disk does.
    pub fn decide(
        &self,
        question: CertificateQuestion,
        now: i64,
    ) -> (Ticket, Result<Box<Issued>, Refusal>, Decision) {
        let CertificateQuestion {
            ticket,
            remote,
            standing,
            request,
            user_agent,
        } = question;
        let (outcome, verdict) = self.answer(&standing, &request, user_agent.as_ref(), now);
        let decision = Decision {
            remote,
            user_agent,
            verdict,
        };
        (ticket, outcome, decision)
    }

    /// What whoever stands so gets for a certificate request in DER, and what the records say of it; `now` is Unix
    /// time.
    pub fn answer(
        &self,
        standing: &Standing,
        request: &[u8],
        user_agent: Option<&UserAgent>,
        now: i64,
    ) -> (Result<Box<Issued>, Refusal>, Verdict) {
        match self.sign(standing, request, user_agent, now) {
            Ok((issued, verdict)) => (Ok(Box::new(issued)), verdict),
            Err(Denial { kind, reason, told }) => {
                let principal = match standing {
                    Standing::Holds { identity, .. } => Some(identity.principal.clone()),
                    Standing::Invited(_) => None,
                };
                let verdict = Verdict::Refused {
                    principal,
                    kind,
                    reason,
                };
                (Err(told), verdict)
            }
        }
    }

    /// Invites somebody; the code in words is for that person's eyes alone.
    ///
    /// # Errors
    /// When the authority refuses the names, or cannot write them down.
    pub fn invite(&self, guest: &Guest, now: i64) -> Result<(String, i64), AuthorityError> {
        let expires = now.saturating_add_unsigned(guest.code_life.as_secs());
        let invitation = Invitation {
            principal: guest.principal.clone(),
            groups: guest.groups.clone(),
            validity: guest
                .validity
                .try_into()
                .map_err(|_| AuthorityError::Validity)?,
            expires,
        };
        let code = self.authority.invite(&invitation, self.pin, now)?;
        Ok((code.to_string(), expires))
    }

    /// Whether a gateway with these authorities lets in whoever has a certificate from here.
    #[must_use]
    pub fn is_known_to(&self, authorities: &Authorities) -> bool {
        let own = [self.authority.certificate_der().to_vec()];
        let chain = match self.authority.intermediates_der() {
            [] => &own[..],
            above => above,
        };
        let chain: Vec<CertificateDer<'_>> =
            chain.iter().map(|der| der.as_slice().into()).collect();
        let provider = Algorithms::for_this_cpu().provider();
        let mut authorities = authorities.all().iter();
        authorities.any(|authority| tls::leads_to(&chain, authority.anchors(), &provider))
    }

    /// The authority, for what has nothing to do with this gateway.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    fn sign(
        &self,
        standing: &Standing,
        request: &[u8],
        user_agent: Option<&UserAgent>,
        now: i64,
    ) -> Result<(Issued, Verdict), Denial> {
        let device = user_agent.map(UserAgent::device);
        let request = CertificateRequest::from_der(request)
            .map_err(|error| Denial::refused("bad-request", &error))?;
        match standing {
            Standing::Invited(secret) => {
                let secret = decoded(secret).ok_or_else(Denial::unknown)?;
                let signed = self.authority.redeem(&secret, &request, device, now)?;
                Ok((self.issued(&signed), Verdict::Enrolled(facts(&signed))))
            }
            Standing::Holds {
                identity,
                certificate,
            } => {
                let signed = self.authority.renew(certificate, &request, device, now)?;
                let verdict = Verdict::Renewed {
                    facts: facts(&signed),
                    serial_before: identity.serial.clone(),
                };
                Ok((self.issued(&signed), verdict))
            }
        }
    }

    fn issued(&self, signed: &adit_pki::Issued) -> Issued {
        Issued {
            certificate: signed.certificate_pem.clone(),
            authorities: self.root.clone(),
            gateways: self.gateways.clone(),
        }
    }
}

/// Why somebody has no certificate: in full for the records, and as much of it as is told.
#[derive(Debug)]
struct Denial {
    kind: &'static str,
    reason: String,
    told: Refusal,
}

impl Denial {
    fn unknown() -> Self {
        Self::guess("unknown", "no such code")
    }

    fn guess(kind: &'static str, reason: &str) -> Self {
        Self {
            kind,
            reason: reason.to_owned(),
            told: Refusal::new(RefusalKind::InvitationRefused, ""),
        }
    }

    fn failed(error: &AuthorityError) -> Self {
        Self {
            kind: "failed",
            reason: error.to_string(),
            // Paths and the like are not for strangers.
            told: Refusal::new(RefusalKind::IssuingFailed, ""),
        }
    }

    fn refused(kind: &'static str, error: &dyn std::error::Error) -> Self {
        let reason = error.to_string();
        Self {
            kind,
            told: Refusal::new(RefusalKind::CertificateRefused, reason.clone()),
            reason,
        }
    }
}

impl From<RedeemError> for Denial {
    fn from(error: RedeemError) -> Self {
        let reason = error.to_string();
        match error {
            RedeemError::Unknown => Self::unknown(),
            RedeemError::Used => Self::guess("used", &reason),
            RedeemError::Expired => Self::guess("expired", &reason),
            RedeemError::Withdrawn => Self::guess("withdrawn", &reason),
            RedeemError::Request(error) => Self::refused("bad-request", &error),
            RedeemError::Authority(error) => Self::failed(&error),
        }
    }
}

impl From<RenewError> for Denial {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Authority(error) => Self::failed(&error),
            // Nothing is wrong with it: somebody else renews it.
            RenewError::Unknown => Self {
                kind: "not-issuing",
                reason: error.to_string(),
                told: Refusal::new(RefusalKind::NotIssuing, error.to_string()),
            },
            error => Self::refused("not-renewable", &error),
        }
    }
}

/// What the policy gives a guest; `Err` says why it gives nothing.
pub fn access(
    config: &ServerConfig,
    policy: &Policy,
    guest: &Guest,
    now: i64,
) -> Result<(), Refusal> {
    let principal = Principal::parse(&guest.principal)?;
    let mut groups = guest.groups.clone();
    groups.sort();
    groups.dedup();
    // By the first authority that gives it something: which of them reads the certificate is not known here.
    let mut refusal = None;
    for authority in &config.authorities {
        let identity = Identity {
            principal: principal.clone(),
            groups: groups.clone(),
            authority: authority.rule.name.clone(),
            serial: String::new(),
            not_before: now,
            not_after: i64::MAX,
        };
        match policy.access(&identity, now) {
            Ok(_) => return Ok(()),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| Refusal::new(RefusalKind::NoAccess, "")))
}

/// Whether clients that believe `root`, PEM, have what signed the gateway's certificate. What is wrong with that besides,
/// such as its time, is not the root's business.
fn vouches(root: &str, credentials: &Credentials) -> bool {
    let anchors: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(root.as_bytes()).collect();
    let provider = Algorithms::for_this_cpu().provider();
    anchors.is_ok_and(|anchors| tls::leads_to(&credentials.chain, &anchors, &provider))
}

/// A secret as it is sent: 32 hexadecimal digits.
fn decoded(secret: &Secret) -> Option<[u8; 16]> {
    let text = secret.expose();
    let is_hexadecimal = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16)
        .ok()
        .filter(|_| is_hexadecimal)?;
    Some(number.to_be_bytes())
}

fn facts(issued: &adit_pki::Issued) -> Facts {
    Facts {
        principal: issued.principal.clone(),
        serial: issued.serial.clone(),
        not_after: issued.not_after,
    }
}

#[cfg(test)]
pub(crate) mod tests;
