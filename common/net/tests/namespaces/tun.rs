//! The TUN device against the kernel's own stack.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use adit_core::offload::{self, Offload};
use adit_net::host::{Host, Network};
use adit_net::poll::{Poller, Watch};
use adit_net::tun::{Tun, TunError};
use adit_net::udp::{Udp, UdpOptions};
use bytes::Bytes;
use libtest_mimic::Trial;

use crate::namespace::{block_on, drop_capabilities, run, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_packet_has_headroom_and_its_answer_arrives",
            a_packet_has_headroom_and_its_answer_arrives,
        ),
        trial(
            "the_kernel_pings_through_the_device",
            the_kernel_pings_through_the_device,
        ),
        trial(
            "a_refused_packet_does_not_harm_the_device",
            a_refused_packet_does_not_harm_the_device,
        ),
        trial(
            "a_second_device_of_the_same_name_is_refused",
            a_second_device_of_the_same_name_is_refused,
        ),
        trial(
            "another_kind_of_interface_is_not_taken",
            another_kind_of_interface_is_not_taken,
        ),
        trial(
            "without_the_driver_the_error_says_so",
            without_the_driver_the_error_says_so,
        ),
        trial(
            "without_the_capability_the_error_says_so",
            without_the_capability_the_error_says_so,
        ),
        trial("an_impossible_mtu_is_refused", an_impossible_mtu_is_refused),
        trial(
            "a_flow_comes_to_the_queue_that_its_answers_are_written_to",
            a_flow_comes_to_the_queue_that_its_answers_are_written_to,
        ),
        trial(
            "what_the_kernel_answers_by_itself_is_there_at_once",
            what_the_kernel_answers_by_itself_is_there_at_once,
        ),
        trial(
            "a_device_with_several_queues_is_one_device",
            a_device_with_several_queues_is_one_device,
        ),
        trial(
            "a_flood_to_one_address_leaves_room_for_answers_to_others",
            a_flood_to_one_address_leaves_room_for_answers_to_others,
        ),
        trial(
            "whoever_shares_a_queue_with_a_flood_is_moved_out_of_it",
            whoever_shares_a_queue_with_a_flood_is_moved_out_of_it,
        ),
    ]
}

/// A device with addresses, up.
fn open() -> (Tun, Host, tempfile::TempDir) {
    let tun = Tun::open("adit0", 1400).expect("a device");
    let (host, state) = configured();
    (tun, host, state)
}

fn configured() -> (Host, tempfile::TempDir) {
    let state = tempfile::tempdir().expect("a directory");
    let host = block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        let network = Network {
            mtu: 1400,
            addresses: vec![
                "10.99.0.1/24".parse().expect("a prefix"),
                "fd00:ad17::1/64".parse().expect("a prefix"),
            ],
            ..Network::default()
        };
        host.apply(&network).await.expect("applied");
        host
    });
    (host, state)
}

fn a_packet_has_headroom_and_its_answer_arrives() {
    let (mut tun, _host, _state) = open();
    let socket = UdpSocket::bind("10.99.0.1:0").expect("bound");
    socket.send_to(b"question", "10.99.0.2:7").expect("sent");
    let mut packet = next(&mut tun, |packet| packet[0] >> 4 == 4 && packet[9] == 17);
    assert_eq!(&packet[packet.len() - 8..], b"question");
    turn_round(&mut packet);
    tun.send(packet.into());
    assert_eq!(tun.flush(), 0, "the kernel takes it");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    let mut buffer = [0; 64];
    let (len, peer) = socket.recv_from(&mut buffer).expect("the answer");
    assert_eq!(
        (&buffer[..len], peer.to_string().as_str()),
        (&b"question"[..], "10.99.0.2:7")
    );
}

fn the_kernel_pings_through_the_device() {
    let (mut tun, _host, _state) = open();
    for (address, echo, reply, at) in [("10.99.0.2", 8, 0, 20), ("fd00:ad17::2", 128, 129, 40)] {
        let mut ping = Command::new("ping")
            .args(["-n", "-c", "3", "-i", "0.01", "-W", "5", address])
            .stdout(Stdio::null())
            .spawn()
            .expect("this test needs the program ping (iputils-ping)");
        for _ in 0..3 {
            let mut packet = next(&mut tun, |packet| packet.len() > at && packet[at] == echo);
            let addresses = if at == 20 { (12, 4) } else { (8, 16) };
            let (first, len) = addresses;
            let (left, right) = packet[first..first + 2 * len].split_at_mut(len);
            left.swap_with_slice(right);
            packet[at] = reply;
            // RFC 1624: the type is the high byte of its word; the swapped addresses add up to the same.
            let sum = u16::from_be_bytes([packet[at + 2], packet[at + 3]]);
            let changed =
                u32::from(!sum) + u32::from(!(u16::from(echo) << 8)) + (u32::from(reply) << 8);
            let folded = (changed & 0xffff) + (changed >> 16);
            let folded = ((folded & 0xffff) + (folded >> 16)) as u16;
            packet[at + 2..at + 4].copy_from_slice(&(!folded).to_be_bytes());
            tun.send(packet.into());
            assert_eq!(tun.flush(), 0, "the kernel takes it");
        }
        assert!(ping.wait().expect("ended").success(), "ping {address}");
    }
}

fn a_refused_packet_does_not_harm_the_device() {
    let (mut tun, mut host, _state) = open();
    for bad in [&[0xff; 40][..], &[]] {
        tun.send(Bytes::from_static(bad));
        assert_eq!(tun.flush(), 1, "{bad:?}");
    }
    let socket = UdpSocket::bind("10.99.0.1:0").expect("bound");
    socket.send_to(b"still there", "10.99.0.2:7").expect("sent");
    next(&mut tun, |packet| packet[0] >> 4 == 4 && packet[9] == 17);
    block_on(host.undo()).expect("undone");
    tun.send(Bytes::from_static(&[0x45; 40]));
    assert_eq!(tun.flush(), 1, "the link is down");
    assert!(
        tun.recv(0)
            .expect("a device that is down is a device")
            .is_none()
    );
}

fn a_second_device_of_the_same_name_is_refused() {
    let _first = Tun::open("adit0", 1400).expect("a device");
    let error = Tun::open("adit0", 1400).expect_err("taken");
    assert!(matches!(error, TunError::Busy { .. }), "{error}");
    assert!(error.hint().is_some());
}

fn another_kind_of_interface_is_not_taken() {
    let error = Tun::open("lo", 1400).expect_err("loopback");
    assert!(matches!(error, TunError::NotTun { .. }), "{error}");
    for name in ["", "sixteen-letters-", "a/b", "a b", "tun%d", ".."] {
        let error = Tun::open(name, 1400).expect_err(name);
        assert!(matches!(error, TunError::Name { .. }), "{name}: {error}");
    }
}

fn without_the_driver_the_error_says_so() {
    run("mount -t tmpfs none /dev/net");
    let error = Tun::open("adit0", 1400).expect_err("no device node");
    assert!(matches!(error, TunError::NoDriver), "{error}");
    assert!(error.hint().expect("a hint").contains("modprobe tun"));
}

fn without_the_capability_the_error_says_so() {
    drop_capabilities();
    let error = Tun::open("adit0", 1400).expect_err("no right");
    assert!(matches!(error, TunError::Permission { .. }), "{error}");
    assert!(error.hint().expect("a hint").contains("CAP_NET_ADMIN"));
}

fn an_impossible_mtu_is_refused() {
    let error = Tun::open("adit0", 20).expect_err("too small");
    assert!(matches!(error, TunError::Mtu { mtu: 20, .. }), "{error}");
}

fn a_flow_comes_to_the_queue_that_its_answers_are_written_to() {
    let mut queues = Tun::open_several("adit0", 1400, 3, 1).expect("a device");
    let (_host, _state) = configured();
    let socket = UdpSocket::bind("10.99.0.1:0").expect("bound");
    let ask = |queues: &mut Vec<Tun>| {
        socket.send_to(b"question", "10.99.0.2:7").expect("sent");
        arrived(queues)
    };
    let (_, mut answer) = ask(&mut queues);
    turn_round(&mut answer);
    for queue in [2, 0, 1, 2] {
        queues[queue].send(answer.clone().into());
        assert_eq!(queues[queue].flush(), 0, "the kernel takes it");
        for _ in 0..3 {
            assert_eq!(ask(&mut queues).0, queue);
        }
    }
}

fn what_the_kernel_answers_by_itself_is_there_at_once() {
    let mut tun = Tun::open_several("adit0", 1400, 1, 8).expect("a device");
    let tun = &mut tun[0];
    let (_host, _state) = configured();
    let mut ping = Command::new("ping")
        .args(["-c1", "-W1", "10.99.0.2"])
        .stdout(Stdio::null())
        .spawn()
        .expect("this test needs the program ping (iputils-ping)");
    let echo = |packet: &[u8], kind| packet[0] >> 4 == 4 && packet[9] == 1 && packet[20] == kind;
    let mut question = next(tun, |packet| echo(packet, 8));
    // The same question from the other side: no checksum notices.
    let (source, destination): ([u8; 4], [u8; 4]) = (bytes(&question, 12), bytes(&question, 16));
    question[12..16].copy_from_slice(&destination);
    question[16..20].copy_from_slice(&source);
    assert!(tun.answered().is_empty(), "nothing was written");
    tun.send(question.into());
    assert_eq!(tun.flush(), 0, "the kernel takes it");
    let mut waiting = tun.answered();
    let mut is_answered = false;
    while let Some((packet, _)) = tun.recv_waiting(&mut waiting, 0).expect("readable") {
        is_answered |= echo(&packet, 0);
    }
    assert!(is_answered && tun.answered().is_empty());
    let _ = ping.wait();
}

fn a_device_with_several_queues_is_one_device() {
    let mut queues = Tun::open_several("adit0", 1400, 3, 1).expect("a device");
    assert_eq!(run("ip -br link show type tun").lines().count(), 1);
    for count in [1, 2] {
        let error = Tun::open_several("adit0", 1400, count, 2).expect_err("taken");
        assert!(matches!(error, TunError::Busy { .. }), "{error}");
    }
    let (_host, _state) = configured();
    // A thread that ends takes its queue along and nothing else.
    queues.remove(0);
    let socket = UdpSocket::bind("10.99.0.1:0").expect("bound");
    socket.send_to(b"question", "10.99.0.2:7").expect("sent");
    arrived(&mut queues);
    drop(queues);
    assert_eq!(run("ip -br link show type tun").lines().count(), 0);
}

fn a_flood_to_one_address_leaves_room_for_answers_to_others() {
    let mut tun = Tun::open_several("adit0", 1400, 1, 8).expect("a device");
    let (_host, _state) = configured();
    let socket = UdpSocket::bind("10.99.0.1:0").expect("bound");
    let others: Vec<Ipv4Addr> = (3..19).map(|n| Ipv4Addr::new(10, 99, 0, n)).collect();
    let flooded = Ipv4Addr::new(10, 99, 0, 2);
    // Each has spoken once, so that the kernel knows where to put what it is answered.
    for address in others.iter().chain([&flooded]) {
        socket.send_to(b"question", (*address, 7)).expect("sent");
        let (_, mut answer) = arrived(&mut tun);
        turn_round(&mut answer);
        tun[0].send(answer.into());
        assert_eq!(tun[0].flush(), 0, "the kernel takes it");
    }
    for _ in 0..10_000 {
        socket.send_to(b"flood", (flooded, 7)).expect("sent");
    }
    for address in &others {
        socket.send_to(b"question", (*address, 7)).expect("sent");
    }
    let mut seen = BTreeSet::new();
    let mut flood = 0;
    while let Some((packet, _)) = tun[0].recv(0).expect("readable") {
        match packet
            .get(16..20)
            .and_then(|bytes| bytes.first_chunk::<4>())
        {
            Some(to) if packet[9] == 17 && others.contains(&(*to).into()) => {
                assert!(flood < 100, "read in turn");
                seen.insert(*to);
            }
            _ => flood += 1,
        }
    }
    assert!(flood < 10_000, "the flood filled its queue");
    // Some share the queue of the flooded address: one in eight of sixteen, give or take.
    assert!(
        seen.len() >= 9,
        "{} of {} answered",
        seen.len(),
        others.len()
    );
}

fn whoever_shares_a_queue_with_a_flood_is_moved_out_of_it() {
    let mut tun = Tun::open_several("adit0", 1400, 1, 8).expect("a device");
    let (_host, _state) = configured();
    let socket = UdpSocket::bind("10.99.0.1:0").expect("bound");
    let flooded = Ipv4Addr::new(10, 99, 0, 2);
    let others: Vec<Ipv4Addr> = (3..35).map(|n| Ipv4Addr::new(10, 99, 0, n)).collect();
    let mut answers = Vec::new();
    for address in std::iter::once(&flooded).chain(&others) {
        socket.send_to(b"question", (*address, 7)).expect("sent");
        let (_, mut answer) = arrived(&mut tun);
        turn_round(&mut answer);
        answers.push(Bytes::from(answer));
    }
    let speak = |tun: &mut Tun| {
        answers.iter().cloned().for_each(|answer| tun.send(answer));
        assert_eq!(tun.flush(), 0, "the kernel takes it");
    };
    let flood = || {
        for _ in 0..10_000 {
            socket.send_to(b"flood", (flooded, 7)).expect("sent");
        }
    };
    speak(&mut tun[0]);
    flood();
    // Enough of the flood to know it, and by far not all of what fits the queue.
    for _ in 0..1000 {
        tun[0].recv(0).expect("readable").expect("a packet");
    }
    speak(&mut tun[0]);
    flood();
    for address in &others {
        socket.send_to(b"question", (*address, 7)).expect("sent");
    }
    let mut seen = BTreeSet::new();
    while let Some((packet, _)) = tun[0].recv(0).expect("readable") {
        if let Some(to) = packet.get(16..20).and_then(|bytes| bytes.first_chunk()) {
            seen.insert(Ipv4Addr::from(*to));
        }
    }
    for address in &others {
        assert!(seen.contains(address), "{address} was asked in vain");
    }
}

/// The next UDP packet over IPv4, and the number of the queue it came to.
fn arrived(queues: &mut [Tun]) -> (usize, Vec<u8>) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        for (number, queue) in queues.iter_mut().enumerate() {
            while let Some((mut packet, offload)) = queue.recv(0).expect("readable") {
                if let Offload::Checksum(partial) = offload {
                    assert!(offload::complete_checksum(&mut packet, partial));
                }
                if packet[0] >> 4 == 4 && packet[9] == 17 {
                    return (number, packet.to_vec());
                }
            }
        }
        assert!(Instant::now() < deadline, "no packet came");
        std::thread::yield_now();
    }
}

/// Both ends of addresses and ports change places, which no checksum notices.
fn turn_round(packet: &mut [u8]) {
    let (source, destination): ([u8; 4], [u8; 4]) = (bytes(packet, 12), bytes(packet, 16));
    packet[12..16].copy_from_slice(&destination);
    packet[16..20].copy_from_slice(&source);
    let (from, to): ([u8; 2], [u8; 2]) = (bytes(packet, 20), bytes(packet, 22));
    packet[20..22].copy_from_slice(&to);
    packet[22..24].copy_from_slice(&from);
}

/// The next packet that `wanted` is true of, without its headroom. Other packets are the kernel's own chatter.
fn next(tun: &mut Tun, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let udp = Udp::bind(
        "127.0.0.1:0".parse().expect("an address"),
        &UdpOptions::default(),
    )
    .expect("bound");
    let poller = Poller::new().expect("a poller");
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        while let Some((mut packet, offload)) = tun.recv(2).expect("readable") {
            packet[..2].fill(0);
            if let Offload::Checksum(partial) = offload {
                assert!(offload::complete_checksum(&mut packet[2..], partial));
            }
            if wanted(&packet[2..]) {
                return packet[2..].to_vec();
            }
        }
        assert!(Instant::now() < deadline, "no packet came");
        let watch = Watch {
            udp: &udp,
            until_writable: false,
            tun,
        };
        poller
            .wait(watch, Instant::now(), Some(deadline))
            .expect("waited");
    }
}

fn bytes<const N: usize>(packet: &[u8], at: usize) -> [u8; N] {
    packet[at..at + N].try_into().expect("long enough")
}
