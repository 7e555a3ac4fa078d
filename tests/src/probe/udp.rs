//! UDP: an echo service and a counting exchange.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::lab::Namespace;

/// Sends every datagram back; ends when dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How an exchange went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Datagrams sent.
    pub sent: usize,
    /// Answers with the right content, each counted once.
    pub answered: usize,
    /// Answers with wrong content.
    pub corrupt: usize,
}

impl Echo {
    /// Listens on `address` (port 0 chooses one) inside `namespace`.
    pub fn start(namespace: &Namespace, address: IpAddr, port: u16) -> Result<Self> {
        let socket = namespace
            .run(|| UdpSocket::bind((address, port)))
            .with_context(|| format!("cannot listen on {address} in {}", namespace.name()))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while !flag.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends `count` numbered datagrams of `length` bytes to an echo service, a few in flight, and counts.
pub fn exchange(
    namespace: &Namespace,
    to: SocketAddr,
    count: usize,
    length: usize,
) -> Result<Exchange> {
    let any: IpAddr = if to.is_ipv4() {
        "0.0.0.0".parse()?
    } else {
        "::".parse()?
    };
    let socket = namespace.run(|| -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        Ok(socket)
    })?;
    let mut result = Exchange::default();
    let mut seen = BTreeSet::new();
    let mut buffer = vec![0; 65536];
    let mut collect = |result: &mut Exchange, wait: Duration| -> Result<bool> {
        socket.set_read_timeout(Some(wait))?;
        let Ok(received) = socket.recv(&mut buffer) else {
            return Ok(false);
        };
        let number = buffer[..received]
            .first_chunk::<8>()
            .map(|bytes| u64::from_le_bytes(*bytes));
        match number.filter(|number| buffer[..received] == datagram(*number, length)) {
            Some(number) => result.answered += usize::from(seen.insert(number)),
            None => result.corrupt += 1,
        }
        Ok(true)
    };
    let mut given_up = 0usize;
    for number in 0..count {
        socket
            .send(&datagram(number as u64, length))
            .with_context(|| format!("cannot send to {to}"))?;
        result.sent += 1;
        while (result.sent - result.answered).saturating_sub(given_up) > IN_FLIGHT {
            if !collect(&mut result, Duration::from_millis(50))? {
                given_up = result.sent - result.answered;
            }
        }
    }
    let mut silent_since = Instant::now();
    while result.answered < count && silent_since.elapsed() < PATIENCE {
        if collect(&mut result, Duration::from_millis(50))? {
            silent_since = Instant::now();
        }
    }
    Ok(result)
}

fn datagram(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend(super::pattern(length.saturating_sub(8), number));
    bytes
}

/// Few enough that no queue on the way overflows: a loss is the tunnel's doing.
const IN_FLIGHT: usize = 16;

/// Silence after which what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(2);
