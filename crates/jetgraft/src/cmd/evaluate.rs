//! `jetgraft evaluate`.

use std::path::Path;

use comfy_table::{CellAlignment, Table};
use jetgraft_stats::interval::Interval;
use jetgraft_stats::rejection::Rejection;
use jetgraft_stats::roc::Roc;
use serde::Serialize;

use crate::analysis::SIGNAL_EFFICIENCIES;
use crate::args::EvaluateArgs;
use crate::error::Result;
use crate::published::Published;
use crate::{network, run_dir, scores};

/// Level of the intervals.
const LEVEL: f64 = 0.95;

/// Performance of one score file.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// The file.
    pub file: String,
    /// Background and signal.
    pub classes: Vec<String>,
    /// Jets of each.
    pub jets: [u64; 2],
    /// Accuracy at score 0.5.
    pub accuracy: Interval,
    /// Area under the ROC curve.
    pub auc: Interval,
    /// 1/eps_B at eps_S = 0.5.
    pub rejection_50: Rejection,
    /// 1/eps_B at eps_S = 0.3.
    pub rejection_30: Rejection,
    /// What the authors of the network's weights state, on their own test set.
    pub published: Option<Published>,
}

/// Accuracy, AUC and rejections of score files.
///
/// # Errors
/// A file that is no score file or has no labels.
pub fn run(args: &EvaluateArgs) -> Result<String> {
    let published = match &args.run {
        Some(run) => network::published_of(&run_dir::read(run)?.card).copied(),
        None => None,
    };
    let evaluations = args.scores.iter().map(|path| evaluate(path, published)).collect::<Result<Vec<_>>>()?;
    if args.json { super::json(&evaluations) } else { Ok(show(&evaluations)) }
}

/// Evaluates one score file.
///
/// # Errors
/// As [`run`].
pub fn evaluate(path: &Path, published: Option<Published>) -> Result<Evaluation> {
    let scores = scores::read_binary(path)?;
    let roc = Roc::new(&scores.signal, &scores.labels)?;
    let correct: Vec<bool> =
        scores.signal.iter().zip(&scores.labels).map(|(score, signal)| (*score > 0.5) == *signal).collect();
    Ok(Evaluation {
        file: path.display().to_string(),
        classes: scores.classes.to_vec(),
        jets: [roc.background_count(), roc.signal_count()],
        accuracy: jetgraft_stats::proportion::accuracy(&correct, LEVEL)?,
        auc: roc.auc_interval(LEVEL)?,
        rejection_50: Rejection::at(&roc, SIGNAL_EFFICIENCIES[0], LEVEL)?,
        rejection_30: Rejection::at(&roc, SIGNAL_EFFICIENCIES[1], LEVEL)?,
        published,
    })
}

/// The table of evaluations.
pub fn show(evaluations: &[Evaluation]) -> String {
    let mut table = crate::tables::plain();
    table.set_header(["scores", "jets", "accuracy", "AUC", "1/eps_B at eps_S 0.5", "1/eps_B at eps_S 0.3"]);
    for evaluation in evaluations {
        let [background, signal] = evaluation.jets;
        table.add_row([
            evaluation.file.clone(),
            format!("{background} {} + {signal} {}", evaluation.classes[0], evaluation.classes[1]),
            evaluation.accuracy.to_string(),
            evaluation.auc.to_string(),
            evaluation.rejection_50.to_string(),
            evaluation.rejection_30.to_string(),
        ]);
        if let Some(published) = &evaluation.published {
            let count = |(rejection, count): (f64, u64)| format!("{rejection} ({count})");
            table.add_row([
                format!("  published: {}", published.name),
                "50000 + 50000 of the authors".to_string(),
                format!("{:.4}", published.accuracy),
                format!("{:.4}", published.auc),
                count(published.rejection_50),
                count(published.rejection_30),
            ]);
        }
    }
    align(&mut table);
    let mut text = format!("{table}\n");
    text += &format!(
        "Intervals: {} % CL. Accuracy: Clopper-Pearson over jets; AUC: DeLong; rejection: Clopper-Pearson and order statistics\nof the threshold, background jets in round brackets.\n",
        100.0 * LEVEL
    );
    if let Some(published) = evaluations.iter().find_map(|evaluation| evaluation.published) {
        text += &format!("Published numbers: {}; {}.\n", published.test_set, published.source);
    }
    text
}

fn align(table: &mut Table) {
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
