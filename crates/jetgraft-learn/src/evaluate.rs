//! How good a network is on a set of jets: loss, accuracy, area under the ROC curve.

use burn::tensor::Device;
use jetgraft_data::GraphSet;
use jetgraft_nn::contract::Backbone;
use jetgraft_stats::roc::Roc;

use crate::error::LearnError;
use crate::objective::classify::{surprise, total_weight};
use crate::predict::{Logits, logits_from};
use crate::prefix::Prefix;
use crate::record::Evaluation;

/// Evaluates `model` on all jets of `set`.
///
/// # Errors
/// As [`crate::predict::logits`].
pub fn evaluate<B: Backbone>(
    model: &B,
    set: &GraphSet,
    class_weights: Option<&[f32]>,
    batch_size: usize,
    device: &Device,
) -> Result<Evaluation, LearnError> {
    evaluate_from(model, set, None, class_weights, batch_size, device)
}

pub(crate) fn evaluate_from<B: Backbone>(
    model: &B,
    set: &GraphSet,
    prefix: Option<&Prefix>,
    class_weights: Option<&[f32]>,
    batch_size: usize,
    device: &Device,
) -> Result<Evaluation, LearnError> {
    score(&logits_from(model, set, prefix, batch_size, device)?, &set.label, class_weights)
}

/// Evaluates logits against labels; sums are f64 in the order of the jets. A loss that is not finite has no AUC.
///
/// # Errors
/// [`LearnError::Statistics`].
pub fn score(
    logits: &Logits,
    labels: &[u32],
    class_weights: Option<&[f32]>,
) -> Result<Evaluation, LearnError> {
    let (mut loss, mut right) = (0.0, 0u64);
    for (row, &label) in logits.rows().zip(labels) {
        let weight = class_weights.map_or(1.0, |weights| f64::from(weights[label as usize]));
        loss += weight * surprise(row, label);
        let best =
            row.iter().enumerate().fold(0, |best, (at, value)| if *value > row[best] { at } else { best });
        right += u64::from(best == label as usize);
    }
    let jets = labels.len();
    let loss = loss / total_weight(labels, class_weights);
    let auc = if loss.is_finite() { auc(logits, labels)? } else { None };
    Ok(Evaluation { loss, accuracy: right as f64 / jets as f64, auc, jets: jets as u64 })
}

fn auc(logits: &Logits, labels: &[u32]) -> Result<Option<f64>, LearnError> {
    let one = |class: usize| -> Result<Option<f64>, LearnError> {
        let signal: Vec<bool> = labels.iter().map(|&label| label as usize == class).collect();
        let count = signal.iter().filter(|&&signal| signal).count();
        if count == 0 || count == signal.len() {
            return Ok(None);
        }
        Ok(Some(Roc::new(&logits.scores(class), &signal)?.auc()))
    };
    if logits.classes == 2 {
        return one(1);
    }
    let mut sum = 0.0;
    for class in 0..logits.classes {
        match one(class)? {
            Some(auc) => sum += auc,
            None => return Ok(None),
        }
    }
    Ok((logits.classes > 0).then(|| sum / logits.classes as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_hand() {
        let logits = Logits { classes: 2, values: vec![1.0, 0.0, 0.0, 1.0, 0.0, 3.0, 0.0, 2.0] };
        let found = score(&logits, &[0, 1, 1, 0], None).unwrap();
        assert_eq!((found.accuracy, found.auc, found.jets), (0.75, Some(0.75), 4));
        let expected = ((-1f64).exp().ln_1p() * 2.0 + (-3f64).exp().ln_1p() + 2f64.exp().ln_1p()) / 4.0;
        assert!((found.loss - expected).abs() < 1e-12);
        let weighted = score(&logits, &[0, 1, 1, 0], Some(&[3.0, 1.0])).unwrap();
        let expected = ((-1f64).exp().ln_1p() * 4.0 + (-3f64).exp().ln_1p() + 3.0 * 2f64.exp().ln_1p()) / 8.0;
        assert!((weighted.loss - expected).abs() < 1e-12);
        assert_eq!(score(&logits, &[1, 1, 1, 1], None).unwrap().auc, None);
    }

    #[test]
    fn three_classes_give_the_mean_of_each_against_the_rest() {
        let logits = Logits { classes: 3, values: vec![2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0] };
        assert_eq!(score(&logits, &[0, 1, 2], None).unwrap().auc, Some(1.0));
        let broken = Logits { classes: 2, values: vec![f32::NAN, 0.0] };
        assert!(score(&broken, &[0], None).unwrap().loss.is_nan());
    }
}
