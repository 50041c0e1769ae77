//! Which tensors a network is made of: names, shapes and first values, in one place.
//!
//! Loading, checking, initialising and saving all read the same list, so a tensor that one of
//! them knows is known to all.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Magnitude of the sine-cosine position table: about that of a patch's token at first.
const POSITION_SCALE: f32 = 0.4;
/// Longest period of the table, as in the transformer of Vaswani et al.
const LONGEST_PERIOD: f32 = 10_000.0;

/// The first value of a tensor that is trained from scratch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Every value the same.
    Constant(f32),
    /// Normal with mean zero, cut off at `limit` on both sides.
    TruncatedNormal {
        /// Standard deviation before the cut.
        deviation: f32,
        /// Largest magnitude.
        limit: f32,
    },
    /// A table `[1, grid * grid, width]` of sines and cosines of row and column, so that near
    /// patches have similar tokens before anything is learnt (He et al., "Masked Autoencoders").
    SineCosine,
}

/// One tensor of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// First value.
    pub initial: Initial,
}

/// The tensors of a network by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorSpecs(BTreeMap<String, TensorSpec>);

/// A tensor that is not as the architecture asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorFault {
    /// The weights lack a tensor.
    #[error("tensor `{name}` is missing: expected shape {expected:?}")]
    Missing {
        /// Its name.
        name: String,
        /// The shape that it should have.
        expected: Vec<usize>,
    },
    /// The weights hold a tensor that the architecture has no place for.
    #[error("tensor `{name}` of shape {found:?} has no place in this architecture")]
    Extra {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor has another shape.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The shape that it should have.
        expected: Vec<usize>,
        /// The shape that it has.
        found: Vec<usize>,
    },
}

impl TensorSpecs {
    /// Adds one tensor.
    pub(crate) fn add(&mut self, name: impl Into<String>, shape: &[usize], initial: Initial) {
        let spec = TensorSpec {
            shape: shape.to_vec(),
            initial,
        };
        self.0.insert(name.into(), spec);
    }

    /// Adds the weight and bias of a linear layer; biases start at zero.
    pub(crate) fn add_linear(
        &mut self,
        prefix: &str,
        inputs: usize,
        outputs: usize,
        weight: Initial,
    ) {
        self.add(format!("{prefix}.weight"), &[outputs, inputs], weight);
        self.add(format!("{prefix}.bias"), &[outputs], Initial::Constant(0.));
    }

    /// Adds the weight and bias of a layer norm, which starts as the plain norm.
    pub(crate) fn add_norm(&mut self, prefix: &str, width: usize) {
        self.add(format!("{prefix}.weight"), &[width], Initial::Constant(1.));
        self.add(format!("{prefix}.bias"), &[width], Initial::Constant(0.));
    }

    /// Takes over all of `other`, each name under `prefix`.
    pub(crate) fn extend(&mut self, prefix: &str, other: Self) {
        for (name, spec) in other.0 {
            self.0.insert(format!("{prefix}.{name}"), spec);
        }
    }

    /// Every tensor in the order of its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorSpec)> {
        self.0.iter().map(|(name, spec)| (name.as_str(), spec))
    }

    /// The number of values in all tensors together.
    pub fn parameters(&self) -> usize {
        self.0
            .values()
            .map(|spec| spec.shape.iter().product::<usize>())
            .sum()
    }

    /// Holds `tensors` against this list.
    ///
    /// # Errors
    /// Names the first tensor, in the order of names, that is missing, misshapen or not asked for.
    pub fn check(&self, tensors: &HashMap<String, Tensor>) -> Result<(), TensorFault> {
        for (name, spec) in &self.0 {
            let Some(tensor) = tensors.get(name) else {
                return Err(TensorFault::Missing {
                    name: name.clone(),
                    expected: spec.shape.clone(),
                });
            };
            if tensor.dims() != spec.shape {
                return Err(TensorFault::Shape {
                    name: name.clone(),
                    expected: spec.shape.clone(),
                    found: tensor.dims().to_vec(),
                });
            }
        }
        let extra = tensors
            .keys()
            .filter(|name| !self.0.contains_key(*name))
            .min();
        match extra {
            None => Ok(()),
            Some(name) => Err(TensorFault::Extra {
                name: name.clone(),
                found: tensors[name].dims().to_vec(),
            }),
        }
    }

    /// First values of every tensor, the same for the same seed on every machine.
    ///
    /// # Errors
    /// When the device cannot hold them.
    pub fn initial_values(
        &self,
        seed: u64,
        device: &Device,
    ) -> candle_core::Result<HashMap<String, Tensor>> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut tensors = HashMap::with_capacity(self.0.len());
        for (name, spec) in &self.0 {
            let count = spec.shape.iter().product();
            let values: Vec<f32> = match spec.initial {
                Initial::Constant(value) => vec![value; count],
                Initial::TruncatedNormal { deviation, limit } => (0..count)
                    .map(|_| truncated_normal(&mut random, deviation, limit))
                    .collect(),
                Initial::SineCosine => sine_cosine(&spec.shape),
            };
            tensors.insert(
                name.clone(),
                Tensor::from_vec(values, spec.shape.as_slice(), device)?,
            );
        }
        Ok(tensors)
    }

    /// First values as trainable variables.
    ///
    /// # Errors
    /// When the device cannot hold them.
    pub fn initial_variables(&self, seed: u64, device: &Device) -> candle_core::Result<VarMap> {
        variables(&self.initial_values(seed, device)?)
    }
}

/// A map of trainable variables that start at `tensors`, in f32.
///
/// # Errors
/// When the device cannot hold them.
pub fn variables(tensors: &HashMap<String, Tensor>) -> candle_core::Result<VarMap> {
    let map = VarMap::new();
    {
        let mut entries = map
            .data()
            .lock()
            .expect("no thread panics while it holds this new map");
        for (name, tensor) in tensors {
            let variable = Var::from_tensor(&tensor.to_dtype(DType::F32)?)?;
            entries.insert(name.clone(), variable);
        }
    }
    Ok(map)
}

/// A quarter of the channels each: sine and cosine of the column, sine and cosine of the row.
fn sine_cosine(shape: &[usize]) -> Vec<f32> {
    let width = shape.last().copied().unwrap_or(1);
    let places = shape.iter().product::<usize>() / width.max(1);
    let grid = places.isqrt().max(1);
    let quarter = (width / 4).max(1);
    (0..places * width)
        .map(|index| {
            let (place, channel) = (index / width, index % width);
            let at = if channel < 2 * quarter {
                place % grid
            } else {
                place / grid
            };
            let speed = LONGEST_PERIOD.powf(-((channel % quarter) as f32) / quarter as f32);
            let angle = at as f32 * speed;
            let wave = if (channel / quarter).is_multiple_of(2) {
                angle.sin()
            } else {
                angle.cos()
            };
            POSITION_SCALE * wave
        })
        .collect()
}

/// Draws until the value lies within the limit (Box-Muller).
fn truncated_normal(random: &mut ChaCha8Rng, deviation: f32, limit: f32) -> f32 {
    loop {
        let radius = (-2. * (1. - random.random::<f64>()).ln()).sqrt();
        let angle = std::f64::consts::TAU * random.random::<f64>();
        let value = (radius * angle.cos()) as f32 * deviation;
        if value.abs() <= limit {
            return value;
        }
    }
}
