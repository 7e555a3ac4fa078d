//! The admin plane: one Unix socket, one line of JSON each way.
//!
//! `{"ask":"status"}` → a `GatewayStatus`. Who may ask is the socket's business: the gateway's own
//! user and root.

use std::path::Path;

use adit_core::status::{self, GatewayStatus};
use adit_net::control_socket::{self, Connection};
use adit_net::exit::Failure;
use adit_net::files;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::config::ServerConfig;
use crate::desk::Desk;
use crate::engines::Engines;
use crate::load::LoadError;

/// What can be asked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Everything `adit-server status` shows.
    Status {},
}

/// Answers one request on one connection.
pub async fn answer(mut connection: Connection, engines: &Engines, desk: &Desk, listen: &str) {
    let answered = async {
        match connection.receive().await? {
            Request::Status {} => {
                let mut status = engines.status().await;
                if let (Some(status), Some(more)) = (&mut status, desk.status().await) {
                    status.listen = listen.to_owned();
                    status.connections += more.connections;
                    status.total.add(&more.traffic);
                }
                connection.send(&status).await
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
#[allow(clippy::print_stdout)]
pub fn print_status(config: &Path, json: bool) -> Result<(), Failure> {
    let text = files::read_text(config).map_err(LoadError::from)?;
    let config = ServerConfig::parse(&text, config).map_err(LoadError::from)?;
    let status: Option<GatewayStatus> =
        control_socket::ask(&config.admin_socket, &Request::Status {}).map_err(|error| {
            Failure::no(format!(
                "no gateway answers at {}: {error}",
                config.admin_socket.display()
            ))
            .with_hint(error.hint())
        })?;
    let Some(status) = status else {
        return Err(Failure::no("the gateway is stopping"));
    };
    if json {
        let json =
            serde_json::to_string_pretty(&status).map_err(|error| Failure::environment(&error))?;
        println!("{json}");
    } else {
        print!("{}", status::render_gateway(&status));
    }
    Ok(())
}
