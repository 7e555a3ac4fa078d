//! `cargo tunnel-bench`: throughput and CPU time of the real programs, as a Markdown table.
//!
//! Client, gateway, both routers, the office and the load share one machine, so the figures compare
//! rows of one run with each other and nothing else. The baseline is the same path without a tunnel:
//! the same cables, routers and kernel, forwarded by the gateway's kernel.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use adit_tests::lab::enter::tun_obstacle;
use adit_tests::lab::{self, Internet, Layout, internet};
use adit_tests::probe::ping::Ping;
use adit_tests::probe::throughput::{Direction, Transfer};
use adit_tests::programs::{self, Setup};
use anyhow::{Result, bail};

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let programs = programs::build()?;
    lab::enter()?;
    if let Some(reason) = tun_obstacle() {
        bail!(reason);
    }
    println!("{}, {} CPUs, Linux {}\n", processor(), cpus(), kernel());
    println!("| path | direction | streams | Gbit/s | adit CPU-s/GB | adit-server CPU-s/GB |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for link_mtu in [1500, 9000] {
        let internet = Internet::new(Layout {
            path_mtu: link_mtu,
            link_mtu,
            ..Layout::default()
        })?;
        internet
            .far
            .add_route("10.0.0.0/24".parse()?, internet::GATEWAY_V4)?;
        let setup = Setup::new(&programs)?;
        let mut gateway = setup.start_gateway(&internet.gateway)?;
        rows(&internet, &format!("plain veth, MTU {link_mtu}"), &[])?;
        let profile = setup.profile("alice@example.com", &["staff"])?;
        let mut alice = setup.connect(internet.laptop(), &profile)?;
        Ping::to(internet::OFFICE_V4)
            .count(50)
            .every(Duration::from_millis(20))
            .expect_all(internet.laptop())?;
        let pids = [
            ("adit".to_owned(), alice.process()?.pid()),
            ("adit-server".to_owned(), gateway.process().pid()),
        ];
        rows(&internet, &format!("Adit, outer MTU {link_mtu}"), &pids)?;
    }
    Ok(())
}

fn rows(internet: &Internet, path: &str, pids: &[(String, u32)]) -> Result<()> {
    for (direction, name) in [
        (Direction::Up, "up"),
        (Direction::Down, "down"),
        (Direction::Both, "both"),
    ] {
        for streams in [1, 8] {
            let transfer = Transfer {
                direction,
                streams,
                length: LENGTH,
                programs: pids.to_vec(),
            };
            let figure = transfer.run(internet.laptop(), &internet.office, internet::OFFICE_V4)?;
            let cpu = figure.cpu_per_gigabyte();
            let cell = |at: usize| {
                cpu.get(at)
                    .map_or_else(|| "–".to_owned(), |(_, seconds)| format!("{seconds:.2}"))
            };
            let rate = figure.gbit_per_second();
            println!(
                "| {path} | {name} | {streams} | {rate:.2} | {} | {} |",
                cell(0),
                cell(1)
            );
        }
    }
    Ok(())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(
        || "unknown processor".to_owned(),
        |(_, name)| name.trim().to_owned(),
    )
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

/// Long enough for TCP's window and path MTU discovery to settle.
const LENGTH: Duration = Duration::from_secs(5);
