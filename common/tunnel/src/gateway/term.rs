//! How long a session may go on over its present connection.
//!
//! ```text
//! admitted ──────────────── notice ─────────── maximum          certificate
//!    everything is checked     │ GOAWAY           │ closed          │ closed
//!                              └► client moves to a new connection: everything is checked, a new term
//! ```
//!
//! Whichever end comes first counts. Of that of its certificate a client knows without being told.

use std::time::{Duration, Instant};

use adit_core::close::RefusalKind;
use adit_core::period::Period;

use super::SessionId;
use crate::epoch::Epoch;

/// When a session ends by itself, and when its client is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    /// The first end of a certificate in its chain.
    certificate: End,
    /// When everything about it was checked: at the admission of its connection.
    checked: Instant,
    maximum: Option<Period>,
    limit: Option<End>,
    /// When the client is to be told; `None` when it was, or need not be.
    notice: Option<Instant>,
    /// Which part of [`PARTS`] of the time for it passes before the notice.
    part: u32,
}

/// A moment by the calendar, and by the engine's clock unless that is too far to matter.
#[derive(Clone, Copy, Debug)]
struct End {
    unix: i64,
    due: Option<Instant>,
}

impl Term {
    /// Of a session that was admitted `now`, whose certificates last until `certificate`, in seconds since 1970.
    pub(super) fn new(
        now: Instant,
        id: SessionId,
        certificate: i64,
        maximum: Option<Period>,
        epoch: &Epoch,
    ) -> Self {
        let due = epoch.instant_of(certificate);
        let mut term = Self {
            certificate: End {
                unix: certificate,
                due,
            },
            checked: now,
            maximum: None,
            limit: None,
            notice: None,
            // Sessions that began together are not told together.
            part: u32::try_from(id.0 % u64::from(PARTS)).unwrap_or_default(),
        };
        term.change(now, maximum, epoch);
        term
    }

    /// The policy has another maximum. Of one that is past already the client has the usual time to hear.
    pub(super) fn change(&mut self, now: Instant, maximum: Option<Period>, epoch: &Epoch) {
        if maximum == self.maximum {
            return;
        }
        self.maximum = maximum;
        self.limit = maximum.and_then(|maximum| {
            let due = self.checked.checked_add(maximum.into())?;
            let due = due.max(now + lead(maximum));
            Some(End {
                unix: epoch.unix(due),
                due: Some(due),
            })
        });
        self.notice = self.limit_due().zip(maximum).map(|(due, maximum)| {
            let lead = lead(maximum);
            let early = lead * self.part / PARTS;
            due.checked_sub(lead + early).unwrap_or(now).max(now)
        });
    }

    /// When the session ends, in seconds since 1970.
    pub(super) fn ends(&self) -> i64 {
        let limit = self.limit.map(|limit| limit.unix);
        limit.map_or(self.certificate.unix, |limit| {
            limit.min(self.certificate.unix)
        })
    }

    /// Why the session ends now, if it does.
    pub(super) fn over(&self, now: Instant) -> Option<RefusalKind> {
        let is_over = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if is_over(self.certificate.due) {
            Some(RefusalKind::SessionExpired)
        } else if is_over(self.limit_due()) {
            Some(RefusalKind::SessionMaximum)
        } else {
            None
        }
    }

    /// Whether the client is to be told now that the session needs another connection; once.
    pub(super) fn take_notice(&mut self, now: Instant) -> bool {
        self.notice.take_if(|due| *due <= now).is_some()
    }

    /// When something is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let dues = [self.certificate.due, self.limit_due(), self.notice];
        dues.into_iter().flatten().min()
    }

    fn limit_due(&self) -> Option<Instant> {
        self.limit.and_then(|limit| limit.due)
    }
}

/// How much time a client has for its next connection at least: several attempts, unless the sessions are short.
fn lead(maximum: Period) -> Duration {
    (Duration::from(maximum) / 4).min(LEAD)
}

const LEAD: Duration = Duration::from_secs(120);
/// Over so many moments the notices of sessions of the same age are spread, as long again as the lead.
const PARTS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: i64 = 365 * 86_400;

    /// A session of this number, and its calendar.
    fn term(id: u64, maximum: &str) -> (Term, Instant, Epoch) {
        let now = Instant::now();
        let epoch = Epoch::new(now, 0);
        let maximum = Period::parse(maximum);
        let term = Term::new(now, SessionId(id), YEAR, maximum, &epoch);
        (term, now, epoch)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_session_is_told_in_time_and_once_and_ends_at_its_maximum() {
        for (id, notice) in [(0, 8 * 3600 - 120), (32, 8 * 3600 - 180)] {
            let (mut term, start, _) = term(id, "8h");
            assert_eq!(term.ends(), 8 * 3600);
            assert_eq!(term.timeout(), Some(start + seconds(notice)));
            assert!(!term.take_notice(start + seconds(notice - 1)));
            assert!(term.take_notice(start + seconds(notice)));
            assert!(!term.take_notice(start + seconds(notice + 1)));
            assert_eq!(term.timeout(), Some(start + seconds(8 * 3600)));
            assert_eq!(term.over(start + seconds(8 * 3600 - 1)), None);
            let over = term.over(start + seconds(8 * 3600));
            assert_eq!(over, Some(RefusalKind::SessionMaximum));
        }
    }

    #[test]
    fn a_short_maximum_leaves_a_quarter_of_it_for_the_move() {
        for id in 0..64 {
            let (term, start, _) = term(id, "20s");
            let notice = term.timeout().unwrap() - start;
            assert!(
                notice > seconds(10) && notice <= seconds(15),
                "{id}: {notice:?}"
            );
        }
    }

    #[test]
    fn the_end_of_the_certificate_counts_if_it_comes_first() {
        let (term, start, _) = term(1, "53w");
        assert_eq!(term.ends(), YEAR);
        let over = term.over(start + seconds(YEAR.unsigned_abs()));
        assert_eq!(over, Some(RefusalKind::SessionExpired));
    }

    #[test]
    fn another_maximum_counts_from_the_admission_and_is_not_over_before_the_client_can_hear() {
        let (mut term, start, epoch) = term(0, "8h");
        let now = start + seconds(2 * 3600);
        term.change(now, Period::parse("4h"), &epoch);
        assert_eq!(term.ends(), 4 * 3600);
        term.change(now, Period::parse("1h"), &epoch);
        assert_eq!(term.ends(), 2 * 3600 + 120);
        assert!(term.take_notice(now));
        // The same again does not put it off.
        term.change(now + seconds(60), Period::parse("1h"), &epoch);
        assert_eq!(term.ends(), 2 * 3600 + 120);
        term.change(now, None, &epoch);
        assert_eq!(term.ends(), YEAR);
        assert_eq!(term.timeout(), Some(start + seconds(YEAR.unsigned_abs())));
    }
}
