//! `jetgraft import`.

use std::path::PathBuf;

use crate::args::ImportArgs;
use crate::error::{Error, Result};
use crate::network;
use crate::progress::Progress;
use crate::run_dir::{self, Run, RunRecord};
use crate::training;

/// Reads foreign weights and writes a run folder with their card; prints the graft report.
///
/// # Errors
/// A file that is no weight file, or of another network; zero matches or an unexplained shape; a folder in use.
pub fn run(args: &ImportArgs, progress: &dyn Progress) -> Result<String> {
    let folder = args.output.join(run_dir::RUN);
    if folder.exists() {
        return Err(Error::new(format!("{} holds a run already", args.output.display()))
            .hint("give another folder with -o"));
    }
    let imported = network::import(&args.weights, &args.network, &args.classes)?;
    progress.words(&format!("read {}: {}", args.weights.display(), imported.layout));
    if let Some(known) = network::published_of(&imported.network.card) {
        progress.words(&format!(
            "known weights: {}; their authors state accuracy {}, AUC {} ({})",
            known.name, known.accuracy, known.auc, known.test_set
        ));
    }
    if !imported.ignored.is_empty() {
        progress.words(&format!(
            "{} counters ignored, such as `{}`",
            imported.ignored.len(),
            imported.ignored[0]
        ));
    }
    let text = if args.json { super::json(&imported.report)? } else { imported.report.to_string() };
    let run = Run {
        record: RunRecord {
            format: run_dir::FORMAT.into(),
            version: run_dir::version(),
            name: args.output.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            title: imported.network.card.name.clone(),
            plan: "import".into(),
            size: 0,
            seed: 0,
            task: None,
            chosen: None,
            end: None,
            steps: 0,
            seconds: 0.0,
            cpu_seconds: None,
            trained_parameters: 0,
            parameters: imported.report.parameters,
            machine: String::new(),
        },
        card: imported.network.card,
        weights: imported.network.weights,
        log: Vec::new(),
        graft: Some(imported.report),
        folder: PathBuf::new(),
    };
    training::write_run(&folder, &run, None, &[])?;
    progress.words(&format!("wrote {}", args.output.display()));
    Ok(text)
}
