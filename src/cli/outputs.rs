//! Files that commands write when they are done: their places are tried before anything long begins,
//! so that hours of work are not lost to a mistyped folder.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::whole_file;

/// Makes the folder that `file` will be in and tries to write there; leaves nothing but the folder.
///
/// # Errors
/// When there is a folder of that name, or no file can be written.
pub(super) fn check_file(file: &Path) -> anyhow::Result<()> {
    ensure!(
        !file.is_dir(),
        "cannot write `{}`: expected a file, found a folder",
        file.display()
    );
    match is_special(file) {
        true => Ok(()),
        false => check_folder(whole_file::folder(file)),
    }
}

/// Makes the folder and tries to write into it; leaves nothing but the folder.
///
/// # Errors
/// When it cannot be made, or no file can be written in it.
pub(super) fn check_folder(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    // Commands that run side by side do not remove each other's.
    let probe = folder.join(format!(".panoptes-{}", std::process::id()));
    File::create(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .with_context(|| format!("cannot write into the folder `{}`", folder.display()))
}

/// Writes a file whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let written = match is_special(file) {
        true => fs::write(file, text),
        false => whole_file::replace(file, text.as_bytes()),
    };
    written.with_context(|| format!("cannot write `{}`", file.display()))
}

/// A device or a pipe, such as `/dev/stderr`: it is written to, not replaced.
fn is_special(file: &Path) -> bool {
    file.exists() && !file.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_made_and_left_empty() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out/figures/x.md");
        check_file(&file).unwrap();
        let parent = file.parent().unwrap();
        assert_eq!(fs::read_dir(parent).unwrap().count(), 0);
        write(&file, "figures").unwrap();
        check_file(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "figures");
        assert_eq!(fs::read_dir(parent).unwrap().count(), 1);
    }

    #[test]
    fn places_that_cannot_be_written_to_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = |file: &Path| format!("{:#}", check_file(file).unwrap_err());
        let there = error(folder.path());
        assert!(
            there.ends_with("expected a file, found a folder"),
            "{there}"
        );
        let plain = folder.path().join("plain");
        fs::write(&plain, "x").unwrap();
        let below = error(&plain.join("x.md"));
        let expected = format!("cannot make the folder `{}`", plain.display());
        assert!(below.starts_with(&expected), "{below}");
        // Nobody can make a file there, whatever rights the test runs with.
        let refused = error(Path::new("/proc/x.md"));
        assert!(refused.starts_with("cannot write into the folder `/proc`"));
    }

    #[test]
    fn a_device_is_written_to_and_stays() {
        let device = Path::new("/dev/null");
        check_file(device).unwrap();
        write(device, "figures").unwrap();
        assert!(is_special(device));
    }
}
