//! The command line of `adit-ca`: arguments, and which function answers them.

mod export;
mod failure;
mod init;
mod inventory;
mod invite;
mod issue;
mod renew;
mod request;
mod revoke;
mod sign;
mod terminal;
mod unlock;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use adit_pki::inventory::{Filter, Format};
use adit_pki::{Authority, Purpose, Reason};
use clap::{Args, Parser, Subcommand};

use failure::Failure;

/// The certificate authority of an Adit network
#[derive(Debug, Parser)]
#[command(name = "adit-ca", version)]
pub(crate) struct Cli {
    /// The authority's folder [default: $ADIT_CA_DIR, or /etc/adit/ca]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A file with the passphrase of the authority's key; without it, the systemd credential
    /// `adit-ca-passphrase`, then the terminal
    #[arg(long, global = true, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
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
    /// Make a new authority: a root, or an intermediate for online issuing
    Init(init::InitArgs),
    /// Issue a certificate with a new key
    Issue(IssueArgs),
    /// Make a key on this device, and a request for its certificate; needs no authority
    Request(request::RequestArgs),
    /// Sign a request: only its key is taken, and one that asks for more is refused
    Sign(sign::SignArgs),
    /// Issue the next certificate of somebody, with what the last one says
    Renew(renew::RenewArgs),
    /// Make a code that is good for one certificate
    Invite(invite::InviteArgs),
    /// List the codes that can still be used
    Invitations {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a code back
    Withdraw {
        /// Its number, from `invitations`
        number: i64,
    },
    /// Print a certificate with what it is sent with; never a key
    Export(export::ExportArgs),
    /// Encrypt the authority's key with a passphrase, change it, or remove it
    Passphrase(unlock::PassphraseArgs),
    /// Describe a certificate
    Show {
        /// A file with a certificate, a serial number, or a principal
        what: String,
    },
    /// List what was issued, oldest first
    List {
        /// Which of it
        #[command(flatten)]
        filter: Filter,
        /// How
        #[command(flatten)]
        format: Format,
    },
    /// Revoke a certificate, or everything of a principal, and write a new revocation list
    Revoke {
        /// A serial number, or a principal: its open codes are taken back, too
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
#[derive(Args, Clone, Debug)]
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
    /// What to call the device that gets the key
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    #[command(flatten)]
    delivery: Delivery,
}

/// Where a certificate and its key go.
#[derive(Args, Clone, Debug)]
struct Delivery {
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
    let desk = Desk {
        console: &console,
        folder: &folder,
        passphrase_file: cli.passphrase_file.as_deref(),
    };
    match &cli.command {
        Command::Init(args) => init::run(&desk, cli.dir.is_some(), args),
        Command::Issue(args) => issue::run(&desk, args),
        Command::Request(args) => request::run(&console, args),
        Command::Sign(args) => sign::run(&desk, args),
        Command::Renew(args) => renew::run(&desk, args),
        Command::Invite(args) => invite::invite(&desk, args),
        Command::Invitations { json } => invite::list(&desk, *json),
        Command::Withdraw { number } => invite::withdraw(&desk, *number),
        Command::Export(args) => export::run(&console, &folder, args),
        Command::Passphrase(args) => unlock::change(&desk, args),
        Command::Show { what } => inventory::show(&console, &folder, what),
        Command::List { filter, format } => inventory::list(&console, &folder, *format, filter),
        Command::Revoke { what, reason, days } => revoke::revoke(&desk, what, *reason, *days),
        Command::Crl { days } => revoke::crl(&desk, *days),
    }
}

/// What every command that needs the authority's key works with.
#[derive(Clone, Copy)]
struct Desk<'a> {
    console: &'a Console,
    folder: &'a Path,
    passphrase_file: Option<&'a Path>,
}

impl Desk<'_> {
    /// Opens the authority, and says what had to be put right.
    fn open(&self) -> Result<Authority, Failure> {
        let passphrase = unlock::existing(self)?;
        let authority = Authority::unlock(self.folder, passphrase.as_ref())?;
        self.console.repaired(authority.repairs());
        Ok(authority)
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

    /// What an interruption had left behind.
    fn repaired(&self, repairs: &[String]) {
        for repair in repairs {
            self.note(repair);
        }
    }

    /// What helps to follow along, to standard error.
    fn detail(&self, text: &str) {
        if self.verbose {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// Seconds in a day.
const DAY: i64 = 86_400;

/// Seconds of Unix time: the library has no clock.
fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
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
