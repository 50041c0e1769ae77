//! What `produce` publishes: the parts under `<class>/<part>/<view>.<extension>`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};

use crate::domain::Timestamp;

/// File extensions with their content types.
const CONTENT_TYPES: [(&str, &str); 7] = [
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("png", "image/png"),
    ("bmp", "image/bmp"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("webp", "image/webp"),
];

/// One image of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageFile {
    /// File name without extension.
    pub(super) view: String,
    pub(super) path: PathBuf,
    pub(super) content_type: &'static str,
    pub(super) bytes: u64,
    /// When the file was last written.
    pub(super) modified_at: Timestamp,
}

/// One part and its images, by view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartFolder {
    pub(super) class: String,
    pub(super) part: String,
    pub(super) images: Vec<ImageFile>,
    /// How many different views the parts of this class have; a part that has fewer lacks one.
    pub(super) expected_views: usize,
}

impl PartFolder {
    /// When its first image was written.
    pub(super) fn first_modified_at(&self) -> Timestamp {
        self.images
            .iter()
            .map(|image| image.modified_at)
            .min()
            .unwrap_or(Timestamp(0))
    }
}

/// Finds all parts, by class and name.
///
/// # Errors
/// When the folder cannot be read, holds no part, or gives two parts or two views one name.
pub(super) fn find_parts(folder: &Path) -> anyhow::Result<Vec<PartFolder>> {
    let mut parts = Vec::new();
    let mut class_of: BTreeMap<String, String> = BTreeMap::new();
    for (class, class_path) in subfolders(folder)? {
        let first = parts.len();
        for (part, part_path) in subfolders(&class_path)? {
            let images = find_images(&part_path)?;
            if images.is_empty() {
                continue;
            }
            if let Some(other) = class_of.insert(part.clone(), class.clone()) {
                bail!(
                    "part `{part}` is in two classes, `{other}` and `{class}`; a part ID must be unique"
                );
            }
            parts.push(PartFolder {
                class: class.clone(),
                part,
                images,
                expected_views: 0,
            });
        }
        let of_class = &mut parts[first..];
        let views: BTreeSet<String> = of_class
            .iter()
            .flat_map(|part| &part.images)
            .map(|image| image.view.clone())
            .collect();
        for part in of_class {
            part.expected_views = views.len();
        }
    }
    ensure!(
        !parts.is_empty(),
        "expected images as `<class>/<part>/<view>.jpg` in `{}`, found none",
        folder.display()
    );
    Ok(parts)
}

fn find_images(folder: &Path) -> anyhow::Result<Vec<ImageFile>> {
    let mut images: BTreeMap<String, ImageFile> = BTreeMap::new();
    for entry in entries(folder)? {
        let path = entry.path();
        let Some((view, content_type)) = view_and_type(&path) else {
            continue;
        };
        let metadata = std::fs::metadata(&path)
            .with_context(|| format!("failed to look at `{}`", path.display()))?;
        if !metadata.is_file() {
            continue;
        }
        let modified_at = metadata.modified().map_or(Timestamp(0), timestamp_of);
        let image = ImageFile {
            view: view.clone(),
            content_type,
            bytes: metadata.len(),
            modified_at,
            path,
        };
        if let Some(other) = images.insert(view.clone(), image) {
            bail!(
                "view `{view}` has two images in `{}`, `{}` is one",
                folder.display(),
                other.path.display()
            );
        }
    }
    Ok(images.into_values().collect())
}

/// The view that a file shows and its content type; none for a file that is no image.
fn view_and_type(path: &Path) -> Option<(String, &'static str)> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    let (_, content_type) = CONTENT_TYPES
        .iter()
        .find(|(known, _)| *known == extension)?;
    Some((path.file_stem()?.to_str()?.to_owned(), content_type))
}

/// Name and path of each folder within, by name.
fn subfolders(folder: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in entries(folder)? {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        let name = entry.file_name().into_string().map_err(|name| {
            anyhow::anyhow!(
                "expected a folder name in UTF-8, found `{}`",
                name.display()
            )
        })?;
        found.push((name, path));
    }
    found.sort();
    Ok(found)
}

/// What is in a folder, but for hidden names.
fn entries(folder: &Path) -> anyhow::Result<Vec<std::fs::DirEntry>> {
    let failed = || format!("failed to read the folder `{}`", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Epoch milliseconds of a system time.
pub(super) fn timestamp_of(time: SystemTime) -> Timestamp {
    let millis = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[&str]) {
        for file in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"image").unwrap();
        }
    }

    #[test]
    fn finds_parts_by_class_and_name_and_what_they_lack() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            "bolt/b2/top.jpg",
            "bolt/b1/top.jpg",
            "bolt/b1/left.PNG",
            "bolt/b1/notes.txt",
            "bolt/.hidden/top.jpg",
            "gear/g1/top.tif",
            "gear/empty/readme.md",
            "truth.csv",
        ];
        write(folder.path(), &files);
        let parts = find_parts(folder.path()).unwrap();
        let found: Vec<(&str, &str, usize, usize)> = parts
            .iter()
            .map(|part| {
                (
                    part.class.as_str(),
                    part.part.as_str(),
                    part.images.len(),
                    part.expected_views,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("bolt", "b1", 2, 2),
                ("bolt", "b2", 1, 2),
                ("gear", "g1", 1, 1)
            ]
        );
        assert_eq!(parts[0].images[0].content_type, "image/png");
    }

    #[test]
    fn a_part_in_two_classes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &["bolt/p1/top.jpg", "gear/p1/top.jpg"]);
        let error = find_parts(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("`p1`") && error.contains("`gear`"),
            "{error}"
        );
    }

    #[test]
    fn a_view_with_two_images_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &["bolt/p1/top.jpg", "bolt/p1/top.png"]);
        assert!(find_parts(folder.path()).is_err());
    }

    #[test]
    fn a_folder_without_parts_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &["p1/top.jpg"]);
        let error = find_parts(folder.path()).unwrap_err().to_string();
        assert!(error.contains("`<class>/<part>/<view>.jpg`"), "{error}");
        assert!(find_parts(&folder.path().join("absent")).is_err());
    }
}
