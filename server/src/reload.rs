//! Reading everything again while packets pass: all of it counts at once, or nothing does.
//!
//! ```text
//! files ─ load ─ needs no restart? ─ new places taken ─ host has both ─ desk judges all sessions ─ host has the new
//! ```
//!
//! A wrong file is an error with its line, and the gateway goes on as before. What the host needs is added before
//! the sessions hear of it and taken away afterwards, so that what stays permitted is never without a route.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use adit_core::admission::diff::{Difference, FlowLoss};
use adit_net::clock;
use adit_net::control_socket::ControlError;
use adit_net::exit::Failure;
use adit_net::host::HostError;
use adit_tunnel::Renewal;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use crate::audit::Event;
use crate::config::ServerConfig;
use crate::control::Control;
use crate::lists::{self, Replay};
use crate::load::{self, LoadError, Loaded};
use crate::network::Machine;
use crate::resigning::Resigning;
use crate::state::StateError;

mod places;

/// What a reload did, or would do.
#[derive(Debug, Deserialize, Serialize)]
pub struct Report {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What is odd about the new policy, though usable.
    pub warnings: Vec<String>,
    /// What becomes of the sessions.
    pub sessions: Difference,
    /// What of the gateway goes to another place.
    #[serde(default)]
    pub moves: Vec<String>,
}

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A file is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Something changed that a running gateway cannot follow.
    #[error("{}: needs a restart: {changes}", path.display())]
    Restart {
        /// The configuration file.
        path: PathBuf,
        /// What, with its old and its new value.
        changes: String,
    },
    /// An old revocation list in place of a newer one would give revoked certificates back.
    #[error(transparent)]
    Replay(#[from] Replay),
    /// The host refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The gateway's memory cannot go over to another directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The other control socket cannot be had.
    #[error(transparent)]
    Socket(#[from] ControlError),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] adit_net::files::FileError),
    /// The front desk has ended.
    #[error("the gateway is stopping")]
    Stopping,
}

impl From<ReloadError> for Failure {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Load(error) => error.into(),
            ReloadError::Restart { .. } => Self::input(&error).with_hint(Some(
                "restart the gateway, or put the old value back; nothing has changed",
            )),
            ReloadError::Replay(error) => Self::input(&error).with_hint(Some(
                "bring the newest list, or sign a fresh one with `adit-ca crl`; nothing has changed",
            )),
            ReloadError::State(error) => error.into(),
            ReloadError::Socket(error) => {
                let hint = error.hint().unwrap_or(
                    "admin_socket in server.toml must name a path where the gateway may make a socket",
                );
                Self::environment(&error).with_hint(Some(hint))
            }
            ReloadError::Host(error) => {
                let hint = error.hint();
                Self::environment(&error).with_hint(hint)
            }
            ReloadError::Audit(error) => {
                let hint = error.hint();
                Self::environment(&error).with_hint(hint)
            }
            ReloadError::Stopping => Self::no(error.to_string()),
        }
    }
}

impl Report {
    /// In words and numbers.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        let done = if self.dry_run {
            "dry run, nothing has changed: "
        } else {
            "reloaded: "
        };
        text.push_str(done);
        text.push_str(&self.sessions.render());
        for line in &self.moves {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// What flows a reload costs.
struct Flows {
    by_principal: BTreeMap<String, FlowLoss>,
    /// Of all sessions.
    open: usize,
}

impl Control<'_> {
    /// Reads everything again and goes over to it; `by` names who asked.
    ///
    /// # Errors
    /// When something is wrong; nothing has changed then.
    pub async fn reload(&mut self, by: &'static str) -> Result<Report, Failure> {
        let result = self.go_over().await.map_err(Failure::from);
        self.tell(by, &result);
        result
    }

    /// Goes over to the revocation lists as they are in their files now, and to nothing else. Whatever is
    /// wrong with them is told, and those that counted before count on.
    pub async fn follow_lists(&mut self) {
        let result = self.take_lists().await.map_err(Failure::from);
        if let Some(result) = result.transpose() {
            self.tell("revocation-list", &result);
        }
    }

    /// Writes down what came of a reload.
    fn tell(&mut self, by: &'static str, result: &Result<Report, Failure>) {
        match result {
            Ok(report) => {
                for warning in &report.warnings {
                    warn!("{warning}");
                }
                info!(by, "reloaded: {}", report.sessions);
                places::tell(&report.moves);
                for ended in &report.sessions.ended {
                    info!(
                        principal = ended.principal,
                        reason = ended.reason,
                        "ends by the reload"
                    );
                }
                for changed in &report.sessions.changed {
                    info!(
                        principal = changed.principal,
                        addresses = ?changed.addresses,
                        groups = ?changed.groups,
                        routes = ?changed.routes,
                        rules = ?changed.rules,
                        "changes by the reload"
                    );
                }
            }
            Err(failure) => {
                error!(
                    by,
                    error = failure.message(),
                    hint = failure.hint(),
                    "not reloaded, nothing has changed"
                );
            }
        }
        let error = result.as_ref().err().map(Failure::message);
        self.audit.write(&Event::Reload {
            by,
            error,
            sessions: result.as_ref().ok().map(|report| &report.sessions),
        });
    }

    /// What a reload would do.
    ///
    /// # Errors
    /// When a reload would fail.
    pub async fn rehearse(&self) -> Result<Report, Failure> {
        let loaded = self.load()?;
        self.may_take(&loaded.config).await?;
        let renewal = renewal(&self.machine, &loaded);
        let rehearsal = self.rehearsal(renewal).await;
        let (mut sessions, flows) = rehearsal.ok_or(ReloadError::Stopping)?;
        sessions.tell_flows(&flows.by_principal, flows.open);
        Ok(self.report(true, &loaded, sessions))
    }

    /// What the sessions would have, and what flows that would cost.
    async fn rehearsal(&self, renewal: Renewal) -> Option<(Difference, Flows)> {
        let rehearsal = self.desk.rehearse(renewal).await?;
        let by_principal = self.engines.flow_losses(&rehearsal.stakes).await?;
        let sessions = self.engines.status().await?.sessions;
        let open = sessions.iter().map(|session| session.flows).sum();
        Some((rehearsal.difference, Flows { by_principal, open }))
    }

    async fn go_over(&mut self) -> Result<Report, ReloadError> {
        // First, and whatever comes of the rest: the old file may have been moved away to be archived.
        self.audit.reopen(&self.loaded.config.audit_log)?;
        let loaded = self.load()?;
        let taken = self.take(&loaded.config).await?;
        let sessions = match self.renew(&loaded).await {
            Ok(sessions) => sessions,
            Err(error) => {
                self.go_back(taken).await;
                return Err(error);
            }
        };
        let after = self.machine.network(&loaded);
        self.follow(&after).await;
        self.settle(taken).await;
        let report = self.report(false, &loaded, sessions);
        self.loaded = loaded;
        // Another authority may issue now.
        self.resigning = Resigning::default();
        self.remember_lists();
        Ok(report)
    }

    /// Goes over to everything but the new places, which are taken already. After an error the sessions are as before.
    async fn renew(&mut self, loaded: &Loaded) -> Result<Difference, ReloadError> {
        let before = self.machine.network(&self.loaded);
        let after = self.machine.network(loaded);
        self.host.apply(&before.together_with(&after)).await?;
        self.audit.reopen(&loaded.config.audit_log)?;
        let renewal = renewal(&self.machine, loaded);
        // Counted before, for those that end are gone afterwards.
        let rehearsal = self.rehearsal(renewal.clone()).await;
        let (_, flows) = rehearsal.ok_or(ReloadError::Stopping)?;
        let sessions = self.desk.reload(renewal).await;
        let mut sessions = sessions.ok_or(ReloadError::Stopping)?;
        sessions.tell_flows(&flows.by_principal, flows.open);
        Ok(sessions)
    }

    fn report(&self, dry_run: bool, loaded: &Loaded, sessions: Difference) -> Report {
        let warnings = loaded.warnings.iter().map(ToString::to_string);
        let lists = lists::warnings(&loaded.authorities, clock::unix_seconds());
        Report {
            dry_run,
            warnings: warnings.chain(lists).collect(),
            sessions,
            moves: places::moves(&self.loaded.config, &loaded.config),
        }
    }

    async fn take_lists(&mut self) -> Result<Option<Report>, ReloadError> {
        let loaded = load::reread_lists(&self.loaded)?;
        if loaded.authorities.is_same(&self.loaded.authorities) {
            return Ok(None);
        }
        self.newest.refuse_older(&loaded.authorities)?;
        let renewal = renewal(&self.machine, &loaded);
        let sessions = self.desk.reload(renewal).await;
        let sessions = sessions.ok_or(ReloadError::Stopping)?;
        self.loaded = loaded;
        self.remember_lists();
        for line in lists::facts(&self.loaded.authorities) {
            info!("{line}");
        }
        Ok(Some(Report {
            dry_run: false,
            warnings: lists::warnings(&self.loaded.authorities, clock::unix_seconds()),
            sessions,
            moves: Vec::new(),
        }))
    }

    fn load(&self) -> Result<Loaded, ReloadError> {
        let loaded = load::load(self.path)?;
        self.newest.refuse_older(&loaded.authorities)?;
        match needs_restart(&self.loaded.config, &loaded.config) {
            Some(changes) => Err(ReloadError::Restart {
                path: self.path.to_owned(),
                changes,
            }),
            None => Ok(loaded),
        }
    }

    /// Takes away what the host needs no more. What stays in its way is not worth an end of the gateway.
    async fn follow(&mut self, network: &adit_net::host::Network) {
        if let Err(error) = self.host.apply(network).await {
            warn!(%error, "the host did not follow; the next reload or the end tries again");
        }
    }
}

/// What the front desk needs of a configuration.
pub fn renewal(machine: &Machine, loaded: &Loaded) -> Renewal {
    Renewal {
        tls: loaded.tls.clone(),
        authorities: loaded.authorities.clone(),
        policy: loaded.policy.clone(),
        inside: loaded.config.inside_addresses(),
        limits: machine.limits(&loaded.config),
        tunnel_mtu: machine.tunnel_mtu(&loaded.config),
        second_connection: loaded.config.second_connection,
    }
}

/// What of the difference needs a restart, in words: the sockets that every session's packets come through are made
/// once.
fn needs_restart(running: &ServerConfig, wanted: &ServerConfig) -> Option<String> {
    let (is, would_be) = (running.listen, wanted.listen);
    (is != would_be).then(|| format!("listen is {is} and would be {would_be}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const EXAMPLE: &str = include_str!("../../config/server.toml");

    fn config(change: (&str, &str)) -> ServerConfig {
        let text = EXAMPLE.replace(change.0, change.1);
        ServerConfig::parse(&text, Path::new("/etc/adit/server.toml")).unwrap()
    }

    #[test]
    fn what_needs_a_restart_is_named_with_both_values_and_the_rest_does_not() {
        let running = config(("", ""));
        let needs = |change| needs_restart(&running, &config(change));
        assert_eq!(
            needs(("[::]:443", "[::]:444")).as_deref(),
            Some("listen is [::]:443 and would be [::]:444")
        );
        for change in [
            ("adit0", "adit1"),
            ("/var/lib/adit\"", "/var/lib/other\""),
            ("server.sock", "other.sock"),
            ("# masquerade = false", "masquerade = true"),
            ("# idle_timeout_s = 60", "idle_timeout_s = 30"),
            ("10.99.0.1/24", "10.99.0.2/24"),
            ("policy.toml", "other.toml"),
            ("ca/ca.pem", "other.pem"),
        ] {
            assert_eq!(needs(change), None, "{change:?}");
        }
    }

    #[test]
    fn what_goes_to_another_place_is_told_with_both_and_with_what_stays() {
        let running = config(("", ""));
        let moves = |change| places::moves(&running, &config(change));
        assert_eq!(
            moves(("10.99.0.1/24", "10.99.0.2/24")),
            Vec::<String>::new()
        );
        assert_eq!(
            moves(("\"adit0\"", "\"adit1\"")),
            ["inside.interface goes from adit0 to adit1"]
        );
        assert_eq!(
            moves(("= \"/var/lib/adit\"", "= \"/srv/adit\"")),
            [
                "state_directory goes from /var/lib/adit to /srv/adit; keys.json, leases.json, usage.json, revocation-lists.json stay in \
                 the old one too",
                "audit_log goes from /var/lib/adit/audit.jsonl to /srv/adit/audit.jsonl; what is written already \
                 stays in the old one"
            ]
        );
    }
}
