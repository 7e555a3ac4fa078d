//! What an operator hears of the policy: failed tests, and explanations with and without a gateway.

use std::process::Command;
use std::time::Duration;

use adit_tests::lab::process::Outcome;
use adit_tests::lab::{Layout, Namespace, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{POLICY, Programs, Setup};
use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bed::{self, Bed, failed, note};

pub(crate) fn that_fails_its_tests_is_refused(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let _alice = bed.alice(0)?;
    let tests = "\n[[test]]\nwho = \"alice@example.com\"\ngroups = [\"staff\"]\nto = \"10.0.0.10\"\n\
        port = \"tcp/443\"\nexpect = \"allow\"\n\
        [[test]]\nwho = \"alice@example.com\"\nto = \"10.0.0.10\"\nport = \"icmp\"\nexpect = \"deny\"\n";
    let policy = format!("{POLICY}{tests}");
    bed.setup.policy(&policy)?;
    let checked = server(&bed.setup, &bed.internet.gateway, "check", &[])?;
    ensure!(checked.code == Some(0), "{}", checked.stderr);
    let words = "all 2 tests of the policy pass";
    ensure!(checked.stdout.contains(words), "{}", checked.stdout);

    // Nobody thinks of the tests, but the tests think of everybody.
    let wrong = policy.replace("group:staff", "group:sales")
        + "\n[[allow]]\nwho = [\"*\"]\n\
        to = [\"10.0.0.10/32\"]\nports = [\"icmp\"]\nuntil = 2020-01-01\n";
    bed.setup.policy(&wrong)?;
    let lines = wrong.lines().enumerate();
    let first = lines
        .filter(|(_, line)| *line == "[[test]]")
        .map(|(n, _)| n + 1)
        .next();
    let place = format!(
        "policy.toml:{}: test: alice@example.com to 10.0.0.10 on tcp/443",
        first.unwrap_or(0)
    );
    let words = [
        "1 of the 2 tests in ",
        &place,
        "should be allowed, and is denied",
    ];
    failed(
        &server(&bed.setup, &bed.internet.gateway, "check", &[])?,
        2,
        &words,
    )?;
    failed(
        &server(&bed.setup, &bed.internet.gateway, "run", &[])?,
        2,
        &words,
    )?;
    failed(&bed.gateway.reload(&["--dry-run"])?, 2, &words)?;
    failed(&bed.gateway.reload(&[])?, 2, &words)?;
    Ping::to(internet::OFFICE_V4).expect_all(bed.internet.laptop())?;

    let odd = wrong.replace("group:sales", "group:staff");
    bed.setup.policy(&odd)?;
    let reloaded = bed.gateway.reload(&[])?;
    ensure!(reloaded.code == Some(0), "{}", reloaded.stderr);
    let checked = server(&bed.setup, &bed.internet.gateway, "check", &[])?;
    for said in [&reloaded.stdout, &checked.stdout] {
        let is_told = said
            .lines()
            .any(|line| line.starts_with("warning: ") && line.contains("the rule has ended"));
        ensure!(is_told, "{said}");
    }
    Ok(())
}

pub(crate) fn is_explained_with_and_without_a_gateway(programs: &Programs) -> Result<()> {
    let timed = "\n[[allow]]\nname = \"late\"\nwho = [\"authority:adit\"]\nto = [\"10.66.0.0/24\"]\n\
        ports = [\"tcp/22\"]\ndirection = \"both\"\nfrom = 2001-01-01\nuntil = 2001-12-31\n";
    let policy = format!("timezone = \"Europe/Berlin\"\n{POLICY}{timed}");
    let bed = Bed::with(programs, Layout::default(), |setup| setup.policy(&policy))?;
    let Bed {
        gateway,
        setup,
        internet,
    } = bed;
    let office = ["alice@example.com", "10.0.0.10", "tcp/443"];
    let with = |more: &[&'static str]| [&office[..], more].concat();

    // A session is open: its certificate counts, and what is live is told.
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let alice = setup.connect(internet.laptop(), &profile)?;
    let address = alice.address(true)?.to_string();
    Ping::to(internet::OFFICE_V4).expect_all(internet.laptop())?;
    let said = gateway.explain(&office)?;
    let allowed = [
        "verdict       allowed: allow at ",
        "group         staff (certificate)",
        &address,
    ];
    bed::said(&said, 0, &allowed)?;
    bed::said(
        &said,
        0,
        &[
            "of the authority adit (of the open session)",
            "(in use)",
            "the certificate expires",
        ],
    )?;
    let ping = gateway.explain(&["alice@example.com", "10.0.0.10", "icmp", "--json"])?;
    let json: Value = serde_json::from_str(&ping.stdout)?;
    let flow = &json["session"]["flows"][0];
    ensure!(
        flow["state"] == "answered" && flow["packets_to_client"].as_u64() > Some(0),
        "{json}"
    );
    ensure!(
        json["allowed"] == true && json["answered_by"] == "gateway",
        "{json}"
    );
    let sales = gateway.explain(&with(&["--group", "sales"]))?;
    bed::said(
        &sales,
        1,
        &[
            "denied: there is no session",
            "the groups sales",
            "(as asked)",
        ],
    )?;
    let night = ["alice@example.com", "10.66.0.10", "tcp/22"];
    bed::said(
        &gateway.explain(&night)?,
        1,
        &["nearly        late", "has ended"],
    )?;
    let then = [&night[..], &["--from", "--at", "2001-06-01T12:00:00"]].concat();
    let words = [
        "allowed: late allows it",
        "from 10.66.0.10 on tcp/22",
        "12:00 Europe/Berlin",
        "late ends for good",
    ];
    bed::said(&gateway.explain(&then)?, 0, &words)?;

    // The session is over, and the lease is kept.
    alice.down()?;
    until(Duration::from_secs(5), || {
        Ok(gateway.principals()?.is_empty().then_some(()))
    })?;
    let staff = with(&["--group", "staff"]);
    bed::said(
        &gateway.explain(&staff)?,
        0,
        &["session       none is open", "(kept, last used", &address],
    )?;
    bed::said(
        &gateway.explain(&office)?,
        1,
        &["without groups, authority unknown"],
    )?;

    // Nobody runs: the files know as much of the policy.
    gateway.stop()?;
    let said = explain(&setup, internet.laptop(), &staff)?;
    bed::said(
        &said,
        0,
        &[
            "allowed: allow at ",
            "the files; no gateway runs",
            "(kept, last used",
            &address,
        ],
    )?;
    note(said.stdout.lines().next().unwrap_or_default());
    for (arguments, words) in [
        (
            ["alice@example.com", "10.0.0.10", "tcp"],
            "\"tcp\" is no port",
        ),
        (
            ["alice@example.com", "10.0.0.10", "tcp/1-2"],
            "more than one port",
        ),
        (["", "10.0.0.10", "tcp/1"], "\"\" is no principal"),
    ] {
        failed(
            &explain(&setup, internet.laptop(), &arguments)?,
            2,
            &[words],
        )?;
    }
    let tomorrow = with(&["--at", "tomorrow"]);
    failed(
        &explain(&setup, internet.laptop(), &tomorrow)?,
        2,
        &["no date and time"],
    )
}

fn explain(setup: &Setup, namespace: &Namespace, arguments: &[&str]) -> Result<Outcome> {
    server(setup, namespace, "explain", arguments)
}

fn server(setup: &Setup, namespace: &Namespace, what: &str, arguments: &[&str]) -> Result<Outcome> {
    let mut command = Command::new(&setup.programs().server);
    command.arg(what).args(arguments);
    command.arg("--config").arg(setup.server_toml());
    namespace.spawn(command)?.wait(Duration::from_secs(10))
}
