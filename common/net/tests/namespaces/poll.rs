//! Waiting.

use std::time::{Duration, Instant};

use adit_net::poll::{Poller, Ready};
use adit_net::tun::Tun;
use libtest_mimic::Trial;

use crate::namespace::trial;
use crate::udp::{bind, to};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_wait_ends_at_its_deadline_and_not_before",
            a_wait_ends_at_its_deadline_and_not_before,
        ),
        trial("a_waker_ends_a_wait_once", a_waker_ends_a_wait_once),
        trial(
            "what_is_not_drained_stays_ready",
            what_is_not_drained_stays_ready,
        ),
        trial(
            "writability_is_told_only_while_held",
            writability_is_told_only_while_held,
        ),
        trial("a_socket_can_be_replaced", a_socket_can_be_replaced),
    ]
}

fn a_wait_ends_at_its_deadline_and_not_before() {
    let (udp, tun) = (
        bind("127.0.0.1:0"),
        Tun::open("adit0", 1400).expect("a device"),
    );
    let mut poller = Poller::new(&udp, &tun).expect("a poller");
    let now = Instant::now();
    let deadline = now + Duration::from_micros(3_400);
    assert_eq!(
        poller.wait(now, Some(deadline)).expect("waited"),
        Ready::default()
    );
    assert!(Instant::now() >= deadline);
    assert_eq!(
        poller.wait(Instant::now(), Some(now)).expect("past"),
        Ready::default()
    );
}

fn a_waker_ends_a_wait_once() {
    let (udp, tun) = (
        bind("127.0.0.1:0"),
        Tun::open("adit0", 1400).expect("a device"),
    );
    let mut poller = Poller::new(&udp, &tun).expect("a poller");
    let waker = poller.waker();
    let thread = std::thread::spawn(move || {
        waker.wake();
        waker.wake();
    });
    assert!(poller.wait(Instant::now(), None).expect("woken").woken);
    thread.join().expect("ended");
    // The second wake came during the first wait, or ends this one; then there is none left.
    let now = Instant::now();
    poller.wait(now, Some(now)).expect("waited");
    assert_eq!(
        poller.wait(now, Some(now)).expect("waited"),
        Ready::default()
    );
}

fn what_is_not_drained_stays_ready() {
    let (mut udp, tun) = (
        bind("127.0.0.1:0"),
        Tun::open("adit0", 1400).expect("a device"),
    );
    let mut peer = bind("127.0.0.1:0");
    let mut poller = Poller::new(&udp, &tun).expect("a poller");
    peer.send(&to(udp.local_address(), b"hello")).expect("sent");
    for _ in 0..3 {
        let ready = poller.wait(Instant::now(), None).expect("ready");
        assert!(ready.udp && ready.tun.is_empty() && !ready.udp_writable);
    }
    assert_eq!(udp.recv(&mut Vec::new()).expect("received"), 1);
    let now = Instant::now();
    assert!(!poller.wait(now, Some(now)).expect("waited").udp);
}

fn writability_is_told_only_while_held() {
    let (udp, tun) = (
        bind("127.0.0.1:0"),
        Tun::open("adit0", 1400).expect("a device"),
    );
    let mut poller = Poller::new(&udp, &tun).expect("a poller");
    let now = Instant::now();
    let mut ask = |held| {
        poller.hold(&udp, held).expect("watched");
        poller.wait(now, Some(now)).expect("waited")
    };
    assert!(ask(true).udp_writable);
    assert!(!ask(false).udp_writable);
}

fn a_socket_can_be_replaced() {
    let (old, tun) = (
        bind("127.0.0.1:0"),
        Tun::open("adit0", 1400).expect("a device"),
    );
    let new = bind("127.0.0.1:0");
    let mut poller = Poller::new(&old, &tun).expect("a poller");
    poller.replace_udp(&old, &new).expect("replaced");
    drop(old);
    bind("127.0.0.1:0")
        .send(&to(new.local_address(), b"hello"))
        .expect("sent");
    assert!(poller.wait(Instant::now(), None).expect("ready").udp);
}
