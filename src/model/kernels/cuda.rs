//! What a GPU is asked for beyond candle's own operations: a stream of its own, memory that stays taken,
//! copies from pinned memory, linear layers whose bias is added as the product is written, and the passes
//! over memory of `passes.cu`.
//!
//! None of these operations has a backward step; only devices that were opened here have them, and those
//! are for inference. Every tensor of such a device is made, used and freed on its one stream.

#![allow(
    unsafe_code,
    reason = "the driver's interface; each block says what it relies on"
)]

mod linear;
mod passes;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use candle_core::cuda_backend::cudarc::cublaslt::CudaBlasLT;
use candle_core::cuda_backend::cudarc::driver::{DevicePtrMut, PinnedHostSlice, result, sys};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Device, Error, Result, Storage, Tensor};

pub(crate) use self::linear::linear;
pub(crate) use self::passes::{cosine_distance, mean, split_positive};

/// What the open devices have: an operation knows the device of its input alone.
static OPEN: LazyLock<Mutex<HashMap<DeviceId, Weak<Tools>>>> = LazyLock::new(Mutex::default);

/// What operations need on an open device.
#[derive(Debug)]
struct Tools {
    products: CudaBlasLT,
    /// `passes.cu`, compiled.
    passes: String,
}

/// The tools of a tensor's device, if it was opened here.
fn tools(tensor: &Tensor) -> Option<(CudaDevice, Arc<Tools>)> {
    let Device::Cuda(device) = tensor.device() else {
        return None;
    };
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let tools = open.get(&device.id())?.upgrade()?;
    Some((device.clone(), tools))
}

/// A GPU with a stream of its own.
#[derive(Debug)]
pub(crate) struct Gpu {
    device: CudaDevice,
    /// Kept for the operations, which find them in [`OPEN`].
    _tools: Arc<Tools>,
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
        let tools = Arc::new(Tools {
            products: CudaBlasLT::new(device.cuda_stream()).map_err(Error::wrap)?,
            passes: compile_ptx(include_str!("cuda/passes.cu"))
                .map_err(Error::wrap)?
                .to_src(),
        });
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, tools| tools.strong_count() > 0);
        open.insert(device.id(), Arc::downgrade(&tools));
        drop(open);
        Ok(Self {
            device,
            _tools: tools,
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
        let pool =
            result::device::get_default_mem_pool(context.cu_device()).map_err(Error::wrap)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let value = (&raw mut threshold).cast::<c_void>();
        result::mem_pool::set_attribute(pool, attribute, value).map_err(Error::wrap)
    }
}
