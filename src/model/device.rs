//! Where models run: a device by its name.

use candle_core::{Device, Result as CandleResult, Tensor};

#[cfg(feature = "cuda")]
use super::kernels::cuda::Gpu;

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device's name is none that we know.
    #[error("`device`: expected `auto`, `cpu` or `cuda:N`, found `{0}`")]
    Unknown(String),
    /// The device is one that this program was not built for, or that is not there.
    #[error("device `{name}`: {reason}")]
    Unavailable {
        /// The device as it was asked for.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// Opens `cpu`, `cuda:N`, or with `auto` the first CUDA device where the program was built for CUDA,
/// else the CPU.
///
/// # Errors
/// When the name is unknown or the device is not there: a program that was built for a GPU does not
/// work for days on the CPU because a driver is broken.
pub fn open_device(name: &str) -> Result<Device, DeviceError> {
    match cuda_ordinal(name)? {
        None => Ok(Device::Cpu),
        Some(ordinal) => Device::new_cuda(ordinal).map_err(|error| unavailable(ordinal, &error)),
    }
}

/// A device that one thread runs a network on: a GPU with a stream of its own, so that several threads
/// may share it.
#[derive(Debug)]
pub struct InferenceDevice {
    device: Device,
    #[cfg(feature = "cuda")]
    gpu: Option<Gpu>,
}

/// As [`open_device`], for a network that is only run.
///
/// # Errors
/// As there.
pub fn open_inference_device(name: &str) -> Result<InferenceDevice, DeviceError> {
    match cuda_ordinal(name)? {
        None => Ok(InferenceDevice {
            device: Device::Cpu,
            #[cfg(feature = "cuda")]
            gpu: None,
        }),
        #[cfg(feature = "cuda")]
        Some(ordinal) => {
            let gpu = Gpu::open(ordinal).map_err(|error| unavailable(ordinal, &error))?;
            Ok(InferenceDevice {
                device: gpu.device(),
                gpu: Some(gpu),
            })
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(without_cuda(name)),
    }
}

impl InferenceDevice {
    /// Where tensors go.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Images, with zeros behind them up to `shape`'s first dimension.
    ///
    /// # Errors
    /// When an image has another size than `shape` says, there are more than it has room for, or the
    /// device fails.
    pub fn upload(
        &mut self,
        images: &[&[f32]],
        shape: (usize, usize, usize, usize),
    ) -> CandleResult<Tensor> {
        let size = shape.1 * shape.2 * shape.3;
        if let Some(image) = images.iter().find(|image| image.len() != size) {
            let found = image.len();
            candle_core::bail!("expected images of `{size}` values, found one of `{found}` values");
        }
        if images.len() > shape.0 {
            let (found, room) = (images.len(), shape.0);
            candle_core::bail!("expected at most `{room}` images, found `{found}`");
        }
        #[cfg(feature = "cuda")]
        if let Some(gpu) = &mut self.gpu {
            return gpu.upload(images, shape);
        }
        let mut values = images.concat();
        values.resize(shape.0 * size, 0.0);
        Tensor::from_vec(values, shape, &self.device)
    }
}

/// The number of the CUDA device that a name stands for; none for the processor.
fn cuda_ordinal(name: &str) -> Result<Option<usize>, DeviceError> {
    let has_cuda = candle_core::utils::cuda_is_available();
    match name {
        "cpu" => return Ok(None),
        "auto" => return Ok(has_cuda.then_some(0)),
        _ => {}
    }
    let unknown = || DeviceError::Unknown(name.to_owned());
    let ordinal = name.strip_prefix("cuda:").ok_or_else(unknown)?;
    let ordinal = ordinal.parse().map_err(|_| unknown())?;
    match has_cuda {
        true => Ok(Some(ordinal)),
        false => Err(without_cuda(name)),
    }
}

fn without_cuda(name: &str) -> DeviceError {
    DeviceError::Unavailable {
        name: name.to_owned(),
        reason: "this program was built without CUDA; use `cpu` or `auto`".to_owned(),
    }
}

fn unavailable(ordinal: usize, error: &candle_core::Error) -> DeviceError {
    DeviceError::Unavailable {
        name: format!("cuda:{ordinal}"),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_are_not_there_are_named() {
        let error = |device| open_device(device).unwrap_err().to_string();
        for name in ["gpu", "cuda:x", "cuda", ""] {
            let expected = format!("`device`: expected `auto`, `cpu` or `cuda:N`, found `{name}`");
            assert_eq!(error(name), expected);
        }
        if !candle_core::utils::cuda_is_available() {
            let expected =
                "device `cuda:0`: this program was built without CUDA; use `cpu` or `auto`";
            assert_eq!(error("cuda:0"), expected);
            let error = open_inference_device("cuda:0").unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(open_device("auto").unwrap().is_cpu());
        }
        assert!(open_device("cpu").unwrap().is_cpu());
    }
}
