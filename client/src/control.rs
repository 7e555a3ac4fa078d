//! `adit status` and `adit down`: one line of JSON each way over the running client's socket.

use std::env;
use std::path::PathBuf;

use adit_core::status::{self, ClientStatus};
use adit_net::control_socket::{self, ControlError};
use adit_net::exit::Failure;
use serde::{Deserialize, Serialize};

/// What can be asked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Everything `adit status` shows.
    Status {},
    /// Take the tunnel down; answered when the host is as before.
    Down {},
}

/// The answer to [`Request::Down`].
#[derive(Debug, Deserialize, Serialize)]
pub struct Gone {
    /// What could not be undone.
    pub error: Option<String>,
}

/// The socket of the client that owns `interface`.
#[must_use]
pub fn socket(interface: &str) -> PathBuf {
    directory("ADIT_RUN_DIR", "/run/adit").join(format!("{interface}.sock"))
}

/// Where the journal of host changes is.
#[must_use]
pub fn state_directory() -> PathBuf {
    directory("ADIT_STATE_DIR", "/var/lib/adit")
}

/// `adit status`.
///
/// # Errors
/// When no client runs, or the tunnel is not up (exit status 1).
#[allow(clippy::print_stdout)]
pub fn print_status(interface: &str, json: bool) -> Result<(), Failure> {
    let status: ClientStatus =
        control_socket::ask(&socket(interface), &Request::Status {}).map_err(not_running)?;
    if json {
        let json =
            serde_json::to_string_pretty(&status).map_err(|error| Failure::environment(&error))?;
        println!("{json}");
    } else {
        print!("{}", status::render_client(&status));
    }
    if status.state == "up" {
        Ok(())
    } else {
        let why = status.last_error.map(|error| format!(": {error}"));
        Err(Failure::no(format!(
            "the tunnel is not up ({}){}",
            status.state,
            why.unwrap_or_default()
        )))
    }
}

/// `adit down`.
///
/// # Errors
/// When no client runs, or the host could not be put back.
pub fn down(interface: &str) -> Result<(), Failure> {
    let gone: Gone =
        control_socket::ask(&socket(interface), &Request::Down {}).map_err(not_running)?;
    match gone.error {
        None => Ok(()),
        Some(error) => {
            Err(Failure::no(error)
                .with_hint(Some("the next `adit up` of this interface tries again")))
        }
    }
}

fn not_running(error: ControlError) -> Failure {
    let hint = error.hint();
    match error {
        ControlError::NotRunning { .. } => {
            Failure::no("the tunnel is not running").with_hint(Some("adit up PROFILE starts it"))
        }
        error => Failure::environment(&error).with_hint(hint),
    }
}

fn directory(variable: &str, default: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| default.into(), PathBuf::from)
}
