//! Folders of images, `<class>/<part>/<view>.jpg`, with masks at the same relative paths below a
//! root of their own, in any lossless format. `panoptes synth` writes such a set.

use std::collections::BTreeSet;
use std::path::Path;

use super::layout::{Listing, no_parts};
use super::{Layout, PartFolder, ViewFile, fault, files};
use crate::image_folder::{ImageFile, PartImages, find_classes, find_images, find_others};
use crate::training::TrainingError;

/// Lists the parts under `root`, with masks from `masks` if given.
///
/// # Errors
/// When a folder cannot be read, there is no image at all, or masks are given and none belongs to
/// an image, or what lies among a part's masks is no mask or belongs to none of its images: a
/// mistyped name must not turn defective parts into good ones.
pub fn list_parts(root: &Path, masks: Option<&Path>) -> Result<Vec<PartFolder>, TrainingError> {
    let listing = list(root, masks)?;
    match listing.parts.is_empty() {
        true => Err(fault(root, no_parts(Layout::Folders, None))),
        false => Ok(listing.parts),
    }
}

/// As [`list_parts`], but a folder without parts is an empty list.
pub(super) fn list(root: &Path, masks: Option<&Path>) -> Result<Listing, TrainingError> {
    let mut listing = Listing::new(Layout::Folders, None);
    for class in find_classes(root)? {
        listing.class(&class.class, class.parts.is_empty());
        for part in class.parts {
            listing.parts.push(with_masks(part, masks)?);
        }
    }
    let has_mask = |part: &PartFolder| part.views.iter().any(|view| view.mask.is_some());
    match masks {
        Some(masks) if !listing.parts.is_empty() && !listing.parts.iter().any(has_mask) => {
            Err(fault(
                masks,
                "expected masks at the relative paths of the images, found none",
            ))
        }
        Some(masks) => {
            listing
                .warnings
                .extend(masks_without_parts(root, masks, &listing.parts)?);
            Ok(listing)
        }
        None => Ok(listing),
    }
}

/// Tells of parts that have masks and no images: a part of another name, or a set that is larger
/// than the one that is read.
fn masks_without_parts(
    root: &Path,
    masks: &Path,
    parts: &[PartFolder],
) -> Result<Option<String>, TrainingError> {
    let known: BTreeSet<(&str, &str)> = parts
        .iter()
        .map(|part| (part.class.as_str(), part.part.as_str()))
        .collect();
    let mut unknown = Vec::new();
    for class in find_classes(masks)? {
        for part in class.parts {
            if !known.contains(&(class.class.as_str(), part.part.as_str())) {
                unknown.push(format!("{}/{}", class.class, part.part));
            }
        }
    }
    Ok(unknown.first().map(|first| {
        let (count, masks, root) = (unknown.len(), masks.display(), root.display());
        format!(
            "`{masks}` has masks of `{count}` parts without images in `{root}`, first `{first}`"
        )
    }))
}

fn with_masks(found: PartImages, masks: Option<&Path>) -> Result<PartFolder, TrainingError> {
    let folder = masks.map(|masks| masks.join(&found.class).join(&found.part));
    let masks = match folder.filter(|folder| folder.is_dir()) {
        Some(folder) => {
            refuse_others(&folder)?;
            find_masks(&folder)?
        }
        None => Vec::new(),
    };
    let has_image = |mask: &&ImageFile| found.images.iter().any(|image| image.view == mask.view);
    if let Some(stray) = masks.iter().find(|mask| !has_image(mask)) {
        // Taken for no mask at all, it would turn a defective view into a good one.
        let (class, part, view) = (&found.class, &found.part, &stray.view);
        let message =
            format!("expected an image of view `{view}` of part `{class}/{part}`, found none");
        return Err(fault(&stray.path, message));
    }
    let views = found.images.into_iter().map(|image| ViewFile {
        mask: masks
            .iter()
            .find(|mask| mask.view == image.view)
            .map(|mask| mask.path.clone()),
        view: image.view,
        image: image.path,
        is_labelled_defective: false,
    });
    Ok(PartFolder {
        class: found.class,
        part: found.part,
        views: views.collect(),
    })
}

/// Whatever lies among a part's masks is probably meant as one: passed over, it would turn a
/// defective view into a good one.
fn refuse_others(folder: &Path) -> Result<(), TrainingError> {
    match find_others(folder)?.first() {
        Some(other) => Err(fault(
            other,
            "expected a mask that ends in `.png`, `.bmp`, `.tif`, `.tiff` or `.webp`, found another \
             kind of file or a folder",
        )),
        None => Ok(()),
    }
}

/// The masks directly in a folder.
pub(super) fn find_masks(folder: &Path) -> Result<Vec<ImageFile>, TrainingError> {
    let masks = find_images(folder)?;
    match masks.iter().find(|mask| mask.content_type == "image/jpeg") {
        Some(lossy) => Err(fault(&lossy.path, files::LOSSY_MASK)),
        None => Ok(masks),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::write_level as write;
    use super::*;

    #[test]
    fn parts_are_listed_in_order_with_their_masks() {
        let folder = tempfile::tempdir().unwrap();
        let (images, masks) = (folder.path().join("images"), folder.path().join("masks"));
        write(&images.join("bolt/p2/top.png"), 9);
        write(&images.join("bolt/p1/top.jpg"), 9);
        write(&images.join("bolt/p1/left.png"), 9);
        std::fs::write(images.join("bolt/p1/notes.txt"), "x").unwrap();
        write(&masks.join("bolt/p1/top.png"), 255);
        let parts = list_parts(&images, Some(&masks)).unwrap();
        let names: Vec<&str> = parts.iter().map(|part| part.part.as_str()).collect();
        assert_eq!(names, ["p1", "p2"]);
        let views: Vec<&str> = parts[0]
            .views
            .iter()
            .map(|view| view.view.as_str())
            .collect();
        assert_eq!(views, ["left", "top"]);
        assert!(parts[0].views[0].mask.is_none());
        assert_eq!(parts[0].views[1].mask, Some(masks.join("bolt/p1/top.png")));
    }

    #[test]
    fn what_is_no_mask_in_a_folder_of_masks_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (images, masks) = (folder.path().join("images"), folder.path().join("masks"));
        for part in ["p1", "p2"] {
            write(&images.join(format!("bolt/{part}/top.png")), 9);
        }
        write(&masks.join("bolt/p1/top.png"), 255);
        std::fs::create_dir(masks.join("bolt/p2")).unwrap();
        std::fs::write(masks.join("bolt/p2/.DS_Store"), "x").unwrap();
        assert_eq!(list_parts(&images, Some(&masks)).unwrap().len(), 2);
        for odd in ["top.npy", "top"] {
            let odd = masks.join("bolt/p2").join(odd);
            std::fs::write(&odd, "x").unwrap();
            let error = list_parts(&images, Some(&masks)).unwrap_err().to_string();
            let expected = format!("data `{}`: expected a mask", odd.display());
            assert!(error.starts_with(&expected), "{error}");
            std::fs::remove_file(&odd).unwrap();
        }
    }

    #[test]
    fn masks_that_belong_to_no_image_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (images, masks) = (folder.path().join("images"), folder.path().join("masks"));
        write(&images.join("bolt/p1/top.png"), 9);
        write(&masks.join("nut/p1/top.png"), 255);
        for wrong in [masks.as_path(), &folder.path().join("typo")] {
            let error = list_parts(&images, Some(wrong)).unwrap_err().to_string();
            assert!(error.contains("found none"), "{error}");
        }
        write(&masks.join("bolt/p1/top.jpg"), 255);
        let error = list_parts(&images, Some(&masks)).unwrap_err().to_string();
        assert!(error.contains("lossless"), "{error}");
        std::fs::remove_file(masks.join("bolt/p1/top.jpg")).unwrap();
        write(&masks.join("bolt/p1/top.png"), 255);
        let warnings = list(&images, Some(&masks)).unwrap().warnings;
        assert!(warnings[0].contains("`1` parts") && warnings[0].contains("nut/p1"));
        write(&masks.join("bolt/p1/top_mask.png"), 255);
        let error = list_parts(&images, Some(&masks)).unwrap_err().to_string();
        assert!(
            error.contains("top_mask.png") && error.contains("bolt/p1"),
            "{error}"
        );
    }
}
