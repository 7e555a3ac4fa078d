//! What splitting and coalescing promise, one sentence per test: what is cut and joined again is the
//! same stream, whatever order, loss or mixture of flows it went through.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_core::offload::coalesce::{Bundle, Coalescer, Join, MAX_HEADERS};
use adit_core::offload::split::{Segments, SplitError};
use adit_core::offload::{SegmentKind, Segmentation};
use adit_core::wire::checksum::{self, Sum};
use adit_core::wire::ip::{IpPacket, TCP, UDP};
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

#[test]
fn segments_carry_the_stream_with_the_flags_where_a_network_card_puts_them() {
    for v6 in [false, true] {
        let packet = Spec {
            v6,
            flags: ACK | PSH | FIN | CWR | ECE,
            payload: (0..=255).cycle().take(3000).collect(),
            ..Spec::default()
        }
        .build();
        let segments = split(&packet, SegmentKind::Tcp, 1300);
        assert_eq!(segments.len(), 3);
        let flags: Vec<u8> = segments.iter().map(|s| tcp(s)[13]).collect();
        assert_eq!(
            flags,
            [ACK | ECE | CWR, ACK | ECE, ACK | ECE | PSH | FIN],
            "CWR on the first, PSH and FIN on the last"
        );
        let sequences: Vec<u32> = segments.iter().map(|s| sequence(s)).collect();
        assert_eq!(sequences, [1000, 2300, 3600]);
        for segment in &segments {
            assert_right(segment);
        }
        let stream: Vec<u8> = segments.iter().flat_map(|s| payload(s).to_vec()).collect();
        assert_eq!(stream, payload(&packet));
    }
}

#[test]
fn ipv4_segments_are_numbered_one_after_the_other() {
    let packet = Spec {
        identification: 0xfffe,
        payload: vec![1; 4000],
        ..Spec::default()
    }
    .build();
    let ids: Vec<u16> = split(&packet, SegmentKind::Tcp, 1000)
        .iter()
        .map(|s| u16::from_be_bytes([s[4], s[5]]))
        .collect();
    assert_eq!(ids, [0xfffe, 0xffff, 0, 1]);
}

#[test]
fn datagrams_are_cut_with_lengths_and_checksums_of_their_own() {
    for v6 in [false, true] {
        let packet = Spec {
            v6,
            udp: true,
            payload: vec![7; 1000],
            ..Spec::default()
        }
        .build();
        let segments = split(&packet, SegmentKind::Udp, 300);
        let lengths: Vec<usize> = segments.iter().map(|s| payload(s).len()).collect();
        assert_eq!(lengths, [300, 300, 300, 100]);
        for segment in &segments {
            assert_right(segment);
        }
    }
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let tcp = Spec {
        payload: vec![1; 3000],
        ..Spec::default()
    }
    .build();
    let parsed = IpPacket::parse(&tcp).unwrap();
    let cut = |kind, size| Segments::new(&parsed, Segmentation { kind, size }).map(|_| ());
    assert!(matches!(
        cut(SegmentKind::Udp, 1000),
        Err(SplitError::Protocol { .. })
    ));
    assert_eq!(cut(SegmentKind::Tcp, 0), Err(SplitError::Size));
    let mut fragment = tcp.clone();
    fragment[6] = 0x20;
    let parsed = IpPacket::parse(&fragment).unwrap();
    let tcp_1000 = Segmentation {
        kind: SegmentKind::Tcp,
        size: 1000,
    };
    assert!(matches!(
        Segments::new(&parsed, tcp_1000),
        Err(SplitError::Protocol { .. })
    ));
    let mut long_header = tcp[..40].to_vec();
    long_header[2..4].copy_from_slice(&[0, 40]);
    long_header[32] = 0xf0;
    let parsed = IpPacket::parse(&long_header).unwrap();
    assert!(matches!(
        Segments::new(&parsed, tcp_1000),
        Err(SplitError::Header)
    ));
}

#[test]
fn a_split_stream_is_joined_into_the_packet_it_was() {
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let packet = Spec {
            v6,
            udp,
            flags: ACK | PSH,
            payload: (0..=255).cycle().take(20_000).collect(),
            ..Spec::default()
        }
        .build();
        let kind = kind(udp);
        let segments = split(&packet, kind, 1348);
        let bundles = join(Join::TcpAndUdp, segments);
        assert_eq!(bundles.len(), 1, "v6 {v6} udp {udp}");
        assert_eq!(whole(&bundles[0]), packet);
    }
}

#[test]
fn a_corrupt_checksum_is_passed_on_for_the_kernel_to_see() {
    let packet = Spec {
        payload: vec![3; 5000],
        ..Spec::default()
    }
    .build();
    // In the payload, in the TCP header, in the IP header.
    for at in [200, 24, 8] {
        for bad in 0..5 {
            let mut segments = split(&packet, SegmentKind::Tcp, 1000);
            let mut bytes = segments[bad].to_vec();
            bytes[at] ^= 0x10;
            segments[bad] = bytes.into();
            let expected = segments.clone();
            let bundles = join(Join::Tcp, segments);
            let apart = bundles
                .iter()
                .find(|b| b.packets().contains(&expected[bad]))
                .unwrap();
            assert_eq!(apart.packets().len(), 1, "segment {bad}, byte {at}");
            let all: Vec<Bytes> = bundles.iter().flat_map(|b| b.packets().to_vec()).collect();
            assert_eq!(all, expected, "nothing is lost or reordered");
        }
    }
}

#[test]
fn what_the_kernel_would_not_join_stays_apart() {
    let base = Spec {
        payload: vec![1; 500],
        ..Spec::default()
    };
    let next = Spec {
        sequence: 1500,
        identification: 2,
        ..base.clone()
    };
    assert_eq!(join(Join::Tcp, both(&base, &next)).len(), 1, "the control");
    let different: Vec<(&str, Spec)> = vec![
        (
            "a gap",
            Spec {
                sequence: 1501,
                ..next.clone()
            },
        ),
        (
            "an acknowledgement",
            Spec {
                acknowledgement: 9,
                ..next.clone()
            },
        ),
        (
            "a window",
            Spec {
                window: 9,
                ..next.clone()
            },
        ),
        (
            "an ECN mark",
            Spec {
                traffic_class: 3,
                ..next.clone()
            },
        ),
        (
            "a hop limit",
            Spec {
                hop_limit: 9,
                ..next.clone()
            },
        ),
        (
            "an option",
            Spec {
                options: vec![1, 1, 1, 1],
                ..next.clone()
            },
        ),
        (
            "ECE",
            Spec {
                flags: ACK | ECE,
                ..next.clone()
            },
        ),
        (
            "URG",
            Spec {
                flags: ACK | URG,
                ..next.clone()
            },
        ),
        (
            "SYN",
            Spec {
                flags: ACK | SYN,
                ..next.clone()
            },
        ),
        (
            "RST",
            Spec {
                flags: ACK | RST,
                ..next.clone()
            },
        ),
        (
            "FIN",
            Spec {
                flags: ACK | FIN,
                ..next.clone()
            },
        ),
        (
            "CWR",
            Spec {
                flags: ACK | CWR,
                ..next.clone()
            },
        ),
        (
            "a port",
            Spec {
                source_port: 9,
                ..next.clone()
            },
        ),
        (
            "a number that skips",
            Spec {
                identification: 9,
                ..next.clone()
            },
        ),
        (
            "more payload",
            Spec {
                payload: vec![1; 501],
                ..next.clone()
            },
        ),
        (
            "no payload",
            Spec {
                payload: vec![],
                ..next.clone()
            },
        ),
        (
            "an IP option",
            Spec {
                ip_options: vec![1, 1, 1, 1],
                ..next
            },
        ),
    ];
    for (what, spec) in different {
        let bundles = join(Join::Tcp, both(&base, &spec));
        assert_eq!(bundles.len(), 2, "{what}");
        assert_eq!(bundles[0].packets()[0], base.build(), "{what}: order");
    }
}

#[test]
fn a_number_means_nothing_in_a_packet_that_may_not_be_fragmented() {
    let base = Spec {
        dont_fragment: true,
        payload: vec![1; 500],
        ..Spec::default()
    };
    let next = Spec {
        sequence: 1500,
        identification: 77,
        ..base.clone()
    };
    assert_eq!(join(Join::Tcp, both(&base, &next)).len(), 1);
}

#[test]
fn a_datagram_without_a_checksum_stays_alone() {
    let spec = Spec {
        udp: true,
        payload: vec![1; 500],
        ..Spec::default()
    };
    let mut bare = spec.build();
    bare[26..28].fill(0);
    let bundles = join(
        Join::TcpAndUdp,
        vec![bare.clone().into(), bare.into(), spec.build().into()],
    );
    assert_eq!(bundles.len(), 3);
}

#[test]
fn a_device_is_given_joined_only_what_it_takes() {
    let tcp = split(
        &Spec {
            payload: vec![1; 4000],
            ..Spec::default()
        }
        .build(),
        SegmentKind::Tcp,
        1000,
    );
    let udp = split(
        &Spec {
            udp: true,
            payload: vec![1; 4000],
            ..Spec::default()
        }
        .build(),
        SegmentKind::Udp,
        1000,
    );
    for (join_what, tcp_bundles, udp_bundles) in [
        (Join::Nothing, 4, 4),
        (Join::Tcp, 1, 4),
        (Join::TcpAndUdp, 1, 1),
    ] {
        assert_eq!(join(join_what, tcp.clone()).len(), tcp_bundles);
        assert_eq!(join(join_what, udp.clone()).len(), udp_bundles);
    }
}

#[test]
fn a_fragment_overtakes_nothing_of_its_hosts() {
    let data = split(
        &Spec {
            payload: vec![1; 2000],
            ..Spec::default()
        }
        .build(),
        SegmentKind::Tcp,
        1000,
    );
    let mut fragment = Spec {
        payload: vec![2; 100],
        ..Spec::default()
    }
    .build();
    fragment[6..8].copy_from_slice(&[0x20, 10]);
    let all = vec![data[0].clone(), data[1].clone(), fragment.clone().into()];
    let bundles = join(Join::Tcp, all);
    assert_eq!(bundles.len(), 2);
    assert_eq!(bundles[1].packets()[0], fragment);
}

proptest! {
    #[test]
    fn any_packet_split_and_joined_is_the_same_stream(
        spec in any_spec(),
        size in 1..3000u16,
    ) {
        let packet = spec.build();
        let kind = kind(spec.udp);
        let parsed = IpPacket::parse(&packet).unwrap();
        let cut = Segments::new(&parsed, Segmentation { kind, size }).unwrap();
        let segments = split(&packet, kind, size);
        prop_assert_eq!(segments.len(), cut.count());
        prop_assert_eq!(segments.iter().map(Bytes::len).max(), Some(cut.longest()));
        prop_assert_eq!(segments.iter().map(Bytes::len).sum::<usize>(), cut.total());
        for segment in &segments {
            assert_right(segment);
        }
        let stream: Vec<u8> = segments.iter().flat_map(|s| payload(s).to_vec()).collect();
        prop_assert_eq!(&stream[..], payload(&packet));
        // What is joined and cut again the way the kernel would is what went in.
        for bundle in join(Join::TcpAndUdp, segments) {
            prop_assert_eq!(apart(&bundle), bundle.packets());
        }
    }

    #[test]
    fn whatever_comes_in_comes_out_once_in_order_within_its_flow(
        flows in vec(any_spec(), 1..5),
        size in 200..1500u16,
        picks in vec((any::<prop::sample::Index>(), 0..20u8), 1..120),
    ) {
        // Several flows, cut, mixed, with losses, duplicates and damaged bytes.
        let mut streams: Vec<Vec<Bytes>> = flows
            .iter()
            .enumerate()
            .map(|(n, spec)| {
                let spec = Spec { source_port: 1000 + n as u16, ..spec.clone() };
                let mut cut = split(&spec.build(), kind(spec.udp), size);
                cut.reverse();
                cut
            })
            .collect();
        let mut input = Vec::new();
        for (pick, fate) in picks {
            let Some(packet) = pick.get_mut(&mut streams).pop() else { continue };
            match fate {
                0 => {}
                1 => input.extend([packet.clone(), packet]),
                2 => {
                    let mut bytes = packet.to_vec();
                    let at = pick.index(bytes.len());
                    // Version and lengths stay: what is no packet never reaches the coalescer.
                    if at > 8 { bytes[at] ^= 1; }
                    input.push(bytes.into());
                }
                _ => input.push(packet),
            }
        }
        let bundles = join(Join::TcpAndUdp, input.clone());
        let mut sent: BTreeMap<Vec<u8>, Vec<Bytes>> = BTreeMap::new();
        for packet in &input {
            sent.entry(flow(packet)).or_default().push(packet.clone());
        }
        let mut got: BTreeMap<Vec<u8>, Vec<Bytes>> = BTreeMap::new();
        for bundle in &bundles {
            for packet in bundle.packets() {
                got.entry(flow(packet)).or_default().push(packet.clone());
            }
            if bundle.packets().len() > 1 {
                prop_assert_eq!(apart(bundle), bundle.packets());
                for packet in bundle.packets() {
                    assert_right(packet);
                }
            }
        }
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn any_bytes_pass_the_coalescer_unchanged(packets in vec(vec(any::<u8>(), 0..100), 0..20)) {
        let packets: Vec<Bytes> = packets.into_iter().map(Bytes::from).collect();
        let bundles = join(Join::TcpAndUdp, packets.clone());
        let out: Vec<Bytes> = bundles.iter().flat_map(|b| b.packets().to_vec()).collect();
        prop_assert_eq!(out, packets);
    }
}

/// A packet to be built; the defaults are an ordinary TCP segment over IPv4.
#[derive(Clone, Debug)]
struct Spec {
    v6: bool,
    udp: bool,
    traffic_class: u8,
    hop_limit: u8,
    identification: u16,
    dont_fragment: bool,
    ip_options: Vec<u8>,
    source_port: u16,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            v6: false,
            udp: false,
            traffic_class: 0,
            hop_limit: 64,
            identification: 1,
            dont_fragment: false,
            ip_options: Vec::new(),
            source_port: 1234,
            sequence: 1000,
            acknowledgement: 1,
            flags: ACK,
            window: 500,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }
}

impl Spec {
    fn build(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        transport.extend(self.source_port.to_be_bytes());
        transport.extend(443u16.to_be_bytes());
        if self.udp {
            transport.extend((8 + self.payload.len() as u16).to_be_bytes());
            transport.extend([0, 0]);
        } else {
            transport.extend(self.sequence.to_be_bytes());
            transport.extend(self.acknowledgement.to_be_bytes());
            transport.extend([(5 + self.options.len() as u8 / 4) << 4, self.flags]);
            transport.extend(self.window.to_be_bytes());
            transport.extend([0; 4]);
            transport.extend(&self.options);
        }
        transport.extend(&self.payload);
        let protocol = if self.udp { UDP } else { TCP };
        let (source, destination): (IpAddr, IpAddr) = if self.v6 {
            let address = |n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n).into();
            (address(1), address(2))
        } else {
            (
                Ipv4Addr::new(10, 0, 0, 1).into(),
                Ipv4Addr::new(10, 0, 0, 2).into(),
            )
        };
        let sum = Sum::pseudo_header(source, destination, protocol, transport.len())
            .bytes(&transport)
            .checksum();
        let field = if self.udp { 6 } else { 16 };
        let sum = if sum == 0 { 0xffff } else { sum };
        transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());

        let mut packet = Vec::new();
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = 20 + self.ip_options.len();
                packet.extend([0x40 + header as u8 / 4, self.traffic_class]);
                packet.extend(((header + transport.len()) as u16).to_be_bytes());
                packet.extend(self.identification.to_be_bytes());
                packet.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
                packet.extend([self.hop_limit, protocol, 0, 0]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet.extend(&self.ip_options);
                let sum = checksum::of(&packet);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet.extend([
                    0x60 | self.traffic_class >> 4,
                    self.traffic_class << 4,
                    0,
                    0,
                ]);
                packet.extend((transport.len() as u16).to_be_bytes());
                packet.extend([protocol, self.hop_limit]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
            }
            _ => unreachable!("one family"),
        }
        packet.extend(transport);
        packet
    }
}

fn any_spec() -> impl Strategy<Value = Spec> {
    (
        (
            any::<bool>(),
            any::<bool>(),
            0..4u8,
            any::<u16>(),
            any::<bool>(),
        ),
        (
            any::<u32>(),
            prop_oneof![Just(ACK), Just(ACK | PSH), any::<u8>()],
            any::<u16>(),
        ),
        (0..4usize, vec(any::<u8>(), 1..30_000)),
    )
        .prop_map(
            |(
                (v6, udp, traffic_class, identification, dont_fragment),
                (sequence, flags, window),
                (options, payload),
            )| Spec {
                v6,
                udp,
                traffic_class,
                identification,
                dont_fragment,
                sequence,
                flags,
                window,
                options: vec![1; options * 4],
                payload,
                ..Spec::default()
            },
        )
}

fn kind(udp: bool) -> SegmentKind {
    if udp {
        SegmentKind::Udp
    } else {
        SegmentKind::Tcp
    }
}

fn both(one: &Spec, two: &Spec) -> Vec<Bytes> {
    vec![one.build().into(), two.build().into()]
}

fn split(packet: &[u8], kind: SegmentKind, size: u16) -> Vec<Bytes> {
    let parsed = IpPacket::parse(packet).unwrap();
    let segments = Segments::new(&parsed, Segmentation { kind, size }).unwrap();
    (0..segments.count())
        .map(|index| {
            let mut out = BytesMut::new();
            assert_eq!(segments.append(index, &mut out), out.len());
            out.freeze()
        })
        .collect()
}

fn join(what: Join, packets: Vec<Bytes>) -> Vec<Bundle> {
    let mut coalescer = Coalescer::new(what);
    for packet in packets {
        coalescer.push(packet);
    }
    coalescer.flush();
    std::iter::from_fn(|| coalescer.pop()).collect()
}

/// The packet the device gets, its checksum completed.
fn whole(bundle: &Bundle) -> Vec<u8> {
    let mut headers = [0; MAX_HEADERS];
    let Some(joined) = bundle.headers(&mut headers) else {
        return bundle.packets()[0].to_vec();
    };
    let mut packet = headers[..joined.header].to_vec();
    for part in bundle.packets() {
        packet.extend(&part[joined.header..]);
    }
    adit_core::offload::complete_checksum(&mut packet, joined.checksum);
    packet
}

/// What the kernel makes of a bundle when it has to cut it.
fn apart(bundle: &Bundle) -> Vec<Bytes> {
    let mut headers = [0; MAX_HEADERS];
    let Some(joined) = bundle.headers(&mut headers) else {
        return bundle.packets().to_vec();
    };
    let packet = whole(bundle);
    let mut parts = split(&packet, joined.segmentation.kind, joined.segmentation.size);
    // Numbers of packets that may not be fragmented mean nothing and may differ (RFC 6864 §4.1).
    for (part, original) in parts.iter_mut().zip(bundle.packets()) {
        if original[0] >> 4 == 4 && original[6] & 0x40 != 0 {
            let mut bytes = part.to_vec();
            bytes[4..6].copy_from_slice(&original[4..6]);
            bytes[10..12].fill(0);
            let sum = checksum::of(&bytes[..20]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            *part = bytes.into();
        }
    }
    parts
}

fn assert_right(packet: &[u8]) {
    let parsed = IpPacket::parse(packet).unwrap();
    if packet[0] >> 4 == 4 {
        assert_eq!(checksum::of(&packet[..parsed.transport_offset()]), 0);
    }
    let segment = parsed.transport();
    let sum = Sum::pseudo_header(
        parsed.source(),
        parsed.destination(),
        parsed.protocol(),
        segment.len(),
    );
    assert_eq!(sum.bytes(segment).checksum(), 0, "the transport checksum");
}

fn tcp(packet: &[u8]) -> &[u8] {
    IpPacket::parse(packet).unwrap().transport()
}

fn sequence(packet: &[u8]) -> u32 {
    u32::from_be_bytes(tcp(packet)[4..8].try_into().unwrap())
}

fn payload(packet: &[u8]) -> &[u8] {
    let parsed = IpPacket::parse(packet).unwrap();
    let segment = parsed.transport();
    match parsed.protocol() {
        TCP => &segment[usize::from(segment[12] >> 4) * 4..],
        _ => &segment[8..],
    }
}

/// Everything that names a flow, for packets of these tests.
fn flow(packet: &[u8]) -> Vec<u8> {
    let transport = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let mut key = vec![packet[0] >> 4, packet[if transport == 20 { 9 } else { 6 }]];
    let addresses = if transport == 20 { 12..20 } else { 8..40 };
    key.extend(&packet[addresses]);
    key.extend(packet.get(transport..transport + 4).unwrap_or_default());
    key
}
