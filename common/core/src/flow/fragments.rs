//! Which first fragments were let through, so that the rest of their packets may follow.
//!
//! Only the first fragment has ports to be judged by. The rest must come after it, and begin where
//! it ended or later: what overlaps it could rewrite the ports it was judged by (RFC 1858, RFC 3128,
//! RFC 5722).

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::dataplane::DropReason;
use crate::wire::ip::{FragmentPlace, IpPacket, IpVersion};

/// The first fragments of a session that may still have company.
#[derive(Debug)]
pub(super) struct Fragments<T> {
    /// The oldest first.
    known: VecDeque<Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    packet: Name,
    /// Where the first fragment ended, in bytes.
    end: usize,
    /// When it passed.
    second: u32,
    passed_as: T,
}

/// What the parts of a packet have in common: RFC 791 §3.2, RFC 8200 §4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    /// In IPv4 alone.
    protocol: Option<u8>,
}

impl<T: Copy> Fragments<T> {
    pub(super) const fn new() -> Self {
        Self {
            known: VecDeque::new(),
        }
    }

    /// A first fragment passes.
    pub(super) fn remember(&mut self, now: u32, packet: &IpPacket<'_>, passed_as: T) {
        let Some(place) = packet.fragment_place() else {
            return;
        };
        let (packet, mut end) = (Name::of(packet, place), place.end);
        // Of two beginnings of one packet, the rest may overlap neither.
        if let Some(at) = self.find(now, &packet) {
            end = end.max(self.known[at].end);
            self.known.remove(at);
        }
        if self.known.len() == MAX_KNOWN {
            self.known.pop_front();
        }
        self.known.push_back(Known {
            packet,
            end,
            second: now,
            passed_as,
        });
    }

    /// What the first fragment of this later one passed as.
    pub(super) fn follow(&self, now: u32, packet: &IpPacket<'_>) -> Result<T, DropReason> {
        let place = packet.fragment_place().ok_or(DropReason::Malformed)?;
        let at = self
            .find(now, &Name::of(packet, place))
            .ok_or(DropReason::FragmentBeforeFirst)?;
        let known = &self.known[at];
        if place.start < known.end {
            return Err(DropReason::FragmentOverlap);
        }
        Ok(known.passed_as)
    }

    /// Forgets what is too old, and its memory with the last of it.
    pub(super) fn expire(&mut self, now: u32) {
        while self.known.front().is_some_and(|known| !known.counts(now)) {
            self.known.pop_front();
        }
        if self.known.is_empty() {
            self.known = VecDeque::new();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn find(&self, now: u32, packet: &Name) -> Option<usize> {
        self.known
            .iter()
            .rposition(|known| known.packet == *packet && known.counts(now))
    }
}

impl<T> Known<T> {
    fn counts(&self, now: u32) -> bool {
        now < self.second.saturating_add(LIFETIME)
    }
}

impl Name {
    fn of(packet: &IpPacket<'_>, place: FragmentPlace) -> Self {
        Self {
            source: packet.source(),
            destination: packet.destination(),
            identification: place.identification,
            protocol: (packet.version() == IpVersion::V4).then_some(packet.protocol()),
        }
    }
}

/// First fragments per session. They are looked at one by one, and the rest of a packet follows at
/// once or never.
const MAX_KNOWN: usize = 64;
/// Seconds, of the 60 for which an IPv6 host keeps fragments (RFC 8200 §4.5) and the 30 of most.
const LIFETIME: u32 = 30;
