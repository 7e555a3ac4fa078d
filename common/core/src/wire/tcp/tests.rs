use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::sample;

/// Maximum segment size 1460, SACK permitted, timestamps, no-operation, window scale 7.
const LINUX_OPTIONS: [u8; 20] = [
    2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];

#[test]
fn a_syn_is_lowered_to_what_fits_in_both_families() {
    for flags in [SYN, SYN | ACK] {
        let mut packet = v4_packet(flags, &LINUX_OPTIONS);
        assert!(clamp_mss(&mut packet, 1412));
        assert_eq!(mss(&packet, 20), 1372);
        assert_eq!(sample::transport_checksum(&packet, TCP, 20), 0);

        let mut packet = v6_packet(flags, &LINUX_OPTIONS);
        assert!(clamp_mss(&mut packet, 1412));
        assert_eq!(mss(&packet, 40), 1352);
        assert_eq!(sample::transport_checksum(&packet, TCP, 40), 0);
    }
}

#[test]
fn a_size_that_fits_is_left_alone() {
    let mut packet = v4_packet(SYN, &LINUX_OPTIONS);
    let before = packet.clone();
    assert!(!clamp_mss(&mut packet, 1500));
    assert!(!clamp_mss(&mut packet, usize::MAX));
    assert_eq!(packet, before);
}

#[test]
fn what_is_no_syn_is_left_alone() {
    let mut packet = v4_packet(ACK, &LINUX_OPTIONS);
    assert!(!is_tcp_syn(&IpPacket::parse(&packet).unwrap()));
    assert!(!clamp_mss(&mut packet, 576));
    let mut udp = sample::packet(
        "10.0.0.1",
        "10.0.0.2",
        17,
        &sample::tcp(SYN, &LINUX_OPTIONS, &[]),
    );
    assert!(!is_tcp_syn(&IpPacket::parse(&udp).unwrap()));
    assert!(!clamp_mss(&mut udp, 576));
}

#[test]
fn a_reset_speaks_for_the_other_end_and_is_what_its_receiver_expects() {
    for (families, header) in [(("10.0.0.1", "10.0.0.2"), 20), (("fd00::1", "fd00::2"), 40)] {
        let reset = |flags: u8, options: &[u8], payload: &[u8]| {
            let segment = sample::tcp(flags, options, payload);
            let offending = sample::packet(families.0, families.1, TCP, &segment);
            let reset = reset_packet(&IpPacket::parse(&offending).unwrap()).unwrap();
            let parsed = IpPacket::parse(&reset).unwrap();
            assert_eq!(parsed.source().to_string(), families.1);
            assert_eq!(parsed.destination().to_string(), families.0);
            assert_eq!(parsed.ports(), Some((443, 0xc001)));
            assert_eq!(sample::transport_checksum(&reset, TCP, header), 0);
            assert!(header == 40 || sample::naive_checksum(&reset[..20]) == 0);
            reset[header..].to_vec()
        };
        // With an acknowledgment, the reset stands where the other end would send next.
        let mut answered = reset(ACK, &[], b"data");
        assert_eq!(answered[4..8], [0, 0, 0, 0], "the sample acknowledges zero");
        assert_eq!(answered[13], RST);
        // Without one, it acknowledges everything: four bytes, SYN and FIN.
        answered = reset(SYN | FIN, &LINUX_OPTIONS, b"data");
        assert_eq!(answered[4..8], [0, 0, 0, 0]);
        assert_eq!(answered[8..12], [1, 2, 3, 4 + 6]);
        assert_eq!(answered[13], RST | ACK);
    }
}

#[test]
fn a_reset_stands_where_the_acknowledgment_points() {
    let mut segment = sample::tcp(ACK, &[], b"");
    segment[8..12].copy_from_slice(&[9, 8, 7, 6]);
    let offending = sample::packet("10.0.0.1", "10.0.0.2", TCP, &segment);
    let reset = reset_packet(&IpPacket::parse(&offending).unwrap()).unwrap();
    assert_eq!(reset[24..28], [9, 8, 7, 6]);
    assert_eq!(reset[28..32], [0; 4]);
}

#[test]
fn no_reset_answers_a_reset_a_fragment_another_protocol_or_half_a_header() {
    let answer = |bytes: &[u8]| reset_packet(&IpPacket::parse(bytes).unwrap());
    assert_eq!(answer(&v4_packet(RST | ACK, &[])), None);
    let mut fragment = v4_packet(ACK, &[]);
    fragment[6] = 0x20;
    assert_eq!(answer(&fragment), None);
    let segment = sample::tcp(ACK, &[], b"");
    assert_eq!(
        answer(&sample::packet("10.0.0.1", "10.0.0.2", 17, &segment)),
        None
    );
    for length in 0..20 {
        let cut = sample::packet("10.0.0.1", "10.0.0.2", TCP, &segment[..length]);
        assert_eq!(answer(&cut), None, "{length} bytes");
    }
}

#[test]
fn fragments_are_left_alone() {
    let mut packet = v4_packet(SYN, &LINUX_OPTIONS);
    for fragment in [[0x20, 0], [0, 1]] {
        packet[6..8].copy_from_slice(&fragment);
        assert!(!clamp_mss(&mut packet, 576));
    }
}

#[test]
fn a_syn_behind_ipv6_extension_headers_is_found() {
    let segment = sample::tcp(SYN, &LINUX_OPTIONS, &[]);
    let payload = [&[TCP, 0, 1, 4, 0, 0, 0, 0][..], &segment].concat();
    let mut packet = sample::packet("fd00::1", "fd00::2", 60, &payload);
    sample::seal_tcp(&mut packet, 48);
    assert!(clamp_mss(&mut packet, 1280));
    assert_eq!(mss(&packet, 48), 1220);
    assert_eq!(sample::transport_checksum(&packet, TCP, 48), 0);
}

#[test]
fn options_that_do_not_parse_end_the_search() {
    for options in [
        &[0, 2, 4, 5, 0xb4][..], // behind the end of the list
        &[7, 0, 2, 4, 5, 0xb4],  // an option of no length
        &[7, 1, 2, 4, 5, 0xb4],  // shorter than itself
        &[7, 40, 2, 4, 5, 0xb4], // beyond the header
        &[2, 3, 5, 0xb4],        // the wrong length for a maximum segment size
        &[1, 1, 2, 4],           // cut off
    ] {
        let mut packet = v4_packet(SYN, options);
        let before = packet.clone();
        assert!(!clamp_mss(&mut packet, 576), "{options:?}");
        assert_eq!(packet, before);
    }
}

#[test]
fn a_tunnel_too_small_for_any_segment_announces_none() {
    let mut packet = v4_packet(SYN, &LINUX_OPTIONS);
    for max_packet in [0, 20, 40] {
        assert!(!clamp_mss(&mut packet, max_packet));
    }
}

proptest! {
    #[test]
    fn a_clamped_packet_is_the_same_packet_with_a_smaller_size(
        padding in 0..6usize,
        announced: u16,
        behind in vec(any::<u8>(), 0..20),
        data in vec(any::<u8>(), 0..30),
        max_packet in 41..2000usize,
    ) {
        let mut options = vec![OPTION_NOP; padding];
        options.extend([OPTION_MSS, 4]);
        options.extend(announced.to_be_bytes());
        options.push(OPTION_END);
        options.extend(behind);
        let segment = sample::tcp(SYN, &options, &data);
        let mut packet = sample::packet("10.0.0.1", "10.0.0.2", TCP, &segment);
        sample::seal_tcp(&mut packet, 20);

        let limit = (max_packet - 40) as u16;
        let mut expected = packet.clone();
        let at = 20 + 20 + padding + 2;
        expected[at..at + 2].copy_from_slice(&announced.min(limit).to_be_bytes());
        sample::seal_tcp(&mut expected, 20);

        prop_assert_eq!(clamp_mss(&mut packet, max_packet), announced > limit);
        prop_assert_eq!(packet, expected);
    }

    #[test]
    fn any_bytes_are_clamped_or_left_alone(
        mut bytes in prop_oneof![vec(any::<u8>(), 0..120), sample::nearly_packet()],
        max_packet in 0..2000usize,
    ) {
        let before = bytes.clone();
        let changed = clamp_mss(&mut bytes, max_packet);
        prop_assert_eq!(bytes.len(), before.len());
        prop_assert_eq!(changed, bytes != before);
    }

    #[test]
    fn rubbish_options_never_break_the_checksum(
        options in vec(prop_oneof![Just(1u8), Just(2), Just(4), any::<u8>()], 0..40),
        max_packet in 0..2000usize,
    ) {
        let mut packet = v6_packet(SYN, &options);
        clamp_mss(&mut packet, max_packet);
        prop_assert_eq!(sample::transport_checksum(&packet, TCP, 40), 0);
    }
}

fn v4_packet(flags: u8, options: &[u8]) -> Vec<u8> {
    let segment = sample::tcp(flags, options, &[]);
    let mut packet = sample::packet("10.0.0.1", "10.0.0.2", TCP, &segment);
    sample::seal_tcp(&mut packet, 20);
    packet
}

fn v6_packet(flags: u8, options: &[u8]) -> Vec<u8> {
    let segment = sample::tcp(flags, options, &[]);
    let mut packet = sample::packet("fd00::1", "fd00::2", TCP, &segment);
    sample::seal_tcp(&mut packet, 40);
    packet
}

/// The maximum segment size in [`LINUX_OPTIONS`] of a segment at `transport`.
fn mss(packet: &[u8], transport: usize) -> u16 {
    u16::from_be_bytes([packet[transport + 22], packet[transport + 23]])
}
