//! What the end of a QUIC connection means to the person who waits for the tunnel.

use adit_core::close::{Refusal, RefusalKind};
use quinn_proto::{ConnectionError, TransportError};

/// The meaning of a lost connection.
pub(crate) fn of_connection_error(error: &ConnectionError) -> Refusal {
    match error {
        ConnectionError::TransportError(error) => of_transport_error(error),
        ConnectionError::ConnectionClosed(close) => of_code(
            u64::from(close.error_code),
            &String::from_utf8_lossy(&close.reason),
        ),
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            match RefusalKind::from_code(close.error_code.into_inner()) {
                Some(kind) => Refusal::new(kind, reason),
                None => Refusal::new(
                    RefusalKind::ProtocolError,
                    format!(
                        "closed with code {:#x}: {reason}",
                        close.error_code.into_inner()
                    ),
                ),
            }
        }
        ConnectionError::Reset => {
            Refusal::new(RefusalKind::Unreachable, "the gateway was restarted")
        }
        ConnectionError::TimedOut => Refusal::new(RefusalKind::Unreachable, "no answer"),
        ConnectionError::VersionMismatch => {
            Refusal::new(RefusalKind::ProtocolError, "no common QUIC version")
        }
        ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => {
            Refusal::new(RefusalKind::Unreachable, error.to_string())
        }
    }
}

/// The meaning of an error this end found, such as a certificate it does not accept.
pub(crate) fn of_transport_error(error: &TransportError) -> Refusal {
    of_code(u64::from(error.code), &error.reason)
}

/// RFC 9001 §4.8: a TLS alert is a QUIC error of 0x100 plus the alert.
fn of_code(code: u64, reason: &str) -> Refusal {
    let alert = code
        .checked_sub(CRYPTO_ERROR)
        .and_then(|alert| u8::try_from(alert).ok());
    if let Some(kind) = alert.and_then(|alert| RefusalKind::from_tls_alert(alert, reason)) {
        return Refusal::new(kind, reason);
    }
    if code == CONNECTION_REFUSED {
        return Refusal::new(RefusalKind::Unreachable, "the gateway is overloaded");
    }
    Refusal::new(
        RefusalKind::ProtocolError,
        format!("QUIC error {code:#x}: {reason}"),
    )
}

/// RFC 9000 §20.1, the first of the CRYPTO_ERROR range.
const CRYPTO_ERROR: u64 = 0x100;
/// RFC 9000 §20.1.
const CONNECTION_REFUSED: u64 = 0x2;
