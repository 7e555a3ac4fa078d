//! What a gateway must remember over a restart: its keys, its leases, its accounts, and the newest revocation lists.
//!
//! The keys let it reset the sessions it forgot, the leases let everybody keep the address. All
//! are [records](adit_net::record): replaced whole or not at all, and never acted on when damaged.

use std::fmt;
use std::path::{Path, PathBuf};

use adit_core::status::Usage;
use adit_core::table::leases::LeaseEntry;
use adit_net::exit::Failure;
use adit_net::files::{self, FileError};
use adit_net::record::{self, Damage, Record};
use aws_lc_rs::rand;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::certificates;
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
        /// What is wrong with it.
        #[source]
        damage: Damage,
    },
    /// Another gateway's.
    #[error(
        "{} is the state of another gateway, and that of this one is in {}", path.display(), own.display()
    )]
    Taken {
        /// What was found there.
        path: PathBuf,
        /// The directory of the running gateway.
        own: PathBuf,
    },
    /// The kernel gave no random bytes.
    #[error("no random bytes for the gateway's keys")]
    Random,
}

/// What was found in the state directory and is out of the way now.
#[derive(Debug, PartialEq, Eq)]
pub enum Repair {
    /// A file that somebody had begun to write.
    Removed(PathBuf),
    /// A file that is not what anybody wrote.
    PutAside {
        /// Where it was.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
        /// Where it is now.
        aside: PathBuf,
        /// What that means.
        lost: &'static str,
    },
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed(path) => write!(
                f,
                "removed {}, which a gateway that was killed had begun to write; what it was to replace is whole",
                path.display()
            ),
            Self::PutAside {
                path,
                damage,
                aside,
                lost,
            } => write!(
                f,
                "{} is damaged: {damage}; it is {} now, and {lost}",
                path.display(),
                aside.display()
            ),
        }
    }
}

/// Keys that identify the gateway to clients it has forgotten.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Marks connection ids.
    pub cid: [u8; 32],
    /// Derives stateless-reset tokens.
    pub reset: [u8; 32],
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let hint = match &error {
            StateError::File(error) => error.hint().or_else(|| {
                Some("state_directory in server.toml must name a directory of the gateway's own".to_owned())
            }),
            StateError::Damaged { path, .. } => Some(format!(
                "the next start of the gateway puts it aside; or move {} away",
                path.display()
            )),
            StateError::Taken { .. } => Some(
                "name an empty directory, or move away what is in that one; to take up that state, restart \
                 the gateway"
                    .to_owned(),
            ),
            StateError::Random => None,
        };
        Self::environment(&error).with_hint(hint)
    }
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

    /// Takes what a gateway that was killed, or a disk, left here half-written out of the way, and says what that
    /// means. For the gateway that uses the directory from now on.
    ///
    /// # Errors
    /// When that cannot be done, or a file can be read by others.
    pub fn mend(&self) -> Result<Vec<Repair>, StateError> {
        let mut repairs = Vec::new();
        for name in FILES.into_iter().chain([certificates::FILE]) {
            for left in files::remove_leftovers(&self.directory.join(name))? {
                repairs.push(Repair::Removed(left));
            }
        }
        for (name, damage_of, lost) in RECORDS {
            let path = self.directory.join(name);
            if let Some(damage) = damage_of(&path)? {
                let aside = files::put_aside(&path)?;
                repairs.push(Repair::PutAside {
                    path,
                    damage,
                    aside,
                    lost,
                });
            }
        }
        Ok(repairs)
    }

    /// The keys; made on the first call.
    ///
    /// # Errors
    /// When they cannot be read or written, or others can read them.
    pub fn keys(&self) -> Result<Keys, StateError> {
        if let Some(keys) = self.present_keys()? {
            return Ok(keys);
        }
        let keys = Keys {
            cid: random()?,
            reset: random()?,
        };
        self.save_keys(&keys)?;
        Ok(keys)
    }

    /// The leases of the last run; none on the first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn leases(&self) -> Result<Vec<LeaseEntry>, StateError> {
        saved(&self.leases_path())
    }

    /// Replaces the saved leases.
    ///
    /// # Errors
    /// When they cannot be written; the old ones stay.
    pub fn save_leases(&self, leases: &[LeaseEntry]) -> Result<(), StateError> {
        save(&self.leases_path(), leases)
    }

    /// The accounts of the last run; none on the first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn usage(&self) -> Result<Usage, StateError> {
        saved(&self.usage_path())
    }

    /// Replaces the saved accounts.
    ///
    /// # Errors
    /// When they cannot be written; the old ones stay.
    pub fn save_usage(&self, usage: &Usage) -> Result<(), StateError> {
        save(&self.usage_path(), usage)
    }

    /// The newest revocation lists of the last run; none on the first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn newest_lists(&self) -> Result<Newest, StateError> {
        saved(&self.newest_lists_path())
    }

    /// Replaces what is saved of them.
    ///
    /// # Errors
    /// When it cannot be written; what was saved stays.
    pub fn save_newest_lists(&self, newest: &Newest) -> Result<(), StateError> {
        save(&self.newest_lists_path(), newest)
    }

    /// Where the newest revocation lists are remembered.
    pub fn newest_lists_path(&self) -> PathBuf {
        self.directory.join(LISTS)
    }

    /// Whether the gateway with these keys can keep its state in `directory`: one that holds no state, or its own,
    /// as when it comes back to where it was or the files were copied there.
    ///
    /// # Errors
    /// [`StateError::Taken`], or why that cannot be said.
    pub fn may_move_to(&self, directory: &Path, keys: &Keys) -> Result<(), StateError> {
        let there = Self::at_rest(directory);
        if there.present_keys()?.is_some_and(|found| found == *keys) {
            return Ok(());
        }
        let found = FILES.map(|name| directory.join(name));
        match found.into_iter().find(|path| path.exists()) {
            None => Ok(()),
            Some(path) => Err(StateError::Taken {
                path,
                own: self.directory.clone(),
            }),
        }
    }

    /// Writes everything into another directory, where it is on the disk when this returns. What is here stays.
    ///
    /// # Errors
    /// When the directory [cannot be had](Self::may_move_to), made or written to; then it is as before.
    pub fn copy_to(
        &self,
        directory: &Path,
        keys: &Keys,
        leases: &[LeaseEntry],
        usage: &Usage,
        newest: &Newest,
    ) -> Result<StateCopy, StateError> {
        self.may_move_to(directory, keys)?;
        let mut copy = StateCopy {
            state: Self::at_rest(directory),
            made: missing_of(directory),
        };
        let there = Self::open(directory)?;
        there.save_leases(leases)?;
        there.save_usage(usage)?;
        there.save_newest_lists(newest)?;
        // Last: what has no keys is no complete state.
        there.save_keys(keys)?;
        copy.state = there;
        Ok(copy)
    }

    /// The directory, for the journal of host changes.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn present_keys(&self) -> Result<Option<Keys>, StateError> {
        let path = self.keys_path();
        whole(&path, record::read_private(&path)?)
    }

    fn save_keys(&self, keys: &Keys) -> Result<(), StateError> {
        save(&self.keys_path(), keys)
    }

    fn keys_path(&self) -> PathBuf {
        self.directory.join(KEYS)
    }

    fn usage_path(&self) -> PathBuf {
        self.directory.join(USAGE)
    }

    fn leases_path(&self) -> PathBuf {
        self.directory.join(LEASES)
    }
}

/// The state in another directory. Dropped, it is taken away again, as far as it was not there before.
#[derive(Debug)]
pub struct StateCopy {
    state: State,
    /// Files and directories, the innermost first.
    made: Vec<PathBuf>,
}

impl StateCopy {
    /// The copy itself.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The copy is what counts from now on.
    pub fn keep(mut self) -> State {
        self.made.clear();
        self.state.clone()
    }
}

impl Drop for StateCopy {
    fn drop(&mut self) {
        for path in &self.made {
            // A directory in which somebody has put something meanwhile stays.
            let _ = match path.is_dir() {
                true => std::fs::remove_dir(path),
                false => std::fs::remove_file(path),
            };
        }
    }
}

/// What writing the state into a directory makes, the innermost first.
fn missing_of(directory: &Path) -> Vec<PathBuf> {
    let files = FILES.map(|name| directory.join(name));
    let directories = directory.ancestors().map(Path::to_owned);
    let all = files.into_iter().chain(directories);
    all.filter(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect()
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

/// What was saved at a path; nothing if nothing was.
fn saved<T: Default + DeserializeOwned>(path: &Path) -> Result<T, StateError> {
    Ok(whole(path, record::read(path)?)?.unwrap_or_default())
}

fn whole<T>(path: &Path, record: Record<T>) -> Result<Option<T>, StateError> {
    match record {
        Record::None => Ok(None),
        Record::Whole(value) => Ok(Some(value)),
        Record::Damaged(damage) => Err(StateError::Damaged {
            path: path.to_owned(),
            damage,
        }),
    }
}

fn damage_of<T: DeserializeOwned>(path: &Path) -> Result<Option<Damage>, StateError> {
    match record::read::<T>(path)? {
        Record::None | Record::Whole(_) => Ok(None),
        Record::Damaged(damage) => Ok(Some(damage)),
    }
}

/// Replaces it whole, or leaves it as it was.
fn save<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), StateError> {
    Ok(record::write(path, value)?)
}

/// Everything in a state directory that is the gateway's memory. The journal of host changes moves by itself, and the
/// audit log has a place of its own.
pub const FILES: [&str; 4] = [KEYS, LEASES, USAGE, LISTS];
/// Looks for damage in a file.
type Check = fn(&Path) -> Result<Option<Damage>, StateError>;
/// What is wrong with a file, and what it means to start without it.
const RECORDS: [(&str, Check, &str); 4] = [
    (
        KEYS,
        damage_of::<Keys>,
        "the gateway has new keys: clients notice the restart only when their sessions time out",
    ),
    (
        LEASES,
        damage_of::<Vec<LeaseEntry>>,
        "no address is known that was promised: some clients may get others",
    ),
    (USAGE, damage_of::<Usage>, "the accounts begin anew"),
    (
        LISTS,
        damage_of::<Newest>,
        "a revocation list that is older than those that counted would count: see that the newest are in their files",
    ),
];
const KEYS: &str = "keys.json";
const LEASES: &str = "leases.json";
const USAGE: &str = "usage.json";
const LISTS: &str = "revocation-lists.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let paths = files::list(directory).unwrap();
        let names = paths.iter().filter_map(|path| path.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_copy_holds_everything_and_is_taken_away_unless_it_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(&root.path().join("old")).unwrap();
        let keys = state.keys().unwrap();
        let there = root.path().join("a/b");
        let copy = || state.copy_to(&there, &keys, &[], &Usage::default(), &Newest::default());
        drop(copy().unwrap());
        assert_eq!(names(root.path()), ["old"]);
        let kept = copy().unwrap().keep();
        assert_eq!(
            names(&there),
            [
                "keys.json",
                "leases.json",
                "revocation-lists.json",
                "usage.json"
            ]
        );
        assert!(kept.keys().unwrap() == keys && kept.directory() == there);
        // Its own: it may come back, and what was there before a failure is there after it.
        drop(kept.copy_to(
            state.directory(),
            &keys,
            &[],
            &Usage::default(),
            &Newest::default(),
        ));
        assert!(state.keys().unwrap() == keys);
    }

    #[test]
    fn the_state_of_another_gateway_is_neither_taken_nor_changed() {
        let root = tempfile::tempdir().unwrap();
        let [one, other] =
            ["one", "other"].map(|name| State::open(&root.path().join(name)).unwrap());
        let [keys, others] = [&one, &other].map(|state| state.keys().unwrap());
        let copied = || {
            one.copy_to(
                other.directory(),
                &keys,
                &[],
                &Usage::default(),
                &Newest::default(),
            )
        };
        let error = copied().unwrap_err().to_string();
        for directory in [&one, &other] {
            let path = directory.directory().display().to_string();
            assert!(error.contains(&path), "{error}");
        }
        assert!(other.keys().unwrap() == others);
        assert_eq!(names(other.directory()), ["keys.json"]);
        // Leases alone are somebody's too.
        other.save_leases(&[]).unwrap();
        files::remove(&other.directory().join(KEYS)).unwrap();
        assert!(matches!(copied(), Err(StateError::Taken { .. })));
        assert_eq!(names(other.directory()), ["leases.json"]);
    }

    #[test]
    fn a_directory_that_cannot_be_made_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(&root.path().join("old")).unwrap();
        let keys = state.keys().unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let there = root.path().join("file/state");
        let error = state.copy_to(&there, &keys, &[], &Usage::default(), &Newest::default());
        assert!(error.unwrap_err().to_string().contains("file"));
        assert_eq!(names(root.path()), ["file", "old"]);
    }

    #[test]
    fn what_was_half_written_or_damaged_is_out_of_the_way_said_and_not_acted_on() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(root.path()).unwrap();
        let keys = state.keys().unwrap();
        let lease = LeaseEntry {
            principal: adit_core::identity::Principal::parse("alice@example.com").unwrap(),
            v4: Some([10, 99, 0, 7].into()),
            v6: None,
            last_used: 1,
        };
        state.save_leases(&[lease]).unwrap();
        assert_eq!(state.mend().unwrap(), [], "nothing to repair");
        // One digit of an address, as a disk may turn it.
        let leases = root.path().join(LEASES);
        let text = std::fs::read_to_string(&leases).unwrap();
        files::write_private(&leases, text.replace("10.99.0.7", "10.99.0.6").as_bytes()).unwrap();
        for half in [".leases.json.17.0", ".certificates.db.17.0"] {
            std::fs::write(root.path().join(half), "half").unwrap();
        }
        let error = state.leases().unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        let repairs = state.mend().unwrap();
        let said: Vec<String> = repairs.iter().map(ToString::to_string).collect();
        for (said, words) in said.iter().zip([
            &[".leases.json.17.0"][..],
            &[".certificates.db.17.0"],
            &["leases.json is damaged", "leases.json.damaged", "promised"],
        ]) {
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(names(root.path()), ["keys.json", "leases.json.damaged"]);
        assert_eq!(state.leases().unwrap(), []);
        assert!(state.keys().unwrap() == keys, "the rest is as it was");
        assert_eq!(state.mend().unwrap(), [], "once");
    }
}
