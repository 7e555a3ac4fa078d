//! Waiting on systems for which there is no code: no TUN device can be opened there either.

use std::io;
use std::time::Duration;

use super::Ready;
use crate::tun::Tun;
use crate::udp::Udp;

#[derive(Debug)]
pub(super) struct Set;

#[derive(Debug)]
pub(super) struct Bell;

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn ring(&self) {}

    pub(super) fn silence(&self) {}
}

impl Set {
    pub(super) fn new(_udp: &Udp, _tun: &Tun, _bell: &Bell) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn hold(&self, _udp: &Udp, _held: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn replace_udp(&self, _old: &Udp, _new: &Udp) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn wait(&self, _timeout: Option<Duration>) -> io::Result<Ready> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
