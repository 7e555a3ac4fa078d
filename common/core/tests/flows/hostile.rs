//! People who know the rules and look for what is between them.

use adit_core::dataplane::DropReason;
use adit_core::flow::{Passage, Refused};
use adit_core::policy::{Decision, Direction, Flow};
use adit_core::wire::ip::IpPacket;

use super::packets::{
    self, ACK, End, SYN, TCP, UDP, datagram, echo, end, fragment, ip, segment, tcp, udp,
    unreachable,
};
use super::{FROM_CLIENT, RULE, Session, TO_CLIENT, anything, nothing, outgoing};

const UNRELATED: Result<Passage, Refused> = Err(Refused::Drop(DropReason::UnrelatedError));

fn dropped(reason: DropReason) -> Result<Passage, Refused> {
    Err(Refused::Drop(reason))
}

/// A client and a server of each family.
fn families() -> [(End, End); 2] {
    [
        (end("10.99.0.2", 50_000), end("10.0.0.10", 443)),
        (end("fd00:99::2", 50_000), end("fd00:1::10", 443)),
    ]
}

/// Port 443 and nothing else, and only from the client.
fn https(flow: &Flow) -> Decision {
    match (flow.direction, flow.port) {
        (Direction::FromClient, Some(443)) => Decision::Allow(RULE),
        _ => Decision::Deny(None),
    }
}

#[test]
fn a_first_fragment_that_hides_its_ports_or_flags_is_dropped() {
    for (client, server) in families() {
        let ends = (client.0, server.0);
        let mut session = Session::settled();
        let whole = [
            (TCP, segment(client.1, server.1, SYN), 20),
            (UDP, datagram(client.1, server.1, 0), 8),
        ];
        for (protocol, header, needed) in whole {
            for length in (0..needed).filter(|length| length % 8 == 0) {
                let tiny = fragment(ends, protocol, 1, 0, true, &header[..length]);
                let verdict = session.judge(anything, FROM_CLIENT, &tiny);
                assert_eq!(
                    verdict,
                    dropped(DropReason::FragmentTooShort),
                    "{protocol}, {length}"
                );
                let rest = fragment(ends, protocol, 1, 8, false, &header[length..]);
                let verdict = session.judge(anything, FROM_CLIENT, &rest);
                assert_eq!(verdict, dropped(DropReason::FragmentBeforeFirst));
            }
        }
        // Of a packet that is none of several, the rest is not under way.
        let cut = ip(
            client.0,
            server.0,
            TCP,
            &segment(client.1, server.1, SYN)[..19],
        );
        let verdict = session.judge(anything, FROM_CLIENT, &cut);
        assert_eq!(verdict, dropped(DropReason::Malformed));
    }
}

#[test]
fn a_later_fragment_may_not_rewrite_the_ports_of_the_first() {
    for (client, server) in families() {
        let ends = (client.0, server.0);
        let mut session = Session::settled();
        let first = fragment(ends, UDP, 9, 0, true, &datagram(client.1, server.1, 24));
        assert!(session.judge(https, FROM_CLIENT, &first).is_ok());
        for start in [8, 16, 24] {
            let overlap = fragment(ends, UDP, 9, start, false, &[0; 32]);
            let verdict = session.judge(https, FROM_CLIENT, &overlap);
            assert_eq!(verdict, dropped(DropReason::FragmentOverlap), "{start}");
        }
        let next = fragment(ends, UDP, 9, 32, false, &[0; 32]);
        assert!(session.judge(https, FROM_CLIENT, &next).is_ok());
        // A second beginning of the same packet, for another port, is judged by its own port.
        let again = fragment(ends, UDP, 9, 0, true, &datagram(client.1, 22, 24));
        let denied = Err(Refused::Denied(None));
        assert_eq!(session.judge(https, FROM_CLIENT, &again), denied);
        // One that ends earlier opens no gap in the first.
        let shorter = fragment(ends, UDP, 9, 0, true, &datagram(client.1, server.1, 0));
        assert!(session.judge(https, FROM_CLIENT, &shorter).is_ok());
        let overlap = fragment(ends, UDP, 9, 8, false, &[0; 32]);
        let verdict = session.judge(https, FROM_CLIENT, &overlap);
        assert_eq!(verdict, dropped(DropReason::FragmentOverlap));
    }
}

#[test]
fn fragments_follow_their_own_first_and_nobody_elses() {
    for (client, server) in families() {
        let mut session = Session::settled();
        let ends = (client.0, server.0);
        let later = |ends, protocol, identification| {
            fragment(ends, protocol, identification, 32, false, &[0; 16])
        };
        let before = dropped(DropReason::FragmentBeforeFirst);
        assert_eq!(
            session.judge(anything, FROM_CLIENT, &later(ends, UDP, 9)),
            before
        );
        let first = fragment(ends, UDP, 9, 0, true, &datagram(client.1, server.1, 24));
        assert!(session.judge(outgoing, FROM_CLIENT, &first).is_ok());
        for other in [
            later(ends, UDP, 10),
            later(
                (
                    client.0,
                    end(
                        if client.0.is_ipv4() {
                            "10.0.0.11"
                        } else {
                            "fd00:1::11"
                        },
                        0,
                    )
                    .0,
                ),
                UDP,
                9,
            ),
        ] {
            assert_eq!(session.judge(anything, FROM_CLIENT, &other), before);
        }
        let back = later((server.0, client.0), UDP, 9);
        assert_eq!(session.judge(anything, TO_CLIENT, &back), before);
        assert!(
            session
                .judge(nothing, FROM_CLIENT, &later(ends, UDP, 9))
                .is_ok()
        );
        session.wait(30);
        assert_eq!(
            session.judge(anything, FROM_CLIENT, &later(ends, UDP, 9)),
            before
        );
    }
}

#[test]
fn a_fragment_does_not_outlive_the_permission_of_its_first() {
    for (client, server) in families() {
        let mut session = Session::settled();
        let ends = (client.0, server.0);
        let first = fragment(ends, UDP, 9, 0, true, &datagram(client.1, server.1, 24));
        assert!(session.judge(outgoing, FROM_CLIENT, &first).is_ok());
        session.table.filter_changed();
        let later = fragment(ends, UDP, 9, 32, false, &[0; 16]);
        let denied = Err(Refused::Denied(None));
        assert_eq!(session.judge(nothing, FROM_CLIENT, &later), denied);
        let gone = dropped(DropReason::NoFlow);
        assert_eq!(session.judge(anything, FROM_CLIENT, &later), gone);
    }
}

#[test]
fn what_a_flood_of_first_fragments_remembers_is_bounded() {
    let (client, server) = families()[0];
    let mut session = Session::settled();
    let ends = (client.0, server.0);
    for identification in 0..1000 {
        let first = fragment(
            ends,
            UDP,
            identification,
            0,
            true,
            &datagram(client.1, server.1, 0),
        );
        assert!(session.judge(outgoing, FROM_CLIENT, &first).is_ok());
    }
    let passed = (0..1000).filter(|&identification| {
        let later = fragment(ends, UDP, identification, 8, false, &[0; 16]);
        session.judge(outgoing, FROM_CLIENT, &later).is_ok()
    });
    assert_eq!(passed.count(), 64);
}

#[test]
fn extension_headers_hide_neither_ports_nor_fragments() {
    let (client, server) = families()[1];
    let mut session = Session::settled();
    let behind_options = |destination: u16| {
        // Hop-by-hop options, then destination options, then UDP.
        let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0, UDP, 0, 1, 4, 0, 0, 0, 0];
        payload.extend(datagram(client.1, destination, 8));
        ip(client.0, server.0, 0, &payload)
    };
    assert!(
        session
            .judge(https, FROM_CLIENT, &behind_options(443))
            .is_ok()
    );
    let denied = Err(Refused::Denied(None));
    assert_eq!(
        session.judge(https, FROM_CLIENT, &behind_options(22)),
        denied
    );
    // It is the flow it would be without them.
    assert!(
        session
            .judge(nothing, TO_CLIENT, &udp(server, client))
            .is_ok()
    );
    // A header that nobody knows is the protocol, and has no port to be allowed by.
    let mut payload = vec![UDP, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(datagram(client.1, 443, 8));
    let unknown = ip(client.0, server.0, 253, &payload);
    assert_eq!(session.judge(https, FROM_CLIENT, &unknown), denied);
    // More of them than any packet needs are no packet.
    let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
    payload[64] = UDP;
    payload.extend(datagram(client.1, 443, 8));
    assert!(IpPacket::parse(&ip(client.0, server.0, 60, &payload)).is_err());
}

#[test]
fn an_icmp_error_passes_for_a_packet_that_was_sent_and_for_no_other() {
    for (client, server) in families() {
        let router = if client.0.is_ipv4() {
            "192.0.2.1"
        } else {
            "2001:db8::1"
        };
        let router = router.parse().unwrap();
        let mut session = Session::settled();
        let sent = udp(client, server);
        assert!(session.judge(outgoing, FROM_CLIENT, &sent).is_ok());
        let mut judge = |error: Vec<u8>| session.judge(anything, TO_CLIENT, &error);
        assert_eq!(
            judge(unreachable(router, client.0, &sent)),
            Ok(Passage::Related)
        );
        let (other_client, other_server) = ((client.0, 50_001), (server.0, 444));
        for quote in [
            udp(other_client, server),
            udp(client, other_server),
            tcp(client, server, ACK),
            // An answer that never came.
            udp(server, client),
            fragment(
                (client.0, server.0),
                UDP,
                1,
                8,
                false,
                &datagram(client.1, server.1, 0),
            ),
            unreachable(client.0, server.0, &sent),
        ] {
            assert_eq!(judge(unreachable(router, client.0, &quote)), UNRELATED);
        }
        let header = sent.len() - 8;
        for length in 0..header + 4 {
            assert_eq!(
                judge(unreachable(router, client.0, &sent[..length])),
                UNRELATED,
                "{length}"
            );
        }
        let enough = unreachable(router, client.0, &sent[..header + 4]);
        assert_eq!(judge(enough), Ok(Passage::Related));
        // To somebody else than the sender of what it quotes.
        let neighbour = if client.0.is_ipv4() {
            "10.99.0.3"
        } else {
            "fd00:99::3"
        };
        assert_eq!(
            judge(unreachable(router, neighbour.parse().unwrap(), &sent)),
            UNRELATED
        );
    }
}

#[test]
fn a_client_may_report_errors_about_what_it_was_sent_and_nothing_else() {
    for (client, server) in families() {
        let mut session = Session::settled();
        assert!(
            session
                .judge(outgoing, FROM_CLIENT, &udp(client, server))
                .is_ok()
        );
        let answer = udp(server, client);
        let report = unreachable(client.0, server.0, &answer);
        assert_eq!(
            session.judge(anything, FROM_CLIENT, &report),
            UNRELATED,
            "not sent yet"
        );
        assert!(session.judge(outgoing, TO_CLIENT, &answer).is_ok());
        assert_eq!(
            session.judge(nothing, FROM_CLIENT, &report),
            Ok(Passage::Related)
        );
    }
}

#[test]
fn the_quote_of_a_ping_needs_its_identifier() {
    for (client, server) in families() {
        let mut session = Session::settled();
        let sent = echo(client.0, server.0, true, 7);
        assert!(session.judge(outgoing, FROM_CLIENT, &sent).is_ok());
        let header = sent.len() - 8;
        for (length, expected) in [
            (5, UNRELATED),
            (6, Ok(Passage::Related)),
            (8, Ok(Passage::Related)),
        ] {
            let error = unreachable(server.0, client.0, &sent[..header + length]);
            assert_eq!(
                session.judge(nothing, TO_CLIENT, &error),
                expected,
                "{length}"
            );
        }
        let other = unreachable(server.0, client.0, &echo(client.0, server.0, true, 8));
        assert_eq!(session.judge(anything, TO_CLIENT, &other), UNRELATED);
    }
}

#[test]
fn a_quote_behind_options_is_read_where_it_stands() {
    let (client, server) = families()[0];
    let mut session = Session::settled();
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &udp(client, server))
            .is_ok()
    );
    let mut quote = udp(client, server);
    quote[0] = 0x46;
    quote.splice(20..20, [1, 1, 1, 0]);
    let error = unreachable(server.0, client.0, &quote);
    assert_eq!(
        session.judge(nothing, TO_CLIENT, &error),
        Ok(Passage::Related)
    );
    let (client, server) = families()[1];
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &udp(client, server))
            .is_ok()
    );
    let mut payload = vec![UDP, 0, 1, 4, 0, 0, 0, 0];
    payload.extend(datagram(client.1, server.1, 0));
    let quote = ip(client.0, server.0, 60, &payload);
    let error = unreachable(server.0, client.0, &quote);
    assert_eq!(
        session.judge(nothing, TO_CLIENT, &error),
        Ok(Passage::Related)
    );
    let error = unreachable(server.0, client.0, &quote[..50]);
    assert_eq!(
        session.judge(nothing, TO_CLIENT, &error),
        UNRELATED,
        "cut before the ports"
    );
}

#[test]
fn a_session_that_floods_its_table_keeps_its_established_connections() {
    let (client, server) = families()[0];
    for scan in [udp as fn(End, End) -> Vec<u8>, |from, to| {
        tcp(from, to, SYN)
    }] {
        let mut session = Session::settled();
        let mut neighbour = Session::settled();
        for session in [&mut session, &mut neighbour] {
            for (direction, packet) in [
                (FROM_CLIENT, tcp(client, server, SYN)),
                (TO_CLIENT, tcp(server, client, SYN | ACK)),
                (FROM_CLIENT, tcp(client, server, ACK)),
            ] {
                assert!(session.judge(outgoing, direction, &packet).is_ok());
            }
        }
        for round in 0..4u16 {
            session.wait(1);
            for port in 1..=20_000 {
                let packet = scan((client.0, port), (server.0, round));
                assert!(session.judge(outgoing, FROM_CLIENT, &packet).is_ok());
            }
            assert_eq!(session.table.len(), 16_384, "and not one more");
            let data = tcp(server, client, ACK);
            assert!(
                session.judge(nothing, TO_CLIENT, &data).is_ok(),
                "round {round}"
            );
        }
        assert_eq!(neighbour.table.len(), 1, "nobody else feels it");
        assert!(
            neighbour
                .judge(nothing, TO_CLIENT, &tcp(server, client, ACK))
                .is_ok()
        );
    }
}

#[test]
fn a_full_table_of_answered_flows_loses_the_one_that_was_silent_for_longest() {
    let (client, server) = families()[0];
    let mut session = Session::settled();
    let end_of = |port: u16| (client.0, port);
    for port in 1..=16_384 {
        assert!(
            session
                .judge(outgoing, FROM_CLIENT, &udp(end_of(port), server))
                .is_ok()
        );
        assert!(
            session
                .judge(outgoing, TO_CLIENT, &udp(server, end_of(port)))
                .is_ok()
        );
    }
    session.wait(10);
    // Everybody but one speaks again.
    for port in (1..=16_384).filter(|&port| port != 777) {
        assert!(
            session
                .judge(nothing, TO_CLIENT, &udp(server, end_of(port)))
                .is_ok()
        );
    }
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &udp(end_of(20_000), server))
            .is_ok()
    );
    let denied = Err(Refused::Denied(None));
    assert_eq!(
        session.judge(nothing, TO_CLIENT, &udp(server, end_of(777))),
        denied
    );
    for port in [1, 776, 778, 16_384, 20_000] {
        assert!(
            session
                .judge(nothing, TO_CLIENT, &udp(server, end_of(port)))
                .is_ok(),
            "{port}"
        );
    }
}

#[test]
fn what_is_over_makes_room_before_what_waits_for_an_answer() {
    let (client, server) = families()[0];
    let mut session = Session::settled();
    let end_of = |port: u16| (client.0, port);
    for port in 1..=16_383 {
        assert!(
            session
                .judge(outgoing, FROM_CLIENT, &udp(end_of(port), server))
                .is_ok()
        );
    }
    // The youngest of all, and it was refused.
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &tcp(end_of(1), server, SYN))
            .is_ok()
    );
    assert!(
        session
            .judge(outgoing, TO_CLIENT, &tcp(server, end_of(1), packets::RST))
            .is_ok()
    );
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &udp(end_of(20_000), server))
            .is_ok()
    );
    let found = |protocol, port| session.flow(protocol, end_of(port), server);
    assert!(found(TCP, 1).is_none());
    assert!(found(UDP, 1).is_some());
}
