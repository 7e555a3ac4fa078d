//! What is measured: the bare link, Adit, and its peers.

mod adit;
mod openvpn;
mod plain;
mod quincy;
mod wireguard;

use std::env;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adit_tests::lab::Process;
use adit_tests::programs::Programs;
use anyhow::{Context, Result, bail, ensure};

use crate::link::Link;

/// One way from the client to the gateway.
pub(crate) trait Subject {
    /// One of [`NAMES`].
    fn name(&self) -> &'static str;

    /// For the report.
    fn version(&self) -> String;

    /// The gateway's address that leads through it.
    fn inside(&self) -> IpAddr;

    /// Starts the gateway's end and waits until it can be connected to.
    fn start_gateway(&mut self, link: &Link) -> Result<()>;

    /// Starts the client's end; whoever wants to know when it is through pings [`Subject::inside`].
    fn start_client(&mut self, link: &Link) -> Result<()>;

    /// Stops the client's end; it can be started again.
    fn stop_client(&mut self) -> Result<()>;

    /// Fails with a program's last words if one of them has ended by itself.
    fn alive(&mut self) -> Result<()>;

    /// The process ids of the client's and the gateway's end; `None` if there are no programs, or one is
    /// not running.
    fn processes(&self) -> Option<(u32, u32)>;
}

/// All subjects, in the order of measurement.
pub(crate) const NAMES: [&str; 7] = [
    "plain",
    "adit",
    "wireguard-go",
    "gotatun",
    "boringtun",
    "quincy",
    "openvpn",
];

/// The subject of that name, not started yet; `None` if its programs are not on PATH.
pub(crate) fn find(name: &str, programs: &Programs) -> Result<Option<Box<dyn Subject>>> {
    Ok(match name {
        "plain" => Some(Box::new(plain::Plain)),
        "adit" => Some(Box::new(adit::Adit::new(programs)?)),
        "quincy" => boxed(quincy::Quincy::find()?),
        "openvpn" => boxed(openvpn::OpenVpn::find(programs)?),
        _ => boxed(wireguard::WireGuard::find(name)?),
    })
}

/// The path of a program.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// The first line with a digit that `program` answers with.
pub(crate) fn version(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.contains(|character: char| character.is_ascii_digit()))?;
    let words: Vec<&str> = line.split_whitespace().take(2).collect();
    Some(words.join(" "))
}

fn boxed<S: Subject + 'static>(subject: Option<S>) -> Option<Box<dyn Subject>> {
    subject.map(|subject| Box::new(subject) as Box<dyn Subject>)
}

/// Ends a program the polite way, so that it tells its peer, or else the other way.
fn stop(process: &mut Option<Process>) -> Result<()> {
    if let Some(process) = process.take() {
        process.terminate()?;
        // Waiting consumes the process; if it does not end by itself, that kills it.
        let _ = process.wait(Duration::from_secs(5));
    }
    Ok(())
}

/// Runs a program that must succeed, and gives what it prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fails with the program's own words if it has ended, or was never started.
fn alive(process: &mut Option<Process>) -> Result<()> {
    match process {
        Some(process) => process.still_runs(),
        None => bail!("it was not started"),
    }
}
