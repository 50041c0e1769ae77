//! Labelled data sets: folders of images with masks beside them.
//!
//! Masks lie under a root of their own with the same relative paths, in any lossless format; a pixel
//! other than 0 is a defect. A view is anomalous if its mask exists and is not empty, a part if one
//! of its views is. Images are decoded as the stream decodes them, so that what a model is trained
//! on is what it will see.

mod files;
mod survey;
#[cfg(test)]
pub(crate) mod testing;
mod training_images;

use std::path::{Path, PathBuf};

pub use self::files::{Mask, read_image, read_mask};
pub use self::survey::{Survey, SurveyedPart, SurveyedView, Unreadable, survey};
pub use self::training_images::{Crop, TrainingImages, TrainingPart, survey_for_training};

use super::TrainingError;
use super::formula::Canvas;
use crate::domain::RgbImage;
use crate::image_folder::{ImageFile, find_images, find_parts};
use crate::model::preprocess::{Normalisation, Preprocessor};

/// One image of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewFile {
    /// Name of the view: the file's name without its ending.
    pub view: String,
    /// The image.
    pub image: PathBuf,
    /// Its mask, if there is one.
    pub mask: Option<PathBuf>,
    /// Whether the data set says that the view shows a defect, whatever its mask shows.
    pub is_labelled_defective: bool,
}

/// One part with its views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFolder {
    /// The class: name of the folder above the part's.
    pub class: String,
    /// The part: name of its folder.
    pub part: String,
    /// Its views in the order of their names.
    pub views: Vec<ViewFile>,
}

/// Lists the parts under `root`, with masks from `masks` if given.
///
/// # Errors
/// When a folder cannot be read, there is no image at all, or masks are given and none belongs to
/// an image: a mistyped folder must not turn defective parts into good ones.
pub fn list_parts(root: &Path, masks: Option<&Path>) -> Result<Vec<PartFolder>, TrainingError> {
    let mut parts = Vec::new();
    for found in find_parts(root)? {
        let folder = masks.map(|masks| masks.join(&found.class).join(&found.part));
        let masks = match folder.filter(|folder| folder.is_dir()) {
            Some(folder) => find_masks(&folder)?,
            None => Vec::new(),
        };
        let views = found.images.into_iter().map(|image| ViewFile {
            mask: masks
                .iter()
                .find(|mask| mask.view == image.view)
                .map(|mask| mask.path.clone()),
            view: image.view,
            image: image.path,
            is_labelled_defective: false,
        });
        parts.push(PartFolder {
            class: found.class,
            part: found.part,
            views: views.collect(),
        });
    }
    let has_mask = |part: &PartFolder| part.views.iter().any(|view| view.mask.is_some());
    match masks {
        Some(masks) if !parts.iter().any(has_mask) => Err(fault(
            masks,
            "expected masks at the relative paths of the images, found none",
        )),
        _ => Ok(parts),
    }
}

fn find_masks(folder: &Path) -> Result<Vec<ImageFile>, TrainingError> {
    let masks = find_images(folder)?;
    match masks.iter().find(|mask| mask.content_type == "image/jpeg") {
        Some(lossy) => Err(fault(&lossy.path, files::LOSSY_MASK)),
        None => Ok(masks),
    }
}

/// Every image under the given roots as a canvas of `side`, for pretraining.
///
/// # Errors
/// When a folder or an image cannot be read.
pub fn load_canvases(roots: &[PathBuf], side: usize) -> Result<Vec<Canvas>, TrainingError> {
    let preprocessor =
        Preprocessor::new(Normalisation::imagenet(side), side).map_err(TrainingError::Setting)?;
    let mut canvases = Vec::new();
    for root in roots {
        for part in list_parts(root, None)? {
            for view in part.views {
                let small = preprocessor
                    .resize_and_crop(&read_image(&view.image)?)
                    .map_err(|error| fault(&view.image, error))?;
                canvases.push(canvas(&small, side));
            }
        }
    }
    Ok(canvases)
}

fn canvas(image: &RgbImage, side: usize) -> Canvas {
    let area = side * side;
    let mut values = vec![0.0; 3 * area];
    for (index, pixel) in image.pixels.chunks_exact(3).enumerate() {
        for channel in 0..3 {
            values[channel * area + index] = f32::from(pixel[channel]) / 255.0;
        }
    }
    Canvas { side, values }
}

fn fault(path: &Path, error: impl std::fmt::Display) -> TrainingError {
    TrainingError::Data {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::testing::write_level as write;
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
    }
}
