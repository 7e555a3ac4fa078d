//! The pure core of Adit: wire formats, identity, policy, tables, verdicts and control sessions.
//!
//! Nothing here performs I/O or reads a clock: bytes and time come in as arguments, verdicts and
//! bytes go out. The manifest is the proof, and a test reads it.
//!
//! Vocabulary: *gateway* is the server, *client* a laptop or a site router, *inside* the TUN side,
//! *outside* the UDP side, *identity* what a verified certificate says about its holder,
//! *principal* an identity's one canonical name, *lease* an inner address held by a principal,
//! *session* one live tunnel, *policy* the one object that decides.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
pub mod backoff;
pub mod close;
pub mod config;
pub mod dataplane;
pub mod fair;
pub mod flow;
pub mod h3;
pub mod identity;
pub mod mtu;
pub mod offload;
pub mod period;
pub mod plan;
pub mod policy;
pub mod range;
pub mod session;
pub mod status;
pub mod table;
pub mod wire;
