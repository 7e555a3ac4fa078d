//! Waiting on systems for which there is no code: no TUN device can be opened there either.

use std::io;
use std::time::Duration;

use super::{Ready, Watch};

#[derive(Debug)]
pub(super) struct Bell;

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn ring(&self) {}

    pub(super) fn silence(&self) {}
}

pub(super) fn wait(
    _watch: Watch<'_>,
    _bell: &Bell,
    _timeout: Option<Duration>,
) -> io::Result<Ready> {
    Err(io::ErrorKind::Unsupported.into())
}
