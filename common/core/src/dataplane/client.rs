//! The client's verdicts, both directions: only what was assigned, only where routes lead.
//!
//! The gateway judges every packet again; judging here gives local applications their answer at
//! once, and lets nothing of the host into the tunnel, nor anything unexpected out of it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::gateway::is_unicast;
use super::{DropReason, Verdict};
use crate::range::RouteRange;
use crate::wire::icmp::IcmpError;
use crate::wire::ip::{ICMP, ICMPV6, IpPacket};

/// What the gateway assigned.
#[derive(Clone, Debug, Default)]
pub struct ClientView {
    addresses: Vec<IpNet>,
    /// Sorted by start; ranges of different protocols may overlap.
    routes: Vec<RouteRange>,
    /// The highest end among `routes[..=i]`, so that a search can stop early.
    highest_end: Vec<IpAddr>,
}

impl ClientView {
    /// A view of one assignment.
    #[must_use]
    pub fn new(addresses: Vec<IpNet>, mut routes: Vec<RouteRange>) -> Self {
        routes.sort_by_key(RouteRange::start);
        let mut highest_end: Vec<IpAddr> = Vec::with_capacity(routes.len());
        for range in &routes {
            let before = highest_end.last().copied();
            highest_end.push(before.map_or_else(|| range.end(), |before| before.max(range.end())));
        }
        Self {
            addresses,
            routes,
            highest_end,
        }
    }

    fn is_mine(&self, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|prefix| prefix.contains(&address))
    }

    /// RFC 9484 §4.7.3: a range is for one protocol or for all; ICMP passes with every protocol.
    fn is_routed(&self, address: IpAddr, protocol: u8) -> bool {
        let candidates = self
            .routes
            .partition_point(|range| range.start() <= address);
        let any = matches!(protocol, ICMP | ICMPV6);
        (0..candidates)
            .rev()
            .take_while(|&at| self.highest_end[at] >= address)
            .map(|at| &self.routes[at])
            .any(|range| {
                range.contains(address)
                    && (any || range.protocol() == 0 || range.protocol() == protocol)
            })
    }
}

/// A packet of the host, to go into the tunnel that carries up to `max_packet` bytes. The longest
/// packet it becomes on its way, when it is cut into segments, has `longest` bytes; otherwise that
/// is its own length.
#[must_use]
pub fn to_gateway(
    view: &ClientView,
    max_packet: usize,
    packet: &IpPacket<'_>,
    longest: usize,
) -> Verdict<()> {
    if !is_unicast(packet.destination()) || !is_unicast(packet.source()) {
        return Verdict::Drop(DropReason::NotUnicast);
    }
    if !view.is_mine(packet.source()) {
        return Verdict::Reply(IcmpError::SourcePolicy);
    }
    if !view.is_routed(packet.destination(), packet.protocol()) {
        return Verdict::Reply(IcmpError::NoRoute);
    }
    if longest > max_packet {
        return Verdict::Reply(IcmpError::PacketTooBig {
            mtu: u32::try_from(max_packet).unwrap_or(u32::MAX),
        });
    }
    Verdict::Forward(())
}

/// A packet that came out of the tunnel.
///
/// ICMP may come from anywhere: routers on the way report errors with their own addresses.
#[must_use]
pub fn from_gateway(view: &ClientView, packet: &IpPacket<'_>) -> Verdict<()> {
    if !is_unicast(packet.destination()) || !is_unicast(packet.source()) {
        return Verdict::Drop(DropReason::NotUnicast);
    }
    if !view.is_mine(packet.destination()) {
        return Verdict::Drop(DropReason::NoRoute);
    }
    let icmp = matches!(packet.protocol(), ICMP | ICMPV6);
    if !icmp && !view.is_routed(packet.source(), packet.protocol()) {
        return Verdict::Drop(DropReason::SourceNotOwned);
    }
    Verdict::Forward(())
}
