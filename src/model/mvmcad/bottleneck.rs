//! The noisy bottleneck between encoder and decoder: a small MLP whose dropout is the noise.
//!
//! Dropout in training keeps the decoder from copying what it is given, so that anomalies are
//! not reproduced (Guo et al., "Dinomaly"). At inference it is a plain MLP.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::kernels::gelu;
use super::super::layers::{Linear, Mode, linear};
use super::super::tensors::TensorSpecs;
use super::INITIAL_WEIGHT;

/// Width of the hidden layer in units of the token width.
const RATIO: usize = 4;

/// Dropout whose masks come from a seed, so that a resumed training run repeats itself.
#[derive(Clone, Debug)]
pub(crate) struct Dropout {
    probability: f32,
    random: Arc<Mutex<ChaCha8Rng>>,
}

impl Dropout {
    pub(crate) fn new(probability: f32) -> Self {
        Self {
            probability,
            random: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(0))),
        }
    }

    pub(crate) fn reseed(&self, seed: u64) {
        // A poisoned generator is as good as any other: it is replaced here.
        *self.random.lock().unwrap_or_else(PoisonError::into_inner) =
            ChaCha8Rng::seed_from_u64(seed);
    }

    pub(crate) fn forward(&self, values: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode == Mode::Inference || self.probability <= 0. {
            return Ok(values.clone());
        }
        let keep = 1. - self.probability;
        let threshold = (f64::from(keep) * f64::from(u32::MAX)) as u32;
        let mask: Vec<f32> = {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            (0..values.elem_count())
                .map(|_| {
                    if random.random::<u32>() <= threshold {
                        1. / keep
                    } else {
                        0.
                    }
                })
                .collect()
        };
        values * Tensor::from_vec(mask, values.shape(), values.device())?
    }
}

/// Dropout, linear, GELU, dropout, linear, dropout.
#[derive(Clone, Debug)]
pub(crate) struct Bottleneck {
    fc1: Linear,
    fc2: Linear,
    dropout: Dropout,
}

impl Bottleneck {
    pub(crate) fn tensors(width: usize) -> TensorSpecs {
        let mut specs = TensorSpecs::default();
        specs.add_linear("fc1", width, RATIO * width, INITIAL_WEIGHT);
        specs.add_linear("fc2", RATIO * width, width, INITIAL_WEIGHT);
        specs
    }

    pub(crate) fn new(width: usize, dropout: Dropout, weights: VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            fc1: linear(width, RATIO * width, weights.pp("fc1"))?,
            fc2: linear(RATIO * width, width, weights.pp("fc2"))?,
            dropout,
        })
    }

    pub(crate) fn forward(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor> {
        let noisy = self.dropout.forward(tokens, mode)?;
        let hidden = gelu(&self.fc1.forward(&noisy)?)?;
        let hidden = self.dropout.forward(&hidden, mode)?;
        self.dropout.forward(&self.fc2.forward(&hidden)?, mode)
    }
}
