//! The Adit gateway: assembly of the engine, the host shell and the admin plane.
//!
//! Nothing here judges a packet or a peer; that is `adit-core`'s. The packet threads ([`engines`])
//! run [`pipeline`], handshakes and policy run beside them in [`desk`]; everything else is the
//! [`control`] plane, which may wait.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accounting;
pub mod admin;
pub mod audit;
pub mod certificates;
pub mod cli;
pub mod config;
pub mod control;
pub mod conversations;
pub mod desk;
pub mod engines;
pub mod enrolment;
pub mod explain;
pub mod init;
pub mod invite;
pub mod issuing;
pub mod lease_store;
pub mod lists;
pub mod load;
pub mod network;
pub mod pipeline;
pub mod reload;
pub mod resigning;
pub mod run;
pub mod state;

use std::process::ExitCode;

use adit_net::exit::Failure;
use adit_net::log;

use cli::{Cli, Command};

/// Does what the command line says; the exit status is the answer of a question that has a yes and a no.
///
/// # Errors
/// A [`Failure`] with its sentence, hint and exit status.
pub fn execute(cli: Cli) -> Result<ExitCode, Failure> {
    log::init(cli.verbose);
    let done = match cli.command {
        Command::Init { dir, names, listen } => init::init(&dir, &names, listen),
        Command::Run { config, engines } => run::run(&config.config, engines),
        Command::Check(args) => check(&args.config),
        Command::Status { gateway, json } => admin::print_status(&gateway, json),
        Command::Certs {
            what,
            filter,
            format,
            check,
            gateway,
        } => {
            let listing = admin::certificates(&gateway, what.clone(), filter)?;
            return admin::print_certificates(&listing, what.as_deref(), format, check);
        }
        Command::Usage {
            gateway,
            rules,
            json,
        } => admin::print_usage(&gateway, rules, json),
        Command::Reload {
            gateway,
            dry_run,
            json,
        } => admin::print_reload(&gateway, dry_run, json),
        Command::Invite {
            invited,
            gateway,
            json,
        } => invite::invite(&gateway, &invited, json),
        Command::Invitations {
            withdraw,
            gateway,
            json,
        } => invite::invitations(&gateway, withdraw, json),
        Command::Explain {
            asked,
            gateway,
            json,
        } => return admin::print_explanation(&gateway, &asked, json),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Reads everything and touches nothing.
#[allow(clippy::print_stdout)]
fn check(path: &std::path::Path) -> Result<(), Failure> {
    let loaded = load::load(path)?;
    for warning in &loaded.warnings {
        println!("warning: {warning}");
    }
    for warning in lists::warnings(&loaded.authorities, adit_net::clock::unix_seconds()) {
        println!("warning: {warning}");
    }
    for warning in certificates::warnings(&loaded, adit_net::clock::unix_seconds()) {
        println!("warning: {}", warning.text);
    }
    let names: Vec<&str> = loaded
        .config
        .authorities
        .iter()
        .map(|authority| authority.rule.name.as_str())
        .collect();
    let routed = loaded.policy.routed_prefixes();
    println!("{}: ok", path.display());
    println!(
        "{}: {}",
        loaded.config.policy.display(),
        loaded.policy.summary()
    );
    match loaded.policy.test_count() {
        0 => println!("the policy has no tests"),
        1 => println!("the test of the policy passes"),
        count => println!("all {count} tests of the policy pass"),
    }
    println!("clients are vouched for by {}", names.join(", "));
    for line in lists::facts(&loaded.authorities) {
        println!("{line}");
    }
    println!(
        "{} leads to {}",
        loaded.config.inside.interface,
        if routed.is_empty() {
            "nobody".to_owned()
        } else {
            let routed: Vec<String> = routed.iter().map(ToString::to_string).collect();
            routed.join(", ")
        }
    );
    Ok(())
}
