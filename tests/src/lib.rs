//! The harness of the whole-program tests: one small internet per test, the real programs inside it,
//! and instruments that look at what arrives.
//!
//! | part | what it is for |
//! | --- | --- |
//! | [`lab`] | namespaces, cables, routers, processes, snapshots of a host's network state |
//! | [`probe`] | ping with ICMP reports, HTTP, TCP and UDP exchanges, throughput with CPU time |
//! | [`relay`] | a UDP path that loses, delays, reorders and duplicates from a seed |
//! | [`programs`] | builds `adit`, `adit-server` and `adit-ca`, starts them, waits until they are ready |
//!
//! Used by the rings `netns`, `interop` and `lab` in this package, by the demo and by `tunnel-bench`.

pub mod fuzz;
pub mod lab;
pub mod probe;
pub mod programs;
pub mod relay;
pub mod swarm;
