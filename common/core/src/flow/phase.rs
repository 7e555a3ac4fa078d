//! How far a flow has come, and how long it may be silent there.

use std::fmt;
use std::time::Duration;

use crate::policy::Direction;
use crate::wire::tcp::{ACK, FIN, RST, SYN};

use super::key::Part;

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TCP before its handshake is over.
    Opening,
    /// TCP, both ways.
    Established,
    /// TCP after a FIN from each side, or a reset.
    Closing,
    /// Anything else that nobody has answered yet.
    Unanswered,
    /// An ICMP query that was answered.
    Query,
    /// Anything else that was answered.
    Answered,
}

impl Phase {
    /// Every phase, in the order of their numbers.
    pub(super) const ALL: [Self; 6] = [
        Self::Opening,
        Self::Established,
        Self::Closing,
        Self::Unanswered,
        Self::Query,
        Self::Answered,
    ];

    /// How long a flow in this phase may be silent before it is forgotten.
    #[must_use]
    pub const fn timeout(self) -> Duration {
        match self {
            Self::Opening | Self::Closing => TRANSITORY,
            Self::Established => ESTABLISHED,
            Self::Unanswered => UNANSWERED,
            Self::Query => QUERY,
            Self::Answered => ANSWERED,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Unanswered => "unanswered",
            Self::Query | Self::Answered => "answered",
        })
    }
}

/// What a flow remembers of the packets it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) started_by: Direction,
    pub(super) phase: Phase,
    answered: bool,
    /// Which sides have sent a FIN.
    finished: [bool; 2],
}

impl Progress {
    /// Before the first packet.
    pub(super) fn new(started_by: Direction, part: Part) -> Self {
        Self {
            started_by,
            phase: match part {
                Part::Segment(_) => Phase::Opening,
                Part::Datagram | Part::Answer => Phase::Unanswered,
            },
            answered: false,
            finished: [false; 2],
        }
    }

    /// A packet of the flow passes.
    pub(super) fn advance(&mut self, direction: Direction, part: Part, is_query: bool) {
        let is_answer = direction != self.started_by;
        self.answered |= is_answer;
        let Part::Segment(flags) = part else {
            if self.answered {
                self.phase = if is_query {
                    Phase::Query
                } else {
                    Phase::Answered
                };
            }
            return;
        };
        self.finished[direction as usize] |= flags & FIN != 0;
        if flags & RST != 0 || self.finished == [true; 2] {
            self.phase = Phase::Closing;
        } else if self.phase == Phase::Opening && self.answered && !is_answer && flags & ACK != 0 {
            self.phase = Phase::Established;
        }
    }

    /// Whether this is the beginning of another connection under the same name: after the end of
    /// this one, or from the side that is to answer. Both may open at once (RFC 9293 §3.5).
    pub(super) fn is_begun_anew(&self, direction: Direction, part: Part) -> bool {
        let Part::Segment(flags) = part else {
            return false;
        };
        let answers = direction != self.started_by && self.phase != Phase::Opening;
        flags & (SYN | ACK | RST) == SYN && (self.phase == Phase::Closing || answers)
    }

    /// Whether a packet went that way before.
    pub(super) fn has_sent(&self, direction: Direction) -> bool {
        direction == self.started_by || self.answered
    }
}

/// RFC 5382 §5 (REQ-5): at least four minutes for connections that open or close.
const TRANSITORY: Duration = Duration::from_secs(4 * 60);
/// RFC 5382 §5 (REQ-5): at least two hours and four minutes, longer than a TCP keep-alive waits.
const ESTABLISHED: Duration = Duration::from_secs(124 * 60);
/// Twice as long as other firewalls wait, and half of what RFC 4787 §4.3 asks for a mapping: there is no
/// mapping here, and the one who asked may ask again.
const UNANSWERED: Duration = Duration::from_secs(60);
/// RFC 5508 §3.2 (REQ-2): at least a minute.
const QUERY: Duration = Duration::from_secs(60);
/// RFC 4787 §4.3 (REQ-5): at least two minutes, better five.
const ANSWERED: Duration = Duration::from_secs(5 * 60);
