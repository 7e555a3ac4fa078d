//! What is explained is what happens: first packets of flows, as bytes, through the gateway's verdicts.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use adit_core::dataplane::gateway::{self, Gate, OnWire, Place, Sessions, Target};
use adit_core::dataplane::{Denial, DropReason, Verdict};
use adit_core::flow::{FlowTable, HashKey, Refused};
use adit_core::policy::{Direction, Explanation, Filter, Flow, Policy, RuleId};
use adit_core::wire::icmp::IcmpError;
use adit_core::wire::ip::IpPacket;
use proptest::prelude::*;
use proptest::sample::select;

use super::model::{identity, model, now, question};
use super::packets::{self, ACK, SYN, TCP, UDP, datagram, fragment, ip, segment};

/// A first packet, by what it is made of.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Tcp,
    Udp,
    Echo,
    /// An ICMP message that is neither a query nor an error.
    Redirect,
    /// A protocol without ports.
    Other(u8),
    /// The first of several, with all of its header.
    First(u8),
    /// IPv6: behind two extension headers. IPv4: behind options.
    BehindOptions(u8),
    /// IPv6: a fragment that is the whole packet (RFC 6946). IPv4: one that may not be fragmented.
    Atomic(u8),
    /// IPv6: behind a header that nobody knows, which is the protocol then.
    BehindUnknown,
    /// The first of several, without its ports.
    Tiny(u8),
    /// Not the first of several.
    Later(u8),
}

/// What a shape is to the policy, or why it never gets so far.
enum Meaning {
    Asked { protocol: u8, port: Option<u16> },
    Dropped(DropReason),
}

impl Shape {
    fn bytes(self, from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
        let ends = (from.0, to.0);
        let payload = |protocol| match protocol {
            TCP => segment(from.1, to.1, flags),
            _ => datagram(from.1, to.1, 16),
        };
        let v6 = from.0.is_ipv6();
        let icmp = if v6 { 58 } else { 1 };
        match self {
            Self::Tcp => packets::tcp(from, to, flags),
            Self::Udp => packets::udp(from, to),
            Self::Echo => packets::echo(from.0, to.0, true, from.1),
            Self::Redirect => ip(
                from.0,
                to.0,
                icmp,
                &[if v6 { 137 } else { 5 }, 0, 0, 0, 0, 0, 0, 0],
            ),
            Self::Other(protocol) => ip(from.0, to.0, protocol, &[7; 24]),
            Self::First(protocol) => {
                let mut first = payload(protocol);
                first.resize(24, 0);
                fragment(ends, protocol, 9, 0, true, &first)
            }
            Self::BehindOptions(protocol) if v6 => {
                let mut whole = vec![60, 0, 1, 4, 0, 0, 0, 0, protocol, 0, 1, 4, 0, 0, 0, 0];
                whole.extend(payload(protocol));
                ip(from.0, to.0, 0, &whole)
            }
            Self::BehindOptions(protocol) => {
                let mut packet = ip(from.0, to.0, protocol, &payload(protocol));
                packet.splice(20..20, [1, 1, 1, 0]);
                let length = (packet.len() as u16).to_be_bytes();
                packet[0] = 0x46;
                packet[2..4].copy_from_slice(&length);
                packet
            }
            Self::Atomic(protocol) => {
                let mut packet = fragment(ends, protocol, 9, 0, false, &payload(protocol));
                if !v6 {
                    packet[6] = 0x40;
                }
                packet
            }
            Self::BehindUnknown => {
                let mut whole = vec![UDP, 0, 0, 0, 0, 0, 0, 0];
                whole.extend(payload(UDP));
                ip(from.0, to.0, UNKNOWN, &whole)
            }
            Self::Tiny(protocol) => {
                let tiny = if protocol == TCP { 16 } else { 0 };
                fragment(ends, protocol, 9, 0, true, &payload(protocol)[..tiny])
            }
            Self::Later(protocol) => fragment(ends, protocol, 9, 24, false, &[0; 16]),
        }
    }

    fn meaning(self, v6: bool, port: u16) -> Meaning {
        let asked = |protocol, port| Meaning::Asked { protocol, port };
        match self {
            Self::Tcp => asked(TCP, Some(port)),
            Self::Udp => asked(UDP, Some(port)),
            Self::Echo | Self::Redirect => asked(if v6 { 58 } else { 1 }, None),
            Self::Other(protocol) => asked(protocol, None),
            Self::First(protocol) | Self::BehindOptions(protocol) | Self::Atomic(protocol) => {
                asked(protocol, Some(port))
            }
            Self::BehindUnknown => asked(UNKNOWN, None),
            Self::Tiny(_) => Meaning::Dropped(DropReason::FragmentTooShort),
            Self::Later(_) => Meaning::Dropped(DropReason::FragmentBeforeFirst),
        }
    }
}

/// A first packet between one of two clients and somebody else.
#[derive(Clone, Copy, Debug)]
struct Case {
    shape: Shape,
    direction: Direction,
    /// Which host of those inside; the last is the other client.
    far: usize,
    v6: bool,
    near_port: u16,
    far_port: u16,
    /// Whether a segment that the client sends opens its connection, or goes on with it.
    opens: bool,
}

impl Case {
    fn client(self) -> IpAddr {
        CLIENTS[usize::from(self.v6)][0].parse().unwrap()
    }

    fn far(self) -> IpAddr {
        let family = usize::from(self.v6);
        let host = HOSTS[family].get(self.far).unwrap_or(&CLIENTS[family][1]);
        host.parse().unwrap()
    }

    fn is_between_clients(self) -> bool {
        self.far == HOSTS[0].len()
    }

    fn bytes(self) -> Vec<u8> {
        let (client, far) = ((self.client(), self.near_port), (self.far(), self.far_port));
        match self.direction {
            Direction::FromClient if !self.opens => self.shape.bytes(client, far, ACK),
            Direction::FromClient => self.shape.bytes(client, far, SYN),
            Direction::ToClient => self.shape.bytes(far, client, SYN),
        }
    }

    fn meaning(self) -> Meaning {
        let port = match self.direction {
            Direction::FromClient => self.far_port,
            Direction::ToClient => self.near_port,
        };
        self.shape.meaning(self.v6, port)
    }
}

/// Two sessions that have begun long ago and have no flows.
struct Pair {
    filters: [Arc<Filter>; 2],
    tables: [FlowTable; 2],
}

impl Sessions for Pair {
    type Key = usize;

    fn owner(&self, address: IpAddr) -> Option<Place<usize>> {
        let clients = CLIENTS.iter().map(|family| {
            let mut own = family.iter();
            own.position(|own| own.parse::<IpAddr>().unwrap() == address)
        });
        clients.flatten().next().map(Place::Here)
    }

    fn gate(&mut self, key: usize) -> Option<Gate<'_>> {
        Some(Gate {
            filter: &self.filters[key],
            flows: &mut self.tables[key],
            max_packet: 1400,
        })
    }

    /// The verdict says the same.
    fn denied(&mut self, _: usize, _: Instant, _: Denial, _: usize) {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_first_packet_meets_the_verdict_and_the_rule_that_explain_tells(
        model in model(),
        client in identity(),
        other in identity(),
        now in now(),
        cases in proptest::collection::vec(case(), 60),
    ) {
        let policy = Policy::parse(&model.text(), "policy.toml").unwrap();
        let filter = |identity| policy.access(identity, now).map(|access| access.filter);
        let filters = [filter(&client), filter(&other)];
        for case in cases {
            let bytes = case.bytes();
            let packet = IpPacket::parse(&bytes).unwrap();
            let flow = |direction, inside| match case.meaning() {
                Meaning::Asked { protocol, port } => Some(Flow { direction, inside, protocol, port }),
                Meaning::Dropped(_) => None,
            };
            let mut told = Vec::new();
            if let Some(flow) = flow(case.direction, case.far()) {
                told.push((0, case.direction, policy.explain(&question(&client, flow, now))));
            }
            if let Some(flow) = flow(Direction::ToClient, case.client()).filter(|_| case.is_between_clients()) {
                told.push((1, Direction::ToClient, policy.explain(&question(&other, flow, now))));
            }
            for (session, direction, told) in &told {
                match &filters[*session] {
                    Ok(filter) => prop_assert_eq!(judged(filter, *direction, &packet), answer(told), "{:?}", case),
                    Err(_) => prop_assert_eq!(answer(told), (false, None), "without a session"),
                }
            }
            let [Ok(own), Ok(others)] = &filters else { continue };
            let mut pair = Pair { filters: [own.clone(), others.clone()], tables: [table(), table()] };
            let expected = match case.meaning() {
                Meaning::Dropped(reason) => Verdict::Drop(reason),
                Meaning::Asked { .. } if told.iter().all(|(_, _, told)| told.allowed) => Verdict::Forward(()),
                Meaning::Asked { .. } => Verdict::Reply(IcmpError::AdminProhibited),
            };
            prop_assert_eq!(through(&mut pair, case, &packet), expected, "{:?}", case);
        }
    }
}

/// What is explained: whether it may be, and by which rule.
fn answer(told: &Explanation) -> (bool, Option<String>) {
    let place = told.rule.as_ref().map(|rule| rule.place.clone());
    (told.allowed, place)
}

/// What the flows of a session say about the packet, and by which rule.
fn judged(filter: &Filter, direction: Direction, packet: &IpPacket<'_>) -> (bool, Option<String>) {
    let place = |rule: RuleId| format!("policy.toml:{}", rule.line);
    let mut table = table();
    match table.judge(late(), filter, direction, packet) {
        Ok(passage) => {
            table.count(passage, direction, 1, packet.bytes().len());
            let rules: Vec<RuleId> = table.totals_by_rule().into_keys().collect();
            assert_eq!(rules.len(), 1, "one packet, one rule");
            (true, Some(place(rules[0])))
        }
        Err(Refused::Denied(rule)) => (false, rule.map(place)),
        Err(Refused::Drop(reason)) => panic!("dropped: {reason:?}"),
    }
}

/// What the gateway does with the packet.
fn through(pair: &mut Pair, case: Case, packet: &IpPacket<'_>) -> Verdict<()> {
    match case.direction {
        Direction::FromClient => {
            let target = if case.is_between_clients() {
                Target::Peer(1)
            } else {
                Target::Inside
            };
            gateway::from_peer(pair, late(), 0, packet).map(|to| assert_eq!(to, target))
        }
        Direction::ToClient => gateway::to_peer(pair, late(), packet, OnWire::single(packet))
            .map(|to| assert_eq!(to, Place::Here(0))),
    }
}

/// A table that began long before [`late`].
fn table() -> FlowTable {
    FlowTable::new(begin(), HashKey::new([0x9e37_79b9_7f4a_7c15; 6]))
}

fn begin() -> Instant {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    *BEGIN.get_or_init(Instant::now)
}

fn late() -> Instant {
    begin() + Duration::from_secs(1000)
}

fn case() -> impl Strategy<Value = Case> {
    let protocol = || select(&[TCP, UDP][..]);
    let shape = prop_oneof![
        2 => Just(Shape::Tcp),
        2 => Just(Shape::Udp),
        1 => Just(Shape::Echo),
        1 => Just(Shape::Redirect),
        1 => select(&[47, 50, 89][..]).prop_map(Shape::Other),
        1 => protocol().prop_map(Shape::First),
        1 => protocol().prop_map(Shape::BehindOptions),
        1 => protocol().prop_map(Shape::Atomic),
        1 => Just(Shape::BehindUnknown),
        1 => protocol().prop_map(Shape::Tiny),
        1 => protocol().prop_map(Shape::Later),
    ];
    let ports = || select(&[0, 52, 53, 54, 443, 65_535][..]);
    let direction = select(&[Direction::FromClient, Direction::ToClient][..]);
    let far = 0..=HOSTS[0].len();
    let rest = (any::<bool>(), ports(), ports(), any::<bool>());
    (shape, direction, far, rest).prop_map(
        |(shape, direction, far, (v6, near_port, far_port, opens))| Case {
            shape,
            // Between clients, it is the first that sends.
            direction: if far == HOSTS[0].len() {
                Direction::FromClient
            } else {
                direction
            },
            far,
            v6,
            near_port,
            far_port,
            // The other one is not spoken to with the middle of a connection.
            opens: opens || far == HOSTS[0].len(),
        },
    )
}

/// The two clients, in each family; the second is also what one reaches as a far end.
const CLIENTS: [[&str; 2]; 2] = [["10.99.0.2", "10.3.0.200"], ["fd00:99::2", "fd00:1::200"]];
const HOSTS: [[&str; 6]; 2] = [
    [
        "10.0.0.1",
        "10.1.0.1",
        "10.1.0.2",
        "10.2.0.2",
        "10.3.0.1",
        "203.0.113.9",
    ],
    [
        "fd00::1",
        "fd00:1::1",
        "fd00:1::2",
        "fd00:2::1",
        "fd00:3::1",
        "2001:db8::9",
    ],
];
/// For experiments (RFC 3692).
const UNKNOWN: u8 = 253;
