//! The admin plane: one Unix socket, one line of JSON each way.
//!
//! | question | answer |
//! | --- | --- |
//! | `{"ask":"status"}` | a `GatewayStatus` |
//! | `{"ask":"usage"}` | a `Usage` |
//! | `{"ask":"explain", …}`, with the fields of [`Asked`] | an `Answer`, or the `Failure` with its hint |
//! | `{"ask":"reload","dry_run":false}` | a `Report`, or the `Failure` with its hint |
//!
//! Who may ask is the socket's business: the gateway's own user and root.

use std::path::Path;
use std::process::ExitCode;

use adit_core::status::{self, GatewayStatus, RuleUsage, Usage};
use adit_net::clock;
use adit_net::control_socket::{self, Connection, ControlError};
use adit_net::exit::Failure;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::cli::Asked;
use crate::control::Control;
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
    /// Why a flow may be, or may not.
    Explain(Asked),
    /// Read the configuration again.
    Reload {
        /// Only say what would happen.
        dry_run: bool,
    },
}

/// Answers one request on one connection.
pub async fn answer(mut connection: Connection, control: &mut Control<'_>) {
    let answered = async {
        match connection.receive().await? {
            Request::Status {} => connection.send(&control.status().await).await,
            Request::Usage {} => connection.send(&control.usage().await).await,
            Request::Explain(asked) => connection.send(&control.explain(&asked).await).await,
            Request::Reload { dry_run: true } => connection.send(&control.rehearse().await).await,
            Request::Reload { dry_run: false } => {
                connection.send(&control.reload("admin").await).await
            }
        }
    };
    if let Err(error) = answered.await {
        debug!(%error, "an admin request was not answered");
    }
}

/// `adit-server status`: asks the running gateway and prints the answer.
///
/// # Errors
/// When no gateway answers.
pub fn print_status(config: &Path, json: bool) -> Result<(), Failure> {
    let status: Option<GatewayStatus> = ask(config, &Request::Status {})?;
    let status = status.ok_or_else(stopping)?;
    print(json, &status, status::render_gateway)
}

/// `adit-server usage`: asks the running gateway and prints the answer, by principal or by rule.
///
/// # Errors
/// When no gateway answers.
pub fn print_usage(config: &Path, by_rule: bool, json: bool) -> Result<(), Failure> {
    let usage: Option<Usage> = ask(config, &Request::Usage {})?;
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
pub fn print_reload(config: &Path, dry_run: bool, json: bool) -> Result<(), Failure> {
    let answer: Result<Report, Failure> = ask(config, &Request::Reload { dry_run })?;
    print(json, &answer?, Report::render)
}

/// `adit-server explain`: asks the running gateway, or the files where none runs, and prints the answer;
/// the exit status says whether the flow is allowed.
///
/// # Errors
/// When the question is wrong, or nobody can answer it.
pub fn print_explanation(config: &Path, asked: &Asked, json: bool) -> Result<ExitCode, Failure> {
    let config = load::config(config)?;
    let request = Request::Explain(asked.clone());
    let answer: Result<Answer, Failure> = match control_socket::ask(&config.admin_socket, &request)
    {
        Ok(answer) => answer,
        Err(ControlError::NotRunning { .. }) => explain::from_files(&config, asked),
        // Exit status 1 would mean that the flow is denied.
        Err(error) => Err(Failure::environment(&error).with_hint(error.hint())),
    };
    let answer = answer?;
    print(json, &answer, Answer::render)?;
    Ok(ExitCode::from(u8::from(!answer.is_allowed())))
}

fn ask<A: DeserializeOwned>(config: &Path, request: &Request) -> Result<A, Failure> {
    let config = load::config(config)?;
    control_socket::ask(&config.admin_socket, request).map_err(|error| {
        Failure::no(format!(
            "no gateway answers at {}: {error}",
            config.admin_socket.display()
        ))
        .with_hint(error.hint())
    })
}

#[allow(clippy::print_stdout)]
fn print<T: Serialize>(
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
