//! Parse → decide → frame: what the core costs per packet, together and step by step, beside a plain
//! copy of the same bytes.
//!
//! A gateway with [`SESSIONS`] sessions and a policy of [`RULES`] networks judges batches of
//! [`BATCH`] packets, each of another session. Run with `cargo bench -p adit-core`; one element is
//! one packet.
#![allow(missing_docs)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::dataplane::gateway::{self, Gate, OnWire, Place, Sessions, Target};
use adit_core::dataplane::{Denial, Denials, Verdict};
use adit_core::flow::{FlowTable, HashKey};
use adit_core::identity::{Identity, Principal};
use adit_core::policy::{Decision, Direction, Filter, Flow, Policy};
use adit_core::table::owners::Owners;
use adit_core::wire::ip::{IpPacket, UDP};
use adit_core::wire::{datagram, tcp};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASUREMENT);
    targets = from_peer, to_peer, policy, flows, frame, plain_copy
}
criterion_main!(benches);

/// A datagram from a client becomes a packet for the TUN device.
fn from_peer(criterion: &mut Criterion) {
    let mut table = Table::new();
    let mut group = criterion.benchmark_group("from_peer");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (family, length, client, server) in shapes() {
        let datagrams: Vec<Vec<u8>> = (0..BATCH)
            .map(|n| [&[0, 0][..], &packet(client(n), server(n), length)].concat())
            .collect();
        let mut out = vec![0; BATCH * length];
        let now = table.now;
        group.bench_function(format!("{family}/{length}"), |bencher| {
            bencher.iter(|| {
                for (n, (datagram, out)) in datagrams.iter().zip(out.chunks_mut(length)).enumerate()
                {
                    let prefix = datagram::parse(black_box(datagram)).expect("a prefix");
                    let packet = IpPacket::parse(&datagram[prefix.len..]).expect("a packet");
                    let verdict = gateway::from_peer(&mut table, now, n, &packet);
                    assert_eq!(verdict, Verdict::Forward(Target::Inside));
                    out.copy_from_slice(packet.bytes());
                    tcp::clamp_mss(out, MAX_PACKET);
                }
                black_box(&mut out);
            });
        });
    }
}

/// A packet from the TUN device becomes a datagram for a client.
fn to_peer(criterion: &mut Criterion) {
    let mut table = Table::new();
    let mut group = criterion.benchmark_group("to_peer");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (family, length, client, server) in shapes() {
        let packets: Vec<Vec<u8>> = (0..BATCH)
            .map(|n| packet(server(n), client(n), length))
            .collect();
        let prefix = datagram::prefix_len(0);
        let mut out = vec![0; BATCH * (prefix + length)];
        let now = table.now;
        group.bench_function(format!("{family}/{length}"), |bencher| {
            bencher.iter(|| {
                for (n, (bytes, out)) in packets
                    .iter()
                    .zip(out.chunks_mut(prefix + length))
                    .enumerate()
                {
                    let packet = IpPacket::parse(black_box(bytes)).expect("a packet");
                    let verdict =
                        gateway::to_peer(&mut table, now, &packet, OnWire::single(&packet));
                    assert_eq!(verdict, Verdict::Forward(Place::Here(n)));
                    datagram::write_prefix(0, &mut out[..prefix]);
                    out[prefix..].copy_from_slice(bytes);
                    tcp::clamp_mss(&mut out[prefix..], MAX_PACKET);
                }
                black_box(&mut out);
            });
        });
    }
}

/// The policy alone: may this session reach that address?
fn policy(criterion: &mut Criterion) {
    let table = Table::new();
    let mut group = criterion.benchmark_group("policy");
    group.throughput(Throughput::Elements(BATCH as u64));
    let families: [(_, Address); 2] = [("v4", server_v4), ("v6", server_v6)];
    for (family, server) in families {
        let flows: Vec<Flow> = (0..BATCH)
            .map(|n| Flow {
                direction: Direction::FromClient,
                inside: server(n),
                protocol: UDP,
                port: Some(443),
            })
            .collect();
        group.bench_function(family, |bencher| {
            bencher.iter(|| {
                for (flow, filter) in flows.iter().zip(&table.filters) {
                    let decision = filter.decide(black_box(flow));
                    assert!(matches!(decision, Decision::Allow(_)));
                }
            });
        });
    }
}

/// What the flow table adds to the policy: the question that was asked of every packet without it,
/// then a packet of a flow that is known (of one among many, of the last, and without a search), and
/// the first packet of a flow, into an empty table and into a full one.
fn flows(criterion: &mut Criterion) {
    let table = Table::new();
    let mut group = criterion.benchmark_group("flows");
    group.throughput(Throughput::Elements(BATCH as u64));
    let (filter, now, direction) = (&*table.filters[0], table.now, Direction::FromClient);
    let families: [(_, Address, Address); 2] =
        [("v4", client_v4, server_v4), ("v6", client_v6, server_v6)];
    for (family, client, server) in families {
        let packet_of = |ports: usize| {
            let mut bytes = packet(client(0), server(0), 80);
            let transport = bytes.len() - if family == "v4" { 60 } else { 40 };
            bytes[transport..transport + 4].copy_from_slice(&(ports as u32).to_be_bytes());
            bytes
        };
        let packets: Vec<Vec<u8>> = (0..MANY).map(packet_of).collect();
        let judge = |flows: &mut FlowTable, bytes: &[u8]| {
            let packet = IpPacket::parse(bytes).expect("a packet");
            let passage = flows
                .judge(now, filter, direction, &packet)
                .expect("it may");
            flows.count(passage, direction, 1, bytes.len());
        };
        group.bench_function(format!("stateless/{family}"), |bencher| {
            bencher.iter(|| {
                for bytes in &packets[..BATCH] {
                    let packet = IpPacket::parse(black_box(bytes)).expect("a packet");
                    let flow = Flow {
                        direction,
                        inside: packet.destination(),
                        protocol: packet.protocol(),
                        port: packet.ports().map(|(_, destination)| destination),
                    };
                    assert!(matches!(filter.decide(&flow), Decision::Allow(_)));
                }
            });
        });
        let mut flows = flow_table(now);
        packets[..1000]
            .iter()
            .for_each(|bytes| judge(&mut flows, bytes));
        group.bench_function(format!("known/{family}"), |bencher| {
            bencher.iter(|| {
                for bytes in &packets[..BATCH] {
                    judge(&mut flows, black_box(bytes));
                }
            });
        });
        group.bench_function(format!("last/{family}"), |bencher| {
            bencher.iter(|| {
                for _ in 0..BATCH {
                    judge(&mut flows, black_box(&packets[0]));
                }
            });
        });
        let handle = flows.last(direction).expect("a flow");
        group.bench_function(format!("followed/{family}"), |bencher| {
            bencher.iter(|| {
                for _ in 0..BATCH {
                    let packet = IpPacket::parse(black_box(&packets[0])).expect("a packet");
                    assert!(flows.follow(now, direction, handle, &packet));
                }
            });
        });
        group.bench_function(format!("new/{family}"), |bencher| {
            bencher.iter_batched(
                || flow_table(now),
                |mut flows| {
                    for bytes in &packets[..BATCH] {
                        judge(&mut flows, black_box(bytes));
                    }
                    flows
                },
                BatchSize::SmallInput,
            );
        });
        let mut flows = flow_table(now);
        packets.iter().for_each(|bytes| judge(&mut flows, bytes));
        // More than the table holds, in turn: each was thrown out when it comes again.
        let mut turn = packets.chunks(BATCH).cycle();
        group.bench_function(format!("new, full/{family}"), |bencher| {
            bencher.iter(|| {
                for bytes in turn.next().expect("it never ends") {
                    judge(&mut flows, black_box(bytes));
                }
            });
        });
    }
}

/// The frame alone: the prefix in front of a packet that is in place, and the look for a SYN.
fn frame(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (family, length, client, server) in shapes() {
        let prefix = datagram::prefix_len(0);
        let mut framed: Vec<u8> = (0..BATCH)
            .flat_map(|n| [vec![0; prefix], packet(client(n), server(n), length)].concat())
            .collect();
        group.bench_function(format!("{family}/{length}"), |bencher| {
            bencher.iter(|| {
                for framed in black_box(&mut framed).chunks_mut(prefix + length) {
                    datagram::write_prefix(0, &mut framed[..prefix]);
                    tcp::clamp_mss(&mut framed[prefix..], MAX_PACKET);
                }
            });
        });
    }
}

/// The copy that the first two of the above contain, and nothing else.
fn plain_copy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memcpy");
    group.throughput(Throughput::Elements(BATCH as u64));
    for length in LENGTHS {
        let packets = vec![vec![7; length]; BATCH];
        let mut out = vec![0; BATCH * length];
        group.bench_function(format!("{length}"), |bencher| {
            bencher.iter(|| {
                for (bytes, out) in packets.iter().zip(out.chunks_mut(length)) {
                    out.copy_from_slice(black_box(bytes));
                }
                black_box(&mut out);
            });
        });
    }
}

/// The gateway's sessions, as an engine keeps them.
struct Table {
    owners: Owners<Place<usize>>,
    filters: Vec<Arc<Filter>>,
    flows: Vec<FlowTable>,
    denials: Vec<Denials>,
    now: Instant,
}

impl Table {
    fn new() -> Self {
        let networks: Vec<String> = (0..RULES)
            .map(|n| format!("\"10.{n}.0.0/16\", \"fd00:{n:x}::/32\""))
            .collect();
        let text = format!("[[allow]]\nwho = [\"*\"]\nto = [{}]\n", networks.join(", "));
        let policy = Policy::parse(&text, "policy.toml").expect("a policy");
        let mut owners = Owners::new();
        let mut filters = Vec::new();
        for n in 0..SESSIONS {
            owners.insert(client_v4(n).into(), Place::Here(n));
            owners.insert(client_v6(n).into(), Place::Here(n));
            filters.push(policy.access(&identity(n), 0).expect("an access").filter);
        }
        let now = Instant::now();
        let flows = (0..SESSIONS).map(|_| flow_table(now)).collect();
        Self {
            owners,
            filters,
            flows,
            denials: vec![Denials::default(); SESSIONS],
            now,
        }
    }
}

impl Sessions for Table {
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

    fn denied(&mut self, key: usize, now: Instant, denial: Denial, packets: usize) {
        self.denials[key].add(now, denial, packets);
    }
}

fn flow_table(now: Instant) -> FlowTable {
    FlowTable::new(
        now,
        HashKey::new([0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835; 6]),
    )
}

/// One way to make addresses of the n-th packet of a batch.
type Address = fn(usize) -> IpAddr;

/// Family, packet length, and the addresses of clients and of what they talk to.
fn shapes() -> impl Iterator<Item = (&'static str, usize, Address, Address)> {
    let families: [(_, Address, Address); 2] =
        [("v4", client_v4, server_v4), ("v6", client_v6, server_v6)];
    families.into_iter().flat_map(|(family, client, server)| {
        LENGTHS
            .into_iter()
            .map(move |length| (family, length, client, server))
    })
}

fn client_v4(n: usize) -> IpAddr {
    Ipv4Addr::from(0x0a63_0002 + n as u32).into()
}

fn server_v4(n: usize) -> IpAddr {
    Ipv4Addr::from([10, (n % RULES) as u8, 0, 1]).into()
}

fn client_v6(n: usize) -> IpAddr {
    Ipv6Addr::new(0xfdad, 0, 0, 0, 0, 0, 0, 2 + n as u16).into()
}

fn server_v6(n: usize) -> IpAddr {
    Ipv6Addr::new(0xfd00, (n % RULES) as u16, 0, 0, 0, 0, 0, 1).into()
}

fn identity(n: usize) -> Identity {
    Identity {
        principal: Principal::parse(&format!("user{n}@example.com")).expect("a name"),
        groups: Vec::new(),
        authority: "bench".to_owned(),
        serial: "01".to_owned(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

/// A UDP packet of `length` bytes; the IPv4 header checksum is not needed here.
fn packet(source: IpAddr, destination: IpAddr, length: usize) -> Vec<u8> {
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, UDP, 0, 0];
            header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, UDP, 64];
            header[4..6].copy_from_slice(&(length as u16 - 40).to_be_bytes());
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        _ => unreachable!("a packet has one family"),
    };
    packet.resize(length, 7);
    packet
}

/// Short, so that all groups together take half a minute.
const WARM_UP: Duration = Duration::from_millis(300);
const MEASUREMENT: Duration = Duration::from_secs(1);
/// A small packet, a request or an acknowledgement, and one that fills the tunnel.
const LENGTHS: [usize; 2] = [80, 1400];
/// What a path of 1500 bytes carries.
const MAX_PACKET: usize = 1412;
/// A large office.
const SESSIONS: usize = 1000;
/// A long policy.
const RULES: usize = 90;
/// More flows than a table holds: a multiple of [`BATCH`].
const MANY: usize = 32_768;
/// As many packets as one GSO send or one read of the TUN device brings.
const BATCH: usize = 64;
