//! What a packet costs in memory: whole engines at work, every allocation of Rust code counted.
//!
//! ```text
//! packet, up to 64 KiB ─► client: decide, cut, seal ─► datagrams ─► gateway: open, decide ─► join   (and back)
//! ```
//!
//! In the steady state nothing of ours allocates. quinn-proto keeps the packets in flight in a `BTreeMap`: fed at its end,
//! such a tree makes a leaf of every seventh packet, an inner node of every seventh leaf and so on, one node for six
//! packets in all. Those nodes, and nothing else, are what the assertions leave room for.

#![allow(clippy::unwrap_used, unreachable_pub)]

#[allow(dead_code)]
#[path = "simulation/house.rs"]
mod house;
#[allow(dead_code)]
#[path = "simulation/link.rs"]
mod link;
#[allow(dead_code)]
#[path = "simulation/newcomer.rs"]
mod newcomer;
#[allow(dead_code)]
#[path = "simulation/packets.rs"]
mod packets;
#[allow(dead_code)]
#[path = "simulation/pki.rs"]
mod pki;
#[allow(dead_code)]
#[path = "simulation/world.rs"]
mod world;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_core::offload::coalesce::{Coalescer, Join, MAX_HEADERS};
use adit_core::offload::{SegmentKind, Segmentation};
use adit_tunnel::{Client, Datagram, HEADROOM, Offload, Transmit};
use bytes::{Bytes, BytesMut};
use house::House;
use link::Conditions;
use world::World;

#[test]
fn streams_allocate_nothing_per_packet() {
    for v6 in [false, true] {
        let mut tunnel = Tunnel::new(POLICY);
        let office = if v6 { "fd00:1::7" } else { "10.0.0.7" };
        let ways = tunnel.up_and_down(office, stream);
        tunnel.assert_frugal("streams", &ways, 8);
    }
}

#[test]
fn datagrams_sent_as_one_allocate_nothing_per_packet() {
    let mut tunnel = Tunnel::new(POLICY);
    let ways = tunnel.up_and_down("10.0.0.7", datagrams);
    tunnel.assert_frugal("datagrams", &ways, 8);
}

#[test]
fn single_packets_allocate_nothing_per_packet() {
    for length in [80, 1400] {
        let mut tunnel = Tunnel::new(POLICY);
        let ways = tunnel.up_and_down("10.0.0.7", |from, to| single(from, to, length));
        tunnel.assert_frugal("single packets", &ways, 64);
    }
}

#[test]
fn packets_held_to_a_rate_allocate_nothing_per_packet() {
    let mut tunnel = Tunnel::new(&format!("{POLICY}rate = \"900 Gbit/s\"\n"));
    let ways = tunnel.up_and_down("10.0.0.7", stream);
    tunnel.assert_frugal("streams", &ways, 8);
    let ways = tunnel.up_and_down("10.0.0.7", |from, to| single(from, to, 80));
    tunnel.assert_frugal("single packets", &ways, 64);
}

#[test]
fn packets_between_two_clients_allocate_nothing_per_packet() {
    let mut tunnel = Tunnel::new(POLICY);
    let [alice, bob] = [ALICE, BOB].map(|client| tunnel.address(client, false));
    let ways = [(ALICE, stream(alice, bob)), (BOB, single(bob, alice, 1000))];
    tunnel.assert_frugal("between clients", &ways, 8);
}

/// What a device gives.
struct Input {
    bytes: Vec<u8>,
    offload: Offload,
    /// How many packets of the wire it is.
    packets: usize,
}

fn single(from: IpAddr, to: IpAddr, length: usize) -> Input {
    Input {
        bytes: packets::udp(from, to, 1, length),
        offload: Offload::None,
        packets: 1,
    }
}

/// Nearly 64 KiB of datagrams of one flow.
fn datagrams(from: IpAddr, to: IpAddr) -> Input {
    let header = if from.is_ipv4() { 28 } else { 48 };
    large(from, to, header, SegmentKind::Udp)
}

/// As much of a stream. The checksums are the device's business: the split makes them.
fn stream(from: IpAddr, to: IpAddr) -> Input {
    let (protocol, transport) = if from.is_ipv4() { (9, 20) } else { (6, 40) };
    let mut input = large(from, to, transport + 20, SegmentKind::Tcp);
    input.bytes[protocol] = TCP;
    input.bytes[transport + 12..transport + 14].copy_from_slice(&[5 << 4, ACK]);
    input
}

fn large(from: IpAddr, to: IpAddr, header: usize, kind: SegmentKind) -> Input {
    let segmentation = Segmentation {
        kind,
        size: SEGMENT as u16,
    };
    Input {
        bytes: packets::udp(from, to, 1, header + SEGMENTS * SEGMENT),
        offload: Offload::Segments(segmentation),
        packets: SEGMENTS,
    }
}

/// A gateway and clients that have found each other, and what the packet loops around them keep.
struct Tunnel {
    now: Instant,
    ends: Vec<End>,
    memory: BytesMut,
    batch: Vec<u8>,
    coalescer: Coalescer,
    count: Count,
}

struct End {
    address: SocketAddr,
    engine: Box<dyn Engine>,
    inside: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Packets that came out of the tunnel, and in how many writes.
    arrived: usize,
    writes: usize,
    /// QUIC packets.
    sealed: usize,
    /// Allocations while those were made.
    sealing: u64,
}

impl Tunnel {
    fn new(policy: &str) -> Self {
        let mut world = World::new(policy, 1);
        for (principal, client) in [("alice@example.com", ALICE), ("bob@example.com", BOB)] {
            let index = world.add_client(principal, Conditions::CLEAN, client as u64);
            assert_eq!(index + 1, client);
        }
        // The search for the path's MTU ends meanwhile.
        world.run_for(Duration::from_secs(10));
        let mut ends = vec![End {
            address: world::GATEWAY.parse().unwrap(),
            inside: Vec::new(),
            engine: Box::new(world.gateway.take().unwrap()),
        }];
        ends.extend(world.clients.into_iter().map(|host| End {
            address: host.address,
            inside: host.addresses(),
            engine: Box::new(host.engine),
        }));
        Self {
            now: world.now,
            ends,
            memory: BytesMut::with_capacity(MEMORY),
            batch: Vec::new(),
            coalescer: Coalescer::new(Join::TcpAndUdp),
            count: Count::default(),
        }
    }

    fn address(&self, client: usize, v6: bool) -> IpAddr {
        let mut addresses = self.ends[client].inside.iter().copied();
        addresses.find(|address| address.is_ipv6() == v6).unwrap()
    }

    /// From Alice to the office, and from the office to Alice.
    fn up_and_down(
        &self,
        office: &str,
        input: impl Fn(IpAddr, IpAddr) -> Input,
    ) -> [(usize, Input); 2] {
        let office: IpAddr = office.parse().unwrap();
        let alice = self.address(ALICE, office.is_ipv6());
        [
            (ALICE, input(alice, office)),
            (GATEWAY, input(office, alice)),
        ]
    }

    /// Sends what is given from where it is given, `times` in every turn, and counts after a while.
    fn assert_frugal(&mut self, what: &str, ways: &[(usize, Input); 2], times: usize) {
        let per_turn: usize = ways.iter().map(|(_, input)| input.packets * times).sum();
        let turns = PACKETS.div_ceil(per_turn);
        (0..turns).for_each(|_| self.turn(ways, times));
        self.count = Count::default();
        let all = allocation_counter::measure(|| {
            (0..turns).for_each(|_| self.turn(ways, times));
        });
        let count = self.count;
        assert_eq!(count.arrived, turns * per_turn, "{what}: nothing is lost");
        assert_eq!(all.count_total - count.sealing, 0, "{what}: {count:?}");
        assert!(
            count.sealing as usize <= count.sealed / PACKETS_PER_NODE,
            "{what}: {count:?}"
        );
    }

    /// A turn of every packet loop.
    fn turn(&mut self, ways: &[(usize, Input); 2], times: usize) {
        assert!(
            self.memory.try_reclaim(MEMORY),
            "no packet outlives its turn"
        );
        for (at, input) in ways {
            for _ in 0..times {
                self.memory.resize(HEADROOM, 0);
                let packet = self.buffer(&input.bytes);
                let engine = &mut self.ends[*at].engine;
                engine.handle_inside(self.now, packet, input.offload);
                while self.ends[*at].engine.has_full_batch() && self.transmit(*at) {}
            }
        }
        // Until the last acknowledgement, which may wait a little, has come.
        for _ in 0..3 {
            for at in 0..self.ends.len() {
                self.ends[at].engine.handle_timeout(self.now);
                while self.transmit(at) {}
            }
            self.now += Duration::from_millis(5);
        }
    }

    /// Carries one batch to its receiver, which handles it as its loop would.
    fn transmit(&mut self, from: usize) -> bool {
        let End {
            address, engine, ..
        } = &mut self.ends[from];
        let address = *address;
        let mut transmit = None;
        let sealing = allocation_counter::measure(|| {
            transmit = engine.poll_transmit(self.now, &mut self.batch);
        });
        self.count.sealing += sealing.count_total;
        // The pacer lets so many bytes pass per moment.
        self.now += Duration::from_micros(10);
        let Some(transmit) = transmit else {
            return false;
        };
        let mut ends = self.ends.iter();
        let to = ends.position(|end| end.address == transmit.destination);
        let to = to.unwrap();
        let batch = std::mem::take(&mut self.batch);
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        for datagram in batch[..transmit.size].chunks(segment) {
            self.count.sealed += 1;
            let datagram = self.buffer(datagram);
            self.ends[to].engine.handle_udp(self.now, address, datagram);
        }
        self.batch = batch;
        self.ends[to].engine.handle_timeout(self.now);
        self.deliver(to);
        true
    }

    /// What is to go inside, joined as it is for the device.
    fn deliver(&mut self, to: usize) {
        while let Some(packet) = self.ends[to].engine.poll_inside() {
            self.coalescer.push(packet);
        }
        self.coalescer.flush();
        let mut headers = [0; MAX_HEADERS];
        while let Some(bundle) = self.coalescer.pop() {
            bundle.headers(&mut headers);
            self.count.arrived += bundle.packets().len();
            self.count.writes += 1;
            self.coalescer.recycle(bundle);
        }
    }

    /// A copy in the loop's own memory, behind what was written there already.
    fn buffer(&mut self, bytes: &[u8]) -> BytesMut {
        assert!(self.memory.capacity() - self.memory.len() >= bytes.len());
        self.memory.extend_from_slice(bytes);
        self.memory.split()
    }
}

/// The two kinds of engine alike.
trait Engine {
    fn handle_udp(&mut self, now: Instant, remote: SocketAddr, datagram: BytesMut);
    fn handle_inside(&mut self, now: Instant, packet: BytesMut, offload: Offload);
    fn handle_timeout(&mut self, now: Instant);
    fn has_full_batch(&self) -> bool;
    fn poll_transmit(&mut self, now: Instant, batch: &mut Vec<u8>) -> Option<Transmit>;
    fn poll_inside(&mut self) -> Option<Bytes>;
}

macro_rules! engine {
    ($end:ty) => {
        impl Engine for $end {
            fn handle_udp(&mut self, now: Instant, remote: SocketAddr, datagram: BytesMut) {
                let datagram = Datagram {
                    remote,
                    local_ip: None,
                    ecn: None,
                    data: datagram,
                };
                self.handle_udp(now, datagram);
            }
            fn handle_inside(&mut self, now: Instant, packet: BytesMut, offload: Offload) {
                self.handle_inside(now, packet, offload);
            }
            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }
            fn has_full_batch(&self) -> bool {
                self.has_full_batch()
            }
            fn poll_transmit(&mut self, now: Instant, batch: &mut Vec<u8>) -> Option<Transmit> {
                self.poll_transmit(now, batch)
            }
            fn poll_inside(&mut self) -> Option<Bytes> {
                self.poll_inside()
            }
        }
    };
}

engine!(Client);
engine!(House);

const POLICY: &str = r#"
[pool]
v4 = "10.99.0.0/24"
v6 = "fd00:ad17::/64"

[[allow]]
who = ["alice@example.com", "bob@example.com"]
to = ["10.0.0.0/16", "fd00:1::/64", "10.99.0.0/24"]
direction = "both"
"#;
/// The ends, in their order.
const GATEWAY: usize = 0;
const ALICE: usize = 1;
const BOB: usize = 2;
const TCP: u8 = 6;
const ACK: u8 = 0x10;
/// Payload of a segment.
const SEGMENT: usize = 1340;
/// Segments of a large packet.
const SEGMENTS: usize = 44;
/// Packets counted, after as many to warm up.
const PACKETS: usize = 50_000;
/// A node of quinn-proto's table of packets in flight.
const PACKETS_PER_NODE: usize = 6;
/// All buffers of a turn.
const MEMORY: usize = 4 * 1024 * 1024;
