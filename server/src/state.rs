//! What a gateway must remember over a restart: its keys, its leases, its accounts, and the newest revocation lists.
//!
//! The keys let it reset the sessions it forgot, the leases let everybody keep the address. All
//! are replaced whole or not at all.

use std::path::{Path, PathBuf};

use adit_core::status::Usage;
use adit_core::table::leases::LeaseEntry;
use adit_net::files::{self, FileError};
use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

use crate::lists::Newest;

/// The gateway's state directory.
#[derive(Clone, Debug)]
pub struct State {
    directory: PathBuf,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The kernel gave no random bytes.
    #[error("no random bytes for the gateway's keys")]
    Random,
}

/// Keys that identify the gateway to clients it has forgotten.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Marks connection ids.
    pub cid: [u8; 32],
    /// Derives stateless-reset tokens.
    pub reset: [u8; 32],
}

impl State {
    /// Opens the directory, making it when it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        files::create_state_directory(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// The directory of a gateway that does not run, to be read.
    pub fn at_rest(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The keys; made on the first call.
    ///
    /// # Errors
    /// When they cannot be read or written, or others can read them.
    pub fn keys(&self) -> Result<Keys, StateError> {
        let path = self.directory.join("keys.json");
        match files::read_private(&path) {
            Ok(bytes) => parse(&path, &bytes),
            Err(error) if error.is_missing() => {
                let keys = Keys {
                    cid: random()?,
                    reset: random()?,
                };
                files::write_private(&path, &render(&path, &keys)?)?;
                Ok(keys)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The leases of the last run; none on the first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn leases(&self) -> Result<Vec<LeaseEntry>, StateError> {
        let path = self.leases_path();
        match files::read(&path) {
            Ok(bytes) => parse(&path, &bytes),
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the saved leases.
    ///
    /// # Errors
    /// When they cannot be written; the old ones stay.
    pub fn save_leases(&self, leases: &[LeaseEntry]) -> Result<(), StateError> {
        let path = self.leases_path();
        files::write_private(&path, &render(&path, &leases)?)?;
        Ok(())
    }

    /// The accounts of the last run; none on the first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn usage(&self) -> Result<Usage, StateError> {
        let path = self.usage_path();
        match files::read(&path) {
            Ok(bytes) => parse(&path, &bytes),
            Err(error) if error.is_missing() => Ok(Usage::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the saved accounts.
    ///
    /// # Errors
    /// When they cannot be written; the old ones stay.
    pub fn save_usage(&self, usage: &Usage) -> Result<(), StateError> {
        let path = self.usage_path();
        files::write_private(&path, &render(&path, usage)?)?;
        Ok(())
    }

    /// The newest revocation lists of the last run; none on the first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn newest_lists(&self) -> Result<Newest, StateError> {
        let path = self.newest_lists_path();
        match files::read(&path) {
            Ok(bytes) => parse(&path, &bytes),
            Err(error) if error.is_missing() => Ok(Newest::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces what is saved of them.
    ///
    /// # Errors
    /// When it cannot be written; what was saved stays.
    pub fn save_newest_lists(&self, newest: &Newest) -> Result<(), StateError> {
        let path = self.newest_lists_path();
        files::write_private(&path, &render(&path, newest)?)?;
        Ok(())
    }

    /// Where the newest revocation lists are remembered.
    pub fn newest_lists_path(&self) -> PathBuf {
        self.directory.join("revocation-lists.json")
    }

    /// The directory, for the journal of host changes.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn usage_path(&self) -> PathBuf {
        self.directory.join("usage.json")
    }

    fn leases_path(&self) -> PathBuf {
        self.directory.join("leases.json")
    }
}

/// Thirty-two bytes nobody can guess.
///
/// # Errors
/// When the kernel gives none.
pub fn random() -> Result<[u8; 32], StateError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| StateError::Random)?;
    Ok(bytes)
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, bytes: &[u8]) -> Result<T, StateError> {
    serde_json::from_slice(bytes).map_err(|source| StateError::Damaged {
        path: path.to_owned(),
        source,
    })
}

fn render<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec_pretty(value).map_err(|source| StateError::Damaged {
        path: path.to_owned(),
        source,
    })
}
