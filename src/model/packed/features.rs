//! What is compared at the end: the encoder's features with the rebuilt ones, patch by patch.

use super::super::mvmcad::{COSINE_EPSILON, RECENTRING_EPSILON, Target};

/// Independent partial sums, so that the compiler may use vector registers.
const LANES: usize = 16;

/// What the decoder was to rebuild of one image's tokens of `stride` values, `[patches, width]`; the
/// class token comes first, and `leading` tokens before the patches.
pub(super) fn target(
    tokens: &[f32],
    stride: usize,
    width: usize,
    leading: usize,
    kind: Target,
) -> Vec<f32> {
    let class = &tokens[..width];
    let patches = tokens.chunks_exact(stride).skip(leading);
    let mut targets = Vec::with_capacity(tokens.len());
    for patch in patches {
        let from = targets.len();
        match kind {
            Target::Plain => targets.extend_from_slice(&patch[..width]),
            Target::Recentred => {
                targets.extend(
                    patch[..width]
                        .iter()
                        .zip(class)
                        .map(|(value, class)| value - class),
                );
                recentre(&mut targets[from..]);
            }
        }
    }
    targets
}

fn recentre(values: &mut [f32]) {
    let count = values.len() as f32;
    let mean = values.iter().sum::<f32>() / count;
    let variance = values
        .iter()
        .map(|value| (value - mean) * (value - mean))
        .sum::<f32>()
        / count;
    let scale = 1.0 / (variance + RECENTRING_EPSILON as f32).sqrt();
    values
        .iter_mut()
        .for_each(|value| *value = (*value - mean) * scale);
}

/// `1 - cosine`.
pub(super) fn distance(left: &[f32], right: &[f32]) -> f32 {
    let guard = (COSINE_EPSILON * COSINE_EPSILON) as f32;
    let length = |values| (dot(values, values) + guard).sqrt();
    1.0 - dot(left, right) / (length(left) * length(right))
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (lefts, rights) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest = lefts.remainder().iter().zip(rights.remainder());
    let rest: f32 = rest.map(|(left, right)| left * right).sum();
    for (left, right) in lefts.zip(rights) {
        for lane in 0..LANES {
            lanes[lane] += left[lane] * right[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}
