//! What happens, day by day, to the company and in the books.

use std::collections::BTreeMap;

use adit_core::close::RefusalKind;
use adit_pki::index::State;
use adit_pki::inventory::{Filter, Row};
use adit_pki::{Reason, operator};
use adit_tunnel::SessionInfo;
use rustls::pki_types::CertificateDer;

use super::calendar::{DAY, Dice, HOUR, MINUTE, START, at};
use super::company::{Company, Papers, Settings};
use super::ledger::{Ledger, Out};

/// A year and its company.
pub struct Story {
    dice: Dice,
    company: Company,
    ledger: Ledger,
    settings: Settings,
    people: Vec<Person>,
    /// Laptops in the wrong hands, since which day: lost, or kept by somebody who left.
    astray: Vec<(i64, Laptop)>,
    open: Vec<Session>,
    /// By fingerprint, in the ledger.
    numbers: BTreeMap<String, usize>,
    /// How wrong the gateway's clock is.
    gateway: i64,
    /// Until which day the lists are not signed anew, and not brought.
    unsigned: i64,
    unbrought: i64,
    /// Whether the lists at the gateway are not those there are.
    behind: bool,
    told: Told,
}

/// What happened how often: the year must have all of it.
#[derive(Debug, Default)]
struct Told {
    enrolled: u32,
    late_codes: u32,
    withdrawn_codes: u32,
    renewed: u32,
    renewed_for_a_former_authority: u32,
    refused_renewals: u32,
    let_in: u32,
    kept_out: BTreeMap<Out, u32>,
    ended_sessions: u32,
    astray_let_in: u32,
    rows: usize,
}

struct Person {
    name: String,
    laptop: Option<Laptop>,
    /// The code, its number in the books, and the day on which it will be typed in.
    code: Option<([u8; 16], usize, i64)>,
    /// On holiday, with the laptop closed, until this day.
    away: i64,
    /// How wrong the laptop's clock is.
    clock: i64,
    left: bool,
}

#[derive(Clone)]
struct Laptop {
    chain: Vec<CertificateDer<'static>>,
    authorities: String,
    paper: usize,
}

struct Session {
    info: SessionInfo,
    chain: Vec<CertificateDer<'static>>,
    paper: usize,
}

impl Story {
    pub fn new(seed: u64) -> Self {
        let now = at(-1, 12 * HOUR);
        let settings = Settings {
            issuing: 1,
            former: Vec::new(),
            hard: seed.is_multiple_of(2),
        };
        let mut ledger = Ledger::default();
        ledger.make_issuing(1, FIRST_ENDS, now);
        ledger.refresh_root_list(now);
        ledger.configure(1, &[], settings.hard);
        let person = |number| Person {
            name: format!("employee{number}@example.com"),
            laptop: None,
            code: None,
            away: 0,
            clock: 0,
            left: false,
        };
        Self {
            dice: Dice::new(seed),
            company: Company::found(&settings, FIRST_ENDS, now),
            ledger,
            settings,
            people: (0..EMPLOYEES).map(person).collect(),
            astray: Vec::new(),
            open: Vec::new(),
            numbers: BTreeMap::new(),
            gateway: 0,
            unsigned: 0,
            unbrought: 0,
            behind: false,
            told: Told::default(),
        }
    }

    pub fn live(mut self) {
        for day in 0..365 {
            self.gateway = self.dice.between(-2 * MINUTE, 2 * MINUTE);
            self.ceremonies(day);
            self.lists(day);
            self.people(day);
            self.astray(day);
            self.gateway = self.dice.between(-2 * MINUTE, 2 * MINUTE);
            self.evening(day);
            if day % 10 == 0 {
                self.compare_inventory(at(day, 20 * HOUR) + self.gateway);
            }
        }
        self.nobody_is_locked_out();
        self.everything_happened();
    }

    /// The root is taken out of its safe on few days.
    fn ceremonies(&mut self, day: i64) {
        let now = at(day, 6 * HOUR);
        // Its list is good for 90 days: the first two times somebody is late.
        if [95, 188, 320].contains(&day) {
            self.company.refresh_root_list(now);
            self.ledger.refresh_root_list(now);
            self.behind = true;
        }
        match day {
            // With a new key, under the name of the first.
            100 => self.replace_issuing(2, "Company", SECOND_ENDS, vec![1], now),
            // Under another name.
            190 => self.replace_issuing(3, "Company Laptops", THIRD_ENDS, vec![2, 1], now),
            // What the first issued has ended with it.
            260 => self.configure(Settings {
                former: vec![2],
                ..self.settings.clone()
            }),
            240 => self.revoke_second(now),
            330 => {
                self.company.certify_gateway(now);
                self.configure(self.settings.clone());
            }
            _ => {}
        }
        if [60, 130, 210, 300].contains(&day) {
            let hard = !self.settings.hard;
            self.configure(Settings {
                hard,
                ..self.settings.clone()
            });
        }
    }

    fn replace_issuing(
        &mut self,
        issuing: usize,
        name: &str,
        end: i64,
        former: Vec<usize>,
        now: i64,
    ) {
        self.company.make_issuing(issuing, name, end, now);
        self.ledger.make_issuing(issuing, end, now);
        self.configure(Settings {
            issuing,
            former,
            hard: self.settings.hard,
        });
        // Codes of the authority before are not good at this one.
        for number in 0..self.people.len() {
            if self.people[number].code.is_some() {
                self.invite(number, 0, now);
            }
        }
    }

    /// Its key may have been stolen. Whoever has a certificate of it needs another.
    fn revoke_second(&mut self, now: i64) {
        self.company.revoke_issuing(2, now);
        self.ledger.revoke_issuing(2, now);
        self.configure(self.settings.clone());
    }

    fn configure(&mut self, settings: Settings) {
        let Settings {
            issuing,
            former,
            hard,
        } = &settings;
        self.ledger.configure(*issuing, former, *hard);
        self.company.configure(&settings);
        self.settings = settings;
        self.behind = false;
    }

    /// Lists are signed and brought every day, except when nobody does.
    fn lists(&mut self, day: i64) {
        let now = at(day, 7 * HOUR);
        if self.dice.once_in(30) {
            self.unsigned = day + self.dice.between(3, 12);
        }
        if self.dice.once_in(40) {
            self.unbrought = day + self.dice.between(2, 9);
        }
        if day >= self.unsigned {
            for number in self.ledger.alive(now) {
                self.company.refresh_list(number, now);
                self.ledger.refresh_list(number, now);
            }
            self.behind = true;
        }
        self.bring(day, now);
    }

    fn bring(&mut self, day: i64, now: i64) {
        if self.behind && day >= self.unbrought {
            self.company.bring_lists(&self.settings);
            self.ledger.bring_lists();
            self.behind = false;
        }
        self.judge_open(now + self.gateway);
    }

    /// Each open session stays as long as the books say, and no longer.
    fn judge_open(&mut self, now: i64) {
        for session in std::mem::take(&mut self.open) {
            let until = self.company.still(&session.chain, now);
            let expected = self.ledger.verdict(session.paper, now, false);
            let what = &self.ledger.papers[session.paper];
            assert_eq!(until.is_some(), expected.is_ok(), "{what:?} {expected:?}");
            if let Some(until) = until {
                assert_eq!(until, what.to, "{what:?}");
                self.open.push(session);
            } else {
                self.told.ended_sessions += 1;
                self.close(&session, now);
            }
        }
    }

    fn close(&mut self, session: &Session, now: i64) {
        self.company.close(&session.info, now);
        self.ledger.closed(session.paper, now);
    }

    fn people(&mut self, day: i64) {
        let joining = if day < 10 { EMPLOYEES / 10 } else { 0 };
        for number in 0..joining {
            let newcomer = usize::try_from(day).unwrap() * joining + number;
            self.invite(newcomer, day, at(day, 8 * HOUR));
        }
        for number in 0..self.people.len() {
            let now = at(day, 8 * HOUR) + self.dice.below(9 * HOUR);
            self.day_of(number, day, now);
        }
        for _ in 0..self.dice.below(2) {
            let leaver = self.dice.place(self.people.len());
            self.leave(leaver, day, at(day, 17 * HOUR));
        }
        // Now and then somebody who was invited does not come.
        let mut guests = self.people.iter();
        if self.dice.once_in(20)
            && let Some(guest) = guests.position(|guest| !guest.left && guest.code.is_some())
        {
            self.leave(guest, day, at(day, 17 * HOUR));
        }
        if self.dice.once_in(2) {
            let loser = self.dice.place(self.people.len());
            self.lose(loser, day, at(day, 17 * HOUR));
        }
    }

    /// One day of somebody.
    fn day_of(&mut self, number: usize, day: i64, now: i64) {
        let person = &mut self.people[number];
        if person.left || day < person.away {
            return;
        }
        if self.dice.once_in(90) {
            person.away = day + self.dice.between(4, 60);
            return;
        }
        if self.dice.once_in(30) {
            person.clock = self.dice.between(-2 * MINUTE, 2 * MINUTE);
        }
        if let Some((secret, code, when)) = person.code {
            if when <= day {
                self.enrol(number, day, &secret, code, now);
            }
            return;
        }
        let Some(laptop) = &person.laptop else {
            return;
        };
        let paper = &self.ledger.papers[laptop.paper];
        let due = paper.from + (paper.to - paper.from) * 2 / 3;
        let wants = now + person.clock >= due;
        if !wants && !self.dice.once_in(20) {
            return;
        }
        self.connect(number, day, now + self.gateway, wants);
    }

    /// The client connects, and asks for the next certificate when it is time.
    fn connect(&mut self, number: usize, day: i64, now: i64, wants: bool) {
        let laptop = self.people[number].laptop.clone().unwrap();
        if self.dice.once_in(5) {
            let clock = now - self.gateway + self.people[number].clock;
            let believed = self.company.is_believed(&laptop.authorities, clock);
            assert!(believed, "the gateway was not believed on day {day}");
        }
        match self.handshake(&laptop, &format!("laptop-{number}"), now) {
            Ok(info) => {
                if wants && let Some(next) = self.renew(&laptop, &info, now + 2) {
                    self.people[number].laptop = Some(next);
                }
                self.seat(Session {
                    info,
                    chain: laptop.chain,
                    paper: laptop.paper,
                });
            }
            // Nobody comes back by waiting: an operator invites again.
            Err(Out::Over | Out::Revoked | Out::IssuerRevoked) => self.invite(number, day, now),
            Err(Out::Stale | Out::NotYet) => {}
        }
    }

    /// Shows a certificate at the gateway: what it says must be what the books say.
    fn handshake(&mut self, laptop: &Laptop, device: &str, now: i64) -> Result<SessionInfo, Out> {
        let expected = self.ledger.verdict(laptop.paper, now, true);
        let found = self.company.connect(&laptop.chain, device, now);
        let paper = &self.ledger.papers[laptop.paper];
        let about = || format!("day {}: {expected:?}, {paper:?}", (now - START) / DAY);
        match (found, expected) {
            (Ok(info), Ok(())) => {
                assert_eq!(info.identity.principal.as_str(), paper.who);
                self.ledger.opened(laptop.paper, now);
                self.told.let_in += 1;
                Ok(info)
            }
            (Err(kind), Err(out)) => {
                let kinds: &[RefusalKind] = match out {
                    Out::NotYet => &[RefusalKind::CertificateNotYetValid],
                    Out::Over => &[RefusalKind::CertificateExpired],
                    Out::Revoked | Out::IssuerRevoked => &[RefusalKind::CertificateRevoked],
                    Out::Stale => &[RefusalKind::RevocationUnknown],
                };
                assert!(kinds.contains(&kind), "{kind:?}, {}", about());
                self.ledger.refused(laptop.paper, now);
                *self.told.kept_out.entry(out).or_default() += 1;
                Err(out)
            }
            (Ok(_), Err(_)) => panic!("let in wrongly, {}", about()),
            (Err(kind), Ok(())) => panic!("locked out by {kind:?}, {}", about()),
        }
    }

    /// A session takes the place of the one its principal had.
    fn seat(&mut self, session: Session) {
        let principal = &session.info.identity.principal;
        let before = self
            .open
            .iter()
            .position(|open| open.info.identity.principal == *principal);
        let since = session.info.since;
        if let Some(before) = before.map(|before| self.open.swap_remove(before)) {
            self.company.close(&before.info, since);
            self.ledger.papers[before.paper].used = Some(since);
            self.ledger.papers[before.paper].open = before.paper == session.paper;
        }
        self.open.push(session);
    }

    fn renew(&mut self, laptop: &Laptop, info: &SessionInfo, now: i64) -> Option<Laptop> {
        let former = self.ledger.papers[laptop.paper].issuer != self.settings.issuing;
        let expected = self.ledger.renew(laptop.paper, now);
        let found = self.company.renew(info, now);
        match (found, expected) {
            (Ok(papers), Some(paper)) => {
                self.told.renewed += 1;
                self.told.renewed_for_a_former_authority += u32::from(former);
                Some(self.laptop(papers, paper))
            }
            (Err(_), None) => {
                self.told.refused_renewals += 1;
                None
            }
            (found, expected) => panic!(
                "renewal: {:?}, in the books {expected:?} after {:?}",
                found.map(|_| ()),
                self.ledger.papers[laptop.paper]
            ),
        }
    }

    fn enrol(&mut self, number: usize, day: i64, secret: &[u8; 16], code: usize, moment: i64) {
        let now = moment + self.gateway;
        let device = format!("laptop-{number}");
        let expected = self.ledger.enrol(code, now);
        let found = self.company.enrol(secret, &device, now);
        match (found, expected) {
            (Ok(papers), Some(paper)) => {
                self.told.enrolled += 1;
                let laptop = self.laptop(papers, paper);
                let person = &mut self.people[number];
                (person.laptop, person.code) = (Some(laptop), None);
                if self.dice.once_in(3) {
                    // Somebody sets the gateway's clock right, or wrong.
                    self.gateway = self.dice.between(-2 * MINUTE, 2 * MINUTE);
                }
                self.connect(number, day, moment + 5 + self.gateway, false);
            }
            (Err("expired"), None) => {
                self.told.late_codes += 1;
                self.invite(number, day, now);
            }
            (found, expected) => panic!("{:?}, in the books {expected:?}", found.map(|_| ())),
        }
    }

    fn laptop(&mut self, papers: Papers, paper: usize) -> Laptop {
        let fingerprint = adit_pki::description::fingerprint(&papers.chain[0]);
        self.numbers.insert(fingerprint, paper);
        Laptop {
            chain: papers.chain,
            authorities: papers.authorities,
            paper,
        }
    }

    /// An operator invites somebody, who takes a while, and sometimes too long.
    fn invite(&mut self, number: usize, day: i64, now: i64) {
        let delay = [0, 0, 0, 1, 2, 5][self.dice.place(6)];
        let name = self.people[number].name.clone();
        let secret = self.company.invite(&name, now);
        let code = self.ledger.invite(&name, now);
        self.people[number].code = Some((secret, code, day + delay));
    }

    fn leave(&mut self, number: usize, day: i64, now: i64) {
        let person = &self.people[number];
        if person.left || (person.laptop.is_none() && person.code.is_none()) {
            return;
        }
        self.revoke(number, Reason::CessationOfOperation, day, now);
        let name = format!("employee{}@example.com", self.people.len());
        let person = &mut self.people[number];
        person.left = true;
        let kept = person.laptop.take().map(|laptop| (day, laptop));
        self.astray.extend(kept);
        // Somebody else begins.
        self.people.push(Person {
            name,
            laptop: None,
            code: None,
            away: 0,
            clock: 0,
            left: false,
        });
        self.invite(self.people.len() - 1, day, now + MINUTE);
    }

    fn lose(&mut self, number: usize, day: i64, now: i64) {
        if self.people[number].left || self.people[number].laptop.is_none() {
            return;
        }
        let lost = self.people[number].laptop.take();
        self.astray.extend(lost.map(|laptop| (day, laptop)));
        self.revoke(number, Reason::KeyCompromise, day, now);
        self.invite(number, day, now + MINUTE);
    }

    /// Everything of somebody is taken back at every authority that is not over.
    fn revoke(&mut self, number: usize, reason: Reason, day: i64, now: i64) {
        let name = self.people[number].name.clone();
        let code = self.people[number].code.take();
        for authority in self.ledger.alive(now) {
            let found = self.company.revoke(authority, &name, reason, now);
            assert_eq!(found, self.ledger.revoke(authority, &name, now), "{name}");
        }
        self.behind = true;
        self.bring(day, now);
        if let Some((secret, code, _)) = code {
            let at = now + self.gateway;
            let expected = self.ledger.enrol(code, at);
            let found = self.company.enrol(&secret, "laptop", at);
            assert!(
                expected.is_none() && found.is_err(),
                "a code that was withdrawn"
            );
            self.told.withdrawn_codes += 1;
        }
    }

    /// Who has a laptop that is not theirs tries, and tries to get a certificate that outlives the loss.
    fn astray(&mut self, day: i64) {
        for number in 0..self.astray.len() {
            let (since, laptop) = self.astray[number].clone();
            // Often while it may still be worth it.
            let seldom = if day < since + 14 { 4 } else { 40 };
            if !self.dice.once_in(seldom) {
                continue;
            }
            let now = at(day, 18 * HOUR) + self.gateway;
            if let Ok(info) = self.handshake(&laptop, "astray", now) {
                self.told.astray_let_in += 1;
                let next = self.renew(&laptop, &info, now + 2);
                assert!(next.is_none(), "a certificate for a laptop that was lost");
                self.seat(Session {
                    info,
                    chain: laptop.chain,
                    paper: laptop.paper,
                });
            }
        }
    }

    /// Most go home.
    fn evening(&mut self, day: i64) {
        let now = at(day, 19 * HOUR) + self.gateway;
        self.judge_open(now);
        for session in std::mem::take(&mut self.open) {
            if self.dice.once_in(4) {
                self.open.push(session);
            } else {
                self.close(&session, now);
            }
        }
    }

    fn compare_inventory(&mut self, now: i64) {
        let listing = self.company.inventory(now);
        let by = operator::current();
        let visible = |issuer: usize| {
            issuer == self.settings.issuing || self.settings.former.contains(&issuer)
        };
        let mut expected = BTreeMap::new();
        for (number, paper) in self.ledger.papers.iter().enumerate() {
            if visible(paper.issuer) || paper.seen.is_some() {
                expected.insert(number, paper);
            }
        }
        assert_eq!(listing.rows.len(), expected.len());
        let mut unlisted = false;
        let mut found = [0; 3];
        let mut counted = [0; 3];
        let filters = [
            Filter {
                expiring: Some(14),
                ..Filter::default()
            },
            Filter {
                unused: Some(30),
                ..Filter::default()
            },
            Filter {
                revoked: true,
                ..Filter::default()
            },
        ];
        for row in &listing.rows {
            let number = self.numbers[&row.fingerprint];
            let paper = expected[&number];
            let shown = visible(paper.issuer);
            let listed = self.ledger.is_listed(number);
            unlisted |= shown && paper.revoked && paper.to >= now && !listed;
            let fallen = self.ledger.is_issuer_listed(number);
            let revoked = (shown && paper.revoked) || listed || fallen;
            let state = match (revoked, now) {
                (true, _) => State::Revoked,
                (_, now) if now < paper.from => State::NotYetValid,
                (_, now) if now > paper.to => State::Expired,
                _ => State::Valid,
            };
            let usable = matches!(state, State::Valid | State::NotYetValid);
            let used = if paper.open { Some(now) } else { paper.used };
            let about = || format!("{row:#?}\n{paper:#?}");
            assert_eq!(row.state, state, "{}", about());
            assert_eq!(
                facts(row),
                facts_of(paper, used, shown.then_some(&by)),
                "{}",
                about()
            );
            let access = row.access.as_ref().unwrap();
            assert_eq!(access.is_empty(), !usable, "{}", about());
            let idle = now - used.or(paper.seen).unwrap_or(paper.created);
            counted[0] += usize::from(usable && paper.to - now <= 14 * DAY);
            counted[1] += usize::from(state == State::Valid && !paper.open && idle >= 30 * DAY);
            counted[2] += usize::from(revoked);
            for (count, filter) in found.iter_mut().zip(&filters) {
                *count += usize::from(filter.takes(row, now));
            }
        }
        assert_eq!(found, counted, "expiring, unused, revoked");
        assert_eq!(!listing.notes.is_empty(), unlisted, "{:?}", listing.notes);
        self.told.rows += listing.rows.len();
    }

    /// Whoever works here and was not away for long has a certificate that lets in, or a code.
    fn nobody_is_locked_out(&self) {
        let now = at(364, 21 * HOUR);
        for person in self.people.iter().filter(|person| !person.left) {
            let in_order = person.code.is_some()
                || person.away > 320
                || person.laptop.as_ref().is_some_and(|laptop| {
                    let verdict = self.ledger.verdict(laptop.paper, now, false);
                    verdict.is_ok() && self.company.still(&laptop.chain, now).is_some()
                });
            assert!(in_order, "{} is locked out", person.name);
        }
    }

    /// A year in which something did not happen proves nothing about it.
    fn everything_happened(&self) {
        let told = &self.told;
        for (what, count, least) in [
            ("enrolled", told.enrolled, 600),
            ("late codes", told.late_codes, 20),
            ("withdrawn codes", told.withdrawn_codes, 10),
            ("renewed", told.renewed, 900),
            (
                "renewed for a former authority",
                told.renewed_for_a_former_authority,
                200,
            ),
            ("refused renewals", told.refused_renewals, 10),
            ("let in", told.let_in, 5000),
            ("ended sessions", told.ended_sessions, 5),
            ("laptops astray let in", told.astray_let_in, 10),
        ] {
            assert!(count >= least, "{what}: {count} < {least}, {told:?}");
        }
        for out in [Out::Over, Out::Revoked, Out::IssuerRevoked, Out::Stale] {
            let count = told.kept_out.get(&out).copied().unwrap_or_default();
            assert!(count >= 10, "{out:?}: {count}, {told:?}");
        }
    }
}

/// What a row says that the books know.
type Facts<'a> = (
    &'a str,
    [i64; 2],
    [Option<i64>; 3],
    Option<u64>,
    Option<bool>,
    Option<&'a str>,
    &'a [String],
);

fn facts(row: &Row) -> Facts<'_> {
    (
        &row.principal,
        [row.valid_from, row.expires],
        [
            row.first_seen,
            row.last_used,
            row.refused.as_ref().map(|refused| refused.at),
        ],
        row.sessions,
        row.in_use,
        row.issued_by.as_deref(),
        &row.groups,
    )
}

fn facts_of<'a>(
    paper: &'a super::ledger::Paper,
    used: Option<i64>,
    by: Option<&'a String>,
) -> Facts<'a> {
    (
        &paper.who,
        [paper.from, paper.to],
        [paper.seen, used, paper.refused],
        Some(paper.sessions),
        Some(paper.open),
        by.map(String::as_str),
        STAFF.get_or_init(|| vec!["staff".to_owned()]),
    )
}

static STAFF: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();

const EMPLOYEES: usize = 500;
/// Within the year: what it issued late is cut short, and goes on under the next.
const FIRST_ENDS: i64 = START + 150 * DAY;
const SECOND_ENDS: i64 = START + 600 * DAY;
const THIRD_ENDS: i64 = START + 700 * DAY;
