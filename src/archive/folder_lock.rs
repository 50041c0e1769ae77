//! Keeps a second export out of a folder: two of them would take each other's files that are not whole yet
//! for those of a kill. Stores of objects have no locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use super::error::ArchiveError;

/// The file that is locked. Names that end in `#` and a number are no objects of an archive, as those of files
/// that are not whole yet. It stays behind: where it was removed, two exports could hold a lock of this name.
const LOCK_FILE: &str = "archive.lock#0";

/// Holds a folder as long as this lives, and no longer than the process does, however that ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock; none where the file system has no locks, which is told.
    ///
    /// # Errors
    /// When another export holds it, or the file cannot be written.
    pub(super) fn take(folder: &Path) -> Result<Option<Self>, ArchiveError> {
        let path = folder.join(LOCK_FILE);
        let file = path.display().to_string();
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let locked = opened.and_then(|opened| match opened.try_lock() {
            Ok(()) => Ok(Some(opened)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        });
        match locked {
            Ok(Some(file)) => Ok(Some(Self { _file: file })),
            Ok(None) => Err(ArchiveError::Locked { file }),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(file, %error, "a second export to this folder would not be noticed");
                Ok(None)
            }
            Err(source) => Err(ArchiveError::Lock { file, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ArchiveStore;

    #[tokio::test]
    async fn a_folder_is_held_by_one_until_that_ends_and_looks_empty() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArchiveStore::at(folder.path().to_str().unwrap(), &[]).unwrap();
        for _ in 0..2 {
            let lock = store.lock().unwrap();
            assert!(lock.is_some());
            let error = store.lock().unwrap_err().to_string();
            let path = folder.path().join("archive.lock#0");
            assert_eq!(
                error,
                format!(
                    "`{}` is held by another export to the same folder, expected one at a time",
                    path.display()
                )
            );
            assert_eq!(store.any_object().await.unwrap(), None);
            assert!(store.list("").await.unwrap().is_empty());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let error = FolderLock::take(Path::new("/proc/none")).unwrap_err();
        let expected = "cannot lock `/proc/none/archive.lock#0`: ";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
