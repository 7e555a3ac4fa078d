use proptest::prelude::*;

use super::*;
use crate::wire::ip::{TCP, UDP};
use crate::wire::sample;

const ERRORS: [IcmpError; 5] = [
    IcmpError::NoRoute,
    IcmpError::AdminProhibited,
    IcmpError::SourcePolicy,
    IcmpError::PacketTooBig { mtu: 1412 },
    IcmpError::HopLimitExceeded,
];

const GATEWAY: &str = "10.99.0.1";
const GATEWAY_V6: &str = "fd00:ad17::1";

#[test]
fn each_error_has_its_numbers_in_both_families() {
    let v4 = [(3, 0, 0), (3, 13, 0), (3, 13, 0), (3, 4, 1412), (11, 0, 0)];
    let v6 = [(1, 0, 0), (1, 1, 0), (1, 5, 0), (2, 0, 1412), (3, 0, 0)];
    for (error, (v4, v6)) in ERRORS.into_iter().zip(v4.into_iter().zip(v6)) {
        let answer = answer_to(
            &sample::packet("10.99.0.7", "10.0.0.1", UDP, &[0; 8]),
            error,
        );
        assert_eq!(numbers(&answer.unwrap()[20..]), v4, "{error:?}");
        let answer = answer_to(&sample::packet("fd00::7", "fd00:1::1", UDP, &[0; 8]), error);
        assert_eq!(numbers(&answer.unwrap()[40..]), v6, "{error:?}");
    }
}

#[test]
fn an_answer_goes_back_to_the_sender_and_quotes_the_packet() {
    for (sender, destination, gateway, header) in [
        ("10.99.0.7", "10.0.0.1", GATEWAY, 20),
        ("fd00::7", "fd00:1::1", GATEWAY_V6, 40),
    ] {
        let offending = sample::packet(sender, destination, UDP, b"port and data");
        let answer = answer_to(&offending, IcmpError::AdminProhibited).unwrap();
        let parsed = IpPacket::parse(&answer).unwrap();
        assert_eq!(parsed.source().to_string(), gateway);
        assert_eq!(parsed.destination().to_string(), sender);
        assert_eq!(parsed.transport_offset(), header);
        assert_eq!(parsed.transport()[8..], offending);
        assert!(!parsed.is_fragment());
    }
}

#[test]
fn a_long_packet_is_quoted_up_to_what_every_host_receives() {
    for (sender, destination, header, length) in [
        ("10.99.0.7", "10.0.0.1", 20, 576),
        ("fd00::7", "fd00:1::1", 40, 1280),
    ] {
        let offending = sample::packet(sender, destination, UDP, &[7; 1400]);
        let answer = answer_to(&offending, IcmpError::PacketTooBig { mtu: 1280 }).unwrap();
        assert_eq!(answer.len(), length);
        assert!(offending.starts_with(&answer[header + 8..]));
    }
}

#[test]
fn a_size_beyond_sixteen_bits_is_capped_in_ipv4_only() {
    let error = IcmpError::PacketTooBig { mtu: 100_000 };
    let answer = answer_to(&sample::packet("10.99.0.7", "10.0.0.1", UDP, &[]), error);
    assert_eq!(numbers(&answer.unwrap()[20..]).2, 65_535);
    let answer = answer_to(&sample::packet("fd00::7", "fd00:1::1", UDP, &[]), error);
    assert_eq!(numbers(&answer.unwrap()[40..]).2, 100_000);
}

#[test]
fn an_icmp_error_is_never_answered_and_an_echo_is() {
    for (kind, answered) in [
        (3, false),
        (4, false),
        (5, false),
        (11, false),
        (12, false),
        (8, true),
    ] {
        let packet = sample::packet("10.99.0.7", "10.0.0.1", ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(is_answered(&packet), answered, "ICMP type {kind}");
    }
    for (kind, answered) in [
        (1, false),
        (2, false),
        (127, false),
        (137, false),
        (128, true),
    ] {
        let packet = sample::packet("fd00::7", "fd00:1::1", ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(is_answered(&packet), answered, "ICMPv6 type {kind}");
    }
    assert!(!is_answered(&sample::packet(
        "10.99.0.7",
        "10.0.0.1",
        ICMP,
        &[]
    )));
    assert!(!is_answered(&sample::packet(
        "fd00::7",
        "fd00:1::1",
        ICMPV6,
        &[]
    )));
}

#[test]
fn an_icmp_error_behind_extension_headers_is_not_answered() {
    let payload = [ICMPV6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert!(!is_answered(&sample::packet(
        "fd00::7",
        "fd00:1::1",
        60,
        &payload
    )));
}

#[test]
fn a_fragment_other_than_the_first_is_not_answered() {
    let mut packet = sample::packet("10.99.0.7", "10.0.0.1", UDP, &[0; 8]);
    packet[6] = 0x20;
    assert!(is_answered(&packet), "the first fragment is");
    packet[7] = 1;
    assert!(!is_answered(&packet));
    let later = [UDP, 0, 0, 8, 0, 0, 0, 7, 1, 2, 3, 4];
    assert!(!is_answered(&sample::packet(
        "fd00::7",
        "fd00:1::1",
        44,
        &later
    )));
}

#[test]
fn an_address_that_is_not_one_host_is_not_answered() {
    for other in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.251",
        "255.255.255.255",
        "240.0.0.1",
    ] {
        assert!(
            !is_answered(&sample::packet(other, "10.0.0.1", TCP, &[0; 20])),
            "from {other}"
        );
        assert!(
            !is_answered(&sample::packet("10.99.0.7", other, TCP, &[0; 20])),
            "to {other}"
        );
    }
    for other in ["::", "::1", "ff02::1"] {
        assert!(
            !is_answered(&sample::packet(other, "fd00:1::1", TCP, &[0; 20])),
            "from {other}"
        );
        assert!(
            !is_answered(&sample::packet("fd00::7", other, TCP, &[0; 20])),
            "to {other}"
        );
    }
}

#[test]
fn a_source_of_the_other_family_gives_no_answer() {
    let v4 = sample::packet("10.99.0.7", "10.0.0.1", UDP, &[0; 8]);
    let offending = IpPacket::parse(&v4).unwrap();
    assert_eq!(
        error_packet(IcmpError::NoRoute, &offending, GATEWAY_V6.parse().unwrap()),
        None
    );
}

proptest! {
    #[test]
    fn every_answer_is_a_packet_with_right_checksums_that_is_not_answered_again(
        offending in sample::any_packet(),
        error in prop::sample::select(ERRORS.to_vec()),
    ) {
        let Some(answer) = answer_to(&offending, error) else { return Ok(()) };
        let parsed = IpPacket::parse(&answer).unwrap();
        prop_assert!(!is_answered(&answer));
        prop_assert!(offending.starts_with(&parsed.transport()[8..]));
        match parsed.version() {
            IpVersion::V4 => {
                prop_assert!(answer.len() <= 576);
                prop_assert_eq!(sample::naive_checksum(&answer[..20]), 0);
                prop_assert_eq!(sample::naive_checksum(&answer[20..]), 0);
            }
            IpVersion::V6 => {
                prop_assert!(answer.len() <= 1280);
                prop_assert_eq!(sample::transport_checksum(&answer, ICMPV6, 40), 0);
            }
        }
    }
}

fn is_answered(offending: &[u8]) -> bool {
    answer_to(offending, IcmpError::AdminProhibited).is_some()
}

fn answer_to(offending: &[u8], error: IcmpError) -> Option<Vec<u8>> {
    let offending = IpPacket::parse(offending).ok()?;
    let source = match offending.version() {
        IpVersion::V4 => GATEWAY,
        IpVersion::V6 => GATEWAY_V6,
    };
    error_packet(error, &offending, source.parse().unwrap())
}

/// Type, code and the last four bytes of an ICMP header.
fn numbers(message: &[u8]) -> (u8, u8, u32) {
    let rest = u32::from_be_bytes(message[4..8].try_into().unwrap());
    (message[0], message[1], rest)
}
