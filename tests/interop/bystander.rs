//! The world of the interop ring: gateway, office, a well-behaved session, and the attacker's laptop.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adit_core::status::Traffic;
use adit_tests::lab::{Internet, Layout, Namespace, internet, until};
use adit_tests::probe::ping::{Ping, Running};
use adit_tests::probe::watch::EchoWatch;
use adit_tests::programs::{Client, Gateway, POLICY, PORT, Programs, Setup, TUNNEL};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::script;

/// A session beside the attacks, and everything that sees what they do.
pub(crate) struct Bystander {
    // Dropped in this order: programs before the namespaces and files they use.
    pings: Vec<(IpAddr, Running)>,
    lost: Vec<String>,
    watch: EchoWatch,
    alice: Client,
    gateway: Gateway,
    setup: Setup,
    internet: Internet,
    python: PathBuf,
    /// The profile of somebody who dials an impostor. Made first: the authority signs its list anew with every certificate,
    /// and knows nothing of newer ones that cases sign in its name.
    deceived: PathBuf,
    /// The section of the configuration that was taken out at the beginning, until it is put back.
    enrolment: Option<toml::Value>,
}

impl Bystander {
    /// Starts the gateway, connects `adit` and begins to ping the office in both families.
    pub(crate) fn new(programs: &Programs, python: &Path) -> Result<Self> {
        let internet = Internet::new(Layout {
            laptops: 2,
            ..Layout::default()
        })?;
        let setup = Setup::new(programs)?;
        let maximum = format!("[[session]]\nwho = [{LODGER:?}]\nmaximum = \"{MAXIMUM}s\"\n");
        setup.policy(&format!("{POLICY}{SITE}{maximum}"))?;
        // The strict way: no handshake without a certificate.
        let mut enrolment = None;
        setup.configure(|server| enrolment = server.remove("enrolment"))?;
        let gateway = setup.start_gateway(&internet.gateway)?;
        let profile = setup.profile("alice@example.com", &["staff"])?;
        let here = SocketAddr::from(([127, 0, 0, 1], PORT));
        let deceived = setup.profile_towards("bob@example.com", &["staff"], &[here])?;
        let alice = setup.connect(internet.laptop(), &profile)?;
        let mut pings = Vec::new();
        for office in [internet::OFFICE_V4, internet::OFFICE_V6] {
            Ping::to(office).expect_all(internet.laptop())?;
            let every = Duration::from_millis(20);
            let ping = Ping::to(office)
                .every(every)
                .patience(Duration::from_secs(3));
            pings.push((office, ping.start(internet.laptop())?));
        }
        let watch = EchoWatch::start(&internet.office)?;
        Ok(Self {
            pings,
            lost: Vec::new(),
            watch,
            alice,
            gateway,
            setup,
            internet,
            python: python.to_owned(),
            deceived,
            enrolment,
        })
    }

    /// Runs `good.py` with a certificate that `adit-ca` issued.
    pub(crate) fn good(&mut self) -> Result<()> {
        let mut good = self.foreign("good.py", "carol@example.com")?;
        good.args([
            "--office",
            &internet::OFFICE_V4.to_string(),
            &internet::OFFICE_V6.to_string(),
        ]);
        let (code, stdout) = self.attack(good)?;
        print(&stdout);
        ensure!(code == Some(0), "the foreign client was not served");
        Ok(())
    }

    /// Runs `stay.py`, whose session has a maximum.
    pub(crate) fn stays(&mut self) -> Result<()> {
        let mut stay = self.foreign("stay.py", LODGER)?;
        let office = internet::OFFICE_V4.to_string();
        stay.args(["--office", &office, "--maximum", MAXIMUM]);
        let (code, stdout) = self.attack(stay)?;
        print(&stdout);
        ensure!(
            code == Some(0),
            "the foreign client was not told or not closed"
        );
        Ok(())
    }

    /// One of our Python programs as a client with a certificate that `adit-ca` issued.
    fn foreign(&self, name: &str, principal: &str) -> Result<Command> {
        let profile = self.setup.profile(principal, &["staff"])?;
        let profile: toml::Table = fs::read_to_string(profile)?.parse()?;
        let mut command = script(&self.python, name);
        command.args(["--gateway", &internet::GATEWAY_V4.to_string()]);
        for part in ["certificate", "key", "ca"] {
            let pem = profile[part].as_str().context("the profile holds no PEM")?;
            let file = self.setup.path(format!("{principal}.{part}"));
            fs::write(&file, pem)?;
            let option = if part == "ca" { "authority" } else { part };
            command.arg(format!("--{option}")).arg(file);
        }
        Ok(command)
    }

    /// Runs one case of `hostile.py` and believes its verdict.
    pub(crate) fn hostile(&mut self, case: &str) -> Result<()> {
        self.judged(case, &[])
    }

    /// The same for a guest who has a code, at the gateway with enrolment turned on.
    pub(crate) fn invited(&mut self, case: &str) -> Result<()> {
        if let Some(section) = self.enrolment.take() {
            self.setup.configure(|server| {
                server.insert("enrolment".to_owned(), section);
            })?;
            let outcome = self.gateway.reload(&[])?;
            ensure!(outcome.code == Some(0), "{}", outcome.stderr);
        }
        let arguments = ["guest@example.com", "--group", "staff", "--json"];
        let answer = self.gateway.invite(&arguments)?;
        let answer: Value =
            serde_json::from_str(&answer.stdout).with_context(|| answer.stderr.clone())?;
        let code = answer["code"].as_str().context("no code")?;
        self.judged(case, &["--code", code])
    }

    /// `adit` against a gateway of Python that has a certificate for something else: it goes no further than that.
    pub(crate) fn impostor(&mut self, kind: &str) -> Result<()> {
        let laptop = self.internet.laptops[1].clone();
        let mut impostor = script(&self.python, "impostor.py");
        impostor
            .arg(kind)
            .args(["--listen", "127.0.0.1", "--gateway-directory"])
            .arg(self.setup.gateway_directory());
        let mut server = laptop.spawn(impostor)?;
        until(PATIENCE, || {
            server.still_runs()?;
            Ok(server.stdout().contains("listening").then_some(()))
        })?;
        let mut bob = self.setup.client(&laptop, &self.deceived)?;
        bob.start()?;
        let outcome = bob.end()?;
        print(&outcome.stderr);
        let (_, words) = IMPOSTORS
            .iter()
            .find(|(name, _)| *name == kind)
            .context("no such impostor")?;
        ensure!(outcome.code == Some(1), "{:?}", outcome.code);
        for word in *words {
            ensure!(outcome.stderr.contains(word), "no {word:?}");
        }
        Ok(())
    }

    fn judged(&mut self, case: &str, more: &[&str]) -> Result<()> {
        let addresses = |v4: IpAddr, v6: IpAddr| [v4.to_string(), v6.to_string()];
        let mut hostile = script(&self.python, "hostile.py");
        hostile
            .arg(case)
            .args(more)
            .args(["--gateway", &internet::GATEWAY_V4.to_string()])
            .arg("--gateway-directory")
            .arg(self.setup.gateway_directory())
            .arg("--office")
            .args(addresses(internet::OFFICE_V4, internet::OFFICE_V6))
            .arg("--denied")
            .args(addresses(internet::PAYROLL_V4, internet::PAYROLL_V6))
            .arg("--neighbour")
            .args(addresses(
                self.alice.address(true)?,
                self.alice.address(false)?,
            ));
        let (_, stdout) = self.attack(hostile)?;
        let report: Value = serde_json::from_str(stdout.trim()).with_context(|| stdout.clone())?;
        print(&format!(
            "    {case}: {}\n",
            report["verdict"].as_str().unwrap_or_default()
        ));
        ensure!(
            report["ok"] == true,
            "prescribed: {}, but: {}",
            report["prescribed"],
            report["verdict"]
        );
        Ok(())
    }

    /// The well-behaved session's pings, all of them.
    pub(crate) fn lost_nothing(&mut self) -> Result<()> {
        self.fall_silent()?;
        ensure!(self.lost.is_empty(), "{}", self.lost.join("; "));
        Ok(())
    }

    /// Ends the pings, so that the counters stand still.
    fn fall_silent(&mut self) -> Result<()> {
        for (office, ping) in self.pings.drain(..) {
            let answers = ping.stop()?;
            print(&format!("    {office}: {}\n", answers.summary()));
            if answers.received != answers.sent || !answers.unsent.is_empty() {
                self.lost.push(format!(
                    "{office} lost {:?}, could not send {:?}",
                    answers.lost, answers.unsent
                ));
            }
        }
        Ok(())
    }

    /// No forbidden packet came out of the tunnel.
    pub(crate) fn office_is_clean(&mut self) -> Result<()> {
        let forbidden = self.watch.with_identifier(FORBIDDEN);
        ensure!(
            forbidden.is_empty(),
            "forbidden packets reached the office: {forbidden:?}"
        );
        Ok(())
    }

    /// Only the well-behaved session is left, and the books balance.
    pub(crate) fn balance(&mut self) -> Result<()> {
        let gateway = &self.gateway;
        let left = until(FORGETTING, || {
            let only_alice = gateway.principals()? == ["alice@example.com"];
            Ok((only_alice && gateway.status()?["connections"] == 1).then_some(()))
        });
        if let Err(error) = left {
            bail!("{error:#}: still there is {}", gateway.status()?);
        }
        self.fall_silent()?;
        let mut found = String::new();
        let balanced = until(SETTLING, || {
            let (accounts, balanced) = self.accounts()?;
            found = accounts;
            Ok(balanced.then_some(()))
        });
        print(&found);
        print(&self.gateway.status_text()?);
        balanced.with_context(|| format!("the books do not balance:\n{found}"))
    }

    /// What the gateway, the kernel and the well-behaved client each counted, and whether it agrees.
    fn accounts(&self) -> Result<(String, bool)> {
        let (gateway, alice) = (self.gateway.status()?, self.alice.status()?);
        let total = traffic(&gateway["total"])?;
        let session = traffic(&gateway["sessions"][0]["traffic"])?;
        let client = traffic(&alice["traffic"])?;
        let device = DeviceTraffic::read(&self.internet.gateway, TUNNEL)?;
        let law = |traffic: &Traffic| {
            let entered = traffic.packets_from_client + traffic.packets_for_client;
            let left = traffic.sent_packets + traffic.received_packets + traffic.answered_packets;
            (entered, left + traffic.drops.values().sum::<u64>())
        };
        let equations = [
            ("all: came in, accounted for", law(&total)),
            ("alice: came in, accounted for", law(&session)),
            // No client may reach another here, so the TUN device is the other end of everything.
            (
                "all: kernel gave, for clients",
                (device.gave, total.packets_for_client),
            ),
            (
                "alice: her adit sent, came from her",
                (client.sent_packets, session.packets_from_client),
            ),
            (
                "alice: went to her, her adit received",
                (session.received_packets, client.packets_for_client),
            ),
        ];
        let mut text = String::new();
        for (name, (one, other)) in &equations {
            let _ = writeln!(text, "    {name}: {one} {other}");
        }
        // What the kernel took beyond that are answers to hosts inside.
        let (least, most) = (
            total.sent_packets,
            total.sent_packets + total.answered_packets,
        );
        let took = device.took;
        let _ = writeln!(text, "    all: kernel took {took}, of {least} to {most}");
        let balanced = equations.iter().all(|(_, (one, other))| one == other)
            && (least..=most).contains(&took);
        Ok((text, balanced && device.dropped == 0))
    }

    /// Runs a Python program on the attacker's laptop.
    fn attack(&mut self, command: Command) -> Result<(Option<i32>, String)> {
        self.gateway.process().still_runs()?;
        let outcome = self.internet.laptops[1].spawn(command)?.wait(PATIENCE)?;
        self.gateway
            .process()
            .still_runs()
            .context("the gateway did not survive this")?;
        if outcome.code != Some(0) {
            print(&outcome.stderr);
        }
        Ok((outcome.code, outcome.stdout))
    }
}

fn traffic(json: &Value) -> Result<Traffic> {
    serde_json::from_value(json.clone()).with_context(|| format!("no traffic: {json}"))
}

/// What the kernel counted on a network device.
struct DeviceTraffic {
    /// Packets the kernel took from the device: written by the program behind a TUN device.
    took: u64,
    /// Packets the kernel gave to the device: read by that program.
    gave: u64,
    /// Packets lost between the two.
    dropped: u64,
}

impl DeviceTraffic {
    fn read(namespace: &Namespace, device: &str) -> Result<Self> {
        let table = namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let line = table
            .lines()
            .find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))
            .with_context(|| format!("no {device} in {table}"))?;
        let columns: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        // proc_net(5): eight columns of reception, then eight of transmission, each beginning with
        // bytes, packets, errors, drops.
        let &[_, took, _, took_not, _, _, _, _, _, gave, _, gave_not, ..] = &columns[..] else {
            bail!("unknown columns in {table}");
        };
        Ok(Self {
            took,
            gave,
            dropped: took_not + gave_not,
        })
    }
}

/// Test output, for whoever reads the log.
#[allow(clippy::print_stdout)]
fn print(text: &str) {
    print!("{text}");
}

/// A site whose network contains an address of somebody else, who sits beside it.
const SITE: &str = r#"
[[principal]]
name = "alice@example.com"
addresses = ["10.40.7.7", "fd00:40::7"]

[[site]]
principal = "site@example.com"
networks = ["10.40.0.0/16", "fd00:40::/64"]
"#;

/// Whose session has a maximum.
const LODGER: &str = "lodger@example.com";
/// In seconds.
const MAXIMUM: &str = "20";

/// What `adit` says of a gateway whose certificate is of this kind.
const IMPOSTORS: &[(&str, &[&str])] = &[
    ("online", &["error: ", "certificate"]),
    ("client", &["error: ", "certificate"]),
    ("stranger", &["the certificate's authority is not trusted"]),
];

/// The ICMP identifier of packets that must not arrive: `BAD` in peer.py.
const FORBIDDEN: u16 = 0x0bad;

/// A client that fell silent is given up after the idle timeout, a minute by default.
const FORGETTING: Duration = Duration::from_secs(90);

/// The last packets may still be on their way between two counters.
const SETTLING: Duration = Duration::from_secs(5);

/// Ten thousand streams in Python take a while.
const PATIENCE: Duration = Duration::from_secs(120);
