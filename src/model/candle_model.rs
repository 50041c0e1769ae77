//! The model that the stream runs: a checked bundle on a device.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::bundle::{Bundle, Manifest};
use super::maps::MapProjector;
use super::mvmcad::Mvmcad;
use super::{AnomalyModel, InputImage, ModelError};
use crate::domain::{AnomalyMap, ModelIdentity};

/// MVMCAD on a device, with the maps of its bundle.
#[derive(Debug)]
pub struct CandleModel {
    identity: ModelIdentity,
    network: Mvmcad,
    projector: MapProjector,
    device: Device,
    max_batch: usize,
}

/// Why a bundle cannot be put on a device.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The device's name is none that we know.
    #[error("`device`: expected `auto`, `cpu` or `cuda:N`, found `{0}`")]
    UnknownDevice(String),
    /// The device is one that this program was not built for, or that is not there.
    #[error("device `{name}`: {reason}")]
    Unavailable {
        /// The device as it was asked for.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The device refused the weights.
    #[error("model `{model}` on device `{device}`: {message}")]
    Refused {
        /// The model's name.
        model: String,
        /// The device.
        device: String,
        /// The device's own words.
        message: String,
    },
}

impl CandleModel {
    /// Puts a bundle on `device` (`auto`, `cpu`, `cuda:N`); at most `max_batch` images are run at
    /// once.
    ///
    /// # Errors
    /// When the device is unknown or not there, or refuses the weights.
    pub fn new(bundle: &Bundle, device: &str, max_batch: usize) -> Result<Self, PlacementError> {
        let placed = open_device(device)?;
        let network = place(bundle, &placed).map_err(|error| PlacementError::Refused {
            model: bundle.manifest.name.clone(),
            device: device.to_owned(),
            message: error.to_string(),
        })?;
        let Manifest {
            architecture,
            map_side,
            ..
        } = &bundle.manifest;
        let encoder = &architecture.encoder;
        Ok(Self {
            identity: bundle.manifest.identity(),
            network,
            projector: MapProjector::new(encoder.grid(), encoder.input_side, *map_side),
            device: placed,
            max_batch: max_batch.max(1),
        })
    }

    fn run(&self, images: &[InputImage]) -> candle_core::Result<Vec<AnomalyMap>> {
        let side = self.network.config().encoder.input_side;
        let mut values = Vec::with_capacity(images.len() * 3 * side * side);
        for image in images {
            values.extend_from_slice(&image.values);
        }
        let batch = Tensor::from_vec(values, (images.len(), 3, side, side), &self.device)?;
        let patches = self
            .network
            .patch_anomalies(&batch)?
            .flatten_from(1)?
            .to_vec2::<f32>()?;
        Ok(patches
            .iter()
            .map(|patches| self.projector.project(patches))
            .collect())
    }
}

impl AnomalyModel for CandleModel {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn anomaly_maps(&mut self, images: &[InputImage]) -> Result<Vec<AnomalyMap>, ModelError> {
        let mut maps = Vec::with_capacity(images.len());
        for chunk in images.chunks(self.max_batch) {
            maps.extend(
                self.run(chunk)
                    .map_err(|error| device_error(chunk.len(), &error))?,
            );
        }
        Ok(maps)
    }
}

/// Builds the network of a bundle on a device.
///
/// # Errors
/// When the device refuses the weights.
pub fn place(bundle: &Bundle, device: &Device) -> candle_core::Result<Mvmcad> {
    let mut tensors = bundle.tensors.clone();
    for tensor in tensors.values_mut() {
        *tensor = tensor.to_device(device)?;
    }
    let weights = VarBuilder::from_tensors(tensors, DType::F32, device);
    Mvmcad::new(
        &bundle.manifest.architecture,
        weights.pp("encoder"),
        weights,
    )
}

fn open_device(name: &str) -> Result<Device, PlacementError> {
    let unknown = || PlacementError::UnknownDevice(name.to_owned());
    match name {
        // Without CUDA in the build there is nothing to choose from.
        "auto" | "cpu" => return Ok(Device::Cpu),
        _ => {}
    }
    let ordinal = name.strip_prefix("cuda:").ok_or_else(unknown)?;
    let ordinal: usize = ordinal.parse().map_err(|_| unknown())?;
    if !candle_core::utils::cuda_is_available() {
        return Err(PlacementError::Unavailable {
            name: name.to_owned(),
            reason: "this program was built without CUDA; use `cpu` or `auto`".to_owned(),
        });
    }
    Device::new_cuda(ordinal).map_err(|error| PlacementError::Unavailable {
        name: name.to_owned(),
        reason: error.to_string(),
    })
}

fn device_error(images: usize, error: &candle_core::Error) -> ModelError {
    let message = error.to_string();
    match message.to_lowercase().contains("out of memory") {
        true => ModelError::OutOfMemory { images, message },
        false => ModelError::Device(message),
    }
}
