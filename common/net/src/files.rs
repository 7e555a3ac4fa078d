//! Files that hold secrets or state.
//!
//! What is secret is refused when others can read it, and is private from its first byte when written. What is
//! state is replaced whole or not at all, also when the power fails. Every error names the path.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

#[cfg_attr(unix, path = "files/unix.rs")]
#[cfg_attr(not(unix), path = "files/unsupported.rs")]
mod os;

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let bytes = read(path)?;
    String::from_utf8(bytes).map_err(|_| FileError::NotText { path: path.into() })
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(FileError::of(path, "open"))?;
    read_open(path, file)
}

/// Which versions of some files are there, told without reading them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions(Vec<(PathBuf, Option<Stamp>)>);

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<std::time::SystemTime>,
    length: u64,
    identity: u64,
}

impl Versions {
    /// Those that are there now.
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let stamped = paths.into_iter().map(|path| {
            let stamp = stamp(&path);
            (path, stamp)
        });
        Self(stamped.collect())
    }

    /// Those of the same files that are there now.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::of(self.0.iter().map(|(path, _)| path.clone()))
    }

    /// Adds a file, unless it is one of them.
    pub fn add(&mut self, path: &Path) {
        if self.0.iter().all(|(known, _)| known != path) {
            self.0.push((path.to_owned(), stamp(path)));
        }
    }
}

/// `None` when there is no such file.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        identity: os::identity(&metadata),
    })
}

/// Reads a file that holds a secret, and refuses one that another user can read or could have written.
pub fn read_private(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(FileError::of(path, "open"))?;
    // The open file is asked, not the path, which may name another one by then.
    let metadata = file.metadata().map_err(FileError::of(path, "stat"))?;
    os::check_private(path, &metadata)?;
    read_open(path, file)
}

/// [`read_private`] for a file of text.
pub fn read_private_text(path: &Path) -> Result<String, FileError> {
    let bytes = read_private(path)?;
    String::from_utf8(bytes).map_err(|_| FileError::NotText { path: path.into() })
}

/// Replaces a file that only its owner may read; it never exists with other permissions or half of its contents.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    replace(path, contents, 0o600)
}

/// Replaces a file that everybody may read.
pub fn write_public(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    replace(path, contents, 0o644)
}

/// Writes a file with the owner and the permissions of another, in place of what is there; it is private until it has
/// them, and never half of its contents.
pub fn write_like(path: &Path, model: &Path, contents: &[u8]) -> Result<(), FileError> {
    let metadata = fs::metadata(model).map_err(FileError::of(model, "stat"))?;
    let temporary = write_temporary(path, contents, 0o600)?;
    os::make_like(&temporary.0, &metadata)
        .map_err(FileError::of(path, "keep owner and permissions of"))?;
    put_in_place(temporary, path)
}

/// Finds out whether [`write_like`] can replace a file, which stays as it is.
pub fn probe(path: &Path) -> Result<(), FileError> {
    let metadata = fs::metadata(path).map_err(FileError::of(path, "stat"))?;
    let temporary = write_temporary(path, b"", 0o600)?;
    os::make_like(&temporary.0, &metadata)
        .map_err(FileError::of(path, "keep owner and permissions of"))
}

/// The file itself where links lead to it, so that what is replaced is not the link.
pub fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Gives a file the place of another in the same directory.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::of(to, "replace"))?;
    sync_directory(to)
}

/// Writes a private file that must not exist yet: a key is never overwritten.
pub fn create_private(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    let temporary = write_temporary(path, contents, 0o600)?;
    // A hard link fails when the name is taken, where a rename would replace it.
    let linked = fs::hard_link(&temporary.0, path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.into() },
        _ => FileError::of(path, "create")(source),
    });
    drop(temporary);
    linked?;
    sync_directory(path)
}

/// Opens a private file to write at its end; one that is missing is made, with the directories it is in.
pub fn append_private(path: &Path) -> Result<File, FileError> {
    if let Some(directory) = path.parent() {
        create_state_directory(directory)?;
    }
    os::open_to_append(path, 0o600).map_err(FileError::of(path, "open"))
}

/// Removes a file; one that does not exist is removed already.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::of(path, "remove")(error))
        }
        _ => Ok(()),
    }
}

/// Moves a damaged file out of the way, to a name that is free, and gives that name. Nothing of it is lost.
pub fn put_aside(path: &Path) -> Result<PathBuf, FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for number in 1..=MAX_ASIDE {
        let aside = match number {
            1 => path.with_file_name(format!("{name}.damaged")),
            _ => path.with_file_name(format!("{name}.damaged.{number}")),
        };
        // A hard link fails when the name is taken, where a rename would replace what is there.
        match fs::hard_link(path, &aside) {
            Ok(()) => {
                fs::remove_file(path).map_err(FileError::of(path, "move away"))?;
                sync_directory(path)?;
                return Ok(aside);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(FileError::of(path, "move away")(error)),
        }
    }
    Err(FileError::of(path, "move away")(
        io::ErrorKind::AlreadyExists.into(),
    ))
}

/// Removes what processes that were killed while they replaced `path` left beside it, and gives the names. For the
/// one process that writes to `path`.
pub fn remove_leftovers(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let directory = parent(path);
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut left = list(directory)?;
    left.retain(|found| is_temporary_of(path, found));
    left.iter().try_for_each(|found| remove(found))?;
    Ok(left)
}

/// Lists what is in a directory, in order.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = fs::read_dir(directory).map_err(FileError::of(directory, "read"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: io::Result<Vec<PathBuf>> = paths.collect();
    let mut paths = paths.map_err(FileError::of(directory, "read"))?;
    paths.sort();
    Ok(paths)
}

/// Makes a directory for state, with its parents, that only its owner may enter. An existing one stays as it is.
pub fn create_state_directory(path: &Path) -> Result<(), FileError> {
    let missing = path.ancestors().take_while(|path| !is_there(path));
    let missing: Vec<&Path> = missing.collect();
    os::create_directory(path, 0o700).map_err(FileError::of(path, "create"))?;
    missing.into_iter().try_for_each(sync_directory)
}

fn is_there(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.exists()
}

/// Makes a directory that everybody may enter, for sockets with permissions of their own.
#[cfg(unix)]
pub(crate) fn create_open_directory(path: &Path) -> io::Result<()> {
    os::create_directory(path, 0o755)
}

/// Opens a private file whose contents do not matter.
#[cfg(unix)]
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    os::open_or_create(path, 0o600)
}

fn read_open(path: &Path, file: File) -> Result<Vec<u8>, FileError> {
    let mut contents = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut contents)
        .map_err(FileError::of(path, "read"))?;
    if contents.len() as u64 > MAX_FILE {
        return Err(FileError::TooLong { path: path.into() });
    }
    Ok(contents)
}

fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    put_in_place(write_temporary(path, contents, mode)?, path)
}

fn put_in_place(temporary: Temporary, path: &Path) -> Result<(), FileError> {
    fs::rename(&temporary.0, path).map_err(FileError::of(path, "replace"))?;
    std::mem::forget(temporary);
    sync_directory(path)
}

/// A file to be removed unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes next to `path`, since a rename does not leave its file system.
fn write_temporary(path: &Path, contents: &[u8], mode: u32) -> Result<Temporary, FileError> {
    for attempt in 0..MAX_LEFTOVERS {
        let mut name = temporary_prefix(path);
        name.push(format!("{}.{attempt}", std::process::id()));
        let temporary = path.with_file_name(name);
        let mut file = match os::create_new(&temporary, mode) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(FileError::of(path, "create")(error)),
        };
        let temporary = Temporary(temporary);
        file.write_all(contents)
            .and_then(|()| file.sync_all())
            .map_err(FileError::of(path, "write"))?;
        return Ok(temporary);
    }
    Err(FileError::of(path, "create")(
        io::ErrorKind::AlreadyExists.into(),
    ))
}

/// How the names of all temporary files for `path` begin; what follows is the process and a number.
fn temporary_prefix(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name
}

fn is_temporary_of(path: &Path, found: &Path) -> bool {
    let name = found.file_name().unwrap_or_default().as_encoded_bytes();
    let rest = name.strip_prefix(temporary_prefix(path).as_encoded_bytes());
    let numbers = rest.map(|rest| rest.split(|&byte| byte == b'.'));
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    numbers.is_some_and(|mut numbers| {
        numbers.next().is_some_and(is_number)
            && numbers.next().is_some_and(is_number)
            && numbers.next().is_none()
    })
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    os::sync_directory(parent(path)).map_err(FileError::of(path, "sync the directory of"))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Why a file could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// This user may not do that.
    #[error("no permission to {action} {}", path.display())]
    Permission {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
    },
    /// A secret that others can read.
    #[error("{} can be read by other users (mode {mode:04o})", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A secret that belongs to somebody else.
    #[error("{} belongs to another user (uid {owner})", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It would have been overwritten.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Not UTF-8.
    #[error("{} is not a text file", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// Longer than anything Adit reads.
    #[error("{} is longer than {MAX_FILE} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot {action} {}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl FileError {
    fn of(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path.into() },
            io::ErrorKind::PermissionDenied => Self::Permission {
                path: path.into(),
                action,
            },
            _ => Self::System {
                path: path.into(),
                action,
                source,
            },
        }
    }

    /// What was to be written has no form on the disk: a fault of the program.
    pub(crate) fn unrepresentable(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        move |error| Self::of(path, "write")(io::Error::other(error))
    }

    /// Whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotPrivate { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::Foreign { path, .. } => Some(format!(
                "make a copy of your own, or `chown` it: nobody else should be able to write {}",
                path.display()
            )),
            Self::Permission { .. } => Some("run as the owner of the file, or as root".into()),
            Self::Exists { .. } => Some("move it away first; Adit does not overwrite keys".into()),
            Self::Missing { .. }
            | Self::NotText { .. }
            | Self::TooLong { .. }
            | Self::System { .. } => None,
        }
    }
}

/// Certificates, policies and revocation lists are far smaller; a mistyped device path is not.
const MAX_FILE: u64 = 64 << 20;

/// Temporary files a crashed process with the same id may have left.
const MAX_LEFTOVERS: u32 = 16;

/// More damaged files of one name than anybody has looked at.
const MAX_ASIDE: u32 = 100;

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_private_file_is_private_and_replaced_whole() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("profile.toml");
        write_private(&path, b"one").expect("written");
        write_private(&path, b"two").expect("replaced");
        let mode = fs::metadata(&path).expect("written").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(read_private(&path).expect("private"), b"two");
        let left = fs::read_dir(directory.path()).expect("readable").count();
        assert_eq!(left, 1, "no temporary file stays");
    }

    #[test]
    fn a_secret_others_can_read_is_refused_with_the_command_that_helps() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("key.pem");
        fs::write(&path, b"secret").expect("written");
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            let error = read_private(&path).expect_err("not private");
            assert!(matches!(error, FileError::NotPrivate { .. }), "{error}");
            assert_eq!(error.hint(), Some(format!("chmod 600 {}", path.display())));
        }
    }

    #[test]
    fn a_file_that_is_written_like_another_has_its_permissions() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("alice.pem");
        fs::write(&path, b"one").expect("written");
        for mode in [0o644, 0o400, 0o640] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            probe(&path).expect("replaceable");
            write_like(&path, &path, b"two").expect("replaced");
            let metadata = fs::metadata(&path).expect("there");
            assert_eq!(metadata.permissions().mode() & 0o7777, mode);
            assert_eq!(read(&path).expect("readable"), b"two");
        }
        let left = fs::read_dir(directory.path()).expect("readable").count();
        assert_eq!(left, 1, "no temporary file stays");
        let missing = directory.path().join("bob.pem");
        assert!(write_like(&missing, &missing, b"").is_err_and(|error| error.is_missing()));
    }

    #[test]
    fn only_what_is_left_of_attempts_to_write_a_file_is_removed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let names = [
            "a",
            ".a.1.0",
            ".a.12.15",
            ".a.1",
            ".a.next",
            ".a.next.1.0",
            ".ab.1.0",
        ];
        for name in names {
            fs::write(directory.path().join(name), b"").expect("written");
        }
        remove_leftovers(&directory.path().join("a")).expect("removed");
        let left = list(directory.path()).expect("listed");
        let left: Vec<_> = left
            .iter()
            .filter_map(|path| path.file_name()?.to_str())
            .collect();
        assert_eq!(left, [".a.1", ".a.next", ".a.next.1.0", ".ab.1.0", "a"]);
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("ca.key");
        create_private(&path, b"first").expect("created");
        let error = create_private(&path, b"second").expect_err("taken");
        assert!(matches!(error, FileError::Exists { .. }), "{error}");
        assert_eq!(read_private(&path).expect("private"), b"first");
    }

    #[test]
    fn what_a_killed_process_left_of_a_file_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name);
        let others = [
            "leases.json",
            ".leases.json",
            ".leases.json.12",
            ".leases.json.12.x",
            ".leases.json.12.3.4",
            ".usage.json.12.3",
            "leases.json.12.3",
        ];
        for name in others.into_iter().chain([".leases.json.12.3"]) {
            fs::write(at(name), b"half").expect("written");
        }
        let removed = remove_leftovers(&at("leases.json")).expect("removed");
        assert_eq!(removed, [at(".leases.json.12.3")]);
        assert!(others.iter().all(|name| at(name).exists()));
        assert!(!at(".leases.json.12.3").exists());
        let nowhere = at("nowhere/leases.json");
        assert_eq!(
            remove_leftovers(&nowhere).expect("no directory"),
            [""; 0].map(PathBuf::from)
        );
    }

    #[test]
    fn damaged_files_are_put_aside_one_beside_the_other() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("leases.json");
        for (text, name) in [
            ("one", "leases.json.damaged"),
            ("two", "leases.json.damaged.2"),
        ] {
            fs::write(&path, text).expect("written");
            let aside = put_aside(&path).expect("moved");
            assert_eq!(aside, directory.path().join(name));
            assert!(!path.exists());
        }
        let first = directory.path().join("leases.json.damaged");
        assert_eq!(fs::read_to_string(first).expect("there"), "one");
        assert!(put_aside(&path).expect_err("nothing there").is_missing());
    }

    #[test]
    fn an_error_names_the_path() {
        let error = read_text(Path::new("/nowhere/policy.toml")).expect_err("missing");
        assert_eq!(error.to_string(), "/nowhere/policy.toml does not exist");
        assert!(error.is_missing());
    }
}
