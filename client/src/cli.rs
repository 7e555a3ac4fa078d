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
        #[arg(default_value = DEFAULT_PROFILE)]
        profile: PathBuf,
    },
    /// Redeem the code of an invitation: makes a key on this device, and a profile with its certificate
    Enroll(Enroll),
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

/// An invitation to be redeemed.
#[derive(Debug, clap::Args)]
pub struct Enroll {
    /// The gateway, such as vpn.example.com or vpn.example.com:4433
    pub gateway: String,
    /// The code, as `adit-server invite` printed it
    pub code: String,
    /// Where to write the profile
    #[arg(long, default_value = DEFAULT_PROFILE)]
    pub profile: PathBuf,
    /// Replace a profile that is there already
    #[arg(long)]
    pub replace: bool,
    /// Bring the tunnel up at once
    #[arg(long)]
    pub up: bool,
}

/// The profile of a device that has one.
pub const DEFAULT_PROFILE: &str = "/etc/adit/client.toml";
/// The TUN device of a profile that names none.
pub const DEFAULT_INTERFACE: &str = "adit0";
