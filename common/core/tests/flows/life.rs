//! How flows begin, live and end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use adit_core::dataplane::DropReason;
use adit_core::flow::{Passage, Phase, Refused, Totals, Volume};
use adit_core::identity::{Identity, Principal};
use adit_core::policy::{Decision, Direction, Filter, Flow, Policy, RuleId};
use adit_core::wire::ip::IpPacket;

use super::packets::{self, ACK, End, FIN, RST, SYN, TCP, UDP, echo, end, tcp, udp};
use super::{FROM_CLIENT, RULE, Session, TO_CLIENT, anything, nothing, outgoing};

fn laptop() -> End {
    end("10.99.0.2", 50_000)
}

fn server() -> End {
    end("10.0.0.10", 443)
}

const NO_FLOW: Refused = Refused::Drop(DropReason::NoFlow);
const DENIED: Refused = Refused::Denied(None);

/// Three segments, as every connection begins.
fn handshake(session: &mut Session, client: End, far: End) {
    for (direction, packet) in [
        (FROM_CLIENT, tcp(client, far, SYN)),
        (TO_CLIENT, tcp(far, client, SYN | ACK)),
        (FROM_CLIENT, tcp(client, far, ACK)),
    ] {
        assert!(session.judge(outgoing, direction, &packet).is_ok());
    }
}

#[test]
fn inside_may_answer_but_not_begin() {
    let mut session = Session::settled();
    let (question, answer) = (udp(laptop(), server()), udp(server(), laptop()));
    assert_eq!(session.judge(outgoing, TO_CLIENT, &answer), Err(DENIED));
    assert!(session.judge(outgoing, FROM_CLIENT, &question).is_ok());
    assert!(session.judge(outgoing, TO_CLIENT, &answer).is_ok());
    // Another port is another flow.
    let other = udp(server(), end("10.99.0.2", 50_001));
    assert_eq!(session.judge(outgoing, TO_CLIENT, &other), Err(DENIED));
    assert_eq!(session.table.len(), 1);
}

#[test]
fn the_policy_is_asked_about_the_first_packet_and_its_destination_port() {
    let mut session = Session::settled();
    let expect = |expected: Flow| {
        move |flow: &Flow| {
            assert_eq!(*flow, expected);
            Decision::Allow(RULE)
        }
    };
    let there = |direction, port, protocol| Flow {
        direction,
        inside: server().0,
        protocol,
        port,
    };
    let out = there(FROM_CLIENT, Some(443), UDP);
    assert!(
        session
            .judge(expect(out), FROM_CLIENT, &udp(laptop(), server()))
            .is_ok()
    );
    let other = end("10.99.0.2", 22);
    let back = there(TO_CLIENT, Some(22), TCP);
    assert!(
        session
            .judge(expect(back), TO_CLIENT, &tcp(server(), other, SYN))
            .is_ok()
    );
    let ping = there(FROM_CLIENT, None, 1);
    let request = echo(laptop().0, server().0, true, 7);
    assert!(session.judge(expect(ping), FROM_CLIENT, &request).is_ok());
    // What belongs to a flow is not asked about.
    let unasked = |_: &Flow| -> Decision { panic!("the policy is asked") };
    assert!(
        session
            .judge(unasked, TO_CLIENT, &udp(server(), laptop()))
            .is_ok()
    );
}

#[test]
fn a_connection_to_a_client_begins_with_a_syn_alone() {
    for flags in [ACK, SYN | ACK, FIN | ACK, FIN, 0, ACK | 8] {
        let mut session = Session::settled();
        let packet = tcp(server(), laptop(), flags);
        assert_eq!(
            session.judge(anything, TO_CLIENT, &packet),
            Err(NO_FLOW),
            "{flags}"
        );
        // Where the client has nothing to say, there is nothing to wait for.
        assert_eq!(
            session.judge(nothing, TO_CLIENT, &packet),
            Err(DENIED),
            "{flags}"
        );
    }
    let mut session = Session::settled();
    assert!(
        session
            .judge(anything, TO_CLIENT, &tcp(server(), laptop(), SYN))
            .is_ok()
    );
    assert!(
        session
            .judge(nothing, FROM_CLIENT, &tcp(laptop(), server(), SYN | ACK))
            .is_ok()
    );
}

#[test]
fn a_reset_begins_nothing_in_either_direction() {
    let mut session = Session::beginning();
    for flags in [RST, RST | ACK, RST | SYN] {
        let (out, back) = (
            tcp(laptop(), server(), flags),
            tcp(server(), laptop(), flags),
        );
        assert_eq!(session.judge(anything, FROM_CLIENT, &out), Err(NO_FLOW));
        assert_eq!(session.judge(anything, TO_CLIENT, &back), Err(NO_FLOW));
    }
    assert!(session.table.is_empty());
}

#[test]
fn a_connection_from_before_goes_on_with_the_clients_next_segment() {
    let mut session = Session::settled();
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &tcp(laptop(), server(), ACK))
            .is_ok()
    );
    assert!(
        session
            .judge(outgoing, TO_CLIENT, &tcp(server(), laptop(), ACK))
            .is_ok()
    );
}

#[test]
fn in_its_first_minutes_a_session_takes_connections_up_from_the_far_end_too() {
    let data = tcp(server(), laptop(), ACK);
    let mut session = Session::beginning();
    session.wait(119);
    assert_eq!(session.judge(nothing, TO_CLIENT, &data), Err(DENIED));
    assert!(session.judge(outgoing, TO_CLIENT, &data).is_ok());
    let flow = session.table.iter(session.now).next().unwrap();
    assert_eq!(flow.started_by, FROM_CLIENT, "it is the client's");
    // A SYN is no connection from before.
    let syn = tcp(server(), end("10.99.0.2", 22), SYN);
    assert_eq!(session.judge(outgoing, TO_CLIENT, &syn), Err(DENIED));
    session.wait(1);
    let other = tcp(server(), end("10.99.0.2", 50_001), ACK);
    assert_eq!(session.judge(outgoing, TO_CLIENT, &other), Err(NO_FLOW));
}

#[test]
fn every_phase_has_its_own_patience() {
    let phase = |session: &Session| {
        session
            .table
            .iter(session.now)
            .next()
            .map(|flow| flow.phase)
    };
    for (packets, expected, seconds) in [
        (
            vec![(FROM_CLIENT, tcp(laptop(), server(), SYN))],
            Phase::Opening,
            240,
        ),
        (
            vec![
                (FROM_CLIENT, tcp(laptop(), server(), SYN)),
                (TO_CLIENT, tcp(server(), laptop(), SYN | ACK)),
                (FROM_CLIENT, tcp(laptop(), server(), ACK)),
                (FROM_CLIENT, tcp(laptop(), server(), FIN | ACK)),
            ],
            Phase::Established,
            7440,
        ),
        (
            vec![
                (FROM_CLIENT, tcp(laptop(), server(), SYN)),
                (TO_CLIENT, tcp(server(), laptop(), FIN | ACK)),
                (FROM_CLIENT, tcp(laptop(), server(), FIN | ACK)),
            ],
            Phase::Closing,
            240,
        ),
        (
            vec![
                (FROM_CLIENT, tcp(laptop(), server(), SYN)),
                (TO_CLIENT, tcp(server(), laptop(), RST | ACK)),
            ],
            Phase::Closing,
            240,
        ),
        (
            vec![(FROM_CLIENT, udp(laptop(), server()))],
            Phase::Unanswered,
            60,
        ),
        (
            vec![
                (FROM_CLIENT, udp(laptop(), server())),
                (TO_CLIENT, udp(server(), laptop())),
            ],
            Phase::Answered,
            300,
        ),
        (
            vec![
                (FROM_CLIENT, echo(laptop().0, server().0, true, 7)),
                (TO_CLIENT, echo(server().0, laptop().0, false, 7)),
            ],
            Phase::Query,
            60,
        ),
    ] {
        let mut session = Session::settled();
        for (direction, packet) in packets {
            assert!(session.judge(outgoing, direction, &packet).is_ok());
        }
        assert_eq!(expected.timeout().as_secs(), seconds);
        session.wait(seconds - 1);
        assert_eq!(phase(&session), Some(expected));
        session.wait(1);
        assert_eq!(phase(&session), None, "{expected:?} is over");
    }
}

#[test]
fn every_packet_of_a_flow_keeps_it_alive() {
    let mut session = Session::settled();
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &udp(laptop(), server()))
            .is_ok()
    );
    for _ in 0..10 {
        session.wait(59);
        assert!(
            session
                .judge(nothing, TO_CLIENT, &udp(server(), laptop()))
                .is_ok()
        );
    }
}

#[test]
fn who_answers_a_connection_may_not_begin_another_under_its_name() {
    let mut session = Session::settled();
    handshake(&mut session, laptop(), server());
    let syn = tcp(server(), laptop(), SYN);
    assert_eq!(session.judge(outgoing, TO_CLIENT, &syn), Err(DENIED));
    // The connection itself goes on.
    assert!(
        session
            .judge(nothing, TO_CLIENT, &tcp(server(), laptop(), ACK))
            .is_ok()
    );
    // After its end as well, and the client may use the name again.
    for (direction, packet) in [
        (FROM_CLIENT, tcp(laptop(), server(), FIN | ACK)),
        (TO_CLIENT, tcp(server(), laptop(), FIN | ACK)),
        (FROM_CLIENT, tcp(laptop(), server(), ACK)),
    ] {
        assert!(session.judge(nothing, direction, &packet).is_ok());
    }
    assert_eq!(session.judge(outgoing, TO_CLIENT, &syn), Err(DENIED));
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &tcp(laptop(), server(), SYN))
            .is_ok()
    );
    let flow = session.table.iter(session.now).next().unwrap();
    assert_eq!((flow.phase, flow.from_client.packets), (Phase::Opening, 1));
}

#[test]
fn both_ends_may_open_a_connection_at_once() {
    let mut session = Session::settled();
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &tcp(laptop(), server(), SYN))
            .is_ok()
    );
    assert!(
        session
            .judge(nothing, TO_CLIENT, &tcp(server(), laptop(), SYN))
            .is_ok()
    );
}

#[test]
fn after_a_reload_each_flow_is_judged_once_more_as_its_first_packet_was() {
    let mut session = Session::settled();
    handshake(&mut session, laptop(), server());
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &udp(laptop(), server()))
            .is_ok()
    );
    let tcp_alone = |flow: &Flow| match (flow.direction, flow.protocol, flow.port) {
        (Direction::FromClient, TCP, Some(443)) => Decision::Allow(RuleId { index: 0, line: 1 }),
        _ => Decision::Deny(Some(RULE)),
    };
    let everywhere = |_: IpAddr| true;
    assert_eq!(
        session.table.denied_by(session.now, &tcp_alone, everywhere),
        1
    );
    assert_eq!(
        session.table.denied_by(session.now, &tcp_alone, |_| false),
        2
    );
    session.table.filter_changed();
    // The answer is judged as what it answers.
    assert!(
        session
            .judge(tcp_alone, TO_CLIENT, &tcp(server(), laptop(), ACK))
            .is_ok()
    );
    let unasked = |_: &Flow| -> Decision { panic!("asked again") };
    assert!(
        session
            .judge(unasked, FROM_CLIENT, &tcp(laptop(), server(), ACK))
            .is_ok()
    );
    let refused = Err(Refused::Denied(Some(RULE)));
    assert_eq!(
        session.judge(tcp_alone, TO_CLIENT, &udp(server(), laptop())),
        refused
    );
    assert_eq!(session.table.len(), 1);
    assert_eq!(
        session.table.denied_by(session.now, &tcp_alone, everywhere),
        0
    );
}

#[test]
fn traffic_is_counted_per_flow_and_per_rule_and_outlives_the_flow() {
    let mut session = Session::settled();
    let (question, answer) = (udp(laptop(), server()), udp(server(), laptop()));
    session.judge(outgoing, FROM_CLIENT, &question).unwrap();
    let passage = session.judge(outgoing, TO_CLIENT, &answer).unwrap();
    // A packet that becomes forty.
    session.table.count(passage, TO_CLIENT, 40, 56_000);
    let expected = (
        Volume {
            packets: 1,
            bytes: 28,
        },
        Volume {
            packets: 41,
            bytes: 56_028,
        },
    );
    let found = session.flow(UDP, laptop(), server()).unwrap();
    assert_eq!((found.from_client, found.to_client), expected);
    let totals = BTreeMap::from([(
        RULE,
        Totals {
            flows: 1,
            from_client: expected.0,
            to_client: expected.1,
        },
    )]);
    assert_eq!(session.table.totals_by_rule(), totals);
    session.wait(1000);
    session.table.expire(session.now);
    assert_eq!(session.flow(UDP, laptop(), server()), None);
    assert_eq!(session.table.totals_by_rule(), totals);
}

#[test]
fn what_rules_let_pass_is_handed_over_with_their_filter_and_a_flow_counts_once() {
    let mut session = Session::settled();
    let question = udp(laptop(), server());
    let other = RuleId { index: 7, line: 70 };
    let packets = |flows, packets| Totals {
        flows,
        from_client: Volume {
            packets,
            bytes: 28 * packets,
        },
        to_client: Volume::default(),
    };
    session.judge(outgoing, FROM_CLIENT, &question).unwrap();
    session.judge(outgoing, FROM_CLIENT, &question).unwrap();
    let handed_over = session.table.filter_changed();
    assert_eq!(handed_over, BTreeMap::from([(RULE, packets(1, 2))]));
    assert_eq!(session.table.totals_by_rule(), BTreeMap::new());
    let rule = |session: &Session| {
        let flow = session.table.iter(session.now).next().unwrap();
        (flow.rule, flow.from_client.packets)
    };
    assert_eq!(rule(&session), (None, 2));
    let allows = |_: &Flow| Decision::Allow(other);
    session.judge(allows, FROM_CLIENT, &question).unwrap();
    assert_eq!(rule(&session), (Some(other), 3));
    let handed_over = session.table.filter_changed();
    assert_eq!(handed_over, BTreeMap::from([(other, packets(0, 1))]));
    // Nothing is counted of what is judged no more.
    session.table.expire(session.now);
    assert_eq!(session.table.filter_changed(), BTreeMap::new());
}

#[test]
fn the_short_way_is_held_to_the_rate_and_another_filter_brings_another_rate() {
    let filter = |rate: &str| {
        let text = format!("[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n{rate}");
        let policy = Policy::parse(&text, "policy.toml").unwrap();
        policy.access(&identity(), 0).unwrap().filter
    };
    let mut session = Session::settled();
    let payload = packets::datagram(50_000, 443, 1004);
    let bytes = packets::ip(laptop().0, server().0, UDP, &payload);
    let packet = IpPacket::parse(&bytes).unwrap();
    let (now, direction) = (session.now, FROM_CLIENT);
    let passed = |session: &mut Session, filter: &Filter| {
        let passage = session
            .table
            .judge(now, filter, direction, &packet)
            .unwrap();
        let handle = session.table.last(direction).unwrap();
        let follows = (0..1000).filter(|_| session.table.follow(now, direction, handle, &packet));
        let follows = follows.count();
        let length = packet.bytes().len();
        let limit = session.table.limit(now, passage, direction, length);
        (follows, limit)
    };
    assert_eq!(passed(&mut session, &filter("")), (1000, Ok(())));
    let limited = Err(DropReason::RateLimited);
    session.table.filter_changed();
    assert_eq!(
        passed(&mut session, &filter("rate = \"8 kbit/s\"")),
        (64, limited)
    );
    assert_eq!(
        passed(&mut session, &filter("rate = \"8 kbit/s\"")),
        (0, limited)
    );
    session.table.filter_changed();
    assert_eq!(passed(&mut session, &filter("")), (1000, Ok(())));
}

fn identity() -> Identity {
    Identity {
        principal: Principal::parse("alice@example.com").unwrap(),
        groups: Vec::new(),
        authority: "test".to_owned(),
        serial: "01".to_owned(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

#[test]
fn who_asks_in_icmp_is_told_apart_from_who_answers() {
    let mut session = Session::settled();
    let (laptop, server) = (laptop().0, server().0);
    assert!(
        session
            .judge(outgoing, FROM_CLIENT, &echo(laptop, server, true, 7))
            .is_ok()
    );
    assert!(
        session
            .judge(outgoing, TO_CLIENT, &echo(server, laptop, false, 7))
            .is_ok()
    );
    assert_eq!(
        session.judge(outgoing, TO_CLIENT, &echo(server, laptop, false, 8)),
        Err(NO_FLOW)
    );
    assert_eq!(
        session.judge(outgoing, TO_CLIENT, &echo(server, laptop, true, 7)),
        Err(DENIED)
    );
    assert_eq!(
        session.judge(anything, FROM_CLIENT, &echo(laptop, server, false, 9)),
        Err(NO_FLOW)
    );
}

#[test]
fn the_next_packet_of_a_flow_needs_no_search_unless_something_changed() {
    let mut session = Session::settled();
    handshake(&mut session, laptop(), server());
    let handle = session.table.last(FROM_CLIENT).unwrap();
    let follows = |session: &mut Session, direction, bytes: &[u8]| {
        let packet = IpPacket::parse(bytes).unwrap();
        session
            .table
            .follow(session.now, direction, handle, &packet)
    };
    assert!(follows(
        &mut session,
        FROM_CLIENT,
        &tcp(laptop(), server(), ACK)
    ));
    let counted = session
        .table
        .iter(session.now)
        .next()
        .unwrap()
        .from_client
        .packets;
    assert_eq!(counted, 3);
    for flags in [SYN, SYN | ACK, RST] {
        assert!(!follows(
            &mut session,
            FROM_CLIENT,
            &tcp(laptop(), server(), flags)
        ));
    }
    assert!(!follows(
        &mut session,
        FROM_CLIENT,
        &tcp(laptop(), end("10.0.0.10", 80), ACK)
    ));
    assert!(!follows(
        &mut session,
        FROM_CLIENT,
        &udp(laptop(), server())
    ));
    session.table.filter_changed();
    assert!(!follows(
        &mut session,
        FROM_CLIENT,
        &tcp(laptop(), server(), ACK)
    ));
    session
        .judge(outgoing, FROM_CLIENT, &tcp(laptop(), server(), ACK))
        .unwrap();
    assert!(follows(
        &mut session,
        FROM_CLIENT,
        &tcp(laptop(), server(), FIN | ACK)
    ));
    assert!(follows(
        &mut session,
        TO_CLIENT,
        &tcp(server(), laptop(), FIN | ACK)
    ));
    let flow = session.table.iter(session.now).next().unwrap();
    assert_eq!(
        flow.phase,
        Phase::Closing,
        "ends are seen on the short way too"
    );
    session.wait(240);
    assert!(!follows(
        &mut session,
        FROM_CLIENT,
        &tcp(laptop(), server(), ACK)
    ));
}

#[test]
fn a_handle_of_a_flow_that_ended_names_nothing() {
    let mut session = Session::settled();
    let packet = udp(laptop(), server());
    session.judge(outgoing, FROM_CLIENT, &packet).unwrap();
    let old = session.table.last(FROM_CLIENT).unwrap();
    session.wait(60);
    session.judge(outgoing, FROM_CLIENT, &packet).unwrap();
    let parsed = IpPacket::parse(&packet).unwrap();
    assert!(!session.table.follow(session.now, FROM_CLIENT, old, &parsed));
    session
        .table
        .count(Passage::Flow(old), FROM_CLIENT, 1000, 1000);
    let flow = session.table.iter(session.now).next().unwrap();
    assert_eq!(flow.from_client.packets, 1);
}

#[test]
fn an_idle_session_holds_no_memory_and_flows_that_end_give_theirs_back() {
    let mut session = Session::settled();
    assert_eq!(session.table.capacity(), 0);
    for port in 1..=5000 {
        let packet = udp(end("10.99.0.2", port), server());
        session.judge(outgoing, FROM_CLIENT, &packet).unwrap();
    }
    assert!(session.table.capacity() >= 5000);
    session.wait(30);
    for port in 1..=100 {
        let packet = udp(end("10.99.0.2", port), server());
        session.judge(outgoing, FROM_CLIENT, &packet).unwrap();
    }
    session.wait(30);
    session.table.expire(session.now);
    assert_eq!(session.table.len(), 100);
    assert!(
        session.table.capacity() < 500,
        "{}",
        session.table.capacity()
    );
    for port in 1..=100 {
        let packet = udp(end("10.99.0.2", port), server());
        session.judge(outgoing, FROM_CLIENT, &packet).unwrap();
        let found = session.flow(UDP, end("10.99.0.2", port), server());
        assert_eq!(
            found.unwrap().from_client.packets,
            3,
            "whatever has moved is found"
        );
    }
    assert_eq!(session.table.len(), 100);
    session.wait(60);
    session.table.expire(session.now);
    assert!(session.table.is_empty());
    assert_eq!(session.table.capacity(), 0);
}

#[test]
fn an_icmp_error_does_not_keep_its_flow_alive() {
    let mut session = Session::settled();
    let packet = udp(laptop(), server());
    session.judge(outgoing, FROM_CLIENT, &packet).unwrap();
    session.wait(59);
    let error = packets::unreachable("192.0.2.1".parse().unwrap(), laptop().0, &packet);
    assert_eq!(
        session.judge(nothing, TO_CLIENT, &error),
        Ok(Passage::Related)
    );
    session.wait(1);
    let gone = Err(Refused::Drop(DropReason::UnrelatedError));
    assert_eq!(session.judge(nothing, TO_CLIENT, &error), gone);
}

#[test]
fn the_last_flow_is_that_of_the_last_packet_or_none() {
    let mut session = Session::settled();
    let first = udp(laptop(), server());
    session.judge(outgoing, FROM_CLIENT, &first).unwrap();
    let flow = session.table.last(FROM_CLIENT);
    assert!(flow.is_some());
    session
        .judge(outgoing, TO_CLIENT, &udp(server(), laptop()))
        .unwrap();
    assert_eq!(session.table.last(TO_CLIENT), flow);
    // Packets that are of no flow, and may go elsewhere than the last flow went.
    let error = packets::unreachable(laptop().0, server().0, &udp(server(), laptop()));
    assert_eq!(
        session.judge(outgoing, FROM_CLIENT, &error),
        Ok(Passage::Related)
    );
    assert_eq!(session.table.last(FROM_CLIENT), None);
    session.judge(outgoing, FROM_CLIENT, &first).unwrap();
    let redirect = packets::ip(laptop().0, server().0, 1, &[5; 8]);
    assert_eq!(
        session.judge(anything, FROM_CLIENT, &redirect),
        Ok(Passage::Single(RULE))
    );
    assert_eq!(session.table.last(FROM_CLIENT), None);
    session.judge(outgoing, FROM_CLIENT, &first).unwrap();
    assert!(
        session
            .judge(nothing, FROM_CLIENT, &udp(laptop(), end("8.8.8.8", 53)))
            .is_err()
    );
    assert_eq!(session.table.last(FROM_CLIENT), None);
}
