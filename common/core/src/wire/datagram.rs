//! The prefix of an HTTP datagram in a QUIC DATAGRAM frame: a quarter stream id (RFC 9297 §2.1)
//! and a context id (RFC 9484 §6), both variable-length integers.
//!
//! On the first request stream with context 0, which carries whole IP packets, the prefix is the
//! two bytes `00 00`: senders keep headroom for it and write it in place.
//!
//! ```
//! use adit_core::wire::datagram::{self, Prefix};
//!
//! let mut datagram = [0xff; 6];
//! assert_eq!(datagram::prefix_len(0), 2);
//! datagram::write_prefix(0, &mut datagram[..2]);
//! assert_eq!(datagram::parse(&datagram)?, Prefix { stream_id: 0, context: 0, len: 2 });
//! # Ok::<(), adit_core::wire::datagram::DatagramError>(())
//! ```

use crate::wire::varint;

/// What stands before the payload of an HTTP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The request stream the datagram belongs to: four times the quarter stream id.
    pub stream_id: u64,
    /// The context id; [`IP_PACKET`] is the only one RFC 9484 defines.
    pub context: u64,
    /// The length of the prefix: where the payload begins.
    pub len: usize,
}

/// Reads the prefix of a QUIC datagram.
///
/// # Errors
///
/// All errors are the peer's fault; [`DatagramError::closes_the_connection`] says what follows.
pub fn parse(datagram: &[u8]) -> Result<Prefix, DatagramError> {
    let (quarter, quarter_len) = varint::decode(datagram).ok_or(DatagramError::Truncated)?;
    if quarter > MAX_QUARTER_STREAM_ID {
        return Err(DatagramError::StreamIdTooLarge);
    }
    let (context, context_len) =
        varint::decode(&datagram[quarter_len..]).ok_or(DatagramError::NoContext)?;
    Ok(Prefix {
        stream_id: quarter * 4,
        context,
        len: quarter_len + context_len,
    })
}

/// The length of the prefix of an IP packet on the request stream `stream_id`.
pub const fn prefix_len(stream_id: u64) -> usize {
    varint::encoded_len(stream_id / 4) + 1
}

/// Writes the prefix of an IP packet on the request stream `stream_id`.
///
/// # Panics
///
/// When `out` is not [`prefix_len`] bytes long.
pub fn write_prefix(stream_id: u64, out: &mut [u8]) {
    let len = varint::encode_to(stream_id / 4, out);
    out[len..].copy_from_slice(&[IP_PACKET as u8]);
}

/// Why a datagram has no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It ends within the quarter stream id.
    #[error("datagram ends within its quarter stream id")]
    Truncated,
    /// It belongs to a stream, and ends within the context id.
    #[error("datagram ends within its context id")]
    NoContext,
    /// No stream can have this id.
    #[error("quarter stream id is above {MAX_QUARTER_STREAM_ID}")]
    StreamIdTooLarge,
}

impl DatagramError {
    /// Whether the connection ends with `H3_DATAGRAM_ERROR` (RFC 9297 §2.1).
    ///
    /// HTTP/3 itself reads the quarter stream id only. What follows is the payload, which may be
    /// empty and whose stream may not be ours to judge: without a context it is just dropped.
    #[must_use]
    pub const fn closes_the_connection(self) -> bool {
        matches!(self, Self::Truncated | Self::StreamIdTooLarge)
    }
}

/// The context id of a whole IP packet.
pub const IP_PACKET: u64 = 0;

/// RFC 9297 §2.1: a quarter of the largest client-initiated bidirectional stream id.
const MAX_QUARTER_STREAM_ID: u64 = (1 << 60) - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_request_stream_has_two_zero_bytes() {
        let mut out = [0xff; 2];
        write_prefix(0, &mut out);
        assert_eq!(out, [0, 0]);
    }

    #[test]
    fn only_a_datagram_without_a_whole_stream_id_closes_the_connection() {
        for datagram in [&[][..], &[0x40], &[0xc0, 0, 0, 0, 0, 0, 0]] {
            let error = parse(datagram).unwrap_err();
            assert_eq!(error, DatagramError::Truncated, "{datagram:02x?}");
            assert!(error.closes_the_connection());
        }
        for datagram in [&[0x00][..], &[0x01], &[0x00, 0x80, 0, 0]] {
            let error = parse(datagram).unwrap_err();
            assert_eq!(error, DatagramError::NoContext, "{datagram:02x?}");
            assert!(!error.closes_the_connection());
        }
    }

    #[test]
    fn a_stream_id_beyond_the_largest_is_told_apart() {
        let largest = [0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(
            parse(&largest).map(|prefix| prefix.stream_id),
            Ok((1 << 62) - 4)
        );
        let beyond = [0xd0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse(&beyond), Err(DatagramError::StreamIdTooLarge));
        // Nothing else in it matters, not even that it is cut off.
        assert_eq!(parse(&beyond[..8]), Err(DatagramError::StreamIdTooLarge));
    }

    #[test]
    fn an_unknown_context_is_reported_not_refused() {
        assert_eq!(
            parse(&[1, 0x42, 0x00, 9]),
            Ok(Prefix {
                stream_id: 4,
                context: 0x200,
                len: 3
            })
        );
    }

    proptest! {
        #[test]
        fn a_written_prefix_parses_to_itself(
            quarter in prop_oneof![0..=MAX_QUARTER_STREAM_ID, 0..200u64],
            payload: Vec<u8>,
        ) {
            let stream_id = quarter * 4;
            let len = prefix_len(stream_id);
            let mut datagram = vec![0xff; len];
            write_prefix(stream_id, &mut datagram);
            datagram.extend(payload);
            prop_assert_eq!(parse(&datagram), Ok(Prefix { stream_id, context: IP_PACKET, len }));
        }

        #[test]
        fn any_bytes_have_a_prefix_or_an_error(bytes: Vec<u8>) {
            if let Ok(prefix) = parse(&bytes) {
                prop_assert!(prefix.len >= 2 && prefix.len <= bytes.len());
                prop_assert!(prefix.stream_id % 4 == 0 && prefix.stream_id <= varint::MAX);
            }
        }
    }
}
