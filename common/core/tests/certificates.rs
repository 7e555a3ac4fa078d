//! Requests for certificates: the machines of both ends against each other, and each against an end that
//! does not keep the rules.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result)]

use std::time::{Duration, Instant};

use adit_core::close::{Refusal, RefusalKind};
use adit_core::h3::{ErrorCode, frame, qpack};
use adit_core::session::certificate::{CertificateAsk, Issued, MAX_REQUEST, Occasion, Secret};
use adit_core::session::client::{self, ClientControlConfig, ClientEvent};
use adit_core::session::enrolment::{self, EnrolmentConfig};
use adit_core::session::gateway::{self, GatewayControlConfig, GatewayEvent};
use adit_core::session::{Action, Assignment, UserAgent};
use proptest::prelude::*;

#[test]
fn who_is_invited_gets_what_the_gateway_issues() {
    for piece in [1, 7, usize::MAX] {
        let mut pair = Enrolling::new(enrolment_ask(b"request"));
        pair.drive(piece);
        let asked = GatewayEvent::CertificateAsked {
            stream: REQUEST,
            ask: enrolment_ask(b"request"),
        };
        assert_eq!(pair.gateway.poll_event(), Some(asked));
        pair.gateway.issue(REQUEST, &issued());
        pair.drive(piece);
        assert_eq!(pair.newcomer.poll_outcome(), Some(Ok(issued())));
        assert_eq!(pair.newcomer.poll_outcome(), None);
        assert_eq!(pair.newcomer.poll_timeout(), None);
    }
}

#[test]
fn who_is_not_reads_why() {
    let mut pair = Enrolling::new(enrolment_ask(b"request"));
    pair.drive(usize::MAX);
    let refusal = Refusal::new(RefusalKind::InvitationRefused, "");
    pair.gateway.refuse_certificate(REQUEST, &refusal);
    // A decision is made once.
    pair.gateway.issue(REQUEST, &issued());
    pair.drive(usize::MAX);
    assert_eq!(pair.newcomer.poll_outcome(), Some(Err(refusal)));
}

#[test]
fn a_certificate_is_renewed_within_the_session_which_goes_on() {
    let now = Instant::now();
    let mut gateway = gateway();
    let config = ClientControlConfig {
        user_agent: Some(laptop()),
        ..ClientControlConfig::new("vpn")
    };
    let mut client = client::Control::new(now, CLIENT_CONTROL, REQUEST, config);
    let ask = |client: &mut client::Control, stream| {
        client.ask_certificate(now, stream, b"request".to_vec())
    };
    assert!(!ask(&mut client, 4), "without a session");
    exchange(&mut client, &mut gateway);
    gateway.admit(&Assignment::default());
    exchange(&mut client, &mut gateway);
    assert!(ask(&mut client, 4));
    assert!(!ask(&mut client, 8), "a second one");
    exchange(&mut client, &mut gateway);
    let events: Vec<_> = std::iter::from_fn(|| gateway.poll_event()).collect();
    let asked = GatewayEvent::CertificateAsked {
        stream: 4,
        ask: CertificateAsk {
            occasion: Occasion::Renewal,
            request: b"request".to_vec(),
            user_agent: Some(laptop()),
        },
    };
    assert_eq!(events.last(), Some(&asked));
    gateway.issue(4, &issued());
    exchange(&mut client, &mut gateway);
    let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
    assert_eq!(events.last(), Some(&ClientEvent::Certificate(Ok(issued()))));
    assert!(client.established().is_some() && gateway.established().is_some());
    assert_eq!(
        (client.poll_timeout(), gateway.poll_timeout()),
        (None, None)
    );
}

#[test]
fn a_renewal_without_an_answer_ends_in_time_and_the_session_goes_on() {
    let mut gateway = gateway();
    let now = admitted(&mut gateway);
    post(&mut gateway, 4, RENEW, &[], &[b"request"], true);
    assert!(matches!(
        gateway.poll_event(),
        Some(GatewayEvent::CertificateAsked { stream: 4, .. })
    ));
    let due = gateway.poll_timeout().unwrap();
    assert!(due > now);
    gateway.handle_timeout(due);
    assert_eq!(answer(&mut gateway, 4), Ok(503));
    assert!(gateway.established().is_some());
    gateway.issue(4, &issued());
    assert_eq!(gateway.poll_action(), None, "too late");
    post(&mut gateway, 8, RENEW, &[], &[b"re"], false);
    gateway.handle_timeout(gateway.poll_timeout().unwrap());
    assert_eq!(answer(&mut gateway, 8), Ok(408));
}

#[test]
fn a_client_waits_for_a_renewal_only_so_long() {
    let now = Instant::now();
    let mut gateway = gateway();
    let mut client = client::Control::new(
        now,
        CLIENT_CONTROL,
        REQUEST,
        ClientControlConfig::new("vpn"),
    );
    exchange(&mut client, &mut gateway);
    gateway.admit(&Assignment::default());
    exchange(&mut client, &mut gateway);
    while client.poll_event().is_some() {}
    client.ask_certificate(now, 4, b"request".to_vec());
    client.handle_timeout(client.poll_timeout().unwrap());
    let Some(ClientEvent::Certificate(Err(refusal))) = client.poll_event() else {
        panic!("no outcome");
    };
    assert_eq!(refusal.kind, RefusalKind::Unreachable);
    assert!(client.established().is_some());
    assert!(
        client.ask_certificate(now, 8, b"request".to_vec()),
        "it may ask again"
    );
}

#[test]
fn each_wrong_request_has_its_status() {
    let token = ("authorization", "Bearer secret");
    let large = (MAX_REQUEST + 1).to_string();
    for (path, fields, status) in [
        (ENROLL, vec![], 401),
        (ENROLL, vec![("authorization", "Basic secret")], 401),
        (ENROLL, vec![("authorization", "Bearer a b")], 401),
        (ENROLL, vec![token, ("authorization", "Bearer other")], 401),
        (ENROLL, vec![token, ("content-length", &large)], 413),
        (
            ENROLL,
            vec![token, ("content-length", "99999999999999999999999")],
            413,
        ),
        (RENEW, vec![], 403),
        ("/.well-known/adit/other", vec![token], 404),
    ] {
        let mut gateway = gateway();
        post(&mut gateway, 0, path, &fields, &[], false);
        assert_eq!(answer(&mut gateway, 0), Ok(status), "{path} {fields:?}");
    }
    for (index, line, status) in [
        (0, (":method", "GET"), 405),
        (0, (":method", "HEAD"), 405),
        (0, (":method", "BREW"), 501),
        (1, (":scheme", "http"), 400),
        (4, ("content-type", "text/plain"), 415),
        (4, ("accept", "*/*"), 415),
    ] {
        let mut gateway = gateway();
        let mut fields = [&head(ENROLL)[..], &[token]].concat();
        fields[index] = line;
        gateway.handle_stream(Instant::now(), 0, &headers(&fields), false);
        assert_eq!(answer(&mut gateway, 0), Ok(status), "{line:?}");
    }
}

#[test]
fn an_empty_request_is_none() {
    let mut gateway = gateway();
    post(&mut gateway, 0, ENROLL, &[TOKEN], &[], true);
    assert_eq!(answer(&mut gateway, 0), Ok(400));
    assert_eq!(gateway.poll_event(), None);
}

#[test]
fn a_body_is_taken_up_to_its_limit_and_no_further() {
    let full = vec![7; MAX_REQUEST];
    let mut gateway = gateway();
    post(&mut gateway, 0, ENROLL, &[TOKEN], &[&full], true);
    assert!(matches!(
        gateway.poll_event(),
        Some(GatewayEvent::CertificateAsked { ask, .. }) if ask.request == full
    ));
    let mut gateway = self::gateway();
    post(&mut gateway, 0, ENROLL, &[TOKEN], &[&full, b"1"], true);
    assert_eq!(answer(&mut gateway, 0), Ok(413));
    assert_eq!(gateway.poll_event(), None);
}

#[test]
fn a_length_that_is_not_kept_or_not_a_number_is_malformed() {
    for length in ["3", "9", "", "+7", "0x7", "7, 7"] {
        let mut gateway = gateway();
        let fields = [TOKEN, ("content-length", length)];
        post(&mut gateway, 0, ENROLL, &fields, &[b"request"], true);
        assert_eq!(
            answer(&mut gateway, 0),
            Err(ErrorCode::Message.code()),
            "{length:?}"
        );
        assert_eq!(gateway.poll_event(), None);
    }
    let mut gateway = gateway();
    let twice = [TOKEN, ("content-length", "7"), ("content-length", "7")];
    post(&mut gateway, 0, ENROLL, &twice, &[b"request"], true);
    assert_eq!(answer(&mut gateway, 0), Err(ErrorCode::Message.code()));
}

#[test]
fn one_request_is_answered_at_a_time() {
    let mut gateway = gateway();
    post(&mut gateway, 0, ENROLL, &[TOKEN], &[b"request"], false);
    post(&mut gateway, 4, ENROLL, &[TOKEN], &[b"request"], true);
    assert_eq!(answer(&mut gateway, 4), Ok(429));
    gateway.handle_reset(Instant::now(), 0, 0x10c);
    while gateway.poll_action().is_some() {}
    post(&mut gateway, 8, ENROLL, &[TOKEN], &[b"request"], true);
    assert!(matches!(
        gateway.poll_event(),
        Some(GatewayEvent::CertificateAsked { stream: 8, .. })
    ));
}

#[test]
fn a_session_does_not_enrol_and_its_end_ends_its_renewal() {
    let mut gateway = gateway();
    admitted(&mut gateway);
    post(&mut gateway, 4, ENROLL, &[TOKEN], &[b"request"], true);
    assert_eq!(answer(&mut gateway, 4), Ok(409));
    post(&mut gateway, 8, RENEW, &[], &[b"request"], true);
    gateway.handle_stream(Instant::now(), 0, &[], true);
    let events: Vec<_> = std::iter::from_fn(|| gateway.poll_event()).collect();
    assert!(matches!(
        events[..],
        [
            GatewayEvent::CertificateAsked { stream: 8, .. },
            GatewayEvent::Ended { .. }
        ]
    ));
    while gateway.poll_action().is_some() {}
    gateway.issue(8, &issued());
    assert_eq!(gateway.poll_action(), None);
    post(&mut gateway, 12, RENEW, &[], &[b"request"], true);
    assert_eq!(answer(&mut gateway, 12), Ok(403));
}

#[test]
fn trailers_do_no_harm_and_nothing_follows_them() {
    let mut gateway = gateway();
    post(&mut gateway, 0, ENROLL, &[TOKEN], &[b"request"], false);
    let trailers = headers(&[("x", "y")]);
    gateway.handle_stream(Instant::now(), 0, &trailers, true);
    assert!(matches!(
        gateway.poll_event(),
        Some(GatewayEvent::CertificateAsked { .. })
    ));
    for more in [data(b"more"), trailers.clone()] {
        let mut gateway = self::gateway();
        post(&mut gateway, 0, ENROLL, &[TOKEN], &[b"request"], false);
        gateway.handle_stream(Instant::now(), 0, &trailers, false);
        gateway.handle_stream(Instant::now(), 0, &more, false);
        let closed = std::iter::from_fn(|| gateway.poll_action()).any(|action| {
            matches!(action, Action::Close { code, .. } if code == ErrorCode::FrameUnexpected.code())
        });
        assert!(closed, "{more:?}");
    }
}

#[test]
fn what_a_client_says_of_itself_counts_only_if_it_can_be_shown() {
    let long = "a".repeat(201);
    for (said, counts) in [
        ("adit/0.1.0 (linux; laptop-7)", true),
        ("a\tb", false),
        ("é", false),
        ("", false),
        (&long[..], false),
    ] {
        let mut gateway = gateway();
        let fields = [TOKEN, ("user-agent", said)];
        post(&mut gateway, 0, ENROLL, &fields, &[b"request"], true);
        let Some(GatewayEvent::CertificateAsked { ask, .. }) = gateway.poll_event() else {
            panic!("{said:?} was not asked");
        };
        let said = counts.then_some(said);
        assert_eq!(ask.user_agent.as_ref().map(UserAgent::as_str), said);
    }
}

#[test]
fn an_answer_that_is_no_certificate_is_not_taken_for_one() {
    let json = ("content-type", "application/json");
    let long = vec![b' '; 65 * 1024];
    let good = issued().encode();
    for (status, field, body, kind) in [
        (
            "200",
            ("content-type", "text/html"),
            &good[..],
            RefusalKind::ProtocolError,
        ),
        ("200", json, b"{}", RefusalKind::ProtocolError),
        ("200", json, b"", RefusalKind::ProtocolError),
        ("204", json, &good, RefusalKind::ProtocolError),
        ("200", json, &long, RefusalKind::ProtocolError),
        ("404", json, b"", RefusalKind::NotFound),
        ("502", json, b"", RefusalKind::Unreachable),
    ] {
        let mut newcomer = newcomer();
        let bytes = [headers(&[(":status", status), field]), data(body)].concat();
        newcomer.handle_stream(Instant::now(), REQUEST, &bytes, true);
        let outcome = newcomer.poll_outcome().unwrap();
        assert_eq!(outcome.unwrap_err().kind, kind, "{status} {field:?}");
        assert_eq!(newcomer.poll_outcome(), None);
    }
}

#[test]
fn a_gateway_that_does_not_answer_is_not_waited_for() {
    let mut newcomer = newcomer();
    newcomer.handle_stream(Instant::now(), REQUEST, &[], true);
    let refusal = newcomer.poll_outcome().unwrap().unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unreachable);

    let mut newcomer = self::newcomer();
    newcomer.handle_timeout(newcomer.poll_timeout().unwrap());
    let refusal = newcomer.poll_outcome().unwrap().unwrap_err();
    assert!(refusal.detail.contains("within 10 s"), "{refusal}");
    assert!(
        std::iter::from_fn(|| newcomer.poll_action()).any(|a| matches!(a, Action::Close { .. }))
    );

    let mut newcomer = self::newcomer();
    let mut bytes = vec![0];
    frame::encode(frame::SETTINGS, &[], &mut bytes);
    frame::encode_number(frame::GOAWAY, 0, &mut bytes);
    newcomer.handle_stream(Instant::now(), GATEWAY_CONTROL, &bytes, false);
    let refusal = newcomer.poll_outcome().unwrap().unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unreachable);
}

proptest! {
    #[test]
    fn a_request_does_not_depend_on_how_it_is_cut(
        request in prop::collection::vec(any::<u8>(), 1..600), piece in 1_usize..300,
    ) {
        let mut pair = Enrolling::new(enrolment_ask(&request));
        pair.drive(piece);
        let asked = GatewayEvent::CertificateAsked {
            stream: REQUEST,
            ask: enrolment_ask(&request),
        };
        prop_assert_eq!(pair.gateway.poll_event(), Some(asked));
    }
}

/// A laptop without a certificate, and a gateway.
struct Enrolling {
    newcomer: enrolment::Control,
    gateway: gateway::Control,
}

impl Enrolling {
    fn new(ask: CertificateAsk) -> Self {
        let config = EnrolmentConfig::new("vpn.example.com", ask);
        Self {
            newcomer: enrolment::Control::new(Instant::now(), CLIENT_CONTROL, REQUEST, &config),
            gateway: gateway(),
        }
    }

    /// Carries stream bytes across in pieces until both ends are silent.
    fn drive(&mut self, piece: usize) {
        let now = Instant::now();
        loop {
            let up: Vec<_> = std::iter::from_fn(|| self.newcomer.poll_action()).collect();
            let down: Vec<_> = std::iter::from_fn(|| self.gateway.poll_action()).collect();
            if up.is_empty() && down.is_empty() {
                return;
            }
            for (stream, bytes, fin) in pieces(up, piece) {
                self.gateway.handle_stream(now, stream, &bytes, fin);
            }
            for (stream, bytes, fin) in pieces(down, piece) {
                self.newcomer.handle_stream(now, stream, &bytes, fin);
            }
        }
    }
}

fn pieces(actions: Vec<Action>, piece: usize) -> Vec<(u64, Vec<u8>, bool)> {
    let mut out = Vec::new();
    for action in actions {
        let Action::Write { stream, bytes, fin } = action else {
            continue;
        };
        out.extend(
            bytes
                .chunks(piece)
                .map(|chunk| (stream, chunk.to_vec(), false)),
        );
        if fin {
            out.push((stream, Vec::new(), true));
        }
    }
    out
}

/// Carries stream bytes between a client and a gateway until both are silent.
fn exchange(client: &mut client::Control, gateway: &mut gateway::Control) {
    let now = Instant::now();
    loop {
        let up: Vec<_> = std::iter::from_fn(|| client.poll_action()).collect();
        let down: Vec<_> = std::iter::from_fn(|| gateway.poll_action()).collect();
        if up.is_empty() && down.is_empty() {
            return;
        }
        for (stream, bytes, fin) in pieces(up, usize::MAX) {
            gateway.handle_stream(now, stream, &bytes, fin);
        }
        for (stream, bytes, fin) in pieces(down, usize::MAX) {
            client.handle_stream(now, stream, &bytes, fin);
        }
    }
}

fn gateway() -> gateway::Control {
    gateway::Control::new(
        Instant::now(),
        GATEWAY_CONTROL,
        GatewayControlConfig::default(),
    )
}

fn newcomer() -> enrolment::Control {
    let config = EnrolmentConfig::new("vpn.example.com", enrolment_ask(b"request"));
    enrolment::Control::new(Instant::now(), CLIENT_CONTROL, REQUEST, &config)
}

/// Opens a tunnel on stream 0, and forgets what was said.
fn admitted(gateway: &mut gateway::Control) -> Instant {
    let now = Instant::now() + Duration::from_secs(1);
    let mut settings = vec![0];
    frame::encode(frame::SETTINGS, &[0x33, 1], &mut settings);
    gateway.handle_stream(now, CLIENT_CONTROL, &settings, false);
    let connect = headers(&[
        (":method", "CONNECT"),
        (":protocol", "connect-ip"),
        (":scheme", "https"),
        (":authority", "vpn.example.com"),
        (":path", "/.well-known/masque/ip/*/*/"),
    ]);
    gateway.handle_stream(now, REQUEST, &connect, false);
    gateway.admit(&Assignment::default());
    while gateway.poll_action().is_some() || gateway.poll_event().is_some() {}
    assert!(gateway.established().is_some());
    now
}

fn post(
    gateway: &mut gateway::Control,
    stream: u64,
    path: &str,
    fields: &[(&str, &str)],
    body: &[&[u8]],
    fin: bool,
) {
    let fields = [&head(path)[..], fields].concat();
    let now = Instant::now();
    gateway.handle_stream(now, stream, &headers(&fields), false);
    for piece in body {
        gateway.handle_stream(now, stream, &data(piece), false);
    }
    gateway.handle_stream(now, stream, &[], fin);
}

fn head(path: &str) -> [(&str, &str); 5] {
    [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "vpn.example.com"),
        (":path", path),
        ("content-type", "application/pkcs10"),
    ]
}

/// The status of the answer on a stream, or the code with which it was aborted.
fn answer(gateway: &mut gateway::Control, on: u64) -> Result<u16, u64> {
    let mut result = None;
    while let Some(action) = gateway.poll_action() {
        match action {
            Action::Write { stream, bytes, .. } if stream == on && result.is_none() => {
                let mut reader = frame::FrameReader::new(frame::Place::Response);
                if let Ok(Some(frame::Frame::Headers(section))) = reader.next(&mut &bytes[..]) {
                    let fields = qpack::decode(&section).unwrap();
                    let status = String::from_utf8(fields[0].value.clone()).unwrap();
                    result = Some(Ok(status.parse().unwrap()));
                }
            }
            Action::Reset { stream, code } if stream == on => result = Some(Err(code)),
            _ => {}
        }
    }
    result.unwrap()
}

fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(frame::HEADERS, &qpack::encode(fields), &mut out);
    out
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(frame::DATA, bytes, &mut out);
    out
}

fn enrolment_ask(request: &[u8]) -> CertificateAsk {
    CertificateAsk {
        occasion: Occasion::Enrolment(Secret::parse("secret").unwrap()),
        request: request.to_vec(),
        user_agent: Some(laptop()),
    }
}

fn laptop() -> UserAgent {
    UserAgent::of_host("0.1.0", "linux", "laptop")
}

fn issued() -> Issued {
    Issued {
        certificate: "chain".into(),
        authorities: "root".into(),
        gateways: vec!["vpn.example.com:443".into()],
    }
}

const ENROLL: &str = "/.well-known/adit/enroll";
const RENEW: &str = "/.well-known/adit/renew";
const TOKEN: (&str, &str) = ("authorization", "Bearer secret");
/// The client's first bidirectional stream and the first unidirectional stream of each.
const REQUEST: u64 = 0;
const CLIENT_CONTROL: u64 = 2;
const GATEWAY_CONTROL: u64 = 3;
