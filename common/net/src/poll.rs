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

/// How a data loop waits.
#[derive(Debug)]
pub struct Poller {
    bell: Arc<os::Bell>,
}

/// What is waited for, besides [`Waker`]s and time.
#[derive(Clone, Copy, Debug)]
pub struct Watch<'a> {
    /// The outside socket: datagrams to read.
    pub udp: &'a Udp,
    /// Whether it is also of interest when the socket takes datagrams again.
    pub until_writable: bool,
    /// The device: packets to read.
    pub tun: &'a Tun,
}

/// What is ready. Nothing at all: the deadline passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Datagrams wait.
    pub udp: bool,
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
    /// One that waits for its own [`Waker`]s, and for what it is told each time.
    ///
    /// # Errors
    /// When the system has nothing to wait with.
    pub fn new() -> io::Result<Self> {
        let bell = Arc::new(os::Bell::new()?);
        Ok(Self { bell })
    }

    /// A handle that ends [`wait`](Self::wait).
    pub fn waker(&self) -> Waker {
        Waker {
            bell: self.bell.clone(),
        }
    }

    /// Waits until something is ready or `deadline` is reached; without a deadline, as long as it takes.
    ///
    /// # Errors
    /// When the system cannot wait for this.
    pub fn wait(
        &self,
        watch: Watch<'_>,
        now: Instant,
        deadline: Option<Instant>,
    ) -> io::Result<Ready> {
        let timeout = deadline.map(|at| at.saturating_duration_since(now));
        let ready = os::wait(watch, &self.bell, timeout)?;
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
