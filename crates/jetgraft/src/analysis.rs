//! From the cells of a study to its table: means over seeds with intervals, paired with scratch on the same jets.

use jetgraft_stats::bootstrap::Bootstrap;
use jetgraft_stats::compare::{ErrorReduction, auc_difference_over_seeds, error_reduction_over_seeds};
use jetgraft_stats::curve::{CurveFitIntervals, CurvePoint, LabelsNeeded, LearningCurve};
use jetgraft_stats::label_factor::{Between, LabelFactor, label_factor};
use jetgraft_stats::rejection::SeedRejection;
use jetgraft_stats::roc::{Roc, auc_over_seeds};
use jetgraft_stats::seeds::SeedsAndEvents;
use jetgraft_stats::target::{TargetSummary, first_reaching, summarise};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::schema::StatisticsRecipe;

/// Signal efficiencies at which the background rejection is quoted (Dreyer, Qu, arXiv:2012.08526).
pub const SIGNAL_EFFICIENCIES: [f64; 2] = [0.5, 0.3];

/// What the analysis needs to know of one trained network.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Plan.
    pub plan: String,
    /// Target training jets.
    pub size: usize,
    /// Seed index, from 0.
    pub seed: usize,
    /// Signal score of each test jet, in the order of the labels.
    pub scores: Vec<f64>,
    /// Validation AUC at each evaluation.
    pub validation_auc: Vec<f64>,
    /// Passes over the training jets until each evaluation.
    pub epochs: Vec<f64>,
    /// Seconds of wall time since the start until each evaluation, itself included.
    pub seconds: Vec<f64>,
    /// CPU seconds of the whole training.
    pub cpu_seconds: f64,
    /// Epochs before the weights that were chosen.
    pub chosen_epoch: f64,
}

/// One row of the table: a plan at a size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Plan.
    pub plan: String,
    /// Target training jets.
    pub size: usize,
    /// Seeds.
    pub seeds: usize,
    /// Accuracy at score 0.5.
    pub accuracy: SeedsAndEvents,
    /// Area under the ROC curve.
    pub auc: SeedsAndEvents,
    /// 1/eps_B at eps_S = 0.5.
    pub rejection_50: SeedRejection,
    /// 1/eps_B at eps_S = 0.3.
    pub rejection_30: SeedRejection,
    /// 1 - Err / Err(scratch), paired; none for scratch itself.
    pub error_reduction: Option<ErrorReduction>,
    /// AUC - AUC(scratch), paired; none for scratch itself.
    pub auc_gain: Option<SeedsAndEvents>,
    /// Epochs until the validation AUC first reached the best one of scratch at this size and seed.
    pub epochs_to_scratch: TargetSummary,
    /// Seconds until then.
    pub seconds_to_scratch: TargetSummary,
    /// Mean seconds of a training.
    pub seconds: f64,
    /// Mean CPU seconds of a training.
    pub cpu_seconds: f64,
    /// Mean epochs run.
    pub epochs: f64,
}

/// What a plan saves over all sizes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanSummary {
    /// Plan.
    pub plan: String,
    /// How many times fewer labels it needs for scratch's AUC at the largest size; none for scratch.
    pub label_factor: Option<LabelFactor>,
    /// Fit of 1 - AUC against size; none with fewer than two sizes.
    pub fit: Option<CurveFitIntervals>,
    /// For scratch: labels it would need for the best plan's error at the largest size.
    pub labels_for_best: Option<LabelsNeeded>,
}

/// The table of a study.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StudyTable {
    /// Level of all intervals.
    pub level: f64,
    /// Test jets of the background and of the signal.
    pub test_jets: [u64; 2],
    /// Rows, by size, then in the order of the plans.
    pub rows: Vec<Row>,
    /// One entry per plan.
    pub plans: Vec<PlanSummary>,
}

/// Makes the table. `labels` are those of the test jets (true: signal), the same for all cells.
///
/// # Errors
/// A missing cell, two cells for one place, fewer than two seeds, scores that are not finite.
pub fn study_table(
    cells: &[Cell],
    labels: &[bool],
    plans: &[String],
    scratch: &str,
    sizes: &[usize],
    statistics: &StatisticsRecipe,
    seed: u64,
) -> Result<StudyTable> {
    let bootstrap = Bootstrap {
        replicates: statistics.replicates,
        seed,
        level: statistics.level,
        ..Bootstrap::default()
    };
    let level = statistics.level;
    let mut rows = Vec::new();
    for &size in sizes {
        let reference = group(cells, scratch, size)?;
        for plan in plans {
            let group = group(cells, plan, size)?;
            if group.len() != reference.len() {
                return Err(Error::ours(format!(
                    "plan {plan} at {size}: seeds differ from those of {scratch}"
                )));
            }
            let scores: Vec<&[f64]> = group.iter().map(|cell| cell.scores.as_slice()).collect();
            let correct = correctness(&scores, labels);
            let (error_reduction, auc_gain) = if plan == scratch {
                (None, None)
            } else {
                let base: Vec<&[f64]> = reference.iter().map(|cell| cell.scores.as_slice()).collect();
                let base_correct = correctness(&base, labels);
                (
                    Some(error_reduction_over_seeds(&correct, &base_correct, &bootstrap)?),
                    Some(auc_difference_over_seeds(&scores, &base, labels, level)?),
                )
            };
            let mut epochs_needed = Vec::new();
            let mut seconds_needed = Vec::new();
            for (cell, base) in group.iter().zip(&reference) {
                let wanted = base.validation_auc.iter().copied().fold(f64::MIN, f64::max);
                let reached = first_reaching(&cell.validation_auc, wanted)?;
                epochs_needed.push(reached.cost(&cell.epochs)?);
                seconds_needed.push(reached.cost(&cell.seconds)?);
            }
            let mean =
                |f: &dyn Fn(&Cell) -> f64| group.iter().map(|cell| f(cell)).sum::<f64>() / group.len() as f64;
            rows.push(Row {
                plan: plan.clone(),
                size,
                seeds: group.len(),
                accuracy: jetgraft_stats::seeds::accuracy(&correct, level)?,
                auc: auc_over_seeds(&scores, labels, level)?,
                rejection_50: SeedRejection::new(&scores, labels, SIGNAL_EFFICIENCIES[0], level)?,
                rejection_30: SeedRejection::new(&scores, labels, SIGNAL_EFFICIENCIES[1], level)?,
                error_reduction,
                auc_gain,
                epochs_to_scratch: summarise(&epochs_needed)?,
                seconds_to_scratch: summarise(&seconds_needed)?,
                seconds: mean(&|cell| cell.seconds.last().copied().unwrap_or(0.0)),
                cpu_seconds: mean(&|cell| cell.cpu_seconds),
                epochs: mean(&|cell| cell.epochs.last().copied().unwrap_or(0.0)),
            });
        }
    }
    let plans = plan_summaries(cells, labels, plans, scratch, sizes, &bootstrap)?;
    let signal = labels.iter().filter(|signal| **signal).count() as u64;
    Ok(StudyTable { level, test_jets: [labels.len() as u64 - signal, signal], rows, plans })
}

/// Cells of a plan at a size in the order of the seeds.
fn group<'a>(cells: &'a [Cell], plan: &str, size: usize) -> Result<Vec<&'a Cell>> {
    let mut found: Vec<&Cell> = cells.iter().filter(|cell| cell.plan == plan && cell.size == size).collect();
    found.sort_by_key(|cell| cell.seed);
    if found.is_empty() || found.iter().enumerate().any(|(i, cell)| cell.seed != i) {
        let seeds: Vec<usize> = found.iter().map(|cell| cell.seed).collect();
        return Err(Error::new(format!(
            "the study has no complete set of runs for plan `{plan}` at {size} jets"
        ))
        .found(format!("seeds {seeds:?}"))
        .hint("finish it with --resume"));
    }
    Ok(found)
}

fn correctness(scores: &[&[f64]], labels: &[bool]) -> Vec<Vec<bool>> {
    scores
        .iter()
        .map(|scores| scores.iter().zip(labels).map(|(score, signal)| (*score > 0.5) == *signal).collect())
        .collect()
}

/// 1 - AUC of every seed against size.
fn learning_curve(cells: &[Cell], labels: &[bool], plan: &str, sizes: &[usize]) -> Result<LearningCurve> {
    let mut points = Vec::new();
    for &size in sizes {
        let mut errors = Vec::new();
        for cell in group(cells, plan, size)? {
            errors.push(1.0 - Roc::new(&cell.scores, labels)?.auc());
        }
        points.push(CurvePoint { labels: size as u64, errors });
    }
    Ok(LearningCurve::new(points)?)
}

fn plan_summaries(
    cells: &[Cell],
    labels: &[bool],
    plans: &[String],
    scratch: &str,
    sizes: &[usize],
    bootstrap: &Bootstrap,
) -> Result<Vec<PlanSummary>> {
    let reference = learning_curve(cells, labels, scratch, sizes)?;
    let mut best = f64::INFINITY;
    let mut summaries = Vec::new();
    for plan in plans {
        let curve = learning_curve(cells, labels, plan, sizes)?;
        if let (Some(point), true) = (curve.points().last(), plan != scratch) {
            best = best.min(point.mean());
        }
        summaries.push(PlanSummary {
            plan: plan.clone(),
            label_factor: (plan != scratch)
                .then(|| label_factor(&reference, &curve, Between::Interpolation, bootstrap))
                .transpose()?,
            fit: (sizes.len() > 1).then(|| curve.fit_intervals(bootstrap)).transpose()?,
            labels_for_best: None,
        });
    }
    if let Some(summary) =
        summaries.iter_mut().find(|s| s.plan == scratch && sizes.len() > 1 && best.is_finite())
    {
        summary.labels_for_best = Some(reference.labels_needed(best, bootstrap)?);
    }
    Ok(summaries)
}
