//! Files that are replaced whole or not at all.
//!
//! The bytes go to `<name>.unfinished` beside the file, from there to the disk, and only then to
//! the file's name; the folder's entry is brought to the disk last. So a crash, a kill or a full
//! disk leaves the old file or the new one, never half of one. Checkpoints and bundles are written
//! this way and no other.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Replaces the file at `path`, or makes it; its folder must be there.
///
/// # Errors
/// What the system said. The file is then as it was before, and what was written so far is gone.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = unfinished(path)?;
    let renamed = write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = renamed {
        // The first error tells the cause. A file that cannot be removed either is overwritten by
        // the next attempt.
        drop(fs::remove_file(&unfinished));
        return Err(error);
    }
    File::open(folder(path))?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Where the bytes go first; the same name each time, so that killed attempts do not pile up.
fn unfinished(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected the path of a file",
        ));
    };
    let mut name = name.to_owned();
    name.push(".unfinished");
    Ok(path.with_file_name(name))
}

/// The folder that the path's last name is an entry of.
pub fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_are_there_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.bin");
        for bytes in [&b"first, and longer"[..], b"second"] {
            replace(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// `/dev/full` takes no byte, as a full disk.
    #[test]
    fn a_full_disk_leaves_the_old_file_and_no_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.bin");
        replace(&path, b"old").unwrap();
        let unfinished = unfinished(&path).unwrap();
        std::os::unix::fs::symlink("/dev/full", &unfinished).unwrap();
        let error = replace(&path, b"new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(!unfinished.is_symlink());
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn what_a_killed_attempt_left_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.bin");
        fs::write(unfinished(&path).unwrap(), b"half of a longer fi").unwrap();
        replace(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
