//! The load at both ends: iperf3, or without it our own TCP transfer, the same for every subject.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use adit_tests::lab::until;
use adit_tests::probe::flood::Flood;
use adit_tests::probe::throughput::{Direction, Transfer};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::link::Link;
use crate::subject::on_path;

/// What makes the load.
#[derive(Debug)]
pub(crate) enum Load {
    /// iperf3 at both ends.
    Iperf3(PathBuf),
    /// Threads of this process.
    Own,
}

/// What arrived of a TCP transfer, both directions together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// Payload bytes.
    pub(crate) bytes: f64,
    /// The rate.
    pub(crate) gbit_per_second: f64,
}

impl Load {
    /// iperf3 if it is on PATH.
    pub(crate) fn find() -> Self {
        on_path("iperf3").map_or(Self::Own, Self::Iperf3)
    }

    /// TCP for `seconds`, from the client to `to` or back.
    pub(crate) fn tcp(
        &self,
        link: &Link,
        to: IpAddr,
        direction: Direction,
        streams: usize,
        seconds: u64,
    ) -> Result<Arrived> {
        let Self::Iperf3(program) = self else {
            let transfer = Transfer {
                direction,
                streams,
                length: Duration::from_secs(seconds),
                programs: Vec::new(),
            };
            let figure = transfer.run(&link.client, &link.gateway, to)?;
            return Ok(Arrived {
                bytes: figure.bytes as f64,
                gbit_per_second: figure.gbit_per_second(),
            });
        };
        let streams = streams.to_string();
        let mut arguments = vec!["-P", &streams];
        let sums: &[&str] = match direction {
            Direction::Up => &["sum_received"],
            Direction::Down => {
                arguments.push("-R");
                &["sum_received"]
            }
            Direction::Both => {
                arguments.push("--bidir");
                &["sum_received", "sum_received_bidir_reverse"]
            }
        };
        let end = iperf3(program, link, to, seconds, &arguments)?;
        let sum = |field: &str| -> Result<f64> {
            let values = sums.iter().map(|sum| number(&end[*sum][field], field));
            values.sum()
        };
        let arrived = Arrived {
            bytes: sum("bytes")?,
            gbit_per_second: sum("bits_per_second")? / 1e9,
        };
        ensure!(arrived.bytes > 0.0, "not a single byte arrived");
        Ok(arrived)
    }

    /// UDP packets with [`SMALL`] bytes of payload at `rate` a second, from the client to `to`: the part
    /// that does not arrive, in per cent.
    pub(crate) fn udp_loss(&self, link: &Link, to: IpAddr, rate: u64, seconds: u64) -> Result<f64> {
        let Self::Iperf3(program) = self else {
            let flood = Flood {
                rate,
                payload: SMALL,
                length: Duration::from_secs(seconds),
            };
            return Ok(flood.run(&link.client, &link.gateway, to)?.lost());
        };
        let bits = (rate * SMALL as u64 * 8).to_string();
        let length = SMALL.to_string();
        let buffer = socket_buffer().to_string();
        let arguments = ["-u", "-l", &length, "-b", &bits, "-w", &buffer];
        let end = iperf3(program, link, to, seconds, &arguments)?;
        number(&end["sum"]["lost_percent"], "lost_percent")
    }

    /// UDP packets of [`LARGE`] bytes as fast as the sender can, for `seconds`: what arrives, in Gbit/s.
    pub(crate) fn flood(
        &self,
        link: &Link,
        to: IpAddr,
        direction: Direction,
        seconds: u64,
    ) -> Result<f64> {
        let Self::Iperf3(program) = self else {
            bail!("a flood needs iperf3 on PATH");
        };
        let length = LARGE.to_string();
        let mut arguments = vec!["-u", "-b", "0", "-l", &length];
        if direction == Direction::Down {
            arguments.push("-R");
        }
        let sum = &iperf3(program, link, to, seconds, &arguments)?["sum"];
        // What is sent counts at the sender; the loss is what it is about.
        let sent = number(&sum["bits_per_second"], "bits_per_second")?;
        let lost = number(&sum["lost_percent"], "lost_percent")?;
        Ok(sent * (1.0 - lost / 100.0) / 1e9)
    }

    /// Its name and version.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Iperf3(program) => {
                crate::subject::version(program, "--version").unwrap_or_else(|| "iperf3".to_owned())
            }
            Self::Own => "threads of tunnel-bench (no iperf3 on PATH)".to_owned(),
        }
    }
}

/// One run of iperf3; gives the part of its report that sums up.
fn iperf3(
    program: &PathBuf,
    link: &Link,
    to: IpAddr,
    seconds: u64,
    arguments: &[&str],
) -> Result<Value> {
    // A port for each run: what an overloaded tunnel still delivers of the last flood is not for this one.
    let port = (FIRST_PORT + RUNS.fetch_add(1, Ordering::Relaxed) % PORTS).to_string();
    let to = to.to_string();
    let mut serve = Command::new(program);
    // A server for each run: one that was left in the middle of a test would refuse the next.
    serve.args(["-s", "-1", "-B", &to, "-p", &port, "--forceflush"]);
    let mut server = link.gateway.spawn(serve)?;
    until(PATIENCE, || {
        server.still_runs()?;
        Ok(server.stdout().contains("listening").then_some(()))
    })
    .context("iperf3 -s does not listen")?;
    let mut client = Command::new(program);
    client
        .args(["-c", &to, "-p", &port, "-J", "-t", &seconds.to_string()])
        .args(arguments);
    let outcome = link
        .client
        .spawn(client)?
        .wait(Duration::from_secs(seconds) + PATIENCE)?;
    let report: Value = serde_json::from_str(&outcome.stdout)
        .with_context(|| format!("iperf3 says no JSON: {}", outcome.stderr))?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    Ok(report["end"].clone())
}

/// Room for the packets that come while the receiver is off the processor, as far as the kernel allows:
/// otherwise a busy machine's losses at the load's own socket would count as the tunnel's.
fn socket_buffer() -> u64 {
    let limit = |name| {
        let text = fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    // iperf3 fails if it does not get what it asks for.
    let limit = limit("rmem_max").into_iter().chain(limit("wmem_max")).min();
    limit.unwrap_or(100_000).min(1 << 20)
}

fn number(value: &Value, name: &str) -> Result<f64> {
    value
        .as_f64()
        .with_context(|| format!("iperf3 reports no {name}"))
}

/// The payload of small packets: a voice frame, a DNS answer.
pub(crate) const SMALL: usize = 200;

/// The payload of a flood's packets: what fits every tunnel.
const LARGE: usize = 1200;

/// Long before a port comes round again, its last run is forgotten.
static RUNS: AtomicU16 = AtomicU16::new(0);
const FIRST_PORT: u16 = 5201;
const PORTS: u16 = 1000;

/// How long iperf3 may take besides its transfer.
const PATIENCE: Duration = Duration::from_secs(10);
