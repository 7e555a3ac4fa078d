//! How fast: "10 Mbit/s".

use std::fmt;

/// A limit in bits per second; at least eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// Reads a number and a unit: bit/s, kbit/s, Mbit/s, Gbit/s, or B/s, kB/s, MB/s, GB/s, where
    /// k is a thousand. Up to three digits may follow a point.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let factor = UNITS
            .iter()
            .find(|(name, _)| *name == unit.trim_start_matches(' '))?
            .1;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let thousandths: u64 = match fraction.len() {
            1..=3 => format!("{fraction:0<3}").parse().ok()?,
            _ => return None,
        };
        let whole: u64 = whole.parse().ok()?;
        let bits = whole
            .checked_mul(1000)?
            .checked_add(thousandths)?
            .checked_mul(factor)?
            / 1000;
        (bits >= 8).then_some(Self(bits))
    }

    /// Bits per second.
    #[must_use]
    pub fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Whole bytes per second, at least one.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = BIT_UNITS
            .iter()
            .find(|(_, factor)| self.0.is_multiple_of(*factor));
        let (unit, factor) = exact.unwrap_or(&("bit/s", 1));
        write!(f, "{} {unit}", self.0 / factor)
    }
}

/// Largest first, for [`Rate`]'s `Display`.
const BIT_UNITS: [(&str, u64); 4] = [
    ("Gbit/s", 1_000_000_000),
    ("Mbit/s", 1_000_000),
    ("kbit/s", 1000),
    ("bit/s", 1),
];
const UNITS: [(&str, u64); 8] = [
    BIT_UNITS[0],
    BIT_UNITS[1],
    BIT_UNITS[2],
    BIT_UNITS[3],
    ("GB/s", 8_000_000_000),
    ("MB/s", 8_000_000),
    ("kB/s", 8000),
    ("B/s", 8),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_bytes_are_told_apart_and_shown_in_bits() {
        for (text, bits, shown) in [
            ("10 Mbit/s", 10_000_000, "10 Mbit/s"),
            ("500kbit/s", 500_000, "500 kbit/s"),
            ("1 MB/s", 8_000_000, "8 Mbit/s"),
            ("1.5 Mbit/s", 1_500_000, "1500 kbit/s"),
            ("0.125 kB/s", 1000, "1 kbit/s"),
            ("8 bit/s", 8, "8 bit/s"),
        ] {
            let rate = Rate::parse(text).unwrap();
            assert_eq!(
                (rate.bits_per_second(), rate.to_string().as_str()),
                (bits, shown)
            );
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "",
            "10",
            "Mbit/s",
            "0 bit/s",
            "7 bit/s",
            "1 mbit/s",
            "1. Mbit/s",
            ".5 Mbit/s",
            "1.2345 Mbit/s",
            "-1 Mbit/s",
            "1 Mbit",
            "99999999999999999999 bit/s",
            "18446744073709551615 GB/s",
            "1.2.3 kB/s",
        ] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }
}
