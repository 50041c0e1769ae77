//! The frozen encoder's features of a run's images: kept from the start, or computed anew.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::super::dataset::TrainingImages;
use super::super::encoder_file::Encoder;
use super::super::iteration::StopRequest;
use super::super::optimiser::Parameters;
use super::super::parallel::run_in_order;
use super::super::progress::encoding_bar;
use super::super::{TrainingError, builder};
use super::ReconstructionSettings;
use super::images::{no_image, stack};
use crate::model::Mode;
use crate::model::mvmcad::{EncoderGroups, FeatureStatistics, Mvmcad, MvmcadConfig};

/// At most about this many images are looked at for the whitening.
const WHITENING_IMAGES: usize = 512;

/// What networks over the same variables are built from.
pub(super) struct Builders<'a> {
    /// The encoder's weights on the device, in the precision that it runs in.
    encoder: HashMap<String, Tensor>,
    precision: DType,
    pub(super) parameters: &'a Parameters,
    pub(super) device: &'a Device,
}

impl<'a> Builders<'a> {
    pub(super) fn new(
        encoder: &Encoder,
        precision: DType,
        parameters: &'a Parameters,
        device: &'a Device,
    ) -> Result<Self> {
        let place = |(name, tensor): (&String, &Tensor)| {
            Ok((name.clone(), tensor.to_device(device)?.to_dtype(precision)?))
        };
        Ok(Self {
            encoder: encoder.tensors.iter().map(place).collect::<Result<_>>()?,
            precision,
            parameters,
            device,
        })
    }

    /// A network of its own for one thread: dropout has a state.
    pub(super) fn network(&self, architecture: &MvmcadConfig) -> Result<Mvmcad> {
        let encoder = VarBuilder::from_tensors(self.encoder.clone(), self.precision, self.device);
        Mvmcad::new(
            architecture,
            encoder,
            builder(self.parameters, "", self.device),
        )
    }
}

/// Where a batch's encoder features come from.
pub(super) enum Features<'a> {
    /// Computed once, image by image: shallow and deep.
    Kept(Vec<[Tensor; 2]>),
    /// Computed anew from the images.
    Anew {
        images: &'a TrainingImages,
        side: usize,
    },
}

impl<'a> Features<'a> {
    /// Keeps the features where nothing before them is trained and they fit into memory.
    ///
    /// # Errors
    /// When the device fails or an image cannot be read, or the run is asked to stop meanwhile.
    pub(super) fn new(
        settings: &ReconstructionSettings,
        images: &'a TrainingImages,
        builders: &Builders<'_>,
        stop: &StopRequest,
    ) -> std::result::Result<Self, TrainingError> {
        let side = settings.architecture.encoder.input_side;
        let network = builders.network(&settings.architecture)?;
        if !network.can_cache_encoder()
            || settings.feature_bytes(images.len()) > settings.cache_bytes
        {
            return Ok(Self::Anew { images, side });
        }
        // One by one on the CPU, where each thread takes the next; else as many as a step has.
        let together = match builders.device.is_cpu() {
            true => 1,
            false => settings.recipe.run.micro_batch,
        };
        let all: Vec<usize> = (0..images.len()).collect();
        let bar = encoding_bar(images.len());
        let jobs = all
            .chunks(together)
            .map(|chosen| {
                let (network, bar) = (&network, &bar);
                move || {
                    if stop.is_requested() {
                        return Ok(None);
                    }
                    let encoded = encode(network, images, chosen, side, builders.device)?;
                    bar.inc(chosen.len() as u64);
                    Ok(Some(encoded))
                }
            })
            .collect();
        let mut kept = Vec::with_capacity(images.len());
        for chunk in run_in_order(builders.device, settings.threads, jobs)? {
            kept.extend(chunk.ok_or(TrainingError::InterruptedEarly)?);
        }
        bar.finish_and_clear();
        Ok(Self::Kept(kept))
    }

    pub(super) fn groups(
        &self,
        network: &Mvmcad,
        chosen: &[usize],
        device: &Device,
        mode: Mode,
    ) -> Result<EncoderGroups> {
        match self {
            Self::Kept(kept) => {
                let gather = |group: usize| {
                    let tensors: Vec<&Tensor> = chosen.iter().map(|&i| &kept[i][group]).collect();
                    Tensor::cat(&tensors, 0)
                };
                Ok(EncoderGroups {
                    shallow: gather(0)?,
                    deep: gather(1)?,
                })
            }
            Self::Anew { images, side } => {
                let chosen = images.images(chosen).map_err(no_image)?;
                network.encode(&stack(&chosen, *side, device)?, mode)
            }
        }
    }
}

fn encode(
    network: &Mvmcad,
    images: &TrainingImages,
    chosen: &[usize],
    side: usize,
    device: &Device,
) -> Result<Vec<[Tensor; 2]>> {
    let chosen = images.images(chosen).map_err(no_image)?;
    let groups = network.encode(&stack(&chosen, side, device)?, Mode::Inference)?;
    (0..chosen.len())
        .map(|index| {
            let [shallow, deep] =
                [&groups.shallow, &groups.deep].map(|group| group.narrow(0, index, 1));
            Ok([shallow?, deep?])
        })
        .collect()
}

/// Sets the whitening from the features of evenly chosen images.
///
/// # Errors
/// As [`Features::new`].
pub(super) fn fit_whitening(
    settings: &ReconstructionSettings,
    images: &TrainingImages,
    trained_on: &[usize],
    builders: &Builders<'_>,
) -> std::result::Result<(), TrainingError> {
    let encoder = &settings.architecture.encoder;
    let network = builders.network(&settings.architecture)?;
    let mut statistics = FeatureStatistics::new(encoder.width, encoder.leading_tokens());
    let stride = trained_on.len().div_ceil(WHITENING_IMAGES).max(1);
    for &index in trained_on.iter().step_by(stride) {
        if settings.checkpoint.stop.is_requested() {
            return Err(TrainingError::InterruptedEarly);
        }
        let image = images.image(index)?;
        let batch = stack(&[image], encoder.input_side, builders.device)?;
        statistics.add(&network.encode_raw(&batch, Mode::Inference)?)?;
    }
    for (name, tensor) in
        statistics.whitening(settings.architecture.whitening_noise, builders.device)?
    {
        if let Some(variable) = builders.parameters.get(&format!("whitening.{name}")) {
            variable.set(&tensor)?;
        }
    }
    Ok(())
}
