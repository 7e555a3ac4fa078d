//! The journal: what outlives the device, on disk before it is made.

use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::change::Change;
use crate::files;
use crate::host::HostError;

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
}

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    version: u32,
    /// A reboot undoes everything by itself; restoring old settings over the new boot's would be wrong.
    boot: String,
    /// The network namespace the changes are in.
    namespace: u64,
    entries: Vec<Entry>,
}

impl Journal {
    pub(super) fn new(directory: &Path, interface: &str) -> Self {
        Self {
            path: directory.join(format!("{interface}.journal")),
        }
    }

    /// Writes what has to be undone from now on. Nothing to undo: no file.
    pub(super) fn write(&self, entries: &[Entry]) -> Result<(), HostError> {
        let entries: Vec<_> = entries
            .iter()
            .filter(|entry| entry.change.outlives_device())
            .cloned()
            .collect();
        if entries.is_empty() {
            return Ok(files::remove(&self.path)?);
        }
        let contents = Contents {
            version: VERSION,
            boot: boot(),
            namespace: namespace(),
            entries,
        };
        let json = serde_json::to_vec_pretty(&contents).map_err(|source| self.damaged(source))?;
        Ok(files::write_private(&self.path, &json)?)
    }

    /// Reads what an earlier run left behind in this boot and this namespace.
    pub(super) fn read(&self) -> Result<Vec<Entry>, HostError> {
        let bytes = match files::read_private(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let contents: Contents =
            serde_json::from_slice(&bytes).map_err(|source| self.damaged(source))?;
        if contents.boot != boot() || contents.namespace != namespace() {
            return Ok(Vec::new());
        }
        Ok(contents.entries)
    }

    fn damaged(&self, source: serde_json::Error) -> HostError {
        HostError::JournalDamaged {
            path: self.path.clone(),
            source,
        }
    }
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn namespace() -> u64 {
    std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.st_ino())
}

/// Of the format.
const VERSION: u32 = 1;
