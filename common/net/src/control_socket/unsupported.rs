//! Systems without Unix sockets: a program cannot be asked.

use std::convert::Infallible;
use std::io;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::ControlError;

/// The listening end; cannot be opened on this system.
#[derive(Debug)]
pub struct Server(Infallible);

/// A question; there is none on this system.
#[derive(Debug)]
pub struct Request(Infallible);

#[allow(clippy::unused_async, missing_docs)]
impl Server {
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        Err(unsupported(path))
    }

    pub async fn next(&self) -> Request {
        match self.0 {}
    }
}

#[allow(clippy::unused_async, missing_docs)]
impl Request {
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self.0 {}
    }

    pub async fn answer<T: Serialize>(self, _answer: &T) {
        match self.0 {}
    }
}

/// Asks a running program; cannot be done on this system.
#[allow(clippy::unused_async)]
pub async fn ask<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    _question: &Q,
) -> Result<A, ControlError> {
    Err(unsupported(path))
}

fn unsupported(path: &Path) -> ControlError {
    ControlError::System {
        path: path.into(),
        action: "use",
        source: io::ErrorKind::Unsupported.into(),
    }
}
