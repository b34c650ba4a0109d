//! Classification: cross-entropy of logits, with class weights.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::LearnError;

/// How much each class counts in the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClassWeights {
    /// By name.
    Named(NamedWeights),
    /// One positive number a class.
    Given(Vec<f64>),
}

/// Class weights that follow from the training jets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedWeights {
    /// Every jet counts 1.
    None,
    /// Every class counts the same: a jet of class c counts `n / (C n_c)`.
    Balanced,
}

impl Default for ClassWeights {
    fn default() -> Self {
        Self::Named(NamedWeights::None)
    }
}

impl ClassWeights {
    /// The weight of each of `classes` classes for these training labels; `None` when all are 1.
    ///
    /// # Errors
    /// [`LearnError::Option`] for a wrong number of weights or one that is not positive, or for balancing a class
    /// without jets.
    pub fn resolve(&self, labels: &[u32], classes: usize) -> Result<Option<Vec<f32>>, LearnError> {
        match self {
            Self::Named(NamedWeights::None) => Ok(None),
            Self::Named(NamedWeights::Balanced) => {
                let mut counts = vec![0usize; classes];
                for &label in labels {
                    if let Some(count) = counts.get_mut(label as usize) {
                        *count += 1;
                    }
                }
                if let Some(empty) = counts.iter().position(|&count| count == 0) {
                    let found = format!("balanced, and no training jet is of class {empty}");
                    return Err(LearnError::option("class_weights", found, "jets of every class"));
                }
                let total = labels.len() as f64;
                Ok(Some(
                    counts.iter().map(|&count| (total / (classes as f64 * count as f64)) as f32).collect(),
                ))
            }
            Self::Given(weights) => {
                if weights.len() != classes
                    || !weights.iter().all(|weight| weight.is_finite() && *weight > 0.0)
                {
                    let expected = format!("{classes} positive numbers, one a class");
                    return Err(LearnError::option("class_weights", format!("{weights:?}"), expected));
                }
                Ok(Some(weights.iter().map(|&weight| weight as f32).collect()))
            }
        }
    }
}

/// Mean over jets, weighted by class: `-sum_b w[y_b] log softmax(x_b)[y_b] / sum_b w[y_b]`, as PyTorch's
/// `cross_entropy`.
///
/// # Shapes
/// Logits `[B, C]`, labels `[B]`, each below C; one number comes back.
pub fn cross_entropy(
    logits: Tensor<2>,
    labels: &[u32],
    weights: Option<&[f32]>,
    device: &Device,
) -> Tensor<1> {
    let [jets, classes] = logits.dims();
    let weight = |label: u32| weights.map_or(1.0, |weights| weights[label as usize]);
    let total = total_weight(labels, weights);
    // One number per jet in a table of zeros: the products pick the right column and need no gather, whose
    // backward pass is slow on some devices.
    let mut table = vec![0f32; jets * classes];
    for (row, &label) in labels.iter().enumerate() {
        table[row * classes + label as usize] = (-f64::from(weight(label)) / total) as f32;
    }
    let table = Tensor::from_data(TensorData::new(table, [jets, classes]), device);
    (log_softmax(logits, 1) * table).sum()
}

/// Sum of the weights of these labels.
pub fn total_weight(labels: &[u32], weights: Option<&[f32]>) -> f64 {
    match weights {
        None => labels.len() as f64,
        Some(weights) => labels.iter().map(|&label| f64::from(weights[label as usize])).sum(),
    }
}

/// Negative log-probability of class `label` from a jet's logits, in f64.
pub fn surprise(logits: &[f32], label: u32) -> f64 {
    let top = logits.iter().fold(f64::NEG_INFINITY, |top, &value| top.max(f64::from(value)));
    let sum: f64 = logits.iter().map(|&value| (f64::from(value) - top).exp()).sum();
    top + sum.ln() - f64::from(logits[label as usize])
}

/// Probabilities of the classes from a jet's logits, in f64.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let top = logits.iter().fold(f64::NEG_INFINITY, |top, &value| top.max(f64::from(value)));
    let powers: Vec<f64> = logits.iter().map(|&value| (f64::from(value) - top).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_device_agree_far_out() {
        let device = Device::flex();
        let logits = [[1000.0f32, -1000.0], [-3.0, 4.0], [88.0, 89.0]];
        let labels = [1, 1, 0];
        let tensor = Tensor::from_data(TensorData::from(logits), &device);
        let loss: f64 =
            cross_entropy(tensor, &labels, Some(&[2.0, 1.0]), &device).into_data().iter::<f64>().sum();
        let each: Vec<f64> = logits.iter().zip(labels).map(|(row, label)| surprise(row, label)).collect();
        let expected = (each[0] + each[1] + 2.0 * each[2]) / 4.0;
        assert!((loss / expected - 1.0).abs() < 1e-6, "{loss} {expected}");
        assert_eq!(softmax(&[1000.0, -1000.0]), [1.0, 0.0]);
    }

    #[test]
    fn weights_follow_the_labels() {
        let balanced: ClassWeights = serde_json::from_str(r#""balanced""#).unwrap();
        assert_eq!(balanced.resolve(&[0, 0, 0, 1], 2).unwrap(), Some(vec![2.0 / 3.0, 2.0]));
        assert!(balanced.resolve(&[0, 0], 2).is_err());
        let given: ClassWeights = serde_json::from_str("[1, 3]").unwrap();
        assert_eq!(given.resolve(&[0], 2).unwrap(), Some(vec![1.0, 3.0]));
        assert!(given.resolve(&[0], 3).is_err());
        assert!(ClassWeights::Given(vec![1.0, 0.0]).resolve(&[0], 2).is_err());
        assert_eq!(ClassWeights::default().resolve(&[0], 2).unwrap(), None);
    }
}
