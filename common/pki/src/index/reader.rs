//! Reading an index without writing to it: for a gateway that only wants to know what was issued.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Index, IndexError, PATIENCE, VERSION, version};

impl Index {
    /// Opens the index at `path` to read it. It needs neither the authority's key nor the right to write.
    pub fn open_read_only(path: &Path) -> Result<Self, IndexError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        match version(&connection)? {
            VERSION => Ok(Self { connection }),
            version => Err(IndexError::Version { version }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    #[test]
    fn a_reader_reads_and_cannot_write() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut index = Index::open(file.path()).unwrap();
        index.record(&entry("01")).unwrap();
        let mut reader = Index::open_read_only(file.path()).unwrap();
        assert_eq!(reader.entries().unwrap(), [entry("01")]);
        assert!(reader.record(&entry("02")).is_err());
        index.record(&entry("02")).unwrap();
        assert_eq!(reader.entries().unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_an_index_is_not_made_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            Index::open_read_only(file.path()),
            Err(IndexError::Version { version: 0 })
        ));
        assert_eq!(std::fs::metadata(file.path()).unwrap().len(), 0);
    }
}
