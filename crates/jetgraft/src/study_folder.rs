//! The folder of a study: a summary, the source's run, one run per cell. What is read here is all that a report needs.

use std::path::Path;

use jetgraft_data::writer::read_scores;
use jetgraft_learn::snapshot;
use serde::{Deserialize, Serialize};

use crate::analysis::{Cell, StudyTable};
use crate::error::{Error, Result};
use crate::recipe::schema::StatisticsRecipe;
use crate::run_dir::{self, from_json};
use crate::task::TaskRecord;
use crate::{analysis, scores};

/// Version of the study folder.
pub const FORMAT: &str = "jetgraft-study/1";
/// Folder of the summary.
pub const SUMMARY: &str = "summary";
/// Facts of the study and its table.
pub const RECORD: &str = "study.json";
/// Lund planes of the target's training jets, where the networks read trees of declusterings.
pub const LUND_PLANE: &str = "lund_plane.json";
/// Folder of the source's run.
pub const SOURCE: &str = "source";
/// Scores of the source on the target's test jets, before any training on the target.
pub const SOURCE_SCORES: &str = "source_untuned.parquet";
/// Folder of the cells.
pub const CELLS: &str = "cells";
/// In the run folder of a cell: its place, and digests of all that it depends on.
pub const CELL: &str = "cell.json";

/// `study.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyRecord {
    /// `jetgraft-study/1`.
    pub format: String,
    /// Program and version that wrote it.
    pub version: String,
    /// Short name.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// What the data are.
    pub data_label: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Plans in order.
    pub plans: Vec<String>,
    /// The reference plan.
    pub scratch: String,
    /// Target sizes in jets.
    pub sizes: Vec<usize>,
    /// Number of seeds.
    pub seeds: usize,
    /// Whether the subsets of different seeds are disjoint.
    pub subsets: String,
    /// How sure.
    pub statistics: StatisticsRecipe,
    /// The source; none in a study of networks from scratch.
    pub source: Option<SourceRecord>,
    /// The target.
    pub target: TaskRecord,
    /// Device, threads, instruction set.
    pub machine: String,
    /// Wall time of the whole study, seconds; training only where it was resumed.
    pub seconds: f64,
    /// The table, so that nobody needs to compute it again to read it.
    pub table: StudyTable,
}

/// Where the source network came from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// For people.
    pub description: String,
    /// Its task, where it was trained here.
    pub task: Option<TaskRecord>,
    /// Digest of its weights.
    pub weights_blake3: String,
    /// Best validation AUC on its own task, where it was trained here.
    pub validation_auc: Option<f64>,
    /// Seconds of its training.
    pub seconds: f64,
    /// CPU seconds of its training.
    pub cpu_seconds: f64,
}

/// Declusterings of each class in bins of the Lund plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LundPlanes {
    /// Edges in ln(1/Delta).
    pub ln_inverse_delta_edges: Vec<f64>,
    /// Edges in ln(kt / GeV).
    pub ln_kt_edges: Vec<f64>,
    /// Background, signal.
    pub classes: Vec<LundPlaneClass>,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LundPlaneClass {
    /// Name.
    pub name: String,
    /// Jets.
    pub jets: u64,
    /// Declusterings in each cell, the row of lowest kt first.
    pub emissions: Vec<f64>,
}

/// Losses of a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// Plan.
    pub plan: String,
    /// Target size.
    pub size: usize,
    /// Seed.
    pub seed: usize,
    /// Passes over the training jets until each evaluation.
    pub epochs: Vec<f64>,
    /// Mean training loss since the evaluation before.
    pub training: Vec<f64>,
    /// Validation loss at each evaluation.
    pub validation: Vec<f64>,
    /// Epochs before the weights that were chosen.
    pub chosen_epoch: f64,
}

/// A study in memory.
#[derive(Debug, Clone)]
pub struct Study {
    /// Facts.
    pub record: StudyRecord,
    /// The table, computed from the cells.
    pub table: StudyTable,
    /// Cells.
    pub cells: Vec<Cell>,
    /// Losses.
    pub histories: Vec<History>,
    /// True for signal, per test jet.
    pub labels: Vec<bool>,
    /// Mass of each test jet, GeV.
    pub jet_mass_gev: Vec<f64>,
    /// Signal score of the untuned source on the test jets.
    pub source_scores: Option<Vec<f64>>,
    /// Lund planes, where the networks read trees of declusterings.
    pub lund_plane: Option<LundPlanes>,
    /// Graft report of each plan.
    pub grafts: Vec<(String, String)>,
    /// The resolved recipe.
    pub recipe: String,
}

/// Whether a folder holds a study.
pub fn is_study(folder: &Path) -> bool {
    folder.join(SUMMARY).join(RECORD).is_file() || folder.join(CELLS).is_dir()
}

/// Reads a finished study; every byte is checked against its digest, and the table is computed anew from the predictions.
///
/// # Errors
/// A folder that is no finished study or has changed; cells that do not belong together.
pub fn read(folder: &Path) -> Result<Study> {
    let summary = folder.join(SUMMARY);
    if !summary.is_dir() {
        return Err(Error::new(format!("{}: the study is not finished", folder.display()))
            .hint("finish it with `jetgraft study ... --resume`"));
    }
    let files = snapshot::read(&summary)?;
    let get = |name: &str| {
        files.get(name).ok_or_else(|| Error::new(format!("{} has no file `{name}`", summary.display())))
    };
    let record: StudyRecord = from_json(&summary.join(RECORD), get(RECORD)?)?;
    if record.format != FORMAT {
        return Err(Error::new(format!("{}: format `{}`", folder.display(), record.format))
            .expected(format!("`{FORMAT}`"))
            .hint("this folder was written by another version of jetgraft: run its recipe again"));
    }
    let reading = read_cells(folder, &record)?;
    let labels = reading.labels.clone();
    let source_path = summary.join(SOURCE_SCORES);
    let source_scores = match source_path.is_file() {
        true => Some(reading.signal_scores(&source_path)?),
        false => None,
    };
    let table = analysis::study_table(
        &reading.cells,
        &labels,
        &record.plans,
        &record.scratch,
        &record.sizes,
        &record.statistics,
        record.seed,
    )?;
    Ok(Study {
        table,
        cells: reading.cells,
        histories: reading.histories,
        labels,
        jet_mass_gev: reading.jet_mass_gev,
        source_scores,
        lund_plane: match files.get(LUND_PLANE) {
            Some(text) => Some(from_json(&summary.join(LUND_PLANE), text)?),
            None => None,
        },
        grafts: reading.grafts,
        recipe: String::from_utf8_lossy(get(run_dir::RECIPE_RESOLVED)?).into_owned(),
        record,
    })
}

/// All cells of a study, and the test jets that they share.
#[derive(Debug, Clone, Default)]
pub struct Cells {
    /// Cells.
    pub cells: Vec<Cell>,
    /// Losses.
    pub histories: Vec<History>,
    /// Graft report of each plan.
    pub grafts: Vec<(String, String)>,
    /// Event of each test jet.
    pub event_id: Vec<u64>,
    /// True for signal, per test jet.
    pub labels: Vec<bool>,
    /// Mass of each test jet, GeV.
    pub jet_mass_gev: Vec<f64>,
}

/// Reads all cells.
///
/// # Errors
/// A cell that is missing or has changed, or that was tested on other jets than the first.
pub fn read_cells(folder: &Path, record: &StudyRecord) -> Result<Cells> {
    let mut cells = Cells::default();
    for plan in &record.plans {
        for &size in &record.sizes {
            for seed in 0..record.seeds {
                cells.add(folder, plan, size, seed)?;
            }
        }
    }
    Ok(cells)
}

impl Cells {
    fn add(&mut self, folder: &Path, plan: &str, size: usize, seed: usize) -> Result<()> {
        let run = run_dir::read(&folder.join(CELLS).join(cell_name(plan, size, seed)))?;
        let predictions = run.folder.join(run_dir::PREDICTIONS);
        if self.cells.is_empty() {
            let scores = read_scores(&predictions)?;
            self.event_id = scores.event_id;
            self.labels = scores.label.iter().map(|label| *label == 1).collect();
            self.jet_mass_gev = scores.jet_mass_gev.iter().map(|mass| f64::from(*mass)).collect();
        }
        let scores = self.signal_scores(&predictions)?;
        let chosen = run.record.chosen.as_ref().map_or(0.0, |chosen| chosen.epoch);
        self.histories.push(History {
            plan: plan.into(),
            size,
            seed,
            epochs: run.log.iter().map(|record| record.epoch).collect(),
            training: run.log.iter().map(|record| record.training_loss).collect(),
            validation: run.log.iter().map(|record| record.validation.loss).collect(),
            chosen_epoch: chosen,
        });
        self.cells.push(Cell {
            plan: plan.into(),
            size,
            seed,
            scores,
            validation_auc: run.log.iter().map(|record| record.validation.auc.unwrap_or(0.5)).collect(),
            epochs: run.log.iter().map(|record| record.epoch).collect(),
            seconds: run.log.iter().map(|record| record.cost.seconds).collect(),
            cpu_seconds: run.record.cpu_seconds.unwrap_or(0.0),
            chosen_epoch: chosen,
        });
        if seed == 0 && !self.grafts.iter().any(|(known, _)| known == plan) {
            self.grafts.push((plan.into(), run.graft.map_or(String::new(), |graft| graft.to_string())));
        }
        Ok(())
    }

    /// Signal scores of a prediction file over the test jets.
    fn signal_scores(&self, path: &Path) -> Result<Vec<f64>> {
        let scores = scores::read_binary(path)?;
        if scores.event_id != self.event_id || scores.labels != self.labels {
            return Err(Error::new("the predictions are not those of the study's test jets")
                .at(path.display())
                .hint("the folder was put together from different studies: run the recipe again"));
        }
        Ok(scores.signal)
    }
}

/// Folder of a cell.
pub fn cell_name(plan: &str, size: usize, seed: usize) -> String {
    format!("{plan}_n{size}_s{seed}")
}
