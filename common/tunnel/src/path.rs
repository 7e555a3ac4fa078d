//! How large an inner packet may be on one session, and whether IPv6 fits.
//!
//! QUIC starts every path at 1200 bytes and probes upwards (DPLPMTUD, RFC 8899). Until that search
//! has settled, nobody is told a small number: a Packet Too Big of the first milliseconds would
//! sit in the sender's path-MTU cache for ten minutes. Packets that do not fit meanwhile are
//! dropped without an answer, which TCP repairs within its first retransmission.

use std::time::{Duration, Instant};

use adit_core::mtu::MIN_IPV6_MTU;
use adit_core::wire::datagram;

/// Whether the tunnel may carry IPv6: RFC 9484 §7.2 requires 1280 bytes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ipv6 {
    /// The search for the path's MTU goes on.
    Pending,
    /// 1280 bytes fit.
    Fits,
    /// The search ended below 1280 bytes.
    TooSmall,
}

/// The inner MTU of one session.
#[derive(Clone, Debug)]
pub(crate) struct InnerMtu {
    stream: u64,
    /// What the path carries in one datagram, without the HTTP prefix.
    current: usize,
    /// What the TUN device is set to: TCP is clamped to it while the search goes on.
    tunnel_mtu: usize,
    settles_at: Instant,
}

impl InnerMtu {
    /// Starts at `now`; `max_datagram` as QUIC reports it.
    pub(crate) fn new(
        now: Instant,
        stream: u64,
        tunnel_mtu: u16,
        rtt: Duration,
        max_datagram: Option<usize>,
    ) -> Self {
        let mut path = Self {
            stream,
            current: 0,
            tunnel_mtu: usize::from(tunnel_mtu),
            settles_at: now + SETTLE_MIN + rtt * SETTLE_ROUND_TRIPS,
        };
        path.update(now, max_datagram);
        path
    }

    /// The request stream that the packets belong to.
    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    /// Takes note of QUIC's current limit.
    pub(crate) fn update(&mut self, now: Instant, max_datagram: Option<usize>) {
        self.current = max_datagram
            .unwrap_or(0)
            .saturating_sub(datagram::prefix_len(self.stream));
        self.settle(now);
    }

    /// The TUN device has another MTU. What was told to senders already stays told, so a search that has ended has
    /// ended.
    pub(crate) fn set_tunnel_mtu(&mut self, now: Instant, tunnel_mtu: u16) {
        self.tunnel_mtu = usize::from(tunnel_mtu);
        self.settle(now);
    }

    /// When [`Self::ipv6`] may change its answer without an update.
    pub(crate) fn settles_at(&self) -> Instant {
        self.settles_at
    }

    /// Whether the search has ended, so that the limit may be told to senders.
    pub(crate) fn settled(&self, now: Instant) -> bool {
        now >= self.settles_at
    }

    /// The largest inner packet the path carries at present.
    pub(crate) fn largest_packet(&self) -> usize {
        self.current
    }

    /// The packet size TCP is clamped to.
    pub(crate) fn clamp_to(&self, now: Instant) -> usize {
        if self.settled(now) {
            self.current.min(self.tunnel_mtu)
        } else {
            self.tunnel_mtu
        }
    }

    pub(crate) fn ipv6(&self, now: Instant) -> Ipv6 {
        if self.current >= MIN_IPV6_MTU {
            Ipv6::Fits
        } else if self.settled(now) {
            Ipv6::TooSmall
        } else {
            Ipv6::Pending
        }
    }

    /// More than the device hands over need not be looked for.
    fn settle(&mut self, now: Instant) {
        if self.current >= self.tunnel_mtu {
            self.settles_at = self.settles_at.min(now);
        }
    }
}

/// A failed probe costs three lost packets, each noticed within a probe timeout; on a short path
/// the binary search between 1200 and 1472 bytes fails at most four times.
const SETTLE_MIN: Duration = Duration::from_millis(1500);
/// The same on a long path, where the round trip decides.
const SETTLE_ROUND_TRIPS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_start_is_pending_and_becomes_too_small_only_after_the_search() {
        let now = Instant::now();
        let path = InnerMtu::new(now, 0, 1400, Duration::from_millis(10), Some(1162));
        assert_eq!(path.ipv6(now), Ipv6::Pending);
        assert_eq!(path.clamp_to(now), 1400);
        let later = path.settles_at();
        assert_eq!(path.ipv6(later), Ipv6::TooSmall);
        assert_eq!(path.clamp_to(later), 1160);
    }

    #[test]
    fn reaching_the_tunnels_mtu_settles_at_once() {
        let now = Instant::now();
        let mut path = InnerMtu::new(now, 0, 1400, Duration::from_millis(10), Some(1162));
        path.update(now, Some(1434));
        assert!(path.settled(now));
        assert_eq!(path.ipv6(now), Ipv6::Fits);
        assert_eq!(path.clamp_to(now), 1400);
    }

    #[test]
    fn another_mtu_of_the_device_counts_at_once_and_settles_what_it_settles() {
        let now = Instant::now();
        let mut path = InnerMtu::new(now, 0, 1400, Duration::from_millis(10), Some(1302));
        assert!(!path.settled(now));
        path.set_tunnel_mtu(now, 1280);
        assert!(path.settled(now));
        assert_eq!(path.clamp_to(now), 1280);
        path.set_tunnel_mtu(now, 1400);
        assert_eq!(path.clamp_to(now), 1300);
    }
}
