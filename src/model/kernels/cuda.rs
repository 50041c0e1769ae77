//! What a GPU is asked for beyond candle's own operations: a stream of its own, memory that stays taken,
//! copies from pinned memory, and linear layers whose bias is added as the product is written.
//!
//! Such linear layers have no backward step; only devices that were opened here have them, and those are
//! for inference. Every tensor of such a device is made, used and freed on its one stream.

#![allow(
    unsafe_code,
    reason = "the driver's interface; each block says what it relies on"
)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cublaslt::{CudaBlasLT, Matmul, MatmulConfig};
use candle_core::cuda_backend::cudarc::driver::{DevicePtrMut, PinnedHostSlice, result, sys};
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, D, DType, Device, Error, Layout, Result, Shape, Storage,
    Tensor, bail,
};
use half::bf16;

/// The open devices' products: a linear layer knows the device of its input alone.
static PRODUCTS: LazyLock<Mutex<HashMap<DeviceId, Weak<CudaBlasLT>>>> =
    LazyLock::new(Mutex::default);

/// A GPU with a stream of its own.
#[derive(Debug)]
pub(crate) struct Gpu {
    device: CudaDevice,
    /// Kept for [`linear`], which finds it in [`PRODUCTS`].
    _products: Arc<CudaBlasLT>,
    /// Images on their way to the device; grows to the largest batch.
    staging: Option<PinnedHostSlice<f32>>,
}

impl Gpu {
    /// Opens a device by its number.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn open(ordinal: usize) -> Result<Self> {
        let device = CudaDevice::new_with_stream(ordinal)?;
        // SAFETY: the device is new and has no tensor yet; those that will be are used on its stream
        // alone, in order, so no event is needed between a use and the next or the memory's end.
        unsafe { device.disable_event_tracking() };
        keep_memory(&device)?;
        let products = Arc::new(CudaBlasLT::new(device.cuda_stream()).map_err(Error::wrap)?);
        let mut known = PRODUCTS.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, products| products.strong_count() > 0);
        known.insert(device.id(), Arc::downgrade(&products));
        drop(known);
        Ok(Self {
            device,
            _products: products,
            staging: None,
        })
    }

    /// The device as candle has it.
    pub(crate) fn device(&self) -> Device {
        Device::Cuda(self.device.clone())
    }

    /// Images, each as large as `shape` says, and zeros behind them. Returns before they have arrived;
    /// what is asked of the device next waits for them.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn upload(
        &mut self,
        images: &[&[f32]],
        shape: (usize, usize, usize, usize),
    ) -> Result<Tensor> {
        let count = shape.0 * shape.1 * shape.2 * shape.3;
        let stream = self.device.cuda_stream();
        // The copy before this one has been made, be it that its batch failed and nobody waited for it.
        stream.synchronize().map_err(Error::wrap)?;
        let staging = match self.staging.take() {
            Some(staging) if staging.len() >= count => staging,
            // SAFETY: every value that is read of it is written below.
            _ => unsafe { stream.context().alloc_pinned(count) }.map_err(Error::wrap)?,
        };
        let staging = self.staging.insert(staging);
        let values = &mut staging.as_mut_slice().map_err(Error::wrap)?[..count];
        let mut filled = 0;
        for image in images {
            values[filled..][..image.len()].copy_from_slice(image);
            filled += image.len();
        }
        values[filled..].fill(0.0);
        // SAFETY: the copy below fills it before anything that is asked of the stream later reads it.
        let mut slice = unsafe { self.device.alloc::<f32>(count)? };
        {
            let (pointer, _guard) = slice.device_ptr_mut(&stream);
            // SAFETY: both sides hold `count` values; the device's is freed on this stream, and the
            // host's is not touched until the stream has been waited for, above or in `Drop`.
            unsafe { result::memcpy_htod_async(pointer, values, stream.cu_stream()) }
                .map_err(Error::wrap)?;
        }
        let storage = CudaStorage::wrap_cuda_slice(slice, self.device.clone());
        let storage = Storage::Cuda(storage);
        Ok(Tensor::from_storage(
            storage,
            shape,
            BackpropOp::none(),
            false,
        ))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // The pinned memory goes with it. A device that fails here does not copy any more.
        self.device.cuda_stream().synchronize().ok();
    }
}

/// Has the device keep freed memory for the next batch instead of giving it back whenever it is waited
/// for.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let context = Arc::clone(device.cuda_stream().context());
    if !context.has_async_alloc() {
        return Ok(()); // there is no pool then
    }
    let mut threshold = u64::MAX;
    // SAFETY: the device comes from an open context, the pool from the device, and the attribute is a
    // number of this size.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).map_err(Error::wrap)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let value = (&raw mut threshold).cast::<c_void>();
        result::mem_pool::set_attribute(pool, attribute, value).map_err(Error::wrap)
    }
}

/// `x` times the transpose of `weight`, plus `bias`, in one pass, in `bf16` on a device of a [`Gpu`]; none
/// elsewhere.
///
/// # Errors
/// When the shapes do not fit, or the device fails.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Option<Tensor>> {
    let (Device::Cuda(device), DType::BF16) = (x.device(), x.dtype()) else {
        return Ok(None);
    };
    let products = {
        let known = PRODUCTS.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&device.id()).and_then(Weak::upgrade)
    };
    let Some(products) = products else {
        return Ok(None);
    };
    let inner = x.dim(D::Minus1)?;
    let rows = x.reshape((x.elem_count() / inner.max(1), inner))?;
    let product = rows
        .contiguous()?
        .apply_op3_no_bwd(weight, bias, &BiasedProduct { products })?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = weight.dim(0)?;
    }
    product.reshape(dims).map(Some)
}

/// A product of rows with a weight's rows, plus a bias.
struct BiasedProduct {
    products: Arc<CudaBlasLT>,
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
            bail!("expected contiguous tensors, found strides {:?}", layouts.map(Layout::stride))
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
            self.products
                .matmul(config, &a, &b, &mut product, Some(&bias), None)
        }
        .map_err(Error::wrap)?;
        let product = CudaStorage::wrap_cuda_slice(product, device);
        Ok((product, Shape::from((count, width))))
    }
}
