//! What should be true, by plain bookkeeping: who has which certificate from when until when, what was taken back,
//! and which lists have reached the gateway. Nothing of the real authorities is asked.

use std::collections::{BTreeMap, BTreeSet};

use super::calendar::{DAY, MINUTE};
use super::company::{CODE_LIFE, ROOT_LIST_LIFE, VALIDITY};

/// How far a certificate begins in the past.
const BACKDATED: i64 = 5 * MINUTE;
/// How long the list of an authority that issues is good.
const LIST_LIFE: i64 = 7 * DAY;

/// A certificate.
#[derive(Clone, Debug)]
pub struct Paper {
    pub who: String,
    pub issuer: usize,
    pub from: i64,
    pub to: i64,
    pub created: i64,
    pub revoked: bool,
    pub seen: Option<i64>,
    pub used: Option<i64>,
    pub refused: Option<i64>,
    pub sessions: u64,
    pub open: bool,
}

/// A revocation list: whom it names, and when it is too old.
#[derive(Clone, Debug, Default)]
struct List {
    named: BTreeSet<usize>,
    due: i64,
}

/// An authority that issues.
#[derive(Debug)]
struct Issuer {
    from: i64,
    end: i64,
    /// Whose certificates are not renewed here until they are invited again.
    stopped: BTreeSet<String>,
    newest: List,
    /// The one the gateway has.
    brought: Option<List>,
}

/// Why somebody does not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Out {
    NotYet,
    Over,
    Revoked,
    /// The authority was.
    IssuerRevoked,
    /// No list is fresh enough to tell.
    Stale,
}

/// A code.
#[derive(Clone, Debug)]
pub struct Code {
    who: String,
    issuer: usize,
    until: i64,
    used: bool,
    withdrawn: bool,
}

/// The books.
#[derive(Debug, Default)]
pub struct Ledger {
    pub papers: Vec<Paper>,
    codes: Vec<Code>,
    issuers: BTreeMap<usize, Issuer>,
    root: List,
    root_brought: List,
    issuing: usize,
    former: Vec<usize>,
    hard: bool,
}

impl Ledger {
    pub fn make_issuing(&mut self, number: usize, end: i64, now: i64) {
        let issuer = Issuer {
            from: now - BACKDATED,
            end,
            stopped: BTreeSet::new(),
            newest: List {
                named: BTreeSet::new(),
                due: now + LIST_LIFE,
            },
            brought: None,
        };
        self.issuers.insert(number, issuer);
    }

    pub fn configure(&mut self, issuing: usize, former: &[usize], hard: bool) {
        (self.issuing, self.former, self.hard) = (issuing, former.to_vec(), hard);
        for issuer in self.issuers.values_mut() {
            issuer.brought = None;
        }
        self.bring_lists();
    }

    pub fn refresh_root_list(&mut self, now: i64) {
        self.root.due = now + ROOT_LIST_LIFE;
    }

    pub fn refresh_list(&mut self, number: usize, now: i64) {
        self.issuer(number).newest.due = now + LIST_LIFE;
    }

    pub fn bring_lists(&mut self) {
        self.root_brought = self.root.clone();
        for number in self.former.iter().chain([&self.issuing]) {
            let issuer = self.issuers.get_mut(number).unwrap();
            issuer.brought = Some(issuer.newest.clone());
        }
    }

    pub fn revoke_issuing(&mut self, number: usize, now: i64) {
        self.root.named.insert(number);
        self.refresh_root_list(now);
    }

    /// Takes everything of somebody back at one authority: how many certificates, and whether there is a new list.
    pub fn revoke(&mut self, number: usize, who: &str, now: i64) -> (usize, bool) {
        let mut revoked = Vec::new();
        for (place, paper) in self.papers.iter_mut().enumerate() {
            if paper.issuer == number && paper.who == who && !paper.revoked && paper.to >= now {
                paper.revoked = true;
                revoked.push(place);
            }
        }
        let mut withdrawn = 0;
        for code in self.codes.iter_mut().filter(|code| code.issuer == number) {
            if code.who == who && !code.used && !code.withdrawn && code.until >= now {
                code.withdrawn = true;
                withdrawn += 1;
            }
        }
        let issuer = self.issuer(number);
        issuer.stopped.insert(who.to_owned());
        let listed = !revoked.is_empty() || withdrawn > 0;
        if listed {
            issuer.newest.due = now + LIST_LIFE;
        }
        issuer.newest.named.extend(&revoked);
        (revoked.len(), listed)
    }

    /// Somebody is invited; the number of the code.
    pub fn invite(&mut self, who: &str, now: i64) -> usize {
        let issuing = self.issuing;
        self.issuer(issuing).stopped.remove(who);
        self.codes.push(Code {
            who: who.to_owned(),
            issuer: issuing,
            until: now + CODE_LIFE,
            used: false,
            withdrawn: false,
        });
        self.codes.len() - 1
    }

    /// A code is redeemed: the number of the certificate, if there is to be one.
    pub fn enrol(&mut self, code: usize, now: i64) -> Option<usize> {
        let code = &mut self.codes[code];
        if code.used || code.withdrawn || now > code.until || code.issuer != self.issuing {
            return None;
        }
        code.used = true;
        let who = code.who.clone();
        Some(self.issue(who, now))
    }

    /// The holder of a certificate asks for the next one, in a session.
    pub fn renew(&mut self, paper: usize, now: i64) -> Option<usize> {
        let old = self.papers[paper].clone();
        let known = old.issuer == self.issuing || self.former.contains(&old.issuer);
        let stopped = [old.issuer, self.issuing]
            .iter()
            .any(|number| self.issuers[number].stopped.contains(&old.who));
        let valid = (old.from..=old.to).contains(&now);
        let gained = self.end(now) > old.to;
        (known && valid && gained && !old.revoked && !stopped).then(|| self.issue(old.who, now))
    }

    fn issue(&mut self, who: String, now: i64) -> usize {
        self.papers.push(Paper {
            who,
            issuer: self.issuing,
            from: now - BACKDATED,
            to: self.end(now),
            created: now,
            revoked: false,
            seen: None,
            used: None,
            refused: None,
            sessions: 0,
            open: false,
        });
        self.papers.len() - 1
    }

    /// Until when a certificate is good that is issued now: as long as all are, or as the authority itself.
    fn end(&self, now: i64) -> i64 {
        self.issuers[&self.issuing].end.min(now + VALIDITY)
    }

    /// Whether a certificate lets its holder in, or a session of it stay.
    pub fn verdict(&self, paper: usize, now: i64, newcomer: bool) -> Result<(), Out> {
        let number = paper;
        let paper = &self.papers[number];
        let issuer = &self.issuers[&paper.issuer];
        if now < paper.from.max(issuer.from) {
            return Err(Out::NotYet);
        }
        if now > paper.to.min(issuer.end) {
            return Err(Out::Over);
        }
        if self.root_brought.named.contains(&paper.issuer) {
            return Err(Out::IssuerRevoked);
        }
        let brought = issuer.brought.as_ref();
        if brought.is_some_and(|list| list.named.contains(&number)) {
            return Err(Out::Revoked);
        }
        let fresh = |list: &List| now < list.due;
        let told = fresh(&self.root_brought) && brought.is_some_and(fresh);
        if self.hard && newcomer && !told {
            return Err(Out::Stale);
        }
        Ok(())
    }

    pub fn opened(&mut self, paper: usize, now: i64) {
        let paper = &mut self.papers[paper];
        paper.seen = paper.seen.or(Some(now));
        paper.used = Some(now);
        paper.sessions += 1;
        paper.open = true;
    }

    pub fn closed(&mut self, paper: usize, now: i64) {
        let paper = &mut self.papers[paper];
        paper.used = Some(now);
        paper.open = false;
    }

    pub fn refused(&mut self, paper: usize, now: i64) {
        let paper = &mut self.papers[paper];
        paper.seen = paper.seen.or(Some(now));
        paper.refused = Some(now);
    }

    /// Whether a certificate is in the list of its authority that the gateway has.
    pub fn is_listed(&self, paper: usize) -> bool {
        let brought = &self.issuers[&self.papers[paper].issuer].brought;
        brought
            .as_ref()
            .is_some_and(|list| list.named.contains(&paper))
    }

    /// Whether the gateway knows that the authority of a certificate was revoked.
    pub fn is_issuer_listed(&self, paper: usize) -> bool {
        let issuer = self.papers[paper].issuer;
        self.root_brought.named.contains(&issuer)
    }

    /// The authorities that ever issued and are not over.
    pub fn alive(&self, now: i64) -> Vec<usize> {
        let alive = self.issuers.iter().filter(|(_, issuer)| now <= issuer.end);
        alive.map(|(number, _)| *number).collect()
    }

    fn issuer(&mut self, number: usize) -> &mut Issuer {
        self.issuers.get_mut(&number).unwrap()
    }
}
