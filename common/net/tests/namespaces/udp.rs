//! The outside socket over loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_net::udp::{self, EcnCodepoint, Received, Steering, Transmit, Udp, UdpError, UdpOptions};
use libtest_mimic::Trial;

use crate::namespace::{drop_capabilities, run, set_sysctl, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_batch_is_sent_and_received_in_one_piece",
            a_batch_is_sent_and_received_in_one_piece,
        ),
        trial(
            "every_datagram_is_whole_whatever_its_size",
            every_datagram_is_whole_whatever_its_size,
        ),
        trial(
            "one_socket_serves_both_families",
            one_socket_serves_both_families,
        ),
        trial(
            "without_ipv6_the_socket_is_ipv4",
            without_ipv6_the_socket_is_ipv4,
        ),
        trial("a_closed_port_ends_nothing", a_closed_port_ends_nothing),
        trial(
            "a_datagram_too_big_is_lost_alone",
            a_datagram_too_big_is_lost_alone,
        ),
        trial("the_route_tells_the_path_mtu", the_route_tells_the_path_mtu),
        trial(
            "a_capped_buffer_is_reported_with_the_sysctl",
            a_capped_buffer_is_reported_with_the_sysctl,
        ),
        trial("a_taken_port_is_named", a_taken_port_is_named),
        trial("a_mark_needs_the_capability", a_mark_needs_the_capability),
        trial(
            "a_datagram_names_the_socket_of_several_that_gets_it",
            a_datagram_names_the_socket_of_several_that_gets_it,
        ),
        trial(
            "a_port_of_several_sockets_is_taken_for_everybody_else",
            a_port_of_several_sockets_is_taken_for_everybody_else,
        ),
    ]
}

fn a_batch_is_sent_and_received_in_one_piece() {
    for (from, to) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::]:0", "127.0.0.1"),
        ("[::]:0", "::1"),
    ] {
        let (a, b) = (bind(from), bind(from));
        let to = to.parse().expect("an address");
        let to = SocketAddr::new(to, b.local_address().port());
        send_a_batch(a, b, to);
    }
}

fn send_a_batch(mut a: Udp, mut b: Udp, to: SocketAddr) {
    assert!(
        a.max_segments() >= 40,
        "this kernel has segmentation offload"
    );
    let contents: Vec<u8> = (0..40 * 1200 - 100).map(|n| (n % 251) as u8).collect();
    let transmit = Transmit {
        destination: to,
        ecn: Some(EcnCodepoint::Ect0),
        contents: &contents,
        segment_size: Some(1200),
        src_ip: None,
    };
    a.send(&transmit).expect("sent");
    let mut batches = receive(&mut b, 40);
    assert!(
        batches.len() < 40,
        "{} batches: nothing was coalesced",
        batches.len()
    );
    assert_eq!(batches[0].stride, 1200);
    assert_eq!(batches[0].ecn, Some(EcnCodepoint::Ect0));
    assert_eq!(
        batches[0].remote,
        SocketAddr::new(to.ip(), a.local_address().port())
    );
    assert_eq!(batches[0].local_ip, Some(to.ip()));
    let datagrams = datagrams(&mut batches);
    assert!(
        datagrams[..39]
            .iter()
            .all(|datagram| datagram.len() == 1200)
    );
    assert_eq!(datagrams.concat(), contents);
}

fn every_datagram_is_whole_whatever_its_size() {
    let (mut a, mut b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    // Kept until the end: buffers must not be reused while somebody looks at them.
    let mut kept = Vec::new();
    for round in 0..400usize {
        let len = [1, 100, 1400, 4096, 4097, 20_000, 65_507][round % 7];
        let contents = vec![round as u8; len];
        a.send(&to(b.local_address(), &contents)).expect("sent");
        let mut batches = receive(&mut b, 1);
        let datagram = batches[0].next_datagram().expect("a datagram");
        assert!(batches[0].next_datagram().is_none());
        kept.push((contents, datagram));
        if kept.len() > 50 {
            kept.drain(..25);
        }
        assert!(kept.iter().all(|(sent, received)| sent[..] == received[..]));
    }
}

fn one_socket_serves_both_families() {
    let mut both = bind("[::]:0");
    let port = both.local_address().port();
    for peer in ["127.0.0.1", "[::1]"] {
        let mut peer = bind(&format!("{peer}:0"));
        let here = SocketAddr::new(peer.local_address().ip(), port);
        peer.send(&to(here, b"hello")).expect("sent");
        let batches = receive(&mut both, 1);
        assert_eq!(batches[0].remote, peer.local_address(), "in its own family");
        assert_eq!(batches[0].local_ip, Some(here.ip()));
        let answer = Transmit {
            src_ip: batches[0].local_ip,
            ..to(batches[0].remote, b"answer")
        };
        both.send(&answer).expect("answered");
        let batches = receive(&mut peer, 1);
        assert_eq!(batches[0].remote, here);
        assert_eq!(batches[0].data[..], b"answer"[..]);
    }
}

fn without_ipv6_the_socket_is_ipv4() {
    set_sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    let (mut any, mut peer) = (bind("[::]:0"), bind("127.0.0.1:0"));
    let here = SocketAddr::new(
        "127.0.0.1".parse().expect("an address"),
        any.local_address().port(),
    );
    peer.send(&to(here, b"hello")).expect("sent");
    assert_eq!(receive(&mut any, 1)[0].remote, peer.local_address());
}

fn a_closed_port_ends_nothing() {
    let (mut a, mut b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let closed = bind("127.0.0.1:0").local_address();
    let mut received = Vec::new();
    for _ in 0..200 {
        a.send(&to(closed, b"anybody there?"))
            .expect("a refusal is not an error");
        assert!(!a.recv(&mut received).expect("readable") && received.is_empty());
    }
    b.send(&to(a.local_address(), b"here")).expect("sent");
    assert_eq!(receive(&mut a, 1)[0].remote, b.local_address());
}

fn a_datagram_too_big_is_lost_alone() {
    run("ip link set lo mtu 1300");
    let (mut a, mut b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let error = a
        .send(&to(b.local_address(), &[0; 1400]))
        .expect_err("never fragmented");
    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock);
    a.send(&to(b.local_address(), &[0; 1200])).expect("sent");
    assert_eq!(receive(&mut b, 1)[0].data.len(), 1200);
}

fn the_route_tells_the_path_mtu() {
    run("ip link set lo mtu 1444");
    for address in ["127.0.0.1:1", "[::1]:1"] {
        let remote = address.parse().expect("an address");
        assert_eq!(udp::path_mtu(remote, Some(7)), Some(1444), "{address}");
    }
    run("ip link set lo mtu 65536");
    assert_eq!(
        udp::path_mtu("127.0.0.1:1".parse().expect("an address"), None),
        Some(65_535)
    );
    assert_eq!(
        udp::path_mtu("192.0.2.1:1".parse().expect("an address"), None),
        None,
        "no route"
    );
    let udp = bind("[::]:0");
    let remote = "127.0.0.1:1".parse().expect("an address");
    assert_eq!(
        udp.source_towards(remote),
        Some("127.0.0.1".parse().expect("an address"))
    );
}

fn a_capped_buffer_is_reported_with_the_sysctl() {
    let limit: usize = std::fs::read_to_string("/proc/sys/net/core/rmem_max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(212_992);
    drop_capabilities();
    let options = UdpOptions {
        receive_buffer: limit + 4096,
        ..UdpOptions::default()
    };
    let udp = Udp::bind("127.0.0.1:0".parse().expect("an address"), &options).expect("bound");
    assert_eq!(udp.buffers().receive, limit);
    let hint = udp.buffers().hint().expect("capped");
    assert!(hint.contains("net.core.rmem_max"), "{hint}");
}

fn a_taken_port_is_named() {
    let first = bind("127.0.0.1:0");
    let address = first.local_address();
    let error = Udp::bind(address, &UdpOptions::default()).expect_err("taken");
    assert!(matches!(error, UdpError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let elsewhere = "192.0.2.1:443".parse().expect("an address");
    let error = Udp::bind(elsewhere, &UdpOptions::default()).expect_err("not ours");
    assert!(matches!(error, UdpError::NotOurs { .. }), "{error}");
}

fn a_mark_needs_the_capability() {
    let options = UdpOptions {
        mark: Some(0xad17),
        ..UdpOptions::default()
    };
    let any = "127.0.0.1:0".parse().expect("an address");
    Udp::bind(any, &options).expect("root may");
    drop_capabilities();
    let error = Udp::bind(any, &options).expect_err("nobody else");
    assert!(matches!(error, UdpError::Mark { mark: 0xad17 }), "{error}");
}

fn a_datagram_names_the_socket_of_several_that_gets_it() {
    for (local, from, here) in [
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"),
        ("[::]:0", "127.0.0.1:0", "127.0.0.1"),
        ("[::]:0", "[::1]:0", "::1"),
    ] {
        let mut sockets = bind_several(local, 3);
        let here = here.parse().expect("an address");
        let here = SocketAddr::new(here, sockets[0].local_address().port());
        // Many peers: left to the kernel's hash, some would come to the wrong socket.
        for _ in 0..10 {
            let mut peer = bind(from);
            for (first, second, expected) in [
                (0x40, 0, 0),
                (0x5f, 1, 1),
                (0x40, 2, 2),
                (0xc0, 2, 0),
                (0x80, 1, 0),
            ] {
                let contents = [first, second, 7, 7];
                peer.send(&to(here, &contents)).expect("sent");
                let batches = receive(&mut sockets[expected], 1);
                assert_eq!(batches[0].data[..], contents, "{local} from {from}");
            }
            peer.send(&to(here, &[0x40])).expect("sent");
            assert_eq!(receive(&mut sockets[0], 1)[0].data[..], [0x40]);
        }
        // A batch stays together, and a number without a socket still finds one.
        let mut peer = bind(from);
        let contents: Vec<u8> = [0x40, 2].into_iter().cycle().take(20 * 1200).collect();
        let batch = Transmit {
            segment_size: Some(1200),
            ..to(here, &contents)
        };
        peer.send(&batch).expect("sent");
        assert_eq!(datagrams(&mut receive(&mut sockets[2], 20)).len(), 20);
        peer.send(&to(here, &[0x40, 200])).expect("sent");
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut into = Vec::new();
        while into.is_empty() {
            for socket in &mut sockets {
                socket.recv(&mut into).expect("readable");
            }
            assert!(Instant::now() < deadline, "it went nowhere");
        }
        assert_eq!(into[0].data[..], [0x40, 200]);
    }
}

fn a_port_of_several_sockets_is_taken_for_everybody_else() {
    let sockets = bind_several("[::]:0", 3);
    let address = sockets[0].local_address();
    assert!(
        sockets
            .iter()
            .all(|socket| socket.local_address() == address)
    );
    for count in [1, 2] {
        let error = Udp::bind_several(address, &UdpOptions::default(), count, STEERING);
        let error = error.expect_err("taken");
        assert!(matches!(error, UdpError::InUse { .. }), "{error}");
    }
    drop(sockets);
    let other = bind(&address.to_string());
    let error = Udp::bind_several(address, &UdpOptions::default(), 2, STEERING);
    assert!(matches!(error, Err(UdpError::InUse { .. })));
    drop(other);
}

fn bind_several(address: &str, count: u8) -> Vec<Udp> {
    let address = address.parse().expect("an address");
    Udp::bind_several(address, &UdpOptions::default(), count, STEERING).expect("bound")
}

const STEERING: Steering = Steering {
    to_the_first: 0x80,
    number_at: 1,
};

pub(crate) fn bind(address: &str) -> Udp {
    Udp::bind(address.parse().expect("an address"), &UdpOptions::default()).expect("bound")
}

pub(crate) fn to(destination: SocketAddr, contents: &[u8]) -> Transmit<'_> {
    Transmit {
        destination,
        ecn: None,
        contents,
        segment_size: None,
        src_ip: None,
    }
}

/// Waits for this many datagrams.
fn receive(udp: &mut Udp, count: usize) -> Vec<Received> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut batches: Vec<Received> = Vec::new();
    loop {
        udp.recv(&mut batches).expect("readable");
        let lengths = batches
            .iter()
            .map(|batch| batch.data.len().div_ceil(batch.stride));
        if lengths.sum::<usize>() >= count {
            return batches;
        }
        assert!(Instant::now() < deadline, "too few datagrams came");
        std::thread::yield_now();
    }
}

fn datagrams(batches: &mut [Received]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for batch in batches {
        while let Some(datagram) = batch.next_datagram() {
            all.push(datagram.to_vec());
        }
    }
    all
}
