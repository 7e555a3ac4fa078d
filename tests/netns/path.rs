//! Paths as hotels have them: lossy, changing, half dead.

use std::net::SocketAddr;
use std::time::Duration;

use adit_tests::lab::{Layout, internet};
use adit_tests::probe::http::{self, WebServer};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Client, PORT, Programs};
use adit_tests::relay::{Impairment, Relay};
use anyhow::{Result, ensure};

use crate::bed::{Bed, note};

/// Alice behind a relay.
fn relayed(programs: &Programs) -> Result<(Client, Relay, Bed)> {
    let bed = Bed::new(programs, Layout::default())?;
    let upstream = SocketAddr::new(internet::GATEWAY_V4, PORT);
    let relay = Relay::start(&bed.internet.far, internet::RELAY, upstream, 7)?;
    let profile = bed
        .setup
        .profile_towards("alice@example.com", &["staff"], &[internet::RELAY])?;
    let alice = bed.setup.connect(bed.internet.laptop(), &profile)?;
    Ok((alice, relay, bed))
}

pub(crate) fn a_bad_path_still_carries_a_whole_file(programs: &Programs) -> Result<()> {
    let (_alice, relay, bed) = relayed(programs)?;
    let delay = Duration::from_millis(15);
    let jitter = Duration::from_millis(10);
    relay.set(Impairment {
        loss: 20,
        duplication: 20,
        delay,
        jitter,
        cut: false,
    });
    let web = WebServer::start(&bed.internet.office, internet::OFFICE_V4, 0)?;
    http::download(bed.internet.laptop(), web.address(), 500_000)?;
    http::upload(bed.internet.laptop(), web.address(), 500_000)?;
    let (passed, lost) = relay.counts();
    note(&format!("{passed} datagrams passed, {lost} lost"));
    Ok(())
}

pub(crate) fn a_new_address_is_followed(programs: &Programs) -> Result<()> {
    let (_alice, relay, bed) = relayed(programs)?;
    let ping = Ping::to(internet::OFFICE_V4)
        .every(Duration::from_millis(20))
        .start(bed.internet.laptop())?;
    Ping::to(internet::OFFICE_V4).expect_all(bed.internet.laptop())?;
    let before = bed.gateway.status()?["sessions"][0]["remote"].clone();
    for _ in 0..3 {
        relay.rebind();
        Ping::to(internet::OFFICE_V4)
            .count(10)
            .expect_all(bed.internet.laptop())?;
    }
    let session = bed.gateway.status()?["sessions"][0].clone();
    ensure!(
        session["remote"] != before,
        "the gateway still sees {before}"
    );
    let answers = ping.stop()?;
    note(&format!(
        "three new addresses: {}, longest gap {:.1?}",
        answers.summary(),
        answers.longest_gap
    ));
    ensure!(
        answers.longest_gap < Duration::from_secs(2),
        "interrupted for {:?}",
        answers.longest_gap
    );
    Ok(())
}

pub(crate) fn a_dead_first_address_is_passed_over(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    // Nobody has the first address, nobody listens at the second, the third is the gateway.
    let gateways = [
        SocketAddr::new("203.0.113.77".parse()?, PORT),
        SocketAddr::new(internet::GATEWAY_V4, 9),
        SocketAddr::new(internet::GATEWAY_V4, PORT),
    ];
    let profile = bed
        .setup
        .profile_towards("alice@example.com", &["staff"], &gateways)?;
    let mut alice = bed.setup.client(bed.internet.laptop(), &profile)?;
    alice.start()?;
    let took = alice.connected(Duration::from_secs(45))?;
    note(&format!("connected at the third address after {took:.1?}"));
    Ping::to(internet::OFFICE_V4).expect_all(bed.internet.laptop())?;
    Ok(())
}
