//! When which session must be judged again although nobody asks for it: a policy may have hours.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use adit_core::identity::Principal;

/// One appointment for each principal, or none.
#[derive(Debug, Default)]
pub(super) struct Timetable {
    appointments: BTreeSet<(Instant, Principal)>,
    due: BTreeMap<Principal, Instant>,
}

impl Timetable {
    /// Makes the principal's appointment, in place of the one before.
    pub(super) fn set(&mut self, principal: &Principal, due: Option<Instant>) {
        self.remove(principal);
        if let Some(due) = due {
            self.appointments.insert((due, principal.clone()));
            self.due.insert(principal.clone(), due);
        }
    }

    /// The session is over.
    pub(super) fn remove(&mut self, principal: &Principal) {
        if let Some((principal, due)) = self.due.remove_entry(principal) {
            self.appointments.remove(&(due, principal));
        }
    }

    /// Takes everybody whose time has come.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Principal> {
        let mut due = Vec::new();
        while let Some((at, principal)) = self.appointments.pop_first() {
            if at > now {
                self.appointments.insert((at, principal));
                break;
            }
            self.due.remove(&principal);
            due.push(principal);
        }
        due
    }

    /// The next appointment.
    pub(super) fn next(&self) -> Option<Instant> {
        self.appointments.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everybody_is_taken_once_when_the_time_has_come_and_not_before() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let [a, b, c] =
            ["a@e.com", "b@e.com", "c@e.com"].map(|name| Principal::parse(name).unwrap());
        let mut timetable = Timetable::default();
        timetable.set(&a, Some(at(5)));
        timetable.set(&b, Some(at(1)));
        timetable.set(&c, Some(at(1)));
        timetable.set(&b, Some(at(9)));
        timetable.remove(&c);
        assert_eq!(timetable.next(), Some(at(5)));
        assert!(timetable.take(at(4)).is_empty());
        assert_eq!(timetable.take(at(5)), [a]);
        assert_eq!(timetable.take(at(10)), std::slice::from_ref(&b));
        timetable.set(&b, None);
        assert_eq!(timetable.next(), None);
        assert!(timetable.due.is_empty());
    }
}
