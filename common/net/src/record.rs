//! State records: what a program must find again after it was killed, or the power failed.
//!
//! There is one way to write one: whole, into a new file, which is on the disk before it takes the place of the old,
//! and the directory after it. And one way to read one, which tells a record that is not there from one that is
//! damaged: its checksum stands in front of it. What is damaged is never acted on.
//!
//! ```
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("number.json");
//! use adit_net::record::{self, Record};
//!
//! record::write(&path, &[1, 2, 3]).unwrap();
//! assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"record\":1,\"crc32\":\"fd6db3e9\",\"contents\":[1,2,3]}\n");
//! assert_eq!(record::read(&path).unwrap(), Record::Whole(vec![1, 2, 3]));
//! ```

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::{self, FileError};

/// What is found at the place of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<T> {
    /// Nothing.
    None,
    /// What was written last.
    Whole(T),
    /// Something else than anybody wrote.
    Damaged(Damage),
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file does not begin or end as a record does: it was cut, or is of something else.
    #[error("it is cut off, or no state record of this version")]
    Frame,
    /// The contents are others than those that were written.
    #[error(
        "its contents are not those that were written (CRC-32 {found:08x} instead of {written:08x})"
    )]
    Checksum {
        /// That of what is there.
        found: u32,
        /// That of what was written.
        written: u32,
    },
    /// What was written is not what this program reads.
    #[error("its contents are of another kind: {0}")]
    Contents(String),
}

/// Replaces the record at `path`, which only its owner may read: afterwards it is on the disk. Whoever is killed
/// meanwhile leaves the old one or the new one, and at most a [leftover](files::remove_leftovers) beside it.
///
/// # Errors
/// When it cannot be written; the old one stays.
pub fn write<T: Serialize + ?Sized>(path: &Path, contents: &T) -> Result<(), FileError> {
    let json = serde_json::to_vec(contents).map_err(FileError::unrepresentable(path))?;
    let mut bytes = head(checksum(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(TAIL);
    files::write_private(path, &bytes)
}

/// Reads the record at `path`.
///
/// # Errors
/// When the file cannot be read.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Record<T>, FileError> {
    parse(files::read(path))
}

/// Reads the record at `path`, which holds a secret or says what to do as root.
///
/// # Errors
/// When the file cannot be read, or another user could read it or have written it.
pub fn read_private<T: DeserializeOwned>(path: &Path) -> Result<Record<T>, FileError> {
    parse(files::read_private(path))
}

fn parse<T: DeserializeOwned>(found: Result<Vec<u8>, FileError>) -> Result<Record<T>, FileError> {
    let bytes = match found {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(Record::None),
        Err(error) => return Err(error),
    };
    Ok(match contents(&bytes) {
        Err(damage) => Record::Damaged(damage),
        Ok(json) => match serde_json::from_slice(json) {
            Ok(contents) => Record::Whole(contents),
            Err(error) => Record::Damaged(Damage::Contents(error.to_string())),
        },
    })
}

/// The bytes of the contents, if they are those that were written.
fn contents(bytes: &[u8]) -> Result<&[u8], Damage> {
    let written = bytes
        .get(FRONT.len()..FRONT.len() + 8)
        .and_then(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
        .ok_or(Damage::Frame)?;
    let json = bytes
        .strip_prefix(head(written).as_bytes())
        .and_then(|rest| rest.strip_suffix(TAIL))
        .ok_or(Damage::Frame)?;
    match checksum(json) {
        found if found == written => Ok(json),
        found => Err(Damage::Checksum { found, written }),
    }
}

fn head(checksum: u32) -> String {
    format!("{FRONT}{checksum:08x}{BEHIND}")
}

/// CRC-32 as in ISO-HDLC: against bytes that were cut off, torn or turned, not against an attacker, who can write
/// into the directory anyway.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let index = crc.to_le_bytes()[0] ^ byte;
        TABLE[usize::from(index)] ^ (crc >> 8)
    };
    !bytes.iter().fold(!0, step)
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index: u32 = 0;
    while index < 256 {
        let (mut crc, mut bit) = (index, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL * (crc & 1));
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
}

/// Reversed, as the register shifts to the right.
const POLYNOMIAL: u32 = 0xedb8_8320;
/// With the version of the frame; what is in front of the checksum.
const FRONT: &str = "{\"record\":1,\"crc32\":\"";
const BEHIND: &str = "\",\"contents\":";
const TAIL: &[u8] = b"}\n";

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("record.json");
        (directory, path)
    }

    #[test]
    fn the_checksum_is_the_one_of_iso_hdlc() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
        assert_eq!(checksum(b""), 0);
    }

    #[test]
    fn a_record_is_json_that_other_programs_read() {
        let (_directory, path) = place();
        write(&path, &["one", "two"]).expect("written");
        let bytes = files::read_private(&path).expect("private");
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(value["contents"], serde_json::json!(["one", "two"]));
    }

    #[test]
    fn none_whole_and_damaged_are_told_apart() {
        let (_directory, path) = place();
        assert_eq!(read::<Vec<u8>>(&path).expect("readable"), Record::None);
        write(&path, &[7, 8]).expect("written");
        let whole = read::<Vec<u8>>(&path).expect("readable");
        assert_eq!(whole, Record::Whole(vec![7, 8]));
        let other = read::<String>(&path).expect("readable");
        assert!(
            matches!(other, Record::Damaged(Damage::Contents(_))),
            "{other:?}"
        );
    }

    #[test]
    fn no_cut_and_no_turned_bit_passes_for_what_was_written() {
        let (_directory, path) = place();
        write(&path, "a lease, a number, a name").expect("written");
        let whole = files::read_private(&path).expect("private");
        let is_damaged = |bytes: &[u8]| {
            files::write_private(&path, bytes).expect("written");
            let found = read::<String>(&path).expect("readable");
            assert!(
                matches!(found, Record::Damaged(_)),
                "{found:?} of {bytes:?}"
            );
        };
        for length in 0..whole.len() {
            is_damaged(&whole[..length]);
        }
        for bit in 0..whole.len() * 8 {
            let mut turned = whole.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            // A digit of the checksum in the other case says the same, but nobody writes it so.
            is_damaged(&turned);
        }
        is_damaged(&[&whole[..], b"x"].concat());
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_command_that_helps() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_directory, path) = place();
        write(&path, "secret").expect("written");
        let everybody = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, everybody).expect("chmod");
        let error = read_private::<String>(&path).expect_err("not private");
        assert_eq!(error.hint(), Some(format!("chmod 600 {}", path.display())));
    }
}
