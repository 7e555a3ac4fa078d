//! README.md and the pages of docs: what they say is taken from the file and done as it stands there.
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
use adit_tests::lab::{Namespace, Process, internet, until};
use adit_tests::programs::{Programs, SERVER_NAME};
use anyhow::{Context, Result, ensure};

use crate::bed::note;

/// One machine of the page: its network, its own system directories, the directory commands run in.
pub(crate) struct Machine<'a> {
    namespace: &'a Namespace,
    pub(crate) home: PathBuf,
    bin: PathBuf,
    etc: PathBuf,
    built: PathBuf,
    instead: Vec<(CString, CString)>,
    /// Where passphrases are.
    credentials: Option<PathBuf>,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(namespace: &'a Namespace, root: &Path, programs: &Programs) -> Result<Self> {
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
            instead.push(pair(&ours, theirs)?);
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
            etc,
            built: built.to_owned(),
            instead,
            credentials: None,
        })
    }

    /// Puts a directory in place of `/media`: the sticks that are in the machine.
    pub(crate) fn plug_in(&mut self, sticks: &Path) -> Result<()> {
        self.instead.push(pair(sticks, "/media")?);
        Ok(())
    }

    /// Answers whatever asks for a passphrase: nobody sits there who could type, so it comes as in a unit of systemd.
    pub(crate) fn knows(&mut self, passphrase: &str) -> Result<()> {
        let directory = self.bin.with_file_name("credentials");
        fs::create_dir(&directory)?;
        let file = directory.join("adit-ca-passphrase");
        fs::write(&file, passphrase)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        self.credentials = Some(directory);
        Ok(())
    }

    /// Its network.
    pub(crate) fn namespace(&self) -> &Namespace {
        self.namespace
    }

    /// A file of its `/etc/adit`.
    pub(crate) fn configuration(&self, name: &str) -> PathBuf {
        self.etc.join("adit").join(name)
    }

    /// Installs the programs, as the quick start does.
    pub(crate) fn install(&self) -> Result<()> {
        for program in ["adit", "adit-server", "adit-ca"] {
            std::os::unix::fs::symlink(self.built.join(program), self.bin.join(program))?;
        }
        Ok(())
    }

    /// Starts one command of the page.
    pub(crate) fn start(&self, command: &str) -> Result<Process> {
        let text = command
            .replace("target/release/", &format!("{}/", self.built.display()))
            .replace("/usr/bin/", &format!("{}/", self.bin.display()));
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.bin.display());
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-euc", &format!("exec {text}")])
            .current_dir(&self.home)
            .env("PATH", path);
        if let Some(directory) = &self.credentials {
            shell.env("CREDENTIALS_DIRECTORY", directory);
        }
        self.namespace
            .spawn_seeing(shell, Sight::Instead(self.instead.clone()))
    }

    /// Waits until a program that was started runs as it should: until the command that asks it says so.
    pub(crate) fn is_up(&self, program: &mut Process, status: &str) -> Result<()> {
        until(PATIENCE, || {
            program.still_runs()?;
            let status = self.start(status)?.wait(PATIENCE)?;
            Ok((status.code == Some(0)).then_some(()))
        })
        .with_context(|| format!("`{status}` does not succeed:\n{}", program.last_words()))
    }

    /// Runs one command of the page that must succeed.
    pub(crate) fn finish(&self, command: &str) -> Result<()> {
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

fn pair(ours: &Path, theirs: &str) -> Result<(CString, CString)> {
    let ours = CString::new(ours.as_os_str().as_bytes())?;
    Ok((ours, CString::new(theirs)?))
}

/// The blocks of a language between a heading of README.md and the next.
pub(crate) fn blocks(heading: &str, language: &str) -> Vec<&'static str> {
    blocks_of(README, heading, language)
}

/// The same of any page.
pub(crate) fn blocks_of(page: &'static str, heading: &str, language: &str) -> Vec<&'static str> {
    let section = page
        .split_once(heading)
        .map_or("", |(_, rest)| rest)
        .split("\n## ")
        .next()
        .unwrap_or_default();
    let fence = format!("```{language}\n");
    let blocks = section.split(fence.as_str()).skip(1);
    blocks
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block)
        .collect()
}

/// The commands of each `sh` block below a heading, without comments and without building.
pub(crate) fn commands(heading: &str) -> Vec<Vec<String>> {
    let lines = |block: &str| {
        block
            .lines()
            .map(|line| line.split(" #").next().unwrap_or_default())
            .flat_map(|line| line.split(" && "))
            .map(|command| command.trim().to_owned())
            .filter(|command| !command.is_empty() && !command.starts_with("cargo build"))
            .collect()
    };
    blocks(heading, "sh").into_iter().map(lines).collect()
}

const README: &str = include_str!("../../README.md");
/// The page about other authorities.
pub(crate) const AUTHORITIES: &str = include_str!("../../docs/authorities.md");

/// Any of these commands takes moments.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
