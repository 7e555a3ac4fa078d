//! QPACK (RFC 9204) without a dynamic table.
//!
//! We announce a table capacity of 0, so a correct peer encodes with the static table and literals
//! only; every reference to a dynamic table is refused. What we encode uses the static table and
//! plain literals. A decoded field section is bounded by the size that our SETTINGS announce.

mod huffman;
pub mod instruction;
mod static_table;

use thiserror::Error;

use super::MAX_FIELD_SECTION;

/// One field line: a name and a value, both as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The name; pseudo-header fields begin with a colon.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// Why a field section cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QpackError {
    /// The section ends inside a field line.
    #[error("the field section ends inside a field line")]
    Truncated,
    /// A reference to the dynamic table that we never allowed.
    #[error("the field section refers to a dynamic table")]
    Dynamic,
    /// A static index beyond the table.
    #[error("static table index {0} does not exist")]
    StaticIndex(u64),
    /// A base before the first entry.
    #[error("the field section has a negative base")]
    Base,
    /// A number with more than 62 bits.
    #[error("an integer is too large")]
    Integer,
    /// A string that is no Huffman string.
    #[error("a string is not Huffman-coded as it says")]
    Huffman,
    /// More than [`MAX_FIELD_SECTION`] bytes after decoding.
    #[error("the field section is larger than announced")]
    TooLarge,
}

/// Decodes an encoded field section (RFC 9204 §4.5).
pub fn decode(section: &[u8]) -> Result<Vec<Field>, QpackError> {
    let mut input = section;
    // RFC 9204 §4.5.1: the prefix. Without a dynamic table the insert count is 0, and then any
    // negative base is invalid.
    if integer(&mut input, 8)?.1 != 0 {
        return Err(QpackError::Dynamic);
    }
    if integer(&mut input, 7)?.0 & 0x80 != 0 {
        return Err(QpackError::Base);
    }
    let mut fields = Vec::new();
    let mut room = MAX_FIELD_SECTION;
    while let Some(first) = input.first() {
        let field = match first {
            // RFC 9204 §4.5.2: indexed field line.
            0x80.. => {
                let (flags, index) = integer(&mut input, 6)?;
                let (name, value) = static_entry(flags & 0x40 != 0, index)?;
                Field {
                    name: name.into(),
                    value: value.into(),
                }
            }
            // RFC 9204 §4.5.4: literal with name reference.
            0x40.. => {
                let (flags, index) = integer(&mut input, 4)?;
                let (name, _) = static_entry(flags & 0x10 != 0, index)?;
                Field {
                    name: name.into(),
                    value: string(&mut input, 7, room)?,
                }
            }
            // RFC 9204 §4.5.6: literal with literal name.
            0x20.. => {
                let name = string(&mut input, 3, room)?;
                Field {
                    name,
                    value: string(&mut input, 7, room)?,
                }
            }
            // RFC 9204 §4.5.3 and §4.5.5: references after the base.
            _ => return Err(QpackError::Dynamic),
        };
        // RFC 9114 §4.2.2: the size of a section counts 32 bytes per field line.
        let size = field.name.len() + field.value.len() + FIELD_OVERHEAD;
        room = room.checked_sub(size).ok_or(QpackError::TooLarge)?;
        fields.push(field);
    }
    Ok(fields)
}

/// Encodes a field section.
pub fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in fields {
        if let Some(index) = static_table::find(name, value) {
            put_integer(0xc0, 6, index, &mut out);
            continue;
        }
        if let Some(index) = static_table::find_name(name) {
            put_integer(0x50, 4, index, &mut out);
        } else {
            put_integer(0x20, 3, name.len(), &mut out);
            out.extend_from_slice(name.as_bytes());
        }
        put_integer(0x00, 7, value.len(), &mut out);
        out.extend_from_slice(value.as_bytes());
    }
    out
}

fn static_entry(is_static: bool, index: u64) -> Result<(&'static str, &'static str), QpackError> {
    if !is_static {
        return Err(QpackError::Dynamic);
    }
    static_table::entry(index).ok_or(QpackError::StaticIndex(index))
}

/// Reads a prefixed integer (RFC 7541 §5.1): the bits before the prefix, and the number.
fn integer(input: &mut &[u8], prefix: u8) -> Result<(u8, u64), QpackError> {
    let (&first, rest) = input.split_first().ok_or(QpackError::Truncated)?;
    *input = rest;
    let mut number = instruction::PrefixedInteger::new(first, prefix);
    while !number.is_complete() {
        let (&byte, rest) = input.split_first().ok_or(QpackError::Truncated)?;
        *input = rest;
        number.push(byte).ok_or(QpackError::Integer)?;
    }
    Ok((number.flags(), number.value()))
}

/// Reads a string whose Huffman flag is the bit before its length's prefix (RFC 9204 §4.1.2).
fn string(input: &mut &[u8], prefix: u8, room: usize) -> Result<Vec<u8>, QpackError> {
    let (flags, len) = integer(input, prefix)?;
    let len = usize::try_from(len).map_err(|_| QpackError::Truncated)?;
    let (bytes, rest) = input.split_at_checked(len).ok_or(QpackError::Truncated)?;
    *input = rest;
    if flags & 1 << prefix == 0 {
        return Ok(bytes.to_vec());
    }
    huffman::decode(bytes, room).ok_or(QpackError::Huffman)
}

fn put_integer(flags: u8, prefix: u8, value: usize, out: &mut Vec<u8>) {
    let max = (1_usize << prefix) - 1;
    if value < max {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | max as u8);
    let mut rest = value - max;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// What each field line adds to the size of its section (RFC 9114 §4.2.2).
const FIELD_OVERHEAD: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(name: &str, value: &str) -> Field {
        Field {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn the_example_of_the_rfc_decodes() {
        // RFC 9204 B.1: literal with name reference to the static table.
        let section = b"\x00\x00\x51\x0b/index.html";
        assert_eq!(decode(section), Ok(vec![field(":path", "/index.html")]));
    }

    #[test]
    fn a_section_that_another_implementation_wrote_decodes() {
        // The output of ls-qpack for a CONNECT-IP request; most strings are Huffman-coded.
        let section =
            b"\x00\x00\xcf\x2f\x00\xb9\x5d\x87\x49\xc8\x7a\x3f\x87\x21\xea\xa8\xa4\x4a\xc6\xaf\
            \xd7\x50\x8b\xef\x5d\x4b\x97\xc8\xe9\xae\x82\xae\x43\xd3\x51\x95\x61\x7f\x05\xa2\
            \x85\xba\xd4\x7f\x15\x31\x48\xd1\xda\xd2\xb0\x6a\xd8\xf9\x63\xe5\x8f\x2f\x04\x20\
            \xeb\x45\xb4\x15\x6a\xec\x3a\x4e\x43\xd1\x02\x3f\x31";
        let expected = [
            field(":method", "CONNECT"),
            field(":protocol", "connect-ip"),
            field(":scheme", "https"),
            field(":authority", "vpn.example.com"),
            field(":path", "/.well-known/masque/ip/*/*/"),
            field("capsule-protocol", "?1"),
        ];
        assert_eq!(decode(section).as_deref(), Ok(&expected[..]));
    }

    #[test]
    fn static_entries_names_and_literals_are_encoded_shortest() {
        let fields = [
            (":method", "CONNECT"),
            (":path", "/x"),
            ("capsule-protocol", "?1"),
        ];
        let section = encode(&fields);
        assert_eq!(section[..6], [0, 0, 0xc0 | 15, 0x51, 2, b'/']);
        let expected: Vec<_> = fields
            .iter()
            .map(|(name, value)| field(name, value))
            .collect();
        assert_eq!(decode(&section), Ok(expected));
    }

    #[test]
    fn every_use_of_a_dynamic_table_is_refused() {
        let cases: [&[u8]; 5] = [
            b"\x02\x00",         // insert count
            b"\x00\x00\x80",     // indexed
            b"\x00\x00\x10",     // indexed after base
            b"\x00\x00\x40\x00", // name reference
            b"\x00\x00\x00\x00", // name reference after base
        ];
        for section in cases {
            assert_eq!(decode(section), Err(QpackError::Dynamic), "{section:?}");
        }
        assert_eq!(decode(b"\x00\x80"), Err(QpackError::Base));
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        assert_eq!(decode(b""), Err(QpackError::Truncated));
        assert_eq!(decode(b"\x00"), Err(QpackError::Truncated));
        assert_eq!(
            decode(b"\x00\x00\x51\x0b/index"),
            Err(QpackError::Truncated)
        );
        assert_eq!(
            decode(b"\x00\x00\xff\x24"),
            Err(QpackError::StaticIndex(99))
        );
        assert_eq!(decode(b"\x00\x00\x51\x81\xff"), Err(QpackError::Huffman));
        let endless = [&b"\x00\x00\x51"[..], &[0x7f], &[0xff; 12]].concat();
        assert_eq!(decode(&endless), Err(QpackError::Integer));
    }

    #[test]
    fn a_section_that_grows_beyond_the_announced_size_is_refused() {
        // Two bytes on the wire become a field line of dozens.
        let section = [&[0, 0][..], &[0xc0 | 23; 4096]].concat();
        assert_eq!(decode(&section), Err(QpackError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_we_encode_decodes(
            fields in prop::collection::vec(("[a-z:][a-z-]{0,40}", "[ -~]{0,200}"), 0..20)
        ) {
            let lines: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let expected: Vec<_> = fields.iter().map(|(n, v)| field(n, v)).collect();
            prop_assert_eq!(decode(&encode(&lines)), Ok(expected));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
            let _ = decode(&[&[0, 0], &bytes[..]].concat());
        }
    }
}
