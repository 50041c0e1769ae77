//! The network on a CPU, for inference: weights packed once, buffers reused, threads sharing rows.
//!
//! Computes what [`super::mvmcad::Mvmcad`] computes in [`super::Mode::Inference`], without tensors:
//! each stretch of work that can be done row by row (norm, product, what follows it) is done on a few
//! rows while they are in a core's cache. A row's numbers do not depend on what rows are computed
//! beside it, nor on the number of threads, to the last bit. Vector instructions are chosen when the
//! network is packed.

mod amplification;
mod block;
mod bottleneck;
mod encoder;
mod features;
mod mixing;
mod network;
mod precision;
mod room;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::Debug;

use candle_core::{DType, Result, Tensor};

use self::network::PackedMvmcad;
pub use self::precision::ComputePrecision;
use self::room::Room;
use super::kernels::arithmetic::{Arithmetic, Single};
use super::kernels::lanes::{Lanes, Scalar};
use super::mvmcad::MvmcadConfig;
use super::position::resize_table;

/// A weight by its name in a bundle.
type Weights<'a> = &'a dyn Fn(&str) -> Result<Vec<f32>>;

/// What the network makes of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFeatures {
    /// Anomaly of each patch.
    pub anomalies: Vec<f32>,
    /// What the decoder was to rebuild of the shallow group, `[patches, width]`.
    pub shallow: Vec<f32>,
}

/// Where `bf16` would have to be emulated it is refused.
const NO_BRAIN: PackingError = PackingError::Unable("this processor has no AVX512-BF16");

/// A packed network and its buffers.
#[derive(Debug)]
pub struct PackedNetwork {
    network: Box<dyn Run>,
    room: Room,
    threads: rayon::ThreadPool,
}

/// A network for some processor and precision.
trait Run: Debug + Send + Sync {
    fn encode(&self, images: &[&[f32]], room: &mut Room);
    fn run(&self, images: &[&[f32]], views: &[usize], room: &mut Room) -> Vec<ImageFeatures>;
}

/// Why a network cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackingError {
    /// The device cannot compute in this precision, and why.
    #[error("`precision`: expected one that the device computes in, but {0}")]
    Unable(&'static str),
    /// The system gives no threads.
    #[error("cannot start the model's threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A tensor is missing or misshapen.
    #[error(transparent)]
    Weights(#[from] candle_core::Error),
}

impl PackedNetwork {
    /// Packs a bundle's tensors for this processor; 0 `threads` are as many as it has cores, or as
    /// `RAYON_NUM_THREADS` says.
    ///
    /// # Errors
    /// When the processor cannot compute in this precision, a tensor is missing, or the system gives
    /// no threads.
    pub fn of_tensors(
        config: &MvmcadConfig,
        tensors: &HashMap<String, Tensor>,
        precision: ComputePrecision,
        threads: usize,
    ) -> std::result::Result<Self, PackingError> {
        let weights = |name: &str| {
            let Some(tensor) = tensors.get(name) else {
                candle_core::bail!("tensor `{name}` is missing");
            };
            let tensor = tensor.to_dtype(DType::F32)?;
            let tensor = match name {
                "encoder.position" => resize_table(&tensor, &config.encoder)?,
                _ => tensor,
            };
            tensor.flatten_all()?.to_vec1::<f32>()
        };
        Self::new(config, &weights, precision, threads)
    }

    /// Packs weights by their names; the position table is that of the grid's own size.
    fn new(
        config: &MvmcadConfig,
        weights: Weights<'_>,
        precision: ComputePrecision,
        threads: usize,
    ) -> std::result::Result<Self, PackingError> {
        Ok(Self {
            network: pack(config, weights, precision)?,
            room: Room::default(),
            threads: rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("model-{index}"))
                .build()?,
        })
    }

    /// Images, `[3, side, side]` each, to what they show; `views` says how many consecutive images
    /// each part has.
    ///
    /// # Panics
    /// When an image has another size, or `views` does not sum up to their number.
    pub fn run(&mut self, images: &[&[f32]], views: &[usize]) -> Vec<ImageFeatures> {
        let Self {
            network,
            room,
            threads,
        } = self;
        threads.install(|| network.run(images, views, room))
    }

    /// Runs `work` on the network's threads.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.threads.install(work)
    }

    /// The encoder alone, for measurements.
    pub fn encode(&mut self, images: &[&[f32]]) {
        let Self {
            network,
            room,
            threads,
        } = self;
        threads.install(|| network.encode(images, room));
    }
}

fn pack(
    config: &MvmcadConfig,
    weights: Weights<'_>,
    precision: ComputePrecision,
) -> std::result::Result<Box<dyn Run>, PackingError> {
    match precision {
        ComputePrecision::Bf16 => pack_brain(config, weights),
        ComputePrecision::F32 => Ok(pack_single(config, weights)?),
    }
}

fn packed<A: Arithmetic>(config: &MvmcadConfig, weights: Weights<'_>) -> Result<Box<dyn Run>> {
    Ok(Box::new(PackedMvmcad::<A>::new(config, weights)?))
}

fn pack_single(config: &MvmcadConfig, weights: Weights<'_>) -> Result<Box<dyn Run>> {
    #[cfg(target_arch = "x86_64")]
    {
        use super::kernels::lanes::{Avx2, Avx512};
        if Avx512::is_available() {
            return packed::<Single<Avx512>>(config, weights);
        }
        if Avx2::is_available() {
            return packed::<Single<Avx2>>(config, weights);
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use super::kernels::lanes::Neon;
        if Neon::is_available() {
            return packed::<Single<Neon>>(config, weights);
        }
    }
    packed::<Single<Scalar>>(config, weights)
}

#[cfg(target_arch = "x86_64")]
fn pack_brain(
    config: &MvmcadConfig,
    weights: Weights<'_>,
) -> std::result::Result<Box<dyn Run>, PackingError> {
    use super::kernels::arithmetic::Brain;
    match Brain::is_available() {
        true => Ok(packed::<Brain>(config, weights)?),
        false => Err(NO_BRAIN),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn pack_brain(
    _config: &MvmcadConfig,
    _weights: Weights<'_>,
) -> std::result::Result<Box<dyn Run>, PackingError> {
    Err(NO_BRAIN)
}
