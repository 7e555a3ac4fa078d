//! Hosts for which there is no code: nothing can be changed.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::Path;

use super::{Connected, HostError, Network};

/// The host as one tunnel has changed it; cannot be opened on this system.
#[derive(Debug)]
pub struct Host(Infallible);

#[allow(clippy::unused_async, missing_docs)]
impl Host {
    pub async fn open(_state_directory: &Path, _interface: &str) -> Result<Self, HostError> {
        Err(HostError::Unsupported)
    }

    pub async fn apply(&mut self, _network: &Network) -> Result<(), HostError> {
        match self.0 {}
    }

    pub async fn may_move_to(&self, _directory: &Path, _interface: &str) -> Result<(), HostError> {
        match self.0 {}
    }

    pub async fn move_to(&mut self, _directory: &Path, _interface: &str) -> Result<(), HostError> {
        match self.0 {}
    }

    pub fn settle(&mut self) -> Result<(), HostError> {
        match self.0 {}
    }

    pub async fn undo(&mut self) -> Result<(), HostError> {
        match self.0 {}
    }
}

/// The networks the host is part of; not known on this system.
#[allow(clippy::unused_async)]
pub async fn connected() -> Result<Vec<Connected>, HostError> {
    Err(HostError::Unsupported)
}

/// The largest MTU of the interfaces that are up; not known on this system.
#[allow(clippy::unused_async)]
pub async fn largest_link_mtu() -> Result<u16, HostError> {
    Err(HostError::Unsupported)
}

/// The kernel's number of an interface; not known on this system.
#[allow(clippy::unused_async)]
pub async fn interface_index(_name: &str) -> Result<u32, HostError> {
    Err(HostError::Unsupported)
}

/// The interface through which a packet leaves; not known on this system.
#[allow(clippy::unused_async)]
pub async fn route_to(_to: IpAddr, _mark: Option<u32>) -> Result<Option<String>, HostError> {
    Err(HostError::Unsupported)
}

/// The host's own name; not known on this system.
pub fn name() -> String {
    "unknown".to_owned()
}

/// Whether new interfaces can have IPv6 addresses.
pub fn has_ipv6() -> bool {
    false
}
