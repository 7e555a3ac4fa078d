//! The command line of `adit-server`: clap types only.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The Adit gateway: certificates instead of passwords, CONNECT-IP over HTTP/3.
#[derive(Debug, Parser)]
#[command(name = "adit-server", version)]
pub struct Cli {
    /// Say more; twice for details of every session
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What `adit-server` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a certificate authority, a gateway certificate, server.toml and policy.toml
    Init {
        /// The directory to make
        #[arg(long, default_value = "/etc/adit")]
        dir: PathBuf,
        /// The name or address clients connect to; goes into the certificate (repeatable)
        #[arg(long = "name", required = true)]
        names: Vec<String>,
        /// Where the gateway listens
        #[arg(long, default_value = "[::]:443")]
        listen: SocketAddr,
    },
    /// Run the gateway until it is told to stop
    Run(ConfigArgs),
    /// Say exactly what is wrong with the configuration, or that nothing is; changes nothing
    Check(ConfigArgs),
    /// Make the running gateway read its configuration again; a wrong file changes nothing
    Reload {
        /// Which gateway
        #[command(flatten)]
        config: ConfigArgs,
        /// Say what would become of the sessions, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what each principal has used, over all its sessions
    Usage {
        /// Which gateway
        #[command(flatten)]
        config: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the sessions of the running gateway
    Status {
        /// Which gateway
        #[command(flatten)]
        config: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where the configuration is.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file
    #[arg(long, default_value = "/etc/adit/server.toml")]
    pub config: PathBuf,
}
