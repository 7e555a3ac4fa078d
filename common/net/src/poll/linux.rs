//! `poll` and `eventfd`.
//!
//! Not `epoll`: a socket that is in an epoll set is never without a listener, so the kernel takes a lock and calls back
//! for every datagram that comes, and for every segment of a batch that has left, also while nobody sleeps. With `poll`
//! there are listeners only during a wait, and a busy loop hardly waits. It asks for a dozen descriptors at most.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{Ready, Watch};
use crate::tun::MAX_QUEUES;

/// An eventfd: a counter that is readable while it is not zero.
#[derive(Debug)]
pub(super) struct Bell {
    counter: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Self {
            counter: eventfd(0, flags)?,
        })
    }

    pub(super) fn ring(&self) {
        // Fails only when the counter is full, and then it is readable anyway.
        let _ = rustix::io::write(&self.counter, &1u64.to_ne_bytes());
    }

    pub(super) fn silence(&self) {
        let _ = rustix::io::read(&self.counter, &mut [0u8; 8]);
    }
}

pub(super) fn wait(watch: Watch<'_>, bell: &Bell, timeout: Option<Duration>) -> io::Result<Ready> {
    let timeout = timeout.map(|timeout| {
        // Longer than a day is the same to a loop that waits again, and fits every kernel's limits.
        let timeout = timeout.min(Duration::from_secs(86_400));
        // Whole milliseconds, rounded up: waking early would mean waking twice.
        let millis = timeout.as_nanos().div_ceil(1_000_000) as i64;
        Timespec {
            tv_sec: millis / 1000,
            tv_nsec: (millis % 1000) * 1_000_000,
        }
    });
    let mut of_socket = PollFlags::IN;
    of_socket.set(PollFlags::OUT, watch.until_writable);
    let udp = watch.udp.as_fd();
    // What is not used is the socket again, without a question.
    let mut asked: [PollFd<'_>; TUN + MAX_QUEUES as usize] =
        std::array::from_fn(|_| PollFd::from_borrowed_fd(udp, PollFlags::empty()));
    asked[UDP] = PollFd::from_borrowed_fd(udp, of_socket);
    asked[BELL] = PollFd::new(&bell.counter, PollFlags::IN);
    let mut count = TUN;
    for (at, queue) in asked[TUN..].iter_mut().zip(watch.tun.queues()) {
        *at = PollFd::from_borrowed_fd(queue, PollFlags::IN);
        count += 1;
    }
    match poll(&mut asked[..count], timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
        Err(error) => return Err(error.into()),
    }
    let flags = asked[UDP].revents();
    let mut ready = Ready {
        // An error or a hang-up shows itself to whoever reads.
        udp: flags.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP),
        woken: !asked[BELL].revents().is_empty(),
        ..Ready::default()
    };
    for (queue, asked) in asked[TUN..count].iter().enumerate() {
        // Whatever it is, it is to be read.
        if !asked.revents().is_empty() {
            ready.tun.add(queue);
        }
    }
    Ok(ready)
}

const UDP: usize = 0;
const BELL: usize = 1;
/// The first queue of the device; the others follow.
const TUN: usize = 2;
