//! A running `adit`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Programs, gateway::log_level};
use crate::lab::namespace::Sight;
use crate::lab::process::Outcome;
use crate::lab::{Namespace, Process, until};

/// The client program inside its namespace; dropping it kills it.
#[derive(Debug)]
pub struct Client {
    adit: PathBuf,
    namespace: Namespace,
    profile: PathBuf,
    directory: PathBuf,
    interface: String,
    process: Option<Process>,
}

impl Client {
    pub(super) fn new(
        programs: &Programs,
        namespace: &Namespace,
        profile: &Path,
        directory: &Path,
        interface: &str,
    ) -> Self {
        Self {
            adit: programs.adit.clone(),
            namespace: namespace.clone(),
            profile: profile.to_owned(),
            directory: directory.to_owned(),
            interface: interface.to_owned(),
            process: None,
        }
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// `adit up`, without waiting for anything.
    pub fn start(&mut self) -> Result<()> {
        self.start_seeing(Sight::Whole)
    }

    /// `adit up` with a changed view of the file system.
    pub fn start_seeing(&mut self, sight: Sight) -> Result<()> {
        let mut up = self.command();
        up.arg("up").arg(&self.profile);
        self.process = Some(self.namespace.spawn_seeing(up, sight)?);
        Ok(())
    }

    /// Waits until the tunnel carries packets: connected and with addresses. Gives the time it took.
    pub fn connected(&mut self, patience: Duration) -> Result<Duration> {
        let start = Instant::now();
        let result = until(patience, || {
            self.process()?.still_runs()?;
            let Ok(status) = self.status() else {
                return Ok(None);
            };
            let has_address = status["addresses"]
                .as_array()
                .is_some_and(|addresses| !addresses.is_empty());
            Ok((status["state"] == "up" && has_address).then_some(()))
        });
        if let Err(error) = result {
            let words = self.process()?.last_words();
            bail!(
                "{}: not connected ({error:#}):\n{words}",
                self.namespace.name()
            );
        }
        Ok(start.elapsed())
    }

    /// `adit status --json`; an error while it does not run.
    pub fn status(&self) -> Result<Value> {
        let mut status = self.command();
        status.args(["status", "--json", "--interface", &self.interface]);
        let outcome = self.namespace.spawn(status)?.wait(ANSWER)?;
        serde_json::from_str(&outcome.stdout)
            .with_context(|| format!("adit status: {}", outcome.stderr))
    }

    /// The table for people.
    pub fn status_text(&self) -> Result<String> {
        let mut status = self.command();
        status.args(["status", "--interface", &self.interface]);
        Ok(self.namespace.spawn(status)?.wait(ANSWER)?.stdout)
    }

    /// The tunnel's own address of one family.
    pub fn address(&self, v4: bool) -> Result<IpAddr> {
        let status = self.status()?;
        let addresses = status["addresses"].as_array().cloned().unwrap_or_default();
        let addresses = addresses
            .iter()
            .filter_map(|value| value.as_str()?.split('/').next()?.parse().ok());
        let found: Option<IpAddr> = addresses
            .into_iter()
            .find(|address: &IpAddr| address.is_ipv4() == v4);
        found.with_context(|| format!("no address in {status}"))
    }

    /// `adit down`, and waits for the client's end.
    pub fn down(mut self) -> Result<Outcome> {
        let mut down = self.command();
        down.args(["down", "--interface", &self.interface]);
        let outcome = self.namespace.spawn(down)?.wait(STOP)?;
        ensure!(outcome.code == Some(0), "adit down: {}", outcome.stderr);
        self.end()
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> Result<Outcome> {
        self.process()?.terminate()?;
        self.end()
    }

    /// Waits for it to end by itself.
    pub fn end(&mut self) -> Result<Outcome> {
        self.process
            .take()
            .context("the client was not started")?
            .wait(STOP)
    }

    /// The process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the client was not started")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.adit);
        command
            .env("ADIT_RUN_DIR", self.directory.join("run"))
            .env("ADIT_STATE_DIR", self.directory.join("state"))
            .env("RUST_LOG", log_level());
        command
    }
}

/// A handshake takes milliseconds; twenty seconds cover a busy machine and a few retries.
pub(super) const CONNECT: Duration = Duration::from_secs(20);
/// `status` is a question on a local socket.
const ANSWER: Duration = Duration::from_secs(10);
/// The gateway is told, the host is restored.
const STOP: Duration = Duration::from_secs(15);
