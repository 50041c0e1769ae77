//! The losses between the encoder's features and the decoder's.
//!
//! Both look hardest at the patches that are rebuilt worst. The share that is looked at shrinks
//! from all patches to the worst tenth over the first iterations, group by group. The threshold
//! is taken over the images of one shard of the batch.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::model::mvmcad::{GroupFeatures, cosine_distance};

/// Share of the patches that is left aside in the end.
const LEFT_ASIDE: f64 = 0.9;
/// Share of the gradient that easy patches keep under [`Objective::Dinomaly`].
const DINOMALY_EASY_SHARE: f64 = 0.1;
/// Power of a patch's distance that its gradient is scaled with under [`Objective::SoftMining`], as
/// INP-Former has it.
const MINING_POWER: f64 = 3.0;

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Objective {
    /// The mean cosine distance of the hardest patches (MVMCAD's). The others keep `easy_share`
    /// of their gradient: 0 is the formula as published, which now and then is unstable.
    Focal {
        /// Share of the gradient that easy patches keep.
        easy_share: f64,
    },
    /// The cosine distance of whole feature maps, easy patches with a tenth of their gradient.
    Dinomaly,
    /// The cosine distance of whole feature maps; each patch's gradient is scaled with the cube of
    /// its distance in units of the mean distance (Luo et al., "INP-Former").
    SoftMining,
}

impl Objective {
    /// The mean loss of both groups; `left_aside` is the share of patches that count as easy.
    ///
    /// # Errors
    /// When the device fails.
    pub fn loss(self, features: &GroupFeatures, left_aside: f64) -> Result<Tensor> {
        let distances = features.distances()?;
        let first = self.group_loss(features, &distances[0], 0, left_aside)?;
        let second = self.group_loss(features, &distances[1], 1, left_aside)?;
        (first + second)? * 0.5
    }

    fn group_loss(
        self,
        features: &GroupFeatures,
        distances: &Tensor,
        group: usize,
        left_aside: f64,
    ) -> Result<Tensor> {
        match self {
            Self::Focal { easy_share } => {
                let (hard, count) = hard_patches(distances, left_aside)?;
                let easy = hard.affine(-1.0, 1.0)?;
                // Zero in value; its gradient is the easy patches' share.
                let leak = (distances - distances.detach())?.mul(&easy)?;
                let sum = (distances.mul(&hard)? + (leak * easy_share)?)?.sum_all()?;
                sum * (1.0 / count as f64)
            }
            Self::Dinomaly => {
                let (hard, _) = hard_patches(distances, left_aside)?;
                let share = hard.affine(1.0 - DINOMALY_EASY_SHARE, DINOMALY_EASY_SHARE)?;
                whole_map_loss(features, group, &share)
            }
            Self::SoftMining => {
                let distances = distances.detach();
                let mean = distances
                    .mean_all()?
                    .to_scalar::<f32>()?
                    .max(f32::MIN_POSITIVE);
                let share = (distances / f64::from(mean))?.powf(MINING_POWER)?;
                whole_map_loss(features, group, &share)
            }
        }
    }
}

/// The mean cosine distance of whole feature maps; the gradient of each patch, `[batch, patches]`,
/// is scaled with its `share`.
fn whole_map_loss(features: &GroupFeatures, group: usize, share: &Tensor) -> Result<Tensor> {
    let share = share.unsqueeze(2)?;
    let decoder = &features.decoder[group];
    let fixed = decoder.detach().broadcast_mul(&share.affine(-1.0, 1.0)?)?;
    let scaled = (decoder.broadcast_mul(&share)? + fixed)?;
    let encoder = features.encoder[group].flatten_from(1)?;
    cosine_distance(&encoder, &scaled.flatten_from(1)?)?.mean_all()
}

/// The share of patches that count as easy at an iteration: a ramp over `ramp` iterations.
///
/// ```
/// use panoptes::training::objective::left_aside;
/// assert_eq!(left_aside(0, 1000), 0.0);
/// assert_eq!(left_aside(500, 1000), 0.45);
/// assert_eq!(left_aside(5000, 1000), 0.9);
/// ```
pub fn left_aside(iteration: u64, ramp: u64) -> f64 {
    LEFT_ASIDE * (iteration as f64 / ramp.max(1) as f64).min(1.0)
}

/// 1 where a patch is among the hardest, 0 elsewhere, and how many are.
fn hard_patches(distances: &Tensor, left_aside: f64) -> Result<(Tensor, usize)> {
    let values = distances.detach().flatten_all()?.to_vec1::<f32>()?;
    let wanted = ((values.len() as f64 * (1.0 - left_aside)) as usize).clamp(1, values.len());
    let mut sorted = values.clone();
    let (_, threshold, _) = sorted.select_nth_unstable_by(wanted - 1, |a, b| b.total_cmp(a));
    let threshold = *threshold;
    let hard: Vec<f32> = values
        .iter()
        .map(|&value| if value >= threshold { 1.0 } else { 0.0 })
        .collect();
    let count = hard.iter().filter(|&&flag| flag > 0.0).count();
    Ok((
        Tensor::from_vec(hard, distances.dims(), distances.device())?,
        count.max(1),
    ))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn features(decoder: &Var) -> GroupFeatures {
        let encoder = Tensor::new(&[[[1f32, 0.0], [1.0, 0.0]]], &Device::Cpu).unwrap();
        let decoder = decoder.as_tensor().clone();
        GroupFeatures {
            encoder: [encoder.clone(), encoder],
            decoder: [decoder.clone(), decoder],
        }
    }

    /// The first patch is rebuilt badly, the second nearly right.
    fn decoder() -> Var {
        Var::new(&[[[0.6f32, 0.8], [0.96, 0.28]]], &Device::Cpu).unwrap()
    }

    fn gradient(objective: Objective, left_aside: f64) -> (f32, Vec<f32>) {
        let decoder = decoder();
        let loss = objective.loss(&features(&decoder), left_aside).unwrap();
        let store = loss.backward().unwrap();
        let gradient = store.get(&decoder).unwrap().flatten_all().unwrap();
        (loss.to_scalar().unwrap(), gradient.to_vec1().unwrap())
    }

    #[test]
    fn the_focal_loss_is_the_mean_of_the_hardest_patches() {
        let (all, _) = gradient(Objective::Focal { easy_share: 0.0 }, 0.0);
        assert!((all - 0.22).abs() < 1e-6, "{all}");
        let (hard, gradient) = gradient(Objective::Focal { easy_share: 0.0 }, 0.5);
        assert!((hard - 0.4).abs() < 1e-6, "{hard}");
        assert!(gradient[1].abs() > 0.1);
        assert_eq!(gradient[2..], [0.0, 0.0]);
    }

    #[test]
    fn easy_patches_keep_their_share_of_the_gradient() {
        let (loss, whole) = gradient(Objective::Focal { easy_share: 1.0 }, 0.5);
        let (same, tenth) = gradient(Objective::Focal { easy_share: 0.1 }, 0.5);
        assert_eq!(loss, same);
        assert!((whole[0] - tenth[0]).abs() < 1e-6);
        assert!((whole[3] * 0.1 - tenth[3]).abs() < 1e-6 && whole[3].abs() > 1e-3);
    }

    #[test]
    fn soft_mining_scales_the_gradient_with_the_cube_of_the_distance() {
        let (value, whole) = gradient(Objective::Dinomaly, 0.0);
        let (same, mined) = gradient(Objective::SoftMining, 0.0);
        assert!((value - same).abs() < 1e-6);
        // Distances 0.4 and 0.04, mean 0.22.
        for (index, distance) in [(0, 0.4f32), (3, 0.04)] {
            let expected = whole[index] * (distance / 0.22).powi(3);
            assert!(
                (mined[index] - expected).abs() < 1e-5,
                "{mined:?} {whole:?}"
            );
        }
        assert!(mined[0].abs() > 1e-2 && mined[3].abs() > 1e-4);
    }

    #[test]
    fn dinomaly_scales_the_gradient_and_not_the_value() {
        let (value, whole) = gradient(Objective::Dinomaly, 0.0);
        let (same, scaled) = gradient(Objective::Dinomaly, 0.5);
        assert!((value - same).abs() < 1e-6);
        assert!((whole[0] - scaled[0]).abs() < 1e-6);
        assert!((whole[3] * 0.1 - scaled[3]).abs() < 1e-6 && whole[3].abs() > 1e-3);
    }
}
