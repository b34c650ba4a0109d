//! A study: one source, then plans x target sizes x seeds as independent cells, then the summary.
//!
//! How the cells are done is [`jetgraft_learn::study`]'s business: several processes can share a study, an interrupted one goes
//! on where it was, a cell looks at the test jets once, and the cells of one seed share their subset and the seed of their
//! initial weights, so that plans are compared in pairs. Here a finished cell becomes a run folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use jetgraft_data::lund_graphs::LundInput;
use jetgraft_data::writer::Scores;
use jetgraft_learn::LearnError;
use jetgraft_learn::checkpoint::{CheckpointEvery, Checkpoints};
use jetgraft_learn::graft::GraftAllow;
use jetgraft_learn::observer::{Observer, Outline, Signal, StepEvent};
use jetgraft_learn::plan::PlanOptions;
use jetgraft_learn::record::Record;
use jetgraft_learn::seeds::derive;
use jetgraft_learn::snapshot;
use jetgraft_learn::study::{
    Cell, CellIdentity, CellRecord, CellResult, CellStore, Study, StudyData, StudyObserver, StudyOptions,
    StudyPlan,
};
use jetgraft_learn::trainer::{Job, TrainOptions, Trained, train};
use jetgraft_nn::registry::AnyBackbone;

use crate::args::PlaceArgs;
use crate::cmd::train::{CHECKPOINT_STEPS, forget, planned_jets, recipes};
use crate::error::{Error, Result};
use crate::network::{self, Network};
use crate::progress::Progress;
use crate::recipe::LoadedRecipe;
use crate::recipe::schema::{NamedPlan, StudyRecipe};
use crate::run_dir::{self, Run, RunRecord, from_json, to_json};
use crate::study_folder::{self, CELL, CELLS, SOURCE, SourceRecord, StudyRecord, cell_name};
use crate::task::{self, Task};
use crate::training::{self, Shown};
use crate::{analysis, device, study_tables};

/// Everything that the cells share.
struct Bench<'a> {
    loaded: &'a LoadedRecipe,
    recipe: &'a StudyRecipe,
    input: LundInput,
    target: Task,
    options: StudyOptions,
    data: StudyData,
    /// Whether seeds share training jets, in words.
    subsets: String,
    source: Network,
    device: Device,
    machine: String,
    out: PathBuf,
}

/// Runs or finishes a study in `out`.
///
/// # Errors
/// A fault of the data or the source; a cell that another process holds and does not finish.
pub fn run(
    loaded: &LoadedRecipe,
    recipe: &StudyRecipe,
    place: &PlaceArgs,
    out: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let began = Instant::now();
    let device = device::choose(place)?;
    let input = recipe.input.lund();
    let target = task::load(loaded, &recipe.target, &input)?;
    progress.words(&format!("target jets: {}", target.record.ledger));
    let source_task = match &recipe.source.task {
        Some(task) => Some(task::load(loaded, task, &input)?),
        None => None,
    };
    if let Some(source) = &source_task {
        progress.words(&format!("source jets: {}", source.record.ledger));
        task::check_apart(source, &target)?;
    }
    let data = StudyData {
        pool: training::part(&target, &target.rows.train),
        validation: training::part(&target, &target.rows.validation),
        test: training::part(&target, &target.rows.test),
    };
    let options = options(recipe);
    // Drawn here too, so that impossible sizes are refused before the source is trained.
    let subsets = options.subsets(&data.pool)?.describe();
    progress.words(&format!("subsets: {subsets}"));
    let planned = planned_source(recipe, source_task.as_ref());
    progress.start(&recipe.name, planned + planned_cells(recipe), "jets");
    let machine = training::machine(&place.device);
    let source = source(loaded, recipe, source_task.as_ref(), &device, &machine, out, progress)?;
    source.card.check_input(&input)?;
    let out = out.to_path_buf();
    let bench = Bench { loaded, recipe, input, target, options, data, subsets, source, device, machine, out };
    let runs = bench.run_cells(progress, planned)?;
    progress.finish(&format!("{runs} runs in {:.0} s", began.elapsed().as_secs_f64()));
    summarise(&bench, source_task.as_ref(), began.elapsed().as_secs_f64())
}

/// The matrix as the library takes it.
fn options(recipe: &StudyRecipe) -> StudyOptions {
    let plan = |named: &NamedPlan| StudyPlan {
        name: named.name.clone(),
        plan: named.plan.clone(),
        view: 0,
        train: recipe.train.clone(),
    };
    StudyOptions {
        seed: recipe.seed,
        sizes: recipe.study.sizes.clone(),
        seeds: recipe.study.seeds,
        plans: recipe.study.plans.iter().map(plan).collect(),
        allow: GraftAllow::default(),
    }
}

fn planned_source(recipe: &StudyRecipe, task: Option<&Task>) -> u64 {
    match (&recipe.source.train, task) {
        (Some(options), Some(task)) => planned_jets(options, task.rows.train.len()),
        _ => 0,
    }
}

fn planned_cells(recipe: &StudyRecipe) -> u64 {
    let sizes: u64 = recipe.study.sizes.iter().map(|size| planned_jets(&recipe.train, *size)).sum();
    sizes * recipe.study.seeds as u64 * recipe.study.plans.len() as u64
}

/// The source: read, imported or trained; in the study's folder it is a run like any other.
fn source(
    loaded: &LoadedRecipe,
    recipe: &StudyRecipe,
    task: Option<&Task>,
    device: &Device,
    machine: &str,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Network> {
    let folder = out.join(SOURCE);
    if folder.exists() {
        return network::from_run(&folder);
    }
    // Where several processes begin a study together, one makes the source and the others wait for it.
    std::fs::create_dir_all(out)?;
    let lock_path = out.join(format!("{SOURCE}.lock"));
    let lock = File::create(&lock_path)?;
    lock.lock()?;
    if !folder.exists() {
        snapshot::sweep_beside(&folder)?;
        make_source(loaded, recipe, task, device, machine, out, progress)?;
    }
    // Only for tidiness: whoever still gets this lock finds the source.
    let _ = std::fs::remove_file(&lock_path);
    network::from_run(&folder)
}

fn make_source(
    loaded: &LoadedRecipe,
    recipe: &StudyRecipe,
    task: Option<&Task>,
    device: &Device,
    machine: &str,
    out: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let folder = out.join(SOURCE);
    if let Some(run) = &recipe.source.run {
        let mut run = run_dir::read(run)?;
        // Its predictions belong to its own task and stay where they are.
        run.record.task = None;
        return training::write_run(&folder, &run, None, &[]);
    }
    if let Some(weights) = &recipe.source.weights {
        let classes = ["background".to_string(), "signal".to_string()];
        let imported = network::import(&loaded.find(&weights.file)?, &weights.network, &classes)?;
        progress.words(&format!("source: {} ({})", imported.network.card.name, imported.layout));
        let run = Run {
            record: RunRecord {
                plan: "import".into(),
                parameters: imported.report.parameters,
                ..blank_record(&imported.network.card.name, recipe.seed, machine)
            },
            card: imported.network.card,
            weights: imported.network.weights,
            log: Vec::new(),
            graft: Some(imported.report),
            folder: PathBuf::new(),
        };
        return training::write_run(&folder, &run, None, &[]);
    }
    let (Some(options), Some(task)) = (&recipe.source.train, task) else {
        return Err(Error::ours("a study without a source passed the checks"));
    };
    let seed = derive(recipe.seed, "source weights", &[]);
    let input = recipe.input.lund();
    let start = training::start(&recipe.model, &input, None, &PlanOptions::Scratch {}, seed, device)?;
    let options = TrainOptions { seed: derive(recipe.seed, "source training", &[]), ..options.clone() };
    let name = format!("{}-source", recipe.name);
    let card =
        training::card(&name, &start.model, &input, task, None, &PlanOptions::Scratch {}, recipe.seed)?;
    let checkpoints = Checkpoints {
        folder: out.join(format!("{SOURCE}.{}", run_dir::CHECKPOINTS)),
        every: CHECKPOINT_EVERY,
        resume: true,
    };
    let jets = training::part(task, &task.rows.train);
    let size = jets.len();
    let trained = train(
        Job {
            model: start.model,
            plan: &start.plan,
            training: jets,
            validation: training::part(task, &task.rows.validation),
            options: &options,
            device,
            cache_bytes: training::CACHE_BYTES,
            shelf: None,
            checkpoints: Some(&checkpoints),
        },
        &mut Shown::new(progress, format!("source {}", task.classes[1]), 0),
    )?;
    let run = Run {
        record: RunRecord {
            plan: "scratch".into(),
            size,
            task: Some(task.record.clone()),
            ..trained_record(&trained, &name, recipe.seed, machine)
        },
        card,
        weights: jetgraft_nn::state::state(&trained.model),
        log: trained.log,
        graft: Some(start.report),
        folder: PathBuf::new(),
    };
    training::write_run(&folder, &run, None, &[])?;
    forget(&checkpoints.folder)
}

fn blank_record(name: &str, seed: u64, machine: &str) -> RunRecord {
    RunRecord {
        format: run_dir::FORMAT.into(),
        version: run_dir::version(),
        name: name.into(),
        title: name.into(),
        plan: String::new(),
        size: 0,
        seed,
        task: None,
        chosen: None,
        end: None,
        steps: 0,
        seconds: 0.0,
        cpu_seconds: None,
        trained_parameters: 0,
        parameters: 0,
        machine: machine.into(),
    }
}

fn trained_record(trained: &Trained<AnyBackbone>, name: &str, seed: u64, machine: &str) -> RunRecord {
    RunRecord {
        chosen: Some(trained.chosen.clone()),
        end: Some(trained.end),
        steps: trained.steps,
        seconds: trained.seconds,
        cpu_seconds: trained.cpu_seconds,
        trained_parameters: trained.trained_parameters,
        parameters: trained.parameters,
        ..blank_record(name, seed, machine)
    }
}

/// Checkpoints by steps only: the epochs of a small target are too short.
const CHECKPOINT_EVERY: CheckpointEvery = CheckpointEvery { steps: Some(CHECKPOINT_STEPS), epochs: None };

impl Bench<'_> {
    /// Does all cells that are not there yet, and tells how many there are.
    fn run_cells(&self, progress: &dyn Progress, done: u64) -> Result<usize> {
        let sizes = network::card_config(&self.source.card)?;
        let network = |plan: &StudyPlan, seed: u64| {
            let config = training::config(&self.recipe.model, &self.input, Some(&sizes), &plan.plan);
            config.build(seed, &self.device)
        };
        let outcome = Study {
            options: &self.options,
            views: std::slice::from_ref(&self.data),
            source: Some(&self.source.weights),
            network: &network,
            device: &self.device,
            store: self,
            checkpoints: CHECKPOINT_EVERY,
            cache_bytes: training::CACHE_BYTES,
        }
        .run(&mut Bar {
            progress,
            train: &self.recipe.train,
            done,
            cell: Shown::new(progress, "", done),
        })?;
        match outcome.pending.first() {
            None => Ok(outcome.done.len()),
            Some(cell) => Err(Error::new(format!("another process still works on {cell}"))
                .hint("all other runs are done: wait for it, then collect with --resume")),
        }
    }

    fn cell_run(&self, result: &CellResult<AnyBackbone>) -> Result<Run> {
        let CellRecord { cell, weights_seed, .. } = &result.record;
        let name = cell_name(&cell.plan, cell.size, cell.seed);
        let Some(plan) = self.options.plans.iter().find(|plan| plan.name == cell.plan) else {
            return Err(Error::ours(format!("a cell of no plan: {cell}")));
        };
        let model = &result.trained.model;
        let card = training::card(
            &name,
            model,
            &self.input,
            &self.target,
            Some(&self.source),
            &plan.plan,
            *weights_seed,
        )?;
        Ok(Run {
            record: RunRecord {
                title: format!("{}: {cell}", self.recipe.title),
                plan: cell.plan.clone(),
                size: cell.size,
                ..trained_record(&result.trained, &name, *weights_seed, &self.machine)
            },
            card,
            weights: jetgraft_nn::state::state(model),
            log: result.trained.log.clone(),
            graft: Some(result.graft.clone()),
            folder: PathBuf::new(),
        })
    }
}

/// A finished cell is a run folder like any other, with [`CELL`] in it.
impl CellStore<AnyBackbone> for Bench<'_> {
    fn folder(&self, cell: &Cell) -> PathBuf {
        self.out.join(CELLS).join(cell_name(&cell.plan, cell.size, cell.seed))
    }

    fn finished(&self, cell: &Cell) -> std::result::Result<Option<CellIdentity>, LearnError> {
        let folder = self.folder(cell);
        if !folder.exists() {
            return Ok(None);
        }
        let files = snapshot::read(&folder)?;
        let path = folder.join(CELL);
        let record: Result<CellRecord> = match files.get(CELL) {
            Some(text) => from_json(&path, text),
            None => Err(Error::new(format!("{} has no file `{CELL}`", folder.display())).hint(
                "it was written by another version of jetgraft, or is no cell of a study: take it away",
            )),
        };
        Ok(Some(record.map_err(in_store)?.identity))
    }

    fn write(&self, result: &CellResult<AnyBackbone>) -> std::result::Result<(), LearnError> {
        let write = || {
            let run = self.cell_run(result)?;
            let predictions = training::scores(result.test.clone(), &self.data.test, &self.target.classes);
            let cell = to_json(&result.record)?;
            training::write_run(&self.folder(&result.record.cell), &run, Some(&predictions), &[(CELL, cell)])
        };
        write().map_err(in_store)
    }
}

fn in_store(error: Error) -> LearnError {
    LearnError::Store(Box::new(error))
}

/// One bar over all cells.
struct Bar<'a> {
    progress: &'a dyn Progress,
    train: &'a TrainOptions,
    /// Jets planned for what is done.
    done: u64,
    /// The cell at work.
    cell: Shown<'a>,
}

impl Observer for Bar<'_> {
    fn started(&mut self, outline: &Outline) {
        self.cell.started(outline);
    }

    fn step(&mut self, event: &StepEvent<'_>) -> Signal {
        self.cell.step(event)
    }

    fn evaluated(&mut self, record: &Record) {
        self.cell.evaluated(record);
    }
}

impl StudyObserver for Bar<'_> {
    fn cell(&mut self, cell: &Cell) {
        self.cell = Shown::new(self.progress, cell.to_string(), self.done);
    }

    fn finished(&mut self, cell: &Cell, _: bool) {
        self.done += planned_jets(self.train, cell.size);
        self.progress.advance(self.done, &format!("{cell} done"));
    }
}

/// Writes the summary: facts, table, CSV files, Lund planes, the untuned source's scores.
fn summarise(bench: &Bench<'_>, source_task: Option<&Task>, seconds: f64) -> Result<()> {
    let recipe = bench.recipe;
    let summary = bench.out.join(study_folder::SUMMARY);
    if summary.exists() {
        return Ok(());
    }
    let source_run = run_dir::read(&bench.out.join(SOURCE))?;
    let untuned = untuned_scores(bench)?;
    let plans: Vec<String> = recipe.study.plans.iter().map(|named| named.name.clone()).collect();
    let Some(scratch) = recipe.study.plans.iter().find(|named| !named.plan.needs_source()) else {
        return Err(Error::ours("a study without a scratch plan passed the checks"));
    };
    let description = match (source_task, network::published_of(&source_run.card)) {
        (Some(task), _) => {
            format!(
                "LundNet-{} learnt on {} against {}",
                bench.input.features.len(),
                task.classes[1],
                task.classes[0]
            )
        }
        (None, Some(known)) => format!("published weights {}", known.name),
        (None, None) => source_run.card.name.clone(),
    };
    let chosen = source_run.record.chosen.as_ref();
    let mut record = StudyRecord {
        format: study_folder::FORMAT.into(),
        version: run_dir::version(),
        name: recipe.name.clone(),
        title: recipe.title.clone(),
        data_label: recipe.data_label.clone(),
        seed: recipe.seed,
        plans,
        scratch: scratch.name.clone(),
        sizes: recipe.study.sizes.clone(),
        seeds: recipe.study.seeds,
        subsets: bench.subsets.clone(),
        statistics: recipe.statistics,
        source: SourceRecord {
            description,
            task: source_task.map(|task| task.record.clone()),
            weights_blake3: source_run.card.weights.clone(),
            validation_auc: chosen.and_then(|chosen| chosen.validation.auc),
            seconds: source_run.record.seconds,
            cpu_seconds: source_run.record.cpu_seconds.unwrap_or(0.0),
        },
        target: bench.target.record.clone(),
        machine: bench.machine.clone(),
        seconds,
        table: analysis::StudyTable {
            level: recipe.statistics.level,
            test_jets: [0, 0],
            rows: Vec::new(),
            plans: Vec::new(),
        },
    };
    let cells = study_folder::read_cells(&bench.out, &record)?;
    record.table = analysis::study_table(
        &cells.cells,
        &cells.labels,
        &record.plans,
        &record.scratch,
        &record.sizes,
        &record.statistics,
        record.seed,
    )?;
    let mut extra = recipes(bench.loaded)?;
    extra.push((study_folder::RECORD, run_dir::to_json(&record)?));
    extra.push((study_folder::LUND_PLANE, run_dir::to_json(&study_tables::lund_planes(&bench.target)?)?));
    extra.push(("table.csv", study_tables::table_csv(&record.table)));
    extra.push(("cells.csv", study_tables::cells_csv(&cells)?));
    extra.push(("history.csv", study_tables::history_csv(&bench.out, &record)?));
    extra.push(("roc.csv", study_tables::roc_csv(&cells)?));
    if let Some(scores) = untuned {
        extra.push((study_folder::SOURCE_SCORES, training::score_bytes(&summary, &scores)?));
    }
    let files = extra.into_iter().map(|(name, content)| (name.to_string(), content)).collect();
    snapshot::write(&summary, &files)?;
    Ok(())
}

/// Scores of the source on the target's test jets before any training on the target: the floor. None if its head does
/// not have two classes.
fn untuned_scores(bench: &Bench<'_>) -> Result<Option<Scores>> {
    if bench.source.card.classes.len() != bench.target.classes.len() {
        return Ok(None);
    }
    let model = network::build(&bench.source, &bench.device)?;
    Ok(Some(training::score(&model, &bench.data.test, &bench.target.classes, &bench.device)?))
}
