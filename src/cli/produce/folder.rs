//! What `produce` publishes: the parts of a folder, with what their records need to know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};

use crate::domain::Timestamp;
use crate::image_folder::{self, PartImages};

/// One image of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageFile {
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
/// When the folder cannot be read, holds no part, or gives two parts one name.
pub(super) fn find_parts(folder: &Path) -> anyhow::Result<Vec<PartFolder>> {
    let found = image_folder::find_parts(folder).context("failed to list the images")?;
    let mut class_of: BTreeMap<&str, &str> = BTreeMap::new();
    let mut views_of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for PartImages {
        class,
        part,
        images,
    } in &found
    {
        if let Some(other) = class_of.insert(part, class) {
            bail!(
                "part `{part}` is in two classes, `{other}` and `{class}`; a part ID must be unique"
            );
        }
        let views = images.iter().map(|image| image.view.as_str());
        views_of.entry(class).or_default().extend(views);
    }
    found
        .iter()
        .map(|part| {
            let images = part.images.iter().map(look_at);
            Ok(PartFolder {
                class: part.class.clone(),
                part: part.part.clone(),
                images: images.collect::<anyhow::Result<_>>()?,
                expected_views: views_of[part.class.as_str()].len(),
            })
        })
        .collect()
}

fn look_at(image: &image_folder::ImageFile) -> anyhow::Result<ImageFile> {
    let metadata = std::fs::metadata(&image.path)
        .with_context(|| format!("failed to look at `{}`", image.path.display()))?;
    Ok(ImageFile {
        view: image.view.clone(),
        path: image.path.clone(),
        content_type: image.content_type,
        bytes: metadata.len(),
        modified_at: metadata.modified().map_or(Timestamp(0), timestamp_of),
    })
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
    use crate::image_folder::tests::folder_of;

    #[test]
    fn a_part_that_has_fewer_views_than_its_class_lacks_some() {
        let files = [
            "bolt/b1/top.jpg",
            "bolt/b1/left.png",
            "bolt/b2/top.jpg",
            "gear/g1/top.tif",
        ];
        let folder = folder_of(&files);
        let parts = find_parts(folder.path()).unwrap();
        let found: Vec<(&str, usize, usize)> = parts
            .iter()
            .map(|part| (part.part.as_str(), part.images.len(), part.expected_views))
            .collect();
        assert_eq!(found, [("b1", 2, 2), ("b2", 1, 2), ("g1", 1, 1)]);
        assert_eq!(parts[0].images[0].bytes, 5);
    }

    #[test]
    fn a_part_in_two_classes_is_refused() {
        let folder = folder_of(&["bolt/p1/top.jpg", "gear/p1/top.jpg"]);
        let error = find_parts(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("`p1`") && error.contains("`gear`"),
            "{error}"
        );
    }
}
