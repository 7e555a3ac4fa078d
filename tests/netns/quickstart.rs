//! The quick start of README.md, its commands taken from the file and run as they stand there.
//!
//! Each machine has its own `/etc`, `/var/lib` and `/run`. Only three things are not as on the page:
//! the programs are built already, `/usr/bin/` is a directory of the test, and `sudo` is a script
//! that gives no rights because there are enough.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adit_tests::lab::namespace::Sight;
use adit_tests::lab::{Internet, Layout, Namespace, Process, Snapshot, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Programs, SERVER_NAME, TemporaryDirectory};
use anyhow::{Context, Result, ensure};

use crate::bed::{note, unchanged};

pub(crate) fn the_readme_is_true(programs: &Programs) -> Result<()> {
    let blocks = shell_blocks(README, "## Quick start on two machines");
    ensure!(
        blocks.len() == 3,
        "the quick start has {} blocks of commands: gateway, laptop and status were expected",
        blocks.len()
    );
    let internet = Internet::new(Layout::default())?;
    let directory = TemporaryDirectory::new()?;
    let before = Snapshot::of(internet.laptop())?;
    let gateway = Machine::new(&internet.gateway, &directory.path().join("g"), programs)?;
    let laptop = Machine::new(internet.laptop(), &directory.path().join("l"), programs)?;

    let (run, setup) = blocks[0]
        .split_last()
        .context("no command of the gateway")?;
    ensure!(
        run == "sudo adit-server run",
        "the gateway ends with `{run}`"
    );
    for command in setup {
        gateway.finish(command)?;
    }
    let mut server = gateway.start(run)?;
    until(PATIENCE, || {
        server.still_runs()?;
        let status = gateway.start("sudo adit-server status")?.wait(PATIENCE)?;
        Ok((status.code == Some(0)).then_some(()))
    })
    .with_context(|| format!("the gateway is not ready:\n{}", server.last_words()))?;

    fs::copy(gateway.home.join(PROFILE), laptop.home.join(PROFILE))?;
    let (up, setup) = blocks[1].split_last().context("no command of the laptop")?;
    ensure!(
        up == "sudo adit up alice.toml",
        "the laptop ends with `{up}`"
    );
    for command in setup {
        laptop.finish(command)?;
    }
    let mut client = laptop.start(up)?;
    until(PATIENCE, || {
        client.still_runs()?;
        let status = laptop.start("sudo adit status")?.wait(PATIENCE)?;
        Ok((status.code == Some(0)).then_some(()))
    })
    .with_context(|| format!("the client is not up:\n{}", client.last_words()))?;
    for office in [internet::OFFICE_V4, internet::OFFICE_V6] {
        let answers = Ping::to(office).expect_all(internet.laptop())?;
        note(&format!("ping {office}: {}", answers.summary()));
    }

    for command in &blocks[2] {
        // The page says in a comment where each is typed.
        let machine = if command.contains("adit-server") {
            &gateway
        } else {
            &laptop
        };
        machine.finish(command)?;
    }
    let outcome = client.wait(PATIENCE)?;
    ensure!(
        outcome.code == Some(0),
        "adit ended badly:\n{}",
        outcome.stderr
    );
    unchanged(&before, internet.laptop())?;
    server.terminate()?;
    let outcome = server.wait(PATIENCE)?;
    ensure!(
        outcome.code == Some(0),
        "adit-server ended badly:\n{}",
        outcome.stderr
    );
    Ok(())
}

/// One of the two machines: its network, its own system directories, the directory commands run in.
struct Machine<'a> {
    namespace: &'a Namespace,
    home: PathBuf,
    bin: PathBuf,
    built: PathBuf,
    instead: Vec<(CString, CString)>,
}

impl<'a> Machine<'a> {
    fn new(namespace: &'a Namespace, root: &Path, programs: &Programs) -> Result<Self> {
        let (home, bin) = (root.join("home"), root.join("bin"));
        fs::create_dir_all(&home)?;
        fs::create_dir_all(&bin)?;
        let sudo = bin.join("sudo");
        fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n")?;
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))?;
        let mut instead = Vec::new();
        for (ours, theirs) in [("etc", "/etc"), ("lib", "/var/lib"), ("run", "/run")] {
            let ours = root.join(ours);
            fs::create_dir(&ours)?;
            instead.push((
                CString::new(ours.as_os_str().as_bytes())?,
                CString::new(theirs)?,
            ));
        }
        let etc = root.join("etc");
        fs::write(
            etc.join("hosts"),
            format!("{} {SERVER_NAME}\n", internet::GATEWAY_V4),
        )?;
        fs::write(etc.join("nsswitch.conf"), "hosts: files\n")?;
        // Where libraries are is the machine's, not the test's.
        for file in ["ld.so.cache", "ld.so.conf", "passwd", "group"] {
            let file = Path::new("/etc").join(file);
            if file.is_file() {
                fs::copy(&file, etc.join(file.file_name().unwrap_or_default()))?;
            }
        }
        let built = programs.adit.parent().context("no directory")?;
        Ok(Self {
            namespace,
            home,
            bin,
            built: built.to_owned(),
            instead,
        })
    }

    /// Starts one command of the page.
    fn start(&self, command: &str) -> Result<Process> {
        let text = command
            .replace("target/release/", &format!("{}/", self.built.display()))
            .replace("/usr/bin/", &format!("{}/", self.bin.display()));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-euc", &format!("exec {text}")])
            .current_dir(&self.home)
            .env("PATH", format!("{}:{path}", self.bin.display()));
        self.namespace
            .spawn_seeing(shell, Sight::Instead(self.instead.clone()))
    }

    /// Runs one command of the page that must succeed.
    fn finish(&self, command: &str) -> Result<()> {
        let outcome = self.start(command)?.wait(PATIENCE)?;
        ensure!(
            outcome.code == Some(0),
            "`{command}` ended with {:?}:\n{}{}",
            outcome.code,
            outcome.stdout,
            outcome.stderr
        );
        note(command);
        Ok(())
    }
}

/// The commands of each `sh` block between `heading` and the next heading, without comments and without
/// building.
fn shell_blocks(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page
        .split_once(heading)
        .map_or("", |(_, rest)| rest)
        .split("\n## ")
        .next()
        .unwrap_or_default();
    section
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| {
            block
                .lines()
                .map(|line| line.split(" #").next().unwrap_or_default())
                .flat_map(|line| line.split(" && "))
                .map(|command| command.trim().to_owned())
                .filter(|command| !command.is_empty() && !command.starts_with("cargo build"))
                .collect()
        })
        .collect()
}

const README: &str = include_str!("../../README.md");

/// What `adit-ca issue` writes on the page.
const PROFILE: &str = "alice.toml";

/// Any of these commands takes moments.
const PATIENCE: Duration = Duration::from_secs(20);
