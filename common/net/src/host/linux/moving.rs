//! The device gets another name and the journal another place, while everything goes on.
//!
//! From before the device is renamed until [`Host::settle`] the journal is in both places and each copy names the
//! other, so that a program that is killed in between is undone by the next start, whichever place that looks at.

use std::io;
use std::path::Path;

use super::journal::Journal;
use super::{Host, HostError, connect, index_of, links, refused};
use crate::files;

impl Host {
    /// Whether [`move_to`](Self::move_to) would be refused, as far as that can be told without trying.
    pub async fn may_move_to(
        &self,
        state_directory: &Path,
        interface: &str,
    ) -> Result<(), HostError> {
        let mut there = Journal::new(state_directory, interface);
        if !there.is_at(&self.journal) {
            let entries = there.read()?;
            if !entries.is_empty() && entries != Journal::kept(&self.made) {
                return Err(there.taken());
            }
        }
        let taken = || HostError::InterfaceTaken {
            name: interface.into(),
        };
        let others = links(&connect()?).await?;
        let is_taken = others.iter().any(|link| link.name == interface);
        (interface == self.interface || !is_taken)
            .then_some(())
            .ok_or_else(taken)
    }

    /// Gives the device this name, and keeps the journal in this directory, which is made if missing. What was
    /// applied stays; what is named after the device follows with the next [`apply`](Self::apply).
    ///
    /// After an error nothing has changed. Afterwards the old place is still a way back: moving there, or
    /// [`settle`](Self::settle).
    pub async fn move_to(
        &mut self,
        state_directory: &Path,
        interface: &str,
    ) -> Result<(), HostError> {
        self.reconnect()?;
        self.may_move_to(state_directory, interface).await?;
        files::create_state_directory(state_directory)?;
        self.journal
            .move_to(Journal::new(state_directory, interface), &self.made)?;
        if interface != self.interface
            && let Err(error) = self.rename(interface).await
        {
            let back = Journal::new(&self.state_directory, &self.interface);
            self.journal.move_to(back, &self.made)?;
            self.journal.settle(&self.made)?;
            return Err(error);
        }
        self.state_directory = state_directory.into();
        self.interface = interface.into();
        Ok(())
    }

    /// Gives up the place that was moved from: nothing there is undone any more.
    pub fn settle(&mut self) -> Result<(), HostError> {
        self.journal.settle(&self.made)
    }

    async fn rename(&self, to: &str) -> Result<(), HostError> {
        let index = index_of(&self.netlink, &self.interface).await?;
        let renamed = self.netlink.rename(index, to).await;
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => HostError::InterfaceTaken { name: to.into() },
            io::ErrorKind::ResourceBusy => HostError::NoLiveRename {
                from: self.interface.clone(),
                to: to.into(),
            },
            _ => refused(format!("rename {} to {to}", self.interface))(error),
        })
    }

    /// Undoes what programs left in this directory whose device is gone, and they with it: one that was killed after
    /// its configuration had given the device another name.
    pub(super) async fn undo_the_dead(
        state_directory: &Path,
        interface: &str,
    ) -> Result<(), HostError> {
        let present = links(&connect()?).await?;
        for name in Journal::all_in(state_directory)? {
            if name == interface || present.iter().any(|link| link.name == name) {
                continue;
            }
            let mut dead = Self::load(state_directory, &name)?;
            // Of another namespace: that program may well live.
            if !dead.made.is_empty() {
                tracing::warn!(interface = name, "undoing what a program left that is gone");
                dead.undo().await?;
            }
        }
        Ok(())
    }
}
