//! Whitening of the encoder's features by the statistics of good parts.
//!
//! In the residual stream of a small encoder a few channels are so large that the cosine hardly
//! sees the others. Whitened (ZCA: zero mean, unit covariance, as close to the original channels
//! as can be), every direction counts by how unusual it is on good parts, as in a Mahalanobis
//! distance. The statistics are taken once, before the decoder is trained (Kessy, Lewin and
//! Strimmer, "Optimal Whitening and Decorrelation").

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use nalgebra::{DMatrix, SymmetricEigen};

use super::super::layers::{Linear, linear};
use super::super::tensors::{Initial, TensorSpecs};
use super::EncoderGroups;

/// Names of the two groups of [`EncoderGroups`].
const GROUPS: [&str; 2] = ["shallow", "deep"];

/// The two groups' whitening.
#[derive(Clone, Debug)]
pub(crate) struct Whitening {
    groups: [Linear; 2],
}

impl Whitening {
    pub(crate) fn tensors(is_on: bool, width: usize) -> TensorSpecs {
        let mut specs = TensorSpecs::default();
        if is_on {
            for group in GROUPS {
                specs.add_linear(group, width, width, Initial::Constant(0.));
            }
        }
        specs
    }

    pub(crate) fn new(is_on: bool, width: usize, weights: VarBuilder<'_>) -> Result<Option<Self>> {
        if !is_on {
            return Ok(None);
        }
        // Statistics, not weights: no gradient may reach them.
        let group = |name| Ok(linear(width, width, weights.pp(name))?.detached());
        let [shallow, deep]: [Result<Linear>; 2] = GROUPS.map(group);
        Ok(Some(Self {
            groups: [shallow?, deep?],
        }))
    }

    pub(crate) fn forward(&self, groups: &EncoderGroups) -> Result<EncoderGroups> {
        Ok(EncoderGroups {
            shallow: self.groups[0].forward(&groups.shallow)?,
            deep: self.groups[1].forward(&groups.deep)?,
        })
    }
}

/// Sums over the patch features of good parts, from which a whitening is found.
#[derive(Clone, Debug)]
pub struct FeatureStatistics {
    leading: usize,
    count: f64,
    sums: [DMatrix<f64>; 2],
    products: [DMatrix<f64>; 2],
}

impl FeatureStatistics {
    /// Empty sums for features of `width` channels with `leading` tokens before the first patch.
    pub fn new(width: usize, leading: usize) -> Self {
        Self {
            leading,
            count: 0.,
            sums: [0, 1].map(|_| DMatrix::zeros(width, 1)),
            products: [0, 1].map(|_| DMatrix::zeros(width, width)),
        }
    }

    /// Adds the patches of raw features.
    ///
    /// # Errors
    /// When the device fails.
    pub fn add(&mut self, groups: &EncoderGroups) -> Result<()> {
        for (index, tokens) in [&groups.shallow, &groups.deep].into_iter().enumerate() {
            let (_, tokens_each, width) = tokens.dims3()?;
            let patches = tokens
                .narrow(1, self.leading, tokens_each - self.leading)?
                .contiguous()?
                .reshape(((), width))?;
            let product = patches.t()?.matmul(&patches)?;
            self.sums[index] += matrix(&patches.sum(0)?, width, 1)?;
            self.products[index] += matrix(&product, width, width)?;
            if index == 0 {
                self.count += patches.dim(0)? as f64;
            }
        }
        Ok(())
    }

    /// The whitening as named tensors: `shallow.weight`, `shallow.bias`, `deep.weight`, ... To each
    /// direction's variance `noise_share` of the mean variance is added: directions far below it
    /// count as noise, and with a share far above 1 nothing is left but the centring. A direction of
    /// mean variance comes out with variance 1 whatever the share.
    ///
    /// # Errors
    /// When nothing was added, or the device fails.
    pub fn whitening(
        &self,
        noise_share: f64,
        device: &candle_core::Device,
    ) -> Result<Vec<(String, Tensor)>> {
        if self.count == 0. {
            candle_core::bail!("whitening needs at least one image of a good part, found none");
        }
        let mut tensors = Vec::new();
        for (index, name) in GROUPS.into_iter().enumerate() {
            let mean = &self.sums[index] / self.count;
            let covariance = &self.products[index] / self.count - &mean * mean.transpose();
            let width = mean.nrows();
            let noise = noise_share * covariance.trace() / width as f64;
            let gain = (1. + noise_share).sqrt();
            let eigen = SymmetricEigen::new(covariance);
            let scales = eigen
                .eigenvalues
                .map(|variance| gain / (variance.max(0.) + noise).sqrt().max(f64::MIN_POSITIVE));
            let weight = &eigen.eigenvectors
                * DMatrix::from_diagonal(&scales)
                * eigen.eigenvectors.transpose();
            let bias = -(&weight * &mean);
            // Symmetric, so the order of rows and columns does not matter.
            let values = |matrix: &DMatrix<f64>| -> Vec<f32> {
                matrix.iter().map(|value| *value as f32).collect()
            };
            let weight = Tensor::from_vec(values(&weight), (width, width), device)?;
            let bias = Tensor::from_vec(values(&bias), width, device)?;
            tensors.push((format!("{name}.weight"), weight));
            tensors.push((format!("{name}.bias"), bias));
        }
        Ok(tensors)
    }
}

fn matrix(tensor: &Tensor, rows: usize, columns: usize) -> Result<DMatrix<f64>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    let values = values.into_iter().map(f64::from);
    Ok(DMatrix::from_row_iterator(rows, columns, values))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const WIDTH: usize = 3;
    const NOISE_SHARE: f64 = 1e-3;

    /// One image of a leading token and correlated patches far from zero.
    fn features(seed: u64) -> EncoderGroups {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut group = |gain: f32| {
            let mut values = vec![1e3; WIDTH];
            for _ in 0..2000 {
                let [a, b, c] = [0; 3].map(|_| random.random_range(-1.0f32..1.0));
                values.extend([40.0 + gain * a, 2.0 * a + b - 5.0, 0.5 * c]);
            }
            Tensor::from_vec(values, (1, 2001, WIDTH), &Device::Cpu).unwrap()
        };
        EncoderGroups {
            shallow: group(9.0),
            deep: group(3.0),
        }
    }

    fn statistics(groups: &EncoderGroups) -> FeatureStatistics {
        let mut statistics = FeatureStatistics::new(WIDTH, 1);
        statistics.add(groups).unwrap();
        statistics
    }

    fn fitted(groups: &EncoderGroups) -> Whitening {
        let tensors = statistics(groups)
            .whitening(NOISE_SHARE, &Device::Cpu)
            .unwrap();
        let weights =
            VarBuilder::from_tensors(tensors.into_iter().collect(), DType::F32, &Device::Cpu);
        Whitening::new(true, WIDTH, weights).unwrap().unwrap()
    }

    #[test]
    fn with_much_noise_patches_are_centred_and_keep_their_proportions() {
        let groups = features(1);
        let tensors = statistics(&groups).whitening(1e4, &Device::Cpu).unwrap();
        let weight = tensors[0].1.to_vec2::<f32>().unwrap();
        let scale = weight[0][0];
        for (row, values) in weight.iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                let expected = if row == column { scale } else { 0. };
                assert!((value - expected).abs() < 1e-3 * scale, "{weight:?}");
            }
        }
        let weights =
            VarBuilder::from_tensors(tensors.into_iter().collect(), DType::F32, &Device::Cpu);
        let centring = Whitening::new(true, WIDTH, weights).unwrap().unwrap();
        let after = statistics(&centring.forward(&groups).unwrap());
        let mean = &after.sums[0] / after.count;
        let covariance = &after.products[0] / after.count;
        assert!(mean.iter().all(|mean| mean.abs() < 1e-3), "{mean}");
        assert!(
            (covariance.trace() / WIDTH as f64 - 1.).abs() < 1e-2,
            "{covariance}"
        );
    }

    #[test]
    fn whitened_patches_have_mean_zero_and_no_correlation() {
        let groups = features(1);
        let after = statistics(&fitted(&groups).forward(&groups).unwrap());
        for group in 0..2 {
            let mean = &after.sums[group] / after.count;
            let covariance = &after.products[group] / after.count;
            for row in 0..WIDTH {
                assert!(mean[row].abs() < 1e-3, "{mean}");
                for column in 0..WIDTH {
                    let value = covariance[(row, column)];
                    let expected = if row == column {
                        0.3..1.01
                    } else {
                        -1e-2..1e-2
                    };
                    assert!(expected.contains(&value), "{covariance}");
                }
            }
        }
    }

    #[test]
    fn a_change_along_a_quiet_direction_counts_more_than_the_same_along_a_loud_one() {
        let groups = features(2);
        let moved = |channel: usize| {
            let mut step = vec![0f32; WIDTH];
            step[channel] = 3.0;
            let step = Tensor::from_vec(step, (1, 1, WIDTH), &Device::Cpu).unwrap();
            let changed = EncoderGroups {
                shallow: groups.shallow.broadcast_add(&step).unwrap(),
                deep: groups.deep.clone(),
            };
            let whitening = fitted(&groups);
            let [before, after] = [&groups, &changed]
                .map(|groups| whitening.forward(groups).unwrap().shallow.clone());
            let distance = (after - before).unwrap().sqr().unwrap().mean_all().unwrap();
            distance.to_scalar::<f32>().unwrap()
        };
        assert!(moved(2) > 10.0 * moved(0));
    }

    #[test]
    fn the_more_noise_the_nearer_the_directions_keep_their_lengths() {
        let groups = features(3);
        let ratio = |noise: f64| {
            let tensors = statistics(&groups).whitening(noise, &Device::Cpu).unwrap();
            let weights = tensors[0].1.to_vec2::<f32>().unwrap();
            weights[2][2] / weights[0][0]
        };
        // From one over the ratio of the deviations down to nearly equal.
        assert!(ratio(1e-3) > 5.0 && ratio(0.1) < ratio(1e-3) && ratio(10.0) < 1.5);
    }

    #[test]
    fn without_features_there_is_nothing_to_whiten() {
        let error = FeatureStatistics::new(WIDTH, 1).whitening(NOISE_SHARE, &Device::Cpu);
        assert!(error.unwrap_err().to_string().contains("found none"));
    }
}
