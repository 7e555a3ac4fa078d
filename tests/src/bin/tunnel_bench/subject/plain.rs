//! The bare link: what the machine can do without a tunnel.

use std::net::IpAddr;

use adit_tests::lab::internet::GATEWAY_V4;
use anyhow::Result;

use super::Subject;
use crate::link::Link;

/// No tunnel.
#[derive(Debug)]
pub(crate) struct Plain;

impl Subject for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn version(&self) -> String {
        "the veth pair itself".to_owned()
    }

    fn inside(&self) -> IpAddr {
        GATEWAY_V4
    }

    fn start_gateway(&mut self, _link: &Link) -> Result<()> {
        Ok(())
    }

    fn start_client(&mut self, _link: &Link) -> Result<()> {
        Ok(())
    }

    fn stop_client(&mut self) -> Result<()> {
        Ok(())
    }

    fn alive(&mut self) -> Result<()> {
        Ok(())
    }

    fn processes(&self) -> Option<(u32, u32)> {
        None
    }
}
