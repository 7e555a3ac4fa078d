//! The journal: what outlives the device, on disk before it is made. While it moves it is in two places.

use std::fs;
use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::change::Change;
use crate::files;
use crate::host::HostError;
use crate::record::{self, Record};

/// A change that was made or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) change: Change,
    /// What a setting was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) was: Option<String>,
}

/// The journal of one interface.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Where it is kept as well, while it moves from there.
    also: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    version: u32,
    /// A reboot undoes everything by itself; restoring old settings over the new boot's would be wrong.
    boot: String,
    /// The network namespace the changes are in.
    namespace: u64,
    /// Where the other copy is: whoever undoes one removes both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    also: Option<PathBuf>,
    entries: Vec<Entry>,
}

impl Journal {
    pub(super) fn new(directory: &Path, interface: &str) -> Self {
        // The same directory by another name is the same, and a copy that names the other is read from anywhere.
        let directory = fs::canonicalize(directory)
            .or_else(|_| std::path::absolute(directory))
            .unwrap_or_else(|_| directory.into());
        Self {
            path: directory.join(format!("{interface}.{EXTENSION}")),
            also: None,
        }
    }

    /// The interfaces that have a journal in a directory.
    pub(super) fn all_in(directory: &Path) -> Result<Vec<String>, HostError> {
        let mut names = Vec::new();
        for path in files::list(directory)? {
            if path
                .extension()
                .is_some_and(|extension| extension == EXTENSION)
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Of these, what belongs into a journal.
    pub(super) fn kept(entries: &[Entry]) -> Vec<Entry> {
        let entries = entries.iter();
        entries
            .filter(|entry| entry.change.outlives_device())
            .cloned()
            .collect()
    }

    pub(super) fn is_at(&self, other: &Self) -> bool {
        self.path == other.path
    }

    /// Keeps it at `there` from now on, and here as well until it is [settled](Self::settle). After an error it is
    /// here alone.
    pub(super) fn move_to(&mut self, there: Self, entries: &[Entry]) -> Result<(), HostError> {
        if self.is_at(&there) {
            return Ok(());
        }
        if self.also.as_ref() != Some(&there.path) {
            self.settle(entries)?;
        }
        let here = std::mem::replace(&mut self.path, there.path);
        // Somebody may have moved the directory away by hand.
        let is_there = here.parent().is_some_and(Path::exists);
        self.also = is_there.then(|| here.clone());
        let written = self.write(entries);
        if written.is_err() {
            // What failed to be written fails to be removed at worst.
            let _ = files::remove(&self.path);
            (self.path, self.also) = (here, None);
            self.write(entries)?;
        }
        written
    }

    /// Removes it from where it was before.
    pub(super) fn settle(&mut self, entries: &[Entry]) -> Result<(), HostError> {
        let Some(also) = &self.also else {
            return Ok(());
        };
        files::remove(also)?;
        self.also = None;
        self.write(entries)
    }

    /// Writes what has to be undone from now on. Nothing to undo: no file.
    pub(super) fn write(&self, entries: &[Entry]) -> Result<(), HostError> {
        let places = [Some(&self.path), self.also.as_ref()];
        let entries = Self::kept(entries);
        for (number, path) in places.into_iter().enumerate() {
            let Some(path) = path else {
                continue;
            };
            if entries.is_empty() {
                files::remove(path)?;
                continue;
            }
            let contents = Contents {
                version: VERSION,
                boot: boot(),
                namespace: namespace(),
                also: places[1 - number].cloned(),
                entries: entries.clone(),
            };
            record::write(path, &contents)?;
        }
        Ok(())
    }

    /// Takes what a program that was killed, or a disk, left here half-written out of the way, and tells of it. What
    /// cannot be read cannot be undone.
    pub(super) fn mend(&self) -> Result<(), HostError> {
        for left in files::remove_leftovers(&self.path)? {
            let path = left.display();
            tracing::warn!(%path, "removed what a program that was killed had begun to write");
        }
        if let Record::Damaged(damage) = record::read_private::<Contents>(&self.path)? {
            let aside = files::put_aside(&self.path)?;
            tracing::error!(
                path = %self.path.display(),
                %damage,
                aside = %aside.display(),
                "the journal of changes is damaged and was put aside: what an earlier run changed on this host may \
                 still be there; look for it with `ip rule` and `nft list tables`"
            );
        }
        Ok(())
    }

    /// Reads what an earlier run left behind in this boot and this namespace.
    pub(super) fn read(&mut self) -> Result<Vec<Entry>, HostError> {
        let contents: Contents = match record::read_private(&self.path)? {
            Record::None => return Ok(Vec::new()),
            Record::Whole(contents) => contents,
            Record::Damaged(damage) => {
                let path = self.path.clone();
                return Err(HostError::JournalDamaged { path, damage });
            }
        };
        if contents.boot != boot() || contents.namespace != namespace() {
            return Ok(Vec::new());
        }
        self.also = contents.also;
        Ok(contents.entries)
    }

    pub(super) fn taken(&self) -> HostError {
        HostError::JournalTaken {
            path: self.path.clone(),
        }
    }
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn namespace() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.st_ino())
}

const EXTENSION: &str = "journal";

/// Of the format.
const VERSION: u32 = 1;
