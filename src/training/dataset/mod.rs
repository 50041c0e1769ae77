//! Labelled data sets: which images belong to which part, and which of them show a defect.
//!
//! A [`DataSource`] is listed in one of the [`Layout`]s that data sets come in; what is listed is
//! surveyed ([`survey`]): every file is read once, so that nothing in them can stop a run halfway.
//! Training then takes its images from [`TrainingImages`].
//!
//! A view is anomalous if the data set labels it so or a pixel of its mask is other than 0, a part
//! if one of its views is. Images are decoded as the stream decodes them, so that what a model is
//! trained on is what it will see.

mod canvases;
mod files;
mod findings;
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

pub use self::canvases::{good_canvases, survey_canvases};
pub use self::files::{Mask, prepare_image, read_image, read_mask};
pub use self::findings::{findings, small_classes, twins_in};
pub use self::folders::list_parts;
pub use self::layout::{DataSource, Layout, Listing, Split};
pub(crate) use self::survey::tell;
pub use self::survey::{Survey, SurveyedPart, SurveyedView, Unreadable, survey};
pub use self::training_images::{Crop, TrainingImages, TrainingPart, survey_for_training};

use super::TrainingError;

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

fn fault(path: &Path, error: impl std::fmt::Display) -> TrainingError {
    TrainingError::Data {
        path: path.to_owned(),
        message: error.to_string(),
    }
}
