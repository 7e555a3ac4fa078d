//! Watches a host for echo requests that must not reach it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use socket2::{Domain, Protocol, Socket, Type};

use super::icmp::{self, Message};
use crate::lab::Namespace;

/// Counts echo requests by identifier and claimed source, in both families, until dropped.
#[derive(Debug)]
pub struct EchoWatch {
    seen: Arc<Mutex<BTreeMap<(u16, IpAddr), u32>>>,
    stop: Arc<AtomicBool>,
}

impl EchoWatch {
    /// Begins to watch a namespace.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let watch = Self {
            seen: Arc::default(),
            stop: Arc::default(),
        };
        for (domain, protocol) in [
            (Domain::IPV4, Protocol::ICMPV4),
            (Domain::IPV6, Protocol::ICMPV6),
        ] {
            let socket: UdpSocket = namespace
                .run(|| Socket::new(domain, Type::RAW, Some(protocol)))?
                .into();
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            let (seen, stop) = (Arc::clone(&watch.seen), Arc::clone(&watch.stop));
            thread::spawn(move || -> io::Result<()> {
                let mut buffer = vec![0; 65536];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                        continue;
                    };
                    let message = if domain == Domain::IPV4 {
                        icmp::parse_v4(&buffer[..length])
                    } else {
                        icmp::parse_v6(&buffer[..length], from.ip())
                    };
                    if let Some(Message::EchoRequest {
                        from, identifier, ..
                    }) = message
                    {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        *seen.entry((identifier, from)).or_default() += 1;
                    }
                }
                Ok(())
            });
        }
        Ok(watch)
    }

    /// How many requests with this identifier came, by source.
    pub fn with_identifier(&self, identifier: u16) -> Vec<(IpAddr, u32)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .filter(|((theirs, _), _)| *theirs == identifier)
            .map(|((_, from), count)| (*from, *count))
            .collect()
    }
}

impl Drop for EchoWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
