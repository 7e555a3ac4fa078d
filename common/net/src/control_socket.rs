//! The local socket through which `status` and `down` reach a running program.
//!
//! One JSON line in, one JSON line out, then the connection ends. Only root and the user the program runs as
//! may ask: the socket's permissions say so, and the kernel is asked who the peer is. A program that died leaves
//! a socket behind, which the next one replaces; two programs cannot have the same one.

use std::io;
use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
mod unsupported;

#[cfg(unix)]
pub use unix::{Connection, Listener, ask, ask_patiently};
#[cfg(not(unix))]
pub use unsupported::{Connection, Listener, ask, ask_patiently};

/// An answer as it goes over the socket. Making it of a long list takes a while; sending it waits for the peer alone.
#[derive(Debug)]
pub struct Line(Vec<u8>);

impl Line {
    /// Writes an answer as JSON.
    ///
    /// # Errors
    /// When it cannot be said in JSON.
    pub fn of<T: Serialize>(answer: &T) -> Result<Self, serde_json::Error> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        Ok(Self(line))
    }
}

/// Why the socket could not be made, or a question not be answered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Nobody listens.
    #[error("nothing is running at {}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// Another program listens already.
    #[error("another program is running at {}", path.display())]
    AlreadyRunning {
        /// The socket.
        path: PathBuf,
    },
    /// This user may not ask, or not listen there.
    #[error("no permission to use {}", path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// A peer that is neither root nor the user this program runs as.
    #[error("user {user} may not ask")]
    Stranger {
        /// The peer's user id.
        user: u32,
    },
    /// The other end said nothing in time.
    #[error("nothing came through {} within {seconds} seconds", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// What came is not what was expected, as between two versions.
    #[error("what came through {} is not understood", path.display())]
    Misunderstood {
        /// The socket.
        path: PathBuf,
        /// What does not parse.
        source: serde_json::Error,
    },
    /// Anything else.
    #[error("cannot {action} {}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl ControlError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRunning { .. } => Some("start it first, or name the right socket"),
            Self::AlreadyRunning { .. } => Some("stop it first, or choose another socket"),
            Self::Permission { .. } => Some("run as root, or as the user the program runs as"),
            Self::Silent { .. } => Some("it may be overloaded; its log tells more"),
            Self::Misunderstood { .. } => Some("both programs should be of the same version"),
            Self::Stranger { .. } | Self::System { .. } => None,
        }
    }
}
