//! Two kernels' worth of network stack, joined by two TUN devices and a bridge between them.
//!
//! ```text
//! here   socket ─ kernel ─ adit0 ═ read ─ split ─ meddle ─ join ─ write ═ adit0 ─ kernel ─ socket   there
//! ```
//!
//! The bridge is what the tunnel is to the devices, without the tunnel.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread;

use adit_core::offload::split::Segments;
use adit_core::offload::{self, Offload};
use adit_core::wire::ip::IpPacket;
use adit_net::tun::Tun;
use bytes::{Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, poll};

use crate::namespace::{Elsewhere, eventually, packets_from, run};

/// Both ends, before they are joined.
pub(crate) struct Wire {
    pub(crate) there: Elsewhere,
    devices: [Tun; 2],
}

/// What crossed in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crossing {
    /// Packets that the kernel handed over, of any length.
    pub(crate) reads: u64,
    /// Those that were longer than the MTU.
    pub(crate) long_reads: u64,
    /// Packets of the wire, after splitting and meddling.
    pub(crate) packets: u64,
    /// How often the kernel at the far end was given something.
    pub(crate) writes: u64,
}

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Here,
    There,
}

/// Decides what becomes of a packet on the wire: what it pushes goes on.
pub(crate) trait Meddler: FnMut(From, Bytes, &mut Vec<Bytes>) + Send {}

impl<F: FnMut(From, Bytes, &mut Vec<Bytes>) + Send> Meddler for F {}

impl Wire {
    /// This namespace has the addresses that end in 1, the other one those in 2.
    pub(crate) fn new() -> Self {
        let there = Elsewhere::new();
        let devices = [device(1), there.run(|| device(2))];
        Self { there, devices }
    }

    /// Joins the ends while `meanwhile` runs, and says what crossed: from here, and from there.
    ///
    /// A test has one wire for all it does: a device lives on for a moment in every process that another test forks.
    pub(crate) fn bridge(
        &mut self,
        meddle: impl Meddler,
        meanwhile: impl FnOnce(&Elsewhere),
    ) -> [Crossing; 2] {
        let Self { there, devices } = self;
        let writes = || [there.run(|| packets_from(NAME)), packets_from(NAME)];
        let before = writes();
        let (stop, stopped) = UnixStream::pair().expect("a pair");
        let mut crossings = thread::scope(|scope| {
            let bridge = scope.spawn(|| carry(devices, &stopped, meddle));
            meanwhile(there);
            drop(stop);
            bridge.join().expect("the bridge held")
        });
        for (crossing, (before, after)) in
            crossings.iter_mut().zip(before.into_iter().zip(writes()))
        {
            crossing.writes = after - before;
        }
        crossings
    }
}

/// Nothing happens on the way.
pub(crate) fn faithful(_: From, packet: Bytes, on: &mut Vec<Bytes>) {
    on.push(packet);
}

/// Where the TCP payload of a packet begins, if it has any.
pub(crate) fn tcp_payload(bytes: &[u8]) -> Option<usize> {
    let packet = IpPacket::parse(bytes).ok()?;
    let offset = packet
        .transport()
        .get(12)
        .filter(|_| packet.protocol() == 6)?;
    let payload = packet.transport_offset() + usize::from(offset >> 4) * 4;
    (payload < bytes.len()).then_some(payload)
}

fn device(host: u8) -> Tun {
    let tun = Tun::open(NAME, MTU).expect("a device");
    connect(NAME, &format!("10.77.0.{host}"), &format!("fd77::{host}"));
    tun
}

/// Brings an interface up with these addresses, which receive from now on.
pub(crate) fn connect(interface: &str, v4: &str, v6: &str) {
    run(&format!("ip link set {interface} up"));
    run(&format!("ip address add {v4}/24 dev {interface}"));
    run(&format!("ip address add {v6}/64 dev {interface} nodad"));
    // The kernel takes its time with an address of IPv6: a packet that comes before is nobody's.
    let own = format!("local {v6} ");
    eventually("the address is a route", || {
        run("ip -6 route show table local").contains(&own)
    });
}

fn carry(devices: &mut [Tun; 2], stopped: &UnixStream, mut meddle: impl Meddler) -> [Crossing; 2] {
    let mut crossings = [Crossing::default(); 2];
    let mut chunk = BytesMut::new();
    let mut on = Vec::new();
    loop {
        let mut waiting: Vec<PollFd<'_>> = std::iter::once(stopped.as_fd())
            .chain(devices.iter().flat_map(Tun::queues))
            .map(|watched| PollFd::from_borrowed_fd(watched, PollFlags::IN))
            .collect();
        poll(&mut waiting, None).expect("waited");
        if !waiting[0].revents().is_empty() {
            return crossings;
        }
        for (at, from) in [From::Here, From::There].into_iter().enumerate() {
            let [here, there] = &mut *devices;
            let (reader, writer) = if at == 0 {
                (here, there)
            } else {
                (there, here)
            };
            let crossing = &mut crossings[at];
            for _ in 0..TURN {
                let Some((packet, offload)) = reader.recv(0).expect("a device") else {
                    break;
                };
                crossing.reads += 1;
                crossing.long_reads += u64::from(packet.len() > usize::from(MTU));
                for packet in pieces(packet, offload, &mut chunk) {
                    assert!(packet.len() <= usize::from(MTU), "{} bytes", packet.len());
                    meddle(from, packet, &mut on);
                }
                crossing.packets += on.len() as u64;
                on.drain(..).for_each(|packet| writer.send(packet));
            }
            assert_eq!(
                writer.flush(),
                0,
                "the kernel takes what it would have sent"
            );
        }
    }
}

/// The packets of the wire in what a device gave.
fn pieces(mut packet: BytesMut, offload: Offload, chunk: &mut BytesMut) -> Vec<Bytes> {
    let segmentation = match offload {
        Offload::Segments(segmentation) => segmentation,
        Offload::None => return vec![packet.freeze()],
        Offload::Checksum(partial) => {
            assert!(offload::complete_checksum(&mut packet, partial));
            return vec![packet.freeze()];
        }
    };
    let parsed = IpPacket::parse(&packet).expect("a packet");
    let segments =
        Segments::new(&parsed, segmentation).expect("what the kernel says of it is true");
    let cut = (0..segments.count()).map(|index| {
        segments.append(index, chunk);
        chunk.split().freeze()
    });
    cut.collect()
}

pub(crate) const NAME: &str = "adit0";
pub(crate) const MTU: u16 = 1400;
/// As many reads as the packet loop makes before it writes, about.
const TURN: usize = 8;
