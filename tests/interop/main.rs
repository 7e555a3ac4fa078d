//! A foreign client against the real gateway: aioquic in Python, well-behaved and hostile.
//!
//! ```text
//! laptop 0: adit, pinging the office all the time ─┐
//! laptop 1: Python, doing what it should not ──────┴── gateway ── office, watched for forbidden packets
//! ```
//!
//! All trials share one gateway, one well-behaved session and one watch over the office, and run one
//! after the other; the last trials say what the well-behaved session and the office saw of it all.
//! Every hostile case is a trial of its own and prints its verdict:
//! `cargo test -p adit-tests --test interop -- wrong_ca`.

mod bystander;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use adit_tests::lab::{self, enter::tun_obstacle, missing, trial};
use adit_tests::programs::{self, Programs};
use anyhow::{Context, Result, bail};
use libtest_mimic::Arguments;

use bystander::Bystander;

/// Made by the first trial that needs it.
type Shared = Arc<Mutex<Option<Bystander>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One world for all, and no trial may hide another's doing.
    arguments.test_threads = Some(1);
    let prepared = python().and_then(|python| {
        let cases = list(&python)?;
        let programs = programs::build()?;
        lab::enter()?;
        tun_obstacle().map_or(Ok((python, cases, programs)), |reason| bail!(reason))
    });
    let (python, cases, programs) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let trials = vec![missing("interop", &format!("{error:#}"))];
            return libtest_mimic::run(&arguments, trials).exit_code();
        }
    };

    let shared = Shared::default();
    let mut trials = Vec::new();
    let mut add = |name: &str, test: fn(&mut Bystander, &str) -> Result<()>| {
        let (shared, programs, python, case) = (
            Arc::clone(&shared),
            programs.clone(),
            python.clone(),
            name.to_owned(),
        );
        trials.push(trial(name, move || {
            with(&shared, &programs, &python, |world| test(world, &case))
        }));
    };
    add(
        "a_foreign_client_reaches_the_office_in_both_families",
        |world, _| world.good(),
    );
    add(
        "a_foreign_client_that_stays_is_told_and_closed_at_the_session_maximum",
        |world, _| world.stays(),
    );
    for case in cases.iter().filter(|case| !case.ends_with(INVITED)) {
        add(case, |world, case| world.hostile(case));
    }
    for kind in ["online", "client", "stranger"] {
        add(&format!("an_impostor_gateway_{kind}"), |world, trial| {
            world.impostor(trial.trim_start_matches("an_impostor_gateway_"))
        });
    }
    // The gateway issues certificates from here on.
    for case in cases.iter().filter_map(|case| case.strip_suffix(INVITED)) {
        add(case, |world, case| world.invited(case));
    }
    add(
        "the_session_beside_them_lost_not_a_single_packet",
        |world, _| world.lost_nothing(),
    );
    add("nothing_forbidden_reached_the_office", |world, _| {
        world.office_is_clean()
    });
    add(
        "the_gateway_counted_every_packet_and_kept_no_session",
        |world, _| world.balance(),
    );
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

fn with(
    shared: &Shared,
    programs: &Programs,
    python: &Path,
    test: impl FnOnce(&mut Bystander) -> Result<()>,
) -> Result<()> {
    let mut world = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if world.is_none() {
        *world = Some(Bystander::new(programs, python)?);
    }
    test(world.as_mut().context("the world was just made")?)
}

/// Where the Python side is.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop")
}

/// Installs aioquic once, beside the build's other products, and gives the interpreter.
fn python() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let target = this.ancestors().nth(3).context("no target directory")?;
    let output = Command::new("bash")
        .arg(scripts().join("setup.sh"))
        .arg(target.join("interop-python"))
        .stderr(Stdio::piped())
        .output()
        .context("no bash to run tests/interop/setup.sh")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "aioquic cannot be installed: {}",
            stderr.lines().last().unwrap_or("no reason given")
        );
    }
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

fn list(python: &Path) -> Result<Vec<String>> {
    let output = script(python, "hostile.py").arg("--list").output()?;
    if !output.status.success() {
        bail!(
            "hostile.py --list: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .map(str::to_owned)
        .collect())
}

/// What a case is marked with that needs a code.
const INVITED: &str = " invited";

/// One of our Python programs.
fn script(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command
        .arg(scripts().join(name))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
