//! `cargo tunnel-bench`: throughput and CPU time of the real programs, as a Markdown table and JSON.
//!
//! Client, gateway, both routers, the office and the load share one machine, so the figures compare
//! rows of one run with each other and nothing else. The baseline is the same path without a tunnel:
//! the same cables, routers and kernel, to another address of the same office host. Each round
//! measures the baseline and the tunnel one after the other; what is printed is the median round.
//!
//! ```text
//! cargo tunnel-bench -- [--rounds 5] [--seconds 3] [--json FILE]
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use adit_tests::lab::enter::tun_obstacle;
use adit_tests::lab::{self, Internet, Layout, internet};
use adit_tests::probe::ping::Ping;
use adit_tests::probe::throughput::{Direction, Figure, Transfer};
use adit_tests::programs::{self, Programs, Setup};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

fn main() -> ExitCode {
    match Options::read().and_then(|options| bench(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    if let Some(reason) = tun_obstacle() {
        bail!(reason);
    }
    let programs = programs::build()?;
    lab::enter()?;
    println!(
        "{}, {} CPUs, Linux {}; median of {} rounds of {} s\n",
        processor(),
        cpus(),
        kernel(),
        options.rounds,
        options.length.as_secs_f64(),
    );
    println!(
        "| outer MTU | direction | TCP streams | plain veth Gbit/s | Adit Gbit/s | of it | `adit` CPU s/GB | `adit-server` CPU s/GB |"
    );
    println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut rows = Vec::new();
    for mtu in [1500, 9000] {
        rows.extend(path(&programs, options, mtu)?);
    }
    let report = json!({
        "unix_time": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        "processor": processor(),
        "cpus": cpus(),
        "kernel": kernel(),
        "rounds": options.rounds,
        "seconds_per_measurement": options.length.as_secs_f64(),
        "rows": rows,
    });
    let text = serde_json::to_string_pretty(&report)?;
    fs::write(&options.json, text + "\n")
        .with_context(|| format!("cannot write {}", options.json.display()))?;
    println!("\nEvery round is in {}", options.json.display());
    Ok(())
}

/// All rows of one outer MTU.
fn path(programs: &Programs, options: &Options, mtu: u32) -> Result<Vec<Value>> {
    let internet = Internet::new(Layout {
        path_mtu: mtu,
        link_mtu: mtu,
        ..Layout::default()
    })?;
    // The office host's second address is public: no tunnel leads there.
    let public = PUBLIC.into();
    internet.office.add_address("lo", public)?;
    internet.gateway.add_route(public, internet::OFFICE_V4)?;
    internet.far.add_route(public, internet::GATEWAY_V4)?;

    let setup = Setup::new(programs)?;
    let mut gateway = setup.start_gateway(&internet.gateway)?;
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let mut alice = setup.connect(internet.laptop(), &profile)?;
    // Path MTU discovery ends before the first measurement.
    Ping::to(internet::OFFICE_V4)
        .count(50)
        .every(Duration::from_millis(20))
        .expect_all(internet.laptop())?;
    let programs = [
        ("adit".to_owned(), alice.process()?.pid()),
        ("adit-server".to_owned(), gateway.process().pid()),
    ];

    let mut rows = Vec::new();
    for (direction, name) in [(Direction::Up, "up"), (Direction::Down, "down")] {
        for streams in [1, 8] {
            let measure = |address: IpAddr, programs: &[(String, u32)]| {
                let transfer = Transfer {
                    direction,
                    streams,
                    length: options.length,
                    programs: programs.to_vec(),
                };
                transfer.run(internet.laptop(), &internet.office, address)
            };
            let (mut plain, mut tunnel) = (Vec::new(), Vec::new());
            for _ in 0..options.rounds {
                plain.push(measure(PUBLIC, &[])?);
                tunnel.push(measure(internet::OFFICE_V4, &programs)?);
            }
            let (baseline, rate) = (rate(&plain), rate(&tunnel));
            let (adit, server) = (cpu(&tunnel, 0), cpu(&tunnel, 1));
            println!(
                "| {mtu} | {name} | {streams} | {baseline:.2} | {rate:.2} | {:.1} % | {adit:.2} | {server:.2} |",
                rate / baseline * 100.0,
            );
            rows.push(json!({
                "outer_mtu": mtu,
                "direction": name,
                "tcp_streams": streams,
                "plain_gbit_per_second": baseline,
                "adit_gbit_per_second": rate,
                "adit_cpu_seconds_per_gigabyte": adit,
                "adit_server_cpu_seconds_per_gigabyte": server,
                "plain_rounds_gbit_per_second": each_rate(&plain),
                "adit_rounds_gbit_per_second": each_rate(&tunnel),
            }));
        }
    }
    Ok(rows)
}

/// The median rate.
fn rate(figures: &[Figure]) -> f64 {
    median(each_rate(figures))
}

/// The rate of every round.
fn each_rate(figures: &[Figure]) -> Vec<f64> {
    figures.iter().map(Figure::gbit_per_second).collect()
}

/// The median of one program's CPU seconds per gigabyte.
fn cpu(figures: &[Figure], program: usize) -> f64 {
    let each = figures
        .iter()
        .map(|figure| figure.cpu_per_gigabyte()[program].1);
    median(each.collect())
}

/// The middle value, of an even number the mean of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    f64::midpoint(values[low], values[high])
}

/// What the command line asks for.
struct Options {
    rounds: usize,
    length: Duration,
    json: PathBuf,
}

impl Options {
    fn read() -> Result<Self> {
        let this = env::current_exe().context("cannot find the running program")?;
        let mut options = Self {
            rounds: 5,
            // Long enough for TCP's window to settle.
            length: Duration::from_secs(3),
            json: this.with_file_name("tunnel-bench.json"),
        };
        let mut arguments = env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--rounds" => options.rounds = value.parse::<usize>().context(name)?.max(1),
                "--seconds" => {
                    options.length = Duration::try_from_secs_f64(value.parse().context(name)?)?;
                }
                "--json" => options.json = value.into(),
                _ => bail!("{name} is unknown; there are --rounds, --seconds and --json"),
            }
        }
        Ok(options)
    }
}

/// The name, and the numbers that say more where a hypervisor shortens it.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    match (field("model name"), field("cpu family"), field("model")) {
        (Some(name), Some(family), Some(model)) => {
            format!("{name} (family {family} model {model})")
        }
        (name, ..) => name.unwrap_or_else(|| "unknown processor".to_owned()),
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Of the office host, outside what the gateway routes into tunnels.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10));
