//! The part of HTTP/3 (RFC 9114) that CONNECT-IP needs, without I/O.
//!
//! [`connection::Connection`] keeps the rules of streams and frames for one QUIC connection:
//! stream bytes come in, [`Action`]s and events come out. It answers every violation with the error
//! code that RFC 9114, 9204 or 9297 names, it never panics on outside bytes, and it holds at most
//! one encoded field section per request stream, for a limited number of streams.
//!
//! What it refuses or does without: server push, the dynamic table of QPACK, trailers (they are
//! read and ignored), priorities and WebTransport (their frames, settings and streams are ignored
//! as unknown).

pub mod connection;
mod error;
pub mod frame;
pub mod message;
pub mod qpack;
pub mod settings;

pub use error::ErrorCode;

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end that opens connections and sends requests.
    Client,
    /// The end that answers them.
    Gateway,
}

/// What the caller must do on the QUIC connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Append bytes to our side of a stream.
    Write {
        /// The stream.
        stream: u64,
        /// The bytes; may be empty if `fin`.
        bytes: Vec<u8>,
        /// Whether our side ends after these bytes.
        fin: bool,
    },
    /// Abort our side of a stream (RESET_STREAM).
    Reset {
        /// The stream.
        stream: u64,
        /// The application error code.
        code: u64,
    },
    /// Ask the peer to abort its side of a stream (STOP_SENDING) and read it no further.
    StopSending {
        /// The stream.
        stream: u64,
        /// The application error code.
        code: u64,
    },
    /// Close the connection.
    Close {
        /// The application error code.
        code: u64,
        /// Why, in words.
        reason: String,
    },
}

/// The largest field section we accept, encoded and decoded, as our SETTINGS announce it.
///
/// A CONNECT-IP request has about 200 bytes; this is what common HTTP servers allow.
pub const MAX_FIELD_SECTION: usize = 16 * 1024;
