//! The world of the interop ring: gateway, office, a well-behaved session, and the attacker's laptop.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adit_tests::lab::{Internet, Layout, internet, until};
use adit_tests::probe::ping::{Ping, Running};
use adit_tests::probe::watch::EchoWatch;
use adit_tests::programs::{Client, Gateway, POLICY, Programs, Setup};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::script;

/// A session beside the attacks, and everything that sees what they do.
pub(crate) struct Bystander {
    // Dropped in this order: programs before the namespaces and files they use.
    pings: Vec<(IpAddr, Running)>,
    watch: EchoWatch,
    alice: Client,
    gateway: Gateway,
    setup: Setup,
    internet: Internet,
    python: PathBuf,
}

impl Bystander {
    /// Starts the gateway, connects `adit` and begins to ping the office in both families.
    pub(crate) fn new(programs: &Programs, python: &Path) -> Result<Self> {
        let internet = Internet::new(Layout {
            laptops: 2,
            ..Layout::default()
        })?;
        let setup = Setup::new(programs)?;
        setup.policy(&format!("{POLICY}{SITE}"))?;
        let gateway = setup.start_gateway(&internet.gateway)?;
        let profile = setup.profile("alice@example.com", &["staff"])?;
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
            watch,
            alice,
            gateway,
            setup,
            internet,
            python: python.to_owned(),
        })
    }

    /// Runs `good.py` with a certificate that `adit-ca` issued.
    pub(crate) fn good(&mut self) -> Result<()> {
        let profile = self.setup.profile("carol@example.com", &["staff"])?;
        let profile: toml::Table = fs::read_to_string(profile)?.parse()?;
        let mut good = script(&self.python, "good.py");
        good.args(["--gateway", &internet::GATEWAY_V4.to_string()]);
        for part in ["certificate", "key", "ca"] {
            let pem = profile[part].as_str().context("the profile holds no PEM")?;
            let file = self.setup.path(format!("carol.{part}"));
            fs::write(&file, pem)?;
            let option = if part == "ca" { "authority" } else { part };
            good.arg(format!("--{option}")).arg(file);
        }
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

    /// Runs one case of `hostile.py` and believes its verdict.
    pub(crate) fn hostile(&mut self, case: &str) -> Result<()> {
        let addresses = |v4: IpAddr, v6: IpAddr| [v4.to_string(), v6.to_string()];
        let mut hostile = script(&self.python, "hostile.py");
        hostile
            .arg(case)
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
        let mut losses = Vec::new();
        for (office, ping) in self.pings.drain(..) {
            let answers = ping.stop()?;
            print(&format!("    {office}: {}\n", answers.summary()));
            if answers.received != answers.sent || !answers.unsent.is_empty() {
                losses.push(format!("{office} lost {:?}", answers.lost));
            }
        }
        ensure!(losses.is_empty(), "{}", losses.join("; "));
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
        let left = until(Duration::from_secs(90), || {
            let left = gateway.principals()?;
            Ok((left == ["alice@example.com"]).then_some(left))
        });
        if let Err(error) = left {
            bail!("{error:#}: {:?} are still there", gateway.principals()?);
        }
        print(&gateway.status_text()?);
        Ok(())
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

/// The ICMP identifier of packets that must not arrive: `BAD` in peer.py.
const FORBIDDEN: u16 = 0x0bad;

/// Ten thousand streams in Python take a while.
const PATIENCE: Duration = Duration::from_secs(120);
