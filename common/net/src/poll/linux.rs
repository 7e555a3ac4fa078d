//! `epoll` and `eventfd`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use super::Ready;
use crate::tun::{MAX_QUEUES, Tun};
use crate::udp::Udp;

#[derive(Debug)]
pub(super) struct Set {
    epoll: OwnedFd,
}

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

impl Set {
    pub(super) fn new(udp: &Udp, tun: &Tun, bell: &Bell) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        add(&epoll, udp, UDP)?;
        for (at, queue) in tun.queues().enumerate() {
            add(&epoll, queue, TUN + at as u64)?;
        }
        add(&epoll, &bell.counter, BELL)?;
        Ok(Self { epoll })
    }

    pub(super) fn hold(&self, udp: &Udp, held: bool) -> io::Result<()> {
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, held);
        modify(&self.epoll, udp, UDP, flags)
    }

    pub(super) fn replace_udp(&self, old: &Udp, new: &Udp) -> io::Result<()> {
        epoll::delete(&self.epoll, old)?;
        add(&self.epoll, new, UDP)
    }

    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<Ready> {
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
        let empty = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        let mut events = [empty; 2 + MAX_QUEUES as usize];
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut ready = Ready::default();
        for event in &events[..count] {
            let flags = event.flags;
            // An error or a hang-up shows itself to whoever reads.
            let readable = flags.intersects(
                epoll::EventFlags::IN | epoll::EventFlags::ERR | epoll::EventFlags::HUP,
            );
            let writable = flags.contains(epoll::EventFlags::OUT);
            match event.data.u64() {
                UDP => {
                    ready.udp |= readable;
                    ready.udp_writable |= writable;
                }
                BELL => ready.woken = true,
                // Whatever it is, it is to be read.
                queue => ready.tun.add((queue - TUN) as usize),
            }
        }
        Ok(ready)
    }
}

fn add(epoll: &OwnedFd, source: impl AsFd, token: u64) -> io::Result<()> {
    let data = epoll::EventData::new_u64(token);
    Ok(epoll::add(epoll, source, data, epoll::EventFlags::IN)?)
}

fn modify(
    epoll: &OwnedFd,
    source: impl AsFd,
    token: u64,
    flags: epoll::EventFlags,
) -> io::Result<()> {
    let data = epoll::EventData::new_u64(token);
    Ok(epoll::modify(epoll, source, data, flags)?)
}

const UDP: u64 = 0;
const BELL: u64 = 1;
/// The first queue of the device; the others follow.
const TUN: u64 = 2;
