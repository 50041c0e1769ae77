//! A linear layer as one operation, with its backward step.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::{last_dim, values};

/// A linear layer over the rows of a matrix. The bias is added where the product stands, while it is
/// still in the cache.
pub(super) struct Linear;

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
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
        let (rows, inner) = x_layout.shape().dims2()?;
        let (width, weights) = weight_layout.shape().dims2()?;
        let bias = values(bias, bias_layout)?;
        if weights != inner || bias.len() != width {
            bail!(
                "expected a weight of [{width}, {inner}] and a bias of {width} values, found \
                 [{width}, {weights}] and {}",
                bias.len()
            )
        }
        let transposed = weight_layout.transpose(0, 1)?;
        let mut out = x.matmul(weight, (1, rows, width, inner), x_layout, &transposed)?;
        if let CpuStorage::F32(out) = &mut out {
            for row in out.chunks_exact_mut(width) {
                for i in 0..width {
                    row[i] += bias[i];
                }
            }
        }
        Ok((out, Shape::from((rows, width))))
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
        let bias = gradient.apply_op1_no_bwd(&ColumnSums)?;
        let input = gradient.matmul(weight)?;
        let weight = gradient.t()?.matmul(x)?;
        Ok((Some(input), Some(weight), Some(bias)))
    }
}

struct ColumnSums;

impl CustomOp1 for ColumnSums {
    fn name(&self) -> &'static str {
        "column-sums"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = last_dim(layout);
        let mut sums = vec![0f32; width];
        for row in values(x, layout)?.chunks_exact(width) {
            for i in 0..width {
                sums[i] += row[i];
            }
        }
        Ok((CpuStorage::F32(sums), Shape::from(width)))
    }
}
