//! When a rule counts: hours of the week as the clock on the wall shows them, and validity.

use std::fmt;
use std::ops::Range;

use super::clock::{Clock, WEEK};

/// Hours and validity of a rule. Rules with the same share one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Its place among the schedules of the policy.
    pub(super) number: u32,
    pub(super) hours: Option<Hours>,
    /// First second.
    pub(super) from: Option<i64>,
    /// First second no more.
    pub(super) until: Option<i64>,
    /// As it was written.
    pub(super) text: String,
}

/// Parts of the week, in minutes since Monday 00:00.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hours(Vec<Range<u32>>);

impl Schedule {
    pub(super) fn is_active(&self, at: i64, clock: &Clock) -> bool {
        self.from.is_none_or(|from| from <= at) && !self.has_ended(at) && self.is_open(at, clock)
    }

    pub(super) fn has_ended(&self, at: i64) -> bool {
        self.until.is_some_and(|until| until <= at)
    }

    /// When [`Schedule::is_active`] changes, after `at`; `None` when it never does.
    pub(super) fn next_change(&self, at: i64, clock: &Clock) -> Option<i64> {
        if self.has_ended(at) {
            return None;
        }
        let start = self.from.map_or(at, |from| from.max(at));
        let open = self.is_open(start, clock);
        if start > at && open {
            return Some(start);
        }
        let change = self
            .hours
            .as_ref()
            .and_then(|hours| hours.next_change(start, clock));
        match (change, self.until) {
            // Closed at its end: it stays as it is.
            (Some(change), Some(until)) if change >= until => open.then_some(until),
            (None, until) => until.filter(|_| open),
            (change, _) => change,
        }
    }

    /// Whether this counts whenever `other` does.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let hours = match (&self.hours, &other.hours) {
            (None, _) => true,
            (Some(own), Some(other)) => own.cover(other),
            (Some(own), None) => own.are_always(),
        };
        hours
            && self
                .from
                .is_none_or(|own| other.from.is_some_and(|from| own <= from))
            && self
                .until
                .is_none_or(|own| other.until.is_some_and(|until| until <= own))
    }

    /// Whether it counts at all times.
    pub(super) fn is_always(&self) -> bool {
        self.from.is_none()
            && self.until.is_none()
            && self.hours.as_ref().is_none_or(Hours::are_always)
    }

    fn is_open(&self, at: i64, clock: &Clock) -> bool {
        self.hours
            .as_ref()
            .is_none_or(|hours| hours.contain(clock.second_of_week(at)))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Hours {
    /// All of these parts together.
    pub(super) fn new(mut parts: Vec<Range<u32>>) -> Self {
        parts.sort_by_key(|part| (part.start, part.end));
        let mut merged: Vec<Range<u32>> = Vec::new();
        for part in parts {
            match merged.last_mut() {
                Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
                _ => merged.push(part),
            }
        }
        Self(merged)
    }

    /// Reads one entry: days and times, "mon-fri 08:00-18:00", or times alone for every day.
    /// An end before the beginning is on the next day.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn parts(text: &str) -> Result<Vec<Range<u32>>, String> {
        let mut words = text.split_whitespace().rev();
        let times = words.next().ok_or("an empty entry")?;
        let days = match words.next() {
            Some(days) => self::days(days)?,
            None => (0..7).collect(),
        };
        if words.next().is_some() {
            return Err(format!("{text:?} has more than days and times"));
        }
        let (start, end) = times
            .split_once('-')
            .ok_or_else(|| format!("{times:?} is no span of time"))?;
        let (start, end) = (time(start)?, time(end)?);
        if start == end || start == MINUTES_OF_DAY {
            return Err(format!("{times:?} is empty"));
        }
        let length = (end + MINUTES_OF_DAY - start - 1) % MINUTES_OF_DAY + 1;
        let mut parts = Vec::new();
        for day in days {
            let first = day * MINUTES_OF_DAY + start;
            let last = first + length;
            parts.push(first..last.min(MINUTES_OF_WEEK));
            if last > MINUTES_OF_WEEK {
                parts.push(0..last - MINUTES_OF_WEEK);
            }
        }
        Ok(parts)
    }

    fn contain(&self, second_of_week: i64) -> bool {
        self.0
            .iter()
            .any(|part| seconds(part.start) <= second_of_week && second_of_week < seconds(part.end))
    }

    fn are_always(&self) -> bool {
        self.0.first() == Some(&(0..MINUTES_OF_WEEK))
    }

    fn cover(&self, other: &Self) -> bool {
        other.0.iter().all(|part| {
            self.0
                .iter()
                .any(|own| own.start <= part.start && part.end <= own.end)
        })
    }

    /// Between two settings of the clock the wall runs evenly: the next edge of a part is as far
    /// away as it seems, or behind a setting, where the question is asked again.
    fn next_change(&self, from: i64, clock: &Clock) -> Option<i64> {
        let open = self.contain(clock.second_of_week(from));
        let mut at = from;
        for _ in 0..MAX_STEPS {
            let second = clock.second_of_week(at);
            let edges = self.0.iter().flat_map(|part| [part.start, part.end]);
            let wait = edges
                .map(|edge| (seconds(edge) - second - 1).rem_euclid(WEEK) + 1)
                .min()?;
            let edge = at.saturating_add(wait);
            at = clock.next_jump(at).map_or(edge, |jump| edge.min(jump));
            if self.contain(clock.second_of_week(at)) != open {
                return Some(at);
            }
        }
        None
    }
}

fn seconds(minutes: u32) -> i64 {
    i64::from(minutes) * 60
}

/// "mon", "mon-fri", "mon,wed,sat-sun"; a span may go over the end of the week.
fn days(text: &str) -> Result<Vec<u32>, String> {
    let day = |name: &str| {
        (0..)
            .zip(DAYS)
            .find(|(_, known)| *known == name)
            .map(|(number, _)| number)
            .ok_or_else(|| format!("{name:?} is no day"))
    };
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let count = (last + 7 - first) % 7;
        days.extend((0..=count).map(|step| (first + step) % 7));
    }
    Ok(days)
}

/// "08:00" to "24:00", in minutes.
fn time(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no time of day");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| {
        let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        two.then(|| text.parse::<u32>().ok()).flatten()
    };
    match (number(hour), number(minute)) {
        (Some(24), Some(0)) => Ok(MINUTES_OF_DAY),
        (Some(hour @ 0..24), Some(minute @ 0..60)) => Ok(hour * 60 + minute),
        _ => Err(wrong()),
    }
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MINUTES_OF_DAY: u32 = 24 * 60;
const MINUTES_OF_WEEK: u32 = 7 * MINUTES_OF_DAY;
/// The end of the week may be an edge that is none, and so may be a setting of the clock; more
/// than a few in a row there are not unless the hours are the whole week.
const MAX_STEPS: usize = 16;

#[cfg(test)]
mod tests;
