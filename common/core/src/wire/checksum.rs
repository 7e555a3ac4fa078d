//! The internet checksum: in full (RFC 1071), over a pseudo header (RFC 9293 §3.1, RFC 8200 §8.1),
//! and incrementally (RFC 1624).
//!
//! Nothing here is refused: every byte string has a checksum.
//!
//! ```
//! use adit_core::wire::checksum::{self, Sum};
//!
//! // The example of RFC 1071 §3.
//! let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
//! assert_eq!(Sum::new().bytes(&data).fold(), 0xddf2);
//! assert_eq!(checksum::of(&data), !0xddf2);
//! ```

use std::net::IpAddr;

/// The checksum of `bytes`: what belongs in a checksum field that was zero while it was computed.
///
/// Over bytes that already contain their right checksum the result is zero.
pub fn of(bytes: &[u8]) -> u16 {
    Sum::new().bytes(bytes).checksum()
}

/// The checksum after the aligned 16-bit word `old` below it was replaced by `new`.
///
/// This is equation 3 of RFC 1624, which unlike RFC 1141's is right when the result is zero.
/// A word at an odd offset is adjusted by giving both values with their bytes swapped.
pub fn adjust(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::new().word(!checksum).word(!old).word(new).checksum()
}

/// A ones' complement sum in progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// An empty sum.
    pub fn new() -> Self {
        Self(0)
    }

    /// The sum of the pseudo header that TCP, UDP and ICMPv6 put before their own `length` bytes.
    ///
    /// The two addresses are taken as they are; of mixed families the sum is meaningless.
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Self {
        let mut sum = Self::new();
        for address in [source, destination] {
            sum = match address {
                IpAddr::V4(address) => sum.bytes(&address.octets()),
                IpAddr::V6(address) => sum.bytes(&address.octets()),
            };
        }
        // The length has 32 bits in IPv6 and 16 in IPv4: the same sum either way.
        Self(sum.0 + u64::from(protocol) + length as u64)
    }

    /// Adds bytes that begin at an even offset of what is summed; an odd last byte is padded.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Ones' complement addition cares neither about the width nor about the byte order of its
        // words (RFC 1071 §2(B)): eight bytes at a time in the machine's own order, halves apart so
        // that no carry is lost below 16 GiB, and the compiler vectorises it. The lower halves are
        // what remains of the whole words without the upper ones: one step less than masking each.
        let (words, rest) = bytes.as_chunks::<8>();
        let (mut whole, mut high) = (0u64, 0u64);
        for word in words {
            let word = u64::from_ne_bytes(*word);
            whole = whole.wrapping_add(word);
            high += word >> 32;
        }
        let low = whole.wrapping_sub(high << 32);
        // Headers are made of words of four bytes, and most payloads too.
        let (words, rest) = rest.as_chunks::<4>();
        let mut tail = words
            .first()
            .map_or(0, |word| u32::from_ne_bytes(*word).into());
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            tail += u64::from(u32::from_ne_bytes(last));
        }
        let sum = Self(low + high + tail);
        Self(self.0 + u64::from(u16::from_be_bytes(sum.fold().to_ne_bytes())))
    }

    /// Adds one 16-bit word.
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// The sum with all carries folded in, not complemented.
    pub fn fold(self) -> u16 {
        // 64 bits become 33, then 18, then 65,536 at most: after one more step there is nothing left to carry.
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// The complement of the sum: the checksum.
    pub fn checksum(self) -> u16 {
        !self.fold()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::sample::naive_checksum;

    #[test]
    fn a_pseudo_header_sums_like_its_bytes() {
        let (source, destination) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let mut bytes = [0; 40];
        (bytes[0], bytes[15], bytes[16], bytes[31]) = (0xfd, 1, 0xfd, 2);
        bytes[32..36].copy_from_slice(&70_000u32.to_be_bytes());
        bytes[39] = 58;
        let sum = Sum::pseudo_header(source, destination, 58, 70_000);
        assert_eq!(sum.checksum(), naive_checksum(&bytes));
    }

    #[test]
    fn the_example_of_rfc_1624_gives_zero_not_its_complement() {
        assert_eq!(adjust(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn it_is_the_naive_sum(bytes: Vec<u8>) {
            prop_assert_eq!(of(&bytes), naive_checksum(&bytes));
        }

        #[test]
        fn the_order_of_pieces_does_not_matter(
            mut one in vec(any::<u8>(), 0..50),
            mut two in vec(any::<u8>(), 0..50),
        ) {
            one.truncate(one.len() & !1);
            two.truncate(two.len() & !1);
            let forth = Sum::new().bytes(&one).bytes(&two).checksum();
            let back = Sum::new().bytes(&two).bytes(&one).checksum();
            prop_assert_eq!(forth, back);
            prop_assert_eq!(forth, of(&[one, two].concat()));
        }

        #[test]
        fn bytes_with_their_checksum_sum_to_zero(mut bytes in vec(any::<u8>(), 2..100)) {
            bytes[..2].fill(0);
            let checksum = of(&bytes);
            bytes[..2].copy_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(of(&bytes), 0);
        }

        #[test]
        fn an_adjusted_checksum_is_the_recomputed_one(
            mut bytes in vec(any::<u8>(), 4..100),
            place: prop::sample::Index,
            new: u16,
        ) {
            // A leading one keeps the sum from being plus zero, as real headers do.
            bytes[0] = 1;
            let at = 1 + place.index(bytes.len() - 2);
            let before = of(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            let adjusted = match at % 2 {
                0 => adjust(before, old, new),
                _ => adjust(before, old.swap_bytes(), new.swap_bytes()),
            };
            prop_assert_eq!(adjusted, of(&bytes));
        }
    }
}
