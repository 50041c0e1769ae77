//! Labelled data sets: which images belong to which part, and which of them show a defect.
//!
//! A [`DataSource`] is listed in one of the [`Layout`]s that data sets come in; what is listed is
//! surveyed ([`survey`]): every file is read once, so that nothing in them can stop a run halfway.
//! Training then takes its images from [`TrainingImages`].
//!
//! A view is anomalous if the data set labels it so or a pixel of its mask is other than 0, a part
//! if one of its views is. Images are decoded as the stream decodes them, so that what a model is
//! trained on is what it will see.

mod files;
mod folders;
mod layout;
mod mvtec;
mod paths;
mod real_iad;
mod survey;
#[cfg(test)]
pub(crate) mod testing;
mod training_images;
mod visa;

use std::path::{Path, PathBuf};

pub use self::files::{Mask, read_image, read_mask};
pub use self::folders::list_parts;
pub use self::layout::{DataSource, Layout, Listing, Split};
pub use self::survey::{Survey, SurveyedPart, SurveyedView, Unreadable, survey};
pub use self::training_images::{Crop, TrainingImages, TrainingPart, survey_for_training};

use super::TrainingError;
use super::formula::Canvas;
use crate::domain::RgbImage;
use crate::model::preprocess::{Normalisation, Preprocessor};

/// Name of the view of a part that has only one, where the data set gives none.
const ONLY_VIEW: &str = "image";

/// One image of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewFile {
    /// Name of the view.
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
    /// The class.
    pub class: String,
    /// The part: unique within its class.
    pub part: String,
    /// Its views in the order of their names, at least one.
    pub views: Vec<ViewFile>,
}

impl PartFolder {
    /// A part of one view.
    fn of_one_view(class: &str, part: String, image: PathBuf, mask: Option<PathBuf>) -> Self {
        let view = ViewFile {
            view: ONLY_VIEW.to_owned(),
            image,
            is_labelled_defective: mask.is_some(),
            mask,
        };
        Self {
            class: class.to_owned(),
            part,
            views: vec![view],
        }
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
