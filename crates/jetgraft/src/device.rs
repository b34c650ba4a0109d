//! Which device a run computes on, and with how many threads.

use burn::tensor::Device;
use serde::Serialize;

use crate::args::PlaceArgs;
use crate::error::{Error, Result};

/// A device of this build.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceInfo {
    /// What `--device` takes.
    pub name: String,
    /// What it is.
    pub description: String,
}

/// All devices that this build can compute on.
pub fn all() -> Vec<DeviceInfo> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let mut devices = vec![DeviceInfo {
        name: "cpu".into(),
        description: format!("{threads} threads, {}", crate::training::instruction_set()),
    }];
    devices.extend(gpu_devices());
    devices
}

#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
fn gpu_devices() -> Vec<DeviceInfo> {
    Vec::new()
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn gpu_devices() -> Vec<DeviceInfo> {
    let mut devices = Vec::new();
    #[cfg(feature = "wgpu")]
    if !Device::enumerate(burn::tensor::DeviceType::WebGpu).into_vec().is_empty() {
        devices.push(DeviceInfo { name: "wgpu".into(), description: "WebGPU, stock operations".into() });
    }
    #[cfg(feature = "cuda")]
    for (index, _) in Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().iter().enumerate() {
        devices.push(DeviceInfo { name: format!("cuda:{index}"), description: "CUDA, stock operations".into() });
    }
    devices
}

/// The device that a command was told to use; sets the number of CPU threads too.
///
/// # Errors
/// A name that this build does not know.
pub fn choose(place: &PlaceArgs) -> Result<Device> {
    if let Some(threads) = place.threads {
        if threads == 0 {
            return Err(Error::new("--threads 0").expected("1 or more"));
        }
        // Fails only if the pool is there already: a program that uses the library chose its own.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
    match place.device.as_str() {
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        name if name.strip_prefix("cuda:").is_some_and(|index| index.parse::<usize>().is_ok()) => {
            Ok(Device::cuda(name["cuda:".len()..].parse::<usize>().unwrap_or(0)))
        }
        name => {
            let names: Vec<String> = all().into_iter().map(|device| device.name).collect();
            Err(Error::new(format!("no device `{name}` in this build"))
                .expected(names.join(", "))
                .hint("GPUs need a build with `--features wgpu` or `--features cuda`"))
        }
    }
}
