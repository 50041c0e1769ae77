//! Every file of a data set is read once before anything long begins.
//!
//! What is wrong with a file comes to light in the first minutes and not after hours of training:
//! an image that cannot be read, a mask that cannot be or that has another size than its image.
//! Files are read on all cores; while one is decoded, it takes up to 0.5 GiB at the largest size
//! that is accepted, and 3 MB for one megapixel.

use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use super::files::{decode_at, digest_bytes, read_bytes, read_mask};
use super::{PartFolder, ViewFile, fault};
use crate::decode::WantedSize;
use crate::domain::RgbImage;
use crate::training::TrainingError;

/// At most this share of the parts may be left out: beyond it, the set is no longer the one that
/// was asked for.
const LEFT_OUT_LIMIT_PERCENT: usize = 5;

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
    /// How many bytes they are.
    pub bytes: u64,
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

/// Reads every image and mask of `parts`; `keep` says what is kept of an image. Images are decoded at the
/// size that is `wanted`, by the decoder that later use of them takes for it.
///
/// # Errors
/// When a file cannot be used and `unreadable` refuses that, or too many parts would be left out.
pub fn survey<T: Send>(
    parts: Vec<PartFolder>,
    unreadable: Unreadable,
    wanted: WantedSize,
    keep: impl Fn(&RgbImage) -> Result<T, String> + Sync,
) -> Result<Survey<T>, TrainingError> {
    let count = parts.len();
    let bar = progress_bar(count);
    let results: Vec<Result<SurveyedPart<T>, TrainingError>> = parts
        .into_par_iter()
        .map(|part| {
            let views = part.views.iter();
            let views = views.map(|view| survey_view(view, wanted, &keep));
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
        let allowed = match unreadable {
            Unreadable::Refuse => 0,
            Unreadable::LeaveOut => all * LEFT_OUT_LIMIT_PERCENT / 100,
        };
        if lost <= allowed {
            return Ok(());
        }
        Err(TrainingError::Unusable {
            parts: lost,
            of: all,
            allowed,
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
    wanted: WantedSize,
    keep: impl Fn(&RgbImage) -> Result<T, String>,
) -> Result<SurveyedView<T>, TrainingError> {
    let bytes = read_bytes(&view.image)?;
    let image = decode_at(wanted, &view.image, &bytes)?;
    Ok(SurveyedView {
        digest: digest_bytes(&bytes),
        bytes: bytes.len() as u64,
        is_anomalous: has_defect(view, image.original)?,
        kept: keep(&image.into_rgb()).map_err(|error| fault(&view.image, error))?,
    })
}

fn has_defect(view: &ViewFile, (width, height): (u32, u32)) -> Result<bool, TrainingError> {
    let Some(path) = &view.mask else {
        return Ok(view.is_labelled_defective);
    };
    let mask = read_mask(path)?;
    if (mask.width, mask.height) != (width as usize, height as usize) {
        let message = format!(
            "expected a mask of `{width}x{height}` pixels as its image `{}`, found `{}x{}`",
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::list_parts;
    use super::super::testing::{write_image, write_level, write_text};
    use super::*;

    fn surveyed(root: &Path, unreadable: Unreadable) -> Result<Survey<u32>, TrainingError> {
        let masks = root.join("masks");
        let parts = list_parts(&root.join("images"), masks.is_dir().then_some(&masks))?;
        survey(parts, unreadable, WantedSize::Full, |image| Ok(image.width))
    }

    fn write_parts(root: &Path, parts: usize) {
        for part in 0..parts {
            let name = format!("images/bolt/p{part:03}/top.png");
            write_level(&root.join(name), part as u8);
        }
    }

    #[test]
    fn every_broken_file_is_named_before_anything_begins() {
        let folder = tempfile::tempdir().unwrap();
        write_parts(folder.path(), 9);
        for part in 2..8 {
            write_text(
                &folder
                    .path()
                    .join(format!("images/bolt/p{part:03}/top.png")),
                "x",
            );
        }
        let error = surveyed(folder.path(), Unreadable::Refuse)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`6` of `9` parts cannot be used"), "{error}");
        assert!(error.contains("p002/top.png`: expected JPEG"), "{error}");
        assert!(
            error.contains("p006/top.png") && error.contains("and 1 more"),
            "{error}"
        );
    }

    #[test]
    fn few_broken_parts_can_be_left_out_and_many_cannot() {
        let folder = tempfile::tempdir().unwrap();
        write_parts(folder.path(), 40);
        for part in [3, 30] {
            write_text(
                &folder
                    .path()
                    .join(format!("images/bolt/p{part:03}/top.png")),
                "x",
            );
        }
        let survey = surveyed(folder.path(), Unreadable::LeaveOut).unwrap();
        assert_eq!((survey.parts.len(), survey.left_out.len()), (38, 2));
        assert_eq!(survey.parts[3].part.part, "p004");
        assert!(tell(&survey.left_out).contains("p030/top.png"));
        write_text(&folder.path().join("images/bolt/p000/top.png"), "x");
        let error = surveyed(folder.path(), Unreadable::LeaveOut)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`3` of `40` parts cannot be used, at most `2` may"),
            "{error}"
        );
    }

    #[test]
    fn a_mask_of_another_size_than_its_image_is_found() {
        let folder = tempfile::tempdir().unwrap();
        write_parts(folder.path(), 2);
        let mask = folder.path().join("masks/bolt/p001/top.png");
        write_image(&mask, &image::GrayImage::new(4, 5).into());
        let error = surveyed(folder.path(), Unreadable::Refuse)
            .unwrap_err()
            .to_string();
        assert!(error.contains("a mask of `4x4` pixels"), "{error}");
        assert!(
            error.contains("images/bolt/p001/top.png") && error.contains("found `4x5`"),
            "{error}"
        );
    }

    #[test]
    fn a_view_is_anomalous_by_its_label_or_by_its_mask() {
        let folder = tempfile::tempdir().unwrap();
        write_parts(folder.path(), 3);
        write_level(&folder.path().join("masks/bolt/p001/top.png"), 1);
        write_level(&folder.path().join("masks/bolt/p002/top.png"), 0);
        let anomalous = |survey: Survey<u32>| -> Vec<bool> {
            survey
                .parts
                .iter()
                .map(SurveyedPart::is_anomalous)
                .collect()
        };
        let by_mask = surveyed(folder.path(), Unreadable::Refuse).unwrap();
        let mut parts: Vec<PartFolder> = by_mask.parts.iter().map(|p| p.part.clone()).collect();
        assert_eq!(by_mask.parts[0].views[0].kept, 4);
        assert_eq!(anomalous(by_mask), [false, true, false]);
        parts[2].views[0].is_labelled_defective = true;
        let width = |image: &RgbImage| Ok(image.width);
        let labelled = survey(parts, Unreadable::Refuse, WantedSize::Full, width).unwrap();
        assert_eq!(anomalous(labelled), [false, true, true]);
    }

    /// The decoder that scales finds faults of its own.
    #[cfg(feature = "scaled-jpeg")]
    #[test]
    fn images_are_decoded_as_they_will_be_and_masks_fit_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("images/bolt/p000/top.jpg");
        write_image(&image, &image::GrayImage::new(64, 48).into());
        let mask = folder.path().join("masks/bolt/p000/top.png");
        write_image(&mask, &image::GrayImage::new(64, 48).into());
        let masks = folder.path().join("masks");
        let parts = list_parts(&folder.path().join("images"), Some(&masks)).unwrap();
        let wanted = WantedSize::AtLeast(8);
        let width = |image: &RgbImage| Ok(image.width);
        let survey = survey(parts, Unreadable::Refuse, wanted, width).unwrap();
        assert_eq!(survey.parts[0].views[0].kept, 16);
    }
}
