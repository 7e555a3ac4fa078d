//! A small internet inside one process: network namespaces, wired by netlink, that die with the test.
//!
//! [`enter()`] is the first thing a `harness = false` binary calls. It gives the process a network of its
//! own (and, without root, a user namespace in which it is root), so nothing a test does can reach the
//! host. After that every test builds its own [`Internet`]; tests run in parallel without meeting.
//!
//! ```text
//!  laptop 0 ── 100.64.0.2/24 ─┐
//!              2001:db8:100::2│        path MTU            203.0.113.254        203.0.113.1
//!  laptop 1 ── 100.64.1.2/24 ─┼─ near ═══════════ far ─────────────────── gateway ─── office
//!              2001:db8:101::2│     192.0.2.0/24           2001:db8:3::fe   │           10.0.0.10  fd00:1::10
//!  branch ──── 100.64.200.2 ──┘                                             │           10.66.0.10 fd00:66::10
//!    │         2001:db8:1c8::2                                              10.0.0.1    (reachable, but no
//!    └ host    10.20.0.10  fd00:20::10   (LAN 10.20.0.0/24, router .1)      fd00:1::1    policy allows it)
//! ```
//!
//! `near` and `far` are plain routers. The link between them has the path's MTU while both ends' own
//! links keep theirs, so a small path is discovered the way it is in the world: by ICMP or by probing.
//!
//! What it refuses: it never touches the namespace the test was started in, and it never needs `ip`,
//! `ping` or any other program of the host.

pub mod enter;
pub mod internet;
pub mod namespace;
pub mod offload;
pub mod process;
pub mod snapshot;
mod socket_option;
pub mod trial;
mod wiring;

pub use enter::enter;
pub use internet::{Internet, Layout};
pub use namespace::Namespace;
pub use process::{Process, until};
pub use snapshot::Snapshot;
pub(crate) use socket_option::forbid_fragmentation;
pub use trial::{missing, trial};
