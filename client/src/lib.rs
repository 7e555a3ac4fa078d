//! The Adit client: assembly of the engine, the host shell and a little control plane.
//!
//! Nothing here judges a packet; that is `adit-core`'s. The packet thread runs [`pipeline`];
//! everything else is the control plane, which may wait.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cli;
pub mod control;
pub mod enroll;
pub mod network;
pub mod pair;
pub mod pipeline;
pub mod profile;
pub mod renewal;
pub mod resolve;
pub mod successor;
pub mod up;

use adit_net::exit::Failure;
use adit_net::log;

use cli::{Cli, Command};

/// Does what the command line says.
///
/// # Errors
/// A [`Failure`] with its sentence, hint and exit status.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    log::init(cli.verbose);
    match cli.command {
        Command::Up { profile } => up::up(&profile),
        Command::Enroll(asked) => {
            enroll::enroll(&asked)?;
            if asked.up {
                up::up(&asked.profile)?;
            }
            Ok(())
        }
        Command::Status { interface, json } => control::print_status(&interface, json),
        Command::Down { interface } => control::down(&interface),
    }
}
