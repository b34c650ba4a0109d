//! A study: one source, then plans x target sizes x seeds as independent cells, then the summary.
//!
//! How the cells are done is [`jetgraft_learn::study`]'s business: several processes can share a study, an interrupted one goes
//! on where it was, a cell looks at the test jets once, and the cells of one seed share their subset and the seed of their
//! initial weights, so that plans are compared in pairs. Here a finished cell becomes a run folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use jetgraft_data::writer::Scores;
use jetgraft_data::{InputSpec, Standardisation};
use jetgraft_learn::LearnError;
use jetgraft_learn::card::InputCard;
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
use crate::recipe::schema::{NamedPlan, SourceRecipe, StudyRecipe};
use crate::run_dir::{self, Run, RunRecord, from_json, to_json};
use crate::study_folder::{self, CELL, CELLS, SOURCE, SourceRecord, StudyRecord, cell_name};
use crate::task::{self, Task, TaskRecord};
use crate::training::{self, Shown};
use crate::{analysis, device, study_tables};

/// Everything that the cells share.
struct Bench<'a> {
    loaded: &'a LoadedRecipe,
    recipe: &'a StudyRecipe,
    /// What networks read, and the target's jets so; the first is the study's own input.
    inputs: Vec<InputCard>,
    targets: Vec<Task>,
    views: Vec<StudyData>,
    options: StudyOptions,
    /// Whether seeds share training jets, in words.
    subsets: String,
    source: Option<Network>,
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
    let specs = inputs(recipe);
    let input = &specs[0];
    let targets = task::load_views(loaded, &recipe.target, &specs)?;
    progress.words(&format!("target jets: {}", targets[0].record.ledger));
    let source_recipe = recipe.source.as_ref();
    let mut source_task = match source_recipe.and_then(|source| source.task.as_ref()) {
        Some(task) => Some(task::load(loaded, task, input)?),
        None => None,
    };
    if let Some(source) = &source_task {
        progress.words(&format!("source jets: {}", source.record.ledger));
        task::check_apart(source, &targets[0])?;
    }
    let mut scale = None;
    if let Some(source) = &mut source_task {
        scale = source.learn_scale(input)?;
        source.rescale(scale.as_ref())?;
    }
    let mut views: Vec<StudyData> = targets
        .iter()
        .map(|target| StudyData {
            pool: training::part(target, &target.rows.train),
            validation: training::part(target, &target.rows.validation),
            test: training::part(target, &target.rows.test),
        })
        .collect();
    let options = options(recipe, &specs);
    // Drawn here too, so that impossible sizes are refused before the source is trained.
    let subsets = options.subsets(&views[0].pool)?.describe();
    progress.words(&format!("subsets: {subsets}"));
    let planned = planned_source(recipe, source_task.as_ref());
    progress.start(&recipe.name, planned + planned_cells(recipe), "jets");
    let machine = training::machine(&place.device);
    let source = match source_recipe {
        Some(from) => {
            let input_card = InputCard::new(input.clone(), scale);
            let made = SourceTask { from, task: source_task.as_ref(), input: input_card };
            let source = source(loaded, recipe, &made, &device, &machine, out, progress)?;
            source.card.check_input(input)?;
            Some(source)
        }
        None => None,
    };
    // All plans share the source's scale, scratch too: they differ in what they keep of the network, not in what they
    // read. Other inputs, and all inputs of a study without a source, learn theirs on the target's training jets.
    let mut cards = Vec::new();
    for (at, ((spec, target), view)) in specs.iter().zip(&targets).zip(&mut views).enumerate() {
        let scale = match &source {
            Some(source) if at == 0 => source.card.input.standardisation.clone(),
            _ => target.learn_scale(spec)?,
        };
        put_on_scale(scale.as_ref(), view)?;
        cards.push(InputCard::new(spec.clone(), scale));
    }
    let out = out.to_path_buf();
    let bench = Bench {
        loaded,
        recipe,
        inputs: cards,
        targets,
        views,
        options,
        subsets,
        source,
        device,
        machine,
        out,
    };
    let runs = bench.run_cells(progress, planned)?;
    progress.finish(&format!("{runs} runs in {:.0} s", began.elapsed().as_secs_f64()));
    summarise(&bench, source_task.as_ref(), began.elapsed().as_secs_f64())
}

/// The different inputs of a study; the first is its own, which the reference reads.
fn inputs(recipe: &StudyRecipe) -> Vec<InputSpec> {
    let mut specs = vec![recipe.input.spec()];
    for plan in &recipe.study.plans {
        let spec = recipe.input_of(plan).spec();
        if !specs.contains(&spec) {
            specs.push(spec);
        }
    }
    specs
}

/// The task that a source is trained on, if it is trained here, and what the source then reads.
struct SourceTask<'a> {
    /// Where it comes from.
    from: &'a SourceRecipe,
    task: Option<&'a Task>,
    input: InputCard,
}

fn put_on_scale(scale: Option<&Standardisation>, data: &mut StudyData) -> Result<()> {
    if let Some(scale) = scale {
        for part in [&mut data.pool, &mut data.validation, &mut data.test] {
            scale.apply(Arc::make_mut(part))?;
        }
    }
    Ok(())
}

/// The matrix as the library takes it.
fn options(recipe: &StudyRecipe, specs: &[InputSpec]) -> StudyOptions {
    let plan = |named: &NamedPlan| {
        let spec = recipe.input_of(named).spec();
        StudyPlan {
            name: named.name.clone(),
            plan: named.plan.clone(),
            view: specs.iter().position(|known| *known == spec).unwrap_or(0),
            train: recipe.train_of(named),
        }
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
    match (recipe.source.as_ref().and_then(|source| source.train.as_ref()), task) {
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
    task: &SourceTask<'_>,
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
    task: &SourceTask<'_>,
    device: &Device,
    machine: &str,
    out: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let folder = out.join(SOURCE);
    if let Some(run) = &task.from.run {
        let mut run = run_dir::read(run)?;
        // Its predictions belong to its own task and stay where they are.
        run.record.task = None;
        return training::write_run(&folder, &run, None, &[]);
    }
    if let Some(weights) = &task.from.weights {
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
    let SourceTask { from, task: Some(task), input } = task else {
        return Err(Error::ours("a study without a source passed the checks"));
    };
    let Some(options) = &from.train else {
        return Err(Error::ours("a source without training options passed the checks"));
    };
    let seed = derive(recipe.seed, "source weights", &[]);
    let start = training::start(&recipe.model, &input.spec, None, &PlanOptions::Scratch {}, seed, device)?;
    let options = TrainOptions { seed: derive(recipe.seed, "source training", &[]), ..options.clone() };
    let name = format!("{}-source", recipe.name);
    let card = training::card(&name, &start.model, input, task, None, &PlanOptions::Scratch {}, recipe.seed)?;
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
        let sizes = self.source.as_ref().map(|source| network::card_config(&source.card)).transpose()?;
        let network = |plan: &StudyPlan, seed: u64| {
            let model = match self.named(&plan.name) {
                Some(named) => self.recipe.model_of(named),
                None => &self.recipe.model,
            };
            let config = training::config(model, &self.inputs[plan.view].spec, sizes.as_ref(), &plan.plan);
            config.build(seed, &self.device)
        };
        let outcome = Study {
            options: &self.options,
            views: &self.views,
            source: self.source.as_ref().map(|source| &source.weights),
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

    fn named(&self, name: &str) -> Option<&NamedPlan> {
        self.recipe.study.plans.iter().find(|named| named.name == name)
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
            &self.inputs[plan.view],
            &self.targets[plan.view],
            self.source.as_ref(),
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
            let classes = &self.targets[0].classes;
            let predictions = training::scores(result.test.clone(), &self.views[0].test, classes);
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
    let untuned = untuned_scores(bench)?;
    let plans: Vec<String> = recipe.study.plans.iter().map(|named| named.name.clone()).collect();
    let Some(scratch) = recipe.reference() else {
        return Err(Error::ours("a study without a scratch plan passed the checks"));
    };
    let source = match &bench.source {
        Some(_) => Some(source_record(bench, source_task)?),
        None => None,
    };
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
        source,
        target: TaskRecord {
            input: bench.inputs.iter().map(|input| input.spec.describe()).collect::<Vec<_>>().join("; or "),
            ..bench.targets[0].record.clone()
        },
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
    // Only a tree of declusterings has a Lund plane.
    if let Some(at) = bench.inputs.iter().position(|input| input.spec.has_edges()) {
        let planes = study_tables::lund_planes(&bench.targets[at])?;
        extra.push((study_folder::LUND_PLANE, run_dir::to_json(&planes)?));
    }
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
    let Some(source) = &bench.source else { return Ok(None) };
    let classes = &bench.targets[0].classes;
    if source.card.classes.len() != classes.len() {
        return Ok(None);
    }
    let model = network::build(source, &bench.device)?;
    Ok(Some(training::score(&model, &bench.views[0].test, classes, &bench.device)?))
}

/// Where the source came from and what it cost.
fn source_record(bench: &Bench<'_>, task: Option<&Task>) -> Result<SourceRecord> {
    let run = run_dir::read(&bench.out.join(SOURCE))?;
    let description = match (task, network::published_of(&run.card)) {
        (Some(task), _) => {
            let network = bench.recipe.model.title(&bench.inputs[0].spec);
            format!("{network} learnt on {} against {}", task.classes[1], task.classes[0])
        }
        (None, Some(known)) => format!("published weights {}", known.name),
        (None, None) => run.card.name.clone(),
    };
    Ok(SourceRecord {
        description,
        task: task.map(|task| task.record.clone()),
        weights_blake3: run.card.weights.clone(),
        validation_auc: run.record.chosen.as_ref().and_then(|chosen| chosen.validation.auc),
        seconds: run.record.seconds,
        cpu_seconds: run.record.cpu_seconds.unwrap_or(0.0),
    })
}
