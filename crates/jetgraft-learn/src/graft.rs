//! What came over from the source, what did not, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jetgraft_data::nearest;
use jetgraft_nn::state::{NamedTensor, Role, State};
use serde::{Deserialize, Serialize};

use crate::error::LearnError;
use crate::plan::{Group, Plan, Start};

/// Which mismatches a recipe accepts. What is accepted starts from fresh values and stays in the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GraftAllow {
    /// Tensors that the plan wants from the source and the source does not have.
    pub missing: bool,
    /// Tensors of the source that the target has no place for.
    pub unused: bool,
    /// Tensors of another shape.
    pub mis_shaped: bool,
}

/// Where a tensor of the target has its values from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// From the source.
    Kept,
    /// Fresh, as planned.
    Fresh,
    /// Fresh, because the source does not have it.
    Missing,
    /// Fresh, because the source has it in another shape.
    MisShaped,
}

/// One tensor of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Its shape in the target.
    pub shape: Vec<usize>,
    /// Parameter or buffer.
    pub role: Role,
    /// Where its values are from.
    pub fate: Fate,
    /// Its shape in the source, where it has one of this name.
    pub source_shape: Option<Vec<usize>>,
    /// For a missing tensor: closest names among those of the source that found no place, best first.
    pub nearest: Vec<String>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageReport {
    /// Its name.
    pub stage: String,
    /// Elements of its parameters.
    pub parameters: usize,
    /// Those from the source.
    pub kept: usize,
    /// Those that are fresh, planned or not.
    pub fresh: usize,
    /// Per phase: factor on the learning rate, `None` where frozen.
    pub rates: Vec<Option<f64>>,
    /// Why a stage that could have been kept is fresh.
    pub note: Option<String>,
    /// Its tensors.
    pub tensors: Vec<TensorReport>,
}

/// A tensor of the source without a place in the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnusedTensor {
    /// Its name in the source.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Closest names among the target's that the source does not have, best first.
    pub nearest: Vec<String>,
}

/// The outcome of a graft; its `Display` is the table that is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraftReport {
    /// Kind of the plan.
    pub plan: String,
    /// Names of the plan's phases.
    pub phases: Vec<String>,
    /// From input to output.
    pub stages: Vec<StageReport>,
    /// Tensors of the source that were left behind as planned (a fresh head's).
    pub skipped: Vec<String>,
    /// Tensors of the source that the target has no place for.
    pub unused: Vec<UnusedTensor>,
    /// Which mismatches were allowed.
    pub allow: GraftAllow,
    /// Whether the plan wanted anything of a source.
    pub needs_source: bool,
    /// Elements of the parameters that learn in any phase.
    pub trained_parameters: usize,
    /// Elements of all parameters.
    pub parameters: usize,
}

/// Puts the values of `source` into `target` (a freshly drawn state of the network that will be trained) as the
/// plan says.
///
/// # Errors
/// [`LearnError::Graft`] with the whole report when nothing matches, or when a tensor is missing, unused or
/// mis-shaped and neither the plan explains it nor `allow` accepts it.
pub fn graft(
    source: &State,
    target: &State,
    plan: &Plan,
    allow: &GraftAllow,
) -> Result<(State, GraftReport), LearnError> {
    let mut grafted = target.clone();
    let mut report = GraftReport {
        plan: plan.kind.clone(),
        phases: plan.phases.iter().map(|phase| phase.name.clone()).collect(),
        stages: Vec::new(),
        skipped: Vec::new(),
        unused: Vec::new(),
        allow: *allow,
        needs_source: plan.needs_source(),
        trained_parameters: plan.trained_count(),
        parameters: plan.parameter_count(),
    };
    let homeless: Vec<&str> =
        source.keys().map(String::as_str).filter(|name| !target.contains_key(*name)).collect();
    let groups = plan.phases.first().map_or(&[][..], |phase| &phase.groups);
    let mut left_behind = BTreeSet::new();
    for (at, group) in groups.iter().enumerate() {
        let names: Vec<&String> = group.parameters.iter().chain(&group.buffers).collect();
        let note = match group.start {
            Start::Kept => None,
            Start::KeptIfItFits => why_fresh(group, &names, source, target),
            Start::Fresh => Some("fresh as planned".to_owned()),
        };
        let fresh = note.is_some();
        let mut stage = StageReport {
            stage: group.stage.clone(),
            parameters: group.parameter_count,
            kept: 0,
            fresh: 0,
            rates: plan.phases.iter().map(|phase| rate(&phase.groups[at])).collect(),
            note: note.filter(|_| group.start == Start::KeptIfItFits),
            tensors: Vec::new(),
        };
        for name in names {
            let Some(place) = grafted.get_mut(name) else {
                return Err(LearnError::Homeless { name: name.clone(), stages: stage_names(groups) });
            };
            let found = source.get(name);
            let fate = match found {
                _ if fresh => Fate::Fresh,
                None => Fate::Missing,
                Some(tensor) if tensor.shape != place.shape => Fate::MisShaped,
                Some(tensor) => {
                    place.values.clone_from(&tensor.values);
                    Fate::Kept
                }
            };
            if fresh && found.is_some() {
                left_behind.insert(name.clone());
            }
            if place.role == Role::Parameter {
                let elements = place.shape.iter().product::<usize>();
                if fate == Fate::Kept { stage.kept += elements } else { stage.fresh += elements }
            }
            stage.tensors.push(TensorReport {
                name: name.clone(),
                shape: place.shape.clone(),
                role: place.role,
                fate,
                source_shape: found.map(|tensor| tensor.shape.clone()),
                nearest: if fate == Fate::Missing {
                    nearest(name, homeless.iter().copied())
                } else {
                    Vec::new()
                },
            });
        }
        report.stages.push(stage);
    }
    if report.needs_source {
        let missing: Vec<&str> =
            target.keys().map(String::as_str).filter(|name| !source.contains_key(*name)).collect();
        // A source head with a layer more is explained by the fresh head.
        let fresh_stages: Vec<&str> = report
            .stages
            .iter()
            .filter(|stage| stage.tensors.iter().all(|tensor| tensor.fate == Fate::Fresh))
            .map(|stage| stage.stage.as_str())
            .collect();
        for name in homeless {
            if fresh_stages.iter().any(|stage| crate::names::belongs(name, stage)) {
                left_behind.insert(name.to_owned());
                continue;
            }
            report.unused.push(UnusedTensor {
                name: name.to_owned(),
                shape: source[name].shape.clone(),
                nearest: nearest(name, missing.iter().copied()),
            });
        }
    }
    report.skipped = left_behind.into_iter().collect();
    if report.faults().is_empty() {
        Ok((grafted, report))
    } else {
        Err(LearnError::Graft { report: Box::new(report) })
    }
}

/// The report of a network that starts from nothing.
///
/// # Errors
/// As [`graft`]: a plan that wants a source finds nothing.
pub fn ungrafted(target: &State, plan: &Plan) -> Result<(State, GraftReport), LearnError> {
    graft(&BTreeMap::new(), target, plan, &GraftAllow::default())
}

fn stage_names(groups: &[Group]) -> Vec<String> {
    groups.iter().map(|group| group.stage.clone()).collect()
}

fn rate(group: &Group) -> Option<f64> {
    (!group.frozen).then_some(group.rate)
}

/// Why a stage cannot be kept as a whole, if so.
fn why_fresh(group: &Group, names: &[&String], source: &State, target: &State) -> Option<String> {
    let shape = |state: &State, name: &str| state.get(name).map(|tensor: &NamedTensor| tensor.shape.clone());
    names.iter().find_map(|name| match (shape(source, name), shape(target, name)) {
        (None, _) => Some(format!("fresh: the source has no `{name}`")),
        (Some(found), Some(wanted)) if found != wanted => Some(format!(
            "fresh: `{name}` has shape {found:?} in the source and {wanted:?} here, as with another number of classes \
             or sizes of `{}`",
            group.stage
        )),
        _ => None,
    })
}

impl GraftReport {
    /// Elements of the parameters that came from the source.
    pub fn kept_parameters(&self) -> usize {
        self.stages.iter().map(|stage| stage.kept).sum()
    }

    /// Elements of the parameters that are fresh.
    pub fn fresh_parameters(&self) -> usize {
        self.stages.iter().map(|stage| stage.fresh).sum()
    }

    fn with(&self, fate: Fate) -> impl Iterator<Item = &TensorReport> {
        self.stages.iter().flat_map(|stage| &stage.tensors).filter(move |tensor| tensor.fate == fate)
    }

    /// Tensors that the plan wants and the source does not have.
    pub fn missing(&self) -> Vec<&TensorReport> {
        self.with(Fate::Missing).collect()
    }

    /// Tensors that have another shape in the source.
    pub fn mis_shaped(&self) -> Vec<&TensorReport> {
        self.with(Fate::MisShaped).collect()
    }

    /// What makes this graft an error, one sentence each; empty when it may go ahead.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.needs_source && self.with(Fate::Kept).next().is_none() {
            faults.push("no tensor of the source has a place in this network".to_owned());
        }
        let (missing, mis_shaped) = (self.missing(), self.mis_shaped());
        if let (Some(first), false) = (missing.first(), self.allow.missing) {
            faults.push(format!(
                "{} missing in the source (first `{}`{})",
                missing.len(),
                first.name,
                like(&first.nearest)
            ));
        }
        if let (Some(first), false) = (mis_shaped.first(), self.allow.mis_shaped) {
            let source = first.source_shape.as_deref().unwrap_or_default();
            faults.push(format!(
                "{} of another shape (first `{}`: {source:?} in the source, {:?} here)",
                mis_shaped.len(),
                first.name,
                first.shape
            ));
        }
        if let (Some(first), false) = (self.unused.first(), self.allow.unused) {
            faults.push(format!(
                "{} unused of the source (first `{}`{})",
                self.unused.len(),
                first.name,
                like(&first.nearest)
            ));
        }
        faults
    }

    /// What to do about its faults.
    pub fn hint(&self) -> String {
        if self.with(Fate::Kept).next().is_none() {
            return "the source is a file of another network: compare its card with the recipe".into();
        }
        "check that source and target are the same network; to go ahead with fresh values there, set `missing`, \
         `unused` or `mis_shaped` under [graft.allow]"
            .into()
    }
}

fn like(nearest: &[String]) -> String {
    nearest.first().map_or_else(String::new, |name| format!(", nearest `{name}`"))
}

/// `391724` as `391,724`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for GraftReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![vec!["stage".into(), "parameters".into(), "kept".into(), "fresh".into()]];
        rows[0].extend(self.phases.iter().map(|phase| format!("rate ({phase})")));
        for stage in &self.stages {
            let mut row = vec![
                stage.stage.clone(),
                grouped(stage.parameters),
                grouped(stage.kept),
                grouped(stage.fresh),
            ];
            row.extend(
                stage.rates.iter().map(|rate| rate.map_or("frozen".into(), |rate| format!("x {rate}"))),
            );
            rows.push(row);
        }
        let mut total = vec![
            "all".to_owned(),
            grouped(self.parameters),
            grouped(self.kept_parameters()),
            grouped(self.fresh_parameters()),
        ];
        total.extend(self.phases.iter().enumerate().map(|(phase, _)| {
            let learning = self.stages.iter().filter(|stage| stage.rates[phase].is_some());
            format!("{} learn", grouped(learning.map(|stage| stage.parameters).sum()))
        }));
        rows.push(total);
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        writeln!(out, "graft: {}", self.plan)?;
        for row in &rows {
            let mut line = format!("  {:<width$}", row[0], width = widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                line.push_str(&format!("  {cell:>width$}"));
            }
            writeln!(out, "{line}")?;
        }
        for stage in &self.stages {
            if let Some(note) = &stage.note {
                writeln!(out, "  {}: {note}", stage.stage)?;
            }
        }
        if !self.skipped.is_empty() {
            writeln!(out, "  left behind as planned: {}", shortened(&self.skipped))?;
        }
        for tensor in self.missing() {
            writeln!(
                out,
                "  missing in the source: {} {:?}{}",
                tensor.name,
                tensor.shape,
                like(&tensor.nearest)
            )?;
        }
        for tensor in self.mis_shaped() {
            let source = tensor.source_shape.as_deref().unwrap_or_default();
            writeln!(
                out,
                "  other shape: {} is {source:?} in the source, {:?} here",
                tensor.name, tensor.shape
            )?;
        }
        for tensor in &self.unused {
            writeln!(out, "  unused: {} {:?}{}", tensor.name, tensor.shape, like(&tensor.nearest))?;
        }
        Ok(())
    }
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::names_of;
    use crate::plan::PlanOptions;
    use jetgraft_nn::contract::Stage;

    fn stages() -> Vec<Stage> {
        ["input", "body", "head"].map(|name| Stage { name: name.into(), prefix: name.into() }).into()
    }

    fn network(value: f32, classes: usize) -> State {
        let tensor = |name: &str, shape: &[usize]| {
            let count = shape.iter().product();
            let tensor =
                NamedTensor { shape: shape.to_vec(), values: vec![value; count], role: Role::of(name) };
            (name.to_owned(), tensor)
        };
        State::from([
            tensor("input.running_mean", &[3]),
            tensor("body.weight", &[3, 400]),
            tensor("body.bias", &[400]),
            tensor("head.weight", &[400, classes]),
        ])
    }

    fn run(options: &str, source: &State, allow: GraftAllow) -> Result<(State, GraftReport), LearnError> {
        let target = network(0.0, 2);
        let options: PlanOptions = serde_json::from_str(options).unwrap();
        let plan = Plan::new(&stages(), &names_of(&target), &options).unwrap();
        graft(source, &target, &plan, &allow)
    }

    fn faults(result: Result<(State, GraftReport), LearnError>) -> Vec<String> {
        match result {
            Err(LearnError::Graft { report }) => report.faults(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_fits_and_the_table_reads_well() {
        let (state, report) = run(r#"{"kind": "frozen"}"#, &network(1.0, 2), GraftAllow::default()).unwrap();
        assert!(state.values().all(|tensor| tensor.values.iter().all(|&value| value == 1.0)));
        assert_eq!((report.kept_parameters(), report.fresh_parameters()), (2400, 0));
        assert_eq!(
            report.to_string(),
            "graft: frozen\n  \
             stage  parameters   kept  fresh  rate (train)\n  \
             input           0      0      0        frozen\n  \
             body        1,600  1,600      0        frozen\n  \
             head          800    800      0           x 1\n  \
             all         2,400  2,400      0     800 learn\n"
        );
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<GraftReport>(&text).unwrap(), report);
    }

    #[test]
    fn a_head_of_other_classes_is_fresh_and_explained() {
        let (state, report) =
            run(r#"{"kind": "fine-tune"}"#, &network(1.0, 3), GraftAllow::default()).unwrap();
        assert_eq!(state["head.weight"].values, vec![0.0; 800]);
        assert_eq!(state["body.bias"].values, vec![1.0; 400]);
        assert!(report.stages[2].note.as_ref().unwrap().contains("[400, 3] in the source and [400, 2] here"));
        assert_eq!(report.skipped, ["head.weight"]);
        let mut deeper = network(1.0, 2);
        let extra = deeper["head.weight"].clone();
        deeper.insert("head.extra".into(), extra);
        let (_, report) =
            run(r#"{"kind": "fine-tune", "head": "fresh"}"#, &deeper, GraftAllow::default()).unwrap();
        assert_eq!(report.skipped, ["head.extra", "head.weight"]);
        // A head that must be kept is not quietly replaced.
        let found =
            faults(run(r#"{"kind": "fine-tune", "head": "kept"}"#, &network(1.0, 3), GraftAllow::default()));
        assert!(found[0].contains("1 of another shape (first `head.weight`"), "{found:?}");
    }

    #[test]
    fn mismatches_are_errors_unless_allowed() {
        let mut source = network(1.0, 2);
        let bias = source.remove("body.bias").unwrap();
        source.insert("body.bais".into(), bias);
        source.get_mut("body.weight").unwrap().shape = vec![400, 3];
        let found = faults(run(r#"{"kind": "fine-tune"}"#, &source, GraftAllow::default()));
        assert_eq!(
            found,
            [
                "1 missing in the source (first `body.bias`, nearest `body.bais`)",
                "1 of another shape (first `body.weight`: [400, 3] in the source, [3, 400] here)",
                "1 unused of the source (first `body.bais`, nearest `body.bias`)"
            ]
        );
        let allow = GraftAllow { missing: true, unused: true, mis_shaped: true };
        let (state, report) = run(r#"{"kind": "fine-tune"}"#, &source, allow).unwrap();
        assert_eq!(state["body.weight"].values[0], 0.0);
        assert_eq!(state["head.weight"].values[0], 1.0);
        let text = report.to_string();
        for line in
            ["missing in the source: body.bias [400]", "other shape: body.weight", "unused: body.bais"]
        {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn nothing_in_common_is_an_error_even_if_all_is_allowed() {
        let source: State =
            network(1.0, 2).into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect();
        let allow = GraftAllow { missing: true, unused: true, mis_shaped: true };
        let found = faults(run(r#"{"kind": "fine-tune"}"#, &source, allow));
        assert_eq!(found, ["no tensor of the source has a place in this network"]);
    }

    #[test]
    fn scratch_needs_no_source() {
        let target = network(0.5, 2);
        let plan = Plan::new(&stages(), &names_of(&target), &PlanOptions::Scratch {}).unwrap();
        let (state, report) = ungrafted(&target, &plan).unwrap();
        assert_eq!(state, target);
        assert_eq!(report.kept_parameters(), 0);
    }
}
