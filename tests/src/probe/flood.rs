//! UDP at an even rate, as fast as asked for, and what of it arrives.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::SockRef;

use crate::lab::Namespace;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Packets a second.
    pub rate: u64,
    /// Bytes of payload of each.
    pub payload: usize,
    /// How long.
    pub length: Duration,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Packets that left the sender.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// How long the sending took.
    pub elapsed: Duration,
}

impl Flood {
    /// Sends from `client` to `address` in `server`.
    pub fn run(&self, client: &Namespace, server: &Namespace, address: IpAddr) -> Result<Carried> {
        let receiver = server
            .run(|| UdpSocket::bind((address, 0)))
            .with_context(|| format!("cannot listen on {address} in {}", server.name()))?;
        // The receiver being off the processor for a while is no loss of the path. The kernel gives less
        // where net.core.rmem_max says so.
        SockRef::from(&receiver).set_recv_buffer_size(BUFFER)?;
        receiver.set_read_timeout(Some(SLICE))?;
        let to = receiver.local_addr()?;
        let any: IpAddr = if to.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let sender = client.run(|| UdpSocket::bind((any, 0)))?;
        sender
            .connect(to)
            .with_context(|| format!("{} has no way to {to}", client.name()))?;
        let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
        let (sent, elapsed) = thread::scope(|scope| {
            scope.spawn(|| count(&receiver, &stop, &received));
            let begin = Instant::now();
            let sent = self.send(&sender, begin);
            let elapsed = begin.elapsed();
            // What is in queues still counts: until nothing came for as long as a loaded tunnel may pause.
            let mut before = u64::MAX;
            while before != received.load(Ordering::Relaxed) {
                before = received.load(Ordering::Relaxed);
                thread::sleep(SILENCE);
            }
            stop.store(true, Ordering::Relaxed);
            (sent, elapsed)
        });
        Ok(Carried {
            sent,
            received: received.load(Ordering::Relaxed),
            elapsed,
        })
    }

    /// What the clock demands, in bursts of one tick; what the machine cannot make up for is not sent.
    fn send(&self, socket: &UdpSocket, begin: Instant) -> u64 {
        let packet = vec![0x5a; self.payload];
        let mut sent = 0;
        loop {
            let elapsed = begin.elapsed();
            if elapsed >= self.length {
                return sent;
            }
            let due = (elapsed.as_secs_f64() * self.rate as f64) as u64;
            let most = (TICK.as_secs_f64() * self.rate as f64) as u64 * MAKE_UP + 1;
            for _ in 0..due.saturating_sub(sent).min(most) {
                // A full queue on the way is a loss; that nobody listens yet, an error of an earlier packet.
                let _ = socket.send(&packet);
                sent += 1;
            }
            thread::sleep(TICK);
        }
    }
}

impl Carried {
    /// The part that did not arrive, in per cent.
    pub fn lost(&self) -> f64 {
        (1.0 - self.received as f64 / self.sent.max(1) as f64) * 100.0
    }

    /// What the sender managed.
    pub fn sent_per_second(&self) -> f64 {
        self.sent as f64 / self.elapsed.as_secs_f64()
    }
}

fn count(socket: &UdpSocket, stop: &AtomicBool, received: &AtomicU64) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if socket.recv(&mut buffer).is_ok() {
            received.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Between bursts: far less than any queue on the way holds, far more than a wake-up costs.
const TICK: Duration = Duration::from_micros(250);

/// Ticks that one burst may make up for, so that a pause of the sender is not a flood.
const MAKE_UP: u64 = 4;

/// Two thousand small packets with what the kernel adds to each.
const BUFFER: usize = 1 << 20;

/// How soon the receiver notices that it is to end.
const SLICE: Duration = Duration::from_millis(20);

/// Longer than a tunnel keeps a packet.
const SILENCE: Duration = Duration::from_millis(100);
