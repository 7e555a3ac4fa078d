//! Wire formats. The rule of the layer: parse once, trust the type afterwards.

pub mod capsule;
pub mod checksum;
pub mod datagram;
pub mod icmp;
pub mod ip;
#[cfg(test)]
pub(crate) mod sample;
pub mod tcp;
pub mod varint;
