//! `adit-ca`: issues the certificates of an Adit network and remembers them.
//!
//! Runs wherever the authority's folder is; the gateway needs `ca.pem` of it and nothing else.
//! Exit codes: 0 done, 1 the answer is no, 2 the input is wrong, 3 the environment refused.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli::run(&cli) {
        Ok(answer) => answer.into(),
        Err(failure) => failure.report(),
    }
}
