//! `cargo demo`: a laptop reaches the office, from an empty directory to a measured tunnel, in a minute.
//!
//! Everything happens in user and network namespaces of this process: no root is needed where the
//! machine allows that, and nothing outside is touched. The exit status is 0 only when every step
//! marked ✓ was true.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use adit_tests::lab::enter::tun_obstacle;
use adit_tests::lab::{self, Internet, Layout, Namespace, Snapshot, internet, until};
use adit_tests::probe::http::{self, WebServer};
use adit_tests::probe::icmp::Report;
use adit_tests::probe::ping::Ping;
use adit_tests::probe::tcp;
use adit_tests::probe::throughput::{Direction, Transfer};
use adit_tests::programs::{self, Client, Setup, TUNNEL};
use anyhow::{Context, Result, bail, ensure};

fn main() -> ExitCode {
    let start = Instant::now();
    match demo() {
        Ok(()) => {
            println!(
                "\nAll of it was true, in {:.0} s. Next: the quick start in README.md.",
                start.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("  ✗ {error:#}");
            eprintln!("\nerror: the demo stopped here");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    // Before minutes of building: a device node is the same inside the namespaces.
    if let Some(reason) = tun_obstacle() {
        bail!(reason);
    }
    println!("Building adit, adit-server and adit-ca …");
    let programs = programs::build()?;
    lab::enter()?;
    println!("{PICTURE}");

    heading("A small internet, a gateway, its certificates");
    let internet = Internet::new(Layout::default())?;
    let before = Snapshot::of(internet.laptop())?;
    done("namespaces for laptop, two routers, gateway and office");
    let setup = Setup::new(&programs)?;
    done("adit-server init: authority, gateway certificate, server.toml, policy.toml");
    let profile = setup.profile("alice@example.com", &["staff"])?;
    done("adit-ca issue: a profile for alice@example.com of group staff");
    let mut gateway = setup.start_gateway(&internet.gateway)?;
    done("adit-server run: the gateway listens on 203.0.113.1, UDP 443");

    let web = WebServer::start(&internet.office, internet::OFFICE_V4, 80)?;
    let outside = Ping::to(internet::OFFICE_V4)
        .count(1)
        .patience(Duration::from_millis(300));
    ensure!(
        outside.run(internet.laptop())?.received == 0,
        "the office answers without a tunnel"
    );
    done("without a tunnel the laptop does not reach the office");

    heading("The tunnel");
    let begin = Instant::now();
    let mut alice = setup.connect(internet.laptop(), &profile)?;
    let (v4, v6) = (alice.address(true)?, alice.address(false)?);
    done(&format!(
        "adit up: connected after {:.0} ms with {v4} and {v6}",
        begin.elapsed().as_secs_f64() * 1e3
    ));
    for office in [internet::OFFICE_V4, internet::OFFICE_V6] {
        let answers = Ping::to(office).count(5).expect_all(internet.laptop())?;
        done(&format!("ping {office}: {}", answers.summary()));
    }
    let page = http::fetch(internet.laptop(), web.address(), "/")?;
    ensure!(page == http::PAGE.as_bytes(), "a wrong page came");
    done(&format!(
        "http://{}/ says: {}",
        web.address().ip(),
        title(http::PAGE)
    ));

    heading("What the policy does not allow");
    no_way_out(&internet, internet::PAYROLL_V4, "10.66.0.0/24")?;
    no_way_out(&internet, internet::PAYROLL_V6, "fd00:66::/64")?;
    no_way_in(&internet, internet::PAYROLL_V4, v4)?;
    no_way_in(&internet, internet::PAYROLL_V6, v6)?;

    heading(
        "Speed (TCP through the tunnel, 3 seconds each way; client, gateway and office share this machine)",
    );
    let pids = [
        ("adit".to_owned(), alice.process()?.pid()),
        ("adit-server".to_owned(), gateway.process().pid()),
    ];
    for (direction, words) in [
        (Direction::Down, "office to laptop"),
        (Direction::Up, "laptop to office"),
    ] {
        let length = Duration::from_secs(3);
        let transfer = Transfer {
            direction,
            streams: 4,
            length,
            programs: pids.to_vec(),
        };
        let figure = transfer.run(internet.laptop(), &internet.office, internet::OFFICE_V4)?;
        let cpu: Vec<String> = figure
            .cpu_per_gigabyte()
            .iter()
            .map(|(name, seconds)| format!("{name} {seconds:.2}"))
            .collect();
        done(&format!(
            "{words}: {:.2} Gbit/s; CPU seconds per GB: {}",
            figure.gbit_per_second(),
            cpu.join(", ")
        ));
    }

    heading("What both ends say");
    indent("adit status", &alice.status_text()?);
    indent("adit-server status", &gateway.status_text()?);
    ensure!(
        gateway.principals()? == ["alice@example.com"],
        "the gateway does not know alice"
    );

    heading("Cleaning up");
    leave(alice)?;
    until(Duration::from_secs(5), || {
        Ok(gateway.principals()?.is_empty().then_some(()))
    })
    .context("the gateway still has a session")?;
    done("adit down: the gateway was told");
    let mut difference = String::new();
    until(Duration::from_secs(5), || {
        difference = before.difference(&Snapshot::of(internet.laptop())?);
        Ok(difference.is_empty().then_some(()))
    })
    .with_context(|| format!("the laptop is not as before:\n{difference}"))?;
    done("the laptop's links, addresses, routes and rules are exactly as before");
    let outcome = gateway.stop()?;
    ensure!(
        outcome.code == Some(0),
        "the gateway ended badly:\n{}",
        outcome.stderr
    );
    done("the gateway is stopped");
    Ok(())
}

/// Alice adds a route by hand to what nobody offered her: the answer comes at once.
fn no_way_out(internet: &Internet, payroll: IpAddr, network: &str) -> Result<()> {
    internet
        .laptop()
        .add_device_route(network.parse()?, TUNNEL)?;
    let report = refusal(&Ping::to(payroll), internet.laptop())?;
    let begin = Instant::now();
    let connection = tcp::connect(internet.laptop(), (payroll, 443).into(), PATIENCE);
    let took = begin.elapsed();
    ensure!(connection.is_err(), "{payroll} took a connection");
    ensure!(
        took < AT_ONCE,
        "TCP to {payroll} failed only after {took:?}"
    );
    done(&format!(
        "laptop to payroll {payroll}: adit answers {}; TCP fails after {:.1} ms",
        report.meaning(),
        took.as_secs_f64() * 1e3
    ));
    Ok(())
}

/// Payroll knows Alice's address and tries: the gateway's policy answers.
fn no_way_in(internet: &Internet, payroll: IpAddr, alice: IpAddr) -> Result<()> {
    let report = refusal(&Ping::to(alice).from(payroll), &internet.office)?;
    ensure!(
        report.is_prohibited(),
        "payroll to {alice}: {report}, which is not the policy's answer"
    );
    done(&format!(
        "payroll {payroll} to laptop: adit-server answers {}",
        report.meaning()
    ));
    Ok(())
}

/// The ICMP error that a ping must get, at once and instead of an answer.
fn refusal(ping: &Ping, from: &Namespace) -> Result<Report> {
    let begin = Instant::now();
    let answers = ping.clone().count(1).run(from)?;
    let took = begin.elapsed();
    ensure!(answers.received == 0, "what is denied answered");
    let report = answers.errors.into_iter().next();
    let report = report.context("nothing said that it is denied")?;
    ensure!(
        report.is_prohibited() || report.is_no_route(),
        "an answer of another kind: {report}"
    );
    ensure!(took < AT_ONCE, "the refusal took {took:?}");
    Ok(report)
}

fn leave(alice: Client) -> Result<()> {
    let outcome = alice.down()?;
    ensure!(
        outcome.code == Some(0),
        "adit ended badly:\n{}",
        outcome.stderr
    );
    Ok(())
}

fn title(page: &str) -> &str {
    page.split_once("<h1>")
        .and_then(|(_, rest)| rest.split_once("</h1>"))
        .map_or("nothing", |(title, _)| title)
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn done(text: &str) {
    println!("  ✓ {text}");
}

fn indent(command: &str, text: &str) {
    println!("  $ {command}");
    for line in text.lines() {
        println!("{}", format!("    {line}").trim_end());
    }
}

/// What a person does not notice, and far below any timeout.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What a connection would wait if nobody refused it.
const PATIENCE: Duration = Duration::from_secs(10);

const PICTURE: &str = "
  laptop ─── router ═══ router ─── gateway ─── office
  100.64.0.2                       203.0.113.1  10.0.0.10, fd00:1::10
  alice                            policy       10.66.0.10: payroll, for nobody";
