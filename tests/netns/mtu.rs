//! Outer paths of different MTU: the tunnel comes up, says the true inner MTU, and moves a file.

use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use adit_tests::lab::{Internet, Layout, Namespace, internet, until};
use adit_tests::probe::http::{self, WebServer};
use adit_tests::probe::ping::Ping;
use adit_tests::probe::tcp;
use adit_tests::programs::Programs;
use anyhow::{Context, Result, ensure};
use socket2::SockRef;

use crate::bed::{Bed, note};

pub(crate) fn path_1280(programs: &Programs) -> Result<()> {
    series(programs, 1280, 1500)
}

pub(crate) fn path_1400(programs: &Programs) -> Result<()> {
    series(programs, 1400, 1500)
}

pub(crate) fn path_1500(programs: &Programs) -> Result<()> {
    series(programs, 1500, 1500)
}

pub(crate) fn path_9000(programs: &Programs) -> Result<()> {
    series(programs, 9000, 9000)
}

fn series(programs: &Programs, path_mtu: u32, link_mtu: u32) -> Result<()> {
    let bed = Bed::new(
        programs,
        Layout {
            path_mtu,
            link_mtu,
            ..Layout::default()
        },
    )?;
    let alice = bed.alice(0)?;
    let internet = &bed.internet;
    let (laptop, office) = (internet.laptop(), &internet.office);
    let mut families = vec![(internet::OFFICE_V4, alice.address(true)?)];
    // An inner IPv6 packet of 1280 bytes does not fit through an outer path of 1280 (RFC 9484 section 10.1
    // asks to withhold IPv6 there), so only IPv4 is promised.
    if path_mtu >= 1400 {
        families.push((internet::OFFICE_V6, alice.address(false)?));
    }
    for (theirs, ours) in families {
        Ping::to(theirs).expect_all(laptop)?;
        transfer_and_clamp(internet, theirs, ours)?;
        // Both directions: the office learns it from the gateway, the laptop from its own device.
        let down = true_mtu(office, ours)?;
        let up = true_mtu(laptop, theirs)?;
        note(&format!(
            "outer {path_mtu}: inner {down} towards {ours}, {up} towards {theirs}"
        ));
        let floor = if ours.is_ipv4() { 1100 } else { 1280 };
        for mtu in [up, down] {
            ensure!(
                (floor..path_mtu).contains(&mtu),
                "an inner MTU of {mtu} in an outer one of {path_mtu}"
            );
        }
    }
    Ok(())
}

/// Files of several megabytes both ways; and no segment the office may send is larger than the tunnel.
fn transfer_and_clamp(internet: &Internet, theirs: IpAddr, ours: IpAddr) -> Result<()> {
    let (laptop, office) = (internet.laptop(), &internet.office);
    let web = WebServer::start(office, theirs, 0)?;
    http::download(laptop, web.address(), 3_000_000)?;
    http::upload(laptop, web.address(), 3_000_000)?;
    let web = WebServer::start(laptop, ours, 0)?;
    http::download(office, web.address(), 3_000_000)?;

    let listener = office.run(|| TcpListener::bind((theirs, 0)))?;
    let _connection = tcp::connect(laptop, listener.local_addr()?, Duration::from_secs(10))?;
    let (accepted, _) = listener.accept()?;
    let segment = SockRef::from(&accepted).tcp_mss()?;
    let headers = if theirs.is_ipv4() { 40 } else { 60 };
    let inner = true_mtu(office, ours)?;
    ensure!(
        segment + headers <= inner,
        "MSS {segment} towards {ours} with an inner MTU of {inner}"
    );
    Ok(())
}

/// Follows "packet too big" answers down to the value that passes, and checks that it is exactly true.
fn true_mtu(from: &Namespace, to: IpAddr) -> Result<u32> {
    // The outer path's MTU is found by probing, so the inner one may still grow while we look.
    until(Duration::from_secs(20), || {
        let mut length = 9100;
        for _ in 0..6 {
            let answers = Ping::to(to)
                .count(1)
                .packet_length(length as usize)
                .run(from)?;
            if answers.received == 1 {
                let beyond = Ping::to(to)
                    .count(1)
                    .packet_length(length as usize + 1)
                    .run(from)?;
                return Ok((beyond.received == 0).then_some(length));
            }
            match answers.errors.iter().find_map(|report| report.mtu) {
                Some(mtu) if mtu < length => length = mtu,
                // The own device or the first link is smaller: the kernel refuses without a message.
                _ if !answers.unsent.is_empty() => length = next_smaller(from, to, length)?,
                _ => return Ok(None),
            }
        }
        Ok(None)
    })
    .with_context(|| format!("no true MTU from {} to {to}", from.name()))
}

/// The largest length below `length` that the own kernel agrees to send.
fn next_smaller(from: &Namespace, to: IpAddr, length: u32) -> Result<u32> {
    let (mut sent, mut refused) = (600, length);
    while refused - sent > 1 {
        let middle = (sent + refused) / 2;
        let quick = Duration::from_millis(1);
        let answers = Ping::to(to)
            .count(1)
            .patience(quick)
            .packet_length(middle as usize)
            .run(from)?;
        if answers.unsent.is_empty() {
            sent = middle
        } else {
            refused = middle
        }
    }
    Ok(sent)
}
