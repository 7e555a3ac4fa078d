//! The load at both ends: iperf3, or without it our own TCP transfer, the same for every subject.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use adit_tests::lab::until;
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
    /// Threads of this process; TCP only.
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

/// What became of UDP packets sent at an even rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flood {
    /// Packets that left the sender, a second.
    pub(crate) sent_per_second: f64,
    /// The part of them that did not arrive, in per cent.
    pub(crate) lost: f64,
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

    /// UDP packets with 200 bytes of payload at `rate` a second, from the client to `to`.
    pub(crate) fn udp(&self, link: &Link, to: IpAddr, rate: u64, seconds: u64) -> Result<Flood> {
        let Self::Iperf3(program) = self else {
            bail!("UDP is measured with iperf3 only");
        };
        let bits = (rate * SMALL * 8).to_string();
        let length = SMALL.to_string();
        let end = iperf3(
            program,
            link,
            to,
            seconds,
            &["-u", "-l", &length, "-b", &bits],
        )?;
        let sum = &end["sum"];
        Ok(Flood {
            sent_per_second: number(&sum["packets"], "packets")?
                / number(&sum["seconds"], "seconds")?,
            lost: number(&sum["lost_percent"], "lost_percent")?,
        })
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
    let to = to.to_string();
    let mut serve = Command::new(program);
    // A server for each run: one that was left in the middle of a test would refuse the next.
    serve.args(["-s", "-1", "-B", &to, "--forceflush"]);
    let mut server = link.gateway.spawn(serve)?;
    until(PATIENCE, || {
        server.still_runs()?;
        Ok(server.stdout().contains("listening").then_some(()))
    })
    .context("iperf3 -s does not listen")?;
    let mut client = Command::new(program);
    client
        .args(["-c", &to, "-J", "-t", &seconds.to_string()])
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

fn number(value: &Value, name: &str) -> Result<f64> {
    value
        .as_f64()
        .with_context(|| format!("iperf3 reports no {name}"))
}

/// The payload of small packets: a voice frame, a DNS answer.
const SMALL: u64 = 200;

/// How long iperf3 may take besides its transfer.
const PATIENCE: Duration = Duration::from_secs(10);
