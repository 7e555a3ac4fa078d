//! Builds the programs with the cargo that runs the test, into the same directory and profile.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where the three programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The client.
    pub adit: PathBuf,
    /// The gateway.
    pub server: PathBuf,
    /// The authority.
    pub ca: PathBuf,
}

/// Builds `adit`, `adit-server` and `adit-ca` unless they are up to date, and finds them.
pub fn build() -> Result<Programs> {
    let this = env::current_exe().context("cannot find the running program")?;
    // <target>/<profile>/demo, or <target>/<profile>/deps/netns-0123456789abcdef
    let directory = this
        .parent()
        .context("the running program has no directory")?;
    let directory = if directory.ends_with("deps") {
        directory.parent().unwrap_or(directory)
    } else {
        directory
    };
    let target = directory
        .parent()
        .context("the build directory has no parent")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests have no workspace")?;

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo.current_dir(root).args([
        "build",
        "--bins",
        "-p",
        "adit-server",
        "-p",
        "adit-client",
        "-p",
        "adit-pki",
    ]);
    // What cargo tells the program it runs would tell build scripts (ring's) that everything has
    // changed, and half of the dependencies would be built again.
    for (name, _) in env::vars_os() {
        if OF_THIS_PACKAGE
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix))
        {
            cargo.env_remove(name);
        }
    }
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.arg("--target-dir").arg(target);
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(
        status.success(),
        "the programs do not build: cargo ended with {status}"
    );
    let at = |name: &str| directory.join(name);
    Ok(Programs {
        adit: at("adit"),
        server: at("adit-server"),
        ca: at("adit-ca"),
    })
}

/// What cargo sets for a program it runs, and does not set by itself for a build.
const OF_THIS_PACKAGE: [&str; 5] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
];
