//! TUN on systems for which there is no code: it cannot be opened.

use std::convert::Infallible;
use std::io;

use adit_core::offload::Offload;
use bytes::{Bytes, BytesMut};

use super::{TunError, Waiting};

#[derive(Debug)]
pub(super) struct Queues(Infallible);

#[derive(Clone, Copy)]
pub(super) enum Part {
    Only,
    First(u8),
    Another(u8),
}

impl Queues {
    pub(super) fn open(_name: &str, _mtu: u16, _part: Part) -> Result<Self, TunError> {
        Err(TunError::Unsupported)
    }

    pub(super) fn recv(
        &mut self,
        _waiting: &mut Waiting,
        _headroom: usize,
    ) -> io::Result<Option<(BytesMut, Offload)>> {
        match self.0 {}
    }

    pub(super) fn send(&mut self, _packet: Bytes) {
        match self.0 {}
    }

    pub(super) fn take_written(&mut self) -> Waiting {
        match self.0 {}
    }

    pub(super) fn flush(&mut self) -> usize {
        match self.0 {}
    }

    #[cfg(unix)]
    pub(super) fn iter(&self) -> std::iter::Empty<std::os::fd::BorrowedFd<'_>> {
        match self.0 {}
    }
}
