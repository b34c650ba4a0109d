//! What of the source is kept, what is frozen, and at which rate the rest learns: a pure function on names.
//!
//! A plan sees stages, tensor names and shapes, never values. It has one phase, or two where a probe comes first;
//! in each phase every stage is one group with one treatment.

use std::collections::BTreeMap;

use jetgraft_data::nearest;
use jetgraft_nn::contract::{Mode, NormMode, Stage};
use jetgraft_nn::state::Role;
use serde::{Deserialize, Serialize};

use crate::error::LearnError;
use crate::names::{TensorName, belongs, stage_of};

/// What a recipe says about the graft, tagged by `kind`. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PlanOptions {
    /// Nothing is kept: the baseline.
    // Braces, not a unit variant: serde lets unit variants of tagged enums swallow unknown keys.
    Scratch {},
    /// Everything is kept and everything learns.
    FineTune {
        /// Factor on the learning rate by stage (`edge_conv.3`) or group of stages (`edge_conv`); 1 where nothing
        /// is said. The longest name that fits wins.
        #[serde(default)]
        rates: BTreeMap<String, f64>,
        /// What becomes of the head.
        #[serde(default)]
        head: HeadStart,
    },
    /// The first stages are kept as they are; the rest learns.
    Frozen {
        /// Last frozen stage by name, or the number of frozen stages. Default: the stage before `fusion`, or, in a
        /// network without a stage of that name, the stage before the head.
        #[serde(default)]
        through: Option<Cut>,
        /// Where the stages that learn start from.
        #[serde(default)]
        rest: Rest,
        /// What the BatchNorms of frozen stages do.
        #[serde(default)]
        batch_norm: FrozenNorms,
        /// As in `fine-tune`; only for stages that learn.
        #[serde(default)]
        rates: BTreeMap<String, f64>,
        /// As in `fine-tune`.
        #[serde(default)]
        head: HeadStart,
    },
    /// The first `stages` stages are frozen; everything else is kept and learns.
    Partial {
        /// Number of frozen stages, from the input on.
        stages: usize,
        /// As in `frozen`.
        #[serde(default)]
        batch_norm: FrozenNorms,
        /// As in `fine-tune`; only for stages that learn.
        #[serde(default)]
        rates: BTreeMap<String, f64>,
        /// As in `fine-tune`.
        #[serde(default)]
        head: HeadStart,
    },
    /// First only the head learns, on frozen features, then everything.
    ///
    /// A fresh head would otherwise distort the features before it fits them (Kumar et al., arXiv:2202.10054).
    ProbeThenFineTune {
        /// Epochs of the first phase; they count towards the budget.
        probe_epochs: u64,
        /// Factor on the learning rate of the head while it is probed; default 1.
        #[serde(default = "one")]
        probe_rate: f64,
        /// What the BatchNorms do while their stages are frozen.
        #[serde(default)]
        batch_norm: FrozenNorms,
        /// As in `fine-tune`, for the second phase.
        #[serde(default)]
        rates: BTreeMap<String, f64>,
        /// As in `fine-tune`.
        #[serde(default)]
        head: HeadStart,
    },
    /// Everything is kept and learns, the slower the closer to the input: the rate of a stage is
    /// `decay^(stages between it and the head, plus one)`, that of the head 1 (Howard and Ruder, arXiv:1801.06146).
    LayerWiseDecay {
        /// Factor from one stage to the one before it, in (0, 1].
        decay: f64,
        /// As in `fine-tune`.
        #[serde(default)]
        head: HeadStart,
    },
}

fn one() -> f64 {
    1.0
}

impl PlanOptions {
    /// The name that recipes give it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Scratch {} => "scratch",
            Self::FineTune { .. } => "fine-tune",
            Self::Frozen { .. } => "frozen",
            Self::Partial { .. } => "partial",
            Self::ProbeThenFineTune { .. } => "probe-then-fine-tune",
            Self::LayerWiseDecay { .. } => "layer-wise-decay",
        }
    }

    /// Whether the plan starts from a source.
    pub fn needs_source(&self) -> bool {
        !matches!(self, Self::Scratch {})
    }
}

/// Where the stages end: by name (inclusive) or by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cut {
    /// The first so many stages.
    Count(usize),
    /// All stages up to and including this one.
    Name(String),
}

/// Where stages that learn behind frozen ones start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// From the source.
    #[default]
    Kept,
    /// From fresh random values.
    Fresh,
}

/// What the BatchNorms of frozen stages do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrozenNorms {
    /// They use the running statistics of the source, which stay.
    #[default]
    Fixed,
    /// They use the statistics of the batch and move the running ones: what stopping the gradients alone does in
    /// PyTorch. Dropout of frozen stages is on, too.
    Update,
}

/// What becomes of the source's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadStart {
    /// Kept where every tensor of it fits, else fresh as a whole.
    #[default]
    Auto,
    /// Kept; one that does not fit is an error.
    Kept,
    /// Fresh.
    Fresh,
}

/// Where a stage starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// From the source; a tensor that is missing there or has another shape is a fault.
    Kept,
    /// From the source if every tensor of the stage is there with its shape, else fresh.
    KeptIfItFits,
    /// From fresh values.
    Fresh,
}

/// Which statistics the BatchNorms of a stage use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norms {
    /// Of the batch; running statistics move.
    Batch,
    /// The running ones, which stay.
    Running,
}

/// One stage in one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name of the stage.
    pub stage: String,
    /// Where it starts from (the same in every phase).
    pub start: Start,
    /// Whether its parameters stay.
    pub frozen: bool,
    /// Factor on the learning rate; 0 where frozen.
    pub rate: f64,
    /// What its BatchNorms use while training.
    pub norms: Norms,
    /// Its parameters.
    pub parameters: Vec<String>,
    /// Its buffers.
    pub buffers: Vec<String>,
    /// Elements of its parameters.
    pub parameter_count: usize,
}

/// A stretch of training in which groups do not change. Schedule and optimiser state start anew with each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// `train`, `probe` or `fine-tune`.
    pub name: String,
    /// Its length; `None`: what is left of the budget.
    pub epochs: Option<u64>,
    /// One per stage, from input to output.
    pub groups: Vec<Group>,
}

impl Phase {
    /// Number of leading stages that are frozen with fixed norms: their output can be computed once.
    pub fn fixed_prefix(&self) -> usize {
        self.groups.iter().take_while(|group| group.frozen && group.norms == Norms::Running).count()
    }

    /// Elements of the parameters that learn.
    pub fn trained_count(&self) -> usize {
        self.groups.iter().filter(|group| !group.frozen).map(|group| group.parameter_count).sum()
    }

    /// Factor on the learning rate of every parameter that learns.
    pub fn rates(&self) -> BTreeMap<String, f64> {
        self.groups
            .iter()
            .filter(|group| !group.frozen)
            .flat_map(|group| group.parameters.iter().map(|name| (name.clone(), group.rate)))
            .collect()
    }

    /// Tensors that must be the same bytes after the phase: frozen parameters, and buffers of fixed norms.
    pub fn fixed_tensors(&self) -> Vec<&str> {
        let frozen = self.groups.iter().filter(|group| group.frozen);
        frozen
            .flat_map(|group| {
                let buffers = if group.norms == Norms::Running { &group.buffers[..] } else { &[] };
                group.parameters.iter().chain(buffers)
            })
            .map(String::as_str)
            .collect()
    }

    /// How a training pass of this phase is run; `dropout_seed` names the step's masks.
    pub fn mode(&self, dropout_seed: u64) -> Mode {
        let norms = self.groups.iter().map(|group| match group.norms {
            Norms::Batch => NormMode::Batch,
            Norms::Running => NormMode::Running,
        });
        Mode { norms: norms.collect(), dropout_seed: Some(dropout_seed) }
    }
}

/// What is done with a network, and in which order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Kind of the options that gave it.
    pub kind: String,
    /// At least one.
    pub phases: Vec<Phase>,
}

/// Treatment of one stage before its tensors are known.
struct Treatment {
    start: Start,
    frozen: bool,
    rate: f64,
    norms: Norms,
}

impl Plan {
    /// What `options` mean for a network of these stages and tensors (those of the target).
    ///
    /// # Errors
    /// [`LearnError::UnknownStage`] with the nearest names; [`LearnError::Option`] for a rate, count or decay that
    /// makes no sense, or a rate for a stage that is frozen; [`LearnError::Homeless`] for a tensor of no stage.
    pub fn new(stages: &[Stage], tensors: &[TensorName], options: &PlanOptions) -> Result<Self, LearnError> {
        let count = stages.len();
        if count < 2 {
            return Err(LearnError::option(
                "network",
                format!("{count} stages"),
                "a head and a stage before it",
            ));
        }
        let mut homes = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            homes.push(stage_of(&tensor.name, stages)?);
        }
        let head = |start: HeadStart| match start {
            HeadStart::Auto => Start::KeptIfItFits,
            HeadStart::Kept => Start::Kept,
            HeadStart::Fresh => Start::Fresh,
        };
        let starts = |rest: Start, from: usize, head_start: HeadStart| -> Vec<Start> {
            (0..count)
                .map(|stage| match stage {
                    // A fresh rest includes the head unless it is kept by name.
                    _ if stage == count - 1 && rest == Start::Fresh && head_start == HeadStart::Auto => {
                        Start::Fresh
                    }
                    _ if stage == count - 1 => head(head_start),
                    _ if stage >= from => rest,
                    _ => Start::Kept,
                })
                .collect()
        };
        let phase = |name: &str, epochs: Option<u64>, treatments: Vec<Treatment>| Phase {
            name: name.to_owned(),
            epochs,
            groups: treatments
                .into_iter()
                .enumerate()
                .map(|(at, treatment)| group(&stages[at].name, treatment, at, tensors, &homes))
                .collect(),
        };
        let phases = match options {
            PlanOptions::Scratch {} => {
                let treatments = (0..count).map(|_| learning(Start::Fresh, 1.0)).collect();
                vec![phase("train", None, treatments)]
            }
            PlanOptions::FineTune { rates, head } => {
                let starts = starts(Start::Kept, 0, *head);
                let rates = stage_rates(stages, rates, 0)?;
                let treatments = starts.iter().zip(&rates).map(|(&start, &rate)| learning(start, rate));
                vec![phase("train", None, treatments.collect())]
            }
            PlanOptions::Frozen { through, rest, batch_norm, rates, head } => {
                let frozen = frozen_count(stages, through.as_ref())?;
                let rest = match rest {
                    Rest::Kept => Start::Kept,
                    Rest::Fresh => Start::Fresh,
                };
                let starts = starts(rest, frozen, *head);
                let rates = stage_rates(stages, rates, frozen)?;
                vec![phase("train", None, cut(&starts, &rates, frozen, *batch_norm))]
            }
            PlanOptions::Partial { stages: frozen, batch_norm, rates, head } => {
                check_count("plan.stages", *frozen, count)?;
                let starts = starts(Start::Kept, 0, *head);
                let rates = stage_rates(stages, rates, *frozen)?;
                vec![phase("train", None, cut(&starts, &rates, *frozen, *batch_norm))]
            }
            PlanOptions::ProbeThenFineTune { probe_epochs, probe_rate, batch_norm, rates, head } => {
                if *probe_epochs == 0 {
                    return Err(LearnError::option("plan.probe_epochs", 0, "1 or more"));
                }
                check_rate("plan.probe_rate", *probe_rate)?;
                let starts = starts(Start::Kept, 0, *head);
                let rates = stage_rates(stages, rates, 0)?;
                let probe = cut(&starts, &vec![*probe_rate; count], count - 1, *batch_norm);
                let all = starts.iter().zip(&rates).map(|(&start, &rate)| learning(start, rate)).collect();
                vec![phase("probe", Some(*probe_epochs), probe), phase("fine-tune", None, all)]
            }
            PlanOptions::LayerWiseDecay { decay, head } => {
                if !(*decay > 0.0 && *decay <= 1.0) {
                    return Err(LearnError::option("plan.decay", decay, "more than 0 and at most 1"));
                }
                let starts = starts(Start::Kept, 0, *head);
                let treatments = starts.iter().enumerate().map(|(stage, &start)| {
                    // Products, not `powi`: the same bits on every platform.
                    let rate = (stage + 1..count).fold(1.0, |rate, _| rate * decay);
                    learning(start, rate)
                });
                vec![phase("train", None, treatments.collect())]
            }
        };
        Ok(Self { kind: options.kind().to_owned(), phases })
    }

    /// Elements of all parameters.
    pub fn parameter_count(&self) -> usize {
        self.phases.first().map_or(0, |phase| phase.groups.iter().map(|group| group.parameter_count).sum())
    }

    /// Elements of the parameters that learn in any phase.
    pub fn trained_count(&self) -> usize {
        let groups = self.phases.first().map_or(0, |phase| phase.groups.len());
        (0..groups)
            .filter(|&at| self.phases.iter().any(|phase| !phase.groups[at].frozen))
            .map(|at| self.phases[0].groups[at].parameter_count)
            .sum()
    }

    /// Whether anything of a source is wanted.
    pub fn needs_source(&self) -> bool {
        self.phases.iter().any(|phase| phase.groups.iter().any(|group| group.start != Start::Fresh))
    }
}

fn learning(start: Start, rate: f64) -> Treatment {
    Treatment { start, frozen: false, rate, norms: Norms::Batch }
}

/// The first `frozen` stages frozen, the others learning.
fn cut(starts: &[Start], rates: &[f64], frozen: usize, norms: FrozenNorms) -> Vec<Treatment> {
    let norms = match norms {
        FrozenNorms::Fixed => Norms::Running,
        FrozenNorms::Update => Norms::Batch,
    };
    let treat = |(stage, (&start, &rate)): (usize, (&Start, &f64))| {
        if stage < frozen {
            Treatment { start, frozen: true, rate: 0.0, norms }
        } else {
            learning(start, rate)
        }
    };
    starts.iter().zip(rates).enumerate().map(treat).collect()
}

fn group(stage: &str, treatment: Treatment, at: usize, tensors: &[TensorName], homes: &[usize]) -> Group {
    let mine = |role: Role| {
        let pairs = tensors.iter().zip(homes);
        pairs.filter(move |(tensor, home)| **home == at && tensor.role == role).map(|(tensor, _)| tensor)
    };
    Group {
        stage: stage.to_owned(),
        start: treatment.start,
        frozen: treatment.frozen,
        rate: treatment.rate,
        norms: treatment.norms,
        parameters: mine(Role::Parameter).map(|tensor| tensor.name.clone()).collect(),
        buffers: mine(Role::Buffer).map(|tensor| tensor.name.clone()).collect(),
        parameter_count: mine(Role::Parameter).map(TensorName::elements).sum(),
    }
}

fn check_count(option: &str, frozen: usize, count: usize) -> Result<(), LearnError> {
    if frozen == 0 || frozen >= count {
        let expected = format!("1 to {}, so that something is frozen and something learns", count - 1);
        return Err(LearnError::option(option, frozen, expected));
    }
    Ok(())
}

fn check_rate(option: &str, rate: f64) -> Result<(), LearnError> {
    if rate.is_finite() && rate > 0.0 {
        return Ok(());
    }
    Err(LearnError::option(
        option,
        rate,
        "a finite number above 0 (freeze a stage with `frozen` or `partial`)",
    ))
}

fn frozen_count(stages: &[Stage], through: Option<&Cut>) -> Result<usize, LearnError> {
    let count = stages.len();
    let frozen = match through {
        None => match stages.iter().position(|stage| stage.name == "fusion") {
            Some(fusion) if fusion > 0 => fusion,
            _ => count - 1,
        },
        Some(Cut::Count(frozen)) => *frozen,
        Some(Cut::Name(name)) => match stages.iter().position(|stage| &stage.name == name) {
            Some(at) => at + 1,
            None => return Err(unknown("plan.through", name, stages)),
        },
    };
    check_count("plan.through", frozen, count)?;
    Ok(frozen)
}

fn unknown(option: &str, name: &str, stages: &[Stage]) -> LearnError {
    let names: Vec<String> = stages.iter().map(|stage| stage.name.clone()).collect();
    LearnError::UnknownStage {
        option: option.to_owned(),
        name: name.to_owned(),
        nearest: nearest(name, names.iter().map(String::as_str)),
        stages: names,
    }
}

/// Factor of every stage; those below `frozen` must not be named.
fn stage_rates(
    stages: &[Stage],
    rates: &BTreeMap<String, f64>,
    frozen: usize,
) -> Result<Vec<f64>, LearnError> {
    for (name, &rate) in rates {
        let option = format!("plan.rates.{name}");
        check_rate(&option, rate)?;
        let mut named = stages.iter().enumerate().filter(|(_, stage)| belongs(&stage.name, name)).peekable();
        if named.peek().is_none() {
            return Err(unknown(&option, name, stages));
        }
        if named.all(|(at, _)| at < frozen) {
            return Err(LearnError::option(option, rate, "no rate: this stage is frozen"));
        }
    }
    let rate = |stage: &Stage| {
        let fits = rates.iter().filter(|(name, _)| belongs(&stage.name, name));
        fits.max_by_key(|(name, _)| name.len()).map_or(1.0, |(_, &rate)| rate)
    };
    Ok(stages.iter().map(rate).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LundNet in small: names only.
    fn network() -> (Vec<Stage>, Vec<TensorName>) {
        let stages: Vec<Stage> = ["input", "edge_conv.0", "edge_conv.1", "fusion", "head"]
            .map(|name| Stage { name: name.into(), prefix: name.into() })
            .into();
        let mut tensors = Vec::new();
        for (stage, elements) in stages.iter().zip([5usize, 100, 200, 300, 40]) {
            let mut add = |part: &str, shape: Vec<usize>| {
                let name = format!("{}.{part}", stage.name);
                tensors.push(TensorName { role: Role::of(&name), name, shape });
            };
            add("weight", vec![elements, 2]);
            if stage.name != "head" {
                add("norm.running_mean", vec![elements]);
            }
        }
        (stages, tensors)
    }

    fn plan(options: &str) -> Result<Plan, LearnError> {
        let options: PlanOptions = serde_json::from_str(options).unwrap();
        let (stages, tensors) = network();
        Plan::new(&stages, &tensors, &options)
    }

    /// One line a stage: start, rate or frozen, norms.
    fn lines(options: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for phase in plan(options).unwrap().phases {
            let length = phase.epochs.map_or("rest".to_owned(), |epochs| epochs.to_string());
            lines.push(format!("{} {length} prefix {}", phase.name, phase.fixed_prefix()));
            for group in phase.groups {
                let rate = if group.frozen { "frozen".to_owned() } else { group.rate.to_string() };
                let name = |value| serde_json::to_string(&value).unwrap().trim_matches('"').to_owned();
                let start = name(serde_json::to_value(group.start).unwrap());
                let norms = name(serde_json::to_value(group.norms).unwrap());
                lines.push(format!("{} {start} {rate} {norms}", group.stage));
            }
        }
        lines
    }

    #[test]
    fn golden_plans() {
        assert_eq!(
            lines(r#"{"kind": "scratch"}"#),
            [
                "train rest prefix 0",
                "input fresh 1 batch",
                "edge_conv.0 fresh 1 batch",
                "edge_conv.1 fresh 1 batch",
                "fusion fresh 1 batch",
                "head fresh 1 batch"
            ]
        );
        assert_eq!(
            lines(
                r#"{"kind": "fine-tune", "rates": {"edge_conv": 0.1, "edge_conv.1": 0.5}, "head": "fresh"}"#
            ),
            [
                "train rest prefix 0",
                "input kept 1 batch",
                "edge_conv.0 kept 0.1 batch",
                "edge_conv.1 kept 0.5 batch",
                "fusion kept 1 batch",
                "head fresh 1 batch"
            ]
        );
        let frozen = [
            "train rest prefix 3",
            "input kept frozen running",
            "edge_conv.0 kept frozen running",
            "edge_conv.1 kept frozen running",
            "fusion kept 1 batch",
            "head kept-if-it-fits 1 batch",
        ];
        assert_eq!(lines(r#"{"kind": "frozen"}"#), frozen);
        assert_eq!(lines(r#"{"kind": "frozen", "through": "edge_conv.1"}"#), frozen);
        assert_eq!(lines(r#"{"kind": "frozen", "through": 3}"#), frozen);
        assert_eq!(lines(r#"{"kind": "partial", "stages": 3}"#), frozen);
        assert_eq!(
            lines(r#"{"kind": "frozen", "through": 2, "rest": "fresh", "batch_norm": "update"}"#),
            [
                "train rest prefix 0",
                "input kept frozen batch",
                "edge_conv.0 kept frozen batch",
                "edge_conv.1 fresh 1 batch",
                "fusion fresh 1 batch",
                "head fresh 1 batch"
            ]
        );
        assert_eq!(
            lines(
                r#"{"kind": "probe-then-fine-tune", "probe_epochs": 3, "probe_rate": 10, "rates": {"input": 0.5}}"#
            ),
            [
                "probe 3 prefix 4",
                "input kept frozen running",
                "edge_conv.0 kept frozen running",
                "edge_conv.1 kept frozen running",
                "fusion kept frozen running",
                "head kept-if-it-fits 10 batch",
                "fine-tune rest prefix 0",
                "input kept 0.5 batch",
                "edge_conv.0 kept 1 batch",
                "edge_conv.1 kept 1 batch",
                "fusion kept 1 batch",
                "head kept-if-it-fits 1 batch"
            ]
        );
        assert_eq!(
            lines(r#"{"kind": "layer-wise-decay", "decay": 0.5, "head": "kept"}"#),
            [
                "train rest prefix 0",
                "input kept 0.0625 batch",
                "edge_conv.0 kept 0.125 batch",
                "edge_conv.1 kept 0.25 batch",
                "fusion kept 0.5 batch",
                "head kept 1 batch"
            ]
        );
    }

    #[test]
    fn counts_rates_and_fixed_tensors_follow() {
        let frozen = plan(r#"{"kind": "frozen"}"#).unwrap();
        assert_eq!((frozen.parameter_count(), frozen.trained_count()), (1290, 680));
        assert_eq!(
            frozen.phases[0].rates().into_keys().collect::<Vec<_>>(),
            ["fusion.weight", "head.weight"]
        );
        assert_eq!(frozen.phases[0].fixed_tensors().len(), 6);
        let update = plan(r#"{"kind": "frozen", "batch_norm": "update"}"#).unwrap();
        // Parameters stay, running statistics move.
        assert_eq!(update.phases[0].fixed_tensors().len(), 3);
        assert_eq!(update.phases[0].fixed_prefix(), 0);
        let probe = plan(r#"{"kind": "probe-then-fine-tune", "probe_epochs": 1}"#).unwrap();
        assert_eq!((probe.phases[0].trained_count(), probe.trained_count()), (80, 1290));
        assert!(!plan(r#"{"kind": "scratch"}"#).unwrap().needs_source());
        assert_eq!(frozen.phases[0].mode(4).norms[2..4], [NormMode::Running, NormMode::Batch]);
    }

    #[test]
    fn a_network_without_fusion_freezes_all_but_its_head() {
        let stages: Vec<Stage> =
            ["a", "b", "head"].map(|name| Stage { name: name.into(), prefix: name.into() }).into();
        assert_eq!(frozen_count(&stages, None).unwrap(), 2);
    }

    #[test]
    fn faults_are_named_with_the_nearest_stage() {
        match plan(r#"{"kind": "frozen", "through": "edge_conf.1"}"#) {
            Err(LearnError::UnknownStage { option, nearest, .. }) => {
                assert_eq!(option, "plan.through");
                assert_eq!(nearest[0], "edge_conv.1");
            }
            other => panic!("{other:?}"),
        }
        for (options, option) in [
            (r#"{"kind": "fine-tune", "rates": {"head": 0}}"#, "plan.rates.head"),
            (r#"{"kind": "fine-tune", "rates": {"head": -1}}"#, "plan.rates.head"),
            (r#"{"kind": "frozen", "rates": {"input": 0.1}}"#, "plan.rates.input"),
            (r#"{"kind": "frozen", "through": 0}"#, "plan.through"),
            (r#"{"kind": "frozen", "through": "head"}"#, "plan.through"),
            (r#"{"kind": "partial", "stages": 5}"#, "plan.stages"),
            (r#"{"kind": "probe-then-fine-tune", "probe_epochs": 0}"#, "plan.probe_epochs"),
            (r#"{"kind": "layer-wise-decay", "decay": 1.5}"#, "plan.decay"),
        ] {
            match plan(options) {
                Err(LearnError::Option { option: found, .. }) => assert_eq!(found, option),
                other => panic!("{options}: {other:?}"),
            }
        }
        let (stages, mut tensors) = network();
        tensors.push(TensorName { name: "stray.weight".into(), shape: vec![1], role: Role::Parameter });
        assert!(matches!(
            Plan::new(&stages, &tensors, &PlanOptions::Scratch {}),
            Err(LearnError::Homeless { .. })
        ));
    }

    #[test]
    fn unknown_keys_are_refused_and_options_come_back() {
        for text in [
            r#"{"kind": "scratch", "rate": 1}"#,
            r#"{"kind": "frozen", "trough": 3}"#,
            r#"{"kind": "melt"}"#,
            r#"{"kind": "partial"}"#,
        ] {
            assert!(serde_json::from_str::<PlanOptions>(text).is_err(), "{text}");
        }
        let options = PlanOptions::Frozen {
            through: Some(Cut::Name("edge_conv.1".into())),
            rest: Rest::Fresh,
            batch_norm: FrozenNorms::Update,
            rates: BTreeMap::from([("head".into(), 2.0)]),
            head: HeadStart::Fresh,
        };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<PlanOptions>(&text).unwrap(), options);
    }
}
