//! A UDP relay that is a bad network: it loses, delays, reorders and duplicates, all from a seed.
//!
//! ```text
//! client ──▶ relay ──▶ gateway        one upstream socket per client address, so that the
//!        ◀──       ◀──                gateway sees one peer address per client
//! ```
//!
//! [`Relay::rebind`] gives every client a new upstream port: a NAT that forgot. [`Relay::set`] changes
//! the path while packets are on their way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::lab::Namespace;

/// How bad the path is; the default is perfect.
#[derive(Clone, Copy, Debug, Default)]
pub struct Impairment {
    /// Datagrams lost, per thousand.
    pub loss: u16,
    /// Datagrams delivered twice, per thousand.
    pub duplication: u16,
    /// One-way delay.
    pub delay: Duration,
    /// Further delay, drawn evenly from zero to this for each datagram: the cause of reordering.
    pub jitter: Duration,
    /// Everything is lost: the cable is cut.
    pub cut: bool,
}

/// A running relay; it ends when dropped.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    namespace: Namespace,
    listener: UdpSocket,
    upstream: SocketAddr,
    impairment: Mutex<Impairment>,
    clients: Mutex<BTreeMap<SocketAddr, Arc<UdpSocket>>>,
    random: Mutex<u64>,
    stop: AtomicBool,
    forwarded: AtomicU64,
    lost: AtomicU64,
}

struct Delivery {
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Relay {
    /// Listens on `listen` inside `namespace` and forwards to `upstream`.
    pub fn start(
        namespace: &Namespace,
        listen: SocketAddr,
        upstream: SocketAddr,
        seed: u64,
    ) -> Result<Self> {
        let listener = namespace
            .run(|| UdpSocket::bind(listen))
            .with_context(|| format!("the relay cannot listen on {listen}"))?;
        listener.set_read_timeout(Some(SLICE))?;
        let shared = Arc::new(Shared {
            namespace: namespace.clone(),
            listener,
            upstream,
            impairment: Mutex::default(),
            clients: Mutex::default(),
            random: Mutex::new(seed),
            stop: AtomicBool::new(false),
            forwarded: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let (queue, deliveries) = mpsc::channel();
        thread::spawn(|| deliver(deliveries));
        let owned = Arc::clone(&shared);
        thread::spawn(move || owned.from_clients(&queue));
        Ok(Self { shared })
    }

    /// Changes the path from the next datagram on.
    pub fn set(&self, impairment: Impairment) {
        *self
            .shared
            .impairment
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = impairment;
    }

    /// Forgets all clients: each gets a new upstream port with its next datagram.
    pub fn rebind(&self) {
        self.shared
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Datagrams passed on and datagrams lost so far, both ways together.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.shared.forwarded.load(Ordering::Relaxed),
            self.shared.lost.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.rebind();
    }
}

impl Shared {
    fn from_clients(self: Arc<Self>, queue: &Sender<(Instant, Delivery)>) {
        let mut buffer = vec![0; 65536];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((length, from)) = self.listener.recv_from(&mut buffer) else {
                continue;
            };
            let Ok(socket) = self.client(from, queue) else {
                continue;
            };
            self.pass(queue, &socket, self.upstream, &buffer[..length]);
        }
    }

    fn client(
        self: &Arc<Self>,
        from: SocketAddr,
        queue: &Sender<(Instant, Delivery)>,
    ) -> Result<Arc<UdpSocket>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = clients.get(&from) {
            return Ok(Arc::clone(socket));
        }
        let any: IpAddr = if self.upstream.is_ipv4() {
            "0.0.0.0".parse()?
        } else {
            "::".parse()?
        };
        let socket = Arc::new(self.namespace.run(|| UdpSocket::bind((any, 0)))?);
        socket.set_read_timeout(Some(SLICE))?;
        clients.insert(from, Arc::clone(&socket));
        let (owned, upstream, queue) = (Arc::clone(self), Arc::downgrade(&socket), queue.clone());
        let back = Arc::new(self.listener.try_clone()?);
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            // Ends when the client was forgotten: then nobody else holds the socket.
            while let Some(socket) = upstream
                .upgrade()
                .filter(|socket| Arc::strong_count(socket) > 1)
            {
                if let Ok((length, _)) = socket.recv_from(&mut buffer) {
                    owned.pass(&queue, &back, from, &buffer[..length]);
                }
            }
        });
        Ok(socket)
    }

    fn pass(
        &self,
        queue: &Sender<(Instant, Delivery)>,
        socket: &Arc<UdpSocket>,
        to: SocketAddr,
        bytes: &[u8],
    ) {
        let path = *self
            .impairment
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (lost, copies) = (
            path.cut || self.chance(path.loss),
            1 + usize::from(self.chance(path.duplication)),
        );
        if lost {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        for _ in 0..copies {
            self.forwarded.fetch_add(1, Ordering::Relaxed);
            if path.delay + path.jitter == Duration::ZERO {
                let _ = socket.send_to(bytes, to);
                continue;
            }
            let jitter = path.jitter.mul_f64(self.draw() as f64 / u64::MAX as f64);
            let delivery = Delivery {
                socket: Arc::clone(socket),
                to,
                bytes: bytes.to_vec(),
            };
            let _ = queue.send((Instant::now() + path.delay + jitter, delivery));
        }
    }

    fn chance(&self, per_thousand: u16) -> bool {
        per_thousand > 0 && self.draw() % 1000 < u64::from(per_thousand)
    }

    fn draw(&self) -> u64 {
        split_mix(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sends each delivery at its time; ends with the last sender.
fn deliver(deliveries: Receiver<(Instant, Delivery)>) {
    let mut waiting: BTreeMap<u64, Delivery> = BTreeMap::new();
    let mut times: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut number = 0u64;
    loop {
        let now = Instant::now();
        while let Some(&Reverse((time, key))) = times.peek()
            && time <= now
        {
            times.pop();
            if let Some(Delivery { socket, to, bytes }) = waiting.remove(&key) {
                let _ = socket.send_to(&bytes, to);
            }
        }
        let wait = times.peek().map_or(SLICE, |Reverse((time, _))| {
            time.saturating_duration_since(now)
        });
        match deliveries.recv_timeout(wait) {
            Ok((time, delivery)) => {
                number += 1;
                times.push(Reverse((time, number)));
                waiting.insert(number, delivery);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// SplitMix64: the whole state is one number, so a seed in a test is the whole story.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How soon threads notice that they are to end.
const SLICE: Duration = Duration::from_millis(50);
