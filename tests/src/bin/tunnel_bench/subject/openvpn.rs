//! OpenVPN in user space: UDP, AES-128-GCM, certificates from Adit's authority.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use adit_tests::lab::Process;
use adit_tests::lab::internet::GATEWAY_V4;
use adit_tests::programs::{Programs, Setup};
use anyhow::{Context, Result};
use toml::Table;

use super::Subject;
use crate::link::Link;

/// Both ends of the one program.
#[derive(Debug)]
pub(crate) struct OpenVpn {
    program: PathBuf,
    client: Option<Process>,
    gateway: Option<Process>,
    setup: Setup,
}

impl OpenVpn {
    /// If it is on PATH.
    pub(crate) fn find(programs: &Programs) -> Result<Option<Self>> {
        let Some(program) = super::on_path("openvpn") else {
            return Ok(None);
        };
        let setup = Setup::new(programs)?;
        let profile = setup.profile("alice@example.com", &[])?;
        let profile: Table = fs::read_to_string(profile)?.parse()?;
        for key in ["certificate", "key", "ca"] {
            let pem = profile[key].as_str().context("a profile holds PEM")?;
            fs::write(setup.path(format!("{key}.pem")), pem)?;
        }
        Ok(Some(Self {
            program,
            client: None,
            gateway: None,
            setup,
        }))
    }

    /// What both ends say. Data channel offload would be the kernel's speed, not the program's.
    fn command(&self, interface: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--dev-type", "tun", "--dev", interface])
            .args(["--proto", "udp", "--topology", "subnet", "--disable-dco"])
            .args(["--data-ciphers", "AES-128-GCM", "--verb", "1", "--ca"])
            .arg(self.setup.path("ca.pem"));
        command
    }
}

impl Subject for OpenVpn {
    fn name(&self) -> &'static str {
        "openvpn"
    }

    fn version(&self) -> String {
        let version = super::version(&self.program, "--version");
        version.unwrap_or_else(|| "version unknown".to_owned()) + ", AES-128-GCM, user space"
    }

    fn inside(&self) -> IpAddr {
        // --server gives the gateway the first address.
        Ipv4Addr::new(10, 79, 0, 1).into()
    }

    fn start_gateway(&mut self, link: &Link) -> Result<()> {
        let mut run = self.command("vpn-gateway");
        let directory = self.setup.gateway_directory();
        run.args(["--server", "10.79.0.0", "255.255.255.0", "--dh", "none"])
            .args(["--port", &PORT.to_string(), "--cert"])
            .arg(directory.join("gateway.pem"))
            .arg("--key")
            .arg(directory.join("gateway.key"));
        self.gateway = Some(link.gateway.spawn(run)?);
        link.gateway_listens(PORT)?;
        super::alive(&mut self.gateway)
    }

    fn start_client(&mut self, link: &Link) -> Result<()> {
        let mut run = self.command("vpn-client");
        run.args(["--client", "--nobind", "--remote-cert-tls", "server"])
            .args(["--remote", &GATEWAY_V4.to_string(), &PORT.to_string()])
            .arg("--cert")
            .arg(self.setup.path("certificate.pem"))
            .arg("--key")
            .arg(self.setup.path("key.pem"));
        self.client = Some(link.client.spawn(run)?);
        Ok(())
    }

    fn stop_client(&mut self) -> Result<()> {
        super::stop(&mut self.client)
    }

    fn alive(&mut self) -> Result<()> {
        super::alive(&mut self.client)?;
        super::alive(&mut self.gateway)
    }

    fn processes(&self) -> Option<(u32, u32)> {
        Some((self.client.as_ref()?.pid(), self.gateway.as_ref()?.pid()))
    }
}

const PORT: u16 = 1194;
