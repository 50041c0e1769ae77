//! Operations for the CPU: layer norm, softmax, GELU, linear layers, attention.
//!
//! candle's fused versions of these have no backward pass, and its composed versions spend more
//! time on temporary tensors than the matrix products take. Each operation here is one pass
//! forward and, all but attention, one backward over contiguous `f32`; the backward passes are held
//! against finite differences. On other devices the composed versions of candle are used.
//!
//! Below lie the kernels of [`super::packed`] and of the resize, which need no tensors; they alone may use
//! `unsafe`.

pub(crate) mod arithmetic;
mod attention;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod elementwise;
pub(crate) mod head;
pub(crate) mod lanes;
mod linear;
pub(crate) mod product;
pub(super) mod resize;
pub(crate) mod rows;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vector_tests;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, DType, Layout, Result, Shape, Tensor, bail,
};

pub(crate) use self::attention::{attention, linear_attention};
use self::linear::Linear;

/// Independent partial sums, so that the compiler may use vector registers.
const LANES: usize = 16;

/// `x` normalised over its last dimension, times `weight`, plus `bias`. Half precision is widened
/// for it: a variance of a thousand channels needs the digits.
///
/// # Errors
/// When the shapes do not fit.
pub(crate) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f32,
) -> Result<Tensor> {
    if is_fast(x) {
        x.contiguous()?
            .apply_op3(weight, bias, LayerNorm { epsilon })
    } else {
        let [wide, weight, bias] = [x, weight, bias].map(|tensor| tensor.to_dtype(DType::F32));
        let wide = wide?;
        let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        centred
            .broadcast_div(&(variance + f64::from(epsilon))?.sqrt()?)?
            .broadcast_mul(&weight?)?
            .broadcast_add(&bias?)?
            .to_dtype(x.dtype())
    }
}

/// Softmax over the last dimension. Half precision is widened for its sum.
///
/// # Errors
/// When the device fails.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    if is_fast(x) {
        x.contiguous()?.apply_op1(Softmax)
    } else {
        candle_nn::ops::softmax(&x.to_dtype(DType::F32)?, D::Minus1)?.to_dtype(x.dtype())
    }
}

/// The exact (error function) GELU.
///
/// # Errors
/// When the device fails.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    if is_fast(x) {
        x.contiguous()?.apply_op1(Gelu)
    } else {
        x.gelu_erf()
    }
}

/// `x` times the transpose of `weight`, plus `bias`: one linear layer over the last dimension.
///
/// # Errors
/// When the shapes do not fit.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let inner = x.dim(D::Minus1)?;
    let rows = x.reshape((x.elem_count() / inner.max(1), inner))?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = weight.dim(0)?;
    }
    let sum = if is_fast(x) {
        rows.contiguous()?.apply_op3(weight, bias, Linear)?
    } else {
        rows.matmul(&weight.t()?)?.broadcast_add(bias)?
    };
    sum.reshape(dims)
}

/// Whether these operations compute `x` themselves.
pub(crate) fn is_fast(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else {
        bail!("expected `f32` values, found {:?}", storage.dtype())
    };
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!(
            "expected a contiguous tensor, found strides {:?}",
            layout.stride()
        )
    };
    Ok(&values[start..end])
}

fn last_dim(layout: &Layout) -> usize {
    layout.dims().last().copied().unwrap_or(1).max(1)
}

fn lane_sum(left: &[f32], right: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let mut left_chunks = left.chunks_exact(LANES);
    let mut right_chunks = right.chunks_exact(LANES);
    for (a, b) in (&mut left_chunks).zip(&mut right_chunks) {
        for lane in 0..LANES {
            lanes[lane] += term(a[lane], b[lane]);
        }
    }
    let rest = left_chunks.remainder().iter().zip(right_chunks.remainder());
    lanes.iter().sum::<f32>() + rest.map(|(&a, &b)| term(a, b)).sum::<f32>()
}

fn lane_max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks
        .remainder()
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] {
                chunk[lane]
            } else {
                lanes[lane]
            };
        }
    }
    lanes.into_iter().fold(rest, f32::max)
}

/// e^x to about 2 units in the last place, in a form that compilers vectorise (Cephes `expf`).
fn exp(x: f32) -> f32 {
    /// Adding this rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let power = shifted - ROUND;
    let r = (x - power * 0.693_359_4) + power * 2.121_944_4e-4;
    let tail = ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2)
        * r
        + 1.666_666_5e-1)
        * r
        + 0.5;
    let mantissa = tail * r * r + r + 1.0;
    mantissa * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// The standard normal's distribution function and density at `x`
/// (Abramowitz and Stegun 7.1.26, absolute error below 2e-7).
fn normal(x: f32) -> (f32, f32) {
    let gauss = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let series = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t
        + 0.254_829_6)
        * t;
    let tail = 0.5 * series * gauss;
    let distribution = if x < 0.0 { tail } else { 1.0 - tail };
    (distribution, gauss * 0.398_942_3)
}

struct LayerNorm {
    epsilon: f32,
}

/// Mean and reciprocal standard deviation of a row.
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = lane_sum(row, row, |a, _| a) / count;
    let variance = lane_sum(row, row, |a, _| (a - mean) * (a - mean)) / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let width = last_dim(x_layout);
        let (x, weight) = (values(x, x_layout)?, values(weight, weight_layout)?);
        let bias = values(bias, bias_layout)?;
        if weight.len() != width || bias.len() != width {
            bail!(
                "layer norm over {width} values, found {} weights",
                weight.len()
            )
        }
        let mut out = vec![0f32; x.len()];
        for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let (mean, scale) = moments(row, self.epsilon);
            for i in 0..width {
                out[i] = (row[i] - mean) * scale * weight[i] + bias[i];
            }
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let epsilon = self.epsilon;
        let input = x.apply_op3_no_bwd(weight, &gradient, &LayerNormInput { epsilon })?;
        let affine = x.apply_op2_no_bwd(&gradient, &LayerNormAffine { epsilon })?;
        Ok((Some(input), Some(affine.get(0)?), Some(affine.get(1)?)))
    }
}

/// Gradient of a layer norm with respect to its input.
struct LayerNormInput {
    epsilon: f32,
}

impl CustomOp3 for LayerNormInput {
    fn name(&self) -> &'static str {
        "layer-norm-input-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let width = last_dim(x_layout);
        let (x, weight) = (values(x, x_layout)?, values(weight, weight_layout)?);
        let gradient = values(gradient, gradient_layout)?;
        let mut out = vec![0f32; x.len()];
        let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width));
        for ((row, gradient), out) in rows.zip(out.chunks_exact_mut(width)) {
            let (mean, scale) = moments(row, self.epsilon);
            for i in 0..width {
                out[i] = gradient[i] * weight[i];
            }
            let sum = lane_sum(out, row, |a, _| a) / width as f32;
            let product = lane_sum(out, row, |a, b| a * (b - mean) * scale) / width as f32;
            for i in 0..width {
                out[i] = scale * (out[i] - sum - (row[i] - mean) * scale * product);
            }
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

/// Gradients of a layer norm's weight and bias, as two rows.
struct LayerNormAffine {
    epsilon: f32,
}

impl CustomOp2 for LayerNormAffine {
    fn name(&self) -> &'static str {
        "layer-norm-affine-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let width = last_dim(x_layout);
        let (x, gradient) = (values(x, x_layout)?, values(gradient, gradient_layout)?);
        let mut out = vec![0f32; 2 * width];
        let (weight, bias) = out.split_at_mut(width);
        for (row, gradient) in x.chunks_exact(width).zip(gradient.chunks_exact(width)) {
            let (mean, scale) = moments(row, self.epsilon);
            for i in 0..width {
                weight[i] += gradient[i] * (row[i] - mean) * scale;
                bias[i] += gradient[i];
            }
        }
        Ok((CpuStorage::F32(out), Shape::from((2, width))))
    }
}

/// The softmax of each row, once it is multiplied by `scale`, in its place.
fn softmax_rows(values: &mut [f32], width: usize, scale: f32) {
    for row in values.chunks_exact_mut(width) {
        let max = lane_max(row);
        for value in row.iter_mut() {
            *value = exp((*value - max) * scale);
        }
        let share = 1.0 / lane_sum(row, row, |a, _| a);
        for value in row.iter_mut() {
            *value *= share;
        }
    }
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = values(x, layout)?.to_vec();
        softmax_rows(&mut out, last_dim(layout), 1.0);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        result.apply_op2_no_bwd(&gradient, &SoftmaxInput).map(Some)
    }
}

/// Gradient of a softmax with respect to its input, from its result.
struct SoftmaxInput;

impl CustomOp2 for SoftmaxInput {
    fn name(&self) -> &'static str {
        "softmax-gradient"
    }

    fn cpu_fwd(
        &self,
        result: &CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let width = last_dim(layout);
        let (result, gradient) = (values(result, layout)?, values(gradient, gradient_layout)?);
        let mut out = vec![0f32; result.len()];
        let rows = result.chunks_exact(width).zip(gradient.chunks_exact(width));
        for ((row, gradient), out) in rows.zip(out.chunks_exact_mut(width)) {
            let product = lane_sum(row, gradient, |a, b| a * b);
            for i in 0..width {
                out[i] = row[i] * (gradient[i] - product);
            }
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = values(x, layout)?
            .iter()
            .map(|&x| x * normal(x).0)
            .collect();
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        x.apply_op2_no_bwd(&gradient, &GeluInput).map(Some)
    }
}

/// Gradient of a GELU with respect to its input.
struct GeluInput;

impl CustomOp2 for GeluInput {
    fn name(&self) -> &'static str {
        "gelu-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gradient) = (values(x, layout)?, values(gradient, gradient_layout)?);
        let slope = |x: f32| {
            let (distribution, density) = normal(x);
            distribution + x * density
        };
        let out = x
            .iter()
            .zip(gradient)
            .map(|(&x, &g)| g * slope(x))
            .collect();
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}
