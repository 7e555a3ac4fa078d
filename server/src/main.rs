//! `adit-server`, the gateway: parse, do, report, exit.

use std::process::ExitCode;

use adit_server::cli::Cli;
use clap::Parser as _;

fn main() -> ExitCode {
    match adit_server::execute(Cli::parse()) {
        Ok(status) => status,
        Err(failure) => failure.report(),
    }
}
