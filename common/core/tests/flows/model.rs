//! The table against a list that is searched from one end to the other.

use std::net::IpAddr;

use adit_core::dataplane::DropReason;
use adit_core::flow::{Passage, Refused};
use adit_core::policy::{Decision, Direction, Flow, RuleId};
use proptest::collection::vec;
use proptest::prelude::*;

use super::packets::{self, ACK, FIN, RST, SYN, TCP, UDP};
use super::{FROM_CLIENT, Session, TO_CLIENT};

/// What happens to a session.
#[derive(Clone, Debug)]
enum Event {
    Packet(Direction, Talk),
    /// About such a packet, of which so many bytes behind the IP header are quoted, to its sender.
    Error(Direction, Talk, usize),
    First(Direction, Talk, u16),
    Later(Direction, Talk, u16, usize),
    Wait(u64),
    /// Another filter.
    Reload(u64),
    Sweep,
}

/// What a packet says. Addresses and ports are few, so that packets meet.
#[derive(Clone, Copy, Debug)]
struct Talk {
    v6: bool,
    far: u8,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Tcp {
        client: u16,
        far: u16,
        flags: u8,
    },
    Udp {
        client: u16,
        far: u16,
    },
    Echo {
        request: bool,
        identifier: u16,
    },
    /// A protocol without ports.
    Other,
    /// A message that nobody answers.
    Redirect,
}

/// Family, far end, protocol with its ports, and who asks.
type Name = (bool, u8, What, Option<Direction>);

impl Talk {
    fn ends(&self) -> (IpAddr, IpAddr) {
        let (client, far) = if self.v6 {
            ("fd00:99::2", format!("fd00:1::{}", self.far))
        } else {
            ("10.99.0.2", format!("10.0.0.{}", self.far))
        };
        (client.parse().unwrap(), far.parse().unwrap())
    }

    /// Source, destination, protocol and what stands behind the IP header.
    fn parts(&self, direction: Direction) -> (IpAddr, IpAddr, u8, Vec<u8>) {
        let (client, far) = self.ends();
        let way = |one, other| match direction {
            Direction::FromClient => (one, other),
            Direction::ToClient => (other, one),
        };
        let (source, destination) = way(client, far);
        let ports = |client, far| match direction {
            Direction::FromClient => (client, far),
            Direction::ToClient => (far, client),
        };
        let (protocol, payload) = match self.what {
            What::Tcp { client, far, flags } => {
                let (from, to) = ports(client, far);
                (TCP, packets::segment(from, to, flags))
            }
            What::Udp { client, far } => {
                let (from, to) = ports(client, far);
                (UDP, packets::datagram(from, to, 16))
            }
            What::Echo {
                request,
                identifier,
            } => {
                let packet = packets::echo(source, destination, request, identifier);
                let header = packet.len() - 8;
                (
                    packet[if self.v6 { 6 } else { 9 }],
                    packet[header..].to_vec(),
                )
            }
            What::Other => (47, vec![0; 24]),
            What::Redirect if self.v6 => (58, vec![137; 24]),
            What::Redirect => (1, vec![5; 24]),
        };
        (source, destination, protocol, payload)
    }

    fn packet(&self, direction: Direction) -> Vec<u8> {
        let (source, destination, protocol, payload) = self.parts(direction);
        packets::ip(source, destination, protocol, &payload)
    }

    /// What a flow is called: everything but flags, and who asks.
    fn name(&self, direction: Direction) -> Option<Name> {
        let (what, asker) = match self.what {
            What::Tcp { client, far, .. } => (
                What::Tcp {
                    client,
                    far,
                    flags: 0,
                },
                None,
            ),
            What::Echo {
                request,
                identifier,
            } => {
                let asker = if request == (direction == FROM_CLIENT) {
                    FROM_CLIENT
                } else {
                    TO_CLIENT
                };
                (
                    What::Echo {
                        request: true,
                        identifier,
                    },
                    Some(asker),
                )
            }
            What::Redirect => return None,
            what => (what, None),
        };
        Some((self.v6, self.far, what, asker))
    }

    fn first(&self, direction: Direction) -> Flow {
        let (_, _, protocol, _) = self.parts(direction);
        let port = match self.what {
            What::Tcp { client, far, .. } | What::Udp { client, far } => {
                Some(if direction == FROM_CLIENT {
                    far
                } else {
                    client
                })
            }
            _ => None,
        };
        Flow {
            direction,
            inside: self.ends().1,
            protocol,
            port,
        }
    }
}

/// A filter that one number describes: every fourth question is answered with no.
fn decide(seed: u64, flow: &Flow) -> Decision {
    let inside = match flow.inside {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits() as u64,
    };
    let words = [
        inside,
        flow.protocol.into(),
        flow.port.map_or(7, u64::from),
        flow.direction as u64,
    ];
    let mixed = words.iter().fold(seed, |mixed, word| {
        (mixed ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23)
    });
    match mixed % 4 {
        0 => Decision::Deny(None),
        rule => Decision::Allow(RuleId {
            index: rule as u32,
            line: rule as u32,
        }),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Opening,
    Established,
    Closing,
    Unanswered,
    Answered,
}

#[derive(Clone, Debug)]
struct Entry {
    talk: Talk,
    name: Name,
    started_by: Direction,
    stage: Stage,
    answered: bool,
    fins: (bool, bool),
    rule: u32,
    filter: u64,
    used: u64,
    packets: (u64, u64),
}

impl Entry {
    fn lifetime(&self) -> u64 {
        match (self.stage, self.name.2) {
            (Stage::Opening | Stage::Closing, _) => 240,
            (Stage::Established, _) => 7440,
            (Stage::Unanswered, _) | (Stage::Answered, What::Echo { .. }) => 60,
            (Stage::Answered, _) => 300,
        }
    }

    fn see(&mut self, now: u64, direction: Direction, what: What) {
        self.used = now;
        let answers = direction != self.started_by;
        self.answered |= answers;
        let What::Tcp { flags, .. } = what else {
            if self.answered {
                self.stage = Stage::Answered;
            }
            return;
        };
        if flags & FIN > 0 {
            match direction {
                Direction::FromClient => self.fins.0 = true,
                Direction::ToClient => self.fins.1 = true,
            }
        }
        if flags & RST > 0 || self.fins == (true, true) {
            self.stage = Stage::Closing;
        } else if self.stage == Stage::Opening && self.answered && !answers && flags & ACK > 0 {
            self.stage = Stage::Established;
        }
    }

    fn count(&mut self, direction: Direction) {
        match direction {
            Direction::FromClient => self.packets.0 += 1,
            Direction::ToClient => self.packets.1 += 1,
        }
    }
}

/// What the parts of a packet have in common: its way, its ends, in IPv4 the protocol, and a number.
type Parts = (Direction, bool, u8, Option<u8>, u16);

#[derive(Clone, Debug)]
enum Fate {
    Denied,
    Dropped(DropReason),
}

/// A first fragment that passed: its direction and name, where it ended, when, and as what.
#[derive(Clone, Debug)]
struct Beginning {
    of: Parts,
    end: usize,
    at: u64,
    talk: Talk,
    single_under: u64,
}

#[derive(Default)]
struct Model {
    now: u64,
    filter: u64,
    /// How many filters there were before.
    filters: u64,
    flows: Vec<Entry>,
    beginnings: Vec<Beginning>,
}

impl Model {
    fn allow(&self, talk: Talk, direction: Direction) -> Result<u32, Fate> {
        match decide(self.filter, &talk.first(direction)) {
            Decision::Allow(rule) => Ok(rule.index),
            Decision::Deny(_) => Err(Fate::Denied),
        }
    }

    fn find(&mut self, talk: Talk, direction: Direction) -> Result<Option<usize>, Fate> {
        let name = talk.name(direction).unwrap();
        let Some(at) = self.flows.iter().position(|entry| entry.name == name) else {
            return Ok(None);
        };
        let entry = self.flows[at].clone();
        if entry.used + entry.lifetime() <= self.now {
            self.flows.remove(at);
            return Ok(None);
        }
        if entry.filter != self.filters {
            match self.allow(entry.talk, entry.started_by) {
                Ok(rule) => (self.flows[at].rule, self.flows[at].filter) = (rule, self.filters),
                Err(fate) => {
                    self.flows.remove(at);
                    return Err(fate);
                }
            }
        }
        Ok(Some(at))
    }

    fn packet(&mut self, talk: Talk, direction: Direction) -> Result<(), Fate> {
        let Some(name) = talk.name(direction) else {
            return self.allow(talk, direction).map(|_| ());
        };
        let known = self.find(talk, direction)?;
        let flags = match talk.what {
            What::Tcp { flags, .. } => flags,
            _ => 0,
        };
        let opens = flags & (SYN | ACK | RST) == SYN;
        if let Some(at) = known {
            let entry = &mut self.flows[at];
            let wrong_side = direction != entry.started_by && entry.stage != Stage::Opening;
            if !(opens && (entry.stage == Stage::Closing || wrong_side)) {
                entry.see(self.now, direction, talk.what);
                entry.count(direction);
                return Ok(());
            }
        }
        let no_flow = Err(Fate::Dropped(DropReason::NoFlow));
        let (rule, started_by) = match talk.what {
            What::Echo { request: false, .. } => return no_flow,
            What::Tcp { .. } if flags & RST > 0 => return no_flow,
            What::Tcp { .. } if direction == TO_CLIENT && !opens => {
                let rule = self.allow(talk, FROM_CLIENT)?;
                if self.now >= 120 {
                    return no_flow;
                }
                (rule, FROM_CLIENT)
            }
            _ => (self.allow(talk, direction)?, direction),
        };
        if let Some(at) = known {
            self.flows.remove(at);
        }
        let stage = match talk.what {
            What::Tcp { .. } => Stage::Opening,
            _ => Stage::Unanswered,
        };
        let mut entry = Entry {
            talk,
            name,
            started_by,
            stage,
            answered: false,
            fins: (false, false),
            rule,
            filter: self.filters,
            used: self.now,
            packets: (0, 0),
        };
        entry.see(self.now, direction, talk.what);
        entry.count(direction);
        self.flows.push(entry);
        Ok(())
    }

    fn error(&mut self, talk: Talk, sent: Direction, quoted: usize) -> Result<(), Fate> {
        let unrelated = Err(Fate::Dropped(DropReason::UnrelatedError));
        let needed = match talk.what {
            What::Tcp { .. } | What::Udp { .. } => 4,
            What::Echo { .. } => 6,
            What::Other => 0,
            What::Redirect => return unrelated,
        };
        if quoted < needed {
            return unrelated;
        }
        match self.find(talk, sent) {
            Ok(Some(at)) if self.flows[at].started_by == sent || self.flows[at].answered => Ok(()),
            _ => unrelated,
        }
    }

    fn name_of_parts(direction: Direction, talk: Talk, number: u16) -> Parts {
        let protocol = (!talk.v6).then(|| talk.parts(direction).2);
        (direction, talk.v6, talk.far, protocol, number)
    }

    fn first(&mut self, talk: Talk, direction: Direction, number: u16) -> Result<(), Fate> {
        self.packet(talk, direction)?;
        let of = Self::name_of_parts(direction, talk, number);
        let mut end = talk.parts(direction).3.len();
        let now = self.now;
        self.beginnings.retain(|known| {
            let same = known.of == of && now < known.at + 30;
            if same {
                end = end.max(known.end);
            }
            !same
        });
        self.beginnings.push(Beginning {
            of,
            end,
            at: now,
            talk,
            single_under: self.filters,
        });
        Ok(())
    }

    fn later(
        &mut self,
        talk: Talk,
        direction: Direction,
        number: u16,
        start: usize,
    ) -> Result<(), Fate> {
        let of = Self::name_of_parts(direction, talk, number);
        let now = self.now;
        let known = self
            .beginnings
            .iter()
            .find(|known| known.of == of && now < known.at + 30);
        let Some(known) = known.cloned() else {
            return Err(Fate::Dropped(DropReason::FragmentBeforeFirst));
        };
        if start < known.end {
            return Err(Fate::Dropped(DropReason::FragmentOverlap));
        }
        let gone = Err(Fate::Dropped(DropReason::NoFlow));
        if known.talk.name(direction).is_none() {
            return if known.single_under == self.filters {
                Ok(())
            } else {
                gone
            };
        }
        match self.find(known.talk, direction)? {
            Some(at) => {
                self.flows[at].used = now;
                self.flows[at].count(direction);
                Ok(())
            }
            None => gone,
        }
    }
}

/// Plays the events to both and compares after each.
fn play(events: &[Event]) -> Result<(), TestCaseError> {
    let (mut session, mut model) = (Session::beginning(), Model::default());
    for event in events {
        let filter = model.filter;
        let allows = |flow: &Flow| decide(filter, flow);
        let (expected, found) = match event {
            Event::Packet(direction, talk) => (
                model.packet(*talk, *direction),
                session.judge(allows, *direction, &talk.packet(*direction)),
            ),
            Event::Error(sent, talk, quoted) => {
                let (source, destination, ..) = talk.parts(*sent);
                let packet = talk.packet(*sent);
                let header = if talk.v6 { 40 } else { 20 };
                let quote = &packet[..packet.len().min(header + quoted)];
                let error = packets::unreachable(destination, source, quote);
                let way = if *sent == FROM_CLIENT {
                    TO_CLIENT
                } else {
                    FROM_CLIENT
                };
                (
                    model.error(*talk, *sent, *quoted),
                    session.judge(allows, way, &error),
                )
            }
            Event::First(direction, talk, number) => {
                let (source, destination, protocol, payload) = talk.parts(*direction);
                let ends = (source, destination);
                let bytes = packets::fragment(ends, protocol, *number, 0, true, &payload);
                (
                    model.first(*talk, *direction, *number),
                    session.judge(allows, *direction, &bytes),
                )
            }
            Event::Later(direction, talk, number, start) => {
                let (source, destination, protocol, _) = talk.parts(*direction);
                let ends = (source, destination);
                let bytes = packets::fragment(ends, protocol, *number, *start, false, &[0; 8]);
                (
                    model.later(*talk, *direction, *number, *start),
                    session.judge(allows, *direction, &bytes),
                )
            }
            Event::Wait(seconds) => {
                model.now += seconds;
                session.wait(*seconds);
                continue;
            }
            Event::Reload(seed) => {
                (model.filter, model.filters) = (*seed, model.filters + 1);
                session.table.filter_changed();
                continue;
            }
            Event::Sweep => {
                session.table.expire(session.now);
                continue;
            }
        };
        match (&expected, &found) {
            (Ok(()), Ok(Passage::Flow(_) | Passage::Single(_) | Passage::Related))
            | (Err(Fate::Denied), Err(Refused::Denied(_))) => {}
            (Err(Fate::Dropped(reason)), Err(Refused::Drop(found))) if reason == found => {}
            _ => prop_assert!(false, "{event:?}: expected {expected:?}, found {found:?}"),
        }
        compare(&session, &model)?;
    }
    Ok(())
}

fn compare(session: &Session, model: &Model) -> Result<(), TestCaseError> {
    let mut found: Vec<_> = session
        .table
        .iter(session.now)
        .map(|flow| {
            let packets = (flow.from_client.packets, flow.to_client.packets);
            let idle = flow.idle.as_secs();
            (
                flow.far,
                flow.client,
                flow.protocol,
                flow.rule.map(|rule| rule.index),
                idle,
                packets,
                flow.started_by as u8,
            )
        })
        .collect();
    let mut expected: Vec<_> = model
        .flows
        .iter()
        .filter(|entry| entry.used + entry.lifetime() > model.now)
        .map(|entry| {
            let (client, far) = entry.talk.ends();
            let (client_port, far_port) = match entry.name.2 {
                What::Tcp { client, far, .. } | What::Udp { client, far } => (client, far),
                What::Echo { identifier, .. } => (identifier, 0),
                What::Other | What::Redirect => (0, 0),
            };
            let protocol = entry.talk.parts(FROM_CLIENT).2;
            (
                (far, far_port),
                (client, client_port),
                protocol,
                (entry.filter == model.filters).then_some(entry.rule),
                model.now - entry.used,
                entry.packets,
                entry.started_by as u8,
            )
        })
        .collect();
    found.sort_unstable();
    expected.sort_unstable();
    prop_assert_eq!(&found, &expected);
    let denied = model.flows.iter().filter(|entry| {
        let first = entry.talk.first(entry.started_by);
        entry.used + entry.lifetime() > model.now && matches!(decide(99, &first), Decision::Deny(_))
    });
    let found = session
        .table
        .denied_by(session.now, &|flow: &Flow| decide(99, flow), |_| true);
    prop_assert_eq!(found, denied.count());
    Ok(())
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(FROM_CLIENT), Just(TO_CLIENT)]
}

fn talk() -> impl Strategy<Value = Talk> {
    let port = || prop_oneof![Just(80u16), Just(443)];
    let flags = prop_oneof![
        3 => Just(SYN),
        2 => Just(SYN | ACK),
        4 => Just(ACK),
        1 => Just(FIN | ACK),
        1 => Just(RST),
        1 => Just(RST | ACK),
        1 => any::<u8>(),
    ];
    let what = prop_oneof![
        6 => (port(), port(), flags).prop_map(|(client, far, flags)| What::Tcp { client, far, flags }),
        3 => (port(), port()).prop_map(|(client, far)| What::Udp { client, far }),
        2 => (any::<bool>(), port()).prop_map(|(request, identifier)| What::Echo { request, identifier }),
        1 => Just(What::Other),
        1 => Just(What::Redirect),
    ];
    (any::<bool>(), 1..3u8, what).prop_map(|(v6, far, what)| Talk { v6, far, what })
}

fn event() -> impl Strategy<Value = Event> {
    let waits = [
        0, 1, 1, 5, 29, 30, 59, 60, 61, 119, 120, 239, 240, 299, 300, 7439, 7440,
    ];
    prop_oneof![
        20 => (direction(), talk()).prop_map(|(way, talk)| Event::Packet(way, talk)),
        4 => (direction(), talk(), 0..25usize).prop_map(|(way, talk, quoted)| Event::Error(way, talk, quoted)),
        3 => (direction(), talk(), 0..2u16).prop_map(|(way, talk, number)| Event::First(way, talk, number)),
        3 => (direction(), talk(), 0..2u16, 1..5usize)
            .prop_map(|(way, talk, number, start)| Event::Later(way, talk, number, start * 8)),
        5 => proptest::sample::select(waits.to_vec()).prop_map(Event::Wait),
        1 => any::<u64>().prop_map(Event::Reload),
        1 => Just(Event::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_table_says_what_a_list_searched_from_end_to_end_says(events in vec(event(), 1..300)) {
        play(&events)?;
    }
}
