//! `jetgraft inspect`.

use jetgraft_data::inspect::{Inspection, inspect};

use crate::args::InspectArgs;
use crate::error::Result;

/// Says what is in each file.
///
/// # Errors
/// A file that is no data, with what it is instead.
pub fn run(args: &InspectArgs) -> Result<String> {
    let inspections = args.files.iter().map(inspect).collect::<Result<Vec<Inspection>, _>>()?;
    if args.json {
        return super::json(&inspections);
    }
    Ok(inspections.iter().map(|inspection| format!("{inspection}\n")).collect())
}
