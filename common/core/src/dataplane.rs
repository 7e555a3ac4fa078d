//! Verdicts: what happens to a packet, and why.
//!
//! Pure functions over a view of the sessions. Nothing here moves a byte: the engine asks, moves
//! and counts. Packets in = forwarded + replied + dropped, per session and direction.

use std::time::{Duration, Instant};

use crate::wire::icmp::IcmpError;

pub mod client;
mod counters;
mod denials;
pub mod gateway;

pub use counters::{Counters, DirectionCounters};
pub use denials::{Denial, Denials, Denied};

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// It goes there.
    Forward(T),
    /// Its sender is told why not, where ICMP allows that.
    Reply(IcmpError),
    /// It is dropped without a word.
    Drop(DropReason),
}

impl<T> Verdict<T> {
    /// The same verdict about another kind of destination.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Verdict<U> {
        match self {
            Self::Forward(target) => Verdict::Forward(change(target)),
            Self::Reply(error) => Verdict::Reply(error),
            Self::Drop(reason) => Verdict::Drop(reason),
        }
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet was dropped. Every reason is a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in `status` and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

drop_reasons! {
    /// No IP packet, or one that contradicts itself.
    Malformed = "malformed",
    /// Nobody has the destination, or the tunnel does not lead there.
    NoRoute = "no-route",
    /// The source does not belong to the session, or is no unicast address.
    SourceNotOwned = "source-not-owned",
    /// No rule allows it.
    DeniedByPolicy = "denied-by-policy",
    /// It belongs to no flow, and cannot begin one: a late answer, a reset, the middle of a connection.
    NoFlow = "no-flow",
    /// An ICMP error about a packet that no flow of the session has sent.
    UnrelatedError = "unrelated-error",
    /// A later fragment whose first was not let through before it.
    FragmentBeforeFirst = "fragment-before-first",
    /// A later fragment that overlaps the first, by which its packet was judged.
    FragmentOverlap = "fragment-overlap",
    /// A first fragment without all of the header by which it would be judged.
    FragmentTooShort = "fragment-too-short",
    /// Its rule has a rate, and more comes than that.
    RateLimited = "rate-limited",
    /// It does not fit through the path.
    TooBig = "too-big",
    /// It has travelled too far.
    HopLimit = "hop-limit",
    /// Multicast, broadcast, link-local or loopback: never through a tunnel.
    NotUnicast = "not-unicast",
    /// The session's queue is full.
    QueueFull = "queue-full",
    /// The session ended meanwhile.
    SessionGone = "session-gone",
    /// There is no session (yet), or the datagram belongs to another request.
    NotReady = "not-ready",
    /// A context id that nobody registered (RFC 9297 §2.1).
    UnknownContext = "unknown-context",
}

impl IcmpError {
    /// The reason that is counted when the answer is not sent.
    #[must_use]
    pub const fn reason(self) -> DropReason {
        match self {
            Self::NoRoute => DropReason::NoRoute,
            Self::AdminProhibited => DropReason::DeniedByPolicy,
            Self::SourcePolicy => DropReason::SourceNotOwned,
            Self::PacketTooBig { .. } => DropReason::TooBig,
            Self::HopLimitExceeded => DropReason::HopLimit,
        }
    }
}

/// Limits how many answers go out: so many per second, with a burst.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: u32,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(now: Instant, per_second: u32, burst: u32) -> Self {
        Self {
            per_second,
            burst: f64::from(burst),
            tokens: f64::from(burst),
            filled: now,
        }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed: Duration = now.saturating_duration_since(self.filled);
        self.tokens =
            (self.tokens + passed.as_secs_f64() * f64::from(self.per_second)).min(self.burst);
        self.filled = self.filled.max(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start, 10, 5);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 5);
        let later = start + Duration::from_millis(250);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 2);
        let much_later = start + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| bucket.take(much_later)).count(), 5);
    }
}
