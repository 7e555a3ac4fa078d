//! A running gateway goes to other places on its host: control socket, state directory, interface.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use adit_tests::lab::{Internet, Layout, Namespace, Snapshot, internet};
use adit_tests::probe::ping::Ping;
use adit_tests::probe::tcp;
use adit_tests::programs::{Gateway, POLICY, Programs, Setup, table};
use anyhow::{Result, ensure};
use socket2::SockRef;

use crate::bed::{Bed, failed, masquerading, note, said, unchanged};
use crate::load::Load;

/// Where a gateway is, and where it goes.
struct Places {
    socket: PathBuf,
    state: PathBuf,
    interface: &'static str,
}

impl Places {
    fn old(setup: &Setup) -> Self {
        Self {
            socket: setup.path("s.sock"),
            state: setup.path("state"),
            interface: "adit0",
        }
    }

    fn new(setup: &Setup) -> Self {
        Self {
            socket: setup.path("n/n.sock"),
            state: setup.path("moved/state"),
            interface: "office",
        }
    }

    fn write(&self, setup: &Setup) -> Result<()> {
        let text = |path: &Path| path.display().to_string().into();
        setup.configure(|server| {
            server.insert("admin_socket".to_owned(), text(&self.socket));
            server.insert("state_directory".to_owned(), text(&self.state));
            table(server, "inside").insert("interface".to_owned(), self.interface.into());
        })
    }

    fn journal(&self) -> PathBuf {
        self.state.join(format!("{}.journal", self.interface))
    }

    /// Fails unless this is where the gateway is, in every respect.
    fn are_used(&self, gateway: &Namespace) -> Result<()> {
        let link = self.interface;
        ensure!(self.socket.exists() && self.journal().exists());
        ensure!(has_link(gateway, link), "there is no {link}");
        Ok(())
    }

    /// Fails unless nothing of the gateway is here but what it remembered.
    fn are_left(&self, gateway: &Namespace) -> Result<()> {
        let link = self.interface;
        ensure!(!self.socket.exists() && !self.journal().exists());
        ensure!(!has_link(gateway, link), "there still is {link}");
        Ok(())
    }
}

fn has_link(namespace: &Namespace, name: &str) -> bool {
    // Not /sys, which shows the devices of the namespace it was mounted in.
    let links = namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let links = links.unwrap_or_default();
    links
        .lines()
        .any(|line| line.trim_start().starts_with(&format!("{name}:")))
}

/// Who names the socket means the gateway that runs there, and no files in its place.
fn codes_are_given_at_a_named_socket(gateway: &Gateway, socket: &str) -> Result<()> {
    let at = ["--socket", socket];
    let bob = [&["bob@example.com", "--group", "staff"], &at[..]].concat();
    said(&gateway.invite(&bob)?, 0, &["sudo adit enroll"])?;
    said(&gateway.invitations(&at)?, 0, &["bob@example.com"])?;
    let nowhere = ["--socket", "/nowhere/s.sock"];
    let [lost, silent] = [
        gateway.invitations(&nowhere)?,
        gateway.invite(&[&bob[..3], &nowhere].concat())?,
    ];
    failed(&lost, 3, &["nothing is running at /nowhere/s.sock"])?;
    failed(&silent, 3, &["nothing is running at /nowhere/s.sock"])?;
    let back = [&["--withdraw", "1"], &at[..]].concat();
    said(&gateway.invitations(&back)?, 0, &["is invited no more"])
}

pub(crate) fn all_change_under_traffic(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    masquerading(&setup)?;
    let before = Snapshot::of(&internet.gateway)?;
    let mut gateway = setup.start_gateway(&internet.gateway)?;
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let mut alice = setup.connect(internet.laptop(), &profile)?;
    let addresses = [alice.address(true)?, alice.address(false)?];
    let load = Load::start(internet.laptop(), &internet.office)?;

    let (old, new) = (Places::old(&setup), Places::new(&setup));
    old.are_used(&internet.gateway)?;
    new.write(&setup)?;
    setup.policy(&format!("{POLICY}{WIDER}"))?;
    // The file names the new socket, where nobody answers yet; what to do about that is said.
    let lost = gateway.reload(&[])?;
    failed(&lost, 1, &["no gateway answers", "reload --socket OLD"])?;
    let socket = old.socket.display().to_string();
    codes_are_given_at_a_named_socket(&gateway, &socket)?;
    let start = Instant::now();
    let outcome = gateway.reload(&["--socket", &socket])?;
    let took = start.elapsed();
    let moved = [
        "admin_socket goes from",
        "state_directory goes from",
        "keys.json, leases.json, usage.json, revocation-lists.json stay",
        "inside.interface goes from adit0 to office",
        "reaches           10.66.0.0/24",
    ];
    said(&outcome, 0, &moved)?;
    old.are_left(&internet.gateway)?;
    new.are_used(&internet.gateway)?;
    let keys = |places: &Places| fs::read(places.state.join("keys.json"));
    ensure!(keys(&old)? == keys(&new)?, "the keys are others");
    ensure!(gateway.principals()? == ["alice@example.com"]);
    Ping::to(internet::PAYROLL_V4).expect_all(internet.laptop())?;
    thread::sleep(Load::LONG_ENOUGH);
    load.stop("alice")?;
    note(&format!("everything is elsewhere after {took:.0?}"));

    // Killed there, the next start undoes it there; and everybody has the old address.
    gateway.process().crash()?;
    let left = before.difference(&Snapshot::of(&internet.gateway)?);
    ensure!(left.contains("adit_office"), "{left}");
    let start = Instant::now();
    let gateway = setup.start_gateway(&internet.gateway)?;
    let ping = Ping::to(internet::OFFICE_V4).patience(Duration::from_secs(20));
    let answered = ping.first_answer(internet.laptop())?;
    note(&format!(
        "alice is back {:.1?} after the restart",
        answered - start
    ));
    alice.connected(Duration::from_secs(20))?;
    ensure!([alice.address(true)?, alice.address(false)?] == addresses);
    ensure!(alice.stop()?.code == Some(0));
    ensure!(gateway.stop()?.code == Some(0));
    new.are_left(&internet.gateway)?;
    unchanged(&before, &internet.gateway)
}

pub(crate) fn a_failure_leaves_every_place_as_it_was(programs: &Programs) -> Result<()> {
    let bed = Bed::with(programs, Layout::default(), masquerading)?;
    let _alice = bed.alice(0)?;
    let (setup, gateway) = (&bed.setup, &bed.internet.gateway);
    let (old, new) = (Places::old(setup), Places::new(setup));
    let socket = old.socket.display().to_string();
    let host = Snapshot::of(gateway)?;
    let load = Load::start(bed.internet.laptop(), &bed.internet.office)?;
    let foreign = setup.path("foreign");
    fs::create_dir(&foreign)?;
    fs::write(foreign.join("leases.json"), "[]")?;
    let file = setup.path("file");
    fs::write(&file, "")?;
    let places = || Places::new(setup);
    let refused = |wanted: Places, policy: &str, code: i32, words: &[&str]| -> Result<()> {
        wanted.write(setup)?;
        setup.policy(policy)?;
        failed(&bed.gateway.reload(&["--socket", &socket])?, code, words)?;
        old.are_used(gateway)?;
        new.are_left(gateway)?;
        ensure!(!setup.path("moved").exists(), "a directory stays");
        unchanged(&host, gateway)
    };
    refused(places(), "nonsense", 2, &["policy.toml:1"])?;
    let wanted = Places {
        interface: "lo",
        ..places()
    };
    refused(wanted, POLICY, 3, &["interface lo already"])?;
    let wanted = Places {
        state: file.join("state"),
        ..places()
    };
    refused(wanted, POLICY, 3, &["file/state"])?;
    let wanted = Places {
        state: foreign.clone(),
        ..places()
    };
    let both = [&foreign, &old.state].map(|path| path.display().to_string());
    refused(wanted, POLICY, 3, &[&both[0], &both[1]])?;
    ensure!(fs::read_dir(&foreign)?.count() == 1, "something was left");
    let wanted = Places {
        socket: file.join("s.sock"),
        ..places()
    };
    refused(wanted, POLICY, 3, &["file/s.sock"])?;
    // The last that can fail: all places are taken by then, and the device has its new name.
    let site = format!(
        "{POLICY}\n[[site]]\nprincipal = \"x.example.com\"\nnetworks = [\"10.66.0.0/24\"]\n"
    );
    refused(places(), &site, 3, &["10.66.0.0/24"])?;

    thread::sleep(Load::LONG_ENOUGH);
    load.stop("alice")?;
    // Nothing of all that stands in the way.
    new.write(setup)?;
    setup.policy(POLICY)?;
    let dry = bed.gateway.reload(&["--socket", &socket, "--dry-run"])?;
    said(&dry, 0, &["inside.interface goes from adit0 to office"])?;
    old.are_used(gateway)?;
    new.are_left(gateway)?;
    said(&bed.gateway.reload(&["--socket", &socket])?, 0, &[])?;
    new.are_used(gateway)?;
    old.are_left(gateway)?;
    // And back, where the state is its own.
    old.write(setup)?;
    let socket = new.socket.display().to_string();
    said(&bed.gateway.reload(&["--socket", &socket])?, 0, &[])?;
    old.are_used(gateway)?;
    new.are_left(gateway)?;
    unchanged(&host, gateway)
}

pub(crate) fn another_mtu_counts_for_sessions_that_run(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let _alice = bed.alice(0)?;
    let (laptop, office) = (bed.internet.laptop(), &bed.internet.office);
    let segment = || -> Result<u32> {
        let listener = office.run(|| TcpListener::bind((internet::OFFICE_V4, 0)))?;
        let _connection = tcp::connect(laptop, listener.local_addr()?, Duration::from_secs(10))?;
        let (accepted, _) = listener.accept()?;
        Ok(SockRef::from(&accepted).tcp_mss()?)
    };
    let before = segment()?;
    let load = Load::start(laptop, office)?;
    for mtu in [1280, 1400] {
        bed.setup.configure(|server| {
            table(server, "inside").insert("mtu".to_owned(), mtu.into());
        })?;
        said(&bed.gateway.reload(&[])?, 0, &["1 session stays as it is"])?;
        let now = segment()?;
        note(&format!(
            "MTU {mtu}: segments of at most {now}, {before} before"
        ));
        ensure!(i64::from(now) <= mtu - 40, "segments of {now}");
        ensure!((mtu == 1400) == (now == before), "segments of {now}");
    }
    thread::sleep(Load::LONG_ENOUGH);
    load.stop("alice")?;
    Ok(())
}

const WIDER: &str =
    "\n[[allow]]\nwho = [\"alice@example.com\"]\nto = [\"10.66.0.0/24\", \"fd00:66::/64\"]\n";
