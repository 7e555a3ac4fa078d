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
            "a_socket_that_takes_datagrams_ends_a_wait_only_where_that_was_asked",
            a_socket_that_takes_datagrams_ends_a_wait_only_where_that_was_asked,
        ),
    ]
}

fn a_wait_ends_at_its_deadline_and_not_before() {
    let place = Place::new();
    let now = Instant::now();
    let deadline = now + Duration::from_micros(3_400);
    assert_eq!(place.wait(now, Some(deadline)), Ready::default());
    assert!(Instant::now() >= deadline);
    let past = place.wait(Instant::now(), Some(now));
    assert_eq!(past, Ready::default());
}

fn a_waker_ends_a_wait_once() {
    let place = Place::new();
    let waker = place.poller.waker();
    let thread = std::thread::spawn(move || {
        waker.wake();
        waker.wake();
    });
    assert!(place.wait(Instant::now(), None).woken);
    thread.join().expect("ended");
    // The second wake came during the first wait, or ends this one; then there is none left.
    let now = Instant::now();
    place.wait(now, Some(now));
    assert_eq!(place.wait(now, Some(now)), Ready::default());
}

fn what_is_not_drained_stays_ready() {
    let mut place = Place::new();
    let mut peer = bind("127.0.0.1:0");
    peer.send(&to(place.udp.local_address(), b"hello"))
        .expect("sent");
    for _ in 0..3 {
        let ready = place.wait(Instant::now(), None);
        assert!(ready.udp && ready.tun.is_empty());
    }
    let mut received = Vec::new();
    place.udp.recv(&mut received).expect("received");
    assert_eq!(received.len(), 1);
    let now = Instant::now();
    assert!(!place.wait(now, Some(now)).udp);
}

fn a_socket_that_takes_datagrams_ends_a_wait_only_where_that_was_asked() {
    let place = Place::new();
    let watch = |until_writable| Watch {
        until_writable,
        ..place.watch()
    };
    // Without a deadline: were it not told, this would never end.
    let ready = place.poller.wait(watch(true), Instant::now(), None);
    assert_eq!(ready.expect("ready"), Ready::default());
    let now = Instant::now();
    let deadline = now + Duration::from_millis(2);
    let ready = place.poller.wait(watch(false), now, Some(deadline));
    assert_eq!(ready.expect("waited"), Ready::default());
    assert!(Instant::now() >= deadline);
}

/// What a packet thread waits for.
struct Place {
    udp: Udp,
    tun: Tun,
    poller: Poller,
}

impl Place {
    fn new() -> Self {
        Self {
            udp: bind("127.0.0.1:0"),
            tun: Tun::open("adit0", 1400).expect("a device"),
            poller: Poller::new().expect("a poller"),
        }
    }

    fn watch(&self) -> Watch<'_> {
        Watch {
            udp: &self.udp,
            until_writable: false,
            tun: &self.tun,
        }
    }

    fn wait(&self, now: Instant, deadline: Option<Instant>) -> Ready {
        self.poller
            .wait(self.watch(), now, deadline)
            .expect("waited")
    }
}
