//! What commands that keep checkpoints ask of them before anything long begins.

use super::outputs;
use crate::training::iteration::CheckpointSettings;

/// # Errors
/// When there is a checkpoint that nothing was said about (hours of work are not overwritten), none
/// to go on from, or no place to write one.
pub(super) fn check(settings: &CheckpointSettings) -> anyhow::Result<()> {
    let Some(file) = &settings.file else {
        return Ok(());
    };
    match (file.exists(), settings.resume) {
        (true, false) => anyhow::bail!(
            "there is the checkpoint `{}` of an earlier run: go on from it with `--resume`, or \
             remove it",
            file.display()
        ),
        (false, true) => anyhow::bail!(
            "there is no checkpoint `{}` to go on from: leave `--resume` away to begin anew",
            file.display()
        ),
        _ => outputs::check_file(file),
    }
}
