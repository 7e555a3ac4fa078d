//! A length of time as people write it: "8h", "90m".

use std::fmt;
use std::time::Duration;

/// Whole seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

impl Period {
    /// Reads a number with its unit: w, d, h, m or s, for weeks, days, hours, minutes and seconds.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (at, unit) = text.char_indices().next_back()?;
        let (number, unit) = (&text[..at], UNITS.iter().find(|(name, _)| *name == unit)?);
        // The standard library takes a sign as well.
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|_| is_number)?;
        number
            .checked_mul(unit.1)
            .filter(|&total| total > 0)
            .map(Self)
    }

    /// So many seconds; `None` of none.
    #[must_use]
    pub fn of_seconds(seconds: u64) -> Option<Self> {
        (seconds > 0).then_some(Self(seconds))
    }

    /// In seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        Self::from_secs(period.0)
    }
}

/// As [`Period::parse`] reads it, in the largest unit of which it is a multiple; weeks are told in days.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS[1..]
            .iter()
            .find(|(_, seconds)| self.0.is_multiple_of(*seconds));
        let (unit, seconds) = exact.unwrap_or(&('s', 1));
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

/// Largest first.
const UNITS: [(char, u64); 5] = [
    ('w', 7 * 86_400),
    ('d', 86_400),
    ('h', 3600),
    ('m', 60),
    ('s', 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_number_with_a_unit_and_is_shown_as_one() {
        for (text, seconds, shown) in [
            ("2w", 14 * 86_400, "14d"),
            ("3d", 3 * 86_400, "3d"),
            ("36h", 36 * 3600, "36h"),
            ("48h", 2 * 86_400, "2d"),
            ("90m", 5400, "90m"),
            ("61s", 61, "61s"),
        ] {
            let period = Period::parse(text).unwrap();
            assert_eq!(
                (period.seconds(), &*period.to_string()),
                (seconds, shown),
                "{text}"
            );
            assert_eq!(Period::parse(shown), Some(period));
        }
    }

    #[test]
    fn what_is_no_period_is_refused() {
        for text in [
            "",
            "3",
            "d",
            "0d",
            "-1d",
            "+1d",
            "1.5h",
            "3 d",
            "3D",
            "3é",
            "99999999999999999999d",
            "18446744073709551615w",
        ] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
    }
}
