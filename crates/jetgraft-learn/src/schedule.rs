//! The learning rate over a phase: a pure function of the step.
//!
//! A schedule gives a factor on the base rate. The formulas and defaults are PyTorch's
//! (`torch.optim.lr_scheduler`), against whose numbers they are tested.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::LearnError;

/// Linear rise from `start` to 1 over the first `steps` steps: `start + (1 - start) * step / steps`
/// (`LinearLR`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// Length, in steps; at least 1.
    pub steps: u64,
    /// Factor at the first step, in (0, 1]; default 1/3.
    #[serde(default = "third")]
    pub start: f64,
}

fn third() -> f64 {
    1.0 / 3.0
}

/// How often a cosine moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// After each step.
    #[default]
    Step,
    /// After each epoch.
    Epoch,
}

/// The shape of the two parts of a one-cycle schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anneal {
    /// Half a cosine.
    #[default]
    Cosine,
    /// A straight line.
    Linear,
}

/// What a recipe says about the learning rate over time, tagged by `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ScheduleOptions {
    /// The base rate.
    Constant {
        /// Rise at the beginning.
        #[serde(default)]
        warmup: Option<WarmUp>,
    },
    /// The base rate times `factor` for each milestone passed (`MultiStepLR`). A warm-up multiplies it.
    MultiStep {
        /// Epochs, counted from 0, before which the factor drops; rising.
        milestones: Vec<u64>,
        /// Default 0.1.
        #[serde(default = "tenth")]
        factor: f64,
        /// Rise at the beginning.
        #[serde(default)]
        warmup: Option<WarmUp>,
    },
    /// `last + (1 - last) (1 + cos(pi t / T)) / 2` (`CosineAnnealingLR`). After a warm-up, t counts from its end.
    Cosine {
        /// Whether t counts steps or epochs.
        #[serde(default)]
        per: Per,
        /// Factor at the end, in [0, 1]; default 0.
        #[serde(default)]
        last: f64,
        /// Rise at the beginning.
        #[serde(default)]
        warmup: Option<WarmUp>,
    },
    /// Rise to the base rate and fall far below it (`OneCycleLR` with two phases; the base rate is its `max_lr`).
    /// Its warm-up is its first part.
    OneCycle {
        /// Share of the steps that rise, in (0, 1); default 0.3.
        #[serde(default = "rise")]
        warmup_share: f64,
        /// The first rate is the base rate divided by this; default 25.
        #[serde(default = "initial_divisor")]
        initial_divisor: f64,
        /// The last rate is the first one divided by this; default 10,000.
        #[serde(default = "final_divisor")]
        final_divisor: f64,
        /// Shape of both parts.
        #[serde(default)]
        anneal: Anneal,
    },
}

fn tenth() -> f64 {
    0.1
}

fn rise() -> f64 {
    0.3
}

fn initial_divisor() -> f64 {
    25.0
}

fn final_divisor() -> f64 {
    1e4
}

impl Default for ScheduleOptions {
    fn default() -> Self {
        Self::Constant { warmup: None }
    }
}

impl ScheduleOptions {
    /// Checks every number.
    ///
    /// # Errors
    /// [`LearnError::Option`] for the first that makes no sense.
    pub fn check(&self) -> Result<(), LearnError> {
        let fault = |name: &str, found: f64, expected: &str| {
            Err(LearnError::option(format!("schedule.{name}"), found, expected))
        };
        let warmup = match self {
            Self::Constant { warmup } => warmup,
            Self::MultiStep { milestones, factor, warmup } => {
                if !(*factor > 0.0 && *factor <= 1.0) {
                    return fault("factor", *factor, "more than 0 and at most 1");
                }
                if !milestones.windows(2).all(|pair| pair[0] < pair[1]) || milestones.first() == Some(&0) {
                    let found = format!("{milestones:?}");
                    return Err(LearnError::option("schedule.milestones", found, "rising epochs above 0"));
                }
                warmup
            }
            Self::Cosine { last, warmup, .. } => {
                if !(0.0..=1.0).contains(last) {
                    return fault("last", *last, "0 to 1");
                }
                warmup
            }
            Self::OneCycle { warmup_share, initial_divisor, final_divisor, .. } => {
                if !(*warmup_share > 0.0 && *warmup_share < 1.0) {
                    return fault("warmup_share", *warmup_share, "more than 0 and less than 1");
                }
                for (name, value) in
                    [("initial_divisor", *initial_divisor), ("final_divisor", *final_divisor)]
                {
                    if !(value.is_finite() && value >= 1.0) {
                        return fault(name, value, "a finite number of at least 1");
                    }
                }
                &None
            }
        };
        if let Some(warmup) = warmup {
            if warmup.steps == 0 {
                return fault("warmup.steps", 0.0, "1 or more");
            }
            if !(warmup.start > 0.0 && warmup.start <= 1.0) {
                return fault("warmup.start", warmup.start, "more than 0 and at most 1");
            }
        }
        Ok(())
    }

    /// Factor on the base rate for the step that comes after `step` steps of a phase of `total_steps`, of which
    /// `steps_per_epoch` make an epoch. Beyond the end it keeps its last value.
    pub fn factor(&self, step: u64, steps_per_epoch: u64, total_steps: u64) -> f64 {
        let steps_per_epoch = steps_per_epoch.max(1);
        let rise = |warmup: &Option<WarmUp>| {
            warmup
                .filter(|warmup| step < warmup.steps)
                .map(|warmup| warmup.start + (1.0 - warmup.start) * step as f64 / warmup.steps as f64)
        };
        match self {
            Self::Constant { warmup } => rise(warmup).unwrap_or(1.0),
            Self::MultiStep { milestones, factor, warmup } => {
                let epoch = step / steps_per_epoch;
                let passed = milestones.iter().filter(|&&milestone| milestone <= epoch).count();
                rise(warmup).unwrap_or(1.0) * (0..passed).fold(1.0, |product, _| product * factor)
            }
            Self::Cosine { per, last, warmup } => {
                if let Some(factor) = rise(warmup) {
                    return factor;
                }
                let skipped = warmup.map_or(0, |warmup| warmup.steps);
                let (step, total) = (step - skipped, total_steps.saturating_sub(skipped));
                let (at, end) = match per {
                    Per::Step => (step, total),
                    Per::Epoch => (step / steps_per_epoch, total.div_ceil(steps_per_epoch)),
                };
                let share = if end == 0 { 1.0 } else { (at as f64 / end as f64).min(1.0) };
                last + (1.0 - last) * (1.0 + (PI * share).cos()) / 2.0
            }
            Self::OneCycle { warmup_share, initial_divisor, final_divisor, anneal } => {
                let first = 1.0 / initial_divisor;
                let last = first / final_divisor;
                let total = total_steps as f64;
                let (peak, end) = (warmup_share * total - 1.0, total - 1.0);
                let at = (step as f64).min(end.max(0.0));
                let mix = |from: f64, to: f64, share: f64| match anneal {
                    Anneal::Cosine => to + (from - to) / 2.0 * (1.0 + (PI * share).cos()),
                    Anneal::Linear => from + (to - from) * share,
                };
                // Too short to rise: it starts near the top.
                if peak > 0.0 && at <= peak {
                    mix(first, 1.0, at / peak)
                } else {
                    mix(1.0, last, ((at - peak) / (end - peak)).clamp(0.0, 1.0))
                }
            }
        }
    }
}
