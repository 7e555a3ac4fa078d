//! Local time of the policy's time zone, from a database in the program.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use toml::value::{Datetime, Offset};

/// Translates between seconds since 1970 and what the clock on the wall shows.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    name: String,
}

/// A moment as an operator wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A whole day: its first second, and the first one after it.
    Day(i64, i64),
    /// One second.
    Second(i64),
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            zone: TimeZone::UTC,
            name: "UTC".to_owned(),
        }
    }
}

impl Clock {
    /// The clock of an IANA time zone.
    pub(super) fn of(zone: &str) -> Option<Self> {
        let zone = TimeZoneDatabase::bundled().get(zone).ok()?;
        let name = zone.iana_name()?.to_owned();
        Some(Self { zone, name })
    }

    /// Seconds since Monday 00:00 as the wall shows them, below [`WEEK`].
    pub(super) fn second_of_week(&self, at: i64) -> i64 {
        let offset = i64::from(self.zone.to_offset(timestamp(at)).seconds());
        at.saturating_add(offset)
            .saturating_add(EPOCH_WEEKDAY * DAY)
            .rem_euclid(WEEK)
    }

    /// When the clock is set next, after `at`.
    pub(super) fn next_jump(&self, at: i64) -> Option<i64> {
        let next = self.zone.following(timestamp(at)).next()?;
        Some(next.timestamp().as_second())
    }

    /// Reads a TOML date or date-time. A time that the clock shows twice is the first of the two,
    /// one that it skips is as much later.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn moment(&self, written: &Datetime) -> Result<Moment, String> {
        let wrong = |error: jiff::Error| format!("{written} is no date ({error})");
        let Some(date) = written.date else {
            return Err(format!("{written} has no date"));
        };
        let number = |n: u8| i8::try_from(n).unwrap_or(i8::MAX);
        let year = i16::try_from(date.year).unwrap_or(i16::MAX);
        let date = Date::new(year, number(date.month), number(date.day)).map_err(wrong)?;
        let second = |datetime: DateTime| {
            let at = self.zone.to_timestamp(datetime).map_err(wrong)?;
            Ok::<_, String>(at.as_second())
        };
        let Some(time) = written.time else {
            let next = date.tomorrow().map_err(wrong)?;
            let (first, after) = (date.at(0, 0, 0, 0), next.at(0, 0, 0, 0));
            return Ok(Moment::Day(second(first)?, second(after)?));
        };
        let seconds = number(time.second.unwrap_or(0));
        let time = Time::new(number(time.hour), number(time.minute), seconds, 0).map_err(wrong)?;
        let datetime = DateTime::from_parts(date, time);
        Ok(Moment::Second(match written.offset {
            None => second(datetime)?,
            Some(offset) => {
                let minutes = match offset {
                    Offset::Z => 0,
                    Offset::Custom { minutes } => i64::from(minutes),
                };
                let utc = TimeZone::UTC.to_timestamp(datetime).map_err(wrong)?;
                utc.as_second() - 60 * minutes
            }
        }))
    }

    /// Reads a TOML date-time.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub(super) fn second(&self, written: &Datetime) -> Result<i64, (String, &'static str)> {
        match self.moment(written) {
            Ok(Moment::Second(at)) => Ok(at),
            Ok(Moment::Day(..)) => Err((format!("{written} has no time"), DATE_AND_TIME)),
            Err(message) => Err((message, DATE_AND_TIME)),
        }
    }

    /// Reads a date and time as people write them.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub(super) fn read(&self, written: &str) -> Result<i64, (String, &'static str)> {
        let datetime = written
            .parse()
            .map_err(|_| (format!("{written:?} is no date and time"), DATE_AND_TIME))?;
        self.second(&datetime)
    }

    /// "Mon 2026-11-23 08:00 Europe/Berlin".
    pub(super) fn show(&self, at: i64) -> String {
        let local = self.zone.to_datetime(timestamp(at));
        format!("{} {}", local.strftime("%a %Y-%m-%d %H:%M"), self.name)
    }
}

/// The nearest moment that the library knows; it knows those of the years up to 9999.
fn timestamp(at: i64) -> Timestamp {
    Timestamp::from_second(at).unwrap_or(if at < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

pub(super) const DAY: i64 = 86_400;
pub(super) const WEEK: i64 = 7 * DAY;
const DATE_AND_TIME: &str = "write a date with a time, such as 2026-12-31T18:00:00";
/// 1 January 1970 was a Thursday.
const EPOCH_WEEKDAY: i64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(zone: &str, written: &str) -> Option<Moment> {
        Clock::of(zone)?.moment(&written.parse().ok()?).ok()
    }

    #[test]
    fn dates_are_local_and_offsets_are_heeded() {
        let second = |zone, written| moment(zone, written).unwrap();
        assert_eq!(second("UTC", "1970-01-02T00:00:00"), Moment::Second(DAY));
        assert_eq!(
            second("Europe/Berlin", "1970-01-02T01:00:00"),
            Moment::Second(DAY)
        );
        assert_eq!(
            second("Europe/Berlin", "1970-01-02T00:00:00Z"),
            Moment::Second(DAY)
        );
        assert_eq!(
            second("UTC", "1970-01-02T02:00:00+02:00"),
            Moment::Second(DAY)
        );
        assert_eq!(second("UTC", "1970-01-02"), Moment::Day(DAY, 2 * DAY));
        // 29 March 2026 has 23 hours in Berlin, 25 October 25.
        for (day, hours) in [("2026-03-29", 23), ("2026-10-25", 25)] {
            let Moment::Day(first, after) = second("Europe/Berlin", day) else {
                panic!("{day} is a day");
            };
            assert_eq!(after - first, hours * 3600);
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for written in ["12:00:00", "2026-02-30", "9999-12-31"] {
            assert!(moment("UTC", written).is_none(), "{written}");
        }
        assert!(Clock::of("Europe/Nowhere").is_none());
    }

    #[test]
    fn a_time_on_the_command_line_is_one_of_the_file() {
        let clock = Clock::of("Europe/Berlin").unwrap();
        assert_eq!(clock.read("1970-01-02T01:00:00"), Ok(DAY));
        assert_eq!(clock.read("1970-01-02 00:00:00Z"), Ok(DAY));
        for (written, words) in [("1970-01-02", "no time"), ("tomorrow", "no date and time")] {
            let (message, hint) = clock.read(written).unwrap_err();
            assert!(message.contains(words), "{message}");
            assert!(hint.contains("2026-12-31T18:00:00"));
        }
    }

    #[test]
    fn any_number_of_seconds_has_a_weekday() {
        let clock = Clock::of("Europe/Berlin").unwrap();
        for at in [i64::MIN, -1, 0, i64::MAX] {
            assert!((0..WEEK).contains(&clock.second_of_week(at)));
            assert!(!clock.show(at).is_empty());
        }
        assert_eq!(clock.second_of_week(0), 3 * DAY + 3600);
    }
}
