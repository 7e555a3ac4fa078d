//! The table of refusals: what a session can be denied or ended for, in every form it takes.
//!
//! One row gives the QUIC close code, the HTTP status and problem type (RFC 9457), the sentence for
//! the user, and whether trying again can help. Nothing else in the workspace maps these.

use std::fmt;

/// Why a session was refused or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The row of the table.
    pub kind: RefusalKind,
    /// What in particular, for people; may be empty.
    pub detail: String,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Somebody must change something first.
    Never,
    /// The cause may pass.
    Backoff,
}

impl Refusal {
    /// A refusal with its particulars.
    pub fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.text())?;
        if self.detail.is_empty() || self.detail == self.kind.text() {
            Ok(())
        } else {
            write!(f, " ({})", self.detail)
        }
    }
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $slug:literal, $status:literal, $retry:ident, $text:literal;)*) => {
        /// One row of the table of refusals.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RefusalKind { $($(#[$doc])* $name,)* }

        impl RefusalKind {
            /// Every row.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The QUIC application error code. HTTP/3 leaves codes of this size to extensions.
            #[must_use]
            pub const fn code(self) -> u64 {
                BASE + match self { $(Self::$name => $number,)* }
            }

            /// The short name, also the end of the problem type.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $slug,)* }
            }

            /// The problem type of RFC 9457 §3.1.1.
            #[must_use]
            pub const fn problem_type(self) -> &'static str {
                match self { $(Self::$name => concat!("urn:adit:refusal:", $slug),)* }
            }

            /// The HTTP status of an answer that says so.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The sentence for the user.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether trying again can help.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry,)* }
            }
        }
    };
}

refusals! {
    /// The identity is known, and no rule gives it anything.
    NoAccess = 1, "no-access", 403, Never, "the policy gives this identity no access";
    /// The certificate has no name where the authority's rule looks for one.
    IdentityMissing = 2, "identity-missing", 403, Never, "the certificate names no principal";
    /// The certificate has two names where one is expected.
    IdentityAmbiguous = 3, "identity-ambiguous", 403, Never, "the certificate names more than one principal";
    /// A name in the certificate is not well-formed.
    IdentityMalformed = 4, "identity-malformed", 403, Never, "a name in the certificate is malformed";
    /// No inner address is left.
    PoolExhausted = 5, "pool-exhausted", 503, Backoff, "no inner address is free";
    /// The principal has a session, and the operator wants the first to stay.
    AlreadyConnected = 6, "already-connected", 409, Backoff, "this identity is connected already";
    /// A newer connection of the same principal took over. Coming back would take it away from
    /// that one again, and so on for ever.
    Replaced = 7, "replaced", 409, Never, "replaced by a newer connection of the same identity";
    /// The gateway is stopping.
    GatewayShutdown = 8, "gateway-shutdown", 503, Backoff, "the gateway is stopping";
    /// The session reached its deadline.
    SessionExpired = 9, "session-expired", 403, Never, "the session ended with its certificate";
    /// The certificate's time is over.
    CertificateExpired = 10, "certificate-expired", 403, Never, "the certificate has expired";
    /// The certificate's time has not come, or a clock is wrong.
    CertificateNotYetValid = 11, "certificate-not-yet-valid", 403, Never, "the certificate is not valid yet; check both clocks";
    /// The authority took the certificate back.
    CertificateRevoked = 12, "certificate-revoked", 403, Never, "the certificate was revoked";
    /// The other side does not know who issued the certificate.
    UnknownAuthority = 13, "unknown-authority", 403, Never, "the certificate's authority is not trusted";
    /// A client certificate is mandatory.
    CertificateRequired = 14, "certificate-required", 403, Never, "no certificate was presented";
    /// The certificate is for something else.
    WrongPurpose = 15, "wrong-purpose", 403, Never, "the certificate is not made for this purpose";
    /// The certificate is unusable for another reason.
    BadCertificate = 16, "bad-certificate", 403, Never, "the certificate cannot be used";
    /// The gateway's certificate carries another name.
    WrongServerName = 17, "wrong-server-name", 403, Never, "the gateway's certificate is for another name";
    /// The other side speaks HTTP/3 without CONNECT-IP, or no HTTP/3.
    NotConnectIp = 18, "not-connect-ip", 501, Never, "the gateway does not offer CONNECT-IP";
    /// No tunnel at this path.
    NotFound = 19, "not-found", 404, Never, "no tunnel at this path";
    /// The request asks for something the gateway cannot give.
    BadRequest = 20, "bad-request", 400, Never, "the request is not a valid CONNECT-IP request";
    /// A second tunnel on one connection.
    SecondRequest = 21, "second-request", 409, Never, "this connection carries a tunnel already";
    /// The other side broke the protocol.
    ProtocolError = 22, "protocol-error", 400, Backoff, "the protocol was violated";
    /// The handshake took too long.
    HandshakeTimeout = 23, "handshake-timeout", 408, Backoff, "the handshake took too long";
    /// No request came.
    RequestTimeout = 24, "request-timeout", 408, Backoff, "no request came in time";
    /// Nobody answers, or the connection was lost.
    Unreachable = 25, "unreachable", 504, Backoff, "the gateway cannot be reached";
    /// Rules name the identity, and none of them counts now.
    OutsideHours = 26, "outside-hours", 403, Backoff, "the policy gives this identity no access at this time";
    /// The policy, or how certificates are read, changed while the session was open.
    AccessWithdrawn = 27, "access-withdrawn", 403, Never, "the policy no longer gives this identity access";
    /// The operator wants a fresh revocation list for every certificate, and there is none.
    RevocationUnknown = 28, "revocation-unknown", 503, Backoff, "the gateway cannot tell whether the certificate was revoked";
    /// The session moved to a newer connection of the same client, which should know.
    HandedOver = 29, "handed-over", 409, Backoff, "the session goes on over a newer connection of this client";
    /// The operator did not turn it on.
    NotIssuing = 30, "not-issuing", 404, Never, "the gateway issues no certificates";
    /// Unknown, used, expired or taken back: whoever guesses is not told which.
    InvitationRefused = 31, "invitation-refused", 403, Never, "the code is unknown, used or expired";
    /// Somebody guesses.
    TooManyGuesses = 32, "too-many-guesses", 429, Backoff, "too many wrong codes came from this network";
    /// The request for a certificate asks for more than was granted, or is none.
    CertificateRefused = 33, "certificate-refused", 403, Never, "the certificate is not issued";
    /// The authority on the gateway does not work.
    IssuingFailed = 34, "issuing-failed", 503, Backoff, "the gateway cannot issue certificates at present";
    /// Somebody else answers, or the gateway has another key by now.
    WrongGatewayKey = 35, "wrong-gateway-key", 421, Never, "the gateway's key is not the one that the code names";
    /// The policy wants everything to be checked anew: the next connection may be made at once.
    SessionMaximum = 36, "session-maximum", 403, Backoff, "the session maximum was reached";
    /// A lease that a restart would not know is promised to nobody.
    LeaseNotSaved = 37, "lease-not-saved", 503, Backoff, "the gateway cannot write down the address it would give";
}

impl RefusalKind {
    /// What the person at the client can do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::NoAccess
            | Self::AccessWithdrawn
            | Self::IdentityMissing
            | Self::IdentityAmbiguous
            | Self::IdentityMalformed => {
                "ask who runs the gateway to allow this identity in the policy"
            }
            Self::OutsideHours => "wait, or ask who runs the gateway for other hours",
            Self::Replaced | Self::AlreadyConnected => {
                "use one certificate per device; this one is in use elsewhere"
            }
            Self::CertificateExpired | Self::SessionExpired => "ask for a new certificate",
            Self::CertificateNotYetValid => "check the clocks of this machine and of the gateway",
            Self::NotIssuing => "ask who runs the gateway for a profile",
            Self::InvitationRefused => "ask who runs the gateway for a new code",
            Self::CertificateRefused => "update this program, or ask who runs the gateway",
            Self::WrongGatewayKey => {
                "check the gateway's name, and ask who runs it for a new code: its certificate may have changed, or somebody is in between"
            }
            Self::CertificateRevoked => "ask who runs the gateway why it was revoked",
            Self::LeaseNotSaved => {
                "tell who runs the gateway that its state directory cannot be written to"
            }
            Self::RevocationUnknown => {
                "ask who runs the gateway for a fresh revocation list, or try again later"
            }
            Self::UnknownAuthority => {
                "profile and gateway must have certificates of the same authority; ask for a new profile"
            }
            Self::WrongServerName => {
                "check gateways and server_name in the profile against the gateway's certificate"
            }
            Self::CertificateRequired | Self::WrongPurpose | Self::BadCertificate => {
                "the profile needs a client certificate, as `adit-ca issue` writes it"
            }
            Self::NotConnectIp | Self::NotFound | Self::BadRequest | Self::SecondRequest => {
                "check that the address in the profile is that of an Adit gateway"
            }
            Self::PoolExhausted
            | Self::GatewayShutdown
            | Self::ProtocolError
            | Self::HandshakeTimeout
            | Self::TooManyGuesses
            | Self::IssuingFailed
            | Self::RequestTimeout
            | Self::HandedOver
            | Self::SessionMaximum
            | Self::Unreachable => "try again later",
        }
    }

    /// The row of an application close code; `None` for codes of others.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }

    /// The row of a problem type; `None` for types of others.
    #[must_use]
    pub fn from_problem_type(problem_type: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.problem_type() == problem_type)
    }

    /// The row of a TLS alert (RFC 8446 §6.2) with the text that came along.
    ///
    /// The alert alone does not tell an expired certificate from one not yet valid, a wrong name from
    /// a bad certificate, nor an unknown authority from one without a fresh revocation list; the text
    /// of rustls does, and is only used for that.
    #[must_use]
    pub fn from_tls_alert(alert: u8, reason: &str) -> Option<Self> {
        Some(match alert {
            42 | 46 | 49 if reason.contains(WRONG_KEY) => Self::WrongGatewayKey,
            // Another authority of the same name: its subject matches, its key does not.
            42 | 51 if reason.contains("BadSignature") => Self::UnknownAuthority,
            45 if reason.contains("not valid yet") => Self::CertificateNotYetValid,
            45 => Self::CertificateExpired,
            44 => Self::CertificateRevoked,
            40 | 48 if reason.to_ascii_lowercase().contains("revocation") => {
                Self::RevocationUnknown
            }
            48 => Self::UnknownAuthority,
            116 => Self::CertificateRequired,
            43 => Self::WrongPurpose,
            42 | 46 | 112 if reason.contains("not valid for") => Self::WrongServerName,
            112 => Self::WrongServerName,
            42 | 46 | 49 | 51 => Self::BadCertificate,
            120 => Self::NotConnectIp,
            _ => return None,
        })
    }
}

/// What the verifier that knows the gateway by its key says of any other key.
pub const WRONG_KEY: &str = "not the pinned key";
/// "ADIT" as a number, shortened: far from every registered HTTP/3 error code.
const BASE: u64 = 0xad17_0000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_and_problem_types_are_unique_and_lead_back() {
        let mut codes = BTreeSet::new();
        for &kind in RefusalKind::ALL {
            assert!(codes.insert(kind.code()), "{kind:?}");
            assert_eq!(RefusalKind::from_code(kind.code()), Some(kind));
            assert_eq!(
                RefusalKind::from_problem_type(kind.problem_type()),
                Some(kind)
            );
            assert!((400..600).contains(&kind.http_status()), "{kind:?}");
        }
        assert_eq!(RefusalKind::from_code(0x100), None);
    }

    #[test]
    fn one_alert_with_two_meanings_is_told_apart_by_its_text() {
        let kind = |alert, reason| RefusalKind::from_tls_alert(alert, reason).unwrap();
        assert_eq!(
            kind(45, "certificate expired"),
            RefusalKind::CertificateExpired
        );
        assert_eq!(
            kind(45, "certificate not valid yet"),
            RefusalKind::CertificateNotYetValid
        );
        assert_eq!(kind(48, "UnknownIssuer"), RefusalKind::UnknownAuthority);
        for reason in [
            "invalid peer certificate: UnknownRevocationStatus",
            "invalid peer certificate: certificate revocation list expired: verification time 1",
        ] {
            assert_eq!(kind(48, reason), RefusalKind::RevocationUnknown);
        }
        assert_eq!(RefusalKind::from_tls_alert(80, ""), None);
    }

    #[test]
    fn a_refusal_shows_its_sentence_and_its_particulars() {
        assert_eq!(
            Refusal::new(RefusalKind::NoAccess, "eve").to_string(),
            "the policy gives this identity no access (eve)"
        );
    }
}
