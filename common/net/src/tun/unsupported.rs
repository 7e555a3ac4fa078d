//! TUN on systems for which there is no code: it cannot be opened.

use std::convert::Infallible;
use std::io;

use bytes::BytesMut;

use super::TunError;

#[derive(Debug)]
pub(super) struct Queue(Infallible);

impl Queue {
    pub(super) fn open(_name: &str, _mtu: u16) -> Result<Self, TunError> {
        Err(TunError::Unsupported)
    }

    pub(super) fn recv(&mut self, _headroom: usize) -> io::Result<Option<BytesMut>> {
        match self.0 {}
    }

    pub(super) fn send(&mut self, _packet: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Queue {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self.0 {}
    }
}
