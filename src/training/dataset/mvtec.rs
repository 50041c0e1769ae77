//! MVTec AD and sets in its layout: `<class>/train/good/*.png`, `<class>/test/<defect|good>/*.png`,
//! `<class>/ground_truth/<defect>/<name>_mask.png` (or `<name>.png`, as some others have it).
//!
//! Each image is a part of one view.

use std::path::{Path, PathBuf};

use super::folders::find_masks;
use super::layout::{Layout, Listing, Split};
use super::{PartFolder, fault};
use crate::image_folder::{ImageFile, find_images, subfolders};
use crate::training::TrainingError;

/// The folder of images without a defect.
const GOOD: &str = "good";

/// Whether a folder has a class in this layout.
pub(super) fn is_at(root: &Path) -> Result<bool, TrainingError> {
    let classes = subfolders(root)?;
    Ok(classes
        .iter()
        .any(|(_, path)| path.join("train").join(GOOD).is_dir()))
}

/// Lists a split.
pub(super) fn list(root: &Path, split: Split) -> Result<Listing, TrainingError> {
    let mut listing = Listing::new(Layout::Mvtec, Some(split));
    for (class, path) in subfolders(root)? {
        let has = |split: Split| path.join(split.as_str()).is_dir();
        let parts = match (has(split), has(split.other())) {
            (true, _) => parts_of(&class, &path, split)?,
            (false, true) => Vec::new(),
            // A folder beside the classes, for licences or figures.
            (false, false) => continue,
        };
        listing.class(&class, parts.is_empty());
        listing.parts.extend(parts);
    }
    Ok(listing)
}

fn parts_of(class: &str, path: &Path, split: Split) -> Result<Vec<PartFolder>, TrainingError> {
    let mut parts = Vec::new();
    for (kind, folder) in subfolders(&path.join(split.as_str()))? {
        if kind != GOOD && split == Split::Train {
            let message = "expected good images alone to train on, in `good/`";
            return Err(fault(&folder, message));
        }
        let masks = match kind.as_str() {
            GOOD => None,
            _ => Some(masks_of(path, &kind)?),
        };
        for image in find_images(&folder)? {
            let mask = masks.as_deref().map(|masks| mask_of(&image, masks));
            let (name, mask) = (format!("{kind}-{}", image.view), mask.transpose()?);
            parts.push(PartFolder::of_one_view(class, name, image.path, mask));
        }
    }
    Ok(parts)
}

fn masks_of(class: &Path, kind: &str) -> Result<Vec<ImageFile>, TrainingError> {
    let folder = class.join("ground_truth").join(kind);
    if !folder.is_dir() {
        let message = format!("expected a folder of masks for the defect `{kind}`, found none");
        return Err(fault(&folder, message));
    }
    find_masks(&folder)
}

fn mask_of(image: &ImageFile, masks: &[ImageFile]) -> Result<PathBuf, TrainingError> {
    let named = [format!("{}_mask", image.view), image.view.clone()];
    let found = named
        .iter()
        .find_map(|name| masks.iter().find(|mask| mask.view == *name));
    found.map(|mask| mask.path.clone()).ok_or_else(|| {
        let message = format!(
            "expected a mask `{}` of this defective image, found none",
            named[0]
        );
        fault(&image.path, message)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{outline, source, write_level as write};
    use super::*;

    fn write_class(root: &Path) {
        write(&root.join("bottle/train/good/001.png"), 9);
        write(&root.join("bottle/train/good/000.png"), 9);
        write(&root.join("bottle/test/good/000.png"), 9);
        write(&root.join("bottle/test/crack/000.png"), 9);
        write(&root.join("bottle/test/crack/001.png"), 9);
        write(&root.join("bottle/ground_truth/crack/000_mask.png"), 255);
        write(&root.join("bottle/ground_truth/crack/001.png"), 255);
        std::fs::create_dir_all(root.join("figures")).unwrap();
    }

    #[test]
    fn each_image_is_a_part_of_one_view() {
        let folder = tempfile::tempdir().unwrap();
        write_class(folder.path());
        let mut source = source(folder.path());
        let listing = source.list().unwrap();
        assert_eq!(listing.layout, Layout::Mvtec);
        assert_eq!(listing.warnings, Vec::<String>::new());
        assert_eq!(
            outline(&listing.parts),
            ["bottle/good-000: image", "bottle/good-001: image"]
        );
        source.split = Some(Split::Test);
        let parts = source.list().unwrap().parts;
        assert_eq!(
            outline(&parts),
            [
                "bottle/crack-000: image!",
                "bottle/crack-001: image!",
                "bottle/good-000: image"
            ]
        );
        let mask = parts[0].views[0].mask.as_deref().unwrap();
        assert!(mask.ends_with("ground_truth/crack/000_mask.png"));
    }

    #[test]
    fn a_defective_image_without_its_mask_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write_class(folder.path());
        write(&folder.path().join("bottle/test/crack/002.png"), 9);
        let error = list(folder.path(), Split::Test).unwrap_err().to_string();
        assert!(
            error.contains("crack/002.png") && error.contains("`002_mask`"),
            "{error}"
        );
        write(&folder.path().join("bottle/test/dent/000.png"), 9);
        std::fs::remove_file(folder.path().join("bottle/test/crack/002.png")).unwrap();
        let error = list(folder.path(), Split::Test).unwrap_err().to_string();
        assert!(error.contains("ground_truth/dent"), "{error}");
    }

    #[test]
    fn defects_among_the_training_images_are_refused_and_an_empty_class_is_told() {
        let folder = tempfile::tempdir().unwrap();
        write_class(folder.path());
        std::fs::create_dir_all(folder.path().join("cable/train/good")).unwrap();
        let warnings = list(folder.path(), Split::Train).unwrap().warnings;
        assert!(warnings[0].contains("class `cable` has no image in its `train` split"));
        write(&folder.path().join("bottle/train/crack/000.png"), 9);
        let error = list(folder.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("train/crack"), "{error}");
    }
}
