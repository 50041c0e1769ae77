//! Figures of weights on their way, on labelled parts.

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;

use super::figures::{CountedFigures, PartSums, figures, mean};
use super::measurement::measure;
use super::ranking::RankingFigures;
use crate::model::bundle::{Bundle, Manifest};
use crate::model::candle_model::CandleModel;
use crate::training::dataset::PartFolder;
use crate::training::history::LabelledFigures;

/// At most so many images are scored at once.
const BATCH: usize = 32;

/// Labelled parts, and how a model for them is built.
#[derive(Clone, Debug)]
pub struct LabelledParts {
    /// The parts; no mask means good.
    pub parts: Vec<PartFolder>,
    /// What the bundle will be.
    pub manifest: Manifest,
    /// Where to score: `cpu`, `cuda:N` or `auto`.
    pub device: String,
}

impl LabelledParts {
    /// The figures of these weights, the mean over classes.
    ///
    /// # Errors
    /// When an image or mask cannot be read, or the device fails.
    pub fn judge(&self, tensors: HashMap<String, Tensor>) -> Result<LabelledFigures, String> {
        let bundle = Bundle {
            manifest: self.manifest.clone(),
            tensors,
        };
        let preprocessor = bundle.manifest.preprocessor()?;
        let mut model =
            CandleModel::new(&bundle, &self.device, BATCH).map_err(|error| error.to_string())?;
        let mut classes: BTreeMap<&str, PartSums> = BTreeMap::new();
        for part in &self.parts {
            let measured =
                measure(part, &mut model, &preprocessor).map_err(|error| error.to_string())?;
            let sums = classes.entry(&part.class).or_default();
            sums.add(&measured).map_err(|error| error.to_string())?;
        }
        let figures: Vec<CountedFigures> = classes.values().map(|sums| figures(&[sums])).collect();
        let mean = mean(figures.iter()).figures;
        let auroc = |figures: Option<RankingFigures>| figures.map(|figures| figures.auroc);
        Ok(LabelledFigures {
            part_auroc: auroc(mean.sample),
            view_auroc: auroc(mean.image),
            pixel_auroc: auroc(mean.pixel),
            aupro: mean.aupro,
        })
    }
}
