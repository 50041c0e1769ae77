//! Every file of a data set is read once before anything long begins.
//!
//! What is wrong with a file comes to light in the first minutes and not after hours of training:
//! an image that cannot be read, a mask that cannot be or that has another size than its image.
//! Files are read on all cores; while one is decoded, it takes up to 0.5 GiB at the largest size
//! that is accepted, and 3 MB for one megapixel.

use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use super::files::{decode, digest_bytes, read_bytes, read_mask};
use super::{PartFolder, ViewFile, fault};
use crate::domain::RgbImage;
use crate::training::TrainingError;

/// At most this share of the parts may be left out: beyond it, the set is no longer the one that
/// was asked for.
const LEFT_OUT_LIMIT: f64 = 0.05;

/// As many faults are told in full.
const TOLD: usize = 5;

/// What becomes of a part with a file that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// All stops with an error that names the files.
    #[default]
    Refuse,
    /// The part is left out, unless more than 5 % of the parts would be.
    LeaveOut,
}

/// What reading a view told.
#[derive(Clone, Debug)]
pub struct SurveyedView<T> {
    /// A digest of the image file's bytes.
    pub digest: u64,
    /// Whether the view shows a defect: it is labelled so, or a pixel of its mask is.
    pub is_anomalous: bool,
    /// What the caller kept of the image.
    pub kept: T,
}

/// A part all of whose files can be used.
#[derive(Clone, Debug)]
pub struct SurveyedPart<T> {
    /// The part.
    pub part: PartFolder,
    /// One entry a view, in the part's order.
    pub views: Vec<SurveyedView<T>>,
}

impl<T> SurveyedPart<T> {
    /// Whether a view shows a defect.
    pub fn is_anomalous(&self) -> bool {
        self.views.iter().any(|view| view.is_anomalous)
    }
}

/// All parts, those that can be used and those that cannot.
#[derive(Debug)]
pub struct Survey<T> {
    /// Parts that can be used, in the order of the list.
    pub parts: Vec<SurveyedPart<T>>,
    /// What is wrong with the parts that are left out: the first fault of each.
    pub left_out: Vec<TrainingError>,
}

/// Reads every image and mask of `parts`; `keep` says what is kept of an image.
///
/// # Errors
/// When a file cannot be used and `unreadable` refuses that, or too many parts would be left out.
pub fn survey<T: Send>(
    parts: Vec<PartFolder>,
    unreadable: Unreadable,
    keep: impl Fn(&RgbImage) -> Result<T, String> + Sync,
) -> Result<Survey<T>, TrainingError> {
    let count = parts.len();
    let bar = progress_bar(count);
    let results: Vec<Result<SurveyedPart<T>, TrainingError>> = parts
        .into_par_iter()
        .map(|part| {
            let views = part.views.iter().map(|view| survey_view(view, &keep));
            let views = views.collect::<Result<_, _>>();
            bar.inc(1);
            Ok(SurveyedPart {
                views: views?,
                part,
            })
        })
        .collect();
    bar.finish_and_clear();
    let mut survey = Survey {
        parts: Vec::with_capacity(count),
        left_out: Vec::new(),
    };
    for result in results {
        match result {
            Ok(part) => survey.parts.push(part),
            Err(error) => survey.left_out.push(error),
        }
    }
    survey.check(unreadable)?;
    Ok(survey)
}

impl<T> Survey<T> {
    fn check(&self, unreadable: Unreadable) -> Result<(), TrainingError> {
        let (lost, all) = (self.left_out.len(), self.parts.len() + self.left_out.len());
        let limit = match unreadable {
            Unreadable::Refuse => 0.0,
            Unreadable::LeaveOut => LEFT_OUT_LIMIT,
        };
        if lost as f64 <= limit * all as f64 {
            return Ok(());
        }
        Err(TrainingError::Unusable {
            parts: lost,
            of: all,
            allowed_percent: 100.0 * limit,
            faults: tell(&self.left_out),
        })
    }
}

/// The first faults in words, and how many more there are.
pub(crate) fn tell(faults: &[TrainingError]) -> String {
    let mut lines: Vec<String> = faults
        .iter()
        .take(TOLD)
        .map(|fault| format!("  {fault}"))
        .collect();
    if faults.len() > TOLD {
        lines.push(format!("  and {} more", faults.len() - TOLD));
    }
    lines.join("\n")
}

fn survey_view<T>(
    view: &ViewFile,
    keep: impl Fn(&RgbImage) -> Result<T, String>,
) -> Result<SurveyedView<T>, TrainingError> {
    let bytes = read_bytes(&view.image)?;
    let image = decode(&view.image, &bytes)?;
    Ok(SurveyedView {
        digest: digest_bytes(&bytes),
        is_anomalous: has_defect(view, &image)?,
        kept: keep(&image).map_err(|error| fault(&view.image, error))?,
    })
}

fn has_defect(view: &ViewFile, image: &RgbImage) -> Result<bool, TrainingError> {
    let Some(path) = &view.mask else {
        return Ok(view.is_labelled_defective);
    };
    let mask = read_mask(path)?;
    if (mask.width, mask.height) != (image.width as usize, image.height as usize) {
        let message = format!(
            "expected a mask of `{}x{}` pixels as its image `{}`, found `{}x{}`",
            image.width,
            image.height,
            view.image.display(),
            mask.width,
            mask.height
        );
        return Err(fault(path, message));
    }
    Ok(view.is_labelled_defective || mask.defect.contains(&true))
}

fn progress_bar(parts: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("reading {bar:40} {pos}/{len} parts, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(parts as u64).with_style(style)
}
