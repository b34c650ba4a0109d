//! `jetgraft inspect`.

use jetgraft_data::inspect::{Inspection, inspect};
use serde::Serialize;

use crate::args::InspectArgs;
use crate::error::Result;
use crate::recipe::propose::propose;

/// What is in a file, and a train recipe to begin with.
#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    inspection: Inspection,
    recipe: String,
}

/// Says what is in each file.
///
/// # Errors
/// A file that is no data, with what it is instead.
pub fn run(args: &InspectArgs) -> Result<String> {
    let mut found = Vec::new();
    for file in &args.files {
        let inspection = inspect(file)?;
        found.push(Inspected { recipe: propose(&inspection), inspection });
    }
    if args.json {
        return super::json(&found);
    }
    Ok(found
        .iter()
        .map(|Inspected { inspection, recipe }| {
            format!("{inspection}\n# A recipe to begin with: edit it, then `jetgraft recipe check FILE`.\n{recipe}\n")
        })
        .collect())
}
