//! Where models run: a device by its name.

use candle_core::Device;

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
    match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" if candle_core::utils::cuda_is_available() => return open_cuda("cuda:0", 0),
        "auto" => return Ok(Device::Cpu),
        _ => {}
    }
    let unknown = || DeviceError::Unknown(name.to_owned());
    let ordinal = name.strip_prefix("cuda:").ok_or_else(unknown)?;
    open_cuda(name, ordinal.parse().map_err(|_| unknown())?)
}

fn open_cuda(name: &str, ordinal: usize) -> Result<Device, DeviceError> {
    let unavailable = |reason: String| DeviceError::Unavailable {
        name: name.to_owned(),
        reason,
    };
    if !candle_core::utils::cuda_is_available() {
        let reason = "this program was built without CUDA; use `cpu` or `auto`";
        return Err(unavailable(reason.to_owned()));
    }
    Device::new_cuda(ordinal).map_err(|error| unavailable(error.to_string()))
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
            assert!(open_device("auto").unwrap().is_cpu());
        }
        assert!(open_device("cpu").unwrap().is_cpu());
    }
}
