//! Certificates over the wire: for those who were invited and for those who have a session, and for nobody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_core::close::{Refusal, RefusalKind};
use adit_core::session::UserAgent;
use adit_core::session::certificate::Issued;
use adit_tunnel::tls::{self, Algorithms, ClientAuth, GatewayKey};
use adit_tunnel::{CertificateQuestion, ClientEvent, GatewayEvent, Standing};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use time::OffsetDateTime;

use super::POLICY;
use super::link::Conditions;
use super::packets;
use super::pki::Pki;
use super::world::{Calendar, GATEWAY, Revoked, START, World};

const SECOND: Duration = Duration::from_secs(1);
const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";

/// A gateway that takes clients without a certificate.
fn open_world(engines: u8) -> World {
    let mut world = World::new(POLICY, engines);
    world.client_auth = ClientAuth::Optional;
    world.restart_gateway();
    world
}

fn at(host: u16, port: u16) -> SocketAddr {
    let [high, low] = host.to_be_bytes();
    SocketAddr::from(([198, 19, high, low], port))
}

fn issued() -> Issued {
    Issued {
        certificate: "chain".repeat(2000),
        authorities: "root".into(),
        gateways: Vec::new(),
    }
}

fn is_question(event: &GatewayEvent) -> bool {
    matches!(event, GatewayEvent::CertificateAsked(_))
}

/// Waits for a question and takes it.
fn question(world: &mut World) -> CertificateQuestion {
    let asked = world.run_until(5 * SECOND, |world| {
        world.gateway_events.iter().any(is_question)
    });
    assert!(asked, "nobody asked");
    let at = world.gateway_events.iter().position(is_question).unwrap();
    match world.gateway_events.remove(at) {
        GatewayEvent::CertificateAsked(question) => *question,
        _ => unreachable!(),
    }
}

fn refusal_of(world: &World, newcomer: usize) -> RefusalKind {
    let outcome = world.newcomers[newcomer].outcome.as_ref();
    outcome.expect("no outcome").as_ref().unwrap_err().kind
}

fn who_was_invited_gets_a_certificate_and_is_gone(engines: u8) {
    let mut world = open_world(engines);
    let newcomer = world.add_newcomer(at(1, 5000), "secret");
    let asked = question(&mut world);
    assert!(matches!(&asked.standing, Standing::Invited(secret) if secret.expose() == "secret"));
    assert_eq!(asked.request, b"request");
    assert_eq!(asked.remote, at(1, 5000));
    let said = UserAgent::of_host("0.1.0", "linux", "laptop");
    assert_eq!(asked.user_agent, Some(said));
    world.gateway().answer(asked.ticket, Ok(Box::new(issued())));
    world.run_for(SECOND);
    assert_eq!(world.newcomers[newcomer].outcome, Some(Ok(issued())));
    world.run_for(10 * SECOND);
    let census = world.gateway().census();
    assert_eq!((census.connections, census.sessions), (0, 0));
    assert!(world.newcomers[newcomer].poll_timeout().is_none());
}

fn a_client_without_a_certificate_gets_no_tunnel(engines: u8) {
    for auth in [ClientAuth::Mandatory, ClientAuth::Optional] {
        let mut world = World::new(POLICY, engines);
        world.client_auth = auth;
        world.restart_gateway();
        let tls = world.pinned_tls();
        let client = world.add_client_speaking(tls, Conditions::CLEAN, 1);
        world.run_for(15 * SECOND);
        let refused = world.clients[client].events.iter().any(|event| {
            matches!(event, ClientEvent::Stopped(refusal)
                if refusal.kind == RefusalKind::CertificateRequired)
        });
        assert!(refused, "{auth:?}: {:?}", world.clients[client].events);
        let told = world.gateway_events.iter().any(|event| {
            matches!(event, GatewayEvent::Refused { holder: None, refusal, .. }
                if refusal.kind == RefusalKind::CertificateRequired)
        });
        assert!(told, "{auth:?}: {:?}", world.gateway_events);
        let census = world.gateway().census();
        assert_eq!((census.connections, census.sessions), (0, 0), "{auth:?}");
    }
}

fn without_enrolment_a_code_is_worth_nothing(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let newcomer = world.add_newcomer(at(1, 5000), "secret");
    world.run_for(5 * SECOND);
    assert_eq!(
        refusal_of(&world, newcomer),
        RefusalKind::CertificateRequired
    );
    assert!(!world.gateway_events.iter().any(is_question));
}

fn a_certificate_that_is_shown_must_be_a_good_one(engines: u8) {
    let mut world = open_world(engines);
    let credentials = Pki::stranger().client(ALICE);
    let client = world.add_client_with(credentials, Conditions::CLEAN, 1);
    world.run_for(5 * SECOND);
    let refused = world.clients[client].events.iter().any(|event| {
        matches!(event, ClientEvent::Stopped(refusal)
            if refusal.kind == RefusalKind::UnknownAuthority)
    });
    assert!(refused, "{:?}", world.clients[client].events);
    let [(_, address)] = world.connect([BOB]);
    assert!(address.is_ipv4(), "a good one opens the tunnel");
}

fn guesses_are_few_and_told(engines: u8) {
    let mut world = open_world(engines);
    for port in 0..5 {
        let newcomer = world.add_newcomer(at(1, 5000 + port), "guess");
        let asked = question(&mut world);
        let refusal = Refusal::new(RefusalKind::InvitationRefused, "");
        world.gateway().answer(asked.ticket, Err(refusal));
        world.run_for(SECOND);
        assert_eq!(refusal_of(&world, newcomer), RefusalKind::InvitationRefused);
    }
    let guesser = world.add_newcomer(at(1, 6000), "guess");
    world.run_for(SECOND);
    assert_eq!(refusal_of(&world, guesser), RefusalKind::TooManyGuesses);
    let told = |event: &GatewayEvent| matches!(event, GatewayEvent::GuessRefused { remote } if *remote == at(1, 6000));
    assert!(world.gateway_events.iter().any(told));
    assert!(!world.gateway_events.iter().any(is_question));
    // Another network does not feel it, and neither does this one a minute later.
    world.add_newcomer(at(2, 5000), "secret");
    let asked = question(&mut world);
    world.gateway().answer(asked.ticket, Ok(Box::new(issued())));
    world.run_for(60 * SECOND);
    world.add_newcomer(at(1, 7000), "secret");
    question(&mut world);
}

fn a_flood_of_strangers_keeps_nobody_out_who_has_a_certificate(engines: u8) {
    let mut world = open_world(engines);
    for host in 0..300 {
        world.add_newcomer(at(host, 5000), "secret");
        if host % 50 == 0 {
            // Fewer at once than handshakes would need a proof of their address.
            world.run_for(SECOND / 10);
        }
    }
    world.run_for(SECOND);
    let questions = world
        .gateway_events
        .iter()
        .filter(|event| is_question(event));
    assert_eq!(questions.count(), 256);
    let turned_away = (0..300).filter(|&newcomer| world.newcomers[newcomer].outcome.is_some());
    let turned_away: Vec<usize> = turned_away.collect();
    assert_eq!(turned_away.len(), 300 - 256);
    for newcomer in turned_away {
        assert_eq!(refusal_of(&world, newcomer), RefusalKind::IssuingFailed);
    }
    let [(_, address)] = world.connect([ALICE]);
    assert!(address.is_ipv4());
    // Who gets no answer is not kept.
    world.run_for(30 * SECOND);
    assert_eq!(world.gateway().census().connections, 1);
    for newcomer in 0..300 {
        assert!(world.newcomers[newcomer].outcome.is_some(), "{newcomer}");
    }
}

fn a_session_renews_its_certificate_while_packets_flow(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, a), (_, b)] = world.connect([ALICE, BOB]);
    let now = world.now;
    let office = "10.0.0.7".parse().unwrap();
    assert!(
        world.clients[alice]
            .engine
            .ask_certificate(now, b"request".to_vec())
    );
    assert!(
        !world.clients[alice]
            .engine
            .ask_certificate(now, b"again".to_vec())
    );
    let asked = question(&mut world);
    let Standing::Holds {
        identity,
        certificate,
    } = &asked.standing
    else {
        panic!("{asked:?}");
    };
    assert_eq!(identity.principal.as_str(), ALICE);
    let not_after = adit_core::identity::card(certificate).unwrap().not_after;
    assert_eq!(not_after, identity.not_after);
    assert_eq!(asked.request, b"request");
    for number in 0..10 {
        world.send_from_client(alice, &packets::udp(a, office, number, 100));
        world.send_from_office(&packets::udp(office, b, number, 100));
        world.run_for(SECOND / 100);
    }
    world.gateway().answer(asked.ticket, Ok(Box::new(issued())));
    world.run_for(SECOND);
    let got = |event: &ClientEvent| matches!(event, ClientEvent::Certificate(Ok(certificate)) if *certificate == issued());
    assert!(world.clients[alice].events.iter().any(got));
    assert_eq!(world.office.len(), 10);
    assert_eq!(world.gateway().census().sessions, 2);
    // And once more, on a later stream.
    let now = world.now;
    assert!(
        world.clients[alice]
            .engine
            .ask_certificate(now, b"next".to_vec())
    );
    let asked = question(&mut world);
    let refusal = Refusal::new(RefusalKind::CertificateRefused, "it asks for more");
    world.gateway().answer(asked.ticket, Err(refusal.clone()));
    world.run_for(SECOND);
    let refused = |event: &ClientEvent| matches!(event, ClientEvent::Certificate(Err(why)) if *why == refusal);
    assert!(world.clients[alice].events.iter().any(refused));
}

fn who_is_revoked_renews_nothing(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, _)] = world.connect([ALICE]);
    let now = world.now;
    assert!(
        world.clients[alice]
            .engine
            .ask_certificate(now, b"request".to_vec())
    );
    let asked = question(&mut world);
    let Standing::Holds { certificate, .. } = &asked.standing else {
        panic!("{asked:?}");
    };
    revoke(&mut world, certificate);
    let (now, renewal) = (world.now, world.renewal());
    world.gateway().reload(now, renewal);
    // The word of the authority comes too late.
    world.gateway().answer(asked.ticket, Ok(Box::new(issued())));
    world.run_for(SECOND);
    let events = &world.clients[alice].events;
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, ClientEvent::Certificate(Ok(_)))),
        "{events:?}"
    );
    let stopped = |event: &ClientEvent| matches!(event, ClientEvent::Stopped(refusal) if refusal.kind == RefusalKind::CertificateRevoked);
    assert!(events.iter().any(stopped), "{events:?}");
    let now = world.now;
    assert!(
        !world.clients[alice]
            .engine
            .ask_certificate(now, b"request".to_vec())
    );
    world.run_for(5 * SECOND);
    assert!(!world.gateway_events.iter().any(is_question));
}

/// The authority takes one certificate back.
fn revoke(world: &mut World, certificate: &[u8]) {
    let day =
        |days| OffsetDateTime::from_unix_timestamp(START).unwrap() + time::Duration::days(days);
    let rule = Pki::shared().rule();
    let serial = adit_core::identity::extract(certificate, &rule)
        .unwrap()
        .serial;
    let digits: String = serial.chars().filter(char::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect();
    let list = Pki::shared().list(&CertificateRevocationListParams {
        this_update: day(0),
        next_update: day(7),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(bytes),
            revocation_time: day(0),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    });
    world.revoked = Revoked {
        lists: vec![(list, Vec::new())],
        ..Revoked::default()
    };
}

fn another_key_than_the_one_of_the_code_is_told_nothing(engines: u8) {
    let mut world = open_world(engines);
    let key = GatewayKey::of_certificate(&Pki::stranger().gateway().chain[0]).unwrap();
    let tls = tls::enrolment_config(Algorithms::for_this_cpu(), key, Arc::new(Calendar)).unwrap();
    let newcomer =
        world.add_newcomer_with(at(1, 5000), "secret", tls, "vpn.example.com", &[GATEWAY]);
    world.run_for(SECOND);
    assert_eq!(refusal_of(&world, newcomer), RefusalKind::WrongGatewayKey);
    assert!(!world.gateway_events.iter().any(is_question));
}

fn a_wrong_name_or_clock_is_noticed_before_the_code_is_spent(engines: u8) {
    let mut world = open_world(engines);
    let pinned = world.pinned_tls();
    let mut cases = vec![(pinned, "other.example.com", RefusalKind::WrongServerName)];
    let key = GatewayKey::of_certificate(&world.issuer.gateway().chain[0]).unwrap();
    for (days, kind) in [
        (-2, RefusalKind::CertificateNotYetValid),
        (366, RefusalKind::CertificateExpired),
    ] {
        let clock = Arc::new(WrongClock(days));
        let tls = tls::enrolment_config(Algorithms::for_this_cpu(), key, clock).unwrap();
        cases.push((tls, "vpn.example.com", kind));
    }
    for (tls, name, kind) in cases {
        let newcomer = world.add_newcomer_with(at(1, 5000), "secret", tls, name, &[GATEWAY]);
        world.run_for(SECOND);
        assert_eq!(refusal_of(&world, newcomer), kind);
        world.newcomers.clear();
    }
    assert!(!world.gateway_events.iter().any(is_question));
}

fn addresses_are_tried_until_one_answers(engines: u8) {
    let mut world = open_world(engines);
    let tls = world.pinned_tls();
    let gateways = ["198.51.100.1:443", GATEWAY];
    let newcomer =
        world.add_newcomer_with(at(1, 5000), "secret", tls, "vpn.example.com", &gateways);
    world.run_for(5 * SECOND);
    let asked = question(&mut world);
    world.gateway().answer(asked.ticket, Ok(Box::new(issued())));
    world.run_for(SECOND);
    assert_eq!(world.newcomers[newcomer].outcome, Some(Ok(issued())));
}

fn where_nothing_answers_it_is_said_within_seconds(engines: u8) {
    let mut world = open_world(engines);
    let newcomer = world.add_newcomer(at(1, 5000), "secret");
    world.newcomers[newcomer].online = false;
    world.run_for(6 * SECOND);
    assert_eq!(refusal_of(&world, newcomer), RefusalKind::Unreachable);
    // The same where it stops in the middle.
    let newcomer = world.add_newcomer(at(1, 5001), "secret");
    question(&mut world);
    world.newcomers[newcomer].online = false;
    world.run_for(16 * SECOND);
    assert_eq!(refusal_of(&world, newcomer), RefusalKind::Unreachable);
}

fn an_answer_that_was_lost_is_asked_for_once_more(engines: u8) {
    let mut world = open_world(engines);
    let newcomer = world.add_newcomer(at(1, 5000), "secret");
    for _ in 0..2 {
        let asked = question(&mut world);
        assert_eq!(asked.request, b"request");
        assert_eq!(world.newcomers[newcomer].outcome, None);
        world.newcomers[newcomer].online = false;
        world.gateway().answer(asked.ticket, Ok(Box::new(issued())));
        world.run_for(9 * SECOND);
        world.newcomers[newcomer].online = true;
        world.run_for(SECOND);
    }
    world.run_for(6 * SECOND);
    assert_eq!(refusal_of(&world, newcomer), RefusalKind::Unreachable);
    // One that is lost once is heard at the second time.
    let newcomer = world.add_newcomer(at(1, 5001), "secret");
    let lost = question(&mut world);
    world.newcomers[newcomer].online = false;
    world.gateway().answer(lost.ticket, Ok(Box::new(issued())));
    world.run_for(9 * SECOND);
    world.newcomers[newcomer].online = true;
    world.run_for(SECOND);
    let asked = question(&mut world);
    world.gateway().answer(asked.ticket, Ok(Box::new(issued())));
    world.run_for(SECOND);
    assert_eq!(world.newcomers[newcomer].outcome, Some(Ok(issued())));
}

/// A clock that is so many days off.
#[derive(Debug)]
struct WrongClock(i64);

impl TimeProvider for WrongClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = START + self.0 * 86_400;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(
            now.unsigned_abs(),
        )))
    }
}

with_one_engine_and_with_three!(
    who_was_invited_gets_a_certificate_and_is_gone,
    a_client_without_a_certificate_gets_no_tunnel,
    without_enrolment_a_code_is_worth_nothing,
    a_certificate_that_is_shown_must_be_a_good_one,
    guesses_are_few_and_told,
    a_flood_of_strangers_keeps_nobody_out_who_has_a_certificate,
    a_session_renews_its_certificate_while_packets_flow,
    who_is_revoked_renews_nothing,
    another_key_than_the_one_of_the_code_is_told_nothing,
    a_wrong_name_or_clock_is_noticed_before_the_code_is_spent,
    addresses_are_tried_until_one_answers,
    where_nothing_answers_it_is_said_within_seconds,
    an_answer_that_was_lost_is_asked_for_once_more,
);
