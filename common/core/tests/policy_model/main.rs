//! The compiled policy against an oracle, and the packet path against what the policy says it does.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod data_path;
mod decisions;
mod model;
#[path = "../flows/packets.rs"]
#[allow(dead_code)] // Shared with the tests of the flow table.
mod packets;
