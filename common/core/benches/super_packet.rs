//! What a large policy costs a super-packet: the whole of what the core does with one, under one rule and
//! under [`RULES`] rules for [`PRINCIPALS`] principals.
//!
//! *Down*, 64 KiB of a stream from inside are parsed, judged and cut into packets that fit. *Up*, the same in
//! packets of their own are parsed, judged, counted and joined. Sessions come in turn, a thousand of them, each
//! with an open connection, so that no cache knows the next one; the rest is the same memory for all policies. Rounds
//! of the policies alternate, and medians are compared, because only the ratio matters and the machine may have other
//! things to do. Run with `cargo bench -p adit-core --bench super_packet`.
#![allow(missing_docs, clippy::print_stdout)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::dataplane::gateway::{self, Gate, OnWire, Place, Sessions, Target};
use adit_core::dataplane::{Denial, Verdict};
use adit_core::flow::{FlowTable, HashKey};
use adit_core::identity::{Identity, Principal};
use adit_core::offload::coalesce::{Coalescer, Join, MAX_HEADERS};
use adit_core::offload::split::Segments;
use adit_core::offload::{SegmentKind, Segmentation};
use adit_core::policy::{Direction, Filter, Policy};
use adit_core::table::owners::Owners;
use adit_core::wire::checksum::{self, Sum};
use adit_core::wire::ip::{IpPacket, TCP};
use adit_core::wire::tcp::{ACK, SYN};
use bytes::{Bytes, BytesMut};

fn main() {
    // `cargo test --benches` only asks whether it works.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let rounds = if is_test { 1 } else { ROUNDS };
    let policies = policies();
    let mut gateways: Vec<_> = policies
        .iter()
        .map(|(_, text)| Gateway::new(text))
        .collect();
    type Way = fn(&mut Gateway, &mut Work) -> Duration;
    let ways: [(&str, Way); 2] = [("down", Gateway::down), ("up", Gateway::up)];
    for (name, way) in ways {
        let mut work = Work::new();
        let mut times = vec![Vec::new(); gateways.len()];
        for round in 0..rounds {
            // Each comes behind each other equally often.
            for turn in 0..gateways.len() {
                let at = (round + turn) % gateways.len();
                let at = if round % 2 == 0 {
                    at
                } else {
                    gateways.len() - 1 - at
                };
                times[at].push(way(&mut gateways[at], &mut work));
            }
        }
        let medians: Vec<f64> = times.into_iter().map(median).collect();
        for ((policy, _), time) in policies.iter().zip(&medians) {
            let ratio = time / medians[0];
            println!("{name}: {policy:20} {time:7.1} ns a super-packet, {ratio:.3} of one rule");
        }
    }
}

/// A gateway's sessions under one policy, each with an open connection to a host that it may reach.
struct Gateway {
    owners: Owners<Place<usize>>,
    filters: Vec<Arc<Filter>>,
    flows: Vec<FlowTable>,
    now: Instant,
}

/// Memory that is reused, and packets to write other addresses into.
struct Work {
    whole: Vec<u8>,
    cut: BytesMut,
    coalescer: Coalescer,
}

impl Gateway {
    fn new(text: &str) -> Self {
        // On a thread of their own, as the front desk makes them: an allocator gives each thread its own memory, and what
        // compiling leaves behind would scatter the flow tables of the packet thread.
        let filters = std::thread::scope(|scope| {
            let filters = scope.spawn(|| {
                let policy = Policy::parse(text, "policy.toml").expect("a policy");
                let access = |number| policy.access(&identity(number), 0).expect("an access");
                let all = (0..PRINCIPALS).map(|number| access(number).filter);
                all.collect()
            });
            filters.join().expect("filters")
        });
        let now = Instant::now();
        let mut gateway = Self {
            owners: Owners::new(),
            filters,
            flows: Vec::new(),
            now,
        };
        for number in 0..PRINCIPALS {
            let owner = Place::Here(number);
            gateway.owners.insert(client(number).into(), owner);
            let key = HashKey::new([0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835; 6]);
            gateway.flows.push(FlowTable::new(now, key));
            gateway.connect(number);
        }
        gateway
    }

    fn connect(&mut self, number: usize) {
        let work = Work::new();
        for flags in [SYN, ACK] {
            let bytes = work.packet(true, number, flags, 0);
            let packet = IpPacket::parse(&bytes).expect("a packet");
            let verdict = gateway::from_peer(self, self.now, number, &packet);
            assert_eq!(verdict, Verdict::Forward(Target::Inside));
            let answer = work.packet(false, number, flags | ACK, 0);
            let packet = IpPacket::parse(&answer).expect("a packet");
            let verdict = gateway::to_peer(self, self.now, &packet, OnWire::single(&packet));
            assert_eq!(verdict, Verdict::Forward(Place::Here(number)));
        }
    }

    /// A super-packet from inside for each session; the time of one.
    fn down(&mut self, work: &mut Work) -> Duration {
        let segmentation = Segmentation {
            kind: SegmentKind::Tcp,
            size: SIZE as u16,
        };
        let start = Instant::now();
        for number in 0..PRINCIPALS {
            work.address(false, number);
            let packet = IpPacket::parse(black_box(&work.whole)).expect("a packet");
            let segments = Segments::new(&packet, segmentation).expect("segments");
            let on_wire = OnWire::from(&segments);
            let verdict = gateway::to_peer(self, self.now, &packet, on_wire);
            assert_eq!(verdict, Verdict::Forward(Place::Here(number)));
            work.cut.clear();
            for index in 0..segments.count() {
                segments.append(index, &mut work.cut);
            }
            black_box(&mut work.cut);
        }
        start.elapsed() / PRINCIPALS as u32
    }

    /// The same from each client, in packets; cut beforehand, and not counted.
    fn up(&mut self, work: &mut Work) -> Duration {
        let mut time = Duration::ZERO;
        let mut headers = [0; MAX_HEADERS];
        for number in 0..PRINCIPALS {
            let packets = work.packets(number);
            let start = Instant::now();
            let mut handle = None;
            for bytes in packets {
                let packet = IpPacket::parse(black_box(&bytes)).expect("a packet");
                // As a session does: the first leads to its flow, the others follow it.
                if let Some(handle) = handle {
                    let flows = &mut self.flows[number];
                    assert!(flows.follow(self.now, Direction::FromClient, handle, &packet));
                } else {
                    let verdict = gateway::from_peer(self, self.now, number, &packet);
                    assert_eq!(verdict, Verdict::Forward(Target::Inside));
                    handle = self.flows[number].last(Direction::FromClient);
                }
                work.coalescer.push(bytes);
            }
            work.coalescer.flush();
            let bundle = work.coalescer.pop().expect("a bundle");
            assert_eq!(bundle.packets().len(), COUNT);
            black_box(bundle.headers(&mut headers));
            work.coalescer.recycle(bundle);
            time += start.elapsed();
        }
        time / PRINCIPALS as u32
    }
}

impl Sessions for Gateway {
    type Key = usize;

    fn owner(&self, address: IpAddr) -> Option<Place<usize>> {
        self.owners.owner(address)
    }

    fn gate(&mut self, key: usize) -> Option<Gate<'_>> {
        Some(Gate {
            filter: self.filters.get(key)?,
            flows: self.flows.get_mut(key)?,
            max_packet: MAX_PACKET,
        })
    }

    fn denied(&mut self, _: usize, _: Instant, denial: Denial, _: usize) {
        panic!("everything measured is allowed, not {denial:?}");
    }
}

impl Work {
    fn new() -> Self {
        let mut work = Self {
            whole: Vec::new(),
            cut: BytesMut::with_capacity(2 * COUNT * MAX_PACKET),
            coalescer: Coalescer::new(Join::TcpAndUdp),
        };
        work.whole = work.packet(false, 0, ACK, COUNT * SIZE);
        work
    }

    /// Writes a session's addresses into the packet that is there; checksums are made when it is cut.
    fn address(&mut self, up: bool, number: usize) {
        let (source, destination) = ends(up, number);
        self.whole[12..16].copy_from_slice(&source.octets());
        self.whole[16..20].copy_from_slice(&destination.octets());
    }

    /// A super-packet of a client, as it comes out of the tunnel.
    fn packets(&mut self, number: usize) -> Vec<Bytes> {
        let whole = self.packet(true, number, ACK, COUNT * SIZE);
        let packet = IpPacket::parse(&whole).expect("a packet");
        let segmentation = Segmentation {
            kind: SegmentKind::Tcp,
            size: SIZE as u16,
        };
        let segments = Segments::new(&packet, segmentation).expect("segments");
        let cut = (0..segments.count()).map(|index| {
            let mut segment = BytesMut::with_capacity(segments.longest());
            segments.append(index, &mut segment);
            segment.freeze()
        });
        cut.collect()
    }

    /// A segment of a session's connection.
    fn packet(&self, up: bool, number: usize, flags: u8, payload: usize) -> Vec<u8> {
        let (source, destination) = ends(up, number);
        let ports = if up { [50_000, 443] } else { [443, 50_000u16] };
        let mut segment = ports.map(u16::to_be_bytes).concat();
        segment.extend([0, 0, 16, 0, 0, 0, 0, 1, 0x50, flags, 1, 0xf4, 0, 0, 0, 0]);
        segment.resize(20 + payload, 7);
        let sum = Sum::pseudo_header(source.into(), destination.into(), TCP, segment.len());
        let sum = sum.bytes(&segment).checksum().to_be_bytes();
        segment[16..18].copy_from_slice(&sum);
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, TCP, 0, 0];
        packet[2..4].copy_from_slice(&((20 + segment.len()) as u16).to_be_bytes());
        packet.extend(source.octets());
        packet.extend(destination.octets());
        let sum = checksum::of(&packet).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend(segment);
        packet
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64
}

/// The first twice: what differs between the two is chance.
fn policies() -> [(&'static str, String); 4] {
    let ports = "ports = [\"tcp/443\", \"udp/53\"]\n";
    let one = format!("[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n{ports}");
    let (mut own, mut all) = (String::new(), String::new());
    for n in 0..RULES {
        let to = format!("10.{}.{}.0/24", n / 250, n % 250);
        let principal = n % PRINCIPALS;
        let _ = write!(
            own,
            "[[allow]]\nwho = [\"user{principal}@example.com\"]\nto = [\"{to}\"]\n{ports}"
        );
        let _ = write!(all, "[[allow]]\nwho = [\"*\"]\nto = [\"{to}\"]\n{ports}");
    }
    [
        ("one rule", one.clone()),
        ("one rule, again", one),
        ("10,000 rules, own", own),
        ("10,000 rules, all", all),
    ]
}

fn ends(up: bool, number: usize) -> (Ipv4Addr, Ipv4Addr) {
    let host = Ipv4Addr::from([10, (number / 250) as u8, (number % 250) as u8, 1]);
    let IpAddr::V4(client) = client(number) else {
        unreachable!("clients have addresses of IPv4")
    };
    if up { (client, host) } else { (host, client) }
}

fn client(number: usize) -> IpAddr {
    Ipv4Addr::from(0xac10_0002 + number as u32).into()
}

fn identity(number: usize) -> Identity {
    Identity {
        principal: Principal::parse(&format!("user{number}@example.com")).expect("a name"),
        groups: Vec::new(),
        authority: "bench".to_owned(),
        serial: "01".to_owned(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

const RULES: usize = 10_000;
const PRINCIPALS: usize = 1000;
/// A round is a super-packet for each session: some five milliseconds.
const ROUNDS: usize = 300;
/// Payload of a segment in a tunnel whose packets have at most 1400 bytes.
const SIZE: usize = 1360;
/// Segments of a super-packet.
const COUNT: usize = 45;
/// What a path of 1500 bytes carries.
const MAX_PACKET: usize = 1412;
