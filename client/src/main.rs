//! `adit`, the client: parse, do, report, exit.

use std::process::ExitCode;

use adit_client::cli::Cli;
use clap::Parser as _;

fn main() -> ExitCode {
    match adit_client::execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
