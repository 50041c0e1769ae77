//! A model held against labelled parts: scores, maps and truth of every view.

use std::ops::Range;

use crate::domain::{AnomalyMap, MapFootprint};
use crate::model::preprocess::Preprocessor;
use crate::model::{AnomalyModel, Subject};
use crate::scoring::{pooled_score, view_score};
use crate::training::TrainingError;
use crate::training::dataset::{Mask, PartFolder, ViewFile, prepare_image, read_mask};

/// One view with the model's answer and the truth.
#[derive(Clone, Debug)]
pub struct MeasuredView {
    /// Name of the view.
    pub view: String,
    /// Its score.
    pub score: f32,
    /// Its map.
    pub map: AnomalyMap,
    /// Whether each map pixel shows a defect; empty for a good view.
    pub defect: Vec<bool>,
    /// Whether the view shows a defect anywhere.
    pub is_anomalous: bool,
}

/// One part with its views.
#[derive(Clone, Debug)]
pub struct MeasuredPart {
    /// The class.
    pub class: String,
    /// The part.
    pub part: String,
    /// Its views.
    pub views: Vec<MeasuredView>,
}

impl MeasuredPart {
    /// [`ScoredPart::score`].
    pub fn score(&self) -> f32 {
        self.scores().score()
    }

    /// [`ScoredPart::is_anomalous`].
    pub fn is_anomalous(&self) -> bool {
        self.scores().is_anomalous()
    }

    /// The mean of the highest hundredth of the pixels of all its views.
    ///
    /// # Errors
    /// When a map holds values that are not finite, or there is none.
    pub fn pooled_score(&self) -> Result<f32, MeasurementError> {
        let maps = self.views.iter().map(|view| &view.map);
        pooled_score(maps).map_err(|fault| self.fault("", fault))
    }

    /// The part without its maps.
    pub fn scores(&self) -> ScoredPart {
        let views = self.views.iter().map(|view| ScoredView {
            view: view.view.clone(),
            score: view.score,
            is_anomalous: view.is_anomalous,
        });
        ScoredPart {
            class: self.class.clone(),
            part: self.part.clone(),
            views: views.collect(),
        }
    }

    pub(super) fn fault(&self, view: &str, fault: impl std::fmt::Display) -> MeasurementError {
        let image = format!("{}/{}/{view}", self.class, self.part);
        MeasurementError::Image {
            image: image.trim_end_matches('/').to_owned(),
            message: fault.to_string(),
        }
    }
}

/// What is kept of a view once its map has been counted.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredView {
    /// Name of the view.
    pub view: String,
    /// Its score.
    pub score: f32,
    /// Whether the view shows a defect anywhere.
    pub is_anomalous: bool,
}

/// What is kept of a part once its maps have been counted.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredPart {
    /// The class.
    pub class: String,
    /// The part.
    pub part: String,
    /// Its views.
    pub views: Vec<ScoredView>,
}

impl ScoredPart {
    /// The highest view score.
    pub fn score(&self) -> f32 {
        let scores = self.views.iter().map(|view| view.score);
        scores.fold(f32::NEG_INFINITY, f32::max)
    }

    /// Whether a view shows a defect.
    pub fn is_anomalous(&self) -> bool {
        self.views.iter().any(|view| view.is_anomalous)
    }
}

/// Why a measurement stopped.
#[derive(Debug, thiserror::Error)]
pub enum MeasurementError {
    /// An image or mask cannot be used.
    #[error(transparent)]
    Data(#[from] TrainingError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    /// An image cannot be prepared.
    #[error("image `{image}`: {message}")]
    Image {
        /// The image.
        image: String,
        /// What is wrong with it.
        message: String,
    },
}

/// Scores every view of `part`.
///
/// # Errors
/// When an image or mask cannot be read, or the model fails.
pub fn measure(
    part: &PartFolder,
    model: &mut dyn AnomalyModel,
    preprocessor: &Preprocessor,
) -> Result<MeasuredPart, MeasurementError> {
    let mut images = Vec::with_capacity(part.views.len());
    let mut masks = Vec::with_capacity(part.views.len());
    for view in &part.views {
        let (mut prepared, size) = prepare_image(&view.image, preprocessor)?;
        masks.push(view_mask(view, size)?);
        prepared.subject = Some(Subject {
            class: part.class.as_str().into(),
            view: view.view.as_str().into(),
        });
        images.push(prepared);
    }
    let maps = model.anomaly_maps(&images, &[images.len()])?;
    let mut views = Vec::with_capacity(maps.len());
    for (((file, image), mask), map) in part.views.iter().zip(&images).zip(&masks).zip(maps) {
        let score = view_score(&map).map_err(|error| fault(file, error))?;
        let defect = mask
            .as_ref()
            .map_or_else(Vec::new, |mask| fit_mask(mask, image.footprint, &map));
        let is_anomalous = file.is_labelled_defective || mask.is_some();
        let view = file.view.clone();
        views.push(MeasuredView {
            view,
            score,
            map,
            defect,
            is_anomalous,
        });
    }
    Ok(MeasuredPart {
        class: part.class.clone(),
        part: part.part.clone(),
        views,
    })
}

fn fault(view: &ViewFile, error: impl std::fmt::Display) -> MeasurementError {
    MeasurementError::Image {
        image: view.image.display().to_string(),
        message: error.to_string(),
    }
}

/// The mask of a view that shows a defect; it must be of the image's size.
fn view_mask(
    view: &ViewFile,
    (width, height): (u32, u32),
) -> Result<Option<Mask>, MeasurementError> {
    let Some(path) = &view.mask else {
        return Ok(None);
    };
    let mask = read_mask(path)?;
    if (mask.width, mask.height) != (width as usize, height as usize) {
        return Err(fault(
            view,
            format!(
                "expected a mask of `{width}x{height}` pixels, found `{}` of `{}x{}`",
                path.display(),
                mask.width,
                mask.height
            ),
        ));
    }
    Ok(Some(mask).filter(|mask| mask.defect.contains(&true)))
}

/// The mask at the map's size: a map pixel is a defect if any mask pixel is whose centre it covers,
/// or, where it covers none, the mask pixel that it lies in.
fn fit_mask(mask: &Mask, footprint: MapFootprint, map: &AnomalyMap) -> Vec<bool> {
    let columns = covered(footprint.x, footprint.width, map.width, mask.width);
    let rows = covered(footprint.y, footprint.height, map.height, mask.height);
    let mut fitted = Vec::with_capacity(map.width * map.height);
    for row in &rows {
        for column in &columns {
            let lines = mask.defect.chunks_exact(mask.width);
            let mut lines = lines.skip(row.start).take(row.len());
            fitted.push(lines.any(|line| line[column.clone()].contains(&true)));
        }
    }
    fitted
}

/// Along one side: which of the mask's `pixels` each of the map's `cells` covers, when the map
/// begins at `start` and is `length` long.
fn covered(start: f64, length: f64, cells: usize, pixels: usize) -> Vec<Range<usize>> {
    let edge = |cell: usize| start + length * cell as f64 / cells as f64;
    let last = pixels.saturating_sub(1);
    (0..cells)
        .map(|cell| {
            // A pixel's centre lies half a pixel after its edge.
            let first_centre = (edge(cell) - 0.5).ceil().max(0.0) as usize;
            let end_centre = (edge(cell + 1) - 0.5).ceil().max(0.0) as usize;
            if first_centre < end_centre.min(pixels) {
                return first_centre..end_centre.min(pixels);
            }
            let middle = 0.5 * (edge(cell) + edge(cell + 1));
            let inside = (middle.max(0.0) as usize).min(last);
            inside..inside + 1
        })
        .collect()
}

/// Parts for the tests of this module's neighbours.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A part of one view with a map of two pixels: its score, and 0.
    pub(crate) fn part(class: &str, score: f32, is_anomalous: bool) -> MeasuredPart {
        let map = AnomalyMap {
            width: 2,
            height: 1,
            values: vec![score, 0.0],
        };
        let defect = match is_anomalous {
            true => vec![true, false],
            false => Vec::new(),
        };
        let view = MeasuredView {
            view: "top".to_owned(),
            score,
            map,
            defect,
            is_anomalous,
        };
        MeasuredPart {
            class: class.to_owned(),
            part: "p".to_owned(),
            views: vec![view],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_pixel_is_a_defect_if_any_mask_pixel_within_it_is() {
        let mut defect = vec![false; 8 * 4];
        defect[8 + 5] = true;
        let mask = Mask {
            width: 8,
            height: 4,
            defect,
        };
        let map = AnomalyMap {
            width: 2,
            height: 2,
            values: vec![0.0; 4],
        };
        let whole = MapFootprint {
            x: 0.0,
            y: 0.0,
            width: 8.0,
            height: 4.0,
        };
        assert_eq!(fit_mask(&mask, whole, &map), [false, true, false, false]);
        let left = MapFootprint {
            x: 0.0,
            y: 0.0,
            width: 4.0,
            height: 4.0,
        };
        assert_eq!(fit_mask(&mask, left, &map), [false; 4]);
    }

    #[test]
    fn a_map_finer_than_the_mask_has_no_holes() {
        let mask = Mask {
            width: 2,
            height: 2,
            defect: vec![false, true, false, false],
        };
        let map = AnomalyMap {
            width: 5,
            height: 4,
            values: vec![0.0; 20],
        };
        let whole = MapFootprint {
            x: 0.0,
            y: 0.0,
            width: 2.0,
            height: 2.0,
        };
        let fitted = fit_mask(&mask, whole, &map);
        let top = [false, false, true, true, true];
        let expected = [top, top, [false; 5], [false; 5]].concat();
        assert_eq!(fitted, expected);
    }

    proptest::proptest! {
        #[test]
        fn every_defect_pixel_of_a_whole_image_is_in_the_map(
            (width, height) in (1usize..40, 1usize..40),
            (columns, rows) in (1usize..40, 1usize..40),
            place in 0usize..1600,
        ) {
            let mut defect = vec![false; width * height];
            defect[place % (width * height)] = true;
            let mask = Mask { width, height, defect };
            let map = AnomalyMap { width: columns, height: rows, values: vec![0.0; columns * rows] };
            let whole =
                MapFootprint { x: 0.0, y: 0.0, width: width as f64, height: height as f64 };
            proptest::prop_assert!(fit_mask(&mask, whole, &map).contains(&true));
        }
    }
}
