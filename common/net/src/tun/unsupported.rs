//! TUN on systems for which there is no code: it cannot be opened.

use std::convert::Infallible;
use std::io;

use adit_core::offload::Offload;
use bytes::{Bytes, BytesMut};

use super::TunError;

#[derive(Debug)]
pub(super) struct Queue(Infallible);

#[derive(Clone, Copy)]
pub(super) enum Queues {
    Only,
    First,
    Another,
}

impl Queue {
    pub(super) fn open(_name: &str, _mtu: u16, _which: Queues) -> Result<Self, TunError> {
        Err(TunError::Unsupported)
    }

    pub(super) fn recv(&mut self, _headroom: usize) -> io::Result<Option<(BytesMut, Offload)>> {
        match self.0 {}
    }

    pub(super) fn send(&mut self, _packet: Bytes) {
        match self.0 {}
    }

    pub(super) fn flush(&mut self) -> usize {
        match self.0 {}
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Queue {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self.0 {}
    }
}
