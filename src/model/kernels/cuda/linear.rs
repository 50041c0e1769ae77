//! Linear layers in `bf16` that add their bias as they write the product.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cublaslt::{Matmul, MatmulConfig};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, D, DType, Error, Layout, Result, Shape, Tensor, bail,
};
use half::bf16;

use super::{Tools, tools};

/// `x` times the transpose of `weight`, plus `bias`, in one pass, in `bf16` on a device of a [`Gpu`]; none
/// elsewhere.
///
/// # Errors
/// When the shapes do not fit, or the device fails.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Option<Tensor>> {
    let Some((_, tools)) = tools(x).filter(|_| x.dtype() == DType::BF16) else {
        return Ok(None);
    };
    let inner = x.dim(D::Minus1)?;
    let rows = x.reshape((x.elem_count() / inner.max(1), inner))?;
    let product = rows
        .contiguous()?
        .apply_op3_no_bwd(weight, bias, &BiasedProduct { tools })?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = weight.dim(0)?;
    }
    product.reshape(dims).map(Some)
}

/// A product of rows with a weight's rows, plus a bias.
struct BiasedProduct {
    tools: Arc<Tools>,
}

impl CustomOp3 for BiasedProduct {
    fn name(&self) -> &'static str {
        "biased-product"
    }

    fn cpu_fwd(
        &self,
        _rows: &CpuStorage,
        _rows_layout: &Layout,
        _weight: &CpuStorage,
        _weight_layout: &Layout,
        _bias: &CpuStorage,
        _bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("expected tensors on a GPU, found some on the processor")
    }

    fn cuda_fwd(
        &self,
        rows: &CudaStorage,
        rows_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (count, inner) = rows_layout.shape().dims2()?;
        let (width, weights) = weight_layout.shape().dims2()?;
        let biases = bias_layout.shape().dims1()?;
        if weights != inner || biases != width {
            bail!(
                "expected a weight of [{width}, {inner}] and a bias of {width} values, found \
                 [{width}, {weights}] and {biases}"
            )
        }
        let layouts = [rows_layout, weight_layout, bias_layout];
        if layouts.iter().any(|layout| !layout.is_contiguous()) {
            bail!(
                "expected contiguous tensors, found strides {:?}",
                layouts.map(Layout::stride)
            )
        }
        let device = rows.device().clone();
        let a = weight.as_cuda_slice::<bf16>()?;
        let a = a.slice(weight_layout.start_offset()..);
        let b = rows.as_cuda_slice::<bf16>()?;
        let b = b.slice(rows_layout.start_offset()..);
        let bias = bias.as_cuda_slice::<bf16>()?;
        let bias = bias.slice(bias_layout.start_offset()..);
        // SAFETY: the product below writes every value.
        let mut product = unsafe { device.alloc::<bf16>(count * width)? };
        // A matrix by rows is its transpose by columns: `product^T = weight rows^T`.
        let config = MatmulConfig {
            transa: true,
            transb: false,
            transc: false,
            m: width as u64,
            n: count as u64,
            k: inner as u64,
            alpha: 1.0,
            lda: inner as i64,
            ldb: inner as i64,
            beta: 0.0,
            ldc: width as i64,
            stride_a: None,
            stride_b: None,
            stride_c: None,
            stride_bias: None,
            batch_size: None,
        };
        // SAFETY: the weight holds `width * inner` values, the rows `count * inner`, the bias `width` and
        // the product `count * width`, all contiguous, as checked above; all are of this stream.
        unsafe {
            self.tools
                .products
                .matmul(config, &a, &b, &mut product, Some(&bias), None)
        }
        .map_err(Error::wrap)?;
        let product = CudaStorage::wrap_cuda_slice(product, device);
        Ok((product, Shape::from((count, width))))
    }
}
