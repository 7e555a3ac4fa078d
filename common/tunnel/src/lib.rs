//! The tunnel's engine: QUIC connections, HTTP/3 control and the packet path of both roles.
//!
//! Sans-IO: [`Reception`], [`Gateway`] and [`Client`] take datagrams, IP packets and the time, and give back
//! datagrams, IP packets, events and deadlines. They open no socket and read no clock, so the
//! whole tunnel, both ends, runs in simulation.
//!
//! One call sequence holds for all: feed any number of inputs, call `handle_timeout(now)` once,
//! drain `poll_transmit`, `poll_inside` and `poll_event`, then sleep until `poll_timeout`. [`Enrolment`] is
//! the small one of a machine that has no certificate yet.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod tls;

mod chunks;
mod cid;
mod client;
mod congestion;
mod endpoints;
mod enrolment;
mod epoch;
mod gateway;
mod handover;
mod holder;
mod linger;
mod link;
mod links;
mod path;
mod reception;
mod refusal;
mod transport;

pub use adit_core::offload::Offload;
pub use cid::{ENGINE_AT, LONG_HEADER};
pub use client::{Client, ClientConfig, ClientEvent, ClientState};
pub use enrolment::{Enrolment, EnrolmentConfig};
pub use epoch::Epoch;
pub use gateway::{
    Census, Findings, Gateway, GatewayConfig, GatewayEvent, Inquiry, InsideAddresses, SessionId,
    SessionInfo, ToNeighbour,
};
pub use holder::Holder;
pub use links::Datagram;
pub use quinn_proto::{EcnCodepoint, Transmit};
pub use reception::{
    Arrival, CertificateQuestion, LeaseTable, Reception, ReceptionConfig, Regrant, Rehearsal,
    Renewal, SecondConnection, Stake, Standing, Ticket, ToEngine, ToReception,
};
pub use transport::{EngineKeys, Limits, MIN_UDP_PAYLOAD};

/// Spare bytes in front of every packet from inside, room for any HTTP datagram prefix: a quarter
/// stream id of up to eight bytes and the context id 0.
pub const HEADROOM: usize = 9;
