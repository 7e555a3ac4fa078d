//! The command line of `adit-server`: clap types only.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};

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
    /// Say whether somebody may reach something, by which rule, and what is there of it now
    ///
    /// The running gateway answers: by its policy, and by the certificate of the session if one is open.
    /// Without a gateway the files answer.
    #[command(after_help = EXPLAIN_STATUS)]
    Explain {
        /// The question
        #[command(flatten)]
        asked: Asked,
        /// Which gateway
        #[command(flatten)]
        config: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what each principal has used, over all its sessions
    Usage {
        /// Which gateway
        #[command(flatten)]
        config: ConfigArgs,
        /// Show what each rule of the policy has let pass instead
        #[arg(long)]
        rules: bool,
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

/// A question about one flow.
#[derive(Clone, Debug, clap::Args, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Whose flow, such as user@example.com
    pub principal: String,
    /// The far end, such as 10.1.2.3
    pub address: IpAddr,
    /// The protocol and the port that the first packet is sent to: tcp/5432, icmp, proto/47
    #[arg(value_name = "PROTO[/PORT]")]
    pub service: String,
    /// The far end starts the flow, towards the client
    #[arg(long)]
    pub from: bool,
    /// When, in local time of the policy, such as 2026-12-31T18:00:00; without it, now
    #[arg(long, value_name = "DATE-TIME")]
    pub at: Option<String>,
    /// A group of the certificate (repeatable); without it, those of the open session
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// The authority of the certificate; without it, that of the open session
    #[arg(long)]
    pub authority: Option<String>,
}

/// Where the configuration is.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file
    #[arg(long, default_value = "/etc/adit/server.toml")]
    pub config: PathBuf,
}

const EXPLAIN_STATUS: &str = "Exit status: 0 allowed, 1 denied, 2 the question or the configuration is wrong, \
    3 the gateway cannot be asked.";
