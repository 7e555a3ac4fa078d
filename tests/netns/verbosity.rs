//! What the programs say when asked to say more, and what they never say.

use std::fs;
use std::process::Command;
use std::time::Duration;

use adit_tests::lab::internet::{Internet, Layout};
use adit_tests::lab::{Namespace, until};
use adit_tests::programs::{Programs, Setup};
use anyhow::{Context, Result, ensure};

pub(crate) fn verbosity_is_obeyed_and_no_secret_is_told(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let gateway_key = setup.gateway_directory().join("gateway.key");
    let secrets = [
        secret_lines(&fs::read_to_string(&profile)?),
        secret_lines(&fs::read_to_string(gateway_key)?),
    ]
    .concat();
    ensure!(secrets.len() >= 2, "no key found to look for");

    for (flags, rust_log, says, hides) in [
        (&["-v", "-v"][..], None, &["INFO", "DEBUG"][..], &[][..]),
        (&[], Some("trace"), &["INFO", "DEBUG"], &[]),
        (&[], None, &["INFO"], &["DEBUG"]),
        (&["-v"], Some("error"), &[], &["INFO", "DEBUG"]),
    ] {
        let mut run = Command::new(&programs.server);
        run.args(flags)
            .args(["run", "--config"])
            .arg(setup.server_toml());
        let mut up = Command::new(&programs.adit);
        up.args(flags).arg("up").arg(&profile);
        for command in [&mut run, &mut up] {
            command.env_remove("RUST_LOG");
            if let Some(level) = rust_log {
                command.env("RUST_LOG", level);
            }
            command.env("ADIT_RUN_DIR", setup.path("run"));
            command.env("ADIT_STATE_DIR", setup.path("client-state"));
        }
        let server = internet.gateway.spawn(run)?;
        let client = internet.laptop().spawn(up)?;
        let connected = until(Duration::from_secs(20), || {
            Ok(is_up(&setup, programs, internet.laptop())?.then_some(()))
        });
        client.terminate()?;
        server.terminate()?;
        let told = [
            client.wait(Duration::from_secs(15))?.stderr,
            server.wait(Duration::from_secs(15))?.stderr,
        ];
        connected.with_context(|| told.concat())?;
        for text in &told {
            for word in says {
                ensure!(
                    text.contains(word),
                    "{flags:?} {rust_log:?}: no {word} in\n{text}"
                );
            }
            for word in hides {
                ensure!(
                    !text.contains(word),
                    "{flags:?} {rust_log:?}: {word} in\n{text}"
                );
            }
            for secret in &secrets {
                ensure!(!text.contains(secret.as_str()), "a private key in the log");
            }
        }
    }
    Ok(())
}

fn is_up(setup: &Setup, programs: &Programs, laptop: &Namespace) -> Result<bool> {
    let mut status = Command::new(&programs.adit);
    status.arg("status").env("ADIT_RUN_DIR", setup.path("run"));
    Ok(laptop.spawn(status)?.wait(Duration::from_secs(10))?.code == Some(0))
}

/// The lines of private keys in PEM, each long enough to be unmistakable.
fn secret_lines(text: &str) -> Vec<String> {
    text.split("PRIVATE KEY-----")
        .skip(1)
        .step_by(2)
        .flat_map(str::lines)
        .filter(|line| line.len() >= 40 && !line.contains('-'))
        .map(str::to_owned)
        .collect()
}
