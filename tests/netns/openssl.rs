//! Authorities that nobody here wrote: the `openssl` program, in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

/// A directory with the files of an authority, and those it issued.
pub(crate) struct OpenSsl {
    directory: PathBuf,
    /// What `-newkey` takes.
    keys: &'static str,
}

impl OpenSsl {
    /// Makes the directory, with this `openssl.cnf` in it.
    pub(crate) fn new(directory: &Path, configuration: &str, keys: &'static str) -> Result<Self> {
        fs::create_dir(directory)?;
        fs::write(directory.join("openssl.cnf"), configuration)?;
        Ok(Self {
            directory: directory.to_owned(),
            keys,
        })
    }

    /// Runs these lines of a shell, all of which must succeed.
    pub(crate) fn run(&self, script: &str) -> Result<()> {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-euc", script])
            .current_dir(&self.directory)
            .env("OPENSSL_CONF", self.path("openssl.cnf"))
            .env("KEY", self.keys)
            .env("AUTHORITY", "")
            .env("NAME", "");
        let output = shell.output().context("cannot run /bin/sh")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{script}\n{stderr}");
        Ok(())
    }

    /// The path of one of its files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The text of one of its files.
    pub(crate) fn read(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.path(name)).with_context(|| name.to_owned())
    }
}

/// A moment so far from now, as `-enddate` takes it.
pub(crate) fn after(life: Duration) -> Result<String> {
    let end = Timestamp::try_from(SystemTime::now() + life)?;
    Ok(end.strftime("%Y%m%d%H%M%SZ").to_string())
}

/// What `-newkey` takes for keys of ECDSA with P-256.
pub(crate) const ECDSA: &str = "ec -pkeyopt ec_paramgen_curve:P-256";
/// And for RSA keys.
pub(crate) const RSA: &str = "rsa:3072";
