//! Huffman decoding of field strings (RFC 7541 §5.2 and Appendix B, RFC 9204 §4.1.2).
//!
//! The code is canonical, so the lengths of the codes are the whole table. Encoding is absent: what
//! we send is a few hundred bytes once per connection.

/// Appends the decoded string; `None` if the input is no Huffman string.
///
/// A string grows by at most 8/5, and never beyond `limit`.
pub(super) fn decode(input: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(limit.min(input.len() * 8 / 5));
    // The bits since the last symbol.
    let (mut code, mut len) = (0_u32, 0_usize);
    for byte in input {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            len += 1;
            if let Some(symbol) = CODE.symbol(code, len) {
                if out.len() == limit {
                    return None;
                }
                // RFC 7541 §5.2: the end-of-string symbol inside a string is an error.
                out.push(u8::try_from(symbol).ok()?);
                (code, len) = (0, 0);
            } else if len == MAX_LENGTH {
                return None;
            }
        }
    }
    // RFC 7541 §5.2: padding is less than a byte of the end-of-string symbol's ones.
    (len < 8 && code == (1 << len) - 1).then_some(out)
}

/// The canonical code in the form that decodes: per length the first code and where its symbols are.
struct Code {
    first_code: [u32; MAX_LENGTH + 1],
    first_index: [u16; MAX_LENGTH + 1],
    count: [u16; MAX_LENGTH + 1],
    symbols: [u16; SYMBOLS],
}

impl Code {
    const fn new() -> Self {
        let mut table = Self {
            first_code: [0; MAX_LENGTH + 1],
            first_index: [0; MAX_LENGTH + 1],
            count: [0; MAX_LENGTH + 1],
            symbols: [0; SYMBOLS],
        };
        let (mut code, mut index, mut len) = (0_u32, 0_u16, 1);
        while len <= MAX_LENGTH {
            table.first_code[len] = code;
            table.first_index[len] = index;
            let mut symbol = 0;
            while symbol < SYMBOLS {
                if LENGTHS[symbol] as usize == len {
                    table.symbols[index as usize] = symbol as u16;
                    index += 1;
                    table.count[len] += 1;
                }
                symbol += 1;
            }
            code = (code + table.count[len] as u32) << 1;
            len += 1;
        }
        table
    }

    fn symbol(&self, code: u32, len: usize) -> Option<u16> {
        let offset = code.checked_sub(self.first_code[len])?;
        (offset < u32::from(self.count[len]))
            .then(|| self.symbols[usize::from(self.first_index[len]) + offset as usize])
    }
}

static CODE: Code = Code::new();

/// The longest code.
const MAX_LENGTH: usize = 30;
/// All bytes and the end-of-string symbol.
const SYMBOLS: usize = 257;
/// The length of each symbol's code in bits (RFC 7541 Appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5,
    6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23,
    23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22,
    22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26,
    27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25,
    25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_decode() {
        // RFC 7541 C.4.1, C.4.2, C.6.1.
        let cases: [(&[u8], &[u8]); 3] = [
            (
                b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
                b"www.example.com",
            ),
            (b"\xa8\xeb\x10\x64\x9c\xbf", b"no-cache"),
            (b"\x64\x02", b"302"),
        ];
        for (encoded, text) in cases {
            assert_eq!(decode(encoded, 100).as_deref(), Some(text));
        }
    }

    #[test]
    fn bad_padding_and_the_end_symbol_are_refused() {
        // Zero padding, a whole byte of padding, and the end-of-string symbol.
        assert_eq!(decode(b"\x18", 100), None);
        assert_eq!(decode(b"\x1f", 100).as_deref(), Some(&b"a"[..]));
        assert_eq!(decode(b"\x1f\xff", 100), None);
        assert_eq!(decode(b"\xff\xff\xff\xff", 100), None);
    }

    #[test]
    fn the_output_never_grows_beyond_its_limit() {
        // Code 00000 is '0': eight symbols in five bytes.
        assert_eq!(decode(&[0; 5], 8).map(|out| out.len()), Some(8));
        assert_eq!(decode(&[0; 5], 7), None);
    }

    proptest! {
        #[test]
        fn what_another_encoder_wrote_decodes(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut encoded = Vec::new();
            httlib_huffman::encode(&text, &mut encoded).unwrap();
            prop_assert_eq!(decode(&encoded, 100), Some(text));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes, 64);
        }
    }
}
