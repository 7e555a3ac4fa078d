//! A running `adit-server`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Setup;
use crate::lab::process::Outcome;
use crate::lab::{Namespace, Process, until};

/// The gateway program inside its namespace; dropping it kills it.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    server: PathBuf,
    config: PathBuf,
    namespace: Namespace,
}

impl Gateway {
    pub(super) fn start(setup: &Setup, namespace: &Namespace) -> Result<Self> {
        let mut gateway = Self::start_under(setup, namespace, &[])?;
        gateway.ready()?;
        Ok(gateway)
    }

    /// Starts it by another program, which must become it, and does not wait.
    pub(super) fn start_under(
        setup: &Setup,
        namespace: &Namespace,
        above: &[String],
    ) -> Result<Self> {
        let (server, config) = (setup.programs().server.clone(), setup.server_toml());
        let mut run = match above {
            [] => Command::new(&server),
            [program, arguments @ ..] => {
                let mut run = Command::new(program);
                run.args(arguments).arg(&server);
                run
            }
        };
        run.args(["run", "--config"])
            .arg(&config)
            .args(["--engines", &setup.engines().to_string()])
            .env("RUST_LOG", log_level());
        let process = namespace.spawn(run)?;
        Ok(Self {
            process,
            server,
            config,
            namespace: namespace.clone(),
        })
    }

    /// Waits until `status` answers.
    pub fn ready(&mut self) -> Result<()> {
        until(START, || {
            self.process.still_runs()?;
            Ok(self.status().ok())
        })
        .with_context(|| format!("the gateway is not ready:\n{}", self.process.last_words()))?;
        Ok(())
    }

    /// `adit-server status --json`.
    pub fn status(&self) -> Result<Value> {
        let mut status = Command::new(&self.server);
        status
            .args(["status", "--json", "--config"])
            .arg(&self.config);
        let outcome = self.namespace.spawn(status)?.wait(ANSWER)?;
        ensure!(
            outcome.code == Some(0),
            "adit-server status: {}",
            outcome.stderr
        );
        serde_json::from_str(&outcome.stdout)
            .with_context(|| format!("status is not JSON: {}", outcome.stdout))
    }

    /// The table for people.
    pub fn status_text(&self) -> Result<String> {
        let mut status = Command::new(&self.server);
        status.args(["status", "--config"]).arg(&self.config);
        Ok(self.namespace.spawn(status)?.wait(ANSWER)?.stdout)
    }

    /// `adit-server reload`, with these options.
    pub fn reload(&self, options: &[&str]) -> Result<Outcome> {
        self.ask("reload", options)
    }

    /// `adit-server usage`, with these options.
    pub fn usage(&self, options: &[&str]) -> Result<Outcome> {
        self.ask("usage", options)
    }

    /// `adit-server explain`, with these arguments.
    pub fn explain(&self, arguments: &[&str]) -> Result<Outcome> {
        self.ask("explain", arguments)
    }

    /// `adit-server certs`, with these arguments.
    pub fn certs(&self, arguments: &[&str]) -> Result<Outcome> {
        self.ask("certs", arguments)
    }

    /// `adit-server invite`, with these arguments.
    pub fn invite(&self, arguments: &[&str]) -> Result<Outcome> {
        self.ask("invite", arguments)
    }

    /// `adit-server invitations`, with these options.
    pub fn invitations(&self, options: &[&str]) -> Result<Outcome> {
        self.ask("invitations", options)
    }

    fn ask(&self, what: &str, options: &[&str]) -> Result<Outcome> {
        let mut ask = Command::new(&self.server);
        ask.arg(what)
            .args(options)
            .arg("--config")
            .arg(&self.config);
        self.namespace.spawn(ask)?.wait(ANSWER)
    }

    /// The principals that are connected, in the order of `status`.
    pub fn principals(&self) -> Result<Vec<String>> {
        let status = self.status()?;
        let sessions = status["sessions"]
            .as_array()
            .context("status has no sessions")?;
        Ok(sessions
            .iter()
            .filter_map(|session| session["principal"].as_str().map(str::to_owned))
            .collect())
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits for it to end by itself.
    pub fn end(self) -> Result<Outcome> {
        self.process.wait(STOP)
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(self) -> Result<Outcome> {
        self.process.terminate()?;
        self.process.wait(STOP)
    }
}

/// What the programs log in tests: what a user would notice, unless asked for more.
pub(super) fn log_level() -> String {
    std::env::var("ADIT_TEST_LOG").unwrap_or_else(|_| "info".to_owned())
}

/// A debug build on a busy machine needs two seconds; a gateway that takes this long will not come.
const START: Duration = Duration::from_secs(20);
/// `status` is a question on a local socket.
const ANSWER: Duration = Duration::from_secs(10);
/// Sessions are told, the host is restored.
const STOP: Duration = Duration::from_secs(15);
