//! Systems without Unix sockets: a program cannot be asked.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::{ControlError, Line};

/// The listening end; cannot be opened on this system.
#[derive(Debug)]
pub struct Listener(Infallible);

/// Somebody who may ask; there is nobody on this system.
#[derive(Debug)]
pub struct Connection(Infallible);

#[allow(clippy::unused_async, missing_docs)]
impl Listener {
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        Err(unsupported(path))
    }

    pub fn close(self) -> Vec<Connection> {
        match self.0 {}
    }

    pub async fn accept(&self) -> Result<Connection, ControlError> {
        match self.0 {}
    }
}

#[allow(clippy::unused_async, missing_docs)]
impl Connection {
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ControlError> {
        match self.0 {}
    }

    pub async fn send<T: Serialize>(&mut self, _answer: &T) -> Result<(), ControlError> {
        match self.0 {}
    }

    pub async fn deliver(&mut self, _line: &Line, _patience: Duration) -> Result<(), ControlError> {
        match self.0 {}
    }
}

/// Asks a running program; cannot be done on this system.
pub fn ask<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    _question: &Q,
) -> Result<A, ControlError> {
    Err(unsupported(path))
}

/// The same; cannot be done on this system either.
pub fn ask_patiently<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    question: &Q,
    _patience: Duration,
) -> Result<A, ControlError> {
    ask(path, question)
}

fn unsupported(path: &Path) -> ControlError {
    ControlError::System {
        path: path.into(),
        action: "use",
        source: io::ErrorKind::Unsupported.into(),
    }
}
