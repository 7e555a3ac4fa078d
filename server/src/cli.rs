//! The command line of `adit-server`: clap types only.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use adit_core::period::Period;
use adit_pki::inventory::{Filter, Format};
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
    Run {
        /// Which gateway
        #[command(flatten)]
        config: ConfigArgs,
        /// How many threads carry packets; 0: as many as there are cores, at most 8, and one on a machine with
        /// one or two
        ///
        /// Each has sessions of its own; one session is never divided.
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=MOST_ENGINES))]
        engines: u8,
    },
    /// Say exactly what is wrong with the configuration, or that nothing is; changes nothing
    Check(ConfigArgs),
    /// Make the running gateway read its configuration again; a wrong file changes nothing
    Reload {
        /// Which gateway
        #[command(flatten)]
        gateway: GatewayArgs,
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
        gateway: GatewayArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List certificates: whose, on which device, used when and from where, for what, until when
    ///
    /// All that clients have shown, whoever issued them, and all that the authorities issued whose folders
    /// are here. The running gateway answers; without one the files do.
    #[command(after_help = CERTS_STATUS)]
    Certs {
        /// Show one in full: a serial number or a fingerprint, or all of a principal
        what: Option<String>,
        /// Which of them
        #[command(flatten)]
        filter: Filter,
        /// How
        #[command(flatten)]
        format: Format,
        /// Exit with status 1 if there is one: for monitoring, with --expiring for example
        #[arg(long)]
        check: bool,
        /// Which gateway
        #[command(flatten)]
        gateway: GatewayArgs,
    },
    /// Give somebody a one-time code that `adit enroll` turns into a certificate and a profile
    Invite {
        /// Who, and to what
        #[command(flatten)]
        invited: Invited,
        /// Which gateway
        #[command(flatten)]
        gateway: GatewayArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the codes that are not used, or take one back
    Invitations {
        /// The number of one to take back, as the list shows it
        #[arg(long, value_name = "NUMBER")]
        withdraw: Option<i64>,
        /// Which gateway
        #[command(flatten)]
        gateway: GatewayArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what each principal has used, over all its sessions
    Usage {
        /// Which gateway
        #[command(flatten)]
        gateway: GatewayArgs,
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
        gateway: GatewayArgs,
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

/// Somebody who is to have a certificate.
#[derive(Clone, Debug, clap::Args, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Invited {
    /// Whose certificate it will be, such as user@example.com
    pub principal: String,
    /// A group of the certificate (repeatable)
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// How long the code is good, such as 3d, 12h or 90m
    #[arg(long, value_name = "TIME", default_value = "3d", value_parser = duration)]
    pub expires: Duration,
    /// How long the certificate is good; it renews itself at two thirds of it
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = duration)]
    pub validity: Duration,
}

/// A number with its unit: weeks, days, hours, minutes or seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let period = Period::parse(text).map(Duration::from);
    period.ok_or_else(|| format!("{text:?} is not a time such as 3d, 12h or 90m"))
}

/// Where the configuration is.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file
    #[arg(long, default_value = "/etc/adit/server.toml")]
    pub config: PathBuf,
}

/// Which running gateway.
#[derive(Clone, Debug, clap::Args)]
pub struct GatewayArgs {
    /// Which configuration
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where the gateway answers, whatever its configuration says by now
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Each engine has a socket with its buffers: what is larger is a typing error.
const MOST_ENGINES: i64 = 64;

const CERTS_STATUS: &str = "Exit status: 0 done, 1 there is none of that name, or with --check there is one, \
    2 the configuration is wrong, 3 the gateway cannot be asked.";
const EXPLAIN_STATUS: &str = "Exit status: 0 allowed, 1 denied, 2 the question or the configuration is wrong, \
    3 the gateway cannot be asked.";

#[cfg(test)]
mod tests {
    use super::*;

    fn engines(arguments: &[&str]) -> Result<u8, String> {
        let line = ["adit-server", "run"].iter().chain(arguments);
        match Cli::try_parse_from(line)
            .map_err(|error| error.to_string())?
            .command
        {
            Command::Run { engines, .. } => Ok(engines),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_number_of_engines_is_between_0_and_64_and_0_when_it_is_not_given() {
        assert_eq!(engines(&[]), Ok(0));
        assert_eq!(engines(&["--engines", "64"]), Ok(64));
        let error = engines(&["--engines", "65"]).unwrap_err();
        assert!(error.contains("65 is not in 0..=64"), "{error}");
    }

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        assert_eq!(duration("3d"), Ok(Duration::from_secs(3 * 86_400)));
        assert_eq!(duration("90m"), Ok(Duration::from_secs(5400)));
        assert!(duration("3").is_err());
    }
}
