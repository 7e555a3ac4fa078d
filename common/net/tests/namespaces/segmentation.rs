//! What splitting and joining make, byte for byte beside what the kernel makes of the same packets.
//!
//! The kernel is a router here, between a device that takes packets of 64 KiB and one without any offload: what it
//! forwards it has to cut itself.
//!
//! ```text
//! a packet to be cut ─► wide0 or adit0 ─ kernel: forward, cut ─► narrow0 ─► what a network card would have sent
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use adit_core::offload::split::Segments;
use adit_core::offload::{SegmentKind, Segmentation};
use adit_core::wire::checksum::{self, Sum};
use adit_core::wire::ip::{IpPacket, TCP, UDP};
use adit_net::tun::Tun;
use bytes::{Bytes, BytesMut};
use libtest_mimic::Trial;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::bridge::connect;
use crate::namespace::{packets_from, run, set_sysctl, trial};
use crate::random::Random;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "segments_are_those_the_kernel_makes",
            segments_are_those_the_kernel_makes,
        ),
        trial(
            "the_kernel_cuts_what_was_joined_into_what_it_was",
            the_kernel_cuts_what_was_joined_into_what_it_was,
        ),
    ]
}

fn segments_are_those_the_kernel_makes() {
    let mut wide = raw("wide0", libc::IFF_VNET_HDR);
    let mut narrow = router("wide0");
    for packet in packets() {
        let expected = cut(&packet.forwarded(), packet.segmentation);
        let header = packet.virtio_header();
        let slices = [&header[..], &packet.bytes].map(IoSlice::new);
        let written = wide.write_vectored(&slices).expect("the kernel takes it");
        assert_eq!(written, header.len() + packet.bytes.len());
        let made = receive(&mut narrow, expected.len());
        for (index, (made, expected)) in made.iter().zip(&expected).enumerate() {
            assert_eq!(made, expected, "segment {index} of {packet:?}");
        }
    }
}

fn the_kernel_cuts_what_was_joined_into_what_it_was() {
    let mut tun = Tun::open("adit0", 1400).expect("a device");
    let mut narrow = router("adit0");
    let mut random = Random(0x0ff1_0000_ad17_0001);
    let before = packets_from("adit0");
    let mut sent = 0;
    for round in 0..20 {
        // Several flows side by side; a packet in thirty is lost, damaged, repeated or overtaken.
        let mut flows: Vec<Vec<Bytes>> = packets()
            .iter()
            // Numbers of packets that may not be fragmented mean nothing: joining may change them.
            .filter(|packet| packet.v6() || packet.bytes[6] == 0)
            .skip(round * 3)
            .take(4)
            .map(|packet| cut(&packet.bytes, packet.segmentation))
            .collect();
        let mut packets: Vec<Bytes> = Vec::new();
        while let Some(at) = (!flows.is_empty()).then(|| random.below(flows.len() as u32) as usize)
        {
            let few = (1 + random.below(8) as usize).min(flows[at].len());
            for packet in flows[at].drain(..few) {
                match random.below(120) {
                    0 => {}
                    1 => packets.push(damaged(&packet)),
                    2 => packets.extend([packet.clone(), packet]),
                    3 => packets.insert(packets.len().saturating_sub(1), packet),
                    _ => packets.push(packet),
                }
            }
            flows.retain(|flow| !flow.is_empty());
        }
        packets.iter().for_each(|packet| tun.send(packet.clone()));
        assert_eq!(tun.flush(), 0, "the kernel takes it");
        sent += packets.len() as u64;
        let made = receive(&mut narrow, packets.len());
        let expected: Vec<Bytes> = packets.iter().map(|packet| forwarded(packet)).collect();
        // The order holds within a flow, and so here: by addresses, protocol and ports.
        assert!(by_flow(made) == by_flow(expected), "round {round}");
    }
    let writes = packets_from("adit0") - before;
    assert!(writes * 3 < sent, "{writes} writes of {sent} packets");
}

/// A packet as a kernel with offloads hands it to a device.
struct Large {
    bytes: Vec<u8>,
    segmentation: Segmentation,
}

/// Packets of both families and protocols, with every flag that splitting treats in its own way, and with numbers
/// (of IPv4 packets, and of bytes in a stream) that begin again at zero.
fn packets() -> Vec<Large> {
    let mut random = Random(0x5e6_0000_ad17_0001);
    let mut packets = Vec::new();
    for v6 in [false, true] {
        for flags in [0x10, 0x18, 0x11, 0x90, 0xd9] {
            for (size, payload) in [(1348, 60_000), (1348, 1348 * 3), (536, 20_001), (7, 100)] {
                let timestamps = &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2][..];
                for (options, fragments) in [(&[][..], false), (timestamps, true)] {
                    let [n, high, low, ..] = random.below(u32::MAX).to_be_bytes();
                    let mut transport = vec![0x12, n, 0x01, 0xbb, 0xff, 0xff, high, low];
                    transport.extend([0, 0, 0, 1, (5 + options.len() as u8 / 4) << 4, flags]);
                    transport.extend([0x01, 0xf4, 0, 0, 0, 0]);
                    transport.extend(options);
                    transport.extend(random.bytes(payload));
                    packets.push(large(v6, fragments, SegmentKind::Tcp, size, transport));
                }
            }
        }
        for (size, payload) in [
            (1352, 1352 * 40 + 1),
            (1352, 1352 * 40),
            (100, 4000),
            (1, 64),
        ] {
            for fragments in [false, true] {
                let [n, ..] = random.below(u32::MAX).to_be_bytes();
                let [high, low] = (8 + payload as u16).to_be_bytes();
                let mut transport = vec![0x12, n, 0x01, 0xbb, high, low, 0, 0];
                transport.extend(random.bytes(payload));
                packets.push(large(v6, fragments, SegmentKind::Udp, size, transport));
            }
        }
    }
    packets
}

fn large(v6: bool, fragments: bool, kind: SegmentKind, size: u16, mut transport: Vec<u8>) -> Large {
    let protocol = match kind {
        SegmentKind::Tcp => TCP,
        SegmentKind::Udp => UDP,
    };
    let [source, destination] = if v6 { V6 } else { V4 };
    let addresses = [source, destination].map(|text| text.parse().expect("an address"));
    let pseudo = Sum::pseudo_header(addresses[0], addresses[1], protocol, transport.len());
    let field = kind.checksum_offset();
    transport[field..field + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
    let mut bytes = if v6 {
        let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        ip[4..6].copy_from_slice(&(transport.len() as u16).to_be_bytes());
        ip
    } else {
        let dont = if fragments { 0 } else { 0x40 };
        let mut ip = vec![0x45, 0, 0, 0, 0xff, 0xf0, dont, 0, 64, protocol, 0, 0];
        ip[2..4].copy_from_slice(&(20 + transport.len() as u16).to_be_bytes());
        ip
    };
    for address in addresses {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    if !v6 {
        let sum = checksum::of(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes.extend(transport);
    Large {
        bytes,
        segmentation: Segmentation { kind, size },
    }
}

impl Large {
    fn v6(&self) -> bool {
        self.bytes[0] >> 4 == 6
    }

    fn forwarded(&self) -> Bytes {
        forwarded(&self.bytes)
    }

    /// `struct virtio_net_hdr`, made independently of the program's own.
    fn virtio_header(&self) -> [u8; 10] {
        let start = if self.v6() { 40 } else { 20 };
        let flags = self.bytes[start + 13];
        let (kind, header) = match self.segmentation.kind {
            SegmentKind::Udp => (5, 8),
            SegmentKind::Tcp => {
                let kind = if self.v6() { 4 } else { 1 };
                let ecn = if flags & 0x80 != 0 { 0x80 } else { 0 };
                (kind | ecn, u16::from(self.bytes[start + 12] >> 4) * 4)
            }
        };
        let offset = self.segmentation.kind.checksum_offset() as u16;
        let start = start as u16;
        let words = [start + header, self.segmentation.size, start, offset];
        let mut out = [1, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (bytes, word) in out[2..].chunks_mut(2).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        out
    }
}

impl std::fmt::Debug for Large {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers = &self.bytes[..self.bytes.len().min(80)];
        write!(
            f,
            "{:?}, {} bytes: {headers:02x?}",
            self.segmentation,
            self.bytes.len()
        )
    }
}

/// Both devices are up, and the kernel forwards from the one named to the one returned.
fn router(from: &str) -> File {
    let narrow = raw("narrow0", 0);
    run(&format!("ip link set {from} mtu 1500"));
    connect(from, "10.77.0.1", "fd77::1");
    connect("narrow0", "10.78.0.1", "fd78::1");
    set_sysctl("net/ipv4/ip_forward", "1");
    set_sysctl("net/ipv6/conf/all/forwarding", "1");
    narrow
}

/// A TUN device as the kernel offers it, with nothing of ours.
fn raw(name: &str, flags: libc::c_int) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .expect("a device");
    // SAFETY: `ifreq` is plain data for which all zeroes is a value.
    #[allow(unsafe_code)]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | flags;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is, and keeps no pointer to it.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    file
}

/// The next packets of the test's own; others are the kernel's chatter.
fn receive(device: &mut File, count: usize) -> Vec<Bytes> {
    let mut packets = Vec::new();
    let mut buffer = [0; 2000];
    while packets.len() < count {
        match device.read(&mut buffer) {
            Ok(length) if is_ours(&buffer[..length]) => {
                packets.push(Bytes::copy_from_slice(&buffer[..length]));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut waiting = [PollFd::new(device, PollFlags::IN)];
                let patience = Timespec {
                    tv_sec: 5,
                    tv_nsec: 0,
                };
                let ready = poll(&mut waiting, Some(&patience)).expect("waited");
                assert!(ready > 0, "{} packets of {count} came", packets.len());
            }
            Err(error) => panic!("{error}"),
        }
    }
    packets
}

fn is_ours(bytes: &[u8]) -> bool {
    let destinations = [V4[1], V6[1]].map(|text| text.parse().expect("an address"));
    IpPacket::parse(bytes).is_ok_and(|packet| destinations.contains(&packet.destination()))
}

fn cut(packet: &[u8], segmentation: Segmentation) -> Vec<Bytes> {
    let parsed = IpPacket::parse(packet).expect("a packet");
    let segments = Segments::new(&parsed, segmentation).expect("segments");
    let mut out = BytesMut::new();
    (0..segments.count())
        .map(|index| {
            segments.append(index, &mut out);
            out.split().freeze()
        })
        .collect()
}

/// The packet one hop further.
fn forwarded(packet: &[u8]) -> Bytes {
    let mut bytes = packet.to_vec();
    if bytes[0] >> 4 == 6 {
        bytes[7] -= 1;
    } else {
        bytes[8] -= 1;
        bytes[10..12].fill(0);
        let sum = checksum::of(&bytes[..20]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes.into()
}

/// One byte of the payload is another: a router forwards that, and its receiver finds it.
fn damaged(packet: &Bytes) -> Bytes {
    let mut bytes = packet.to_vec();
    *bytes.last_mut().expect("not empty") ^= 0x10;
    bytes.into()
}

fn by_flow(mut packets: Vec<Bytes>) -> Vec<Bytes> {
    packets.sort_by_key(|packet| {
        let parsed = IpPacket::parse(packet).expect("a packet");
        let ports = Bytes::copy_from_slice(&parsed.transport()[..4]);
        (parsed.source(), parsed.protocol(), ports)
    });
    packets
}

/// From behind the first device to behind the second.
const V4: [&str; 2] = ["10.77.0.2", "10.78.0.2"];
const V6: [&str; 2] = ["fd77::2", "fd78::2"];
