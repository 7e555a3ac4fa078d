//! The admin plane: one Unix socket, one line of JSON each way.
//!
//! | question | answer |
//! | --- | --- |
//! | `{"ask":"status"}` | a `GatewayStatus` |
//! | `{"ask":"usage"}` | a `Usage` |
//! | `{"ask":"certs","what":null,"filter":{…}}` | a `Listing`, or the `Failure` with its hint |
//! | `{"ask":"explain", …}`, with the fields of [`Asked`] | an `Answer`, or the `Failure` with its hint |
//! | `{"ask":"reload","dry_run":false}` | a `Report`, or the `Failure` with its hint |
//! | `{"ask":"invite", …}`, with the fields of [`Invited`] | an `Answer` with the code, or the `Failure` |
//! | `{"ask":"invitations"}` | a list of `Pending`, or the `Failure` |
//! | `{"ask":"withdraw","number":7}` | the `Pending` that was taken back, or the `Failure` |
//!
//! Who may ask is the socket's business: the gateway's own user and root.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use adit_core::status::{self, GatewayStatus, RuleUsage, Usage};
use adit_net::clock;
use adit_net::control_socket::{self, ControlError};
use adit_net::exit::Failure;
use adit_pki::inventory::{Filter, Format};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::certificates::{self, Listing};
use crate::cli::{Asked, GatewayArgs, Invited};
use crate::config::ServerConfig;
use crate::control::Control;
use crate::conversations::{Conversation, Message};
use crate::explain::{self, Answer};
use crate::load;
use crate::reload::Report;

/// What can be asked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Everything `adit-server status` shows.
    Status {},
    /// Everything `adit-server usage` shows.
    Usage {},
    /// Which certificates there are.
    Certs {
        /// A principal, a serial number or a fingerprint.
        what: Option<String>,
        /// Which of them.
        filter: Filter,
    },
    /// Why a flow may be, or may not.
    Explain(Asked),
    /// Give somebody a code.
    Invite(Invited),
    /// The codes that may still be redeemed.
    Invitations {},
    /// Take a code back.
    Withdraw {
        /// Its number.
        number: i64,
    },
    /// Read the configuration again.
    Reload {
        /// Only say what would happen.
        dry_run: bool,
    },
}

/// Says to somebody what they wait for, or has it made where nothing else waits.
pub async fn answer(message: Message, conversation: Conversation, control: &mut Control<'_>) {
    let request = match message {
        Message::Asked(request) => request,
        Message::Invited(outcome) => return control.invited(outcome, conversation),
        Message::Withdrawn(outcome) => return control.withdrawn(outcome, conversation),
    };
    match request {
        Request::Status {} => conversation.answer(control.status().await),
        Request::Usage {} => conversation.answer(control.usage().await),
        Request::Certs { what, filter } => {
            let now = clock::unix_seconds();
            let question = control.certificates.question(&control.loaded, now);
            conversation.answer_at_length(move || question?.answer(what.as_deref(), &filter));
        }
        Request::Explain(asked) => conversation.answer(control.explain(&asked).await),
        Request::Invite(invited) => control.invite(invited, conversation),
        Request::Invitations {} => control.invitations(conversation),
        Request::Withdraw { number } => control.withdraw(number, conversation),
        Request::Reload { dry_run: true } => conversation.answer(control.rehearse().await),
        Request::Reload { dry_run: false } => conversation.answer(control.reload("admin").await),
    }
}

/// `adit-server status`: asks the running gateway and prints the answer.
///
/// # Errors
/// When no gateway answers.
pub fn print_status(gateway: &GatewayArgs, json: bool) -> Result<(), Failure> {
    let status: Option<GatewayStatus> = ask(gateway, &Request::Status {})?;
    let status = status.ok_or_else(stopping)?;
    print(json, &status, status::render_gateway)
}

/// `adit-server usage`: asks the running gateway and prints the answer, by principal or by rule.
///
/// # Errors
/// When no gateway answers.
pub fn print_usage(gateway: &GatewayArgs, by_rule: bool, json: bool) -> Result<(), Failure> {
    let usage: Option<Usage> = ask(gateway, &Request::Usage {})?;
    let usage = usage.ok_or_else(stopping)?;
    if by_rule {
        let rules: Vec<RuleUsage> = usage.by_rule();
        return print(json, &rules, |rules| status::render_rules(rules));
    }
    print(json, &usage, |usage| usage.render(clock::unix_seconds()))
}

/// `adit-server reload`: asks the running gateway and prints what became of its sessions, or would.
///
/// # Errors
/// When no gateway answers, or it refuses and nothing has changed.
pub fn print_reload(gateway: &GatewayArgs, dry_run: bool, json: bool) -> Result<(), Failure> {
    let answer: Result<Report, Failure> = ask(gateway, &Request::Reload { dry_run })?;
    print(json, &answer?, Report::render)
}

/// `adit-server explain`: asks the running gateway, or the files where none runs, and prints the answer;
/// the exit status says whether the flow is allowed.
///
/// # Errors
/// When the question is wrong, or nobody can answer it.
pub fn print_explanation(
    gateway: &GatewayArgs,
    asked: &Asked,
    json: bool,
) -> Result<ExitCode, Failure> {
    let request = Request::Explain(asked.clone());
    let from_files = |config| explain::from_files(&config, asked);
    let answer = ask_or(gateway, &request, from_files)?;
    print(json, &answer, Answer::render)?;
    Ok(ExitCode::from(u8::from(!answer.is_allowed())))
}

/// Asks the running gateway for certificates, or the files where none runs.
///
/// # Errors
/// When nobody can answer.
pub fn certificates(
    gateway: &GatewayArgs,
    what: Option<String>,
    filter: Filter,
) -> Result<Listing, Failure> {
    let request = Request::Certs {
        what: what.clone(),
        filter: filter.clone(),
    };
    let from_files = |config| certificates::from_files(config, what.as_deref(), &filter);
    ask_or(gateway, &request, from_files)
}

/// `adit-server certs`: prints the answer; the exit status says whether there is a certificate of that name,
/// or with `check` whether there is none.
///
/// # Errors
/// When there is none of that name.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub fn print_certificates(
    listing: &Listing,
    what: Option<&str>,
    format: Format,
    check: bool,
) -> Result<ExitCode, Failure> {
    let Listing { rows, now, notes } = listing;
    for note in notes {
        eprintln!("note: {note}");
    }
    match what {
        Some(what) if rows.is_empty() && !check => {
            let error = format!("there is no certificate of {what:?} here");
            let hint = "`adit-server certs` lists all: by principal, or by serial number";
            return Err(Failure::no(error).with_hint(Some(hint)));
        }
        Some(_) if format == Format::default() => {
            let texts: Vec<String> = rows.iter().map(|row| row.describe(*now)).collect();
            print!("{}", texts.join("\n"));
        }
        _ => print!("{}", format.render(rows, *now)),
    }
    Ok(ExitCode::from(u8::from(check && !rows.is_empty())))
}

/// Asks the running gateway, or the files where none runs and none was named by its socket.
///
/// # Errors
/// When nobody can answer. Exit status 1 is an answer; that nobody answers is another matter.
pub(crate) fn ask_or<A: DeserializeOwned>(
    gateway: &GatewayArgs,
    request: &Request,
    from_files: impl FnOnce(ServerConfig) -> Result<A, Failure>,
) -> Result<A, Failure> {
    match control_socket::ask_patiently(&socket(gateway)?, request, PATIENCE) {
        Ok(answer) => answer,
        Err(ControlError::NotRunning { .. }) if gateway.socket.is_none() => {
            from_files(load::config(&gateway.config.config)?)
        }
        Err(error) => Err(Failure::environment(&error).with_hint(error.hint())),
    }
}

fn ask<A: DeserializeOwned>(gateway: &GatewayArgs, request: &Request) -> Result<A, Failure> {
    let path = socket(gateway)?;
    control_socket::ask(&path, request).map_err(|error| {
        let hint = match (&error, request) {
            (ControlError::NotRunning { .. }, Request::Reload { .. })
                if gateway.socket.is_none() =>
            {
                Some(OLD_SOCKET)
            }
            _ => error.hint(),
        };
        let path = path.display();
        Failure::no(format!("no gateway answers at {path}: {error}")).with_hint(hint)
    })
}

/// Where the gateway answers.
fn socket(gateway: &GatewayArgs) -> Result<PathBuf, Failure> {
    match &gateway.socket {
        Some(path) => Ok(path.clone()),
        None => Ok(load::config(&gateway.config.config)?.admin_socket),
    }
}

/// Prints an answer for scripts or for people.
#[allow(clippy::print_stdout)]
pub(crate) fn print<T: Serialize>(
    json: bool,
    answer: &T,
    render: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    if json {
        let json =
            serde_json::to_string_pretty(answer).map_err(|error| Failure::environment(&error))?;
        println!("{json}");
    } else {
        print!("{}", render(answer));
    }
    Ok(())
}

fn stopping() -> Failure {
    Failure::no("the gateway is stopping")
}

/// For a list that is made while everything else goes first, behind the others that wait for one, and for an operator
/// at work in the authority's folder.
const PATIENCE: Duration = Duration::from_secs(60);
/// The file names the new socket before anybody has told the gateway.
const OLD_SOCKET: &str = "start it first; where admin_socket is what has changed, the gateway still answers at the \
    old one: `adit-server reload --socket OLD`";
