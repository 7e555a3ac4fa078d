//! Splitting and joining in the middle of real connections: both ends are the kernel's.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use adit_net::udp::{Transmit, Udp, UdpOptions};
use bytes::Bytes;
use libtest_mimic::Trial;

use crate::bridge::{From, Meddler, Wire, faithful, tcp_payload};
use crate::namespace::{Elsewhere, eventually, snmp, trial};
use crate::random::Random;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "streams_cross_two_devices_whole_and_in_few_system_calls",
            streams_cross_two_devices_whole_and_in_few_system_calls,
        ),
        trial(
            "datagrams_sent_as_one_arrive_each_with_its_own_length",
            datagrams_sent_as_one_arrive_each_with_its_own_length,
        ),
        trial(
            "a_damaged_segment_is_caught_by_the_kernel_and_sent_again",
            a_damaged_segment_is_caught_by_the_kernel_and_sent_again,
        ),
        trial(
            "streams_arrive_whole_over_a_wire_that_loses_repeats_and_reorders",
            streams_arrive_whole_over_a_wire_that_loses_repeats_and_reorders,
        ),
    ]
}

fn streams_cross_two_devices_whole_and_in_few_system_calls() {
    let mut wire = Wire::new();
    for [_, there] in ADDRESSES {
        let crossings = wire.bridge(faithful, |elsewhere| exchange(elsewhere, there, 8 << 20));
        for crossing in crossings {
            assert!(crossing.long_reads > 0, "streams are read: {crossing:?}");
            // Acknowledgements included.
            assert!(crossing.reads * 3 < crossing.packets, "{crossing:?}");
            assert!(crossing.writes * 3 < crossing.packets, "{crossing:?}");
        }
    }
    // Every checksum that we made was right.
    assert_eq!(checksum_errors(), 0);
    assert_eq!(wire.there.run(checksum_errors), 0);
}

fn datagrams_sent_as_one_arrive_each_with_its_own_length() {
    let mut wire = Wire::new();
    for [here, there] in ADDRESSES {
        for last in [1200, 100, 1] {
            let contents = Random(last + 1).bytes(20 * 1200 + last as usize);
            let crossings = wire.bridge(faithful, |elsewhere| {
                let back = elsewhere.run(|| (socket(there), receiver(there)));
                let forth = (socket(here), receiver(here));
                send_as_one(forth.0, &back.1, &contents);
                send_as_one(back.0, &forth.1, &contents);
            });
            for crossing in crossings {
                assert!(crossing.long_reads > 0, "read as one: {crossing:?}");
                let saved = crossing.packets - crossing.writes;
                assert!(saved >= 20, "written as one: {crossing:?}");
            }
        }
    }
}

fn a_damaged_segment_is_caught_by_the_kernel_and_sent_again() {
    let mut wire = Wire::new();
    let mut random = Random(0xdead_0000_ad17_0001);
    let damaged = [AtomicU64::new(0), AtomicU64::new(0)];
    for [_, there] in ADDRESSES {
        let meddle = |from, packet: Bytes, on: &mut Vec<Bytes>| match tcp_payload(&packet) {
            Some(payload) if random.once_in(100) => {
                let mut bytes = packet.to_vec();
                let at = payload + random.below((bytes.len() - payload) as u32) as usize;
                bytes[at] ^= 1 << random.below(8);
                on.push(bytes.into());
                damaged[usize::from(from == From::There)].fetch_add(1, Ordering::Relaxed);
            }
            _ => on.push(packet),
        };
        wire.bridge(meddle, |elsewhere| exchange(elsewhere, there, 4 << 20));
    }
    let [to_there, to_here] = damaged.map(AtomicU64::into_inner);
    assert!(to_there > 20 && to_here > 20, "{to_there}, {to_here}");
    // Not one was joined with others and declared right. Whichever processor handles a packet counts it, a moment
    // after it was written.
    eventually("every damage is counted here", || {
        checksum_errors() == to_here
    });
    eventually("every damage is counted there", || {
        wire.there.run(checksum_errors) == to_there
    });
}

fn streams_arrive_whole_over_a_wire_that_loses_repeats_and_reorders() {
    let mut wire = Wire::new();
    for seed in 1..=3 {
        for [_, there] in ADDRESSES {
            wire.bridge(bad_wire(seed), |elsewhere| {
                exchange(elsewhere, there, 1 << 20);
            });
        }
    }
    assert_eq!(checksum_errors(), 0);
    assert_eq!(wire.there.run(checksum_errors), 0);
}

/// Of a hundred packets, one is lost, one comes twice and two are overtaken by some of their successors.
fn bad_wire(seed: u64) -> impl Meddler {
    let mut random = Random(seed << 32 | 0xad17);
    let mut held: [Option<(u32, Bytes)>; 2] = [None, None];
    move |from, packet, on| {
        let held = &mut held[usize::from(from == From::There)];
        match random.below(100) {
            0 => {}
            1 => on.extend([packet.clone(), packet]),
            2 | 3 if held.is_none() => *held = Some((random.below(8), packet)),
            _ => on.push(packet),
        }
        match held {
            Some((0, _)) => on.extend(held.take().map(|(_, packet)| packet)),
            Some((successors, _)) => *successors -= 1,
            None => {}
        }
    }
}

/// A connection from here to `address` there, over which each end sends the other as much at the same time.
fn exchange(elsewhere: &Elsewhere, address: &str, length: usize) {
    let listener = elsewhere.run(|| TcpListener::bind((address, 0)).expect("bound"));
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    let (server, _) = listener.accept().expect("accepted");
    let ways = [(&client, &server, 1), (&server, &client, 2)];
    thread::scope(|scope| {
        for (mut from, mut to, seed) in ways {
            let sent = Random(seed).bytes(length);
            to.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            from.set_write_timeout(Some(PATIENCE)).expect("a timeout");
            let expected = sent.clone();
            scope.spawn(move || {
                from.write_all(&sent).expect("sent");
                from.shutdown(Shutdown::Write).expect("ended");
            });
            scope.spawn(move || {
                let mut received = Vec::new();
                to.read_to_end(&mut received).expect("received");
                assert_eq!(received.len(), expected.len());
                assert!(received == expected, "the bytes differ");
            });
        }
    });
}

/// Datagrams of 1200 bytes and a last one, in one system call.
fn send_as_one(mut from: Udp, to: &UdpSocket, contents: &[u8]) {
    let transmit = Transmit {
        destination: to.local_addr().expect("an address"),
        ecn: None,
        contents,
        segment_size: Some(1200),
        src_ip: None,
    };
    from.send(&transmit).expect("sent");
    let mut buffer = [0; 2000];
    for expected in contents.chunks(1200) {
        let (length, source) = to.recv_from(&mut buffer).expect("a datagram");
        assert_eq!(source, from.local_address());
        assert_eq!(length, expected.len());
        assert!(buffer[..length] == *expected, "the bytes differ");
    }
}

fn socket(address: &str) -> Udp {
    let address = SocketAddr::new(address.parse().expect("an address"), 0);
    Udp::bind(address, &UdpOptions::default()).expect("bound")
}

fn receiver(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

fn checksum_errors() -> u64 {
    snmp("Tcp", "InCsumErrors")
}

/// Here and there, by family.
const ADDRESSES: [[&str; 2]; 2] = [["10.77.0.1", "10.77.0.2"], ["fd77::1", "fd77::2"]];
/// How long a machine under load may take.
const PATIENCE: Duration = Duration::from_secs(30);
