//! Launches `passes.cu`. Each takes what it can and leaves the rest to candle's own operations.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaView, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDType, CudaDevice};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Error, Layout, Result, Shape, Storage, Tensor, bail};
use half::bf16;

use super::tools;

/// What the kernels are called together.
const MODULE: &str = "panoptes-passes";
/// Threads of a block; eight warps.
const THREADS: u32 = 256;
/// Rows that a block of [`cosine_distance`] has, one a warp.
const ROWS: u32 = THREADS / 32;

/// The queries and keys of a linear attention, `elu(u) + 1`, and its values, each
/// `[images, heads, tokens, width]`, from `[images, tokens, 3 * heads * width]`; none where it cannot.
///
/// # Errors
/// When the device fails.
pub(crate) fn split_positive(projected: &Tensor, heads: usize) -> Result<Option<[Tensor; 3]>> {
    let is_fitting = projected.dtype() == DType::BF16 && projected.is_contiguous();
    let Some((device, tools)) = tools(projected).filter(|_| is_fitting) else {
        return Ok(None);
    };
    let (images, tokens, columns) = projected.dims3()?;
    let width = columns / 3 / heads;
    let count = projected.elem_count() / 3;
    let function = device.get_or_load_custom_func("split_positive", MODULE, &tools.passes)?;
    // SAFETY: the kernel writes all of it.
    let parts = unsafe { device.alloc::<bf16>(3 * count)? };
    {
        let (storage, layout) = projected.storage_and_layout();
        let projected = values::<bf16>(&storage, layout)?;
        let (count, sizes) = (count as u64, [tokens as u32, heads as u32, width as u32]);
        let mut launch = function.builder();
        launch.arg(&projected).arg(&parts).arg(&count);
        launch.arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]);
        // SAFETY: `projected` holds three times `count` values, contiguous, and so does `parts`; threads
        // beyond `count` do nothing.
        unsafe { launch.launch(a_thread_each(count as usize)?) }.map_err(Error::wrap)?;
    }
    let parts = tensor(parts, &device, (3, images, heads, tokens, width));
    Ok(Some([parts.get(0)?, parts.get(1)?, parts.get(2)?]))
}

/// The mean of tensors of one shape, in f32; none where it cannot.
///
/// # Errors
/// When the device fails.
pub(crate) fn mean(tensors: &[Tensor]) -> Result<Option<Tensor>> {
    let [first, second, third, fourth] = tensors else {
        return Ok(None);
    };
    let is_fitting = tensors.iter().all(|tensor| {
        tensor.dtype() == DType::BF16 && tensor.is_contiguous() && tensor.shape() == first.shape()
    });
    let Some((device, tools)) = tools(first).filter(|_| is_fitting) else {
        return Ok(None);
    };
    let count = first.elem_count();
    let function = device.get_or_load_custom_func("mean_of_four", MODULE, &tools.passes)?;
    // SAFETY: the kernel writes all of it.
    let mean = unsafe { device.alloc::<f32>(count)? };
    {
        let guards = [first, second, third, fourth].map(Tensor::storage_and_layout);
        let [first, second, third, fourth] = &guards;
        let views = [
            values::<bf16>(&first.0, first.1)?,
            values::<bf16>(&second.0, second.1)?,
            values::<bf16>(&third.0, third.1)?,
            values::<bf16>(&fourth.0, fourth.1)?,
        ];
        let (mut launch, number) = (function.builder(), count as u64);
        for view in &views {
            launch.arg(view);
        }
        launch.arg(&mean).arg(&number);
        // SAFETY: all five hold `count` values, contiguous; threads beyond them do nothing.
        unsafe { launch.launch(a_thread_each(count)?) }.map_err(Error::wrap)?;
    }
    Ok(Some(tensor(mean, &device, first.shape())))
}

/// `1 - cosine` over the last dimension of two tensors `[images, tokens, width]` in f32, which may be cut
/// out of longer images; `guard` is added to the squares under their roots. None where it cannot.
///
/// # Errors
/// When the device fails.
pub(crate) fn cosine_distance(left: &Tensor, right: &Tensor, guard: f64) -> Result<Option<Tensor>> {
    let Some((device, tools)) = tools(left) else {
        return Ok(None);
    };
    let (Some(left_rows), Some(right_rows)) = (rows_of_image(left), rows_of_image(right)) else {
        return Ok(None);
    };
    if left.shape() != right.shape() {
        return Ok(None);
    }
    let (images, tokens, width) = left.dims3()?;
    let rows = images * tokens;
    let function = device.get_or_load_custom_func("cosine_distance", MODULE, &tools.passes)?;
    // SAFETY: the kernel writes all of it.
    let distance = unsafe { device.alloc::<f32>(rows)? };
    {
        let ((left, left_layout), (right, right_layout)) =
            (left.storage_and_layout(), right.storage_and_layout());
        let left = values::<f32>(&left, left_layout)?;
        let right = values::<f32>(&right, right_layout)?;
        let sizes = [rows, tokens, width, left_rows, right_rows].map(|size| size as u32);
        let (mut launch, guard) = (function.builder(), guard as f32);
        launch.arg(&left).arg(&right).arg(&distance);
        for size in &sizes {
            launch.arg(size);
        }
        launch.arg(&guard);
        let blocks = (sizes[0].div_ceil(ROWS), 1, 1);
        let config = LaunchConfig {
            grid_dim: blocks,
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: a view begins at its tensor's first value and reaches to its storage's end; row `t` of
        // image `i` lies `i * rows + t` rows behind, as its strides say. Warps beyond `rows` do nothing.
        unsafe { launch.launch(config) }.map_err(Error::wrap)?;
    }
    Ok(Some(tensor(distance, &device, (images, tokens))))
}

/// How many rows lie between the beginnings of two images of `[images, tokens, width]` in f32, where rows
/// lie one behind the other.
fn rows_of_image(tensor: &Tensor) -> Option<usize> {
    let (&[_, _, width], &[image, row, 1]) = (tensor.dims(), tensor.stride()) else {
        return None;
    };
    let is_fitting = tensor.dtype() == DType::F32 && row == width && image.is_multiple_of(width);
    is_fitting.then_some(image / width)
}

/// A thread for each of `count` values.
fn a_thread_each(count: usize) -> Result<LaunchConfig> {
    let blocks = count.div_ceil(THREADS as usize);
    let blocks = u32::try_from(blocks).map_err(Error::wrap)?;
    Ok(LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: 0,
    })
}

/// A tensor's values, from its first on.
fn values<'a, T: CudaDType + DeviceRepr>(
    storage: &'a Storage,
    layout: &Layout,
) -> Result<CudaView<'a, T>> {
    let Storage::Cuda(storage) = storage else {
        bail!("expected a tensor on a GPU, found one elsewhere")
    };
    Ok(storage.as_cuda_slice::<T>()?.slice(layout.start_offset()..))
}

fn tensor<T: CudaDType>(
    values: CudaSlice<T>,
    device: &CudaDevice,
    shape: impl Into<Shape>,
) -> Tensor {
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(values, device.clone()));
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
}
