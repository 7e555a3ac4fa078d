//! Instruments: what a person would look at with `ping`, `curl` and `iperf3`, as values.
//!
//! Sockets are made inside a [`crate::lab::Namespace`] and used from ordinary threads, so every
//! instrument takes the namespaces it works between and needs nothing installed.

pub mod cpu;
pub mod dialogue;
pub mod flood;
pub mod http;
pub mod icmp;
pub mod memory;
pub mod ping;
pub mod tcp;
pub mod throughput;
pub mod udp;
pub mod watch;

/// Bytes that are the same wherever they are made and different at every offset, so that a lost,
/// repeated or reordered piece cannot go unseen.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut state = seed;
    while bytes.len() < length {
        bytes.extend_from_slice(&crate::relay::split_mix(&mut state).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
