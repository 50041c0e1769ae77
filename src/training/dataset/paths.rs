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

/// A class's name becomes a folder's name in what is written: one that leads elsewhere is refused.
pub(super) fn check_class(name: &str) -> Result<(), String> {
    let is_one_name = Path::new(name)
        .components()
        .eq([Component::Normal(name.as_ref())]);
    match is_one_name {
        true => Ok(()),
        false => Err(format!(
            "expected the name of a class without `/`, found `{name}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_one_name() {
        for name in ["candle", "pcb 1", "..candle", ".candle"] {
            assert_eq!(check_class(name), Ok(()));
        }
        for name in ["..", ".", "", "/", "/etc", "a/b", "../a", "a/", "./a"] {
            let error = check_class(name).unwrap_err();
            assert!(error.contains(&format!("found `{name}`")), "{error}");
        }
    }

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
