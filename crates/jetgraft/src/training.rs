//! One training from a recipe's words to a run folder: weights at the start, the loop, test predictions, files.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use jetgraft_data::writer::{Scores, write_scores};
use jetgraft_data::{GraphSet, InputSpec};
use jetgraft_learn::card::{Card, DataCard, InputCard};
use jetgraft_learn::graft::{GraftAllow, GraftReport, graft, ungrafted};
use jetgraft_learn::observer::{Observer, Outline, Signal, StepEvent};
use jetgraft_learn::plan::{Plan, PlanOptions};
use jetgraft_learn::predict::{Logits, logits};
use jetgraft_learn::record::Record;
use jetgraft_learn::snapshot;
use jetgraft_nn::contract::Backbone;
use jetgraft_nn::registry::{AnyBackbone, BackboneConfig};
use jetgraft_nn::state::{load_state, state};

use crate::error::Result;
use crate::network::{self, Network};
use crate::progress::Progress;
use crate::recipe::schema::ModelRecipe;
use crate::run_dir::{self, Run};
use crate::task::Task;

/// Host memory that the cached output of frozen stages may take.
pub const CACHE_BYTES: u64 = 2 << 30;
/// Classes of a task: background and signal.
const CLASSES: usize = 2;
/// Jets at a time in predictions.
pub const PREDICT_BATCH: usize = 512;

/// A network with its start weights and the plan for it.
#[derive(Debug, Clone)]
pub struct Start {
    /// The network.
    pub model: AnyBackbone,
    /// What learns.
    pub plan: Plan,
    /// What was kept.
    pub report: GraftReport,
}

/// Sizes of the network that a plan starts with: those of the source where the plan keeps something of it, the recipe's
/// otherwise.
pub fn config(
    model: &ModelRecipe,
    input: &InputSpec,
    source: Option<&BackboneConfig>,
    options: &PlanOptions,
) -> BackboneConfig {
    match source {
        // Another number of classes makes a fresh head; the plan says whether that is meant.
        Some(source) if options.needs_source() => source.clone().with_ends(source.input_features(), CLASSES),
        _ => network::config(model, input),
    }
}

/// Start weights: fresh ones from `seed`, with what the plan keeps of the source.
///
/// # Errors
/// A plan that does not fit the network; a source that does not fit the target, with the graft report.
pub fn start(
    model: &ModelRecipe,
    input: &InputSpec,
    source: Option<&Network>,
    options: &PlanOptions,
    seed: u64,
    device: &Device,
) -> Result<Start> {
    let sizes = source.map(|source| network::card_config(&source.card)).transpose()?;
    let drawn = config(model, input, sizes.as_ref(), options).build(seed, device)?;
    network::check_fit(&drawn, input)?;
    let plan = network::plan_for(&drawn, options)?;
    let target = state(&drawn);
    let (weights, report) = match source {
        Some(source) if options.needs_source() => {
            graft(&source.weights, &target, &plan, &GraftAllow::default())?
        }
        _ => ungrafted(&target, &plan)?,
    };
    Ok(Start { model: load_state(drawn, &weights)?, plan, report })
}

/// The card of a network trained on `task`.
///
/// # Errors
/// Ours, if the configuration cannot be written.
pub fn card(
    name: &str,
    model: &AnyBackbone,
    input: &InputCard,
    task: &Task,
    source: Option<&Network>,
    options: &PlanOptions,
    seed: u64,
) -> Result<Card> {
    let data: Vec<DataCard> = task
        .record
        .manifest
        .files
        .iter()
        .map(|file| DataCard {
            name: file.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            digest: file.blake3.clone(),
            jets: file.rows,
        })
        .collect();
    match source {
        Some(source) if options.needs_source() => {
            Ok(source.card.grafted(name, options.kind(), task.classes.to_vec(), data, seed))
        }
        _ => network::new_card(model, name, input, &task.record.jets, &task.classes, data, seed),
    }
}

/// Scores of a network for jets, as a score file holds them.
///
/// # Errors
/// Jets with other features than the network reads.
pub fn score<B: Backbone>(model: &B, jets: &GraphSet, classes: &[String], device: &Device) -> Result<Scores> {
    Ok(scores(logits(model, jets, PREDICT_BATCH, device)?, jets, classes))
}

/// Logits of jets as a score file holds them.
pub fn scores(logits: Logits, jets: &GraphSet, classes: &[String]) -> Scores {
    Scores {
        classes: classes.to_vec(),
        event_id: jets.event_id.clone(),
        label: jets.label.clone(),
        logits: logits.values,
        jet_pt_gev: jets.jet_pt_gev.clone(),
        jet_mass_gev: jets.jet_mass_gev.clone(),
    }
}

/// Writes a run folder: its files and its predictions, whole or absent.
///
/// # Errors
/// A full disk.
pub fn write_run(
    folder: &Path,
    run: &Run,
    predictions: Option<&Scores>,
    extra: &[(&str, Vec<u8>)],
) -> Result<()> {
    let mut files = run_dir::files(run)?;
    for (name, content) in extra {
        files.insert((*name).to_string(), content.clone());
    }
    if let Some(scores) = predictions {
        files.insert(run_dir::PREDICTIONS.into(), score_bytes(folder, scores)?);
    }
    snapshot::write(folder, &files)?;
    Ok(())
}

/// The bytes of a score file. The writer wants a place of its own, beside the folder to be; what a killed process leaves
/// there is swept away with the rest of its snapshot.
///
/// # Errors
/// A full disk.
pub fn score_bytes(folder: &Path, scores: &Scores) -> Result<Vec<u8>> {
    let parent = folder.parent().unwrap_or(Path::new("."));
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let own = parent.join(format!(".{name}.scores.{}.tmp", std::process::id()));
    let write = || {
        std::fs::create_dir_all(&own)?;
        let path = own.join(run_dir::PREDICTIONS);
        write_scores(&path, scores)?;
        Ok(std::fs::read(&path)?)
    };
    let bytes = write();
    // A leftover is hidden and named as temporary; the bytes are what counts.
    let _ = std::fs::remove_dir_all(&own);
    bytes
}

/// Jets of a part of a task.
pub fn part(task: &Task, rows: &[usize]) -> Arc<GraphSet> {
    Arc::new(task.graphs.select(rows))
}

/// Instruction set that the fused operations use on this machine.
pub fn instruction_set() -> String {
    format!("{:?}", jetgraft_nn::ops::Path::current())
}

/// Device, threads and instruction set, for records.
pub fn machine(device: &str) -> String {
    format!("{device}, {} threads, {}", rayon::current_num_threads(), instruction_set())
}

/// Shows a training on a progress bar that may span many trainings.
pub struct Shown<'a> {
    progress: &'a dyn Progress,
    /// What the bar says.
    detail: String,
    /// Jets done before this training.
    before: u64,
    /// Jets of this training so far.
    jets: u64,
    validation: String,
}

impl<'a> Shown<'a> {
    /// `before`: jets that earlier trainings on the same bar have done.
    pub fn new(progress: &'a dyn Progress, detail: impl Into<String>, before: u64) -> Self {
        Self { progress, detail: detail.into(), before, jets: 0, validation: String::new() }
    }
}

impl Observer for Shown<'_> {
    fn started(&mut self, outline: &Outline) {
        self.jets = outline.done_steps * outline.batch_size.min(outline.training_jets) as u64;
    }

    fn step(&mut self, event: &StepEvent<'_>) -> Signal {
        self.jets += event.jets as u64;
        self.progress.advance(
            self.before + self.jets,
            &format!("{}, epoch {}{}", self.detail, event.epoch + 1, self.validation),
        );
        Signal::Continue
    }

    fn evaluated(&mut self, record: &Record) {
        let auc = record.validation.auc.map_or(String::new(), |auc| format!(", AUC {auc:.4}"));
        self.validation = format!(", validation loss {:.4}{auc}", record.validation.loss);
    }
}
