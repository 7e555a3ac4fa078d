//! The SETTINGS frame (RFC 9114 §7.2.4): what we announce and what of the peer's we act on.
//!
//! Refuses what the RFCs make an error: identifiers that HTTP/2 used, a setting given twice, and a
//! value other than 0 and 1 for the two switches. Unknown settings are ignored.

use std::collections::BTreeSet;

use thiserror::Error;

use super::ErrorCode;
use crate::wire::varint;

/// The settings that CONNECT-IP needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 9220 §3): extended CONNECT may be used.
    pub extended_connect: bool,
    /// SETTINGS_H3_DATAGRAM (RFC 9297 §2.1.1): HTTP datagrams may be sent.
    pub datagrams: bool,
}

impl Settings {
    /// Reads the payload of a SETTINGS frame.
    pub fn parse(mut payload: &[u8]) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        let mut seen = BTreeSet::new();
        while !payload.is_empty() {
            let id = take(&mut payload)?;
            let value = take(&mut payload)?;
            if !seen.insert(id) {
                return Err(SettingsError::Duplicate { id });
            }
            match id {
                ENABLE_CONNECT_PROTOCOL => settings.extended_connect = switch(id, value)?,
                H3_DATAGRAM => settings.datagrams = switch(id, value)?,
                // RFC 9114 §7.2.4.1: HTTP/2 settings without a meaning here are an error.
                0x00 | 0x02..=0x05 => return Err(SettingsError::Reserved { id }),
                _ => {}
            }
        }
        Ok(settings)
    }

    /// Writes the payload of our SETTINGS frame.
    ///
    /// QPACK gets no dynamic table and no blocked streams: a handful of fields per connection do
    /// not need one, and the peer's encoder stream stays trivial.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |id, value| {
            varint::encode(id, out);
            varint::encode(value, out);
        };
        put(QPACK_MAX_TABLE_CAPACITY, 0);
        put(MAX_FIELD_SECTION_SIZE, super::MAX_FIELD_SECTION as u64);
        put(QPACK_BLOCKED_STREAMS, 0);
        if self.extended_connect {
            put(ENABLE_CONNECT_PROTOCOL, 1);
        }
        if self.datagrams {
            put(H3_DATAGRAM, 1);
        }
    }
}

/// What is wrong with a SETTINGS frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// The payload ends inside a setting.
    #[error("SETTINGS ends inside a setting")]
    Truncated,
    /// A setting is given twice.
    #[error("setting {id:#x} is given twice")]
    Duplicate {
        /// The setting.
        id: u64,
    },
    /// A setting of HTTP/2.
    #[error("setting {id:#x} belongs to HTTP/2")]
    Reserved {
        /// The setting.
        id: u64,
    },
    /// A switch that is neither 0 nor 1.
    #[error("setting {id:#x} is {value}, not 0 or 1")]
    Value {
        /// The setting.
        id: u64,
        /// Its value.
        value: u64,
    },
}

impl SettingsError {
    /// The code of the connection error.
    pub const fn code(&self) -> ErrorCode {
        match self {
            // RFC 9114 §7.1: a payload that does not hold its fields is a frame error.
            Self::Truncated => ErrorCode::Frame,
            _ => ErrorCode::Settings,
        }
    }
}

fn take(payload: &mut &[u8]) -> Result<u64, SettingsError> {
    let (value, len) = varint::decode(payload).ok_or(SettingsError::Truncated)?;
    *payload = &payload[len..];
    Ok(value)
}

fn switch(id: u64, value: u64) -> Result<bool, SettingsError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(SettingsError::Value { id, value }),
    }
}

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
const QPACK_BLOCKED_STREAMS: u64 = 0x07;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
const H3_DATAGRAM: u64 = 0x33;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_announce_reads_back() {
        for settings in [
            Settings {
                extended_connect: true,
                datagrams: true,
            },
            Settings {
                extended_connect: false,
                datagrams: true,
            },
            Settings::default(),
        ] {
            let mut out = Vec::new();
            settings.encode(&mut out);
            assert_eq!(Settings::parse(&out), Ok(settings));
        }
    }

    #[test]
    fn unknown_and_grease_settings_are_ignored() {
        let mut out = Vec::new();
        for id in [0x21, 0x1f * 7 + 0x21, 0x2b60_3742, 0x33] {
            varint::encode(id, &mut out);
            varint::encode(1, &mut out);
        }
        assert!(Settings::parse(&out).unwrap().datagrams);
    }

    #[test]
    fn each_violation_has_its_error() {
        assert_eq!(Settings::parse(&[0x33]), Err(SettingsError::Truncated));
        assert_eq!(
            Settings::parse(&[0x33, 1, 0x33, 1]),
            Err(SettingsError::Duplicate { id: 0x33 })
        );
        assert_eq!(
            Settings::parse(&[0x33, 2]),
            Err(SettingsError::Value { id: 0x33, value: 2 })
        );
        assert_eq!(
            Settings::parse(&[0x08, 2]),
            Err(SettingsError::Value { id: 8, value: 2 })
        );
        for id in [0, 2, 3, 4, 5] {
            assert_eq!(
                Settings::parse(&[id, 0]),
                Err(SettingsError::Reserved { id: u64::from(id) })
            );
        }
        assert_eq!(SettingsError::Truncated.code(), ErrorCode::Frame);
        assert_eq!(
            SettingsError::Duplicate { id: 1 }.code(),
            ErrorCode::Settings
        );
    }
}
