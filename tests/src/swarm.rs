//! Hundreds of clients in one thread: the client's real engine, each with a certificate and a socket of
//! its own, without a TUN device.
//!
//! ```text
//! Roster: authority in memory ─ certificates ─► what the gateway believes
//! Swarm:  thread ─ epoll ─┬─ socket ─ engine 0 ─┐
//!                         ├─ socket ─ engine 1 ─┼─► gateway
//!                         └─ …                  ┘
//! ```
//!
//! What a swarm cannot show is how a client's host fares: packets out of the tunnel are thrown away, and
//! none are sent but the keep-alives that the real client sends as well.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lab::Namespace;

mod crowd;
mod roster;

pub use roster::Roster;

use crowd::{Crowd, Outcome};

/// Clients that run until they are stopped.
#[derive(Debug)]
pub struct Swarm {
    stop: Arc<AtomicBool>,
    /// One word per client that is up.
    arrivals: Receiver<Arrival>,
    told: Told,
    thread: JoinHandle<Result<Outcome>>,
    size: usize,
}

/// What addresses each client was ever told to have.
type Told = Arc<Mutex<Vec<BTreeSet<IpAddr>>>>;

/// A client's tunnel is up: it has addresses and routes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Since it dialled.
    took: Duration,
}

/// How the connecting of all went.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Each client's time from dialling to its addresses, ascending.
    pub each: Vec<Duration>,
    /// From the call to the last of them.
    pub all: Duration,
}

impl Swarm {
    /// Starts `size` of the roster's clients inside `namespace`; at most `at_once` connect at the same time.
    ///
    /// The thread has a lower priority (nice +10): on the machine of a measurement the clients would
    /// otherwise take from the gateway what in the world they have on machines of their own.
    pub fn start(
        namespace: &Namespace,
        roster: &Roster,
        size: usize,
        gateway: SocketAddr,
        at_once: usize,
    ) -> Result<Self> {
        let members = roster.members(size)?;
        let told = Told::default();
        let mut crowd = Crowd::new(namespace, members, gateway, at_once, Arc::clone(&told))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, arrivals) = channel();
        let flag = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("swarm".to_owned())
            .spawn(move || {
                let nice = rustix::process::getpriority_process(None)?;
                rustix::process::setpriority_process(None, nice + NICE)?;
                crowd.run(&flag, &sender)
            })?;
        Ok(Self {
            stop,
            arrivals,
            told,
            thread,
            size,
        })
    }

    /// Waits until every client is up; to be called once.
    pub fn wait(&self, patience: Duration) -> Result<Arrived> {
        let begin = Instant::now();
        let mut each = Vec::with_capacity(self.size);
        while each.len() < self.size {
            let left = patience.saturating_sub(begin.elapsed());
            match self.arrivals.recv_timeout(left) {
                Ok(arrival) => each.push(arrival.took),
                Err(RecvTimeoutError::Timeout) => bail!(
                    "{} of {} clients are up after {patience:?}",
                    each.len(),
                    self.size
                ),
                Err(RecvTimeoutError::Disconnected) => bail!("the swarm has ended by itself"),
            }
        }
        let all = begin.elapsed();
        each.sort();
        Ok(Arrived { each, all })
    }

    /// The addresses that each client was ever told to have, in the order of the roster.
    pub fn told(&self) -> Vec<BTreeSet<IpAddr>> {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends every session, and tells how often one was lost or an attempt failed meanwhile.
    pub fn stop(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .context("the swarm")
    }
}

/// Far less than the gateway's packet thread and front desk get.
const NICE: i32 = 10;
