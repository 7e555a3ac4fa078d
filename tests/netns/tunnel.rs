//! The main job: packets between a laptop and the office.

use std::time::{Duration, Instant};

use adit_tests::lab::{Layout, internet};
use adit_tests::probe::http::{self, WebServer};
use adit_tests::probe::ping::Ping;
use adit_tests::probe::udp::{self, Echo};
use adit_tests::probe::watch::EchoWatch;
use adit_tests::programs::{POLICY, PORT, Programs, TUNNEL};
use anyhow::{Context, Result, ensure};

use crate::bed::{Bed, masquerading, note};

pub(crate) fn a_laptop_pings_the_office(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let alice = bed.alice(0)?;
    for (office, laptop) in [
        (internet::OFFICE_V4, alice.address(true)?),
        (internet::OFFICE_V6, alice.address(false)?),
    ] {
        let answers = Ping::to(office)
            .count(10)
            .expect_all(bed.internet.laptop())?;
        note(&format!("laptop to {office}: {}", answers.summary()));
        let answers = Ping::to(laptop)
            .count(10)
            .expect_all(&bed.internet.office)?;
        note(&format!("office to {laptop}: {}", answers.summary()));
    }
    Ok(())
}

pub(crate) fn tcp_and_udp_both_ways(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let alice = bed.alice(0)?;
    let (laptop, office) = (bed.internet.laptop(), &bed.internet.office);
    for (theirs, ours) in [
        (internet::OFFICE_V4, alice.address(true)?),
        (internet::OFFICE_V6, alice.address(false)?),
    ] {
        for (client, server, address) in [(laptop, office, theirs), (office, laptop, ours)] {
            let web = WebServer::start(server, address, 0)?;
            let page = http::fetch(client, web.address(), "/")?;
            ensure!(page == http::PAGE.as_bytes(), "a wrong page from {address}");
            http::download(client, web.address(), 4_000_003)?;
            http::upload(client, web.address(), 4_000_003)?;
            let echo = Echo::start(server, address, 0)?;
            // An IPv6 host learns the path's MTU by losing its first packet that is too large.
            udp::exchange(client, echo.address(), 2, 3000)?;
            for length in [64, 1000, 1200, 3000] {
                let exchange = udp::exchange(client, echo.address(), 200, length)?;
                ensure!(
                    exchange.answered == 200 && exchange.corrupt == 0,
                    "{address}, {length} bytes: {exchange:?}"
                );
            }
        }
    }
    Ok(())
}

pub(crate) fn three_clients_at_once(programs: &Programs) -> Result<()> {
    let bed = Bed::new(
        programs,
        Layout {
            laptops: 3,
            ..Layout::default()
        },
    )?;
    let mut clients = Vec::new();
    for (number, name) in ["alice", "bob", "carol"].iter().enumerate() {
        let profile = bed
            .setup
            .profile(&format!("{name}@example.com"), &["staff"])?;
        let mut client = bed.setup.client(&bed.internet.laptops[number], &profile)?;
        client.start()?;
        clients.push(client);
    }
    let mut addresses = Vec::new();
    for client in &mut clients {
        client.connected(Duration::from_secs(20))?;
        addresses.extend([client.address(true)?, client.address(false)?]);
    }
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    ensure!(
        addresses.len() == count,
        "an address was given twice: {addresses:?}"
    );

    let server = WebServer::start(&bed.internet.office, internet::OFFICE_V4, 80)?;
    std::thread::scope(|scope| {
        let transfers: Vec<_> = clients
            .iter()
            .map(|client| {
                scope.spawn(|| http::download(client.namespace(), server.address(), 5_000_000))
            })
            .collect();
        transfers
            .into_iter()
            .try_for_each(|transfer| transfer.join().expect("a download does not panic"))
    })?;
    for client in &clients {
        Ping::to(internet::OFFICE_V6)
            .count(5)
            .expect_all(client.namespace())?;
    }
    let principals = bed.gateway.principals()?;
    ensure!(principals.len() == 3, "sessions of {principals:?}");
    Ok(())
}

pub(crate) fn a_denied_destination_fails_at_once(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let alice = bed.alice(0)?;
    let laptop = bed.internet.laptop();
    // The laptop's owner tries to reach payroll through the tunnel although no route was advertised.
    laptop.add_device_route("10.66.0.0/24".parse()?, TUNNEL)?;
    laptop.add_device_route("fd00:66::/64".parse()?, TUNNEL)?;
    for denied in [internet::PAYROLL_V4, internet::PAYROLL_V6] {
        let answers = Ping::to(denied).count(1).run(laptop)?;
        let report = answers
            .errors
            .first()
            .with_context(|| format!("{denied}: {}", answers.summary()))?;
        // The client answers by itself: nothing leads there through the tunnel.
        ensure!(
            report.is_prohibited() || report.is_no_route(),
            "{denied}: {report}"
        );
        let start = Instant::now();
        let refused =
            adit_tests::probe::tcp::connect(laptop, (denied, 80).into(), Duration::from_secs(10));
        ensure!(
            refused.is_err() && start.elapsed() < Duration::from_secs(1),
            "TCP took {:?}",
            start.elapsed()
        );
        note(&format!(
            "{denied}: {report}; TCP failed after {:.1?}",
            start.elapsed()
        ));
    }
    // And the other way: the gateway answers the office host that speaks from a denied address.
    for (from, to) in [
        (internet::PAYROLL_V4, alice.address(true)?),
        (internet::PAYROLL_V6, alice.address(false)?),
    ] {
        let answers = Ping::to(to).from(from).count(1).run(&bed.internet.office)?;
        ensure!(answers.received == 0, "{from} reached {to}");
        let report = answers
            .errors
            .first()
            .with_context(|| format!("{from}: {}", answers.summary()))?;
        ensure!(report.is_prohibited(), "{from}: {report}");
    }
    Ok(())
}

pub(crate) fn clients_do_not_reach_each_other(programs: &Programs) -> Result<()> {
    let bed = Bed::new(
        programs,
        Layout {
            laptops: 2,
            ..Layout::default()
        },
    )?;
    let _alice = bed.alice(0)?;
    let profile = bed.setup.profile("bob@example.com", &["staff"])?;
    let bob = bed.setup.connect(&bed.internet.laptops[1], &profile)?;
    let (v4, v6) = (bob.address(true)?, bob.address(false)?);
    bed.internet
        .laptop()
        .add_device_route(ipnet::IpNet::from(v4), TUNNEL)?;
    bed.internet
        .laptop()
        .add_device_route(ipnet::IpNet::from(v6), TUNNEL)?;
    for to in [v4, v6] {
        let answers = Ping::to(to).count(1).run(bed.internet.laptop())?;
        ensure!(
            answers.received == 0 && !answers.errors.is_empty(),
            "{to}: {}",
            answers.summary()
        );
    }
    Ok(())
}

pub(crate) fn clients_reach_each_other(programs: &Programs) -> Result<()> {
    let layout = Layout {
        laptops: 2,
        ..Layout::default()
    };
    let bed = Bed::with(programs, layout, |setup| {
        let pool = r#"to = ["10.99.0.0/24", "fd00:ad17::/64"]"#;
        setup.policy(&format!(
            "{POLICY}\n[[allow]]\nwho = [\"group:staff\"]\n{pool}\ndirection = \"both\"\n"
        ))
    })?;
    let _alice = bed.alice(0)?;
    let profile = bed.setup.profile("bob@example.com", &["staff"])?;
    let bob = bed.setup.connect(&bed.internet.laptops[1], &profile)?;
    for to in [bob.address(true)?, bob.address(false)?] {
        Ping::to(to).count(5).expect_all(bed.internet.laptop())?;
    }
    Ok(())
}

pub(crate) fn a_full_tunnel_carries_everything(programs: &Programs) -> Result<()> {
    let mut bed = Bed::with(programs, Layout::default(), |setup| {
        masquerading(setup)?;
        setup.policy(&POLICY.replace("to = [", "to = [\"0.0.0.0/0\", \"::/0\", "))
    })?;
    let profile = bed.setup.profile("alice@example.com", &["staff"])?;
    bed.setup.edit_profile(&profile, |profile| {
        profile.insert("full_tunnel".to_owned(), true.into());
    })?;
    let _alice = bed.setup.connect(bed.internet.laptop(), &profile)?;
    let watch = EchoWatch::start(&bed.internet.near)?;
    for address in ["192.0.2.1".parse()?, "2001:db8:2::1".parse()?] {
        let answers = Ping::to(address)
            .count(3)
            .expect_all(bed.internet.laptop())?;
        note(&format!(
            "{address} through the tunnel: {}",
            answers.summary()
        ));
    }
    Ping::to(internet::OFFICE_V4).expect_all(bed.internet.laptop())?;
    bed.gateway.process().crash()?;
    for address in ["192.0.2.1".parse()?, "2001:db8:2::1".parse()?] {
        let answers = Ping::to(address)
            .count(3)
            .patience(Duration::from_millis(300))
            .run(bed.internet.laptop())?;
        ensure!(
            answers.received == 0,
            "{address} was reached beside the tunnel: {}",
            answers.summary()
        );
    }
    // What `near` saw came from the gateway, never from the laptop itself.
    let own: [std::net::IpAddr; 2] = ["100.64.0.2".parse()?, "2001:db8:100::2".parse()?];
    let leaked: Vec<_> = (0..=u16::MAX)
        .flat_map(|identifier| watch.with_identifier(identifier))
        .filter(|(from, _)| own.contains(from))
        .collect();
    ensure!(leaked.is_empty(), "packets beside the tunnel: {leaked:?}");
    Ok(())
}

pub(crate) fn the_outer_path_may_be_ipv6(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let gateways = [(internet::GATEWAY_V6, PORT).into()];
    let profile = bed
        .setup
        .profile_towards("alice@example.com", &["staff"], &gateways)?;
    let _alice = bed.setup.connect(bed.internet.laptop(), &profile)?;
    Ping::to(internet::OFFICE_V4).expect_all(bed.internet.laptop())?;
    Ping::to(internet::OFFICE_V6).expect_all(bed.internet.laptop())?;
    Ok(())
}

pub(crate) fn status_of_both_ends(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let alice = bed.alice(0)?;
    Ping::to(internet::OFFICE_V4)
        .count(10)
        .expect_all(bed.internet.laptop())?;
    let (ours, theirs) = (alice.status()?, bed.gateway.status()?);
    let session = &theirs["sessions"][0];
    ensure!(session["principal"] == "alice@example.com", "{session}");
    ensure!(session["groups"][0] == "staff", "{session}");
    ensure!(
        session["addresses"] == ours["addresses"],
        "{} and {}",
        session["addresses"],
        ours["addresses"]
    );
    for key in ["remote", "cipher", "key_exchange"] {
        ensure!(
            session[key].as_str().is_some_and(|text| !text.is_empty()),
            "no {key} in {session}"
        );
    }
    ensure!(
        session["certificate"]["not_after"].is_number()
            || session["certificate"]["not_after"].is_string()
    );
    note(&format!(
        "{}, {}",
        session["cipher"], session["key_exchange"]
    ));
    let text = bed.gateway.status_text()?;
    ensure!(
        text.contains("alice@example.com") && text.contains(&alice.address(true)?.to_string()),
        "{text}"
    );
    ensure!(!alice.status_text()?.is_empty());
    Ok(())
}
