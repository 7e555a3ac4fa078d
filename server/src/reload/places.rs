//! The places a gateway has on its host: control socket, state directory, interface.
//!
//! A reload takes the new ones beside the old and gives the old ones up when all else has gone over; until then
//! everything leads back. Whoever kills the gateway in between finds, at the next start, the journal of what to undo
//! in the old place as well as in the new.

use adit_net::clock;
use adit_net::control_socket::Listener;
use tracing::{error, info, warn};

use super::ReloadError;
use crate::config::ServerConfig;
use crate::control::Control;
use crate::state::{FILES, StateCopy};

/// What was taken and is not used yet. Dropped, socket and state are taken away again.
pub(super) struct Taken {
    admin: Option<Listener>,
    state: Option<StateCopy>,
}

impl Control<'_> {
    /// Whether the new places could be had, as far as that can be told without taking them.
    pub(super) async fn may_take(&self, wanted: &ServerConfig) -> Result<(), ReloadError> {
        let directory = &wanted.state_directory;
        if *directory != self.loaded.config.state_directory {
            self.state.may_move_to(directory, &self.keys)?;
        }
        let interface = &wanted.inside.interface;
        Ok(self.host.may_move_to(directory, interface).await?)
    }

    /// Takes the new places. After an error everything is as before.
    pub(super) async fn take(&mut self, wanted: &ServerConfig) -> Result<Taken, ReloadError> {
        let is = &self.loaded.config;
        let mut taken = Taken {
            admin: None,
            state: None,
        };
        if wanted.admin_socket != is.admin_socket {
            taken.admin = Some(Listener::bind(&wanted.admin_socket)?);
        }
        let directory = &wanted.state_directory;
        if *directory != is.state_directory {
            let status = self.engines.status().await.ok_or(ReloadError::Stopping)?;
            let usage = self.accounting.total(&status);
            let copied =
                self.state
                    .copy_to(directory, &self.keys, &self.leases, &usage, &self.newest);
            let copied = copied?;
            let joined = self.lease_store.join(copied.state()).await;
            joined.ok_or(ReloadError::Stopping)??;
            taken.state = Some(copied);
        }
        let interface = &wanted.inside.interface;
        if let Err(error) = self.host.move_to(directory, interface).await {
            self.leave(&taken).await;
            return Err(error.into());
        }
        Ok(taken)
    }

    /// Uses what was taken, and gives up what was used before.
    pub(super) async fn settle(&mut self, taken: Taken) {
        if let Some(copy) = taken.state {
            let old = std::mem::replace(&mut self.state, copy.keep());
            self.lease_store.leave(&old).await;
            let now = clock::unix_seconds();
            self.certificates.move_to(&self.state, now);
        }
        if let Some(admin) = taken.admin {
            let old = std::mem::replace(&mut self.admin, admin);
            self.conversations.take_over(old.close());
        }
        if let Err(error) = self.host.settle() {
            warn!(%error, "the old journal stays; the next reload or the end tries again");
        }
    }

    /// Goes back to where the host was.
    pub(super) async fn go_back(&mut self, taken: Taken) {
        let is = &self.loaded.config;
        let (directory, interface) = (&is.state_directory, &is.inside.interface);
        if let Err(error) = self.host.move_to(directory, interface).await {
            // The kernel has just agreed to the opposite.
            error!(%error, interface, "the interface did not get its old name back; restart the gateway");
        }
        let before = self.machine.network(&self.loaded);
        self.follow(&before).await;
        if let Err(error) = self.host.settle() {
            warn!(%error, "a second journal stays; the next reload or the end tries again");
        }
        self.leave(&taken).await;
        // After the journal, which may be in the directory that was made for the state.
        drop(taken);
    }

    /// What was taken for the state is written to no more.
    async fn leave(&self, taken: &Taken) {
        if let Some(copy) = &taken.state {
            self.lease_store.leave(copy.state()).await;
        }
    }
}

/// What goes from where to where, in words.
pub(super) fn moves(is: &ServerConfig, wanted: &ServerConfig) -> Vec<String> {
    let places = |config: &ServerConfig| {
        [
            ("admin_socket", config.admin_socket.display().to_string()),
            (
                "state_directory",
                config.state_directory.display().to_string(),
            ),
            ("audit_log", config.audit_log.display().to_string()),
            ("inside.interface", config.inside.interface.clone()),
        ]
    };
    let pairs = places(is).into_iter().zip(places(wanted));
    let changed = pairs.filter(|((_, old), (_, new))| old != new);
    changed
        .map(|((key, old), (_, new))| {
            let stays = match key {
                "state_directory" => format!("; {} stay in the old one too", FILES.join(", ")),
                "audit_log" => "; what is written already stays in the old one".to_owned(),
                _ => String::new(),
            };
            format!("{key} goes from {old} to {new}{stays}")
        })
        .collect()
}

/// Writes down what has gone where.
pub(super) fn tell(moves: &[String]) {
    for line in moves {
        info!("{line}");
    }
}
