use proptest::prelude::*;

use super::*;

/// A stream, its bytes, and whether it ends.
type Input<'a> = (u64, &'a [u8], bool);

fn connection(role: Role) -> Connection {
    let mut connection = Connection::new(
        role,
        3,
        Settings {
            extended_connect: true,
            datagrams: true,
        },
    );
    while connection.poll_action().is_some() {}
    connection
}

fn settings() -> Vec<u8> {
    let mut bytes = vec![0x00];
    frame::encode(frame::SETTINGS, &[0x33, 1], &mut bytes);
    bytes
}

fn headers() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(
        frame::HEADERS,
        &qpack::encode(&[(":method", "GET")]),
        &mut bytes,
    );
    bytes
}

fn frame_bytes(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(kind, payload, &mut bytes);
    bytes
}

fn close_code(connection: &mut Connection) -> Option<u64> {
    std::iter::from_fn(|| connection.poll_action()).find_map(|action| match action {
        Action::Close { code, .. } => Some(code),
        _ => None,
    })
}

/// Feeds streams to a fresh connection and returns the code it closes with.
fn verdict(role: Role, streams: &[Input<'_>]) -> Option<u64> {
    let mut connection = connection(role);
    for (stream, bytes, fin) in streams {
        connection.handle_stream(*stream, bytes, *fin);
    }
    close_code(&mut connection)
}

#[test]
fn we_begin_with_our_settings() {
    let ours = Settings {
        extended_connect: true,
        datagrams: true,
    };
    let mut connection = Connection::new(Role::Gateway, 3, ours);
    let Some(Action::Write {
        stream: 3,
        bytes,
        fin: false,
    }) = connection.poll_action()
    else {
        panic!("no SETTINGS");
    };
    assert_eq!(bytes[0], 0x00);
    let mut reader = FrameReader::new(Place::Control);
    let Ok(Some(Frame::Settings(payload))) = reader.next(&mut &bytes[1..]) else {
        panic!("no frame")
    };
    assert_eq!(Settings::parse(&payload), Ok(ours));
}

#[test]
fn a_gateway_names_each_violation_on_unidirectional_streams() {
    let goaway_grows = [settings(), vec![0x07, 1, 4], vec![0x07, 1, 8]].concat();
    let push_shrinks = [settings(), vec![0x0d, 1, 4], vec![0x0d, 1, 3]].concat();
    let cancel = [settings(), vec![0x03, 1, 0]].concat();
    let twice = [settings(), settings()[1..].to_vec()].concat();
    let http2 = [&[0x00][..], &frame_bytes(frame::SETTINGS, &[0x04, 1])].concat();
    let duplicate = [
        &[0x00][..],
        &frame_bytes(frame::SETTINGS, &[0x33, 1, 0x33, 1]),
    ]
    .concat();
    let cases: [(&[Input<'_>], ErrorCode); 16] = [
        (
            &[(2, b"\x00\x07\x01\x00", false)],
            ErrorCode::MissingSettings,
        ),
        (
            &[(2, &settings(), false), (6, &settings(), false)],
            ErrorCode::StreamCreation,
        ),
        (
            &[(2, b"\x02", false), (6, b"\x02", false)],
            ErrorCode::StreamCreation,
        ),
        (
            &[(2, b"\x03", false), (6, b"\x03", false)],
            ErrorCode::StreamCreation,
        ),
        (&[(2, &settings(), true)], ErrorCode::ClosedCriticalStream),
        (&[(2, b"\x00", true)], ErrorCode::ClosedCriticalStream),
        (&[(2, b"\x02", true)], ErrorCode::ClosedCriticalStream),
        (&[(2, b"\x01\x00", false)], ErrorCode::StreamCreation),
        (&[(2, b"\x02\x80", false)], ErrorCode::QpackEncoderStream),
        (&[(2, b"\x03\x80", false)], ErrorCode::QpackDecoderStream),
        (&[(2, &goaway_grows, false)], ErrorCode::Id),
        (&[(2, &push_shrinks, false)], ErrorCode::Id),
        (&[(2, &cancel, false)], ErrorCode::Id),
        (&[(2, &twice, false)], ErrorCode::FrameUnexpected),
        (&[(2, &http2, false)], ErrorCode::Settings),
        (&[(2, &duplicate, false)], ErrorCode::Settings),
    ];
    for (streams, code) in cases {
        assert_eq!(
            verdict(Role::Gateway, streams),
            Some(code.code()),
            "{streams:?}"
        );
    }
}

#[test]
fn a_gateway_names_each_violation_on_request_streams() {
    let mut connect = Vec::new();
    let section = qpack::encode(&[(":method", "CONNECT")]);
    frame::encode(frame::HEADERS, &section, &mut connect);
    let twice = [connect.clone(), connect].concat();
    let thrice = [headers(), headers(), headers()].concat();
    let behind_trailers = [headers(), headers(), frame_bytes(frame::DATA, b"x")].concat();
    let cut = &headers()[..3];
    let dynamic = frame_bytes(frame::HEADERS, b"\x00\x00\x80");
    let cases: [(&[u8], bool, ErrorCode); 8] = [
        (&twice, false, ErrorCode::FrameUnexpected),
        (&thrice, false, ErrorCode::FrameUnexpected),
        (&behind_trailers, false, ErrorCode::FrameUnexpected),
        (b"\x00\x01x", false, ErrorCode::FrameUnexpected),
        (b"\x04\x00", false, ErrorCode::FrameUnexpected),
        (b"\x05\x00", false, ErrorCode::FrameUnexpected),
        (cut, true, ErrorCode::Frame),
        (&dynamic, false, ErrorCode::QpackDecompressionFailed),
    ];
    for (bytes, fin, code) in cases {
        assert_eq!(
            verdict(Role::Gateway, &[(0, bytes, fin)]),
            Some(code.code()),
            "{bytes:?}"
        );
    }
}

#[test]
fn a_client_names_each_violation() {
    let goaway_odd = [settings(), vec![0x07, 1, 1]].concat();
    let push_id = [settings(), vec![0x0d, 1, 1]].concat();
    let cases: [(u64, &[u8], ErrorCode); 5] = [
        (3, b"\x01\x00", ErrorCode::Id),
        (1, b"\x00", ErrorCode::StreamCreation),
        (3, &goaway_odd, ErrorCode::Id),
        (3, &push_id, ErrorCode::FrameUnexpected),
        (0, b"\x05\x01\x00", ErrorCode::Id),
    ];
    for (stream, bytes, code) in cases {
        let mut connection = connection(Role::Client);
        connection.open_request(0);
        connection.handle_stream(stream, bytes, false);
        assert_eq!(close_code(&mut connection), Some(code.code()), "{bytes:?}");
    }
}

#[test]
fn unknown_streams_frames_and_settings_do_no_harm() {
    let mut connection = connection(Role::Gateway);
    connection.handle_stream(2, &settings(), false);
    connection.handle_stream(2, &frame_bytes(0x21, b"grease"), false);
    for stream in (6..4006).step_by(4) {
        connection.handle_stream(stream, b"\x40\x21grease", false);
        // Bytes that were on their way are not the type of a new stream.
        connection.handle_stream(stream, b"\x00\x01", true);
        let code = ErrorCode::StreamCreation.code();
        assert_eq!(
            connection.poll_action(),
            Some(Action::StopSending { stream, code })
        );
        assert_eq!(connection.poll_action(), None);
    }
    assert!(connection.unidirectional.len() == 1 && connection.ended.len() <= REMEMBERED_STREAMS);
    assert!(
        connection
            .peer_settings()
            .is_some_and(|settings| settings.datagrams)
    );
}

#[test]
fn a_stream_that_ends_before_its_type_is_nothing() {
    assert_eq!(
        verdict(Role::Gateway, &[(2, b"\x40", true), (6, b"", true)]),
        None
    );
    let untyped: Vec<Input<'_>> = (0..40).map(|n| (2 + 4 * n, &b"\x40"[..], false)).collect();
    assert_eq!(
        verdict(Role::Gateway, &untyped),
        Some(ErrorCode::ExcessiveLoad.code())
    );
}

#[test]
fn resets_of_critical_streams_close_and_others_end() {
    let mut gateway = connection(Role::Gateway);
    gateway.handle_stream(2, &settings(), false);
    gateway.handle_reset(2, 7);
    assert_eq!(
        close_code(&mut gateway),
        Some(ErrorCode::ClosedCriticalStream.code())
    );
    let mut gateway = connection(Role::Gateway);
    gateway.handle_stopped(3, 7);
    assert_eq!(
        close_code(&mut gateway),
        Some(ErrorCode::ClosedCriticalStream.code())
    );
    let mut gateway = connection(Role::Gateway);
    gateway.handle_stream(0, &headers(), false);
    gateway.handle_reset(0, 7);
    assert!(matches!(gateway.poll_event(), Some(Event::Headers { .. })));
    assert_eq!(
        gateway.poll_event(),
        Some(Event::Aborted { stream: 0, code: 7 })
    );
    assert_eq!(close_code(&mut gateway), None);
}

#[test]
fn a_request_without_headers_is_incomplete() {
    let mut gateway = connection(Role::Gateway);
    gateway.handle_stream(0, &frame_bytes(0x21, b"grease"), true);
    let code = ErrorCode::RequestIncomplete.code();
    assert_eq!(
        gateway.poll_action(),
        Some(Action::Reset { stream: 0, code })
    );
    assert_eq!(gateway.poll_action(), None);
    assert!(gateway.requests.is_empty());
}

#[test]
fn finished_streams_are_forgotten_and_too_many_open_ones_rejected() {
    let mut gateway = connection(Role::Gateway);
    for stream in (0..4000).step_by(4) {
        gateway.handle_stream(stream, &headers(), true);
        gateway.write_headers(stream, &[(":status", "404")], true);
    }
    assert!(gateway.requests.is_empty());
    let open = MAX_REQUESTS as u64 + 5;
    for n in 0..open {
        gateway.handle_stream(4000 + 4 * n, &headers(), false);
    }
    assert_eq!(gateway.requests.len(), MAX_REQUESTS);
    let code = ErrorCode::RequestRejected.code();
    let rejected = std::iter::from_fn(|| gateway.poll_action())
        .filter(|action| matches!(action, Action::Reset { code: c, .. } if *c == code))
        .count();
    assert_eq!(rejected, 5);
}

#[test]
fn after_going_away_new_requests_are_rejected_and_old_ones_go_on() {
    let mut gateway = connection(Role::Gateway);
    gateway.handle_stream(0, &headers(), false);
    gateway.go_away();
    gateway.go_away();
    let bytes = vec![0x07, 1, 4];
    assert_eq!(
        gateway.poll_action(),
        Some(Action::Write {
            stream: 3,
            bytes,
            fin: false
        })
    );
    gateway.handle_stream(4, &headers(), false);
    let code = ErrorCode::RequestRejected.code();
    assert_eq!(
        gateway.poll_action(),
        Some(Action::Reset { stream: 4, code })
    );
    assert_eq!(
        gateway.poll_action(),
        Some(Action::StopSending { stream: 4, code })
    );
    assert_eq!(gateway.poll_action(), None);
    gateway.write_data(0, b"x", false);
    assert!(matches!(
        gateway.poll_action(),
        Some(Action::Write { stream: 0, .. })
    ));
}

#[test]
fn nothing_follows_a_close() {
    let mut gateway = connection(Role::Gateway);
    gateway.close(ErrorCode::NoError.code(), "done");
    gateway.handle_stream(0, &headers(), true);
    gateway.handle_stream(2, b"\x00\x00", true);
    gateway.go_away();
    assert!(matches!(gateway.poll_action(), Some(Action::Close { .. })));
    assert_eq!(gateway.poll_action(), None);
    assert!(matches!(gateway.poll_event(), Some(Event::Closed { .. })));
    assert_eq!(gateway.poll_event(), None);
}

#[test]
fn many_small_data_frames_become_one_event() {
    let mut gateway = connection(Role::Gateway);
    let bytes = [
        headers(),
        b"\x00\x01x".repeat(1000),
        b"\x00\x00".repeat(1000),
    ]
    .concat();
    gateway.handle_stream(0, &bytes, false);
    assert!(matches!(gateway.poll_event(), Some(Event::Headers { .. })));
    assert_eq!(
        gateway.poll_event(),
        Some(Event::Data {
            stream: 0,
            bytes: vec![b'x'; 1000]
        })
    );
    assert_eq!(gateway.poll_event(), None);
}

proptest! {
    #[test]
    fn random_streams_never_panic(
        gateway in any::<bool>(),
        inputs in prop::collection::vec(
            (0_u64..12, prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..20,
        )
    ) {
        let mut connection = connection(if gateway { Role::Gateway } else { Role::Client });
        connection.open_request(0);
        for (stream, bytes, fin) in inputs {
            connection.handle_stream(stream, &bytes, fin);
            if fin {
                connection.handle_reset(stream, 0);
                connection.handle_stopped(stream, 0);
            }
        }
        prop_assert!(connection.requests.len() <= MAX_REQUESTS + 1);
    }
}
