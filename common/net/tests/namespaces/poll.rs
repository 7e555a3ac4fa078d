//! Waiting.

use std::time::{Duration, Instant};

use adit_net::poll::{Poller, Ready, Watch};
use adit_net::tun::Tun;
use adit_net::udp::Udp;
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
            "writability_is_told_only_where_asked",
            writability_is_told_only_where_asked,
        ),
    ]
}

fn a_wait_ends_at_its_deadline_and_not_before() {
    let (udp, tun) = (
        bind("127.0.0.1:0"),
        Tun::open("adit0", 1400).expect("a device"),
    );
    let poller = Poller::new().expect("a poller");
    let now = Instant::now();
    let deadline = now + Duration::from_micros(3_400);
    assert_eq!(
        poller
            .wait(watch(&udp, &tun), now, Some(deadline))
            .expect("waited"),
        Ready::default()
    );
    assert!(Instant::now() >= deadline);
    assert_eq!(
        poller
            .wait(watch(&udp, &tun), Instant::now(), Some(now))
            .expect("past"),
        Ready::default()
    );
}

fn a_waker_ends_a_wait_once() {
    let (udp, tun) = (
        bind("127.0.0.1:0"),
        Tun::open("adit0", 1400).expect("a device"),
    );
    let poller = Poller::new().expect("a poller");
    let waker = poller.waker();
    let thread = std::thread::spawn(move || {
        waker.wake();
        waker.wake();
    });
    assert!(
        poller
            .wait(watch(&udp, &tun), Instant::now(), None)
            .expect("woken")
            .woken
    );
    thread.join().expect("ended");
    // The second wake came during the first wait, or ends this one; then there is none left.
    let now = Instant::now();
    poller
        .wait(watch(&udp, &tun), now, Some(now))
        .expect("waited");
    assert_eq!(
        poller
            .wait(watch(&udp, &tun), now, Some(now))
            .expect("waited"),
        Ready::default()
    );
}

fn what_is_not_drained_stays_ready() {
    let (mut udp, tun) = (
        bind("127.0.0.1:0"),
        Tun::open("adit0", 1400).expect("a device"),
    );
    let mut peer = bind("127.0.0.1:0");
    let poller = Poller::new().expect("a poller");
    peer.send(&to(udp.local_address(), b"hello")).expect("sent");
    for _ in 0..3 {
        let ready = poller
            .wait(watch(&udp, &tun), Instant::now(), None)
            .expect("ready");
        assert!(ready.udp && ready.tun.is_empty() && !ready.udp_writable);
    }
    assert_eq!(udp.recv(&mut Vec::new()).expect("received"), 1);
    let now = Instant::now();
    assert!(
        !poller
            .wait(watch(&udp, &tun), now, Some(now))
            .expect("waited")
            .udp
    );
}

fn writability_is_told_only_where_asked() {
    let (udp, tun) = (
        bind("127.0.0.1:0"),
        Tun::open("adit0", 1400).expect("a device"),
    );
    let poller = Poller::new().expect("a poller");
    let now = Instant::now();
    let ask = |until_writable| {
        let watch = Watch {
            until_writable,
            ..watch(&udp, &tun)
        };
        poller.wait(watch, now, Some(now)).expect("waited")
    };
    assert!(ask(true).udp_writable);
    assert!(!ask(false).udp_writable);
}

fn watch<'a>(udp: &'a Udp, tun: &'a Tun) -> Watch<'a> {
    Watch {
        udp,
        until_writable: false,
        tun,
    }
}
