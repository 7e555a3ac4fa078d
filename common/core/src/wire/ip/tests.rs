use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::sample;

const HERE: &str = "10.0.0.1";
const THERE: &str = "10.0.0.2";
const HERE_V6: &str = "fd00::1";
const THERE_V6: &str = "fd00::2";

/// Source port 53, destination port 1024, length 8, no checksum.
const UDP_HEADER: [u8; 8] = [0, 53, 4, 0, 0, 8, 0, 0];

#[test]
fn an_ipv4_packet_is_read_in_full() {
    let mut bytes = sample::packet(HERE, THERE, UDP, &UDP_HEADER);
    bytes[6] = 0x40;
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!(packet.version(), IpVersion::V4);
    assert_eq!(packet.source().to_string(), HERE);
    assert_eq!(packet.destination().to_string(), THERE);
    assert_eq!((packet.protocol(), packet.ports()), (UDP, Some((53, 1024))));
    assert_eq!((packet.hop_limit(), packet.dont_fragment()), (64, true));
    assert!(!packet.is_fragment() && packet.is_first_fragment_or_whole());
    assert_eq!(
        (packet.transport(), packet.transport_offset()),
        (&UDP_HEADER[..], 20)
    );
    assert_eq!(packet.bytes(), bytes);
}

#[test]
fn an_ipv6_packet_is_read_in_full() {
    let bytes = sample::packet(HERE_V6, THERE_V6, UDP, &UDP_HEADER);
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!(packet.version(), IpVersion::V6);
    assert_eq!(packet.source().to_string(), HERE_V6);
    assert_eq!(packet.destination().to_string(), THERE_V6);
    assert_eq!((packet.protocol(), packet.ports()), (UDP, Some((53, 1024))));
    assert_eq!((packet.hop_limit(), packet.dont_fragment()), (64, true));
    assert_eq!(packet.transport_offset(), 40);
}

#[test]
fn a_packet_is_exactly_as_long_as_it_says() {
    for (source, destination) in [(HERE, THERE), (HERE_V6, THERE_V6)] {
        let mut bytes = sample::packet(source, destination, UDP, &UDP_HEADER);
        let declared = bytes.len();
        bytes.push(0);
        let length = bytes.len();
        assert_eq!(
            IpPacket::parse(&bytes).unwrap_err(),
            IpError::Length { declared, length }
        );
        let short = &bytes[..declared - 1];
        assert!(matches!(
            IpPacket::parse(short),
            Err(IpError::Length { .. })
        ));
        assert_eq!(
            IpPacket::parse(&bytes[..19]).unwrap_err(),
            IpError::Truncated { length: 19 },
        );
    }
    assert_eq!(
        IpPacket::parse(&[]).unwrap_err(),
        IpError::Truncated { length: 0 }
    );
    assert_eq!(
        IpPacket::parse(&[0x50; 40]).unwrap_err(),
        IpError::Version { version: 5 }
    );
}

#[test]
fn a_jumbogram_is_refused() {
    let mut bytes = sample::packet(HERE_V6, THERE_V6, 0, &[59, 0, 0xc2, 4, 0, 1, 0, 0]);
    bytes[4..6].fill(0);
    assert!(matches!(
        IpPacket::parse(&bytes),
        Err(IpError::Length { declared: 40, .. })
    ));
}

#[test]
fn an_ipv4_header_length_beyond_the_packet_is_refused() {
    let mut bytes = sample::packet(HERE, THERE, UDP, &UDP_HEADER);
    bytes[0] = 0x48;
    assert_eq!(
        IpPacket::parse(&bytes).unwrap_err(),
        IpError::HeaderLength {
            header: 32,
            length: 28
        },
    );
    bytes[0] = 0x44;
    assert!(matches!(
        IpPacket::parse(&bytes),
        Err(IpError::HeaderLength { header: 16, .. })
    ));
}

#[test]
fn ipv4_options_are_skipped_unless_they_route_or_do_not_fit() {
    let with = |options: &[u8]| {
        let here = HERE.parse().unwrap();
        let bytes = sample::v4(here, THERE.parse().unwrap(), UDP, options, &UDP_HEADER);
        IpPacket::parse(&bytes).map(|packet| packet.ports())
    };
    // Router alert; no-operation and end of list with rubbish behind it.
    assert_eq!(with(&[148, 4, 0, 0]), Ok(Some((53, 1024))));
    assert_eq!(with(&[1, 1, 0, 131]), Ok(Some((53, 1024))));
    assert_eq!(
        with(&[131, 7, 4, 10, 0, 0, 9, 0]),
        Err(IpError::SourceRouted)
    );
    assert_eq!(with(&[1, 137, 3, 4]), Err(IpError::SourceRouted));
    assert_eq!(with(&[7, 5, 0, 0]), Err(IpError::Option { kind: 7 }));
    assert_eq!(with(&[7, 1, 0, 0]), Err(IpError::Option { kind: 7 }));
    assert_eq!(with(&[1, 1, 1, 7]), Err(IpError::Option { kind: 7 }));
}

#[test]
fn the_first_ipv4_fragment_has_ports_and_the_others_do_not() {
    let mut bytes = sample::packet(HERE, THERE, UDP, &UDP_HEADER);
    bytes[6..8].copy_from_slice(&[0x20, 0]);
    let first = IpPacket::parse(&bytes).unwrap();
    assert!(first.is_fragment() && first.is_first_fragment_or_whole());
    assert_eq!(first.ports(), Some((53, 1024)));
    for [high, low] in [[0x20, 1], [0, 1], [0x1f, 0xff]] {
        bytes[6..8].copy_from_slice(&[high, low]);
        let later = IpPacket::parse(&bytes).unwrap();
        assert!(later.is_fragment() && !later.is_first_fragment_or_whole());
        assert_eq!((later.protocol(), later.ports()), (UDP, None));
    }
}

#[test]
fn a_protocol_without_ports_has_none_and_neither_has_a_stump() {
    let icmp = sample::packet(HERE, THERE, ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(IpPacket::parse(&icmp).unwrap().ports(), None);
    let stump = sample::packet(HERE, THERE, TCP, &[0, 22, 0]);
    assert_eq!(IpPacket::parse(&stump).unwrap().ports(), None);
}

#[test]
fn every_ipv6_extension_header_is_walked() {
    let hop_by_hop = [DESTINATION, 0, 0, 0, 0, 0, 0, 0];
    let destination = [&[ROUTING, 1][..], &[0; 14]].concat();
    let travelled_route = [&[FRAGMENT, 2, 4][..], &[0; 21]].concat();
    let first_fragment = [AUTHENTICATION, 0, 0, 1, 0, 0, 0, 7];
    let authentication = [DESTINATION, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let last = [UDP, 0, 0, 0, 0, 0, 0, 0];
    let headers = [
        &hop_by_hop[..],
        &destination,
        &travelled_route,
        &first_fragment,
        &authentication,
        &last,
    ];
    let mut payload = headers.concat();
    let transport = 40 + payload.len();
    payload.extend(UDP_HEADER);
    let bytes = sample::packet(HERE_V6, THERE_V6, HOP_BY_HOP, &payload);
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!((packet.protocol(), packet.ports()), (UDP, Some((53, 1024))));
    assert_eq!(packet.transport_offset(), transport);
    assert!(packet.is_fragment() && packet.is_first_fragment_or_whole());
}

#[test]
fn a_later_ipv6_fragment_ends_the_walk() {
    // What follows looks like a header that is cut off, and is payload.
    let payload = [DESTINATION, 0, 0, 8, 0, 0, 0, 7, 1, 2, 3];
    let bytes = sample::packet(HERE_V6, THERE_V6, FRAGMENT, &payload);
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!((packet.protocol(), packet.ports()), (DESTINATION, None));
    assert_eq!(packet.transport(), [1, 2, 3]);
    assert!(!packet.is_first_fragment_or_whole());
}

#[test]
fn an_atomic_fragment_is_whole() {
    let payload = [&[UDP, 0, 0, 0, 0, 0, 0, 7][..], &UDP_HEADER].concat();
    let bytes = sample::packet(HERE_V6, THERE_V6, FRAGMENT, &payload);
    let packet = IpPacket::parse(&bytes).unwrap();
    assert!(!packet.is_fragment());
    assert_eq!(packet.ports(), Some((53, 1024)));
}

#[test]
fn an_ipv6_header_chain_that_runs_out_of_the_packet_is_refused() {
    for (header, payload) in [
        (HOP_BY_HOP, &[UDP, 0, 0, 0, 0, 0, 0][..]),
        (DESTINATION, &[UDP, 1, 0, 0, 0, 0, 0, 0]),
        (AUTHENTICATION, &[UDP, 1, 0, 0, 0, 0, 0, 0]),
        (ROUTING, &[]),
        // The first fragment has the whole chain, RFC 7112 §5.
        (FRAGMENT, &[DESTINATION, 0, 0, 1, 0, 0, 0, 7]),
    ] {
        let bytes = sample::packet(HERE_V6, THERE_V6, header, payload);
        let error = IpPacket::parse(&bytes).unwrap_err();
        assert!(
            matches!(error, IpError::ExtensionHeader { .. }),
            "{header}: {error}"
        );
    }
}

#[test]
fn misplaced_and_repeated_ipv6_headers_are_refused() {
    let twice = [HOP_BY_HOP, 0, 0, 0, 0, 0, 0, 0, UDP, 0, 0, 0, 0, 0, 0, 0];
    for header in [HOP_BY_HOP, DESTINATION] {
        let bytes = sample::packet(HERE_V6, THERE_V6, header, &twice);
        let refusal = IpError::ExtensionHeader { header: HOP_BY_HOP };
        assert_eq!(IpPacket::parse(&bytes).unwrap_err(), refusal);
    }
    let twice = [FRAGMENT, 0, 0, 1, 0, 0, 0, 7, UDP, 0, 0, 1, 0, 0, 0, 7];
    let bytes = sample::packet(HERE_V6, THERE_V6, FRAGMENT, &twice);
    let refusal = IpError::ExtensionHeader { header: FRAGMENT };
    assert_eq!(IpPacket::parse(&bytes).unwrap_err(), refusal);
}

#[test]
fn an_endless_chain_of_ipv6_headers_is_refused() {
    let chain = |count: usize| {
        let mut payload = [DESTINATION, 0, 0, 0, 0, 0, 0, 0].repeat(count);
        payload[(count - 1) * 8] = UDP;
        sample::packet(HERE_V6, THERE_V6, DESTINATION, &payload)
    };
    assert!(IpPacket::parse(&chain(MAX_EXTENSION_HEADERS)).is_ok());
    let error = IpPacket::parse(&chain(MAX_EXTENSION_HEADERS + 1)).unwrap_err();
    assert_eq!(error, IpError::TooManyHeaders);
}

#[test]
fn an_ipv6_source_route_still_to_travel_is_refused() {
    for kind in [0, 2, 4] {
        let mut payload = vec![UDP, 2, kind, 1];
        payload.resize(24, 0);
        let bytes = sample::packet(HERE_V6, THERE_V6, ROUTING, &payload);
        assert_eq!(IpPacket::parse(&bytes).unwrap_err(), IpError::SourceRouted);
    }
}

#[test]
fn what_is_no_packet_is_left_alone_by_the_hop_limit() {
    for bytes in [
        &mut [][..],
        &mut [0x45; 19],
        &mut [0x60; 39],
        &mut [0x99; 64],
    ] {
        let before = bytes.to_vec();
        decrement_hop_limit(bytes);
        assert_eq!(bytes, before);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_packet_or_an_error(
        bytes in prop_oneof![vec(any::<u8>(), 0..200), sample::nearly_packet()],
    ) {
        let Ok(packet) = IpPacket::parse(&bytes) else { return Ok(()) };
        let addresses = (packet.source().is_ipv4(), packet.destination().is_ipv4());
        let is_v4 = packet.version() == IpVersion::V4;
        prop_assert_eq!(addresses, (is_v4, is_v4));
        prop_assert_eq!(&bytes[packet.transport_offset()..], packet.transport());
        let fixed = if is_v4 { IPV4_HEADER } else { IPV6_HEADER };
        prop_assert!(packet.transport_offset() >= fixed);
        prop_assert!(packet.is_fragment() || packet.is_first_fragment_or_whole());
        prop_assert!(packet.ports().is_none() || packet.is_first_fragment_or_whole());
        prop_assert!(packet.dont_fragment() || is_v4);
        let _ = packet.hop_limit();
    }

    #[test]
    fn whole_packets_parse(bytes in sample::any_packet()) {
        // Random payload behind random protocol numbers may read as a header chain of its own.
        if let Err(error) = IpPacket::parse(&bytes) {
            prop_assert_eq!(bytes[0] >> 4, 6, "{}", error);
        }
    }

    #[test]
    fn one_hop_less_keeps_the_ipv4_checksum_right(mut bytes in sample::any_packet(), ttl in 2u8..) {
        if bytes[0] >> 4 == 4 {
            bytes[8] = ttl;
            bytes[10..12].fill(0);
            let sum = sample::naive_checksum(&bytes[..20]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            decrement_hop_limit(&mut bytes);
            prop_assert_eq!(sample::naive_checksum(&bytes[..20]), 0);
            prop_assert_eq!(bytes[8], ttl - 1);
        } else {
            let mut expected = bytes.clone();
            expected[7] = ttl - 1;
            bytes[7] = ttl;
            decrement_hop_limit(&mut bytes);
            prop_assert_eq!(bytes, expected);
        }
    }
}

#[test]
fn a_fragment_says_where_its_part_lies() {
    let mut bytes = sample::packet(HERE, THERE, UDP, &[0; 24]);
    assert_eq!(IpPacket::parse(&bytes).unwrap().fragment_place(), None);
    bytes[6..8].copy_from_slice(&[0x20, 3]);
    let place = |identification, start, end| {
        Some(FragmentPlace {
            identification,
            start,
            end,
        })
    };
    let found = IpPacket::parse(&bytes).unwrap().fragment_place();
    assert_eq!(found, place(0x1234, 24, 48));
    // Behind a destination options header; another one belongs to what was cut.
    let mut payload = vec![44, 0, 1, 4, 0, 0, 0, 0, 60, 0, 0, 1, 1, 2, 3, 4];
    payload.extend([UDP, 0, 1, 4, 0, 0, 0, 0]);
    payload.extend(UDP_HEADER);
    let bytes = sample::packet(HERE_V6, THERE_V6, 60, &payload);
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!(packet.ports(), Some((53, 1024)));
    assert_eq!(packet.fragment_place(), place(0x0102_0304, 0, 16));
    payload[10..12].copy_from_slice(&[0, 24]);
    let bytes = sample::packet(HERE_V6, THERE_V6, 60, &payload);
    let found = IpPacket::parse(&bytes).unwrap().fragment_place();
    assert_eq!(found, place(0x0102_0304, 24, 40));
}

#[test]
fn the_beginning_of_a_packet_is_read_as_far_as_it_goes() {
    for (source, destination) in [(HERE, THERE), (HERE_V6, THERE_V6)] {
        let mut payload = UDP_HEADER.to_vec();
        payload.resize(500, 0);
        let bytes = sample::packet(source, destination, UDP, &payload);
        let header = bytes.len() - payload.len();
        let whole = IpPacket::parse(&bytes).unwrap();
        for length in header..bytes.len() {
            let beginning = IpPacket::parse_beginning(&bytes[..length]).unwrap();
            assert_eq!(beginning.source(), whole.source());
            let ports = (length >= header + 4).then_some((53, 1024));
            assert_eq!(beginning.ports(), ports);
        }
        for length in 0..header {
            assert!(IpPacket::parse_beginning(&bytes[..length]).is_err());
        }
    }
}
