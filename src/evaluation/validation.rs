//! Figures of weights on their way, on labelled parts.

use std::collections::HashMap;
use std::hash::{Hash as _, Hasher as _};
use std::path::{PathBuf, absolute};

use candle_core::Tensor;
use twox_hash::XxHash3_64;

use super::figures::{by_class, mean};
use super::measurement::{MeasurementError, measure};
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
    /// Which parts these are, as text: their number and a digest of names, files and labels. The
    /// images are not read for it.
    pub fn identity(&self) -> String {
        let mut hasher = XxHash3_64::with_seed(0);
        for part in &self.parts {
            (&part.class, &part.part, part.views.len()).hash(&mut hasher);
            for view in &part.views {
                (&view.view, view.is_labelled_defective).hash(&mut hasher);
                // Where the command is started from does not matter.
                let whole = |path: &PathBuf| absolute(path).unwrap_or_else(|_| path.clone());
                (whole(&view.image), view.mask.as_ref().map(whole)).hash(&mut hasher);
            }
        }
        let count = self.parts.len();
        format!("{count} with digest {:016x}", hasher.finish())
    }

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
        let measure = |part: &PartFolder| -> Result<_, MeasurementError> {
            measure(part, &mut model, &preprocessor)
        };
        let classes =
            by_class(self.parts.clone(), |_| None, measure).map_err(|error| error.to_string())?;
        let mean = mean(classes.values().map(|class| &class.all)).figures;
        let auroc = |figures: Option<RankingFigures>| figures.map(|figures| figures.auroc);
        Ok(LabelledFigures {
            part_auroc: auroc(mean.sample),
            view_auroc: auroc(mean.image),
            pixel_auroc: auroc(mean.pixel),
            aupro: mean.aupro,
        })
    }
}
