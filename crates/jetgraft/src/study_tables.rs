//! The study's CSV files and Lund planes: the same numbers as on the page, for other programs.

use std::fmt::Write as _;
use std::path::Path;

use jetgraft_data::GraphSet;
use jetgraft_stats::histogram::{Axis, Histogram2};
use jetgraft_stats::interval::Interval;
use jetgraft_stats::rejection::{Rejection, RejectionEstimate, SeedRejection, SeedRejectionEstimate};
use jetgraft_stats::roc::Roc;
use jetgraft_stats::target::TargetSummary;

use crate::analysis::{SIGNAL_EFFICIENCIES, StudyTable};
use crate::error::{Error, Result};
use crate::run_dir;
use crate::study_folder::{CELLS, Cells, LundPlaneClass, LundPlanes, StudyRecord, cell_name};
use crate::task::Task;

/// Cells of the Lund plane along each axis.
const BINS: usize = 25;

/// Declusterings of the target's training jets in bins of ln(1/Delta) and ln(kt / GeV).
///
/// # Errors
/// A feature set without both coordinates.
pub fn lund_planes(task: &Task) -> Result<LundPlanes> {
    let graphs: &GraphSet = &task.graphs;
    let column = |name: &str| {
        graphs.feature_names.iter().position(|feature| feature == name).ok_or_else(|| {
            Error::new(format!("the Lund plane needs `{name}`")).found(graphs.feature_names.join(", "))
        })
    };
    let (delta, kt, width) = (column("ln_delta")?, column("ln_kt")?, graphs.n_features());
    let nodes = |rows: &[usize]| -> Vec<(f64, f64)> {
        rows.iter()
            .flat_map(|row| graphs.node_offsets[*row]..graphs.node_offsets[row + 1])
            .map(|node| {
                let features = &graphs.features[node * width..(node + 1) * width];
                (-f64::from(features[delta]), f64::from(features[kt]))
            })
            .collect()
    };
    let all = nodes(&task.rows.train);
    let floor = all.iter().map(|node| node.1).fold(f64::INFINITY, f64::min);
    // Down to the cut where there is one, to a tenth of a GeV where there is none.
    let low = if floor.is_finite() { floor.max(-2.5).floor() } else { 0.0 };
    let x = Axis::regular(BINS, 0.0, 6.0)?;
    let y = Axis::regular(BINS, low, 7.0)?;
    let mut classes = Vec::new();
    for (label, name) in task.classes.iter().enumerate() {
        let rows: Vec<usize> =
            task.rows.train.iter().copied().filter(|row| graphs.label[*row] as usize == label).collect();
        let mut plane = Histogram2::new(x.clone(), y.clone());
        for (ln_inverse_delta, ln_kt) in nodes(&rows) {
            plane.fill(ln_inverse_delta, ln_kt, 1.0);
        }
        let mut emissions = Vec::with_capacity(BINS * BINS);
        for row in 0..BINS {
            for cell in 0..BINS {
                emissions.push(plane.bin(cell, row).map_or(0.0, |content| content.sum));
            }
        }
        classes.push(LundPlaneClass { name: name.clone(), jets: rows.len() as u64, emissions });
    }
    Ok(LundPlanes { ln_inverse_delta_edges: x.edges().to_vec(), ln_kt_edges: y.edges().to_vec(), classes })
}

fn ends(interval: &Interval) -> String {
    format!("{},{},{}", interval.value, interval.low, interval.high)
}

/// Value and ends; for a limit the value is empty and the lower end is the limit.
fn seed_rejection(rejection: &SeedRejection) -> String {
    let count: u64 = rejection.per_seed.iter().map(|one| one.background_count).sum();
    match &rejection.estimate {
        SeedRejectionEstimate::Measured { parts } => format!("{},{count}", ends(&parts.total)),
        SeedRejectionEstimate::LowerLimit { limit, .. } => format!(",{limit},,{count}"),
    }
}

fn target(summary: &TargetSummary) -> String {
    format!("{},{}", summary.median.map_or(String::new(), |median| median.to_string()), summary.reached)
}

/// `table.csv`: a row per plan and size. Empty means undefined, or open where an end is empty.
pub fn table_csv(table: &StudyTable) -> Vec<u8> {
    let mut text = String::from(
        "plan,size,seeds,level,accuracy,accuracy_low,accuracy_high,auc,auc_low,auc_high,\
         rejection_50,rejection_50_low,rejection_50_high,rejection_50_background,\
         rejection_30,rejection_30_low,rejection_30_high,rejection_30_background,\
         error_reduction,error_reduction_low,error_reduction_high,auc_gain,auc_gain_low,auc_gain_high,\
         epochs_to_scratch,epochs_to_scratch_seeds,seconds_to_scratch,seconds_to_scratch_seeds,epochs,seconds,cpu_seconds\n",
    );
    for row in &table.rows {
        let or_empty = |interval: Option<&Interval>| interval.map_or(",,".into(), ends);
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            row.plan,
            row.size,
            row.seeds,
            table.level,
            ends(&row.accuracy.total),
            ends(&row.auc.total),
            seed_rejection(&row.rejection_50),
            seed_rejection(&row.rejection_30),
            or_empty(row.error_reduction.as_ref().and_then(|reduction| reduction.interval())),
            or_empty(row.auc_gain.as_ref().map(|gain| &gain.total)),
            target(&row.epochs_to_scratch),
            target(&row.seconds_to_scratch),
            row.epochs,
            row.seconds,
            row.cpu_seconds,
        );
    }
    text.into_bytes()
}

/// `cells.csv`: a row per run, intervals over its test jets alone.
///
/// # Errors
/// Scores that are no scores.
pub fn cells_csv(cells: &Cells) -> Result<Vec<u8>> {
    let mut text = String::from(
        "plan,size,seed,auc,auc_low,auc_high,rejection_50,rejection_50_background,rejection_30,rejection_30_background,\
         chosen_epoch,seconds,cpu_seconds\n",
    );
    for cell in &cells.cells {
        let roc = Roc::new(&cell.scores, &cells.labels)?;
        let auc = roc.auc_interval(0.95)?;
        let mut rejections = Vec::new();
        for efficiency in SIGNAL_EFFICIENCIES {
            let at = Rejection::at(&roc, efficiency, 0.95)?;
            let value = match &at.estimate {
                RejectionEstimate::Measured { interval } => interval.value.to_string(),
                RejectionEstimate::LowerLimit { .. } => String::new(),
            };
            rejections.push(format!("{value},{}", at.background_count));
        }
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{}",
            cell.plan,
            cell.size,
            cell.seed,
            ends(&auc),
            rejections.join(","),
            cell.chosen_epoch,
            cell.seconds.last().copied().unwrap_or(0.0),
            cell.cpu_seconds
        );
    }
    Ok(text.into_bytes())
}

/// `history.csv`: a row per evaluation of each run.
///
/// # Errors
/// A run that cannot be read.
pub fn history_csv(folder: &Path, record: &StudyRecord) -> Result<Vec<u8>> {
    let mut text = String::from(
        "plan,size,seed,step,epoch,training_loss,validation_loss,validation_accuracy,validation_auc,learning_rate,\
         gradient_norm,seconds\n",
    );
    for plan in &record.plans {
        for &size in &record.sizes {
            for seed in 0..record.seeds {
                let run = run_dir::read(&folder.join(CELLS).join(cell_name(plan, size, seed)))?;
                for line in &run.log {
                    let _ = writeln!(
                        text,
                        "{plan},{size},{seed},{},{},{},{},{},{},{},{},{}",
                        line.step,
                        line.epoch,
                        line.training_loss,
                        line.validation.loss,
                        line.validation.accuracy,
                        line.validation.auc.map_or(String::new(), |auc| auc.to_string()),
                        line.learning_rate,
                        line.gradient_norm,
                        line.cost.seconds
                    );
                }
            }
        }
    }
    Ok(text.into_bytes())
}

/// `roc.csv`: thresholds of each run on a grid of signal efficiencies, with counts.
///
/// # Errors
/// Scores that are no scores.
pub fn roc_csv(cells: &Cells) -> Result<Vec<u8>> {
    let grid: Vec<f64> = (1..=100).map(|percent| f64::from(percent) / 100.0).collect();
    let mut text = String::from(
        "plan,size,seed,signal_efficiency,background_efficiency,background_efficiency_low,background_efficiency_high,background\n",
    );
    for cell in &cells.cells {
        for point in Roc::new(&cell.scores, &cells.labels)?.band(&grid, 0.95)? {
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{},{}",
                cell.plan,
                cell.size,
                cell.seed,
                point.signal_efficiency,
                point.background_efficiency,
                point.low,
                point.high,
                point.background_count
            );
        }
    }
    Ok(text.into_bytes())
}
