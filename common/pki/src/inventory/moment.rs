//! Moments in JSON and CSV: RFC 3339 in UTC, to the second.

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment of Unix time as RFC 3339 writes it. Years without four digits, which RFC 5280 does not
/// allow either, are the first or the last with four.
pub(super) fn rfc3339(unix: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix.clamp(FIRST, LAST))
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_default()
}

pub(super) fn serialize<S: Serializer>(unix: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*unix))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    read(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The same where there may be none.
pub(super) mod optional {
    use super::*;

    // The reference is what serde's derive passes.
    #[allow(clippy::ref_option)]
    pub(in crate::inventory) fn serialize<S: Serializer>(
        unix: &Option<i64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match unix {
            Some(unix) => serializer.serialize_some(&rfc3339(*unix)),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::inventory) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<i64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let read = text.map(|text| read(&text)).transpose();
        read.map_err(D::Error::custom)
    }
}

fn read(text: &str) -> Result<i64, time::error::Parse> {
    Ok(OffsetDateTime::parse(text, &Rfc3339)?.unix_timestamp())
}

/// 0000-01-01T00:00:00Z.
const FIRST: i64 = -62_167_219_200;
/// 9999-12-31T23:59:59Z.
const LAST: i64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc_and_stay_within_four_digits() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
            (i64::MIN, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(unix), text);
        }
        assert_eq!(read("2025-12-31T23:59:59+01:00").unwrap(), 1_767_221_999);
    }
}
