//! Both control machines against each other over in-memory streams that deliver in any pieces.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use adit_core::close::{Refusal, RefusalKind};
use adit_core::h3::{ErrorCode, frame};
use adit_core::range::{self, RouteRange};
use adit_core::session::client::{self, ClientControlConfig, ClientEvent};
use adit_core::session::gateway::{self, GatewayControlConfig, GatewayEvent, Scope};
use adit_core::session::{Action, Assignment, Place, Proof, UserAgent};
use adit_core::wire::capsule::{AssignedAddress, Capsule, CapsuleReader, RequestedAddress};
use ipnet::IpNet;
use proptest::prelude::*;

#[test]
fn a_client_is_admitted_and_learns_its_addresses_and_routes() {
    for pieces in [&[][..], &[1], &[7, 1, 3]] {
        let mut pair = Pair::new(pieces);
        pair.drive();
        let requested = GatewayEvent::Requested {
            stream: REQUEST,
            authority: "vpn.example.com".into(),
            path: "/.well-known/masque/ip/*/*/".into(),
            scope: Scope::default(),
            handover: None,
            user_agent: None,
        };
        assert_eq!(pair.gateway_events, [requested]);
        assert_eq!(
            (pair.gateway.established(), pair.client.established()),
            (None, None)
        );
        assert!(pair.gateway.peer_datagrams() && pair.client.peer_datagrams());

        let addresses = ["10.99.0.7/32", "fd00::7/128"];
        let reach = ["10.0.0.0/8", "fd00::/16"];
        pair.gateway.admit(&assignment(&addresses, &reach));
        assert_eq!(pair.gateway.established(), Some(REQUEST));
        pair.drive();
        assert_eq!(pair.client.established(), Some(REQUEST));
        assert_eq!(
            pair.client_events,
            [
                ClientEvent::Established,
                ClientEvent::Assigned(nets(&addresses)),
                ClientEvent::Routes(routes(&reach)),
            ]
        );
        assert_eq!(
            (pair.gateway.poll_timeout(), pair.client.poll_timeout()),
            (None, None)
        );
        assert_eq!(pair.closes, []);
    }
}

#[test]
fn a_refusal_reaches_the_client_in_full() {
    for pieces in [&[][..], &[1], &[5]] {
        let mut pair = Pair::new(pieces);
        pair.drive();
        let refusal = Refusal::new(RefusalKind::NoAccess, "eve@example.com is in no group");
        pair.gateway.refuse(&refusal);
        pair.drive();
        assert_eq!(pair.client_events, [ClientEvent::Refused(refusal)]);
        assert_eq!(
            (pair.gateway.established(), pair.client.established()),
            (None, None)
        );
        assert_eq!(pair.closes, []);
    }
}

#[test]
fn a_changed_assignment_replaces_the_old_one_and_writes_only_what_changed() {
    let mut pair = Pair::established();
    pair.gateway
        .assign(&assignment(&["10.99.0.8/32"], &["10.0.0.0/8"]));
    pair.drive();
    assert_eq!(
        pair.client_events,
        [ClientEvent::Assigned(nets(&["10.99.0.8/32"]))]
    );
    pair.client_events.clear();
    pair.gateway.assign(&assignment(&["10.99.0.8/32"], &[]));
    pair.drive();
    assert_eq!(pair.client_events, [ClientEvent::Routes(vec![])]);
    pair.gateway.assign(&assignment(&["10.99.0.8/32"], &[]));
    assert_eq!(pair.gateway.poll_action(), None);
}

#[test]
fn an_ipv6_request_is_answered_only_once_ipv6_is_decided() {
    let mut pair = Pair::new(&[]);
    pair.drive();
    let mut given = assignment(&["10.99.0.7/32"], &["10.0.0.0/8"]);
    given.v6_pending = true;
    pair.gateway.admit(&given);
    assert_eq!(pair.gateway_capsules()[0], assigned(&[(1, "10.99.0.7/32")]));
    pair.gateway.assign(&given);
    assert_eq!(pair.gateway_capsules(), []);

    pair.gateway.assign(&assignment(
        &["10.99.0.7/32", "fd00::7/128"],
        &["10.0.0.0/8"],
    ));
    let expected = assigned(&[(0, "10.99.0.7/32"), (2, "fd00::7/128")]);
    assert_eq!(pair.gateway_capsules(), [expected]);
}

#[test]
fn an_ipv6_request_is_rejected_once_it_is_decided_that_there_is_none() {
    let mut pair = Pair::new(&[]);
    pair.drive();
    let mut given = assignment(&["10.99.0.7/32"], &[]);
    given.v6_pending = true;
    pair.gateway.admit(&given);
    pair.gateway_capsules();
    given.v6_pending = false;
    pair.gateway.assign(&given);
    let expected = assigned(&[(0, "10.99.0.7/32"), (2, "::/128")]);
    assert_eq!(pair.gateway_capsules(), [expected]);
    // RFC 9484 §4.7.2: a rejection is said once.
    pair.gateway.assign(&assignment(&["10.99.0.8/32"], &[]));
    assert_eq!(pair.gateway_capsules(), [assigned(&[(0, "10.99.0.8/32")])]);
}

#[test]
fn a_client_that_asks_for_no_address_gets_the_list_all_the_same() {
    let mut config = ClientControlConfig::new("vpn.example.com");
    config.request_addresses = false;
    let mut pair = Pair::with(&[], config);
    pair.drive();
    pair.gateway.admit(&assignment(&["10.99.0.7/32"], &[]));
    let expected = [
        assigned(&[(0, "10.99.0.7/32")]),
        Capsule::RouteAdvertisement(vec![]),
    ];
    assert_eq!(pair.gateway_capsules(), expected);
}

#[test]
fn a_proof_reaches_the_gateway_and_a_place_the_client() {
    for (proof, place) in [(None, None), (Some(Proof([7; 32])), Some(Place([9; 8])))] {
        let mut config = ClientControlConfig::new("vpn.example.com");
        config.handover = proof;
        let mut pair = Pair::with(&[], config);
        pair.drive();
        let [GatewayEvent::Requested { handover, .. }] = &pair.gateway_events[..] else {
            panic!("{:?}", pair.gateway_events);
        };
        assert_eq!(*handover, proof);
        assert_eq!(pair.client.place(), None);
        if let Some(place) = place {
            pair.gateway.offer_handover(place);
        }
        pair.gateway.admit(&assignment(&["10.99.0.7/32"], &[]));
        pair.drive();
        assert_eq!(pair.client.place(), place);
    }
}

#[test]
fn the_gateway_learns_what_the_client_says_about_itself() {
    let mut config = ClientControlConfig::new("vpn.example.com");
    let user_agent = UserAgent::of_host("0.1.0", "linux", "laptop-7");
    config.user_agent = Some(user_agent.clone());
    let mut pair = Pair::with(&[], config);
    pair.drive();
    let [
        GatewayEvent::Requested {
            user_agent: said, ..
        },
    ] = &pair.gateway_events[..]
    else {
        panic!("{:?}", pair.gateway_events);
    };
    assert_eq!(*said, Some(user_agent));
}

#[test]
fn ending_on_either_side_ends_both() {
    let mut pair = Pair::established();
    pair.client.finish();
    assert_eq!(pair.client.established(), None);
    pair.drive();
    assert!(matches!(
        &pair.gateway_events[..],
        [GatewayEvent::Ended { .. }]
    ));
    assert_eq!(pair.gateway.established(), None);

    let mut pair = Pair::established();
    pair.client.handle_stream(pair.now, REQUEST, &[], true);
    pair.drive();
    assert!(matches!(
        &pair.client_events[..],
        [ClientEvent::Ended { .. }]
    ));
    assert!(matches!(
        &pair.gateway_events[..],
        [GatewayEvent::Ended { .. }]
    ));
    assert_eq!(pair.closes, []);
}

#[test]
fn a_shutdown_lets_the_tunnel_finish_and_turns_new_requests_away() {
    let mut pair = Pair::established();
    assert!(pair.client.can_ask_certificate() && !pair.client.is_going_away());
    pair.gateway.shutdown();
    pair.drive();
    assert_eq!(pair.client_events, [ClientEvent::GoingAway]);
    assert_eq!(pair.client.established(), Some(REQUEST));
    // RFC 9114 §5.2: what is asked from now on belongs on another connection.
    assert!(!pair.client.can_ask_certificate() && pair.client.is_going_away());

    let mut pair = Pair::new(&[]);
    pair.gateway.shutdown();
    pair.drive();
    let events = &pair.client_events[..];
    assert!(
        matches!(events, [ClientEvent::GoingAway, ClientEvent::Ended { .. }]),
        "{events:?}"
    );
}

#[test]
fn nobody_waits_for_ever() {
    let mut pair = Pair::new(&[]);
    let deadline = pair.gateway.poll_timeout().unwrap();
    pair.gateway
        .handle_timeout(deadline - Duration::from_millis(1));
    pair.client
        .handle_timeout(deadline - Duration::from_millis(1));
    pair.drive();
    assert_eq!(pair.closes, []);
    pair.gateway.handle_timeout(deadline);
    pair.client
        .handle_timeout(pair.client.poll_timeout().unwrap());
    pair.drive();
    let codes: Vec<_> = pair.closes.iter().map(|(code, _)| *code).collect();
    let expected = [
        ErrorCode::RequestCancelled.code(),
        RefusalKind::RequestTimeout.code(),
    ];
    assert_eq!(codes, expected);
    assert!(matches!(
        pair.gateway_events.last(),
        Some(GatewayEvent::Ended { .. })
    ));
    assert!(matches!(
        pair.client_events.last(),
        Some(ClientEvent::Ended { .. })
    ));
    assert_eq!(
        (pair.gateway.poll_timeout(), pair.client.poll_timeout()),
        (None, None)
    );
}

#[test]
fn packets_in_capsules_are_handed_over_once_the_tunnel_is_up() {
    let datagram = data(&[Capsule::Datagram(b"\0packet"[..].into())]);
    let mut pair = Pair::new(&[]);
    pair.drive();
    pair.gateway
        .handle_stream(pair.now, REQUEST, &datagram, false);
    pair.gateway.admit(&assignment(&[], &[]));
    pair.gateway
        .handle_stream(pair.now, REQUEST, &datagram, false);
    pair.drive();
    pair.gateway_events
        .retain(|event| matches!(event, GatewayEvent::Packet(_)));
    assert_eq!(
        pair.gateway_events,
        [GatewayEvent::Packet(b"packet"[..].into())]
    );
}

#[test]
fn a_site_tells_its_networks_and_the_last_list_counts() {
    let mut pair = Pair::established();
    let bytes = data(&[
        Capsule::RouteAdvertisement(routes(&["10.1.0.0/16"])),
        Capsule::RouteAdvertisement(routes(&["10.2.0.0/16"])),
        assigned(&[(0, "10.2.0.1/32")]),
    ]);
    pair.gateway.handle_stream(pair.now, REQUEST, &bytes, false);
    pair.drive();
    assert_eq!(
        pair.gateway_events,
        [
            GatewayEvent::PeerAssigned(nets(&["10.2.0.1/32"])),
            GatewayEvent::PeerRoutes(routes(&["10.2.0.0/16"])),
        ]
    );
}

#[test]
fn a_client_answers_address_requests_of_a_gateway_with_rejections() {
    let mut pair = Pair::established();
    let request = data(&[Capsule::AddressRequest(vec![RequestedAddress::any(
        9, false,
    )])]);
    pair.client
        .handle_stream(pair.now, REQUEST, &request, false);
    let bytes = data(&[assigned(&[(9, "0.0.0.0/32")])]);
    let expected = Action::Write {
        stream: REQUEST,
        bytes,
        fin: false,
    };
    assert_eq!(pair.client.poll_action(), Some(expected));
}

proptest! {
    #[test]
    fn establishment_does_not_depend_on_how_streams_are_cut(
        pieces in prop::collection::vec(1_usize..50, 1..40)
    ) {
        let mut pair = Pair::new(&pieces);
        pair.drive();
        pair.gateway.admit(&assignment(&["10.99.0.7/32"], &["10.0.0.0/8"]));
        pair.drive();
        prop_assert_eq!(pair.client_events.len(), 3);
        prop_assert_eq!(pair.closes.len(), 0);
    }
}

/// Both ends, connected by streams that deliver in pieces of the given sizes.
struct Pair {
    now: Instant,
    gateway: gateway::Control,
    client: client::Control,
    pieces: VecDeque<usize>,
    gateway_events: Vec<GatewayEvent>,
    client_events: Vec<ClientEvent>,
    closes: Vec<(u64, String)>,
}

impl Pair {
    fn new(pieces: &[usize]) -> Self {
        Self::with(pieces, ClientControlConfig::new("vpn.example.com"))
    }

    fn with(pieces: &[usize], config: ClientControlConfig) -> Self {
        let now = Instant::now();
        let gateway = gateway::Control::new(now, GATEWAY_CONTROL, GatewayControlConfig::default());
        Self {
            now,
            gateway,
            client: client::Control::new(now, CLIENT_CONTROL, REQUEST, config),
            pieces: pieces.iter().copied().collect(),
            gateway_events: Vec::new(),
            client_events: Vec::new(),
            closes: Vec::new(),
        }
    }

    /// A tunnel with one address, and the events so far forgotten.
    fn established() -> Self {
        let mut pair = Self::new(&[]);
        pair.drive();
        pair.gateway
            .admit(&assignment(&["10.99.0.7/32"], &["10.0.0.0/8"]));
        pair.drive();
        assert_eq!(pair.client.established(), Some(REQUEST));
        pair.client_events.clear();
        pair.gateway_events.clear();
        pair
    }

    /// Carries everything across until both ends are silent.
    fn drive(&mut self) {
        loop {
            let mut idle = true;
            while let Some(action) = self.client.poll_action() {
                idle = false;
                self.carry(action, true);
            }
            while let Some(action) = self.gateway.poll_action() {
                idle = false;
                self.carry(action, false);
            }
            self.gateway_events
                .extend(std::iter::from_fn(|| self.gateway.poll_event()));
            self.client_events
                .extend(std::iter::from_fn(|| self.client.poll_event()));
            if idle {
                return;
            }
        }
    }

    fn carry(&mut self, action: Action, up: bool) {
        let now = self.now;
        match action {
            Action::Write { stream, bytes, fin } => {
                let mut rest = &bytes[..];
                loop {
                    let (piece, tail) = rest.split_at(self.piece(rest.len()));
                    rest = tail;
                    let fin = fin && rest.is_empty();
                    if up {
                        self.gateway.handle_stream(now, stream, piece, fin);
                    } else {
                        self.client.handle_stream(now, stream, piece, fin);
                    }
                    if rest.is_empty() {
                        return;
                    }
                }
            }
            Action::Reset { stream, code } if up => self.gateway.handle_reset(now, stream, code),
            Action::Reset { stream, code } => self.client.handle_reset(now, stream, code),
            Action::StopSending { stream, code } if up => {
                self.gateway.handle_stopped(now, stream, code);
            }
            Action::StopSending { stream, code } => self.client.handle_stopped(now, stream, code),
            Action::Close { code, reason } => self.closes.push((code, reason)),
        }
    }

    fn piece(&mut self, len: usize) -> usize {
        let Some(size) = self.pieces.pop_front() else {
            return len;
        };
        self.pieces.push_back(size);
        size.min(len)
    }

    /// Takes the capsules out of what the gateway writes to the request stream.
    fn gateway_capsules(&mut self) -> Vec<Capsule> {
        let mut capsules = CapsuleReader::default();
        while let Some(action) = self.gateway.poll_action() {
            let Action::Write {
                stream: REQUEST,
                bytes,
                fin: false,
            } = action
            else {
                continue;
            };
            let mut frames = frame::FrameReader::new(frame::Place::Response);
            // The reader insists on HEADERS first, which may have been taken before.
            let bytes = [&[1, 0], &bytes[..]].concat();
            let mut input = &bytes[..];
            while let Some(frame) = frames.next(&mut input).unwrap() {
                if let frame::Frame::Data(data) = frame {
                    capsules.push(data);
                }
            }
        }
        std::iter::from_fn(|| capsules.next().unwrap()).collect()
    }
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

fn routes(list: &[&str]) -> Vec<RouteRange> {
    range::from_prefixes(&nets(list))
}

fn assignment(addresses: &[&str], reach: &[&str]) -> Assignment {
    Assignment {
        addresses: nets(addresses),
        routes: routes(reach),
        v6_pending: false,
    }
}

fn assigned(entries: &[(u64, &str)]) -> Capsule {
    let entry = |(request_id, net): &(u64, &str)| AssignedAddress {
        request_id: *request_id,
        prefix: net.parse().unwrap(),
    };
    Capsule::AddressAssign(entries.iter().map(entry).collect())
}

fn data(capsules: &[Capsule]) -> Vec<u8> {
    let mut payload = Vec::new();
    capsules
        .iter()
        .for_each(|capsule| capsule.encode(&mut payload));
    let mut out = Vec::new();
    frame::encode(frame::DATA, &payload, &mut out);
    out
}

/// The client's first bidirectional stream and the first unidirectional stream of each.
const REQUEST: u64 = 0;
const CLIENT_CONTROL: u64 = 2;
const GATEWAY_CONTROL: u64 = 3;
