//! Owners and permissions of Unix.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::Path;

use super::FileError;

pub(super) fn check_private(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() && Some(owner) != behind_sudo() {
        return Err(FileError::Foreign {
            path: path.into(),
            owner,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(FileError::NotPrivate {
            path: path.into(),
            mode,
        });
    }
    Ok(())
}

/// A file that took another's place has another number.
pub(super) fn identity(metadata: &Metadata) -> u64 {
    metadata.ino()
}

/// `sudo adit up my-profile.toml`: root acts for this user, whose file it is.
fn behind_sudo() -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    std::env::var("SUDO_UID").ok()?.parse().ok()
}

/// Gives a file the owner and the permissions of another.
pub(super) fn make_like(path: &Path, model: &Metadata) -> io::Result<()> {
    let file = File::open(path)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
        fchown(&file, Some(model.uid()), Some(model.gid()))?;
    }
    // After the owner, with whom some of them would go.
    file.set_permissions(Permissions::from_mode(model.mode() & 0o7777))?;
    file.sync_all()
}

pub(super) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

pub(super) fn open_or_create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .open(path)
}

pub(super) fn open_to_append(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode)
        .open(path)
}

pub(super) fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
