//! The flows of a session: only the first packet of each is judged by the policy.
//!
//! ```text
//! packet ─ of a flow? ─ yes ─ judged by this filter? ─ no: its first packet is judged again ─ passes
//!                     └ no  ─ may it begin one? ─ does the filter allow it in its direction? ─ passes
//! ```
//!
//! Guarantee: whatever passes was allowed by the filter of the session, or answers what was. An ICMP
//! error passes if it quotes a packet of a flow, a later fragment if it continues what passed. What a
//! session does to its table, only that session feels: when the table is full, what has ended goes first, then
//! what nobody has answered, then what was silent for longest.
//!
//! A filter may be replaced at any time: [`FlowTable::filter_changed`]. Nothing is searched then; each
//! flow is judged again when its next packet comes.
//!
//! What passes is counted for its rule, and held to its rate: [`FlowTable::limit`], [`FlowTable::count`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::dataplane::{DropReason, Verdict};
use crate::policy::{Decision, Direction, Filter, Flow, Rate, RuleId};
use crate::wire::icmp::{self, IcmpError};
use crate::wire::ip::{self, IpPacket};
use crate::wire::tcp::{ACK, RST, SYN};

mod accounts;
mod fragments;
mod key;
mod limit;
mod phase;
mod rules;
mod slots;

pub use accounts::{RuleAccount, RuleAccounts};
use fragments::Fragments;
pub use key::HashKey;
use key::{Key, Nameless, Part, opposite};
pub use phase::Phase;
use phase::Progress;
use rules::Rules;
pub use rules::{Totals, Volume};
use slots::{Slot, Slots};

/// What decides about the first packet of a flow.
pub trait Decide {
    /// Whether the flow may be.
    fn decide(&self, flow: &Flow) -> Decision;

    /// How fast a session may use a rule, in each direction; `None` without a limit.
    fn rate(&self, _rule: RuleId) -> Option<Rate> {
        None
    }
}

impl Decide for Filter {
    fn decide(&self, flow: &Flow) -> Decision {
        Self::decide(self, flow)
    }

    fn rate(&self, rule: RuleId) -> Option<Rate> {
        Self::rate(self, rule)
    }
}

impl<F: Fn(&Flow) -> Decision> Decide for F {
    fn decide(&self, flow: &Flow) -> Decision {
        self(flow)
    }
}

/// The flows of one session. Empty, it holds no memory.
#[derive(Debug)]
pub struct FlowTable {
    start: Instant,
    slots: Slots,
    fragments: Fragments<Passed>,
    /// Of the filter: flows judged under another are judged again.
    generation: u32,
    next_serial: u64,
    /// Where the flow of the last packet of each direction is, or was: the next is likely to be of it.
    last: [u32; 2],
    rules: Rules,
}

/// Why a packet passes, and where it is counted: see [`FlowTable::count`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It is of this flow.
    Flow(Handle),
    /// It is a message that nobody answers, allowed by this rule.
    Single(RuleId),
    /// It reports an error about a packet of a flow.
    Related,
}

/// A flow, as long as it stays where it is; whoever asks with an old handle is told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    at: u32,
    serial: u64,
}

/// Why a packet does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The policy denies it, by this rule or because no rule allows it.
    Denied(Option<RuleId>),
    /// Whatever the policy says.
    Drop(DropReason),
}

/// A flow as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowReport {
    /// The upper-layer protocol.
    pub protocol: u8,
    /// The client's address, and its port or the identifier of an ICMP query.
    pub client: (IpAddr, u16),
    /// The far end; the port is zero where there is none.
    pub far: (IpAddr, u16),
    /// Who sent the first packet.
    pub started_by: Direction,
    /// Which rule allows it; `None` when the filter has changed since its last packet.
    pub rule: Option<RuleId>,
    /// How far it has come.
    pub phase: Phase,
    /// How long it has been silent, in whole seconds.
    pub idle: Duration,
    /// From the client.
    pub from_client: Volume,
    /// To the client.
    pub to_client: Volume,
}

/// What a first fragment passed as.
#[derive(Clone, Copy, Debug)]
enum Passed {
    Flow(Key),
    Single {
        rule: RuleId,
        generation: u32,
    },
    /// An error about a packet of this flow.
    Error(Key),
}

impl Refused {
    /// What becomes of the packet.
    #[must_use]
    pub const fn verdict<T>(self) -> Verdict<T> {
        match self {
            Self::Denied(_) => Verdict::Reply(IcmpError::AdminProhibited),
            Self::Drop(reason) => Verdict::Drop(reason),
        }
    }
}

impl FlowReport {
    /// What the policy was asked about its first packet.
    #[must_use]
    pub fn first(&self) -> Flow {
        let port = match self.started_by {
            Direction::FromClient => self.far.1,
            Direction::ToClient => self.client.1,
        };
        Flow {
            direction: self.started_by,
            inside: self.far.0,
            protocol: self.protocol,
            port: ip::has_ports(self.protocol).then_some(port),
        }
    }
}

impl FlowTable {
    /// The table of a session that begins now.
    #[must_use]
    pub fn new(now: Instant, hash: HashKey) -> Self {
        Self {
            start: now,
            slots: Slots::new(hash),
            fragments: Fragments::new(),
            generation: 0,
            next_serial: 0,
            last: [NOWHERE; 2],
            rules: Rules::new(now),
        }
    }

    /// Whether `packet` may pass, and as what. Its addresses belong to who they should.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(
        &mut self,
        now: Instant,
        filter: &impl Decide,
        direction: Direction,
        packet: &IpPacket<'_>,
    ) -> Result<Passage, Refused> {
        let now = self.second(now);
        let judged = if packet.is_first_fragment_or_whole() {
            self.beginning(now, filter, direction, packet)
        } else {
            self.later_fragment(now, filter, direction, packet)
        };
        self.last[direction as usize] = match judged {
            Ok(Passage::Flow(handle)) => handle.at,
            _ => NOWHERE,
        };
        judged
    }

    /// Whether this is simply the next packet of the flow that `handle` names, and within the rate of its
    /// rule. If so, it passes and is counted; if not, [`Self::judge`] and [`Self::limit`] know why.
    /// Beginnings and ends of TCP connections are never simple.
    pub fn follow(
        &mut self,
        now: Instant,
        direction: Direction,
        handle: Handle,
        packet: &IpPacket<'_>,
    ) -> bool {
        let (second, generation) = (self.second(now), self.generation);
        let Some(slot) = self.slots.get(handle.at) else {
            return false;
        };
        let is_current = slot.serial == handle.serial
            && slot.generation == generation
            && !slot.has_expired(second)
            && !packet.is_fragment()
            && Key::of(packet, direction) == Ok(slot.key);
        let part = match Part::of(packet) {
            Some(part) if is_current => part,
            _ => return false,
        };
        if matches!(part, Part::Segment(flags) if flags & (SYN | RST) != 0) {
            return false;
        }
        let bytes = packet.bytes().len();
        if !self.rules.take(slot.rule, now, direction, bytes) {
            return false;
        }
        self.pass(handle.at, second, direction, part);
        self.count(Passage::Flow(handle), direction, 1, bytes);
        true
    }

    /// Whether the rate of its rule lets a packet pass that is so many bytes on the wire; if so, they count
    /// against it.
    ///
    /// # Errors
    /// [`DropReason::RateLimited`]
    pub fn limit(
        &mut self,
        now: Instant,
        passage: Passage,
        direction: Direction,
        bytes: usize,
    ) -> Result<(), DropReason> {
        match self.rule_of(passage) {
            Some(rule) if !self.rules.take(rule, now, direction, bytes) => {
                Err(DropReason::RateLimited)
            }
            _ => Ok(()),
        }
    }

    /// Counts what passed: so many packets of the wire, of so many bytes together.
    pub fn count(&mut self, passage: Passage, direction: Direction, packets: usize, bytes: usize) {
        let (packets, bytes) = (packets as u64, bytes as u64);
        if let Some(rule) = self.rule_of(passage) {
            self.rules.count(rule, direction, packets, bytes);
        }
        if let Passage::Flow(Handle { at, serial }) = passage
            && let Some(slot) = self.slots.get_mut(at).filter(|slot| slot.serial == serial)
        {
            slot.volumes[direction as usize].add(packets, bytes);
        }
    }

    /// The flow of the packet that was judged last in this direction, if it passed as a flow's.
    #[must_use]
    pub fn last(&self, direction: Direction) -> Option<Handle> {
        let at = self.last[direction as usize];
        self.slots.get(at).map(|_| self.handle(at))
    }

    /// From now on another filter decides: every flow is judged again when its next packet comes, and
    /// what is held to a rate has its burst again. Returns what the rules of the old filter have let pass.
    pub fn filter_changed(&mut self) -> BTreeMap<RuleId, Totals> {
        self.generation = self.generation.wrapping_add(1);
        let totals = self.rules.totals();
        self.rules.clear();
        totals
    }

    /// How many flows would end if this filter decided, and the client had only those of its addresses
    /// that it `keeps`.
    #[must_use]
    pub fn denied_by(
        &self,
        now: Instant,
        filter: &impl Decide,
        keeps: impl Fn(IpAddr) -> bool,
    ) -> usize {
        let now = self.second(now);
        let denied = |slot: &&Slot| {
            let first = slot.key.first(slot.progress.started_by);
            let ends =
                || !keeps(slot.key.client()) || matches!(filter.decide(&first), Decision::Deny(_));
            !slot.has_expired(now) && ends()
        };
        self.slots.iter().filter(denied).count()
    }

    /// Forgets what was silent for too long, and gives its memory back.
    pub fn expire(&mut self, now: Instant) {
        let now = self.second(now);
        while let Some(at) = self.expired(now) {
            self.end(at);
        }
        self.slots.shrink();
        self.fragments.expire(now);
    }

    /// How many flows there are, the expired that nobody has met yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is nothing that could expire.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.len() == 0 && self.fragments.is_empty()
    }

    /// For how many flows memory is held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Every live flow, in no order.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = FlowReport> + '_ {
        let now = self.second(now);
        self.slots
            .iter()
            .filter(move |slot| !slot.has_expired(now))
            .map(move |slot| self.report(slot, now))
    }

    /// What each rule has let pass since the filter decides. A flow counts for the rule that let it begin,
    /// and each of its packets for the one that allowed it then.
    #[must_use]
    pub fn totals_by_rule(&self) -> BTreeMap<RuleId, Totals> {
        self.rules.totals()
    }

    /// A whole packet, or the first fragment of one.
    fn beginning(
        &mut self,
        now: u32,
        filter: &impl Decide,
        direction: Direction,
        packet: &IpPacket<'_>,
    ) -> Result<Passage, Refused> {
        let (passage, passed) = match Key::of(packet, direction) {
            Ok(key) => {
                let part = Part::of(packet).ok_or_else(|| too_short(packet))?;
                let at = self.flow(now, filter, direction, key, part)?;
                (Passage::Flow(self.handle(at)), Passed::Flow(key))
            }
            Err(Nameless::Single) => {
                let rule = allowed(filter, &single(packet, direction))?;
                self.rules.place(filter, rule);
                let generation = self.generation;
                (Passage::Single(rule), Passed::Single { rule, generation })
            }
            Err(Nameless::Error) => {
                let quoted = self.quoted(now, filter, direction, packet)?;
                (Passage::Related, Passed::Error(quoted))
            }
            Err(Nameless::Short) => return Err(too_short(packet)),
        };
        if packet.is_fragment() {
            self.fragments.remember(now, packet, passed);
        }
        Ok(passage)
    }

    /// Finds or begins the flow of a packet, which passes.
    fn flow(
        &mut self,
        now: u32,
        filter: &impl Decide,
        direction: Direction,
        key: Key,
        part: Part,
    ) -> Result<u32, Refused> {
        let known = self.locate(now, filter, direction, &key)?;
        if let Some(at) = known
            && !self.slots[at].progress.is_begun_anew(direction, part)
        {
            self.pass(at, now, direction, part);
            return Ok(at);
        }
        let (rule, started_by) = self.first(now, filter, direction, &key, part)?;
        match known {
            Some(at) => self.end(at),
            None if self.slots.len() >= MAX_FLOWS => self.make_room(now),
            None => {}
        }
        self.next_serial += 1;
        let rule = self.rules.place(filter, rule);
        self.rules.begin_flow(rule);
        let mut progress = Progress::new(started_by, part);
        progress.advance(direction, part, key.is_query());
        let slot = Slot::new(key, self.next_serial, rule, self.generation, now, progress);
        Ok(self.slots.insert(slot))
    }

    /// The live flow of this name, judged by the filter of today.
    fn locate(
        &mut self,
        now: u32,
        filter: &impl Decide,
        direction: Direction,
        key: &Key,
    ) -> Result<Option<u32>, Refused> {
        let Some(at) = self.slots.find(key, self.last[direction as usize]) else {
            return Ok(None);
        };
        let generation = self.generation;
        let slot = &mut self.slots[at];
        if slot.has_expired(now) {
            self.end(at);
            return Ok(None);
        }
        if slot.generation != generation {
            match allowed(filter, &slot.key.first(slot.progress.started_by)) {
                Ok(rule) => {
                    slot.rule = self.rules.place(filter, rule);
                    slot.generation = generation;
                }
                Err(refused) => {
                    self.end(at);
                    return Err(refused);
                }
            }
        }
        Ok(Some(at))
    }

    /// Whether a packet of no flow may begin one: by which rule, and whose flow it is.
    fn first(
        &self,
        now: u32,
        filter: &impl Decide,
        direction: Direction,
        key: &Key,
        part: Part,
    ) -> Result<(RuleId, Direction), Refused> {
        let no_flow = Err(Refused::Drop(DropReason::NoFlow));
        match (part, direction) {
            (Part::Answer, _) => no_flow,
            (Part::Segment(flags), _) if flags & RST != 0 => no_flow,
            // Nobody opens a connection to a client with anything but a SYN. What the client may have
            // opened before there was this table is its to take up again: its next segment does, and
            // until every sender has repeated what was under way, the other end's does as well.
            (Part::Segment(flags), Direction::ToClient) if flags & (SYN | ACK) != SYN => {
                let rule = allowed(filter, &key.first(Direction::FromClient))?;
                if now < TAKE_UP {
                    Ok((rule, Direction::FromClient))
                } else {
                    no_flow
                }
            }
            _ => Ok((allowed(filter, &key.first(direction))?, direction)),
        }
    }

    fn later_fragment(
        &mut self,
        now: u32,
        filter: &impl Decide,
        direction: Direction,
        packet: &IpPacket<'_>,
    ) -> Result<Passage, Refused> {
        let passed = self.fragments.follow(now, packet).map_err(Refused::Drop)?;
        let gone = Refused::Drop(DropReason::NoFlow);
        match passed {
            Passed::Flow(key) => {
                let at = self.locate(now, filter, direction, &key)?.ok_or(gone)?;
                let phase = self.slots[at].progress.phase;
                self.slots.touch(at, phase, now);
                Ok(Passage::Flow(self.handle(at)))
            }
            Passed::Single { rule, generation } if generation == self.generation => {
                Ok(Passage::Single(rule))
            }
            Passed::Single { .. } => Err(gone),
            Passed::Error(key) => {
                self.locate(now, filter, direction, &key)?.ok_or(gone)?;
                Ok(Passage::Related)
            }
        }
    }

    /// The flow that an ICMP error is about: RFC 5508 §4, RFC 5927 §4.
    fn quoted(
        &mut self,
        now: u32,
        filter: &impl Decide,
        direction: Direction,
        error: &IpPacket<'_>,
    ) -> Result<Key, Refused> {
        let unrelated = Refused::Drop(DropReason::UnrelatedError);
        let sent = opposite(direction);
        let quoted = icmp::quoted(error)
            .filter(|quoted| quoted.is_first_fragment_or_whole())
            .filter(|quoted| quoted.source() == error.destination())
            .ok_or(unrelated)?;
        let key = Key::of(&quoted, sent).map_err(|_| unrelated)?;
        let at = self
            .locate(now, filter, sent, &key)
            .map_err(|_| unrelated)?
            .ok_or(unrelated)?;
        if !self.slots[at].progress.has_sent(sent) {
            return Err(unrelated);
        }
        Ok(key)
    }

    fn pass(&mut self, at: u32, now: u32, direction: Direction, part: Part) {
        let slot = &mut self.slots[at];
        let before = slot.progress.phase;
        let is_query = slot.key.is_query();
        slot.progress.advance(direction, part, is_query);
        self.slots.touch(at, before, now);
    }

    /// Ends the flow that is missed least.
    fn make_room(&mut self, now: u32) {
        let ended = self
            .expired(now)
            .or_else(|| self.slots.oldest(Phase::Closing))
            .or_else(|| self.oldest_of(&[Phase::Opening, Phase::Unanswered]))
            .or_else(|| self.oldest_of(&[Phase::Answered, Phase::Query, Phase::Established]));
        if let Some(at) = ended {
            self.end(at);
        }
    }

    fn expired(&self, now: u32) -> Option<u32> {
        Phase::ALL
            .into_iter()
            .filter_map(|phase| self.slots.oldest(phase))
            .find(|&at| self.slots[at].has_expired(now))
    }

    fn oldest_of(&self, phases: &[Phase]) -> Option<u32> {
        phases
            .iter()
            .filter_map(|&phase| self.slots.oldest(phase))
            .min_by_key(|&at| self.slots[at].used)
    }

    fn end(&mut self, at: u32) {
        self.slots.remove(at);
    }

    /// The place of the rule by which something passes.
    fn rule_of(&self, passage: Passage) -> Option<u32> {
        match passage {
            Passage::Flow(Handle { at, serial }) => self
                .slots
                .get(at)
                .filter(|slot| slot.serial == serial && slot.generation == self.generation)
                .map(|slot| slot.rule),
            Passage::Single(rule) => self.rules.known(rule),
            Passage::Related => None,
        }
    }

    fn report(&self, slot: &Slot, now: u32) -> FlowReport {
        let [from_client, to_client] = slot.volumes;
        let is_current = slot.generation == self.generation;
        FlowReport {
            protocol: slot.key.protocol(),
            client: (slot.key.client(), slot.key.client_port()),
            far: (slot.key.far(), slot.key.far_port()),
            started_by: slot.progress.started_by,
            rule: self.rules.rule(slot.rule).filter(|_| is_current),
            phase: slot.progress.phase,
            idle: Duration::from_secs(u64::from(now.saturating_sub(slot.used))),
            from_client,
            to_client,
        }
    }

    fn handle(&self, at: u32) -> Handle {
        let serial = self.slots[at].serial;
        Handle { at, serial }
    }

    /// Whole seconds since the session began: fine enough for every timeout.
    fn second(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.start).as_secs();
        u32::try_from(passed).unwrap_or(u32::MAX)
    }
}

fn allowed(filter: &impl Decide, flow: &Flow) -> Result<RuleId, Refused> {
    match filter.decide(flow) {
        Decision::Allow(rule) => Ok(rule),
        Decision::Deny(rule) => Err(Refused::Denied(rule)),
    }
}

/// A packet that is no flow's, for the policy.
fn single(packet: &IpPacket<'_>, direction: Direction) -> Flow {
    let inside = match direction {
        Direction::FromClient => packet.destination(),
        Direction::ToClient => packet.source(),
    };
    Flow {
        direction,
        inside,
        protocol: packet.protocol(),
        port: None,
    }
}

fn too_short(packet: &IpPacket<'_>) -> Refused {
    Refused::Drop(if packet.is_fragment() {
        DropReason::FragmentTooShort
    } else {
        DropReason::Malformed
    })
}

/// Flows per session, some two megabytes: more than a busy desktop or a small branch office has, and a
/// thousand sessions that do their worst still fit a server.
const MAX_FLOWS: usize = 16_384;

/// Where no table has a flow.
const NOWHERE: u32 = u32::MAX;

/// Seconds in which a session's connections from before may be taken up from the far end. RFC 6298 §2.5
/// lets a sender wait a minute between two attempts, and Linux waits two.
const TAKE_UP: u32 = 120;
