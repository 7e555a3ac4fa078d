//! Adit, as `adit-server init` and `adit-ca issue` set it up.

use std::net::IpAddr;
use std::path::PathBuf;

use adit_tests::lab::internet::OFFICE_V4;
use adit_tests::programs::{Client, Gateway, Programs, Setup};
use anyhow::{Context, Result};

use super::Subject;
use crate::link::Link;

/// Client and gateway with an authority of their own.
#[derive(Debug)]
pub(crate) struct Adit {
    // Processes before the directory they work in: fields are dropped in this order.
    client: Option<(Client, u32)>,
    gateway: Option<(Gateway, u32)>,
    profile: PathBuf,
    setup: Setup,
}

impl Adit {
    /// Everything but the processes.
    pub(crate) fn new(programs: &Programs) -> Result<Self> {
        let setup = Setup::new(programs)?;
        let profile = setup.profile("alice@example.com", &["staff"])?;
        Ok(Self {
            client: None,
            gateway: None,
            profile,
            setup,
        })
    }
}

impl Subject for Adit {
    fn name(&self) -> &'static str {
        "adit"
    }

    fn version(&self) -> String {
        super::version(&self.setup.programs().adit, "--version")
            .unwrap_or_else(|| "this build".to_owned())
    }

    /// What the policy allows, here without a host behind the gateway.
    fn inside(&self) -> IpAddr {
        OFFICE_V4
    }

    fn start_gateway(&mut self, link: &Link) -> Result<()> {
        link.gateway.add_address("lo", OFFICE_V4.into())?;
        let mut gateway = self.setup.start_gateway(&link.gateway)?;
        let pid = gateway.process().pid();
        self.gateway = Some((gateway, pid));
        Ok(())
    }

    fn start_client(&mut self, link: &Link) -> Result<()> {
        let mut client = self.setup.client(&link.client, &self.profile)?;
        client.start()?;
        let pid = client.process()?.pid();
        self.client = Some((client, pid));
        Ok(())
    }

    fn stop_client(&mut self) -> Result<()> {
        let (client, _) = self.client.take().context("the client was not started")?;
        client.stop()?;
        Ok(())
    }

    fn alive(&mut self) -> Result<()> {
        if let (Some((client, _)), Some((gateway, _))) = (&mut self.client, &mut self.gateway) {
            client.process()?.still_runs()?;
            gateway.process().still_runs()?;
        }
        Ok(())
    }

    fn processes(&self) -> Option<(u32, u32)> {
        Some((self.client.as_ref()?.1, self.gateway.as_ref()?.1))
    }
}
