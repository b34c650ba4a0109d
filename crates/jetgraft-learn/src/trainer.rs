//! The loop: phases, epochs, steps, evaluations, checkpoints.
//!
//! A step depends on the weights before it and on counters only: its jets come from the order of (seed, phase,
//! epoch), its dropout masks from (seed, phase, step). So a run resumed at any checkpoint goes through the same
//! numbers as one that was never interrupted, and on the CPU the number of threads changes no bit.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use jetgraft_data::{Batching, GraphSet, LastBatch, Loader, PackedBatch, epoch_order};
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode};
use jetgraft_nn::state::{self, State};
use jetgraft_nn::weights;
use serde::{Deserialize, Serialize};
use tracing::{debug, info};

use crate::average::{Average, Ema};
use crate::batch::{graph, rows, to_device};
use crate::checkpoint::{Checkpoint, Checkpoints, Counters, Identity, Window, newest};
use crate::clip::clip_factor;
use crate::cost::{Clock, Spent};
use crate::error::LearnError;
use crate::evaluate::evaluate_from;
use crate::objective::classify::{ClassWeights, Loss, LossOptions, total_weight};
use crate::observer::{Observer, Outline, Signal, StepEvent};
use crate::optimiser::{Decayed, Optimiser, OptimiserOptions};
use crate::plan::{Phase, Plan};
use crate::prefix::{self, Prefix, Shelf};
use crate::record::{Chosen, Cost, End, Evaluation, Record};
use crate::schedule::ScheduleOptions;
use crate::seeds::derive;
use crate::snapshot::{self, json};
use crate::step::{Cause, Divergence, Gradients, Quantity, arm, diagnose};

/// A length of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Span {
    /// Passes over the training jets.
    Epochs(u64),
    /// Steps.
    Steps(u64),
}

impl Span {
    fn steps(self, per_epoch: u64) -> u64 {
        match self {
            Self::Epochs(epochs) => epochs * per_epoch,
            Self::Steps(steps) => steps,
        }
    }

    fn check(self, option: &str) -> Result<(), LearnError> {
        match self {
            Self::Epochs(0) | Self::Steps(0) => Err(LearnError::option(option, 0, "1 or more")),
            _ => Ok(()),
        }
    }
}

/// A number on the validation jets that says how good a network is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Cross-entropy; smaller is better.
    #[default]
    Loss,
    /// Share of jets in the right class; LundNet's own choice.
    Accuracy,
    /// Area under the ROC curve.
    Auc,
}

impl Metric {
    /// Its value, turned so that larger is better.
    fn of(self, evaluation: &Evaluation) -> Option<f64> {
        match self {
            Self::Loss => Some(-evaluation.loss),
            Self::Accuracy => Some(evaluation.accuracy),
            Self::Auc => evaluation.auc,
        }
    }
}

/// Which weights a run ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choose {
    /// Lowest loss on validation; the first of equals.
    Loss,
    /// Highest accuracy on validation; the first of equals.
    Accuracy,
    /// Highest AUC on validation; the first of equals.
    Auc,
    /// The last ones.
    Last,
}

impl Choose {
    fn metric(self) -> Option<Metric> {
        match self {
            Self::Loss => Some(Metric::Loss),
            Self::Accuracy => Some(Metric::Accuracy),
            Self::Auc => Some(Metric::Auc),
            Self::Last => None,
        }
    }
}

/// When to give up before the budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// What is watched; default loss.
    #[serde(default)]
    pub metric: Metric,
    /// Evaluations without progress after which the phase ends; at least 1.
    pub patience: u64,
    /// How much better counts as progress, in the unit of the metric; default 0: anything better.
    #[serde(default)]
    pub min_delta: f64,
}

/// How a run trains. The defaults are those of the published LundNet taggers, except that weights are chosen by
/// validation loss and no jet is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Everything random of the run follows from it: order and dropout; default 1.
    pub seed: u64,
    /// Jets at a time; default 256.
    pub batch_size: usize,
    /// Batches a step; default 1. The gradient is that of the mean over the jets of all of them (with class weights),
    /// so a step sees and does what one of a batch `accumulate` times as large would, up to rounding, in the memory of
    /// one small batch. Two things differ: norms in training mode use the statistics of each small batch (and move
    /// their running ones after each), and dropout draws other masks.
    pub accumulate: usize,
    /// Jets at a time where nothing is learnt; changes memory and speed only; default 512.
    pub evaluation_batch_size: usize,
    /// Whether the jets that do not fill the last step of an epoch (`accumulate` batches) are used; default `keep`.
    pub last_batch: LastBatch,
    /// Length over all phases: `{ epochs = 30 }` (default) or `{ steps = 5000 }`.
    pub budget: Span,
    /// Time between evaluations on all validation jets; default `{ epochs = 1 }`. The last step of a phase is
    /// always evaluated.
    pub evaluate_every: Span,
    /// Base learning rate; default 1e-3.
    pub learning_rate: f64,
    /// How it changes; default constant.
    pub schedule: ScheduleOptions,
    /// How gradients move weights; default Adam.
    pub optimiser: OptimiserOptions,
    /// Which parameters its weight decay acts on: `all` (default) or `matrices`.
    pub weight_decay_on: Decayed,
    /// Exponential moving average of the weights, which is then what is evaluated, chosen and kept; default none.
    pub ema: Option<Ema>,
    /// Largest global norm of a gradient; default none.
    pub clip_norm: Option<f64>,
    /// What is minimised; default cross-entropy.
    pub loss: LossOptions,
    /// `"none"` (default), `"balanced"`, or one number a class.
    pub class_weights: ClassWeights,
    /// Which weights are used; default `loss`.
    pub choose: Choose,
    /// Default none.
    pub early_stopping: Option<EarlyStopping>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            batch_size: 256,
            accumulate: 1,
            evaluation_batch_size: 512,
            last_batch: LastBatch::Keep,
            budget: Span::Epochs(30),
            evaluate_every: Span::Epochs(1),
            learning_rate: 1e-3,
            schedule: ScheduleOptions::default(),
            optimiser: OptimiserOptions::default(),
            weight_decay_on: Decayed::All,
            ema: None,
            clip_norm: None,
            loss: LossOptions::default(),
            class_weights: ClassWeights::default(),
            choose: Choose::Loss,
            early_stopping: None,
        }
    }
}

impl TrainOptions {
    /// Checks every number.
    ///
    /// # Errors
    /// [`LearnError::Option`] for the first that makes no sense.
    pub fn check(&self) -> Result<(), LearnError> {
        for (option, value) in [
            ("batch_size", self.batch_size),
            ("accumulate", self.accumulate),
            ("evaluation_batch_size", self.evaluation_batch_size),
        ] {
            if value == 0 {
                return Err(LearnError::option(option, value, "1 or more"));
            }
        }
        self.budget.check("budget")?;
        self.evaluate_every.check("evaluate_every")?;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.learning_rate) {
            return Err(LearnError::option("learning_rate", self.learning_rate, "a finite number above 0"));
        }
        if let Some(clip) = self.clip_norm.filter(|&clip| !positive(clip)) {
            return Err(LearnError::option("clip_norm", clip, "a finite number above 0"));
        }
        if let Some(early) = &self.early_stopping {
            if early.patience == 0 {
                return Err(LearnError::option("early_stopping.patience", 0, "1 or more"));
            }
            if !(early.min_delta.is_finite() && early.min_delta >= 0.0) {
                return Err(LearnError::option("early_stopping.min_delta", early.min_delta, "0 or more"));
            }
        }
        if let Some(ema) = &self.ema {
            ema.check()?;
        }
        self.loss.check()?;
        self.schedule.check()?;
        self.optimiser.check()?;
        if self.weight_decay_on != Decayed::All && self.optimiser.weight_decay() == 0.0 {
            let expected = "`all`, as this optimiser has no `weight_decay`";
            return Err(LearnError::option("weight_decay_on", "matrices", expected));
        }
        Ok(())
    }

    /// Jets a step.
    pub fn step_size(&self) -> usize {
        self.batch_size.saturating_mul(self.accumulate)
    }
}

/// One training: a network with the weights it starts from, what to do with it, and on what.
#[derive(Debug)]
pub struct Job<'a, B> {
    /// The network, with its start weights (see [`crate::graft`]).
    pub model: B,
    /// What learns.
    pub plan: &'a Plan,
    /// Jets to learn from.
    pub training: Arc<GraphSet>,
    /// Jets to choose weights by.
    pub validation: Arc<GraphSet>,
    /// How.
    pub options: &'a TrainOptions,
    /// Where it computes (with or without autodiff).
    pub device: &'a Device,
    /// Host memory that the output of frozen stages may take; where it would take more, it is computed in every
    /// pass. 0 switches the cache off. It changes speed only.
    pub cache_bytes: u64,
    /// Where the output of frozen stages for the validation jets is shared with other runs, if it is; then it does
    /// not count towards `cache_bytes`.
    pub shelf: Option<&'a Shelf>,
    /// Where the run keeps checkpoints, if anywhere.
    pub checkpoints: Option<&'a Checkpoints>,
}

/// A finished (or stopped) training.
#[derive(Clone, Debug)]
pub struct Trained<B> {
    /// The network with the chosen weights, ready to predict.
    pub model: B,
    /// The last weights, not averaged.
    pub last: State,
    /// Which weights were chosen, and how good they are on validation.
    pub chosen: Chosen,
    /// Why it ended.
    pub end: End,
    /// The log.
    pub log: Vec<Record>,
    /// Steps done.
    pub steps: u64,
    /// Wall time over all processes of the run, s.
    pub seconds: f64,
    /// Processor time over all threads, s, where the system tells it.
    pub cpu_seconds: Option<f64>,
    /// Elements of the parameters that learnt in any phase.
    pub trained_parameters: usize,
    /// Elements of all parameters.
    pub parameters: usize,
}

/// Trains.
///
/// # Errors
/// [`LearnError::Option`], [`LearnError::Data`] before the first step; [`LearnError::Diverged`] with the weights
/// before the step; [`LearnError::OtherJob`] or [`LearnError::Damaged`] for a checkpoint that cannot be gone on
/// from; [`LearnError::Io`].
pub fn train<B: Backbone>(job: Job<'_, B>, observer: &mut dyn Observer) -> Result<Trained<B>, LearnError> {
    Run::begin(job, observer)?.go(observer)
}

/// What is constant during a run.
struct Setting<'a> {
    plan: &'a Plan,
    options: &'a TrainOptions,
    training: Arc<GraphSet>,
    validation: Arc<GraphSet>,
    checkpoints: Option<&'a Checkpoints>,
    identity: Identity,
    loss: Loss,
    device: Device,
    autodiff: Device,
    cache_bytes: u64,
    shelf: Option<&'a Shelf>,
    batching: Batching,
    stages: usize,
    steps_per_epoch: u64,
    total_steps: u64,
}

struct Run<'a, B> {
    setting: Setting<'a>,
    model: B,
    optimiser: Optimiser,
    average: Option<Average>,
    counters: Counters,
    best: Option<State>,
    log: Vec<Record>,
    clock: Clock,
    last_evaluation: Option<Chosen>,
}

/// What a phase needs beside its counters.
struct Stretch<'a, B> {
    phase: &'a Phase,
    /// Number of leading stages with fixed output.
    prefix: usize,
    /// The network outside autodiff, for those stages.
    frozen: Option<B>,
    training: Option<Prefix>,
    validation: Option<Arc<Prefix>>,
    /// Fixed tensors at the start.
    fixed: State,
    rates: std::collections::BTreeMap<String, f64>,
    /// Whether the plan gives any of them a factor other than 1.
    multiplied: bool,
}

/// The outcome of one step.
struct Stepped {
    epoch: u64,
    batch: u64,
    jets: usize,
    loss: f64,
    norm: f64,
    learning_rate: f64,
}

impl<'a, B: Backbone> Run<'a, B> {
    fn begin(job: Job<'a, B>, observer: &mut dyn Observer) -> Result<Self, LearnError> {
        let Job { model, plan, training, validation, options, device, cache_bytes, shelf, checkpoints } = job;
        options.check()?;
        check_set("training", &training, &model)?;
        check_set("validation", &validation, &model)?;
        let batching = Batching { last: options.last_batch, ..Batching::new(options.batch_size) };
        let steps = Batching { batch_size: options.step_size(), ..batching };
        let steps_per_epoch = steps.batches(training.len()) as u64;
        if steps_per_epoch == 0 {
            return Err(LearnError::Data {
                set: "training".into(),
                found: format!("{} jets, fewer than a batch of {}", training.len(), options.step_size()),
                expected: "a full batch, or `last_batch = \"keep\"`".into(),
            });
        }
        let total_steps = options.budget.steps(steps_per_epoch);
        let planned: u64 = plan.phases.iter().filter_map(|phase| phase.epochs).sum::<u64>() * steps_per_epoch;
        let open = plan.phases.iter().any(|phase| phase.epochs.is_none());
        if planned > total_steps || (open && planned == total_steps) {
            let found = format!("{total_steps} steps, {steps_per_epoch} an epoch");
            let expected = format!("more than the {planned} steps of the phases before the last");
            return Err(LearnError::option("budget", found, expected));
        }
        let start = state::state(&model);
        let identity = Identity {
            plan: digest(&json(plan)),
            options: digest(&json(options)),
            start: digest(&weights::to_bytes(&start, &Default::default())),
            training: fingerprint(&training),
            validation: fingerprint(&validation),
        };
        let class_weights = options.class_weights.resolve(&training.label, model.classes())?;
        let loss = options.loss.resolve(model.classes(), class_weights)?;
        let device = device.clone().inner();
        let setting = Setting {
            plan,
            options,
            training,
            validation,
            checkpoints,
            identity,
            loss,
            autodiff: device.clone().autodiff(),
            device,
            cache_bytes,
            shelf,
            batching,
            stages: model.stages().len(),
            steps_per_epoch,
            total_steps,
        };
        let mut run = Self {
            model: model.to_device(&setting.device),
            optimiser: Optimiser::new(&options.optimiser).decaying(options.weight_decay_on),
            average: options.ema.map(Average::new),
            counters: Counters {
                phase: 0,
                phase_step: 0,
                phase_steps: 0,
                step: 0,
                window: Window::default(),
                chosen: None,
                early_best: None,
                early_waited: 0,
                fixed_digest: String::new(),
                optimiser_steps: Default::default(),
                seconds: 0.0,
                cpu_seconds: None,
            },
            best: None,
            log: Vec::new(),
            clock: Clock::start(Spent::default()),
            last_evaluation: None,
            setting,
        };
        run.enter(0, &start);
        run.restore()?;
        observer.started(&Outline {
            training_jets: run.setting.training.len(),
            validation_jets: run.setting.validation.len(),
            batch_size: options.step_size(),
            steps_per_epoch,
            total_steps,
            done_steps: run.counters.step,
            trained_parameters: plan.trained_count(),
            parameters: plan.parameter_count(),
        });
        Ok(run)
    }

    /// Goes on from the newest checkpoint, if that is asked for and there is one.
    fn restore(&mut self) -> Result<(), LearnError> {
        let Some(checkpoints) = self.setting.checkpoints else { return Ok(()) };
        snapshot::sweep(&checkpoints.folder)?;
        let Some(folder) = newest(&checkpoints.folder)? else { return Ok(()) };
        if !checkpoints.resume {
            return Err(LearnError::OtherJob {
                folder,
                what: "the checkpoint in it".into(),
                found: "there from an earlier run".into(),
                expected: "no checkpoint, as resuming was not asked for".into(),
            });
        }
        let checkpoint = Checkpoint::read(&folder)?;
        self.setting.identity.check(&checkpoint.identity, &folder)?;
        let Checkpoint { counters, weights, optimiser, average, best, log, .. } = checkpoint;
        let phase = &self.setting.plan.phases[counters.phase];
        let fixed = fixed_tensors(&weights, phase);
        if fixed_digest(&fixed) != counters.fixed_digest {
            return Err(LearnError::Damaged {
                file: folder,
                found: "frozen tensors that differ from those at the start of the phase".into(),
                expected: "the same bytes".into(),
            });
        }
        self.model = state::load_state(self.model.clone(), &weights)?;
        self.optimiser = Optimiser::from_state(
            &self.setting.options.optimiser,
            &optimiser,
            &counters.optimiser_steps,
            &self.setting.device,
        )?
        .decaying(self.setting.options.weight_decay_on);
        self.average = match (self.setting.options.ema, average) {
            (None, None) => None,
            (Some(ema), Some(state)) => Some(Average::from_state(ema, &state, &self.setting.device)),
            (ema, found) => {
                let word = |there: bool| if there { "averaged weights" } else { "no averaged weights" };
                return Err(LearnError::Damaged {
                    file: folder,
                    found: word(found.is_some()).into(),
                    expected: word(ema.is_some()).into(),
                });
            }
        };
        self.clock = Clock::start(Spent { seconds: counters.seconds, cpu_seconds: counters.cpu_seconds });
        self.counters = counters;
        self.best = best;
        self.log = log;
        self.last_evaluation = self.log.last().map(|record| Chosen {
            phase: record.phase.clone(),
            step: record.step,
            epoch: record.epoch,
            validation: record.validation,
        });
        info!(step = self.counters.step, folder = %folder.display(), "resumed");
        Ok(())
    }

    /// Sets the counters to the start of a phase.
    fn enter(&mut self, phase: usize, weights: &State) {
        let setting = &self.setting;
        let left = setting.total_steps - self.counters.step;
        let wanted = setting.plan.phases[phase].epochs.map(|epochs| epochs * setting.steps_per_epoch);
        self.counters.phase = phase;
        self.counters.phase_step = 0;
        self.counters.phase_steps = wanted.unwrap_or(left).min(left);
        self.counters.window = Window::default();
        self.counters.early_best = None;
        self.counters.early_waited = 0;
        self.counters.fixed_digest = fixed_digest(&fixed_tensors(weights, &setting.plan.phases[phase]));
        self.optimiser = Optimiser::new(&setting.options.optimiser).decaying(setting.options.weight_decay_on);
        self.average = setting.options.ema.map(Average::new);
    }

    fn go(mut self, observer: &mut dyn Observer) -> Result<Trained<B>, LearnError> {
        loop {
            let end = self.phase(observer)?;
            let last = self.counters.phase + 1 == self.setting.plan.phases.len();
            if end == End::Stopped || last {
                return self.finish(end);
            }
            let weights = state::state(&self.model);
            self.enter(self.counters.phase + 1, &weights);
        }
    }

    fn phase(&mut self, observer: &mut dyn Observer) -> Result<End, LearnError> {
        let stretch = self.prepare()?;
        observer.phase(&stretch.phase.name, stretch.training.as_ref().map_or(0, Prefix::cut));
        let mut loader: Option<Loader> = None;
        let mut end = End::Budget;
        while self.counters.phase_step < self.counters.phase_steps {
            let per_epoch = self.setting.steps_per_epoch;
            let (epoch, batch) = (self.counters.phase_step / per_epoch, self.counters.phase_step % per_epoch);
            let source = match loader.take().filter(|_| batch > 0) {
                Some(source) => loader.insert(source),
                None => loader.insert(self.load(epoch, batch)),
            };
            let packed: Vec<_> = source.take(self.setting.options.accumulate).collect();
            assert!(!packed.is_empty(), "epoch {epoch} has {per_epoch} steps, {batch} was asked for");
            let began = Instant::now();
            let due = self.evaluation_is_due(self.counters.phase_step + 1);
            let (stepped, before) = self.step(&stretch, &packed, epoch, batch, due)?;
            self.counters.window.seconds += began.elapsed().as_secs_f64();
            let signal = self.tell(&stretch, &stepped, observer);
            if due {
                let stop = self.assess(&stretch, &stepped, before, observer)?;
                if stop {
                    end = End::EarlyStopping;
                }
            }
            if end != End::Budget {
                break;
            }
            let whole = self.counters.phase_step == self.counters.phase_steps;
            let last = self.counters.phase + 1 == self.setting.plan.phases.len();
            // After its last step a run has nothing to go on with.
            let finished = whole && last;
            if !finished && (signal == Signal::Stop || self.checkpoint_is_due()) {
                self.save(observer)?;
            }
            if !finished && signal == Signal::Stop {
                return Ok(End::Stopped);
            }
        }
        self.check_fixed(&stretch)?;
        Ok(end)
    }

    fn load(&self, epoch: u64, skip: u64) -> Loader {
        let setting = &self.setting;
        let seed = derive(setting.options.seed, "order", &[self.counters.phase as u64]);
        let order = epoch_order(setting.training.len(), seed, epoch);
        let skip = skip as usize * setting.options.accumulate;
        Loader::new(setting.training.clone(), order, Batching { skip, ..setting.batching })
    }

    /// Arms the network for its phase and computes what is constant in it.
    fn prepare(&mut self) -> Result<Stretch<'a, B>, LearnError> {
        let setting = &self.setting;
        let phase = &setting.plan.phases[self.counters.phase];
        let rates = phase.rates();
        let multiplied = rates.values().any(|&rate| rate != 1.0);
        let prefix = phase.fixed_prefix();
        let fixed = fixed_tensors(&state::state(&self.model), phase);
        self.model = arm(self.model.clone(), |name| rates.contains_key(name));
        let mut stretch = Stretch {
            phase,
            prefix,
            frozen: None,
            training: None,
            validation: None,
            fixed,
            rates,
            multiplied,
        };
        if prefix == 0 {
            return Ok(stretch);
        }
        let batch_size = setting.options.evaluation_batch_size;
        let compute = |set: &GraphSet| Prefix::compute(&self.model, set, prefix, batch_size, &setting.device);
        let mut bytes = prefix::bytes(&self.model, &setting.training, prefix);
        if setting.shelf.is_none() {
            bytes += prefix::bytes(&self.model, &setting.validation, prefix);
        }
        if bytes <= setting.cache_bytes {
            stretch.training = Some(compute(&setting.training)?);
            stretch.validation = match setting.shelf {
                Some(shelf) => {
                    let digest = &setting.identity.validation;
                    shelf.get(
                        &self.model,
                        &setting.validation,
                        digest,
                        prefix,
                        batch_size,
                        &setting.device,
                    )?
                }
                None => Some(Arc::new(compute(&setting.validation)?)),
            };
            debug!(stages = prefix, bytes, "output of frozen stages is kept");
        } else {
            stretch.frozen = Some(self.model.valid());
            if setting.cache_bytes > 0 {
                info!(
                    stages = prefix,
                    bytes,
                    limit = setting.cache_bytes,
                    "output of frozen stages is not kept"
                );
            }
        }
        Ok(stretch)
    }

    /// One step on the batches of it. The network before it comes back where `keep` asks for it.
    fn step(
        &mut self,
        stretch: &Stretch<'_, B>,
        batches: &[PackedBatch],
        epoch: u64,
        batch: u64,
        keep: bool,
    ) -> Result<(Stepped, Option<B>), LearnError> {
        let (setting, counters) = (&self.setting, &self.counters);
        let options = setting.options;
        let factor = |multiplier: f64| {
            let (step, steps) = (counters.phase_step, counters.phase_steps);
            let schedule = &options.schedule;
            schedule.factor_of(multiplier, stretch.multiplied, step, setting.steps_per_epoch, steps)
        };
        let learning_rate = options.learning_rate * factor(1.0);
        let position = Position { epoch, batch, learning_rate };
        let total =
            batches.iter().map(|packed| total_weight(&packed.labels, setting.loss.weights())).sum::<f64>();
        // Forward passes move running statistics: this copy still has those from before.
        let before = self.model.clone();
        let mode = |at: usize| {
            let indices = [counters.phase as u64, counters.phase_step, at as u64];
            let indices = if at == 0 { &indices[..2] } else { &indices };
            stretch.phase.mode(derive(options.seed, "dropout", indices))
        };
        let (mut value, mut gradients) = (0.0, Gradients::default());
        for (at, packed) in batches.iter().enumerate() {
            let mode = mode(at);
            let logits = self.logits(stretch, packed, &mode)?;
            let loss = setting.loss.part(logits, &packed.labels, total, &setting.autodiff);
            value += number(&loss);
            if !value.is_finite() {
                return Err(self.diverged(stretch, Quantity::Loss, None, packed, &mode, before, position));
            }
            gradients = gradients.plus(Gradients::of(&loss, &self.model));
        }
        let norm = gradients.norm();
        if !norm.is_finite() {
            let parameter = gradients.last_not_finite().map(str::to_owned);
            let (first, mode) = (&batches[0], mode(0));
            let quantity = Quantity::Gradient;
            return Err(self.diverged(stretch, quantity, parameter, first, &mode, before, position));
        }
        if let Some(factor) = options.clip_norm.and_then(|limit| clip_factor(norm, limit)) {
            gradients.scale(factor);
        }
        let before = keep.then_some(before);
        let rate = |multiplier: f64| multiplier * (options.learning_rate * factor(multiplier));
        let rates =
            stretch.rates.iter().map(|(name, &multiplier)| (name.clone(), rate(multiplier))).collect();
        self.model = self.optimiser.step(self.model.clone(), gradients, &rates);
        if let Some(average) = &mut self.average {
            average.update(&self.model, |name| stretch.rates.contains_key(name));
        }
        let jets = batches.iter().map(PackedBatch::jets).sum::<usize>();
        let counters = &mut self.counters;
        counters.phase_step += 1;
        counters.step += 1;
        let window = &mut counters.window;
        window.loss += value * total;
        window.weight += total;
        window.norm += norm;
        window.norm_max = window.norm_max.max(norm);
        window.steps += 1;
        window.jets += jets as u64;
        Ok((Stepped { epoch, batch, jets, loss: value, norm, learning_rate }, before))
    }

    /// Logits of a batch, with a graph behind them.
    fn logits(
        &self,
        stretch: &Stretch<'_, B>,
        packed: &PackedBatch,
        mode: &Mode,
    ) -> Result<Tensor<2>, LearnError> {
        let setting = &self.setting;
        let on_device = graph(packed, &setting.autodiff)?;
        let start = match (&stretch.training, &stretch.frozen) {
            (Some(prefix), _) => prefix.gather(&packed.indices, &setting.autodiff),
            (None, Some(frozen)) => {
                let GraphBatch { features, graph } = to_device(packed, &setting.device)?;
                let evaluate = Mode::evaluate(setting.stages);
                frozen.forward_stages(0..stretch.prefix, features, &graph, &evaluate).autodiff()
            }
            (None, None) => rows(packed.features.clone(), packed.n_features, &setting.autodiff),
        };
        Ok(self.model.forward_stages(stretch.prefix..setting.stages, start, &on_device, mode))
    }

    /// The network as it is evaluated, outside autodiff: with averaged weights, if they are asked for.
    fn evaluated(&self) -> B {
        let model = self.model.valid();
        match &self.average {
            Some(average) => average.applied(model),
            None => model,
        }
    }

    fn tell(&self, stretch: &Stretch<'_, B>, stepped: &Stepped, observer: &mut dyn Observer) -> Signal {
        let window = &self.counters.window;
        observer.step(&StepEvent {
            phase: &stretch.phase.name,
            step: self.counters.step,
            epoch: stepped.epoch,
            batch: stepped.batch,
            jets: stepped.jets,
            loss: stepped.loss,
            gradient_norm: stepped.norm,
            learning_rate: stepped.learning_rate,
            jets_per_second: window.jets as f64 / window.seconds.max(1e-9),
            seconds: self.clock.spent().seconds,
        })
    }

    fn evaluation_is_due(&self, phase_step: u64) -> bool {
        let per_epoch = self.setting.steps_per_epoch;
        phase_step == self.counters.phase_steps
            || phase_step.is_multiple_of(self.setting.options.evaluate_every.steps(per_epoch))
    }

    fn checkpoint_is_due(&self) -> bool {
        let Some(checkpoints) = self.setting.checkpoints else { return false };
        let due = |step: u64, every: Option<u64>| {
            every.is_some_and(|every| every > 0 && step.is_multiple_of(every))
        };
        due(self.counters.step, checkpoints.every.steps)
            || due(
                self.counters.phase_step,
                checkpoints.every.epochs.map(|n| n * self.setting.steps_per_epoch),
            )
    }

    /// Evaluates, writes the record, keeps the weights if they are the best. True: stop early.
    fn assess(
        &mut self,
        stretch: &Stretch<'_, B>,
        stepped: &Stepped,
        before: Option<B>,
        observer: &mut dyn Observer,
    ) -> Result<bool, LearnError> {
        let setting = &self.setting;
        let model = self.evaluated();
        let validation = evaluate_from(
            &model,
            &setting.validation,
            stretch.validation.as_deref(),
            setting.loss.weights(),
            setting.options.evaluation_batch_size,
            &setting.device,
        )?;
        if !validation.loss.is_finite() {
            return Err(self.diverged_on_validation(stretch, stepped, before));
        }
        let counters = &mut self.counters;
        let chosen = Chosen {
            phase: stretch.phase.name.clone(),
            step: counters.step,
            epoch: counters.step as f64 / setting.steps_per_epoch as f64,
            validation,
        };
        let best = match setting.options.choose.metric() {
            None => true,
            Some(metric) => {
                let so_far = counters.chosen.as_ref().and_then(|chosen| metric.of(&chosen.validation));
                // Without a value (one class only) the first weights stay.
                match (metric.of(&validation), so_far) {
                    (Some(now), Some(so_far)) => now > so_far,
                    _ => counters.chosen.is_none(),
                }
            }
        };
        if best {
            counters.chosen = Some(chosen.clone());
            self.best = Some(state::state(&model));
        }
        let mut stop = false;
        if let Some(early) = &setting.options.early_stopping {
            let now = early.metric.of(&validation);
            let progress = match (now, counters.early_best) {
                (Some(now), Some(so_far)) => now > so_far + early.min_delta,
                (now, _) => now.is_some(),
            };
            if progress {
                counters.early_best = now;
                counters.early_waited = 0;
            } else {
                counters.early_waited += 1;
                stop = counters.early_waited >= early.patience;
            }
        }
        let window = std::mem::take(&mut counters.window);
        let spent = self.clock.spent();
        let record = Record {
            phase: stretch.phase.name.clone(),
            step: counters.step,
            epoch: chosen.epoch,
            training_loss: window.loss / window.weight,
            validation,
            learning_rate: stepped.learning_rate,
            gradient_norm: window.norm / window.steps as f64,
            gradient_norm_max: window.norm_max,
            best,
            cost: Cost {
                seconds: spent.seconds,
                cpu_seconds: spent.cpu_seconds,
                jets_per_second: window.jets as f64 / window.seconds.max(1e-9),
            },
        };
        debug!(
            step = record.step,
            training_loss = record.training_loss,
            validation_loss = validation.loss,
            auc = validation.auc,
            "evaluated"
        );
        observer.evaluated(&record);
        self.log.push(record);
        self.last_evaluation = Some(chosen);
        Ok(stop)
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<(), LearnError> {
        let Some(checkpoints) = self.setting.checkpoints else { return Ok(()) };
        let spent = self.clock.spent();
        let (optimiser, optimiser_steps) = self.optimiser.to_state();
        self.counters.seconds = spent.seconds;
        self.counters.cpu_seconds = spent.cpu_seconds;
        self.counters.optimiser_steps = optimiser_steps;
        let checkpoint = Checkpoint {
            identity: self.setting.identity.clone(),
            plan: self.setting.plan.clone(),
            counters: self.counters.clone(),
            weights: state::state(&self.model),
            optimiser,
            average: self.average.as_ref().map(Average::to_state),
            best: self.best.clone(),
            log: self.log.clone(),
        };
        let folder = checkpoint.write(&checkpoints.folder)?;
        observer.checkpoint(&folder, self.counters.step);
        Ok(())
    }

    /// Frozen bytes are the same after the phase.
    fn check_fixed(&self, stretch: &Stretch<'_, B>) -> Result<(), LearnError> {
        let after = state::state(&self.model);
        for (name, before) in &stretch.fixed {
            let values = &after[name].values;
            let moved = before.values.iter().zip(values).position(|(a, b)| a.to_bits() != b.to_bits());
            if let Some(element) = moved {
                return Err(LearnError::FrozenMoved {
                    name: name.clone(),
                    phase: stretch.phase.name.clone(),
                    element,
                    before: before.values[element],
                    after: values[element],
                });
            }
        }
        Ok(())
    }

    fn finish(self, end: End) -> Result<Trained<B>, LearnError> {
        let last = state::state(&self.model);
        let averaged = self.evaluated();
        // A run stopped before its first evaluation has nothing to choose from.
        let chosen = match (self.counters.chosen, self.last_evaluation) {
            (Some(chosen), _) | (None, Some(chosen)) => chosen,
            (None, None) => {
                let setting = &self.setting;
                let validation = evaluate_from(
                    &averaged,
                    &setting.validation,
                    None,
                    setting.loss.weights(),
                    setting.options.evaluation_batch_size,
                    &setting.device,
                )?;
                Chosen {
                    phase: setting.plan.phases[self.counters.phase].name.clone(),
                    step: self.counters.step,
                    epoch: self.counters.step as f64 / setting.steps_per_epoch as f64,
                    validation,
                }
            }
        };
        let spent = self.clock.spent();
        Ok(Trained {
            model: match &self.best {
                Some(best) => state::load_state(averaged, best)?,
                None => averaged,
            },
            last,
            chosen,
            end,
            log: self.log,
            steps: self.counters.step,
            seconds: spent.seconds,
            cpu_seconds: spent.cpu_seconds,
            trained_parameters: self.setting.plan.trained_count(),
            parameters: self.setting.plan.parameter_count(),
        })
    }

    #[allow(clippy::too_many_arguments)] // All of it is what the message says.
    fn diverged(
        &self,
        stretch: &Stretch<'_, B>,
        quantity: Quantity,
        parameter: Option<String>,
        packed: &PackedBatch,
        mode: &Mode,
        before: B,
        at: Position,
    ) -> LearnError {
        let weights = state::state(&before);
        let cause = match parameter {
            Some(parameter) => Cause::Gradient { parameter },
            None => self.cause(&before.valid(), &self.setting.training, packed, mode),
        };
        self.divergence(stretch, quantity, cause, packed, weights, at)
    }

    fn cause(&self, model: &B, set: &GraphSet, packed: &PackedBatch, mode: &Mode) -> Cause {
        match to_device(packed, &self.setting.device) {
            Ok(batch) => diagnose(model, packed, &set.feature_names, |row| set.event_id[row], &batch, mode),
            Err(_) => Cause::Logits { largest: f32::NAN },
        }
    }

    fn diverged_on_validation(
        &self,
        stretch: &Stretch<'_, B>,
        stepped: &Stepped,
        before: Option<B>,
    ) -> LearnError {
        let set = &self.setting.validation;
        let mode = Mode::evaluate(self.setting.stages);
        let model = self.evaluated();
        let all: Vec<usize> = (0..set.len()).collect();
        let mut found = (Cause::Logits { largest: f32::NAN }, PackedBatch::default());
        for jets in all.chunks(self.setting.options.evaluation_batch_size) {
            let packed = set.pack(jets);
            let cause = self.cause(&model, set, &packed, &mode);
            let finite = matches!(cause, Cause::Logits { largest } if largest.is_finite());
            found = (cause, packed);
            if !finite {
                break;
            }
        }
        let weights = state::state(before.as_ref().unwrap_or(&self.model));
        let at =
            Position { epoch: stepped.epoch, batch: stepped.batch, learning_rate: stepped.learning_rate };
        let (cause, mut packed) = found;
        // Rows of the validation set, named by its own events.
        packed.indices.truncate(EVENTS_NAMED);
        let event_ids = packed.indices.iter().map(|&row| set.event_id[row]).collect();
        LearnError::Diverged(Box::new(Divergence {
            quantity: Quantity::ValidationLoss,
            phase: stretch.phase.name.clone(),
            step: self.counters.step,
            epoch: at.epoch,
            batch: at.batch,
            event_ids,
            learning_rate: at.learning_rate,
            cause,
            weights,
        }))
    }

    fn divergence(
        &self,
        stretch: &Stretch<'_, B>,
        quantity: Quantity,
        cause: Cause,
        packed: &PackedBatch,
        weights: State,
        at: Position,
    ) -> LearnError {
        let rows = packed.indices.iter().take(EVENTS_NAMED);
        LearnError::Diverged(Box::new(Divergence {
            quantity,
            phase: stretch.phase.name.clone(),
            step: self.counters.step,
            epoch: at.epoch,
            batch: at.batch,
            event_ids: rows.map(|&row| self.setting.training.event_id[row]).collect(),
            learning_rate: at.learning_rate,
            cause,
            weights,
        }))
    }
}

/// Where in a phase, and how fast.
#[derive(Clone, Copy)]
struct Position {
    epoch: u64,
    batch: u64,
    learning_rate: f64,
}

/// Collisions that a divergence names.
const EVENTS_NAMED: usize = 4;

/// The one element of a tensor.
fn number(tensor: &Tensor<1>) -> f64 {
    tensor.to_data().iter::<f64>().next().unwrap_or(f64::NAN)
}

/// Checks that a set can be trained or evaluated on by this network.
pub(crate) fn check_set<B: Backbone>(name: &str, set: &GraphSet, model: &B) -> Result<(), LearnError> {
    let fault =
        |found: String, expected: String| Err(LearnError::Data { set: name.to_owned(), found, expected });
    if set.is_empty() {
        return fault("no jets".into(), "at least one".into());
    }
    if set.n_features() != model.input_features() {
        let found = format!("{} features ({})", set.n_features(), set.feature_names.join(", "));
        return fault(found, format!("{}, which the network reads", model.input_features()));
    }
    let classes = model.classes();
    if let Some(row) = set.label.iter().position(|&label| label as usize >= classes) {
        let found = format!("jet {row} (event {}) of class {}", set.event_id[row], set.label[row]);
        return fault(found, format!("classes 0 to {}", classes - 1));
    }
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Digest of everything in a set of jets that training sees.
pub fn fingerprint(set: &GraphSet) -> String {
    let mut hasher = blake3::Hasher::new();
    for name in &set.feature_names {
        hasher.update(name.as_bytes()).update(b"\0");
    }
    let mut buffer = Vec::with_capacity(1 << 16);
    let mut feed = |bytes: &[u8], flush: bool| {
        buffer.extend_from_slice(bytes);
        if flush || buffer.len() >= 1 << 16 {
            hasher.update(&buffer);
            buffer.clear();
        }
    };
    set.features.iter().for_each(|value| feed(&value.to_le_bytes(), false));
    set.node_offsets.iter().for_each(|value| feed(&(*value as u64).to_le_bytes(), false));
    for parents in set.parents.iter().flatten() {
        feed(&parents.to_le_bytes(), false);
    }
    for kinematics in set.kinematics.iter().flatten() {
        feed(&kinematics.to_le_bytes(), false);
    }
    set.event_id.iter().for_each(|value| feed(&value.to_le_bytes(), false));
    set.label.iter().for_each(|value| feed(&value.to_le_bytes(), false));
    feed(&[], true);
    hasher.finalize().to_hex().to_string()
}

fn fixed_tensors(weights: &State, phase: &Phase) -> State {
    let names = phase.fixed_tensors();
    names
        .into_iter()
        .filter_map(|name| weights.get_key_value(name))
        .map(|(n, t)| (n.clone(), t.clone()))
        .collect()
}

fn fixed_digest(fixed: &State) -> String {
    digest(&weights::to_bytes(fixed, &Default::default()))
}
