//! quincy: QUIC like Adit, in its default mode (TLS, hybrid key exchange).

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use adit_tests::lab::Process;
use adit_tests::lab::internet::GATEWAY_V4;
use adit_tests::programs::TemporaryDirectory;
use anyhow::Result;

use super::Subject;
use crate::link::Link;

/// Both ends, with certificates of its own tool.
#[derive(Debug)]
pub(crate) struct Quincy {
    server: PathBuf,
    client: PathBuf,
    client_process: Option<Process>,
    server_process: Option<Process>,
    directory: TemporaryDirectory,
}

impl Quincy {
    /// If its three programs are on PATH.
    pub(crate) fn find() -> Result<Option<Self>> {
        let programs = ["quincy-server", "quincy-client", "quincy-identity"].map(super::on_path);
        let [Some(server), Some(client), Some(identity)] = programs else {
            return Ok(None);
        };
        let quincy = Self {
            server,
            client,
            client_process: None,
            server_process: None,
            directory: TemporaryDirectory::new()?,
        };
        quincy.configure(identity)?;
        Ok(Some(quincy))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self, identity: PathBuf) -> Result<()> {
        let gateway = GATEWAY_V4.to_string();
        for (name, subject) in [("server", gateway.as_str()), ("client", "alice")] {
            let mut make = Command::new(&identity);
            make.args(["tls", "gencert", "--cn", subject, "--out-cert"])
                .arg(self.path(&format!("{name}.pem")))
                .arg("--out-key")
                .arg(self.path(&format!("{name}.key")));
            super::output(&mut make)?;
        }
        let mut fingerprint = Command::new(identity);
        fingerprint
            .args(["tls", "fingerprint", "--cert"])
            .arg(self.path("client.pem"));
        let fingerprint = super::output(&mut fingerprint)?;
        let at = |name| self.path(name).display().to_string();
        let users = format!(
            "[users.alice]\nauthorized_certs = [\"{}\"]\n",
            fingerprint.trim()
        );
        fs::write(self.path("users.toml"), users)?;
        let server = format!(
            "name = \"bench\"\n\
             interface_name = \"quincy-gateway\"\n\
             bind_port = {PORT}\n\
             tunnel_network = \"{INSIDE}/24\"\n\
             users_file = \"{}\"\n\
             [protocol]\n\
             mode = \"tls\"\n\
             certificate_file = \"{}\"\n\
             certificate_key_file = \"{}\"\n\
             [log]\n\
             level = \"warn\"\n",
            at("users.toml"),
            at("server.pem"),
            at("server.key"),
        );
        fs::write(self.path("server.toml"), server)?;
        let client = format!(
            "connection_string = \"{gateway}:{PORT}\"\n\
             [protocol]\n\
             mode = \"tls\"\n\
             trusted_certificate_paths = [\"{}\"]\n\
             client_certificate_file = \"{}\"\n\
             client_certificate_key_file = \"{}\"\n\
             [network]\n\
             interface_name = \"quincy-client\"\n\
             [log]\n\
             level = \"warn\"\n",
            at("server.pem"),
            at("client.pem"),
            at("client.key"),
        );
        fs::write(self.path("client.toml"), client)?;
        Ok(())
    }
}

impl Subject for Quincy {
    fn name(&self) -> &'static str {
        "quincy"
    }

    /// Its programs do not tell; what they were built from does.
    fn version(&self) -> String {
        super::version(&self.client, "--version").unwrap_or_else(|| {
            "TLS, hybrid key exchange, MTU 1400 (its defaults); its programs tell no version"
                .to_owned()
        })
    }

    fn inside(&self) -> IpAddr {
        INSIDE.into()
    }

    fn start_gateway(&mut self, link: &Link) -> Result<()> {
        let mut run = Command::new(&self.server);
        run.arg("--config-path").arg(self.path("server.toml"));
        self.server_process = Some(link.gateway.spawn(run)?);
        link.gateway_listens(PORT)?;
        super::alive(&mut self.server_process)
    }

    fn start_client(&mut self, link: &Link) -> Result<()> {
        let mut run = Command::new(&self.client);
        run.arg("--config-path").arg(self.path("client.toml"));
        self.client_process = Some(link.client.spawn(run)?);
        Ok(())
    }

    fn stop_client(&mut self) -> Result<()> {
        super::stop(&mut self.client_process)
    }

    fn alive(&mut self) -> Result<()> {
        super::alive(&mut self.client_process)?;
        super::alive(&mut self.server_process)
    }

    fn processes(&self) -> Option<(u32, u32)> {
        let (client, server) = (&self.client_process, &self.server_process);
        Some((client.as_ref()?.pid(), server.as_ref()?.pid()))
    }
}

const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

const PORT: u16 = 55555;
