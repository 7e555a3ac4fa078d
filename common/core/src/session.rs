//! The control session of one QUIC connection: HTTP/3 with one CONNECT-IP request (RFC 9484), and
//! requests for certificates ([`certificate`]).
//!
//! [`gateway::Control`] and [`client::Control`] are the two ends, [`enrolment::Control`] is the end of
//! a client that is none yet. All have the same contract:
//! after every `handle_*` call and every command, drain `poll_action` and `poll_event` until they
//! are empty, then sleep until `poll_timeout` or the next input. Bytes, stream ids and `now` come
//! in; what to do on the QUIC connection comes out as [`Action`]s. Nothing here reads a clock.
//!
//! What the caller guarantees: stream bytes arrive in order and without gaps, and nothing follows
//! the FIN or reset of a stream. Bytes that still arrive after an [`Action::StopSending`] are
//! ignored, and the caller ignores actions for streams that QUIC has already forgotten.
//!
//! What the machines guarantee: they never panic on outside bytes, they keep a bounded amount of
//! memory whatever the peer sends, and every violation of RFC 9114, 9204, 9297 or 9484 becomes an
//! action with the error code that the RFC names.

pub mod certificate;
pub mod client;
pub mod enrolment;
pub mod gateway;
mod handover;
mod post;
mod problem;
mod template;
mod tunnel;
mod user_agent;

pub use crate::h3::Action;
pub use handover::{Place, Proof};
pub use user_agent::UserAgent;

use std::time::Duration;

use ipnet::IpNet;

use crate::range::RouteRange;

/// What the gateway gives a client: the whole of it, each time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The addresses and networks whose packets the client may send from; host bits are zero.
    pub addresses: Vec<IpNet>,
    /// What the client may reach, in the order of RFC 9484 §4.7.3.
    pub routes: Vec<RouteRange>,
    /// Whether IPv6 is still undecided because the path is not known to carry 1280 bytes.
    ///
    /// A request for an IPv6 address is answered only once this is `false`.
    pub v6_pending: bool,
}

impl Assignment {
    /// Says whether requests for addresses of this family can be answered.
    pub(crate) fn is_decided(&self, v6: bool) -> bool {
        !(v6 && self.v6_pending)
    }
}

/// How long each side waits for the other by default: several round trips on the worst paths, and
/// short enough that nobody holds connections without asking for something.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
