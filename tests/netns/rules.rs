//! What rules limit, deny and count, with the real programs.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use adit_tests::lab::{Layout, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::probe::tcp;
use adit_tests::probe::throughput::{Direction, Figure, Transfer};
use adit_tests::programs::{Gateway, Programs};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, note};

/// Twenty megabits a second of IPv4, any of IPv6; a closed port.
const LIMITED: &str = r#"
[pool]
v4 = "10.99.0.0/24"
v6 = "fd00:ad17::/64"

[[allow]]
name = "slow"
who = ["group:staff"]
to = ["10.0.0.0/16"]
rate = "20 Mbit/s"

[[allow]]
name = "fast"
who = ["group:staff"]
to = ["fd00:1::/64"]

[[deny]]
name = "closed"
who = ["*"]
to = ["10.0.0.0/16"]
ports = ["tcp/81"]
"#;

fn bed(programs: &Programs) -> Result<Bed> {
    Bed::with(programs, Layout::default(), |setup| setup.policy(LIMITED))
}

/// One stream to or from the office.
fn stream(bed: &Bed, direction: Direction, to: IpAddr) -> Result<Figure> {
    let transfer = Transfer {
        direction,
        streams: 1,
        length: Duration::from_secs(5),
        programs: Vec::new(),
    };
    transfer.run(bed.internet.laptop(), &bed.internet.office, to)
}

/// Megabits of payload a second.
fn rate(figure: &Figure) -> f64 {
    figure.gbit_per_second() * 1e3
}

pub(crate) fn a_rate_is_kept_and_used(programs: &Programs) -> Result<()> {
    let bed = bed(programs)?;
    let _alice = bed.alice(0)?;
    for direction in [Direction::Down, Direction::Up] {
        let alone = rate(&stream(&bed, direction, internet::OFFICE_V6)?);
        let (slow, fast) = thread::scope(|scope| {
            let slow = scope.spawn(|| stream(&bed, direction, internet::OFFICE_V4));
            let fast = stream(&bed, direction, internet::OFFICE_V6);
            (slow.join().expect("a stream does not panic"), fast)
        });
        let (slow, fast) = (rate(&slow?), rate(&fast?));
        note(&format!(
            "{direction:?}: {slow:.1} Mbit/s of 20, beside it {fast:.0}, which alone has {alone:.0}"
        ));
        ensure!((14.0..=21.0).contains(&slow), "{slow} Mbit/s of 20");
        // The machine is shared with other tests.
        ensure!(fast > alone / 2.0, "{fast} Mbit/s instead of {alone}");
    }
    let status = bed.gateway.status()?;
    let session = &status["sessions"][0];
    ensure!(
        session["traffic"]["drops"]["rate-limited"].as_u64() > Some(0),
        "{session}"
    );
    Ok(())
}

pub(crate) fn what_is_denied_stands_in_the_audit_log(programs: &Programs) -> Result<()> {
    let bed = bed(programs)?;
    let log = bed.setup.path("state").join("audit.jsonl");
    let alice = bed.alice(0)?;
    let closed = SocketAddr::new(internet::OFFICE_V4, 81);
    let start = Instant::now();
    for _ in 0..5 {
        let refused = tcp::connect(bed.internet.laptop(), closed, Duration::from_secs(5));
        ensure!(refused.is_err(), "port 81 is open");
    }
    ensure!(start.elapsed() < Duration::from_secs(5), "it fails at once");
    Ping::to(alice.address(true)?)
        .count(3)
        .patience(Duration::from_millis(100))
        .run(&bed.internet.office)?;
    alice.down()?;
    let denied = until(Duration::from_secs(5), || {
        let text = fs::read_to_string(&log)?;
        let lines = text.lines().map(serde_json::from_str);
        let lines: Vec<Value> = lines.collect::<Result<_, _>>()?;
        let ended = lines.iter().any(|line| line["event"] == "disconnect");
        let denied = lines.into_iter().filter(|line| line["event"] == "denied");
        Ok(ended.then(|| denied.collect::<Vec<_>>()))
    })?;
    // The first at once, the others when the session ended.
    ensure!(denied.len() == 2, "{denied:?}");
    let mut counts = [0, 0];
    for line in &denied {
        ensure!(line["principal"] == "alice@example.com", "{line}");
        ensure!(line["others"] == 0, "{line}");
        for kind in line["kinds"].as_array().context("no kinds")? {
            let packets = kind["packets"].as_u64().context("no packets")?;
            ensure!(kind["far"] == internet::OFFICE_V4.to_string(), "{kind}");
            if kind["direction"] == "from-client" {
                ensure!(kind["protocol"] == 6 && kind["port"] == 81, "{kind}");
                ensure!(kind["rule"] == "closed", "{kind}");
                counts[0] += packets;
            } else {
                ensure!(kind["protocol"] == 1 && kind["port"].is_null(), "{kind}");
                ensure!(kind["rule"].is_null(), "{kind}");
                counts[1] += packets;
            }
        }
    }
    ensure!(counts == [5, 3], "{denied:?}");
    note(&denied[1].to_string());
    Ok(())
}

fn usage(gateway: &Gateway, options: &[&str]) -> Result<String> {
    let outcome = gateway.usage(options)?;
    ensure!(outcome.code == Some(0), "{}", outcome.stderr);
    Ok(outcome.stdout)
}

pub(crate) fn rules_are_accounted_for(programs: &Programs) -> Result<()> {
    let Bed {
        mut gateway,
        setup,
        internet,
    } = bed(programs)?;
    let fast = |gateway: &Gateway| -> Result<Value> {
        let rules: Vec<Value> = serde_json::from_str(&usage(gateway, &["--rules", "--json"])?)?;
        let mut rules = rules.into_iter();
        rules
            .find(|rule| rule["rule"] == "fast")
            .context("no account of the rule")
    };
    let sent = |rule: &Value| rule["total"]["sent_packets"].as_u64().unwrap_or(0);
    let ping = || {
        let ping = Ping::to(internet::OFFICE_V6).count(10);
        ping.expect_all(internet.laptop())
    };
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let alice = setup.connect(internet.laptop(), &profile)?;
    ping()?;
    // Another policy, in which the rule of this name stands elsewhere, and another session, and a restart.
    let more = "\n[[allow]]\nname = \"more\"\nwho = [\"group:staff\"]\nto = [\"10.66.0.0/24\"]\n";
    let changed = LIMITED.replacen("[[allow]]", &format!("{more}\n[[allow]]"), 1);
    setup.policy(&changed)?;
    let outcome = gateway.reload(&[])?;
    ensure!(outcome.code == Some(0), "{}", outcome.stderr);
    ping()?;
    let rule = fast(&gateway)?;
    ensure!(sent(&rule) >= 20, "{rule}");
    ensure!(rule["text"] == "allow group:staff to fd00:1::/64", "{rule}");
    alice.down()?;
    let alice = setup.connect(internet.laptop(), &profile)?;
    ping()?;
    gateway.stop()?;
    drop(alice);
    gateway = setup.start_gateway(&internet.gateway)?;
    let rule = fast(&gateway)?;
    ensure!(sent(&rule) >= 30, "{rule}");
    let alice = &rule["principals"]["alice@example.com"];
    ensure!(alice["sent_packets"] == sent(&rule), "{rule}");
    let text = usage(&gateway, &["--rules"])?;
    ensure!(text.contains("RULE") && text.contains("fast"), "{text}");
    note(text.lines().nth(1).unwrap_or_default());
    Ok(())
}
