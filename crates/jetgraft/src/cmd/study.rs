//! `jetgraft study`.

use std::path::Path;

use jetgraft_report::{WriteOptions, write_report};

use crate::args::RunArgs;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::recipe::{LoadedRecipe, Recipe};
use crate::study_folder::{self, SUMMARY};
use crate::{study, study_page};

/// Runs a study, prints its table and writes its report.
///
/// # Errors
/// A fault of the recipe, its data or its source; a folder that holds another study.
pub fn run(args: &RunArgs, progress: &dyn Progress) -> Result<String> {
    let mut changes = args.set.clone();
    changes.extend(args.seed.map(|seed| format!("seed={seed}")));
    let loaded = LoadedRecipe::load(&args.recipe, &changes)?;
    let Recipe::Study(recipe) = &loaded.recipe else {
        return Err(Error::new(format!("recipe `{}` trains one network", loaded.name))
            .hint(format!("run it with `jetgraft train {}`", args.recipe)));
    };
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&recipe.name));
    let summary = out.join(SUMMARY);
    super::train::prepare(&out, &loaded, args.resume, &summary)?;
    if summary.exists() {
        progress.words("finished before; only the report is made again");
    } else {
        study::run(&loaded, recipe, &args.place, &out, progress)?;
    }
    let study = study_folder::read(&out)?;
    let files = write_report(&study_page::page(&study)?, &out, &WriteOptions::default())?;
    if let Some(page) = files.first() {
        progress.words(&format!("report: {}", page.display()));
    }
    if args.json { super::json(&study.record) } else { Ok(study_page::terminal(&study)) }
}
