//! Brings a position table to another grid of patches, as the two known conventions do.
//!
//! Both are bicubic and separable, so each is one small matrix an axis; the table is small and this runs
//! on the host whenever a network is built: in training for every shard of a step.

use candle_core::{DType, Device, Result, Tensor};

use super::vit::{PositionInterpolation, VitConfig};

/// The table `[1, old * old, width]` at the grid of this input, `[1, grid * grid, width]`; one that has
/// it stays as it is.
pub(crate) fn resize_table(table: &Tensor, config: &VitConfig) -> Result<Tensor> {
    let (old, new, width) = (config.position_side, config.grid(), config.width);
    if old == new {
        // Dinomaly's offset would move it even so.
        return Ok(table.clone());
    }
    let weights = match config.position_interpolation {
        PositionInterpolation::Dinomaly => plain_bicubic(old, new),
        PositionInterpolation::Antialiased => antialiased_bicubic(old, new),
    };
    let (device, precision) = (table.device().clone(), table.dtype());
    let weights = Tensor::from_vec(weights, (new, old), &Device::Cpu)?;
    let table = table.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    // Rows first: [new, old] x [old, old * width]; then columns, the rows as a batch.
    let rows = weights.matmul(&table.reshape((old, old * width))?)?;
    let rows = rows.reshape((new, old, width))?;
    let both = weights.broadcast_left(new)?.contiguous()?.matmul(&rows)?;
    both.reshape((1, new * new, width))?
        .to_dtype(precision)?
        .to_device(&device)
}

/// Keys' cubic kernel.
fn cubic(distance: f64, a: f64) -> f64 {
    let x = distance.abs();
    if x <= 1. {
        ((a + 2.) * x - (a + 3.)) * x * x + 1.
    } else if x < 2. {
        ((a * x - 5. * a) * x + 8. * a) * x - 4. * a
    } else {
        0.
    }
}

/// `[new, old]` weights: four taps round `(i + 0.5) / s - 0.5`, indices clamped to the table.
fn plain_bicubic(old: usize, new: usize) -> Vec<f32> {
    // Dinomaly inherits DINOv2's offset of 0.1, which guards a rounding fault of old torch.
    let scale = (new as f64 + 0.1) / old as f64;
    let mut weights = vec![0f32; new * old];
    for (row, weights) in weights.chunks_exact_mut(old).enumerate() {
        let centre = (row as f64 + 0.5) / scale - 0.5;
        let first = centre.floor() as i64 - 1;
        for tap in first..first + 4 {
            let column = tap.clamp(0, old as i64 - 1) as usize;
            weights[column] += cubic(centre - tap as f64, -0.75) as f32;
        }
    }
    weights
}

/// `[new, old]` weights: the kernel stretched by the scale when shrinking, normalised to one.
fn antialiased_bicubic(old: usize, new: usize) -> Vec<f32> {
    let scale = old as f64 / new as f64;
    let stretch = scale.max(1.);
    let mut weights = vec![0f32; new * old];
    for (row, weights) in weights.chunks_exact_mut(old).enumerate() {
        let centre = scale * (row as f64 + 0.5);
        let taps: Vec<f64> = (0..old)
            .map(|column| cubic((column as f64 - centre + 0.5) / stretch, -0.5))
            .collect();
        let sum: f64 = taps.iter().sum();
        for (weight, tap) in weights.iter_mut().zip(&taps) {
            *weight = (tap / sum) as f32;
        }
    }
    weights
}
