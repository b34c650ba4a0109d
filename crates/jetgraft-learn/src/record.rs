//! What is written down about a run.

use serde::{Deserialize, Serialize};

/// How good the network is on a set of jets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Mean cross-entropy, nat, weighted by class like the training loss.
    pub loss: f64,
    /// Share of jets whose largest logit is that of their class.
    pub accuracy: f64,
    /// Area under the ROC curve: class 1 against class 0; with more classes the mean over classes of each against
    /// the rest. `None` if a class has no jet.
    pub auc: Option<f64>,
    /// Number of jets.
    pub jets: u64,
}

/// What a run has cost so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Wall time since the start of the run, evaluations included, s.
    pub seconds: f64,
    /// Processor time over all threads since then, s, where the system tells it.
    pub cpu_seconds: Option<f64>,
    /// Training jets per second of wall time since the last record, evaluations excluded.
    pub jets_per_second: f64,
}

/// One line of the log: written after each evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Phase of the plan.
    pub phase: String,
    /// Training steps done, over all phases.
    pub step: u64,
    /// Passes over the training jets done, over all phases; not whole when evaluations go by steps.
    pub epoch: f64,
    /// Mean training loss since the last record, weights moving.
    pub training_loss: f64,
    /// On all validation jets.
    pub validation: Evaluation,
    /// Base learning rate of the last step, schedule included.
    pub learning_rate: f64,
    /// Mean global norm of the gradients since the last record, before clipping.
    pub gradient_norm: f64,
    /// Largest of them.
    pub gradient_norm_max: f64,
    /// Whether these weights are the best so far.
    pub best: bool,
    /// Time.
    pub cost: Cost,
}

/// Which weights of a run are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// Phase of the plan.
    pub phase: String,
    /// Training steps before them, over all phases.
    pub step: u64,
    /// Passes over the training jets before them.
    pub epoch: f64,
    /// On all validation jets.
    pub validation: Evaluation,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The budget is spent.
    Budget,
    /// No progress on validation.
    EarlyStopping,
    /// The observer asked for it; the run can be resumed.
    Stopped,
}
