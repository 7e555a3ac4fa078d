//! Several packet threads are one gateway.

use std::net::IpAddr;
use std::thread;

use adit_tests::lab::{Layout, Namespace, internet};
use adit_tests::probe::http::{self, WebServer};
use adit_tests::probe::ping::Ping;
use adit_tests::probe::udp::{self, Echo};
use adit_tests::programs::{POLICY, Programs};
use anyhow::{Context, Result, ensure};

use crate::bed::{Bed, note};

pub(crate) fn are_one_gateway(programs: &Programs) -> Result<()> {
    let layout = Layout {
        laptops: NAMES.len() as u8,
        ..Layout::default()
    };
    let mut bed = Bed::with(programs, layout, |setup| {
        setup.set_engines(ENGINES);
        let pool = r#"to = ["10.99.0.0/24", "fd00:ad17::/64"]"#;
        setup.policy(&format!(
            "{POLICY}\n[[allow]]\nwho = [\"group:staff\"]\n{pool}\ndirection = \"both\"\n"
        ))
    })?;
    let names = threads(bed.gateway.process().pid())?;
    for engine in 0..ENGINES {
        let name = format!("packets{engine}");
        ensure!(names.contains(&name), "no {name} among {names:?}");
    }
    let mut clients = Vec::new();
    for (number, name) in NAMES.iter().enumerate() {
        let profile = bed
            .setup
            .profile(&format!("{name}@example.com"), &["staff"])?;
        clients.push(bed.setup.connect(&bed.internet.laptops[number], &profile)?);
    }
    let mut hosts: Vec<(&Namespace, [IpAddr; 2])> = Vec::new();
    for client in &clients {
        let addresses = [client.address(true)?, client.address(false)?];
        hosts.push((client.namespace(), addresses));
    }
    let office = (
        &bed.internet.office,
        [internet::OFFICE_V4, internet::OFFICE_V6],
    );
    // Everybody with the office, and in a circle with each other, all at the same time.
    let next = hosts.iter().cycle().skip(1);
    let pairs: Vec<_> = hosts
        .iter()
        .zip(next)
        .flat_map(|(&here, &there)| [(here, office), (office, here), (here, there)])
        .collect();
    at_once(&pairs, |&((here, _), (_, there))| {
        for to in there {
            Ping::to(to).count(5).expect_all(here)?;
        }
        Ok(())
    })?;
    at_once(&pairs, |&((here, _), (at, there))| {
        for to in there {
            let web = WebServer::start(at, to, 0)?;
            http::download(here, web.address(), 2_000_003)?;
            http::upload(here, web.address(), 2_000_003)?;
            let echo = Echo::start(at, to, 0)?;
            let exchange = udp::exchange(here, echo.address(), 100, 1000)?;
            ensure!(
                exchange.answered >= 98 && exchange.corrupt == 0,
                "{to}: {exchange:?}"
            );
        }
        Ok(())
    })?;
    let mut principals = bed.gateway.principals()?;
    principals.sort();
    let expected: Vec<String> = NAMES
        .iter()
        .map(|name| format!("{name}@example.com"))
        .collect();
    ensure!(principals == expected, "sessions of {principals:?}");
    let status = bed.gateway.status()?;
    note(&format!("all engines together: {}", status["total"]));
    // Nobody is left behind when one of many goes.
    let (gone, rest) = clients.split_last_mut().context("there are clients")?;
    gone.process()?.terminate()?;
    for client in rest {
        Ping::to(internet::OFFICE_V4).expect_all(client.namespace())?;
    }
    Ok(())
}

/// Does the same for all, each on a thread of its own.
fn at_once<T: Sync>(all: &[T], each: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let each = &each;
        let running: Vec<_> = all.iter().map(|one| scope.spawn(|| each(one))).collect();
        running
            .into_iter()
            .try_for_each(|one| one.join().expect("a transfer does not panic"))
    })
}

/// The names of a process's threads.
fn threads(process: u32) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let name = std::fs::read_to_string(entry?.path().join("comm"))?;
        names.push(name.trim().to_owned());
    }
    Ok(names)
}

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// One has two sessions, so that a neighbour may be at home as well.
const ENGINES: u8 = 3;
