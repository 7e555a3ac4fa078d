//! The harness itself: what every other ring trusts.
//!
//! Run one: `cargo test -p adit-tests --test lab -- relay`.

use std::process::{Command, ExitCode};
use std::time::Duration;

use adit_tests::lab::{self, Internet, Layout, Namespace, Snapshot, internet, missing, trial};
use adit_tests::probe::http::{self, WebServer};
use adit_tests::probe::ping::Ping;
use adit_tests::probe::throughput::{Direction, Transfer};
use adit_tests::probe::udp::{self, Echo};
use adit_tests::relay::{Impairment, Relay};
use anyhow::{Result, ensure};
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = match lab::enter() {
        Ok(()) => vec![
            trial(
                "hosts_reach_each_other_in_both_families",
                hosts_reach_each_other_in_both_families,
            ),
            trial(
                "the_office_is_not_on_the_internet",
                the_office_is_not_on_the_internet,
            ),
            trial(
                "a_small_path_answers_packet_too_big",
                a_small_path_answers_packet_too_big,
            ),
            trial("files_arrive_whole_both_ways", files_arrive_whole_both_ways),
            trial(
                "a_relay_loses_what_its_seed_says",
                a_relay_loses_what_its_seed_says,
            ),
            trial(
                "a_transfer_counts_bytes_and_cpu",
                a_transfer_counts_bytes_and_cpu,
            ),
            trial(
                "a_snapshot_sees_a_new_address_and_its_removal",
                a_snapshot_sees_a_new_address_and_its_removal,
            ),
            trial(
                "a_program_lives_in_its_namespace_and_dies_with_its_handle",
                a_program_lives_and_dies,
            ),
            trial(
                "a_cut_cable_is_an_interruption_of_known_length",
                a_cut_cable_is_an_interruption,
            ),
        ],
        Err(error) => vec![missing("lab", &format!("{error:#}"))],
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn hosts_reach_each_other_in_both_families() -> Result<()> {
    let internet = Internet::new(Layout {
        laptops: 2,
        branch: true,
        ..Layout::default()
    })?;
    for laptop in &internet.laptops {
        Ping::to(internet::GATEWAY_V4).expect_all(laptop)?;
        Ping::to(internet::GATEWAY_V6).expect_all(laptop)?;
    }
    Ping::to(internet::OFFICE_V4).expect_all(&internet.gateway)?;
    Ping::to(internet::OFFICE_V6).expect_all(&internet.gateway)?;
    let branch = internet.branch.as_ref().expect("the layout has a branch");
    Ping::to(internet::BRANCH_V4).expect_all(&branch.router)?;
    Ping::to(internet::BRANCH_V6).expect_all(&branch.router)?;
    Ping::to(internet::GATEWAY_V4).expect_all(&branch.router)?;
    Ok(())
}

fn the_office_is_not_on_the_internet() -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    for address in [internet::OFFICE_V4, internet::OFFICE_V6] {
        let answers = Ping::to(address)
            .patience(Duration::from_millis(300))
            .run(internet.laptop())?;
        ensure!(answers.received == 0, "{}", answers.summary());
    }
    Ok(())
}

fn a_small_path_answers_packet_too_big() -> Result<()> {
    let internet = Internet::new(Layout {
        path_mtu: 1400,
        ..Layout::default()
    })?;
    for address in [internet::GATEWAY_V4, internet::GATEWAY_V6] {
        Ping::to(address)
            .count(1)
            .packet_length(1400)
            .expect_all(internet.laptop())?;
        let answers = Ping::to(address)
            .count(1)
            .packet_length(1401)
            .run(internet.laptop())?;
        ensure!(
            answers.received == 0,
            "1401 bytes passed: {}",
            answers.summary()
        );
        let mtu = answers.errors.first().and_then(|report| report.mtu);
        ensure!(mtu == Some(1400), "{}", answers.summary());
    }
    Ok(())
}

fn files_arrive_whole_both_ways() -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    for address in [internet::GATEWAY_V4, internet::GATEWAY_V6] {
        let server = WebServer::start(&internet.gateway, address, 0)?;
        ensure!(http::fetch(internet.laptop(), server.address(), "/")? == http::PAGE.as_bytes());
        http::download(internet.laptop(), server.address(), 3_000_001)?;
        http::upload(internet.laptop(), server.address(), 3_000_001)?;
        let echo = Echo::start(&internet.gateway, address, 0)?;
        let exchange = udp::exchange(internet.laptop(), echo.address(), 200, 1200)?;
        ensure!(
            exchange.answered == 200 && exchange.corrupt == 0,
            "{exchange:?}"
        );
    }
    Ok(())
}

fn a_relay_loses_what_its_seed_says() -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let echo = Echo::start(&internet.gateway, internet::GATEWAY_V4, 7)?;
    let relay = Relay::start(&internet.far, internet::RELAY, echo.address(), 1)?;
    let whole = udp::exchange(internet.laptop(), internet::RELAY, 100, 500)?;
    ensure!(whole.answered == 100, "{whole:?}");

    relay.rebind();
    let jitter = Duration::from_millis(5);
    relay.set(Impairment {
        duplication: 200,
        delay: jitter,
        jitter,
        ..Impairment::default()
    });
    let shuffled = udp::exchange(internet.laptop(), internet::RELAY, 100, 500)?;
    ensure!(
        shuffled.answered == 100 && shuffled.corrupt == 0,
        "{shuffled:?}"
    );

    relay.set(Impairment {
        loss: 300,
        ..Impairment::default()
    });
    let lossy = udp::exchange(internet.laptop(), internet::RELAY, 300, 500)?;
    // Both ways: 49 % arrive on average; the bounds are ten standard deviations away.
    ensure!((60..=235).contains(&lossy.answered), "{lossy:?}");
    Ok(())
}

fn a_transfer_counts_bytes_and_cpu() -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let programs = vec![("this test".to_owned(), std::process::id())];
    let length = Duration::from_millis(500);
    let transfer = Transfer {
        direction: Direction::Both,
        streams: 2,
        length,
        programs,
    };
    let figure = transfer.run(internet.laptop(), &internet.gateway, internet::GATEWAY_V4)?;
    ensure!(
        figure.gbit_per_second() > 0.01 && figure.cpu[0].1 > Duration::ZERO,
        "{figure:?}"
    );
    Ok(())
}

fn a_snapshot_sees_a_new_address_and_its_removal() -> Result<()> {
    let host = Namespace::new("host")?;
    let before = Snapshot::of(&host)?;
    host.add_address("lo", "192.0.2.7/32".parse()?)?;
    let difference = before.difference(&Snapshot::of(&host)?);
    ensure!(
        difference.contains("+ address 1 192.0.2.7/32"),
        "{difference}"
    );
    host.remove_address("lo", "192.0.2.7/32".parse()?)?;
    let difference = before.difference(&Snapshot::of(&host)?);
    ensure!(difference.is_empty(), "{difference}");
    Ok(())
}

fn a_program_lives_and_dies() -> Result<()> {
    let host = Namespace::new("host")?;
    host.add_address("lo", "192.0.2.9/32".parse()?)?;
    let mut list = Command::new("cat");
    list.arg("/proc/self/net/fib_trie");
    let outcome = host.spawn(list)?.wait(Duration::from_secs(10))?;
    ensure!(
        outcome.code == Some(0) && outcome.stdout.contains("192.0.2.9"),
        "{outcome:?}"
    );

    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let mut process = host.spawn(sleep)?;
    ensure!(process.is_running());
    let pid = process.pid();
    drop(process);
    ensure!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "process {pid} outlived its handle"
    );
    Ok(())
}

fn a_cut_cable_is_an_interruption() -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let every = Duration::from_millis(10);
    let ping = Ping::to(internet::GATEWAY_V4)
        .every(every)
        .patience(Duration::from_millis(300));
    let running = ping.start(internet.laptop())?;
    lab::until(Duration::from_secs(5), || {
        Ok(Ping::to(internet::GATEWAY_V4)
            .count(1)
            .run(internet.laptop())?
            .received
            .checked_sub(1))
    })?;
    internet.far.down("gateway")?;
    std::thread::sleep(Duration::from_millis(200));
    internet.far.up("gateway")?;
    Ping::to(internet::GATEWAY_V4)
        .patience(Duration::from_secs(5))
        .expect_all(internet.laptop())?;
    let answers = running.stop()?;
    ensure!(
        answers.longest_gap >= Duration::from_millis(150),
        "{answers:?}"
    );
    ensure!(
        answers.received > 0 && answers.duplicates == 0,
        "{answers:?}"
    );
    Ok(())
}
