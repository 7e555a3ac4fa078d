//! Variable-length integers of QUIC, RFC 9000 §16, as HTTP/3 and capsules use them.
//!
//! Decoding takes what is there and says how much it took; it accepts encodings longer than
//! necessary, as RFC 9000 §16 demands. Encoding always writes the shortest form.
//!
//! ```
//! use adit_core::wire::varint;
//!
//! let mut out = Vec::new();
//! varint::encode(15_293, &mut out);
//! assert_eq!(out, [0x7b, 0xbd]);
//! assert_eq!(varint::decode(&out), Some((15_293, 2)));
//! assert_eq!(varint::decode(&out[..1]), None);
//! ```

/// Reads the integer at the start of `buf`: its value and the number of bytes it occupies.
///
/// `None` means that `buf` ends before the integer does; more bytes may complete it.
pub fn decode(buf: &[u8]) -> Option<(u64, usize)> {
    let first = *buf.first()?;
    let len = 1 << (first >> 6);
    let rest = buf.get(1..len)?;
    let head = u64::from(first & 0x3f);
    let value = rest
        .iter()
        .fold(head, |value, &byte| value << 8 | u64::from(byte));
    Some((value, len))
}

/// Appends the shortest encoding of `value`.
///
/// # Panics
///
/// When `value` is larger than [`MAX`]. Nothing decoded ever is.
pub fn encode(value: u64, out: &mut Vec<u8>) {
    let (bytes, len) = shortest(value);
    out.extend_from_slice(&bytes[8 - len..]);
}

/// Writes the shortest encoding of `value` to the start of `out` and returns its length.
///
/// # Panics
///
/// When `value` is larger than [`MAX`] or `out` is shorter than [`encoded_len`] of it.
pub fn encode_to(value: u64, out: &mut [u8]) -> usize {
    let (bytes, len) = shortest(value);
    out[..len].copy_from_slice(&bytes[8 - len..]);
    len
}

/// The number of bytes [`encode`] writes for `value`: 1, 2, 4 or 8.
pub const fn encoded_len(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// The largest value: two of the 64 bits carry the length.
pub const MAX: u64 = (1 << 62) - 1;

/// The encoding, at the end of eight bytes, and its length.
fn shortest(value: u64) -> ([u8; 8], usize) {
    assert!(
        value <= MAX,
        "a variable-length integer has 62 bits, {value} has more"
    );
    let len = encoded_len(value);
    let mut bytes = value.to_be_bytes();
    bytes[8 - len] |= (len.trailing_zeros() as u8) << 6;
    (bytes, len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9000 §A.1, Table 4 and the sentence below it.
    #[test]
    fn the_examples_of_the_rfc_decode() {
        let long = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(decode(&long), Some((151_288_809_941_952_652, 8)));
        assert_eq!(decode(&[0x9d, 0x7f, 0x3e, 0x7d]), Some((494_878_333, 4)));
        assert_eq!(decode(&[0x7b, 0xbd]), Some((15_293, 2)));
        assert_eq!(decode(&[0x25]), Some((37, 1)));
        assert_eq!(
            decode(&[0x40, 0x25]),
            Some((37, 2)),
            "longer than necessary is allowed"
        );
    }

    #[test]
    fn each_length_ends_where_the_next_begins() {
        let ends = [(0x3f, 1), (0x3fff, 2), (0x3fff_ffff, 4), (MAX, 8)];
        for (largest, len) in ends {
            assert_eq!(encoded_len(largest), len);
            if largest < MAX {
                assert_eq!(encoded_len(largest + 1), len * 2);
            }
        }
    }

    #[test]
    #[should_panic(expected = "62 bits")]
    fn a_value_that_cannot_be_written_is_a_bug_of_the_caller() {
        encode(MAX + 1, &mut Vec::new());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(
            value in prop_oneof![0..=MAX, 0..0x100u64, 0x3ff0..0x4010u64, MAX - 9..=MAX],
            behind: Vec<u8>,
        ) {
            let mut out = Vec::new();
            encode(value, &mut out);
            prop_assert_eq!(out.len(), encoded_len(value));
            let mut slice = [0; 8];
            let written = encode_to(value, &mut slice);
            prop_assert_eq!(&slice[..written], &out[..]);
            for short in 0..out.len() {
                prop_assert_eq!(decode(&out[..short]), None);
            }
            let len = out.len();
            out.extend(behind);
            prop_assert_eq!(decode(&out), Some((value, len)));
        }

        #[test]
        fn any_bytes_decode_or_are_too_short(bytes: Vec<u8>) {
            if let Some((value, len)) = decode(&bytes) {
                prop_assert!(value <= MAX && len <= bytes.len() && encoded_len(value) <= len);
            } else {
                prop_assert!(bytes.len() < 8);
            }
        }
    }
}
