//! The command line of `adit-ca`: arguments, and which function answers them.

mod failure;
mod inventory;
mod issue;
mod revoke;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use adit_pki::{Authority, AuthorityParams, Purpose, Reason, store};
use clap::{Args, Parser, Subcommand};

use failure::Failure;

/// The certificate authority of an Adit network
#[derive(Debug, Parser)]
#[command(name = "adit-ca", version)]
pub(crate) struct Cli {
    /// The authority's folder [default: $ADIT_CA_DIR, or /etc/adit/ca]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Say what is done
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// What to do
    #[command(subcommand)]
    command: Command,
}

/// What `adit-ca` can do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new authority
    Init {
        /// The organisation, shown in every certificate
        #[arg(long, default_value = "Private Network", value_name = "NAME")]
        name: String,
    },
    /// Issue a certificate with a new key
    Issue(IssueArgs),
    /// Describe a certificate
    Show {
        /// A file with a certificate, a serial number, or a principal
        what: String,
    },
    /// List what was issued, oldest first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Only what was revoked
        #[arg(long)]
        revoked: bool,
        /// Only what is valid and ends within so many days
        #[arg(long, value_name = "DAYS", conflicts_with = "revoked")]
        expiring: Option<u32>,
    },
    /// Revoke a certificate, or every valid one of a principal, and write a new revocation list
    Revoke {
        /// A serial number, or a principal
        what: String,
        /// Why: unspecified, keyCompromise, cACompromise, affiliationChanged, superseded,
        /// cessationOfOperation or privilegeWithdrawn
        #[arg(long, default_value = "unspecified", value_name = "REASON", value_parser = reason)]
        reason: Reason,
        /// Days until the next list is due
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=365))]
        days: u32,
    },
    /// Write a new revocation list, before the old one is too old
    Crl {
        /// Days until the next list is due
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=365))]
        days: u32,
    },
}

/// The arguments of `issue`.
#[derive(Args, Debug)]
struct IssueArgs {
    /// Whom the certificate is for: user@example.com, host.example.com or spiffe://example.com/name
    principal: String,
    /// Which end of the tunnel it is for
    #[arg(long, default_value = "client", value_name = "client|gateway", value_parser = purpose)]
    purpose: Purpose,
    /// A group of the client (repeatable)
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Days until the certificate ends
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// A name or address of the gateway besides the principal (repeatable)
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Where the client connects (repeatable); default: the one gateway of the index
    #[arg(long = "gateway", value_name = "HOST[:PORT]")]
    gateways: Vec<String>,
    /// The name in the gateway's certificate, if it is not the host of the first gateway
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Where to write [default: PRINCIPAL.toml, for a gateway PRINCIPAL.pem and PRINCIPAL.key]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

/// How the question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, or yes.
    Yes,
    /// There is no such thing.
    No,
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Yes => Self::SUCCESS,
            Answer::No => Self::from(1),
        }
    }
}

/// Does what the command line asks for.
pub(crate) fn run(cli: &Cli) -> Result<Answer, Failure> {
    let console = Console {
        verbose: cli.verbose > 0,
    };
    let folder = cli.dir.clone().unwrap_or_else(default_folder);
    match &cli.command {
        Command::Init { name } => {
            let authority = Authority::create(&folder, &AuthorityParams::new(name.as_str()))?;
            authority
                .repairs()
                .iter()
                .for_each(|repair| console.note(repair));
            console.detail(&format!(
                "made the authority `{name}`, valid until {}; its key is {}",
                adit_pki::description::date(authority.not_after()),
                folder.join(store::KEY).display(),
            ));
            console.data(&format!("{}\n", folder.join(store::CERTIFICATE).display()))?;
            Ok(Answer::Yes)
        }
        Command::Issue(args) => issue::run(&console, &folder, args),
        Command::Show { what } => inventory::show(&console, &folder, what),
        Command::List {
            json,
            revoked,
            expiring,
        } => {
            let filter = inventory::Filter {
                revoked: *revoked,
                expiring: *expiring,
            };
            inventory::list(&console, &folder, *json, &filter)
        }
        Command::Revoke { what, reason, days } => {
            revoke::revoke(&console, &folder, what, *reason, *days)
        }
        Command::Crl { days } => revoke::crl(&console, &folder, *days),
    }
}

/// The two places where output goes.
struct Console {
    verbose: bool,
}

impl Console {
    /// What was asked for, to standard output.
    fn data(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            // The reader has seen enough, as in `adit-ca list | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| Failure::environment(error, "cannot write the output")),
        }
    }

    /// What a user should know unasked, to standard error.
    fn note(&self, text: &str) {
        // Nobody is left to be told if this fails.
        let _ = writeln!(io::stderr(), "note: {text}");
    }

    /// What helps to follow along, to standard error.
    fn detail(&self, text: &str) {
        if self.verbose {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

fn default_folder() -> PathBuf {
    std::env::var_os("ADIT_CA_DIR")
        .filter(|folder| !folder.is_empty())
        .map_or_else(|| PathBuf::from("/etc/adit/ca"), PathBuf::from)
}

fn purpose(text: &str) -> Result<Purpose, &'static str> {
    match text.parse() {
        Ok(purpose @ (Purpose::Client | Purpose::Gateway)) => Ok(purpose),
        _ => Err("the purpose is `client` or `gateway`"),
    }
}

fn reason(text: &str) -> Result<Reason, String> {
    text.parse().map_err(|()| {
        let names = Reason::ALL.map(Reason::name);
        format!("the reason is one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
