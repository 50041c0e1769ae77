//! A model held against labelled parts: scores, maps and truth of every view.

use crate::domain::{AnomalyMap, MapFootprint};
use crate::model::preprocess::Preprocessor;
use crate::model::{AnomalyModel, InputImage};
use crate::scoring::view_score;
use crate::training::TrainingError;
use crate::training::dataset::{Mask, PartFolder, ViewFile, read_image, read_mask};

use super::overlap::{LabelledMap, aupro};
use super::ranking::{RankingFigures, rank};

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
    /// The highest view score.
    pub fn score(&self) -> f32 {
        self.views
            .iter()
            .map(|view| view.score)
            .fold(f32::NEG_INFINITY, f32::max)
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
    for view in &part.views {
        images.push(prepare(view, preprocessor)?);
    }
    let maps = model.anomaly_maps(&images)?;
    let mut views = Vec::with_capacity(maps.len());
    for ((file, image), map) in part.views.iter().zip(&images).zip(maps) {
        let score = view_score(&map).map_err(|error| fault(file, error))?;
        let mask = file.mask.as_deref().map(read_mask).transpose()?;
        let is_anomalous = mask
            .as_ref()
            .is_some_and(|mask| mask.defect.contains(&true));
        let defect = match (&mask, is_anomalous) {
            (Some(mask), true) => fit_mask(mask, image.footprint, &map),
            _ => Vec::new(),
        };
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

/// Reads and prepares one view's image.
///
/// # Errors
/// When it cannot be read or is empty.
pub fn prepare(
    view: &ViewFile,
    preprocessor: &Preprocessor,
) -> Result<InputImage, MeasurementError> {
    let image = read_image(&view.image)?;
    preprocessor
        .prepare(&image)
        .map_err(|error| fault(view, error))
}

fn fault(view: &ViewFile, error: impl std::fmt::Display) -> MeasurementError {
    MeasurementError::Image {
        image: view.image.display().to_string(),
        message: error.to_string(),
    }
}

/// The mask at the map's size: a map pixel is a defect if any mask pixel within it is.
fn fit_mask(mask: &Mask, footprint: MapFootprint, map: &AnomalyMap) -> Vec<bool> {
    let mut fitted = vec![false; map.width * map.height];
    for (index, _) in mask
        .defect
        .iter()
        .enumerate()
        .filter(|(_, defect)| **defect)
    {
        let x = (index % mask.width) as f64 + 0.5 - footprint.x;
        let y = (index / mask.width) as f64 + 0.5 - footprint.y;
        let column = (x / footprint.width * map.width as f64).floor();
        let row = (y / footprint.height * map.height as f64).floor();
        let is_inside = column >= 0.0 && row >= 0.0;
        let (column, row) = (column as usize, row as usize);
        if is_inside && column < map.width && row < map.height {
            fitted[row * map.width + column] = true;
        }
    }
    fitted
}

/// The figures of one class or of the mean over classes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Over views.
    pub image: Option<RankingFigures>,
    /// Over parts.
    pub sample: Option<RankingFigures>,
    /// Over the pixels of all maps.
    pub pixel: Option<RankingFigures>,
    /// Area under the per-region overlap.
    pub aupro: Option<f64>,
}

/// The figures of some parts, pooled.
pub fn figures<'a>(parts: impl Iterator<Item = &'a MeasuredPart> + Clone) -> Figures {
    let views = || parts.clone().flat_map(|part| &part.views);
    let pixels = views().flat_map(|view| {
        let defect = |index: usize| view.defect.get(index).copied().unwrap_or(false);
        view.map
            .values
            .iter()
            .enumerate()
            .map(move |(i, value)| (*value, defect(i)))
    });
    let maps: Vec<LabelledMap<'_>> = views()
        .map(|view| LabelledMap {
            map: &view.map,
            defect: &view.defect,
        })
        .collect();
    Figures {
        image: rank(
            views()
                .map(|view| (view.score, view.is_anomalous))
                .collect(),
        ),
        sample: rank(
            parts
                .clone()
                .map(|part| (part.score(), part.is_anomalous()))
                .collect(),
        ),
        pixel: rank(pixels.collect()),
        aupro: aupro(&maps),
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
}
