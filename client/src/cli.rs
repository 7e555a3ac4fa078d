//! The command line of `adit`: clap types only.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The Adit client: an office network behind one certificate.
#[derive(Debug, Parser)]
#[command(name = "adit", version)]
pub struct Cli {
    /// Say more; twice for details
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What `adit` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring the tunnel up and keep it up until interrupted
    Up {
        /// The profile: one file with gateway, certificate and key
        profile: PathBuf,
    },
    /// Show the state of the tunnel
    Status {
        /// Which tunnel, by its TUN device
        #[arg(long, default_value = DEFAULT_INTERFACE)]
        interface: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take the tunnel down and wait until the host is as before
    Down {
        /// Which tunnel, by its TUN device
        #[arg(long, default_value = DEFAULT_INTERFACE)]
        interface: String,
    },
}

/// The TUN device of a profile that names none.
pub const DEFAULT_INTERFACE: &str = "adit0";
