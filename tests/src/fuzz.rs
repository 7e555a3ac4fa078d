//! Everything that parses bytes of others, as functions of any bytes that must not panic.
//!
//! Beyond not panicking each asserts what its parser promises: what is read can be written and
//! read again, an answer to a packet is a packet. `fuzz/` searches for inputs with these
//! functions on nightly; the test `fuzz_corpus` replays `fuzz/corpus` through them on stable.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use adit_core::admission::Admission;
use adit_core::close::{Refusal, RefusalKind};
use adit_core::dataplane::gateway::{
    self as gateway_verdict, Gate, OnWire, Place, Sessions, Target as Onward,
};
use adit_core::dataplane::{Denial, Verdict, client as client_verdict};
use adit_core::flow::{FlowTable, HashKey, Passage, Totals};
use adit_core::h3::frame::{self, Frame, FrameReader};
use adit_core::h3::message::{RequestHead, ResponseHead};
use adit_core::h3::qpack::{self, instruction};
use adit_core::h3::settings::Settings;
use adit_core::identity::revocation::{Freshness, RevocationList, Signed, Signer};
use adit_core::identity::{
    self, AuthorityRule, GroupSource, Identity, Principal, PrincipalSource, Purpose,
};
use adit_core::offload::coalesce::{Bundle, Coalescer, Join, MAX_HEADERS};
use adit_core::offload::split::Segments;
use adit_core::offload::{self, SegmentKind, Segmentation};
use adit_core::policy::{Decision, Direction, Filter, Flow, Policy, Question, RuleId, render};
use adit_core::range;
use adit_core::session::certificate::{CertificateAsk, Issued, Occasion, Secret};
use adit_core::session::{Action, Assignment, client, enrolment, gateway};
use adit_core::table::owners::Owners;
use adit_core::wire::capsule::{Capsule, CapsuleReader};
use adit_core::wire::icmp::{self, IcmpError};
use adit_core::wire::ip::{self, IpPacket, IpVersion};
use adit_core::wire::{datagram, tcp};
use adit_pki::CertificateRequest;
use bytes::{Bytes, BytesMut};
use ipnet::IpNet;

/// Takes any bytes and panics only if they found a mistake.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Target); 13] = [
    ("capsule", capsule),
    ("certificate", certificate),
    ("certificate_request", certificate_request),
    ("dataplane", dataplane),
    ("flows", flows),
    ("h3_frame", h3_frame),
    ("http_datagram", http_datagram),
    ("ip_packet", ip_packet),
    ("offload", offload),
    ("policy_file", policy_file),
    ("qpack", qpack),
    ("revocation_list", revocation_list),
    ("session", session),
];

/// The capsules of a request stream, the same however the stream is cut.
pub fn capsule(data: &[u8]) {
    fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Capsule>, Option<String>) {
        let (mut reader, mut capsules) = (CapsuleReader::default(), Vec::new());
        for piece in pieces {
            reader.push(piece);
            loop {
                match reader.next() {
                    Ok(Some(capsule)) => capsules.push(capsule),
                    Ok(None) => break,
                    Err(error) => return (capsules, Some(error.to_string())),
                }
            }
        }
        (
            capsules,
            reader.finish().err().map(|error| error.to_string()),
        )
    }

    let (capsules, error) = read([data].into_iter());
    assert_eq!(read(data.chunks(1)), (capsules.clone(), error));
    for capsule in capsules {
        let mut written = Vec::new();
        capsule.encode(&mut written);
        assert_eq!(read([&written[..]].into_iter()), (vec![capsule], None));
    }
}

/// A leaf certificate whose chain nobody verified, read by every kind of rule.
pub fn certificate(data: &[u8]) {
    use PrincipalSource::{Cn, Dns, Email, Uri};
    for sources in [&[Email][..], &[Uri], &[Dns], &[Cn], &[Email, Uri, Dns, Cn]] {
        let rule = AuthorityRule {
            name: "fuzz".to_owned(),
            principal: sources.to_vec(),
            groups: GroupSource::Ou,
            trust_domain: None,
        };
        match identity::extract(data, &rule) {
            Ok(identity) => {
                let written = Principal::parse(identity.principal.as_str());
                assert_eq!(
                    written,
                    Ok(identity.principal),
                    "an operator can write every name"
                );
                assert!(
                    identity.groups.is_sorted_by(|a, b| a < b),
                    "each group once"
                );
            }
            Err(error) => assert!(Refusal::from(error).to_string().len() < 2000, "a line"),
        }
    }
    for purpose in [Purpose::ClientAuth, Purpose::ServerAuth] {
        let _ = identity::has_purpose(data, purpose);
    }
}

/// A request for a certificate, of whoever sent it.
pub fn certificate_request(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = CertificateRequest::from_pem(text);
    }
    match CertificateRequest::from_der(data) {
        Ok(request) => {
            assert!(!request.public_key_der().is_empty());
            for wish in request.asks_for() {
                assert!(!wish.chars().any(char::is_control), "a line");
                assert!(wish.chars().count() < 300, "a short one");
            }
        }
        Err(error) => assert!(error.to_string().len() < 200),
    }
}

/// A revocation list that nobody verified, and the same bytes as the certificate beside it.
pub fn revocation_list(data: &[u8]) {
    if let Ok(list) = RevocationList::read(data) {
        assert!(!list.issuer_name.chars().any(char::is_control), "a line");
        assert_eq!(list.freshness(i64::MIN), Freshness::Fresh);
        assert!(list.freshness(i64::MAX) > Freshness::Fresh);
        assert!(list.number.to_string().len() <= 42);
    }
    if let Some(signed) = Signed::read(data) {
        let parts = [signed.message, signed.algorithm, signed.signature];
        assert!(parts.concat().len() < data.len());
    }
    if let Some(signer) = Signer::read(data) {
        assert!(signer.name.len() + signer.key.len() < data.len());
    }
}

/// The verdicts of gateway and client on any packet, in both directions.
pub fn dataplane(data: &[u8]) {
    static OFFICE: LazyLock<Office> = LazyLock::new(Office::new);
    let Ok(packet) = IpPacket::parse(data) else {
        return;
    };
    let (sender, receiver) = (
        OFFICE.owners.owner(packet.source()),
        OFFICE.owners.owner(packet.destination()),
    );
    let now = Instant::now();
    let mut visit = Visit {
        office: &OFFICE,
        flows: [flow_table(now), flow_table(now)],
        denied: 0,
    };
    let mut verdicts = Vec::new();
    for from in [LAPTOP, SITE] {
        let verdict = gateway_verdict::from_peer(&mut visit, now, from, &packet);
        if let Verdict::Forward(target) = verdict {
            let from = Some(Place::Here(from));
            assert_eq!(sender, from, "the source is the sender's own");
            let expected = match receiver {
                None => Onward::Inside,
                Some(Place::Here(peer)) => Onward::Peer(peer),
                Some(Place::There(engine)) => Onward::Neighbour(engine),
            };
            assert_eq!(target, expected);
            assert_ne!(receiver, from, "nothing is sent back");
        }
        verdicts.push(verdict.map(|_| ()));
    }
    let on_wire = OnWire::single(&packet);
    let verdict = gateway_verdict::to_peer(&mut visit, now, &packet, on_wire);
    if let Verdict::Forward(peer) = verdict {
        assert_eq!(receiver, Some(peer));
        assert!(data.len() <= MAX_PACKET || peer == Place::There(NEIGHBOUR));
    }
    verdicts.push(verdict.map(|_| ()));
    let verdict = gateway_verdict::from_neighbour(&mut visit, now, &packet);
    if let Verdict::Forward(peer) = verdict {
        assert_eq!(sender, Some(Place::There(NEIGHBOUR)));
        assert_eq!(receiver, Some(Place::Here(peer)));
        assert!(data.len() <= MAX_PACKET);
    }
    verdicts.push(verdict.map(|_| ()));
    let prohibited = Verdict::Reply(IcmpError::AdminProhibited);
    let prohibited = verdicts.iter().filter(|verdict| **verdict == prohibited);
    assert_eq!(visit.denied, prohibited.count(), "every denial is reported");
    let verdict =
        client_verdict::to_gateway(&OFFICE.view, MAX_PACKET, &packet, packet.bytes().len());
    if verdict == Verdict::Forward(()) {
        assert_eq!(sender, Some(Place::Here(LAPTOP)));
        assert!(data.len() <= MAX_PACKET);
    }
    verdicts.push(verdict);
    let verdict = client_verdict::from_gateway(&OFFICE.view, &packet);
    assert!(verdict != Verdict::Forward(()) || receiver == Some(Place::Here(LAPTOP)));
    verdicts.push(verdict);
    for verdict in verdicts {
        if let Verdict::Reply(IcmpError::PacketTooBig { mtu }) = verdict {
            assert!(data.len() > MAX_PACKET && mtu as usize == MAX_PACKET);
        }
    }
}

/// Packets through one flow table, each behind its length and a byte that says which way it goes, how
/// long it took to come, and whether the policy has changed.
pub fn flows(data: &[u8]) {
    let mut now = Instant::now();
    let mut table = flow_table(now);
    let rule = RuleId { index: 0, line: 1 };
    let (mut denied, mut counted, mut passed, mut rest) = (false, 0, 0, data);
    let packets = |totals: &BTreeMap<RuleId, Totals>| -> u64 {
        let packets = |totals: &Totals| totals.from_client.packets + totals.to_client.packets;
        totals.values().map(packets).sum()
    };
    while let Some(([what, high, low], behind)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (bytes, behind) = behind.split_at(length);
        rest = behind;
        let direction = if what & 1 == 0 {
            Direction::FromClient
        } else {
            Direction::ToClient
        };
        now += Duration::from_secs([0, 1, 60, 300][usize::from(what >> 1 & 3)]);
        if what & 8 != 0 {
            denied = !denied;
            passed += packets(&table.filter_changed());
        }
        let policy = |flow: &Flow| match flow.direction {
            Direction::FromClient if !denied => Decision::Allow(rule),
            _ => Decision::Deny(None),
        };
        let Ok(packet) = IpPacket::parse(bytes) else {
            continue;
        };
        let verdict = table.judge(now, &policy, direction, &packet);
        if let Ok(passage) = verdict {
            assert!(!denied, "nothing outlives its permission");
            table.count(passage, direction, 1, bytes.len());
            counted += u64::from(passage != Passage::Related);
            // Whatever passed passes again, unless it ended a connection and would begin another.
            let again = table.judge(now, &policy, direction, &packet);
            let begins = tcp::flags(&packet).is_some_and(|flags| flags & tcp::SYN != 0);
            assert!(again.is_ok() || begins, "{again:?}");
            if let (Passage::Flow(_), Some(handle)) = (passage, table.last(direction)) {
                counted += u64::from(table.follow(now, direction, handle, &packet));
            }
        }
        assert!(table.iter(now).count() <= table.len());
        if what & 16 != 0 {
            table.expire(now);
            assert_eq!(table.iter(now).count(), table.len());
        }
    }
    passed += packets(&table.totals_by_rule());
    assert_eq!(passed, counted, "every packet is counted for a rule");
}

/// The frames of one stream, whose kind the first byte chooses, the same however it is cut.
pub fn h3_frame(data: &[u8]) {
    fn read<'a>(
        place: frame::Place,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> (Vec<u8>, Option<String>) {
        let (mut reader, mut log) = (FrameReader::new(place), Vec::new());
        for mut piece in pieces {
            loop {
                match reader.next(&mut piece) {
                    Ok(Some(Frame::Data(bytes))) => log.extend(bytes),
                    Ok(Some(frame)) => log.extend(format!("{frame:?}").into_bytes()),
                    Ok(None) => break,
                    Err(error) => return (log, Some(error.to_string())),
                }
            }
        }
        (log, reader.finish().err().map(|error| error.to_string()))
    }

    let Some((first, data)) = data.split_first() else {
        return;
    };
    let place = [
        frame::Place::Control,
        frame::Place::Request,
        frame::Place::Response,
    ][usize::from(first % 3)];
    assert_eq!(read(place, data.chunks(1)), read(place, [data].into_iter()));
    if let Ok(settings) = Settings::parse(data) {
        let mut written = Vec::new();
        settings.encode(&mut written);
        assert_eq!(Settings::parse(&written).ok(), Some(settings));
    }
}

/// The prefix of an HTTP datagram.
pub fn http_datagram(data: &[u8]) {
    let Ok(prefix) = datagram::parse(data) else {
        return;
    };
    assert!(prefix.len <= data.len());
    let mut written = vec![0; datagram::prefix_len(prefix.stream_id)];
    datagram::write_prefix(prefix.stream_id, &mut written);
    let again = datagram::parse(&written).expect("a written prefix parses");
    assert_eq!(
        (again.stream_id, again.context),
        (prefix.stream_id, datagram::IP_PACKET)
    );
    assert!(prefix.context != datagram::IP_PACKET || written.len() <= prefix.len);
}

/// Packets out of tunnels, joined for the device and cut again; and the first of them cut as it is.
///
/// The input is a segment size and packets, each behind its length.
pub fn offload(data: &[u8]) {
    let Some((size, mut rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let mut packets = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        packets.push(Bytes::copy_from_slice(&behind[..length]));
        rest = &behind[length..];
    }
    if let Some(Ok(packet)) = packets.first().map(|packet| IpPacket::parse(packet)) {
        for kind in [SegmentKind::Tcp, SegmentKind::Udp] {
            let size = u16::from_be_bytes(*size);
            if let Ok(segments) = Segments::new(&packet, Segmentation { kind, size }) {
                let cut = cut(&segments);
                assert_eq!(cut.iter().map(Bytes::len).sum::<usize>(), segments.total());
                assert_eq!(cut.iter().map(Bytes::len).max(), Some(segments.longest()));
            }
        }
    }
    let mut coalescer = Coalescer::new(Join::TcpAndUdp);
    packets
        .iter()
        .cloned()
        .for_each(|packet| coalescer.push(packet));
    coalescer.flush();
    let mut out = Vec::new();
    while let Some(bundle) = coalescer.pop() {
        out.extend_from_slice(bundle.packets());
        if let Some(whole) = whole(&bundle) {
            let (packet, segmentation) = &whole;
            let packet = IpPacket::parse(packet).expect("joined packets are a packet");
            let segments = Segments::new(&packet, *segmentation).expect("it can be cut again");
            let cut = cut(&segments);
            assert_eq!(cut.len(), bundle.packets().len());
            for (cut, packet) in cut.iter().zip(bundle.packets()) {
                // All but the numbers of IPv4, which mean nothing where nothing may be fragmented, and
                // the checksum, of whose zero there are two.
                let (from, transport) = if cut[0] >> 4 == 4 { (12, 20) } else { (0, 40) };
                let field = transport + segmentation.kind.checksum_offset();
                assert_eq!(cut[from..field], packet[from..field]);
                assert_eq!(cut[field + 2..], packet[field + 2..]);
            }
        }
    }
    let sorted = |mut packets: Vec<Bytes>| {
        packets.sort();
        packets
    };
    assert_eq!(sorted(out), sorted(packets), "nothing is lost or made up");
}

/// What a device gets in place of a bundle's packets; `None` for a single one.
fn whole(bundle: &Bundle) -> Option<(Vec<u8>, Segmentation)> {
    let mut headers = [0; MAX_HEADERS];
    let joined = bundle.headers(&mut headers)?;
    let mut packet = headers[..joined.header].to_vec();
    for part in bundle.packets() {
        packet.extend_from_slice(&part[joined.header..]);
    }
    assert!(offload::complete_checksum(&mut packet, joined.checksum));
    Some((packet, joined.segmentation))
}

fn cut(segments: &Segments<'_>) -> Vec<Bytes> {
    let mut memory = BytesMut::new();
    let one = |index| {
        assert!(segments.append(index, &mut memory) > 0);
        memory.split().freeze()
    };
    (0..segments.count()).map(one).collect()
}

/// An inside packet on its way: judged, answered, clamped and forwarded.
pub fn ip_packet(data: &[u8]) {
    let Ok(packet) = IpPacket::parse(data) else {
        return;
    };
    assert_eq!(packet.transport(), &data[packet.transport_offset()..]);
    assert!(packet.ports().is_none() || packet.is_first_fragment_or_whole());

    let source: IpAddr = match packet.version() {
        IpVersion::V4 => [10, 99, 0, 1].into(),
        IpVersion::V6 => [0xfd00, 0xad17, 0, 0, 0, 0, 0, 1].into(),
    };
    for error in ICMP_ERRORS {
        let Some(answer) = icmp::error_packet(error, &packet, source) else {
            continue;
        };
        let answer = IpPacket::parse(&answer).expect("an answer is a packet");
        assert_eq!(
            (answer.source(), answer.destination()),
            (source, packet.source())
        );
        assert!(
            icmp::error_packet(error, &answer, source).is_none(),
            "answers beget no answers"
        );
    }

    let mut forwarded = data.to_vec();
    let clamped = tcp::clamp_mss(&mut forwarded, 1280);
    assert_eq!(clamped, forwarded != data);
    assert!(!tcp::clamp_mss(&mut forwarded, 1280), "once is enough");
    ip::decrement_hop_limit(&mut forwarded);
    let forwarded = IpPacket::parse(&forwarded).expect("a forwarded packet is a packet");
    assert_eq!(forwarded.hop_limit(), packet.hop_limit().saturating_sub(1));
    assert_eq!(forwarded.ports(), packet.ports());
}

/// A policy file, and what it gives to somebody it names and to a stranger.
pub fn policy_file(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let policy = match Policy::parse(text, "policy.toml") {
        Ok(policy) => Arc::new(policy),
        Err(error) => {
            assert!(error.to_string().starts_with("policy.toml"));
            assert!(
                error
                    .line()
                    .is_none_or(|line| line >= 1 && line <= text.split('\n').count())
            );
            return;
        }
    };
    let routed = policy.routed_prefixes();
    let _ = (policy.failed_tests(0), policy.ended_rules(0));
    let mut admission = Admission::new(Arc::clone(&policy), &[IpAddr::from([10, 99, 0, 1])]);
    let mut given = BTreeSet::new();
    for name in [
        "alice@example.com",
        "bob@example.com",
        "branch1.example.com",
    ] {
        let identity = identity(name);
        let Ok(grant) = admission.judge(&identity, 0) else {
            continue;
        };
        admission.connect(&identity.principal);
        for prefix in &grant.addresses {
            assert!(given.insert(*prefix), "{prefix} is given twice");
            assert!(
                routed.iter().any(|routed| routed.contains(prefix)),
                "{prefix} is not routed"
            );
        }
        assert!(range::is_ordered(&grant.routes));
        for route in &grant.routes {
            for inside in [route.start(), route.end()] {
                policy_answers(&policy, &identity, &grant.filter, inside);
            }
        }
        let again = admission.judge(&identity, 1).map(|grant| grant.addresses);
        assert_eq!(again, Ok(grant.addresses), "addresses stay");
    }
}

/// The filter and the explanation say the same of any flow with `inside`, and what is allowed is a
/// rule of the filter.
fn policy_answers(policy: &Policy, identity: &Identity, filter: &Filter, inside: IpAddr) {
    for (direction, protocol, port) in [
        (Direction::FromClient, ip::TCP, Some(443)),
        (Direction::ToClient, ip::UDP, None),
        (Direction::ToClient, ip::ICMP, None),
    ] {
        let flow = Flow {
            direction,
            inside,
            protocol,
            port,
        };
        let explanation = policy.explain(&Question {
            principal: &identity.principal,
            authority: &identity.authority,
            groups: &identity.groups,
            not_after: None,
            flow,
            now: 0,
        });
        assert!(!render(&explanation).is_empty());
        match filter.decide(&flow) {
            Decision::Allow(rule) => {
                assert!(explanation.allowed && filter.rule(rule).is_some());
                let _ = filter.rate(rule);
            }
            Decision::Deny(rule) => {
                assert!(!explanation.allowed);
                assert_eq!(explanation.rule.is_some(), rule.is_some());
            }
        }
    }
}

/// A field section, the message in it, and the instructions of the two QPACK streams.
pub fn qpack(data: &[u8]) {
    if let Ok(fields) = qpack::decode(data) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let lines: Option<Vec<_>> = fields
            .iter()
            .map(|field| Some((text(&field.name)?, text(&field.value)?)))
            .collect();
        if let Some(lines) = lines {
            let lines: Vec<_> = lines
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect();
            assert_eq!(qpack::decode(&qpack::encode(&lines)).as_ref(), Ok(&fields));
        }
        let _ = RequestHead::parse(fields.clone()).map(|head| head.fields.check_for_capsules());
        let _ = ResponseHead::parse(fields).map(|head| head.fields.check_for_capsules());
    }

    let (mut whole, mut cut) =
        <(instruction::EncoderStream, instruction::EncoderStream)>::default();
    assert_eq!(
        whole.push(data),
        data.chunks(1).try_for_each(|piece| cut.push(piece))
    );
    let (mut whole, mut cut) =
        <(instruction::DecoderStream, instruction::DecoderStream)>::default();
    assert_eq!(
        whole.push(data),
        data.chunks(1).try_for_each(|piece| cut.push(piece))
    );
}

/// Both ends of the control session, given the same streams and commands of their engine.
///
/// The input is a list of steps: an operation, a stream, a length and that many bytes.
pub fn session(data: &[u8]) {
    let mut now = Instant::now();
    let mut gateway = gateway::Control::new(now, 3, gateway::GatewayControlConfig::default());
    let config = client::ClientControlConfig::new("vpn.example.com");
    let mut client = client::Control::new(now, 2, 0, config);
    let secret = Secret::parse("secret").expect("a secret");
    let enrolment = CertificateAsk {
        occasion: Occasion::Enrolment(secret),
        request: b"request".to_vec(),
        user_agent: None,
    };
    let config = enrolment::EnrolmentConfig::new("vpn.example.com", enrolment);
    let mut newcomer = enrolment::Control::new(now, 2, 0, &config);
    let issued = Issued {
        certificate: String::new(),
        authorities: String::new(),
        gateways: Vec::new(),
    };
    let (mut asked, mut outcomes) = (0, 0);
    let network = "10.99.0.7/32".parse().expect("a prefix");
    let assignment = Assignment {
        addresses: vec![network],
        ..Assignment::default()
    };
    let refusal = Refusal::new(RefusalKind::NoAccess, "");

    let (mut ended, mut closed) = (BTreeSet::new(), [false; 3]);
    let mut steps = data;
    while let [operation, stream, length, rest @ ..] = steps {
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        steps = rest;
        let (stream, code) = (u64::from(*stream), u64::from(*length));
        match operation % 8 {
            // QUIC delivers nothing behind the end of a stream.
            0..=2 if ended.contains(&stream) => {}
            0 | 1 => {
                let fin = operation % 8 == 1 && ended.insert(stream);
                gateway.handle_stream(now, stream, bytes, fin);
                client.handle_stream(now, stream, bytes, fin);
                newcomer.handle_stream(now, stream, bytes, fin);
            }
            2 => {
                ended.insert(stream);
                gateway.handle_reset(now, stream, code);
                client.handle_reset(now, stream, code);
                newcomer.handle_reset(now, stream, code);
            }
            3 => {
                gateway.handle_stopped(now, stream, code);
                client.handle_stopped(now, stream, code);
                newcomer.handle_stopped(now, stream, code);
            }
            4 => {
                now += Duration::from_secs(code);
                gateway.handle_timeout(now);
                client.handle_timeout(now);
                newcomer.handle_timeout(now);
            }
            5 => {
                gateway.admit(&assignment);
                gateway.assign(&Assignment::default());
                gateway.issue(asked, &issued);
                client.ask_certificate(now, 4, b"request".to_vec());
            }
            6 => {
                gateway.refuse(&refusal);
                gateway.refuse_certificate(asked, &refusal);
            }
            _ => {
                gateway.shutdown();
                client.finish();
            }
        }
        let actions = [
            std::iter::from_fn(|| gateway.poll_action()).collect::<Vec<_>>(),
            std::iter::from_fn(|| client.poll_action()).collect(),
            std::iter::from_fn(|| newcomer.poll_action()).collect(),
        ];
        for (actions, closed) in actions.iter().zip(&mut closed) {
            assert!(!*closed || actions.is_empty(), "{actions:?} behind a close");
            *closed |= matches!(actions.last(), Some(Action::Close { .. }));
            assert!(
                actions.iter().map(written).sum::<usize>() < 100_000,
                "no amplifier"
            );
        }
        while let Some(event) = gateway.poll_event() {
            if let gateway::GatewayEvent::CertificateAsked { stream, .. } = event {
                asked = stream;
            }
        }
        while client.poll_event().is_some() {}
        while newcomer.poll_outcome().is_some() {
            outcomes += 1;
        }
        assert!(outcomes <= 1, "one request has one outcome");
        assert!(!closed[0] || gateway.established().is_none());
        assert!(!closed[1] || client.established().is_none());
    }
}

/// A laptop whose address lies inside the network of a site, a neighbour's session inside both, and
/// what they may reach.
struct Office {
    owners: Owners<Place<usize>>,
    filter: Filter,
    view: client_verdict::ClientView,
}

impl Office {
    fn new() -> Self {
        let mut owners = Owners::new();
        let mut addresses = Vec::new();
        for (prefix, owner) in [
            ("10.99.0.7/32", Place::Here(LAPTOP)),
            ("fd00::7/128", Place::Here(LAPTOP)),
            ("10.99.0.0/24", Place::Here(SITE)),
            ("fd00::/64", Place::Here(SITE)),
            ("10.99.0.128/25", Place::There(NEIGHBOUR)),
            ("fd00::8000/113", Place::There(NEIGHBOUR)),
        ] {
            let prefix: IpNet = prefix.parse().expect("a prefix");
            owners.insert(prefix, owner);
            if owner == Place::Here(LAPTOP) {
                addresses.push(prefix);
            }
        }
        let text = "[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\", \"fd00::/31\"]";
        let policy = Policy::parse(text, "policy.toml").expect("a policy");
        let access = policy.access(&identity("laptop"), 0).expect("an access");
        let view = client_verdict::ClientView::new(addresses, access.filter.routes().to_vec());
        let filter = Filter::clone(&access.filter);
        Self {
            owners,
            filter,
            view,
        }
    }
}

/// The office with sessions in which nothing has passed.
struct Visit<'a> {
    office: &'a Office,
    flows: [FlowTable; 2],
    denied: usize,
}

impl Sessions for Visit<'_> {
    type Key = usize;

    fn owner(&self, address: IpAddr) -> Option<Place<usize>> {
        self.office.owners.owner(address)
    }

    fn gate(&mut self, key: usize) -> Option<Gate<'_>> {
        Some(Gate {
            filter: &self.office.filter,
            flows: self.flows.get_mut(key)?,
            max_packet: MAX_PACKET,
        })
    }

    fn denied(&mut self, _: usize, _: Instant, _: Denial, packets: usize) {
        self.denied += packets;
    }
}

fn flow_table(now: Instant) -> FlowTable {
    FlowTable::new(
        now,
        HashKey::new([0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835; 6]),
    )
}

fn identity(name: &str) -> Identity {
    Identity {
        principal: Principal::parse(name).expect("a name"),
        groups: vec!["eng".to_owned()],
        authority: "fuzz".to_owned(),
        serial: "01".to_owned(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

fn written(action: &Action) -> usize {
    match action {
        Action::Write { bytes, .. } => bytes.len(),
        Action::Close { reason, .. } => reason.len(),
        Action::Reset { .. } | Action::StopSending { .. } => 0,
    }
}

const LAPTOP: usize = 0;
const SITE: usize = 1;
/// An engine beside the one whose verdicts are asked.
const NEIGHBOUR: u8 = 1;

/// What a path of 1500 bytes carries.
const MAX_PACKET: usize = 1412;

const ICMP_ERRORS: [IcmpError; 5] = [
    IcmpError::NoRoute,
    IcmpError::AdminProhibited,
    IcmpError::SourcePolicy,
    IcmpError::PacketTooBig { mtu: 1280 },
    IcmpError::HopLimitExceeded,
];
