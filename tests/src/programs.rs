//! The real programs, as an operator runs them: built once, set up by their own commands, watched by
//! their own `status`.
//!
//! [`build()`] comes before [`crate::lab::enter()`], while there is still a network to fetch crates from.
//! A [`Setup`] is one gateway's directory made by `adit-server init`, with its own authority; from it
//! tests start a [`Gateway`] and any number of [`Client`]s inside namespaces. Nothing is shared between
//! two setups, and readiness is asked of the programs, never assumed after a pause.

mod build;
mod client;
mod gateway;
mod setup;
mod temporary;

pub use build::{Programs, build};
pub use client::Client;
pub use gateway::Gateway;
pub use setup::{POLICY, PORT, Setup, table};
pub use temporary::TemporaryDirectory;

/// The name in the gateway's certificate; no name service of the tests knows it.
pub const SERVER_NAME: &str = "vpn.example.com";

/// The TUN device of a client, unless its profile says otherwise.
pub const TUNNEL: &str = "adit0";
