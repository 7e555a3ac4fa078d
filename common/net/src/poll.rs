//! Waiting for the outside socket, the TUN device, another thread, or a point in time.
//!
//! Level-triggered: what was not drained is ready again. Writability is watched only while something waits for
//! it, since a socket is writable nearly always.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::tun::{Tun, Waiting};
use crate::udp::Udp;

#[cfg_attr(target_os = "linux", path = "poll/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "poll/unsupported.rs")]
mod os;

/// What a data loop waits on.
#[derive(Debug)]
pub struct Poller {
    set: os::Set,
    bell: Arc<os::Bell>,
    held: bool,
}

/// What is ready. Nothing at all: the deadline passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Datagrams wait.
    pub udp: bool,
    /// The socket takes datagrams again; reported only while [held](Poller::hold).
    pub udp_writable: bool,
    /// Where packets wait, or the device is gone: reading it will tell.
    pub tun: Waiting,
    /// A [`Waker`] was used since the last wait.
    pub woken: bool,
}

/// Ends a wait from another thread. Several wakes before a wait end it once.
#[derive(Clone, Debug)]
pub struct Waker {
    bell: Arc<os::Bell>,
}

impl Poller {
    /// Watches both devices for input, and its own [`Waker`]s.
    pub fn new(udp: &Udp, tun: &Tun) -> io::Result<Self> {
        let bell = Arc::new(os::Bell::new()?);
        let set = os::Set::new(udp, tun, &bell)?;
        Ok(Self {
            set,
            bell,
            held: false,
        })
    }

    /// A handle that ends [`wait`](Self::wait).
    pub fn waker(&self) -> Waker {
        Waker {
            bell: self.bell.clone(),
        }
    }

    /// While the socket is full: reports when it takes datagrams again. Costs nothing when nothing changes.
    pub fn hold(&mut self, udp: &Udp, held: bool) -> io::Result<()> {
        if self.held == held {
            return Ok(());
        }
        self.held = held;
        self.set.hold(udp, held)
    }

    /// Watches `new` in place of `old`, which may be closed afterwards.
    pub fn replace_udp(&mut self, old: &Udp, new: &Udp) -> io::Result<()> {
        self.set.replace_udp(old, new)
    }

    /// Waits until something is ready or `deadline` is reached; without a deadline, as long as it takes.
    pub fn wait(&mut self, now: Instant, deadline: Option<Instant>) -> io::Result<Ready> {
        let timeout = deadline.map(|at| at.saturating_duration_since(now));
        let ready = self.set.wait(timeout)?;
        if ready.woken {
            self.bell.silence();
        }
        Ok(ready)
    }
}

impl Waker {
    /// Ends the current wait, or the next one.
    pub fn wake(&self) {
        self.bell.ring();
    }
}
