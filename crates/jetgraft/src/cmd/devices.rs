//! `jetgraft devices`.

use crate::args::DevicesArgs;
use crate::device;
use crate::error::Result;

/// Lists the devices of this build.
///
/// # Errors
/// None expected.
pub fn run(args: &DevicesArgs) -> Result<String> {
    let devices = device::all();
    if args.json {
        return super::json(&devices);
    }
    Ok(devices.iter().map(|device| format!("{:8} {}\n", device.name, device.description)).collect())
}
