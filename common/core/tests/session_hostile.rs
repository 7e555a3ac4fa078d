//! Each control machine against a peer that does not keep the rules.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result)]

use std::time::Instant;

use adit_core::close::{Refusal, RefusalKind};
use adit_core::h3::{ErrorCode, frame, qpack};
use adit_core::session::client::{self, ClientControlConfig, ClientEvent};
use adit_core::session::gateway::{self, GatewayControlConfig, GatewayEvent, Scope};
use adit_core::session::{Action, Assignment};
use adit_core::wire::capsule::{Capsule, RequestedAddress};
use proptest::prelude::*;

#[test]
fn every_other_request_is_answered_with_its_status() {
    let tunnel = "/.well-known/masque/ip/*/*/";
    let plain = |method, path| {
        vec![
            (":method", method),
            (":scheme", "https"),
            (":authority", "v"),
            (":path", path),
        ]
    };
    for (fields, status) in [
        (plain("GET", "/"), 404),
        (plain("GET", tunnel), 405),
        (plain("HEAD", tunnel), 405),
        (plain("POST", tunnel), 405),
        (plain("BREW", tunnel), 501),
        (
            vec![(":method", "CONNECT"), (":authority", "example.com:443")],
            501,
        ),
        (with_field(":protocol", "connect-udp"), 501),
        (with_field(":protocol", "websocket"), 501),
        (with_field(":path", "/elsewhere"), 404),
        (
            with_field(":path", "/.well-known/masque/ip/10.0.0.1%2F8/*/"),
            400,
        ),
        (
            with_field(":path", "/.well-known/masque/ip/example.com/*/"),
            400,
        ),
        (with_field(":path", "/.well-known/masque/ip/*/300/"), 400),
        (with_field(":scheme", "http"), 400),
    ] {
        assert_eq!(
            answer_to(&mut fresh_gateway(), 0, &fields),
            Ok(status),
            "{fields:?}"
        );
    }
}

#[test]
fn a_malformed_request_is_a_message_error_and_the_connection_goes_on() {
    let mut gateway = fresh_gateway();
    let mut stream = 4;
    for fields in [
        CONNECT_IP[1..].to_vec(),
        CONNECT_IP[..3].to_vec(),
        [&CONNECT_IP[..], &[(":method", "CONNECT")]].concat(),
        with_field("Upper", "case"),
        with_field("connection", "upgrade"),
        with_field("content-length", "5"),
        with_field("content-type", "text/plain"),
        with_field(":authority", ""),
        with_field("x", "a\nb"),
    ] {
        let code = ErrorCode::Message.code();
        assert_eq!(
            answer_to(&mut gateway, stream, &fields),
            Err(code),
            "{fields:?}"
        );
        stream += 4;
    }
    gateway.handle_stream(Instant::now(), 0, &headers(&CONNECT_IP), false);
    assert!(matches!(
        gateway.poll_event(),
        Some(GatewayEvent::Requested { stream: 0, .. })
    ));
}

#[test]
fn the_capsule_protocol_field_is_not_required() {
    let with = |value| with_field("capsule-protocol", value);
    for fields in [CONNECT_IP[..5].to_vec(), with("?0"), with("garbage")] {
        let mut gateway = fresh_gateway();
        gateway.handle_stream(Instant::now(), 0, &headers(&fields), false);
        let event = gateway.poll_event();
        assert!(
            matches!(event, Some(GatewayEvent::Requested { .. })),
            "{fields:?}"
        );
    }
}

#[test]
fn a_request_waits_for_the_settings_and_is_refused_without_datagrams() {
    let now = Instant::now();
    for (settings, taken) in [(&[0x33, 1][..], true), (&[0x33, 0], false), (&[], false)] {
        let mut gateway = deaf_gateway();
        gateway.handle_stream(now, REQUEST, &headers(&CONNECT_IP), false);
        assert_eq!((gateway.poll_event(), gateway.poll_action()), (None, None));
        gateway.handle_stream(now, CLIENT_CONTROL, &control(settings), false);
        let requested = matches!(gateway.poll_event(), Some(GatewayEvent::Requested { .. }));
        assert_eq!(requested, taken, "{settings:?}");
        assert_eq!(gateway.poll_action().is_some(), !taken, "{settings:?}");

        // The other order.
        let mut gateway = deaf_gateway();
        gateway.handle_stream(now, CLIENT_CONTROL, &control(settings), false);
        if taken {
            gateway.handle_stream(now, REQUEST, &headers(&CONNECT_IP), false);
            assert!(gateway.poll_event().is_some());
        } else {
            assert_eq!(answer_to(&mut gateway, REQUEST, &CONNECT_IP), Ok(400));
            assert_eq!(gateway.poll_event(), None);
        }
    }
}

#[test]
fn a_request_that_was_aborted_before_the_settings_is_not_taken() {
    let now = Instant::now();
    let mut gateway = deaf_gateway();
    gateway.handle_stream(now, REQUEST, &headers(&CONNECT_IP), false);
    gateway.handle_reset(now, REQUEST, 9);
    assert!(matches!(
        gateway.poll_event(),
        Some(GatewayEvent::Ended { .. })
    ));
    gateway.handle_stream(now, CLIENT_CONTROL, &control(&[0x33, 1]), false);
    assert_eq!(gateway.poll_event(), None);
}

#[test]
fn a_scoped_request_says_so() {
    let mut gateway = fresh_gateway();
    let fields = with_field(":path", "/.well-known/masque/ip/10.0.0.0%2F8/6/");
    gateway.handle_stream(Instant::now(), 0, &headers(&fields), false);
    let Some(GatewayEvent::Requested { scope, .. }) = gateway.poll_event() else {
        panic!()
    };
    let target = Some("10.0.0.0/8".parse().unwrap());
    assert_eq!(
        scope,
        Scope {
            target,
            protocol: Some(6)
        }
    );
}

#[test]
fn a_second_request_is_refused_and_the_first_goes_on() {
    let mut gateway = open_gateway();
    assert_eq!(answer_to(&mut gateway, 4, &CONNECT_IP), Ok(409));
    assert_eq!(
        (gateway.established(), gateway.poll_event()),
        (Some(REQUEST), None)
    );

    let mut gateway = fresh_gateway();
    gateway.handle_stream(Instant::now(), REQUEST, &headers(&CONNECT_IP), false);
    assert_eq!(answer_to(&mut gateway, 4, &CONNECT_IP), Ok(409));
    gateway.refuse(&Refusal::new(RefusalKind::NoAccess, ""));
    while gateway.poll_action().is_some() {}
    while gateway.poll_event().is_some() {}
    gateway.handle_stream(Instant::now(), 8, &headers(&CONNECT_IP), false);
    assert!(matches!(
        gateway.poll_event(),
        Some(GatewayEvent::Requested { stream: 8, .. })
    ));
}

#[test]
fn a_malformed_capsule_aborts_the_request_and_ends_the_session() {
    let unordered = [
        3, 20, 4, 10, 0, 0, 1, 10, 0, 0, 1, 0, 4, 10, 0, 0, 0, 10, 0, 0, 0, 0,
    ];
    let cut = [1, 7, 0];
    for (capsule, fin, code) in [
        (&[2, 0][..], false, ErrorCode::Message),
        (&[1, 7, 0, 4, 10, 0, 0, 1, 24], false, ErrorCode::Message),
        (&[2, 7, 0, 4, 10, 0, 0, 1, 32], false, ErrorCode::Message),
        (&unordered, false, ErrorCode::Message),
        (&[1, 0x80, 1, 0, 1], false, ErrorCode::ExcessiveLoad),
        (&cut, true, ErrorCode::Message),
    ] {
        let mut gateway = open_gateway();
        gateway.handle_stream(Instant::now(), REQUEST, &data(capsule), fin);
        let (stream, code) = (REQUEST, code.code());
        assert_eq!(
            gateway.poll_action(),
            Some(Action::Reset { stream, code }),
            "{capsule:?}"
        );
        let stop = Action::StopSending { stream, code };
        assert_eq!(gateway.poll_action(), (!fin).then_some(stop));
        assert_eq!(gateway.poll_action(), None);
        assert!(matches!(
            gateway.poll_event(),
            Some(GatewayEvent::Ended { .. })
        ));
        assert_eq!((gateway.established(), gateway.poll_event()), (None, None));
    }
}

#[test]
fn a_violation_of_http3_closes_the_connection_and_ends_the_session() {
    let mut gateway = open_gateway();
    gateway.handle_stream(Instant::now(), REQUEST, &headers(&CONNECT_IP), false);
    let Some(Action::Close { code, .. }) = gateway.poll_action() else {
        panic!()
    };
    assert_eq!(code, ErrorCode::FrameUnexpected.code());
    assert!(matches!(
        gateway.poll_event(),
        Some(GatewayEvent::Ended { .. })
    ));
    gateway.handle_stream(Instant::now(), 4, &headers(&CONNECT_IP), false);
    gateway.assign(&Assignment::default());
    assert_eq!((gateway.poll_action(), gateway.poll_event()), (None, None));
}

#[test]
fn a_flood_of_address_requests_is_cut_off() {
    let mut gateway = open_gateway();
    let (mut written, mut ended) = (0, false);
    for id in 1..10_000 {
        let mut capsule = Vec::new();
        Capsule::AddressRequest(vec![RequestedAddress::any(id, false)]).encode(&mut capsule);
        gateway.handle_stream(Instant::now(), REQUEST, &data(&capsule), false);
        while let Some(action) = gateway.poll_action() {
            if let Action::Write { bytes, .. } = action {
                written += bytes.len();
            }
        }
        ended |= matches!(gateway.poll_event(), Some(GatewayEvent::Ended { .. }));
    }
    assert!(ended && written < 8192, "{written} bytes");
}

#[test]
fn a_thousand_requests_on_one_connection_do_not_disturb_the_tunnel() {
    let mut gateway = open_gateway();
    let get = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "v"),
        (":path", "/"),
    ];
    for stream in (4..4004).step_by(4) {
        assert_eq!(answer_to(&mut gateway, stream, &get), Ok(404));
    }
    assert_eq!(gateway.established(), Some(REQUEST));
}

#[test]
fn a_client_refuses_gateways_that_are_none() {
    for settings in [&[][..], &[0x08, 1], &[0x33, 1]] {
        let mut client = fresh_client();
        client.handle_stream(Instant::now(), GATEWAY_CONTROL, &control(settings), false);
        let Some(ClientEvent::Refused(refusal)) = client.poll_event() else {
            panic!()
        };
        assert_eq!(refusal.kind, RefusalKind::NotConnectIp);
        assert_eq!(client.poll_action(), None);
    }
    for (status, kind) in [
        ("204", RefusalKind::NotConnectIp),
        ("302", RefusalKind::NotConnectIp),
        ("404", RefusalKind::NotFound),
        ("503", RefusalKind::Unreachable),
    ] {
        let mut client = fresh_client();
        client.handle_stream(
            Instant::now(),
            GATEWAY_CONTROL,
            &control(&[0x08, 1, 0x33, 1]),
            false,
        );
        let answer = [
            headers(&[(":status", "103")]),
            headers(&[(":status", status)]),
        ]
        .concat();
        client.handle_stream(Instant::now(), REQUEST, &answer, true);
        let Some(ClientEvent::Refused(refusal)) = client.poll_event() else {
            panic!("{status}")
        };
        assert_eq!(refusal.kind, kind);
        assert_eq!((client.established(), client.poll_event()), (None, None));
    }
}

#[test]
fn a_refusal_whose_body_never_ends_is_a_refusal_at_the_deadline() {
    let mut client = fresh_client();
    client.handle_stream(
        Instant::now(),
        GATEWAY_CONTROL,
        &control(&[0x08, 1, 0x33, 1]),
        false,
    );
    client.handle_stream(
        Instant::now(),
        REQUEST,
        &headers(&[(":status", "403")]),
        false,
    );
    for _ in 0..1000 {
        client.handle_stream(Instant::now(), REQUEST, &data(&[b'x'; 1000]), false);
    }
    client.handle_timeout(client.poll_timeout().unwrap());
    let Some(ClientEvent::Refused(refusal)) = client.poll_event() else {
        panic!()
    };
    assert_eq!(refusal.kind, RefusalKind::NoAccess);
    assert_eq!(client.poll_event(), None);
}

proptest! {
    #[test]
    fn nothing_a_peer_sends_panics_or_goes_on_after_the_end(
        inputs in prop::collection::vec(
            (prop::sample::select(vec![0_u64, 0, 0, 2, 3, 4, 6, 7, 1]), any_piece(), 0_u8..12), 0..30,
        )
    ) {
        let now = Instant::now();
        let (mut gateway, mut client) = (deaf_gateway(), fresh_client());
        let (mut gateway_over, mut client_over) = (0, 0);
        for (stream, bytes, how) in inputs {
            match how {
                0 => {
                    gateway.handle_reset(now, stream, 9);
                    client.handle_reset(now, stream, 9);
                }
                1 => {
                    gateway.handle_stopped(now, stream, 9);
                    client.handle_stopped(now, stream, 9);
                }
                _ => {
                    gateway.handle_stream(now, stream, &bytes, how == 2);
                    client.handle_stream(now, stream, &bytes, how == 2);
                }
            }
            while let Some(event) = gateway.poll_event() {
                match event {
                    GatewayEvent::Requested { .. } if how % 3 == 0 => {
                        gateway.refuse(&Refusal::new(RefusalKind::NoAccess, ""));
                    }
                    GatewayEvent::Requested { .. } => gateway.admit(&Assignment::default()),
                    GatewayEvent::Ended { .. } => gateway_over += 1,
                    _ => {}
                }
            }
            while let Some(event) = client.poll_event() {
                if matches!(event, ClientEvent::Refused(_) | ClientEvent::Ended { .. }) {
                    client_over += 1;
                }
            }
            while gateway.poll_action().is_some() {}
            while client.poll_action().is_some() {}
        }
        prop_assert!(gateway_over <= 1 && client_over <= 1);
        prop_assert!(gateway_over == 0 || gateway.established().is_none());
        prop_assert!(client_over == 0 || client.established().is_none());
    }
}

/// Mostly well-formed pieces, in an order that makes no sense.
fn any_piece() -> impl Strategy<Value = Vec<u8>> {
    let random = prop::collection::vec(any::<u8>(), 0..30);
    prop_oneof![
        Just(headers(&CONNECT_IP)),
        Just(headers(&[(":status", "200")])),
        Just(headers(&[(":status", "403")])),
        Just(control(&[0x08, 1, 0x33, 1])),
        Just(data(&[2, 7, 1, 4, 0, 0, 0, 0, 32])),
        Just(data(&[1, 7, 0, 4, 10, 0, 0, 1, 32])),
        random.clone().prop_map(|bytes| data(&bytes)),
        random,
    ]
}

/// A gateway that has heard nothing.
fn deaf_gateway() -> gateway::Control {
    let config = GatewayControlConfig::default();
    let mut gateway = gateway::Control::new(Instant::now(), GATEWAY_CONTROL, config);
    while gateway.poll_action().is_some() {}
    gateway
}

/// A gateway that knows the client takes datagrams.
fn fresh_gateway() -> gateway::Control {
    let mut gateway = deaf_gateway();
    let settings = control(&[0x33, 1]);
    gateway.handle_stream(Instant::now(), CLIENT_CONTROL, &settings, false);
    gateway
}

fn open_gateway() -> gateway::Control {
    let mut gateway = fresh_gateway();
    gateway.handle_stream(Instant::now(), REQUEST, &headers(&CONNECT_IP), false);
    let addresses = vec!["10.99.0.7/32".parse().unwrap()];
    gateway.admit(&Assignment {
        addresses,
        ..Assignment::default()
    });
    while gateway.poll_action().is_some() {}
    while gateway.poll_event().is_some() {}
    gateway
}

fn fresh_client() -> client::Control {
    let config = ClientControlConfig::new("vpn.example.com");
    let mut client = client::Control::new(Instant::now(), 2, REQUEST, config);
    while client.poll_action().is_some() {}
    client
}

/// The status that the gateway answers a request with, or the code it aborts the stream with.
fn answer_to(
    gateway: &mut gateway::Control,
    stream: u64,
    fields: &[(&str, &str)],
) -> Result<u16, u64> {
    gateway.handle_stream(Instant::now(), stream, &headers(fields), false);
    let mut frames = frame::FrameReader::new(frame::Place::Response);
    let (mut status, mut ended) = (None, false);
    while let Some(action) = gateway.poll_action() {
        match action {
            Action::Write {
                stream: on,
                bytes,
                fin,
            } if on == stream => {
                let mut input = &bytes[..];
                while let Some(frame) = frames.next(&mut input).unwrap() {
                    if let frame::Frame::Headers(section) = frame {
                        let first = qpack::decode(&section).unwrap().remove(0);
                        assert_eq!(first.name, b":status");
                        status = String::from_utf8(first.value).unwrap().parse().ok();
                    }
                }
                ended |= fin;
            }
            Action::Reset { stream: on, code } if on == stream => {
                while gateway.poll_action().is_some() {}
                return Err(code);
            }
            Action::StopSending { stream: on, code } if on == stream && ended => {
                assert_eq!(code, ErrorCode::NoError.code());
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(ended);
    Ok(status.unwrap())
}

fn control(settings: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    frame::encode(frame::SETTINGS, settings, &mut out);
    out
}

fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(frame::HEADERS, &qpack::encode(fields), &mut out);
    out
}

fn data(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(frame::DATA, payload, &mut out);
    out
}

fn with_field(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut fields = CONNECT_IP.to_vec();
    match fields.iter_mut().find(|field| field.0 == name) {
        Some(field) => field.1 = value,
        None => fields.push((name, value)),
    }
    fields
}

const CONNECT_IP: [(&str, &str); 6] = [
    (":method", "CONNECT"),
    (":protocol", "connect-ip"),
    (":scheme", "https"),
    (":authority", "vpn.example.com"),
    (":path", "/.well-known/masque/ip/*/*/"),
    ("capsule-protocol", "?1"),
];

const REQUEST: u64 = 0;
const CLIENT_CONTROL: u64 = 2;
const GATEWAY_CONTROL: u64 = 3;
