//! The learning rate over a phase: a pure function of the step.
//!
//! A schedule gives a factor on the base rate. The formulas and defaults are PyTorch's
//! (`torch.optim.lr_scheduler`), those of `flat-decay` weaver's; they are tested against the numbers of both.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::LearnError;
use crate::optimiser::power;

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

impl WarmUp {
    /// Factor after `step` steps, while it lasts.
    fn factor(&self, step: u64) -> Option<f64> {
        (step < self.steps).then(|| self.start + (1.0 - self.start) * step as f64 / self.steps as f64)
    }
}

fn third() -> f64 {
    1.0 / 3.0
}

/// What a schedule counts, and how often it moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// After each step.
    #[default]
    Step,
    /// After each epoch.
    Epoch,
}

fn per_epoch() -> Per {
    Per::Epoch
}

/// Which parameters a `flat-decay` schedule reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Groups {
    /// Every one: the ratios between the rates of the plan's groups stay.
    #[default]
    All,
    /// As weaver's `flat+decay` does: where the plan gives any group a factor other than 1, only the groups with
    /// such a factor decay and the others keep the base rate; without such a group all decay.
    Weaver,
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
    /// The base rate times `factor` after every `every` epochs (`StepLR`). A warm-up multiplies it.
    Step {
        /// Length of a stair, at least 1.
        every: u64,
        /// Default 0.1.
        #[serde(default = "tenth")]
        factor: f64,
        /// Whether a stair is counted in epochs (default) or steps.
        #[serde(default = "per_epoch")]
        per: Per,
        /// Rise at the beginning.
        #[serde(default)]
        warmup: Option<WarmUp>,
    },
    /// The base rate, then a geometric fall over the last part of the phase: of its T epochs the last
    /// `n = max(1, floor(decay_share T))` have `last^(1/n)`, `last^(2/n)`, .. `last` (weaver's `flat+decay`). A
    /// warm-up multiplies it. A phase of one epoch has `last` from its first step on, as in weaver; `per = "step"`
    /// avoids that.
    FlatDecay {
        /// Share of the phase that decays, in (0, 1]; default 0.3.
        #[serde(default = "decaying")]
        decay_share: f64,
        /// Factor of the last epoch, in (0, 1]; default 0.01.
        #[serde(default = "hundredth")]
        last: f64,
        /// Whether T counts epochs (default) or steps.
        #[serde(default = "per_epoch")]
        per: Per,
        /// Whom it reaches; default all.
        #[serde(default)]
        groups: Groups,
        /// Rise at the beginning.
        #[serde(default)]
        warmup: Option<WarmUp>,
    },
    /// `last + (1 - last) (1 + cos(pi t / T)) / 2` (`CosineAnnealingLR`). After a warm-up, t counts from its end.
    Cosine {
        /// Whether t counts steps or epochs.
        #[serde(default)]
        per: Per,
        /// T, in what `per` says; default: the length of the phase. Later the factor stays at `last`, whereas
        /// PyTorch's rises again (`cosine-restarts` is for that); in a shorter phase `last` is not reached.
        #[serde(default)]
        period: Option<u64>,
        /// Factor at the end, in [0, 1]; default 0.
        #[serde(default)]
        last: f64,
        /// Rise at the beginning.
        #[serde(default)]
        warmup: Option<WarmUp>,
    },
    /// Cosines that start anew: `last + (1 - last) (1 + cos(pi t / T)) / 2`, where t counts from the last restart and
    /// T is `first`, then `first growth`, `first growth^2`, .. (Loshchilov and Hutter, arXiv:1608.03983;
    /// `CosineAnnealingWarmRestarts`). After a warm-up, t counts from its end.
    CosineRestarts {
        /// Length of the first cosine, at least 1.
        first: u64,
        /// How much longer each is than the one before it, at least 1; default 1.
        #[serde(default = "once")]
        growth: u64,
        /// Whether lengths are in epochs (default) or steps.
        #[serde(default = "per_epoch")]
        per: Per,
        /// Factor that each falls towards, in [0, 1]; default 0.
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

fn hundredth() -> f64 {
    0.01
}

fn once() -> u64 {
    1
}

fn rise() -> f64 {
    0.3
}

fn decaying() -> f64 {
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
            Self::Step { every, factor, warmup, .. } => {
                if *every == 0 {
                    return fault("every", 0.0, "1 or more");
                }
                if !(*factor > 0.0 && *factor <= 1.0) {
                    return fault("factor", *factor, "more than 0 and at most 1");
                }
                warmup
            }
            Self::FlatDecay { decay_share, last, warmup, .. } => {
                for (name, value) in [("decay_share", *decay_share), ("last", *last)] {
                    if !(value > 0.0 && value <= 1.0) {
                        return fault(name, value, "more than 0 and at most 1");
                    }
                }
                warmup
            }
            Self::Cosine { last, period, warmup, .. } => {
                if !(0.0..=1.0).contains(last) {
                    return fault("last", *last, "0 to 1");
                }
                if *period == Some(0) {
                    return fault("period", 0.0, "1 or more");
                }
                warmup
            }
            Self::CosineRestarts { first, growth, last, warmup, .. } => {
                for (name, value) in [("first", *first), ("growth", *growth)] {
                    if value == 0 {
                        return fault(name, 0.0, "1 or more");
                    }
                }
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
        let rise = |warmup: &Option<WarmUp>| warmup.and_then(|warmup| warmup.factor(step));
        let in_units = |per: Per, step: u64| match per {
            Per::Step => step,
            Per::Epoch => step / steps_per_epoch,
        };
        let half_cosine = |last: f64, share: f64| last + (1.0 - last) * (1.0 + (PI * share).cos()) / 2.0;
        match self {
            Self::Constant { warmup } => rise(warmup).unwrap_or(1.0),
            Self::MultiStep { milestones, factor, warmup } => {
                let epoch = step / steps_per_epoch;
                let passed = milestones.iter().filter(|&&milestone| milestone <= epoch).count();
                rise(warmup).unwrap_or(1.0) * (0..passed).fold(1.0, |product, _| product * factor)
            }
            Self::Step { every, factor, per, warmup } => {
                rise(warmup).unwrap_or(1.0) * power(*factor, in_units(*per, step) / (*every).max(1))
            }
            Self::FlatDecay { decay_share, last, per, warmup, .. } => {
                let end = match per {
                    Per::Step => total_steps,
                    Per::Epoch => total_steps.div_ceil(steps_per_epoch),
                };
                let falling = ((end as f64 * decay_share) as u64).max(1);
                let at = (in_units(*per, step) + 1 + falling).saturating_sub(end).min(falling);
                rise(warmup).unwrap_or(1.0) * power(last.powf(1.0 / falling as f64), at)
            }
            Self::Cosine { per, period, last, warmup } => {
                if let Some(factor) = rise(warmup) {
                    return factor;
                }
                let skipped = warmup.map_or(0, |warmup| warmup.steps);
                let (step, total) = (step - skipped, total_steps.saturating_sub(skipped));
                let end = period.unwrap_or(match per {
                    Per::Step => total,
                    Per::Epoch => total.div_ceil(steps_per_epoch),
                });
                let at = in_units(*per, step);
                half_cosine(*last, if end == 0 { 1.0 } else { (at as f64 / end as f64).min(1.0) })
            }
            Self::CosineRestarts { first, growth, per, last, warmup } => {
                if let Some(factor) = rise(warmup) {
                    return factor;
                }
                let (mut at, mut length) =
                    (in_units(*per, step - warmup.map_or(0, |warmup| warmup.steps)), (*first).max(1));
                if *growth == 1 {
                    at %= length;
                }
                while *growth > 1 && at >= length {
                    at -= length;
                    length = length.saturating_mul(*growth);
                }
                half_cosine(*last, at as f64 / length as f64)
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

    /// As [`ScheduleOptions::factor`], for a parameter whose group has the factor `multiplier` on the learning rate
    /// (see [`crate::plan::Group::rate`]); `multiplied`: whether any group has one other than 1.
    pub fn factor_of(
        &self,
        multiplier: f64,
        multiplied: bool,
        step: u64,
        steps_per_epoch: u64,
        total_steps: u64,
    ) -> f64 {
        match self {
            Self::FlatDecay { groups: Groups::Weaver, warmup, .. } if multiplied && multiplier == 1.0 => {
                warmup.and_then(|warmup| warmup.factor(step)).unwrap_or(1.0)
            }
            _ => self.factor(step, steps_per_epoch, total_steps),
        }
    }
}
