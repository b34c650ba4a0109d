//! What a network says about jets, in their order.

use burn::tensor::Device;
use jetgraft_data::GraphSet;
use jetgraft_nn::contract::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use crate::batch::graph;
use crate::error::LearnError;
use crate::objective::classify::softmax;
use crate::prefix::{Prefix, activation};

/// Logits of a set of jets, one row a jet, in the order of the set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logits {
    /// Number of classes C.
    pub classes: usize,
    /// `[J, C]`.
    pub values: Vec<f32>,
}

impl Logits {
    /// Number of jets.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.classes).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One row a jet.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.classes.max(1))
    }

    /// `[J, C]`: probabilities, computed in f64.
    pub fn probabilities(&self) -> Vec<f64> {
        self.rows().flat_map(softmax).collect()
    }

    /// One number a jet that rises with the odds of `class` against the rest: its logit minus the logarithm of the
    /// summed exponentials of the others. It has no ties where probabilities round to 1.
    ///
    /// # Panics
    /// When `class` is not below C.
    pub fn scores(&self, class: usize) -> Vec<f64> {
        assert!(class < self.classes, "class {class} of {}", self.classes);
        self.rows()
            .map(|row| {
                let others = || {
                    row.iter().enumerate().filter(|(at, _)| *at != class).map(|(_, &value)| f64::from(value))
                };
                let top = others().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = others().map(|value| (value - top).exp()).sum();
                f64::from(row[class]) - top - sum.ln()
            })
            .collect()
    }
}

/// Logits of all jets of `set`, in evaluation mode, `batch_size` jets at a time; the batch size does not change
/// them beyond rounding.
///
/// # Errors
/// [`LearnError::Data`] if the jets have other features than the network reads;
/// [`jetgraft_nn::error::NnError::Graph`] if they are not graphs.
pub fn logits<B: Backbone>(
    model: &B,
    set: &GraphSet,
    batch_size: usize,
    device: &Device,
) -> Result<Logits, LearnError> {
    logits_from(model, set, None, batch_size, device)
}

/// [`logits`] from cached activations where there are some.
pub(crate) fn logits_from<B: Backbone>(
    model: &B,
    set: &GraphSet,
    prefix: Option<&Prefix>,
    batch_size: usize,
    device: &Device,
) -> Result<Logits, LearnError> {
    if set.n_features() != model.input_features() {
        return Err(LearnError::Data {
            set: "given".into(),
            found: format!("{} features ({})", set.n_features(), set.feature_names.join(", ")),
            expected: format!("{}, which the network reads", model.input_features()),
        });
    }
    let model = model.valid();
    let device = device.clone().inner();
    let stages = model.stages().len();
    let mode = Mode::evaluate(stages);
    let mut values = Vec::with_capacity(set.len() * model.classes());
    let all: Vec<usize> = (0..set.len()).collect();
    for jets in all.chunks(batch_size.max(1)) {
        let packed = set.pack(jets);
        let (cut, start) = activation(prefix, &packed, &device)?;
        let output = model.forward_stages(cut..stages, start, &graph(&packed, &device)?, &mode);
        values.extend(output.into_data().iter::<f32>());
    }
    Ok(Logits { classes: model.classes(), values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_order_like_probabilities_and_do_not_saturate() {
        let logits = Logits { classes: 2, values: vec![0.0, 1.0, 0.0, 50.0, 0.0, 60.0] };
        assert_eq!(logits.scores(1), [1.0, 50.0, 60.0]);
        assert_eq!(logits.scores(0), [-1.0, -50.0, -60.0]);
        let probabilities = logits.probabilities();
        assert!((probabilities[1] - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-12);
        let three = Logits { classes: 3, values: vec![0.0, 0.0, 1.0] };
        assert!((three.scores(2)[0] - (1.0 - 2f64.ln())).abs() < 1e-12);
    }
}
