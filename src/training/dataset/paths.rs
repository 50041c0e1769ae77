//! Paths that come from a data set's own tables.

use std::path::{Component, Path, PathBuf};

/// `root` with a path below it. A table that names files elsewhere, by mistake or by malice, is
/// refused: nothing outside the data set's folder is read.
pub(super) fn below(root: &Path, relative: &str) -> Result<PathBuf, String> {
    let is_inside =
        |component: Component<'_>| matches!(component, Component::Normal(_) | Component::CurDir);
    let path = Path::new(relative);
    if relative.is_empty() || !path.components().all(is_inside) {
        return Err(format!(
            "expected a path below the data set's folder, found `{relative}`"
        ));
    }
    Ok(root.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_its_root() {
        let root = Path::new("/data/set");
        for inside in ["a/b.png", "./a/b.png", "a..b/c.png"] {
            assert!(below(root, inside).unwrap().starts_with(root), "{inside}");
        }
        for outside in ["../b.png", "a/../../b.png", "a/..", "/etc/passwd", "/", ""] {
            let error = below(root, outside).unwrap_err();
            assert!(error.contains(&format!("found `{outside}`")), "{error}");
        }
    }
}
