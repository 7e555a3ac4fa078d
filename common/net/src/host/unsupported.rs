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

    pub async fn undo(&mut self) -> Result<(), HostError> {
        match self.0 {}
    }

    pub async fn connected(&self) -> Result<Vec<Connected>, HostError> {
        match self.0 {}
    }

    pub async fn largest_mtu(&self) -> Result<Option<u16>, HostError> {
        match self.0 {}
    }

    pub async fn interface_index(&self, _name: &str) -> Result<u32, HostError> {
        match self.0 {}
    }

    pub async fn route_to(
        &self,
        _destination: IpAddr,
        _mark: Option<u32>,
    ) -> Result<Option<String>, HostError> {
        match self.0 {}
    }

    pub fn has_ipv6() -> bool {
        false
    }
}
