//! Files on systems without Unix permissions: nothing can be proved private, so nothing secret is read.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

use super::FileError;

pub(super) fn check_private(path: &Path, _metadata: &Metadata) -> Result<(), FileError> {
    Err(FileError::System {
        path: path.into(),
        action: "check who can read",
        source: io::ErrorKind::Unsupported.into(),
    })
}

pub(super) fn identity(_metadata: &Metadata) -> u64 {
    0
}

pub(super) fn make_like(path: &Path, model: &Metadata) -> io::Result<()> {
    std::fs::set_permissions(path, model.permissions())
}

pub(super) fn create_new(path: &Path, _mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

pub(super) fn open_to_append(path: &Path, _mode: u32) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

pub(super) fn create_directory(path: &Path, _mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

pub(super) fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}
