//! From a task in a recipe to the jets of its parts: read, selected, shared out, turned into graphs, split. Every row
//! is accounted for, and no event is in two parts.

use std::path::PathBuf;
use std::sync::Arc;

use jetgraft_data::columns::Extras;
use jetgraft_data::jets::{ClassSpec, JetQuery, Jets, OnBad, load_jets};
use jetgraft_data::ledger::Ledger;
use jetgraft_data::manifest::Manifest;
use jetgraft_data::split::{Split, SplitRows, check_disjoint, partition};
use jetgraft_data::{GraphSet, InputSpec, Standardisation};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::LoadedRecipe;
use crate::recipe::schema::{ClassRecipe, JetsRecipe, TaskRecipe};

/// Salt of the hash that shares events out between tasks.
const SHARE_SALT: u64 = 1;
/// Salt of the hash that splits events into train, validation and test.
const SPLIT_SALT: u64 = 2;

/// A task in memory.
#[derive(Debug, Clone)]
pub struct Task {
    /// All jets of the task.
    pub graphs: Arc<GraphSet>,
    /// Rows of `graphs` in each part.
    pub rows: SplitRows,
    /// Background and signal.
    pub classes: [String; 2],
    /// What is written beside every result.
    pub record: TaskRecord,
}

/// What was read, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Files with digests.
    pub manifest: Manifest,
    /// Every row: used, or dropped for a reason.
    pub ledger: Ledger,
    /// Jets of each part and class.
    pub parts: Vec<PartCount>,
    /// Background and signal.
    pub classes: [String; 2],
    /// Jet definition.
    pub jets: JetsRecipe,
    /// What the network sees.
    pub input: String,
    /// Selection of jets, for the legend.
    pub selection: Option<String>,
    /// What a node is, in the plural.
    #[serde(default = "declusterings")]
    pub nodes: String,
    /// Mean nodes of a jet.
    pub mean_nodes: f64,
}

/// Nodes of tasks that were recorded before there were others.
fn declusterings() -> String {
    "declusterings".into()
}

/// Jets of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartCount {
    /// `train`, `validation` or `test`.
    pub part: String,
    /// Background jets.
    pub background: usize,
    /// Signal jets.
    pub signal: usize,
    /// Events they come from.
    pub events: usize,
}

impl Task {
    /// Centre and scale of the features, learnt on the training jets, where the input wants one.
    ///
    /// # Errors
    /// Training jets without any node.
    pub fn learn_scale(&self, input: &InputSpec) -> Result<Option<Standardisation>> {
        let learn = || Standardisation::fit(&self.graphs, &self.rows.train);
        Ok(if input.standardised() { Some(learn()?) } else { None })
    }

    /// Puts all jets on a scale.
    ///
    /// # Errors
    /// A scale of other features.
    pub fn rescale(&mut self, scale: Option<&Standardisation>) -> Result<()> {
        if let Some(scale) = scale {
            scale.apply(Arc::make_mut(&mut self.graphs))?;
        }
        Ok(())
    }
}

/// Reads a task. Features are those of the file: [`Task::rescale`] puts them on a network's scale.
///
/// # Errors
/// A file or column that is missing or damaged, a part without both classes, an event in two parts.
pub fn load(recipe: &LoadedRecipe, task: &TaskRecipe, input: &InputSpec) -> Result<Task> {
    let views = load_views(recipe, task, std::slice::from_ref(input))?;
    views.into_iter().next().ok_or_else(|| Error::ours("a task without a view"))
}

/// Reads a task once for several inputs. All views hold the same jets in the same order: a jet that one input cannot be
/// made of is left out of all.
///
/// # Errors
/// As [`load`].
pub fn load_views(recipe: &LoadedRecipe, task: &TaskRecipe, inputs: &[InputSpec]) -> Result<Vec<Task>> {
    let classes = [&task.background, &task.signal];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut specs = Vec::new();
    for file in &task.files {
        files.push(recipe.find(file)?);
    }
    for class in classes {
        let mut own = Vec::new();
        for file in &class.files {
            let path = recipe.find(file)?;
            if !files.contains(&path) {
                files.push(path.clone());
            }
            own.push(path);
        }
        specs.push(ClassSpec { name: class.name.clone(), when: class.when.clone(), files: own });
    }
    let query = JetQuery {
        columns: task.columns.clone(),
        selection: task.select.clone(),
        on_bad: task.on_bad,
        extras: inputs.iter().fold(Extras::default(), |extras, input| extras.or(input.extras())),
        ..JetQuery::new(files, specs)
    };
    let (jets, read, manifest) = load_jets(&query)?;
    let (jets, shared) = share(&jets, classes);
    let (views, made) = views(&jets, inputs, task.on_bad)?;
    let ledger = read.then(&shared)?.then(&made)?;
    let graphs = &views[0];
    let split = Split {
        train: task.split.train,
        validation: task.split.validation,
        test: task.split.test,
        salt: SPLIT_SALT,
    };
    let rows = split.rows(&graphs.event_id)?;
    let events = |rows: &[usize]| rows.iter().map(|row| graphs.event_id[*row]).collect::<Vec<u64>>();
    let (train, validation, test) = (events(&rows.train), events(&rows.validation), events(&rows.test));
    check_disjoint(&[("train", &train), ("validation", &validation), ("test", &test)])?;
    let names = classes.map(|class| class.name.clone());
    let mut parts = Vec::new();
    for (part, rows, events) in [
        ("train", &rows.train, train),
        ("validation", &rows.validation, validation),
        ("test", &rows.test, test),
    ] {
        let signal = rows.iter().filter(|row| graphs.label[**row] == 1).count();
        let background = rows.len() - signal;
        let wanted = part != "test" || task.split.test > 0.0;
        if wanted && (signal == 0 || background == 0) {
            return Err(Error::new(format!(
                "the {part} part has {background} {} and {signal} {} jets",
                names[0], names[1]
            ))
            .expected("jets of both classes")
            .detail("ledger", ledger.to_string())
            .hint("give more files, or a larger fraction in `split`"));
        }
        let mut events = events;
        events.sort_unstable();
        events.dedup();
        parts.push(PartCount { part: part.into(), background, signal, events: events.len() });
    }
    let record = |input: &InputSpec, graphs: &GraphSet| TaskRecord {
        manifest: manifest.clone(),
        ledger: ledger.clone(),
        parts: parts.clone(),
        classes: names.clone(),
        jets: task.jets.clone(),
        input: input.describe(),
        selection: task.select.clone(),
        nodes: input.nodes().into(),
        mean_nodes: graphs.node_offsets.last().copied().unwrap_or(0) as f64 / graphs.len().max(1) as f64,
    };
    Ok(inputs
        .iter()
        .zip(&views)
        .map(|(input, graphs)| Task {
            rows: rows.clone(),
            classes: names.clone(),
            record: record(input, graphs),
            graphs: graphs.clone(),
        })
        .collect())
}

/// The jets as each input reads them, and what became of those that an input cannot be made of.
fn views(jets: &Jets, inputs: &[InputSpec], on_bad: OnBad) -> Result<(Vec<Arc<GraphSet>>, Ledger)> {
    if let [input] = inputs {
        let (graphs, ledger) = input.graphs_with(jets, on_bad)?;
        return Ok((vec![Arc::new(graphs)], ledger));
    }
    let mut kept = vec![true; jets.len()];
    for input in inputs {
        let (graphs, _) = input.graphs_with(jets, on_bad)?;
        // Order is kept, so the graphs are a subsequence of the jets; jets of one event differ in momentum.
        let mut next = 0;
        for (row, kept) in kept.iter_mut().enumerate() {
            let same = next < graphs.len()
                && graphs.event_id[next] == jets.event_id[row]
                && graphs.jet_pt_gev[next] == jets.jet_pt_gev[row] as f32
                && graphs.jet_mass_gev[next] == jets.jet_mass_gev[row] as f32;
            if same {
                next += 1;
            } else {
                *kept = false;
            }
        }
        if next != graphs.len() {
            return Err(Error::ours("an input has changed the order of the jets"));
        }
    }
    let mut ledger = Ledger::default();
    let mut rows = Vec::with_capacity(jets.len());
    for (row, kept) in kept.into_iter().enumerate() {
        if kept {
            ledger.use_row();
            rows.push(row);
        } else {
            ledger.drop_row("jet that one of the inputs cannot be made of");
        }
    }
    let all;
    let jets = if rows.len() == jets.len() {
        jets
    } else {
        all = jets.select(&rows);
        &all
    };
    let graphs = |input: &InputSpec| Ok(Arc::new(input.graphs_with(jets, on_bad)?.0));
    Ok((inputs.iter().map(graphs).collect::<Result<_>>()?, ledger))
}

/// Keeps the jets whose event lies in their class's share.
fn share(jets: &Jets, classes: [&ClassRecipe; 2]) -> (Jets, Ledger) {
    let mut ledger = Ledger::default();
    let mut keep = Vec::new();
    for row in 0..jets.len() {
        let [low, high] = classes[jets.label[row] as usize].share;
        if partition(jets.event_id[row], SHARE_SALT, &[low, high - low, 1.0 - high]) == 1 {
            ledger.use_row();
            keep.push(row);
        } else {
            ledger.drop_row("event outside the share of its class");
        }
    }
    if keep.len() == jets.len() { (jets.clone(), ledger) } else { (jets.select(&keep), ledger) }
}

/// Refuses a source and a target that share events.
///
/// # Errors
/// Names an event that is in both, and says how to keep them apart.
pub fn check_apart(source: &Task, target: &Task) -> Result<()> {
    check_disjoint(&[("source", &source.graphs.event_id), ("target", &target.graphs.event_id)]).map_err(|error| {
        Error::from(error)
            .hint("give the class that both tasks use shares that do not overlap: share = [0.0, 0.4] and [0.4, 1.0]")
    })
}
