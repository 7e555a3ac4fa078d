//! The code of an invitation, as people read it to one another: 55 characters in groups of five.
//!
//! Crockford's base 32 of secret, pin and a checksum. Upper and lower case are the same, `O` is read as
//! 0, `I` and `L` as 1, dashes and spaces are not read. The checksum is a CRC of 16 bits over the
//! whole: every wrong character, and every two neighbours that changed places, is a typing mistake
//! and not a wrong code.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zeroize::Zeroize;

/// What a person needs to get a certificate from a gateway.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    secret: [u8; 16],
    pin: [u8; 16],
}

impl Code {
    pub(crate) fn new(secret: [u8; 16], pin: [u8; 16]) -> Self {
        Self { secret, pin }
    }

    /// What the authority asks for.
    pub fn secret(&self) -> &[u8; 16] {
        &self.secret
    }

    /// What the gateway's key must have: the beginning of the SHA-256 of its SubjectPublicKeyInfo.
    pub fn pin(&self) -> &[u8; 16] {
        &self.pin
    }

    fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(&self.secret);
        bytes[16..32].copy_from_slice(&self.pin);
        let checksum = crc(&bytes[..32]).to_be_bytes();
        bytes[32..].copy_from_slice(&checksum);
        bytes
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.bytes();
        for place in 0..CHARACTERS {
            if place > 0 && place % GROUP == 0 {
                f.write_str("-")?;
            }
            let digit = (0..5).fold(0, |digit, bit| digit << 1 | at(&bytes, place * 5 + bit));
            write!(f, "{}", char::from(ALPHABET[usize::from(digit)]))?;
        }
        bytes.zeroize();
        Ok(())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code").finish_non_exhaustive()
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let mut bytes = [0; BYTES + 1];
        let mut place = 0;
        for character in text.chars() {
            if character == '-' || character.is_whitespace() {
                continue;
            }
            let digit = digit(character).ok_or(CodeError::Character(character))?;
            for bit in 0..5 {
                let position = place * 5 + bit;
                if let Some(byte) = bytes.get_mut(position / 8) {
                    *byte |= (digit >> (4 - bit) & 1) << (7 - position % 8);
                }
            }
            place += 1;
        }
        if place != CHARACTERS {
            return Err(CodeError::Length(place));
        }
        let checksum = u16::from_be_bytes([bytes[32], bytes[33]]);
        // The three bits that are left over are nought.
        if crc(&bytes[..32]) != checksum || bytes[BYTES] != 0 {
            return Err(CodeError::Checksum);
        }
        let mut code = Self::new([0; 16], [0; 16]);
        code.secret.copy_from_slice(&bytes[..16]);
        code.pin.copy_from_slice(&bytes[16..32]);
        bytes.zeroize();
        Ok(code)
    }
}

/// Why a text is no code. Says nothing about whether an invitation has it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CodeError {
    /// Something is missing, or too much.
    #[error("the code has {0} characters instead of {CHARACTERS}, dashes not counted")]
    Length(usize),
    /// It occurs in no code.
    #[error("`{}` occurs in no code", .0.escape_default())]
    Character(char),
    /// A typing mistake.
    #[error("the code has a typing mistake: its checksum is wrong")]
    Checksum,
}

/// One bit, from the left.
fn at(bytes: &[u8], position: usize) -> u8 {
    let byte = bytes.get(position / 8).copied().unwrap_or_default();
    byte >> (7 - position % 8) & 1
}

fn digit(character: char) -> Option<u8> {
    let plain = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let position = ALPHABET
        .iter()
        .position(|digit| char::from(*digit) == plain)?;
    u8::try_from(position).ok()
}

/// The CRC of ITU-T X.25 with another beginning, so that a code of noughts is none: it tells every burst
/// of up to sixteen wrong bits, and so any wrong character and any two exchanged neighbours.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            }
        })
    })
}

/// Secret, pin and checksum.
const BYTES: usize = 34;

/// Of five bits each.
const CHARACTERS: usize = 55;

/// As much as one remembers from looking to typing.
const GROUP: usize = 5;

/// Douglas Crockford's: no I, L, O, and no U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codes() -> impl Strategy<Value = Code> {
        any::<([u8; 16], [u8; 16])>().prop_map(|(secret, pin)| Code::new(secret, pin))
    }

    #[test]
    fn a_code_is_eleven_groups_of_five() {
        let text = Code::new([0; 16], [0xff; 16]).to_string();
        assert_eq!(text.len(), 65);
        assert!(text.starts_with("00000-00000-00000-00000-00000-"));
        assert!(text.split('-').all(|group| group.len() == 5));
        assert_eq!(text.split('-').count(), 11);
    }

    #[test]
    fn a_code_is_not_shown_by_debug() {
        let code = Code::new([0xab; 16], [0; 16]);
        assert_eq!(format!("{code:?}"), "Code { .. }");
    }

    #[test]
    fn what_is_no_code_is_told_from_a_mistyped_one() {
        let parse = |text: &str| text.parse::<Code>().map(|_| ());
        assert_eq!(parse(""), Err(CodeError::Length(0)));
        assert_eq!(parse("ABC-U"), Err(CodeError::Character('U')));
        assert_eq!(parse("ABC\u{1b}"), Err(CodeError::Character('\u{1b}')));
        assert_eq!(parse(&"0".repeat(55)), Err(CodeError::Checksum));
        assert_eq!(parse(&"0".repeat(200)), Err(CodeError::Length(200)));
        let shown = CodeError::Character('\u{1b}').to_string();
        assert!(!shown.contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_typed(code in codes(), seed in any::<u64>()) {
            let text = code.to_string();
            prop_assert_eq!(text.parse::<Code>(), Ok(code.clone()));
            let typed: String = text.chars().enumerate().map(|(place, character)| {
                let other = seed >> (place % 64) & 1 == 1;
                match character {
                    '-' if other => ' ',
                    '0' if other => 'o',
                    '1' => if other { 'l' } else { 'I' },
                    _ if other => character.to_ascii_lowercase(),
                    _ => character,
                }
            }).collect();
            prop_assert_eq!(typed.parse::<Code>(), Ok(code.clone()));
            prop_assert_eq!(text.replace('-', "").parse::<Code>(), Ok(code));
        }

        #[test]
        fn every_wrong_character_is_a_typing_mistake(
            code in codes(), place in 0..CHARACTERS, wrong in 0..32_usize,
        ) {
            let mut typed: Vec<u8> = code.to_string().replace('-', "").into_bytes();
            prop_assume!(typed[place] != ALPHABET[wrong]);
            typed[place] = ALPHABET[wrong];
            let typed = String::from_utf8(typed).unwrap();
            prop_assert_eq!(typed.parse::<Code>(), Err(CodeError::Checksum));
        }

        #[test]
        fn every_two_exchanged_neighbours_are_a_typing_mistake(
            code in codes(), place in 0..CHARACTERS - 1,
        ) {
            let mut typed: Vec<u8> = code.to_string().replace('-', "").into_bytes();
            prop_assume!(typed[place] != typed[place + 1]);
            typed.swap(place, place + 1);
            let typed = String::from_utf8(typed).unwrap();
            prop_assert_eq!(typed.parse::<Code>(), Err(CodeError::Checksum));
        }

        #[test]
        fn a_missing_or_doubled_character_is_told_by_the_length(
            code in codes(), place in 0..CHARACTERS,
        ) {
            let text = code.to_string().replace('-', "");
            let mut short = text.clone();
            let character = short.remove(place);
            prop_assert_eq!(short.parse::<Code>(), Err(CodeError::Length(CHARACTERS - 1)));
            let mut long = text;
            long.insert(place, character);
            prop_assert_eq!(long.parse::<Code>(), Err(CodeError::Length(CHARACTERS + 1)));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,200}") {
            let _ = text.parse::<Code>();
        }
    }
}
