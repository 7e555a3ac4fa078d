use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::policy::clock::Moment;

fn hours(entries: &[&str]) -> Hours {
    let parts = entries
        .iter()
        .flat_map(|entry| Hours::parts(entry).unwrap());
    Hours::new(parts.collect())
}

fn schedule(entries: &[&str], from: Option<i64>, until: Option<i64>) -> Schedule {
    Schedule {
        number: 0,
        hours: (!entries.is_empty()).then(|| hours(entries)),
        from,
        until,
        text: String::new(),
    }
}

fn at(clock: &Clock, written: &str) -> i64 {
    match clock.moment(&written.parse().unwrap()).unwrap() {
        Moment::Second(second) | Moment::Day(second, _) => second,
    }
}

#[test]
fn hours_are_those_of_the_wall_in_summer_and_in_winter() {
    let clock = Clock::of("Europe/Berlin").unwrap();
    let office = schedule(&["mon-fri 08:00-18:00"], None, None);
    for (written, open) in [
        ("2026-01-05T07:59:59", false),
        ("2026-01-05T08:00:00", true),
        ("2026-07-06T07:59:59", false),
        ("2026-07-06T08:00:00", true),
        ("2026-07-06T17:59:59", true),
        ("2026-07-06T18:00:00", false),
        ("2026-07-05T12:00:00", false),
    ] {
        assert_eq!(
            office.is_active(at(&clock, written), &clock),
            open,
            "{written}"
        );
    }
    // From the Friday before the clock goes forward to the Monday after it.
    let next = office.next_change(at(&clock, "2026-03-27T18:00:00"), &clock);
    assert_eq!(next, Some(at(&clock, "2026-03-30T08:00:00")));
}

#[test]
fn a_span_over_midnight_ends_on_the_next_day_also_over_the_end_of_the_week() {
    assert_eq!(
        hours(&["sat 22:00-02:00"]).0,
        vec![5 * 1440 + 1320..6 * 1440 + 120]
    );
    assert_eq!(
        hours(&["sun 22:00-02:00"]).0,
        [0..120, 6 * 1440 + 1320..MINUTES_OF_WEEK]
    );
    let clock = Clock::default();
    let night = schedule(&["sun 22:00-02:00"], None, None);
    let sunday = at(&clock, "2026-11-22T22:00:00");
    // Midnight between the two halves is no change.
    assert_eq!(night.next_change(sunday, &clock), Some(sunday + 4 * 3600));
}

#[test]
fn an_hour_that_the_clock_skips_or_repeats_is_open_as_the_wall_shows() {
    let clock = Clock::of("Europe/Berlin").unwrap();
    let night = schedule(&["02:00-03:00"], None, None);
    // On 25 October 2026 the wall shows 02:00 to 03:00 twice.
    let first = at(&clock, "2026-10-25T00:00:00Z");
    assert!(night.is_active(first, &clock) && night.is_active(first + 7199, &clock));
    assert_eq!(night.next_change(first, &clock), Some(first + 7200));
    // On 29 March it never does: the next time is the day after.
    let saturday = at(&clock, "2026-03-28T03:00:00");
    let monday = at(&clock, "2026-03-30T02:00:00");
    assert_eq!(night.next_change(saturday, &clock), Some(monday));
    // Half past is closed by the clock going back, and opens again.
    let half = schedule(&["02:30-03:30"], None, None);
    let set = first + 3600;
    assert_eq!(half.next_change(set - 1800, &clock), Some(set));
    assert_eq!(half.next_change(set, &clock), Some(set + 1800));
}

#[test]
fn always_never_changes() {
    let clock = Clock::of("Europe/Berlin").unwrap();
    for entries in [
        &["00:00-24:00"][..],
        &["mon-sun 00:00-12:00", "12:00-24:00"],
        &["fri-thu 10:00-09:59", "09:00-10:00"],
    ] {
        let always = schedule(entries, None, None);
        assert!(always.is_always(), "{entries:?}");
        assert_eq!(always.next_change(0, &clock), None);
    }
}

#[test]
fn what_is_no_time_is_refused() {
    for text in [
        "",
        "mon",
        "mon-fri",
        "8:00-18:00",
        "08:00",
        "08:00-25:00",
        "08:00-08:00",
        "08:60-09:00",
        "24:00-08:00",
        "mon fri 08:00-09:00",
        "lundi 08:00-09:00",
        "mon- 08:00-09:00",
        "Mon 08:00-09:00",
    ] {
        assert!(Hours::parts(text).is_err(), "{text}");
    }
}

proptest! {
    /// The next change against a walk in steps of a quarter of an hour, which is how finely the
    /// entries and the settings of these clocks are cut.
    #[test]
    fn the_next_change_is_the_first_that_a_walk_finds(
        entries in subsequence(ENTRIES, 0..=3),
        zone in select(&["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"][..]),
        start in 1_790_000_000i64..1_830_000_000,
        from in proptest::option::of(-40i64..40),
        until in proptest::option::of(41i64..1000),
    ) {
        let clock = Clock::of(zone).unwrap();
        let start = start / QUARTER * QUARTER;
        let schedule = schedule(
            &entries,
            from.map(|n| start + n * QUARTER),
            until.map(|n| start + n * QUARTER),
        );
        let active = schedule.is_active(start, &clock);
        let walked = (1..15 * 96)
            .map(|n| start + n * QUARTER)
            .find(|&at| schedule.is_active(at, &clock) != active);
        prop_assert_eq!(schedule.next_change(start, &clock), walked);
    }
}

const QUARTER: i64 = 900;
const ENTRIES: &[&str] = &[
    "mon-fri 08:00-18:00",
    "sat 22:00-02:00",
    "sun 22:00-02:30",
    "02:00-03:00",
    "wed,fri-sun 00:00-24:00",
    "fri-mon 23:45-00:15",
];
