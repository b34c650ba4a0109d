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
    for (kind, found) in gpus() {
        for index in 0..found.len() {
            devices.push(DeviceInfo {
                name: format!("{kind}:{index}"),
                description: "Burn's stock operations".into(),
            });
        }
    }
    devices
}

/// GPUs of this build by kind.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn gpus() -> Vec<(&'static str, Vec<Device>)> {
    use burn::tensor::DeviceType;
    vec![
        #[cfg(feature = "wgpu")]
        ("wgpu", Device::enumerate(DeviceType::Wgpu).into_vec()),
        #[cfg(feature = "cuda")]
        ("cuda", Device::enumerate(DeviceType::Cuda).into_vec()),
    ]
}

/// The GPU of a name such as `cuda:0`.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn gpu(name: &str) -> Option<Device> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let index: usize = index.parse().ok()?;
    gpus().into_iter().find(|(known, _)| *known == kind)?.1.into_iter().nth(index)
}

#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
fn gpu(_: &str) -> Option<Device> {
    None
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
    if place.device == "cpu" {
        return Ok(Device::flex());
    }
    gpu(&place.device).ok_or_else(|| {
        let names: Vec<String> = all().into_iter().map(|device| device.name).collect();
        Error::new(format!("no device `{}` in this build on this machine", place.device))
            .expected(names.join(", "))
            .hint("GPUs need a build with `--features wgpu` or `--features cuda`")
    })
}
