//! The anomaly model: the only place that knows candle.
//!
//! The rest of the crate sees [`AnomalyModel`]: images in, anomaly maps out.

pub mod bundle;
pub mod candle_model;
pub mod device;
pub mod device_network;
mod engine;
pub mod expected;
pub(crate) mod kernels;
mod layers;
pub mod maps;
pub mod memory;
pub mod mvmcad;
pub mod packed;
#[cfg(test)]
mod parity;
pub(crate) mod position;
pub mod preprocess;
mod subject;
pub mod tensors;
#[cfg(test)]
pub(crate) mod testing;
pub mod vit;
pub mod vit_weights;

pub use self::layers::Mode;
pub use self::packed::ComputePrecision;
pub use self::subject::Subject;

use crate::domain::{AnomalyMap, MapFootprint, ModelIdentity};

/// One view, decoded, resized, cropped and normalised: `[3, side, side]`, channel first.
#[derive(Clone, Debug)]
pub struct InputImage {
    /// `3 * side * side` values.
    pub values: Vec<f32>,
    /// What of the original image the model sees.
    pub footprint: MapFootprint,
    /// What it shows, if that is known.
    pub subject: Option<Subject>,
}

/// Scores images; owned by one thread.
pub trait AnomalyModel: Send {
    /// Name and version, as results carry them.
    fn identity(&self) -> &ModelIdentity;

    /// Whether a view's map depends on the other views of its part.
    fn mixes_views(&self) -> bool;

    /// One anomaly map an image, in the same order. `views` says how many consecutive images each
    /// part has; it sums up to the number of images.
    ///
    /// # Errors
    /// When the device fails; the images themselves are valid by construction.
    fn anomaly_maps(
        &mut self,
        images: &[InputImage],
        views: &[usize],
    ) -> Result<Vec<AnomalyMap>, ModelError>;
}

/// Why the model could not answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The device ran out of memory; a smaller batch may do.
    #[error("device out of memory at a batch of {images} images: {message}")]
    OutOfMemory {
        /// Batch size that failed.
        images: usize,
        /// The device's own words.
        message: String,
    },
    /// Anything else the device said.
    #[error("device failed: {0}")]
    Device(String),
}
