//! Classification: cross-entropy of logits, also with smoothed labels, and the focal loss; all with class weights.

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

/// What a recipe says about the loss, tagged by `kind`. Validation is always told in plain cross-entropy, with the same
/// class weights: runs with different losses can be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossOptions {
    /// `-ln p_y`, as PyTorch's `cross_entropy`.
    CrossEntropy {
        /// Share of the label that is spread evenly over all classes, in [0, 1); default 0 (Szegedy et al.,
        /// arXiv:1512.00567, section 7; PyTorch's `label_smoothing`).
        #[serde(default)]
        label_smoothing: f64,
    },
    /// `-alpha_y (1 - p_y)^gamma ln p_y`: jets that are already right count less (Lin et al., arXiv:1708.02002, eq. 5).
    /// The mean is over all jets, with class weights where they are given; `alpha` does not enter its denominator. The
    /// scores are no longer probabilities.
    Focal {
        /// How much less; at least 0, default 2. With 0 and no `alpha` it is the cross-entropy.
        #[serde(default = "two")]
        gamma: f64,
        /// Default: 1 for every class.
        #[serde(default)]
        alpha: Option<Alpha>,
    },
}

/// Factor of each class in the focal loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Alpha {
    /// Of two classes: that of class 1, in (0, 1); class 0 has the rest. The paper's choice is 0.25.
    Signal(f64),
    /// One positive number a class.
    Given(Vec<f64>),
}

fn two() -> f64 {
    2.0
}

impl Default for LossOptions {
    fn default() -> Self {
        Self::CrossEntropy { label_smoothing: 0.0 }
    }
}

impl LossOptions {
    /// Checks every number that can be checked without knowing the classes.
    ///
    /// # Errors
    /// [`LearnError::Option`] for the first that makes no sense.
    pub fn check(&self) -> Result<(), LearnError> {
        match self {
            Self::CrossEntropy { label_smoothing } => {
                if !(0.0..1.0).contains(label_smoothing) {
                    let expected = "at least 0 and less than 1";
                    return Err(LearnError::option("loss.label_smoothing", label_smoothing, expected));
                }
            }
            Self::Focal { gamma, alpha } => {
                if !(gamma.is_finite() && *gamma >= 0.0) {
                    return Err(LearnError::option("loss.gamma", gamma, "finite and not negative"));
                }
                match alpha {
                    Some(Alpha::Signal(alpha)) if !(*alpha > 0.0 && *alpha < 1.0) => {
                        let expected = "more than 0 and less than 1, or one positive number a class";
                        return Err(LearnError::option("loss.alpha", alpha, expected));
                    }
                    Some(Alpha::Given(alphas))
                        if !alphas.iter().all(|alpha| alpha.is_finite() && *alpha > 0.0) =>
                    {
                        let expected = "positive numbers, one a class";
                        return Err(LearnError::option("loss.alpha", format!("{alphas:?}"), expected));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The loss for this number of classes and these class weights.
    ///
    /// # Errors
    /// [`LearnError::Option`] as from [`LossOptions::check`], and for an `alpha` of another number of classes.
    pub fn resolve(&self, classes: usize, weights: Option<Vec<f32>>) -> Result<Loss, LearnError> {
        self.check()?;
        let shape = match self {
            Self::CrossEntropy { label_smoothing } => Shape::CrossEntropy { smoothing: *label_smoothing },
            Self::Focal { gamma, alpha } => {
                let alpha = match alpha {
                    None => vec![1.0; classes],
                    Some(Alpha::Signal(alpha)) if classes == 2 => vec![1.0 - alpha, *alpha],
                    Some(Alpha::Given(alphas)) if alphas.len() == classes => alphas.clone(),
                    Some(Alpha::Signal(alpha)) => {
                        let expected = format!("{classes} positive numbers, one a class");
                        return Err(LearnError::option("loss.alpha", alpha, expected));
                    }
                    Some(Alpha::Given(alphas)) => {
                        let expected = format!("{classes} positive numbers, one a class");
                        return Err(LearnError::option("loss.alpha", format!("{alphas:?}"), expected));
                    }
                };
                Shape::Focal { gamma: *gamma, alpha }
            }
        };
        Ok(Loss { shape, weights })
    }
}

/// A loss whose numbers fit the classes; see [`LossOptions::resolve`].
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    shape: Shape,
    weights: Option<Vec<f32>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    CrossEntropy { smoothing: f64 },
    Focal { gamma: f64, alpha: Vec<f64> },
}

impl Loss {
    /// Plain cross-entropy.
    pub fn cross_entropy(weights: Option<Vec<f32>>) -> Self {
        Self { shape: Shape::CrossEntropy { smoothing: 0.0 }, weights }
    }

    /// Class weights, if they are not all 1.
    pub fn weights(&self) -> Option<&[f32]> {
        self.weights.as_deref()
    }

    /// Share of these jets in the mean over `total` (a sum of [`total_weight`]s): with the total of the same jets, their
    /// mean; with that of several batches, the part of one batch in the mean over all.
    ///
    /// # Shapes
    /// Logits `[B, C]`, labels `[B]`, each below C; one number comes back.
    pub fn part(&self, logits: Tensor<2>, labels: &[u32], total: f64, device: &Device) -> Tensor<1> {
        let [jets, classes] = logits.dims();
        let weight = |class: usize| self.weights.as_ref().map_or(1.0, |weights| f64::from(weights[class]));
        let on_device = |table: Vec<f32>| Tensor::from_data(TensorData::new(table, [jets, classes]), device);
        let log_p = log_softmax(logits, 1);
        // One number per jet in a table of zeros: the products pick the right column and need no gather, whose
        // backward pass is slow on some devices.
        let mut table = vec![0f32; jets * classes];
        match &self.shape {
            Shape::CrossEntropy { smoothing } => {
                for (row, &label) in labels.iter().enumerate() {
                    let label = label as usize;
                    if *smoothing > 0.0 {
                        for (class, entry) in table[row * classes..(row + 1) * classes].iter_mut().enumerate()
                        {
                            *entry = (-weight(class) * smoothing / (classes as f64 * total)) as f32;
                        }
                    }
                    let spread = weight(label) * smoothing / classes as f64;
                    let whole = weight(label) * (1.0 - smoothing) + spread;
                    table[row * classes + label] = (-whole / total) as f32;
                }
                (log_p * on_device(table)).sum()
            }
            Shape::Focal { gamma, alpha } => {
                let mut barred = vec![0f32; jets * classes];
                for (row, &label) in labels.iter().enumerate() {
                    let label = label as usize;
                    table[row * classes + label] = (-weight(label) * alpha[label] / total) as f32;
                    barred[row * classes + label] = BARRED;
                }
                // ln(1 - p_y) as the log-sum-exp over the other classes: finite, with finite slope, however sure the
                // network is.
                let others = log_p.clone() + on_device(barred);
                let top = others.clone().detach().max_dim(1);
                let log_rest = (others - top.clone()).exp().sum_dim(1).log() + top;
                (log_p * on_device(table) * (log_rest * *gamma).exp()).sum()
            }
        }
    }
}

/// Added to a logit so that its class takes no part; finite, so that no difference of two is undefined.
const BARRED: f32 = -1e30;

/// Mean over jets, weighted by class: `-sum_b w[y_b] log softmax(x_b)[y_b] / sum_b w[y_b]`, as PyTorch's
/// `cross_entropy`.
///
/// # Shapes
/// As [`Loss::part`].
pub fn cross_entropy(
    logits: Tensor<2>,
    labels: &[u32],
    weights: Option<&[f32]>,
    device: &Device,
) -> Tensor<1> {
    let total = total_weight(labels, weights);
    Loss::cross_entropy(weights.map(<[f32]>::to_vec)).part(logits, labels, total, device)
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
    fn the_focal_loss_is_finite_with_finite_slope_far_out() {
        let device = Device::flex().autodiff();
        for gamma in [0.0, 0.5, 1.0, 2.0, 5.0] {
            let loss = LossOptions::Focal { gamma, alpha: None }.resolve(3, None).unwrap();
            let logits = [[1000.0f32, -1000.0, 0.0], [-1000.0, 1000.0, 1000.0], [3e4, -3e4, -3e4]];
            let logits = Tensor::<2>::from_data(TensorData::from(logits), &device).require_grad();
            let value = loss.part(logits.clone(), &[0, 0, 0], 3.0, &device);
            let gradient = logits.grad(&value.backward()).unwrap().into_data();
            assert!(gradient.iter::<f32>().all(f32::is_finite), "gamma {gamma}: {gradient}");
            let value = value.into_data().iter::<f64>().sum::<f64>();
            assert!((value - (2000.0 + 2f64.ln()) / 3.0).abs() < 1e-3, "gamma {gamma}: {value}");
        }
    }

    #[test]
    fn parts_of_a_mean_add_up() {
        let device = Device::flex();
        let logits: Vec<f32> = (0..15).map(|at| (at as f32 * 1.7).sin() * 3.0).collect();
        let labels = [0, 2, 1, 1, 2];
        for text in [
            r#"{"kind": "cross-entropy", "label_smoothing": 0.2}"#,
            r#"{"kind": "focal", "alpha": [0.2, 0.5, 1.0]}"#,
        ] {
            let options: LossOptions = serde_json::from_str(text).unwrap();
            let loss = options.resolve(3, Some(vec![1.0, 2.0, 0.5])).unwrap();
            let total = total_weight(&labels, loss.weights());
            let part = |from: usize, to: usize| -> f64 {
                let data = TensorData::new(logits[3 * from..3 * to].to_vec(), [to - from, 3]);
                let part = loss.part(Tensor::from_data(data, &device), &labels[from..to], total, &device);
                part.into_data().iter::<f64>().sum()
            };
            assert!((part(0, 2) + part(2, 5) - part(0, 5)).abs() < 1e-6, "{text}");
        }
    }

    #[test]
    fn losses_are_checked_and_combinations_that_mean_nothing_refused() {
        for (text, classes, option) in [
            (r#"{"kind": "cross-entropy", "label_smoothing": 1.0}"#, 2, "loss.label_smoothing"),
            (r#"{"kind": "focal", "gamma": -1}"#, 2, "loss.gamma"),
            (r#"{"kind": "focal", "alpha": 1.0}"#, 2, "loss.alpha"),
            (r#"{"kind": "focal", "alpha": 0.25}"#, 3, "loss.alpha"),
            (r#"{"kind": "focal", "alpha": [0.5, 0]}"#, 2, "loss.alpha"),
            (r#"{"kind": "focal", "alpha": [0.5, 1]}"#, 3, "loss.alpha"),
        ] {
            let options: LossOptions = serde_json::from_str(text).unwrap();
            match options.resolve(classes, None) {
                Err(LearnError::Option { option: found, .. }) => assert_eq!(found, option, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        // Smoothed labels belong to the cross-entropy alone.
        let both = serde_json::from_str::<LossOptions>(r#"{"kind": "focal", "label_smoothing": 0.1}"#);
        assert!(both.unwrap_err().to_string().contains("unknown field `label_smoothing`"));
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
