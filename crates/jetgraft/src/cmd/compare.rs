//! `jetgraft compare`.

use jetgraft_stats::compare::{
    AucDifference, ErrorReduction, McNemar, accuracy_difference, auc_difference, error_reduction, mcnemar,
};
use jetgraft_stats::interval::Interval;
use serde::Serialize;

use crate::args::CompareArgs;
use crate::error::{Error, Result};
use crate::{run_dir, scores};

/// Level of the intervals.
const LEVEL: f64 = 0.95;

/// Two runs on the same jets.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The reference.
    pub reference: String,
    /// The run compared with it.
    pub run: String,
    /// Test jets.
    pub jets: usize,
    /// Accuracy of the run minus that of the reference.
    pub accuracy_difference: Interval,
    /// AUC of both and their difference.
    pub auc: AucDifference,
    /// 1 - Err / Err(reference).
    pub error_reduction: ErrorReduction,
    /// Jets that only one of them has right.
    pub mcnemar: McNemar,
}

/// Compares the test predictions of two runs, jet by jet.
///
/// # Errors
/// A folder that is no run or has no predictions; runs that were tested on different jets.
pub fn run(args: &CompareArgs) -> Result<String> {
    let read = |path: &std::path::Path| -> Result<(String, scores::Binary)> {
        let run = run_dir::read(path)?;
        let scores = scores::read_binary(&run.folder.join(run_dir::PREDICTIONS))?;
        Ok((path.display().to_string(), scores))
    };
    let (reference, base) = read(&args.reference)?;
    let (name, new) = read(&args.run)?;
    if base.event_id != new.event_id || base.labels != new.labels {
        return Err(Error::new(format!("{name} and {reference} were tested on different jets"))
            .found(format!("{} and {} jets", new.event_id.len(), base.event_id.len()))
            .hint("a paired comparison needs runs of one study, or runs of the same data and split"));
    }
    let correct = |scores: &scores::Binary| -> Vec<bool> {
        scores.signal.iter().zip(&scores.labels).map(|(score, signal)| (*score > 0.5) == *signal).collect()
    };
    let (right_base, right_new) = (correct(&base), correct(&new));
    let comparison = Comparison {
        reference,
        run: name,
        jets: base.labels.len(),
        accuracy_difference: accuracy_difference(&right_new, &right_base, LEVEL)?,
        auc: auc_difference(&new.signal, &base.signal, &base.labels, LEVEL)?,
        error_reduction: error_reduction(&right_new, &right_base, LEVEL)?,
        mcnemar: mcnemar(&right_new, &right_base)?,
    };
    if args.json {
        return super::json(&comparison);
    }
    let c = &comparison;
    let mut table = crate::tables::plain();
    table.set_header(["quantity", "value"]);
    table.add_row(["reference", &c.reference]);
    table.add_row(["run", &c.run]);
    table.add_row(["AUC of the reference", &c.auc.auc_b.to_string()]);
    table.add_row(["AUC of the run", &c.auc.auc_a.to_string()]);
    table.add_row(["AUC difference", &format!("{} (p = {:.2e})", c.auc.difference, c.auc.p_value)]);
    table.add_row(["accuracy difference", &c.accuracy_difference.to_string()]);
    table.add_row(["error reduction", &c.error_reduction.to_string()]);
    table.add_row([
        "right in one only",
        &format!(
            "run {}, reference {} (McNemar, exact p = {:.2e})",
            c.mcnemar.only_a, c.mcnemar.only_b, c.mcnemar.p_exact
        ),
    ]);
    Ok(format!(
        "{table}\n{} % CL, paired on {} test jets. AUC: DeLong; accuracy: {}; error reduction: Bonett-Price.\n",
        100.0 * LEVEL,
        c.jets,
        c.accuracy_difference.method
    ))
}
