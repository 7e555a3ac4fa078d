//! The files of an authority's folder, and how secrets reach the disk.
//!
//! Guarantee: a file appears whole or not at all, its mode is right from its first byte, and it is
//! on the disk when the call returns. Refused are overwriting without being told to, and reading a
//! key that the group or others may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::description;

/// The certificate of the authority. Written last: a folder with it is a whole authority.
pub const CERTIFICATE: &str = "ca.pem";
/// The key of the authority. Written first: two `init` at once cannot both succeed.
pub const KEY: &str = "ca.key";
/// The index of what was issued.
pub const INDEX: &str = "index.db";
/// The newest revocation list.
pub const LIST: &str = "crl.pem";
/// What stands above an intermediate, the root last. Not there for a root.
pub const CHAIN: &str = "chain.pem";
/// The request for the certificate, of an authority that another one signs.
pub const REQUEST: &str = "ca.csr";

/// What a new file does to an old one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The new one is refused.
    Keep,
    /// The old one goes, in one step.
    Replace,
}

/// Writes `content` to `path` with `mode`.
pub fn write(path: &Path, content: &[u8], mode: u32, existing: Existing) -> Result<(), StoreError> {
    let failed = |source| StoreError::Write {
        path: path.to_owned(),
        source,
    };
    let (temporary, mut file) = create_beside(path, mode).map_err(failed)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| match existing {
            Existing::Replace => fs::rename(&temporary, path),
            Existing::Keep => Ok(renameat_with(
                CWD,
                &temporary,
                CWD,
                path,
                RenameFlags::NOREPLACE,
            )?),
        });
    if let Err(source) = written {
        // Best effort: the error that matters is the one already at hand.
        let _ = fs::remove_file(&temporary);
        return Err(if source.kind() == io::ErrorKind::AlreadyExists {
            StoreError::Exists {
                path: path.to_owned(),
            }
        } else {
            failed(source)
        });
    }
    sync_folder(path)
}

/// Creates the empty file of a database, so that SQLite does not choose its mode.
pub(crate) fn create_empty(path: &Path) -> Result<(), StoreError> {
    write(path, b"", PRIVATE, Existing::Keep)
}

/// Creates the folder of an authority, unless it is there.
pub(crate) fn create_folder(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Write {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(failed),
    }
}

/// Lets nobody else enter the folder of an authority.
pub(crate) fn close_folder(path: &Path) -> Result<(), StoreError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|source| {
        StoreError::Write {
            path: path.to_owned(),
            source,
        }
    })
}

/// Waits for whoever else makes or changes the authority in `folder`; until the file is closed, the
/// others wait.
pub(crate) fn lock(folder: &Path) -> Result<File, StoreError> {
    let locked = File::open(folder).and_then(|file| file.lock().map(|()| file));
    locked.map_err(|source| StoreError::Read {
        path: folder.to_owned(),
        source,
    })
}

/// The same without waiting; `None` if somebody else has it.
pub(crate) fn try_lock(folder: &Path) -> Result<Option<File>, StoreError> {
    let failed = |source| StoreError::Read {
        path: folder.to_owned(),
        source,
    };
    let file = File::open(folder).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The files of a folder, if all of them are such as an authority has.
pub(crate) fn leftovers(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    for name in names(folder)? {
        let known = FILES.contains(&name.as_str())
            || FILES.iter().any(|file| is_temporary(&name, file))
            || name == JOURNAL;
        if !known {
            // Closing a folder that is in use for something else would break that.
            return Err(StoreError::NotEmpty {
                path: folder.to_owned(),
            });
        }
        found.push(folder.join(name));
    }
    found.sort();
    Ok(found)
}

/// Removes what writers of `name` that were ended left in `folder`, and says what it was.
pub(crate) fn remove_temporary(folder: &Path, name: &str) -> Result<Vec<PathBuf>, StoreError> {
    let mut removed = Vec::new();
    for found in names(folder)? {
        if is_temporary(&found, name) {
            let path = folder.join(found);
            remove(&path)?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// Removes what writers of `path` left that are no more, and says what it was: it may hold a key.
pub fn remove_abandoned(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    for found in names(folder_of(path))? {
        let writer = temporary(&found, name)
            .and_then(|middle| middle.split('-').next()?.parse().ok())
            .and_then(Pid::from_raw);
        if writer.is_some_and(|writer| test_kill_process(writer) == Err(Errno::SRCH)) {
            let path = path.with_file_name(found);
            remove(&path)?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// Removes a file, unless somebody else did.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Reads a text file that need not be there.
pub(crate) fn read_if_any(path: &Path) -> Result<Option<String>, StoreError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads a text file.
pub fn read(path: &Path) -> Result<String, StoreError> {
    fs::read_to_string(path).map_err(|source| StoreError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The certificates of the authority in `folder`, in DER: its own first, the root last.
pub fn read_chain(folder: &Path) -> Result<Vec<Vec<u8>>, StoreError> {
    let own = folder.join(CERTIFICATE);
    let above = read_if_any(&folder.join(CHAIN))?.unwrap_or_default();
    description::certificates((read(&own)? + &above).as_bytes())
        .filter(|found| !found.is_empty())
        .ok_or(StoreError::NoCertificate { path: own })
}

/// Reads a private key, unless somebody else could, too.
pub fn read_key(path: &Path) -> Result<Zeroizing<String>, StoreError> {
    let failed = |source| StoreError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & OTHERS != 0 {
        return Err(StoreError::Exposed {
            path: path.to_owned(),
            mode: metadata.mode() & 0o777,
        });
    }
    // Room for the whole file: a growing buffer would leave pieces of the key behind.
    let capacity = usize::try_from(metadata.len()).unwrap_or(0) + 1;
    let mut content = Zeroizing::new(String::with_capacity(capacity));
    file.read_to_string(&mut content).map_err(failed)?;
    Ok(content)
}

/// What went wrong with a file.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is there already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It should hold one.
    #[error("{} and what is beside it are not the certificates of an authority", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A folder for a new authority that is in use.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A key that others can read.
    #[error("{} is a private key that others may access (mode {mode:04o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// A new file in the folder of `path`, made by us and nobody else.
fn create_beside(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("this is not a file name"))?;
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{number}.tmp", std::process::id()));
        let temporary = path.with_file_name(temporary);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
        {
            // Left behind by a process of the same number that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|file| (temporary, file)),
        }
    }
}

/// What is in a folder; names that are not text belong to nobody here.
fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |source| StoreError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(
            entry
                .map_err(failed)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    Ok(names)
}

/// Whether `found` is a name that [`create_beside`] gives when it writes `name`.
fn is_temporary(found: &str, name: &str) -> bool {
    temporary(found, name).is_some()
}

/// What [`create_beside`] puts into the name when it writes `name`: the process, and a number.
fn temporary<'a>(found: &'a str, name: &str) -> Option<&'a str> {
    let middle = found
        .strip_prefix('.')?
        .strip_prefix(name)?
        .strip_prefix('.')?
        .strip_suffix(".tmp")?;
    let numbers = |byte: u8| byte.is_ascii_digit() || byte == b'-';
    middle.bytes().all(numbers).then_some(middle)
}

/// Where `path` is.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes the name of a file as durable as its content.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = folder_of(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StoreError::Write {
            path: path.to_owned(),
            source,
        })
}

/// Everything that the folder of an authority has.
const FILES: [&str; 6] = [CERTIFICATE, KEY, INDEX, LIST, CHAIN, REQUEST];

/// What SQLite has beside the index while it writes.
const JOURNAL: &str = "index.db-journal";

/// For the owner alone.
pub const PRIVATE: u32 = 0o600;
/// For everybody to read.
pub const PUBLIC: u32 = 0o644;

/// Every permission of the group and of others.
const OTHERS: u32 = 0o077;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_written_file_has_its_mode_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"secret", PRIVATE, Existing::Keep).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(read(&path).unwrap(), "secret");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_existing_file_is_kept_unless_replacing_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"old", PRIVATE, Existing::Keep).unwrap();
        let refused = write(&path, b"new", PRIVATE, Existing::Keep);
        assert!(matches!(refused, Err(StoreError::Exists { .. })));
        assert_eq!(read(&path).unwrap(), "old");
        write(&path, b"new", PRIVATE, Existing::Replace).unwrap();
        assert_eq!(read(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"secret", PRIVATE, Existing::Keep).unwrap();
        assert_eq!(read_key(&path).unwrap().as_str(), "secret");
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(read_key(&path), Err(StoreError::Exposed { .. })),
                "{mode:o}"
            );
        }
    }
}
