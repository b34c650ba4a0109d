//! `jetgraft quickstart`: nothing but the shipped study recipe of that name.

use crate::args::{QuickstartArgs, RunArgs};
use crate::error::Result;
use crate::progress::Progress;

/// Runs the recipe `quickstart`.
///
/// # Errors
/// As [`super::study::run`].
pub fn run(args: &QuickstartArgs, progress: &dyn Progress) -> Result<String> {
    let args = RunArgs {
        recipe: "quickstart".into(),
        out: Some(args.out.clone()),
        set: Vec::new(),
        seed: args.seed,
        resume: args.resume,
        json: args.json,
        place: args.place.clone(),
    };
    super::study::run(&args, progress)
}
