//! A study: one source, then plans x target sizes x seeds as independent cells, then the summary.
//!
//! Each cell is a run folder that is whole or absent, and is claimed by a lock that the system gives back when its process
//! ends: several processes can share a study, and an interrupted one goes on where it was. All cells share the validation
//! and the test jets; a cell looks at the test jets once, with the weights that validation chose. The cells of one seed share
//! their subset and the seed of their initial weights, whatever the plan, so that plans are compared in pairs.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use jetgraft_data::lund_graphs::{GraphSet, LundInput};
use jetgraft_data::subset::{Subsets, subsets};
use jetgraft_data::writer::Scores;
use jetgraft_learn::checkpoint::{CheckpointEvery, Checkpoints};
use jetgraft_learn::plan::PlanOptions;
use jetgraft_learn::seeds::derive;
use jetgraft_learn::snapshot;
use jetgraft_learn::trainer::{Job, TrainOptions, train};

use crate::args::PlaceArgs;
use crate::cmd::train::{CHECKPOINT_STEPS, forget, planned_jets, recipes};
use crate::error::{Error, Result};
use crate::network::{self, Network};
use crate::progress::Progress;
use crate::recipe::LoadedRecipe;
use crate::recipe::schema::{NamedPlan, StudyRecipe};
use crate::run_dir::{self, Run, RunRecord};
use crate::study_folder::{self, CELLS, SOURCE, SourceRecord, StudyRecord, cell_name};
use crate::task::{self, Task};
use crate::training::{self, Shown, Start};
use crate::{analysis, device, study_tables};

/// Everything that the cells share.
struct Bench<'a> {
    loaded: &'a LoadedRecipe,
    recipe: &'a StudyRecipe,
    input: LundInput,
    target: Task,
    subsets: Subsets,
    validation: Arc<GraphSet>,
    test: Arc<GraphSet>,
    source: Network,
    device: Device,
    device_name: String,
    out: PathBuf,
    progress: &'a dyn Progress,
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
    let training = target.graphs.select(&target.rows.train);
    let subsets = subsets(
        &training.label,
        &training.event_id,
        &recipe.study.sizes,
        recipe.study.seeds,
        derive(recipe.seed, "subsets", &[]),
    )?;
    progress.words(&format!("subsets: {}", subsets.describe()));
    let planned = planned_source(recipe, source_task.as_ref()) + planned_cells(recipe);
    progress.start(&recipe.name, planned, "jets");
    let source = source(loaded, recipe, source_task.as_ref(), &device, place, out, progress)?;
    source.card.check_input(&input)?;
    let bench = Bench {
        loaded,
        recipe,
        input,
        validation: training::part(&target, &target.rows.validation),
        test: training::part(&target, &target.rows.test),
        target,
        subsets,
        source,
        device,
        device_name: place.device.clone(),
        out: out.to_path_buf(),
        progress,
    };
    cells(&bench, planned_source(recipe, source_task.as_ref()))?;
    progress.finish(&format!("{} runs in {:.0} s", bench.recipe.study.seeds * recipe.study.sizes.len() * recipe.study.plans.len(), began.elapsed().as_secs_f64()));
    summarise(&bench, source_task.as_ref(), began.elapsed().as_secs_f64())
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
    place: &PlaceArgs,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Network> {
    let folder = out.join(SOURCE);
    if folder.exists() {
        return network::from_run(&folder);
    }
    if let Some(run) = &recipe.source.run {
        let mut run = run_dir::read(run)?;
        // Its predictions belong to its own task and stay where they are.
        run.record.task = None;
        training::write_run(&folder, &run, None, &[])?;
        return network::from_run(&folder);
    }
    if let Some(weights) = &recipe.source.weights {
        let classes = ["background".to_string(), "signal".to_string()];
        let imported = network::import(&loaded.find(&weights.file)?, &weights.network, &classes)?;
        progress.words(&format!("source: {} ({})", imported.network.card.name, imported.layout));
        let run = Run {
            record: RunRecord {
                plan: "import".into(),
                parameters: imported.report.parameters,
                ..blank_record(&imported.network.card.name, recipe.seed, place)
            },
            card: imported.network.card,
            weights: imported.network.weights,
            log: Vec::new(),
            graft: Some(imported.report),
            folder: PathBuf::new(),
        };
        training::write_run(&folder, &run, None, &[])?;
        return network::from_run(&folder);
    }
    let (Some(options), Some(task)) = (&recipe.source.train, task) else {
        return Err(Error::ours("a study without a source passed the checks"));
    };
    let seed = derive(recipe.seed, "source weights", &[]);
    let input = recipe.input.lund();
    let start = training::start(&recipe.model, &input, None, &PlanOptions::Scratch {}, seed, device)?;
    let options = TrainOptions { seed: derive(recipe.seed, "source training", &[]), ..options.clone() };
    let name = format!("{}-source", recipe.name);
    let card = training::card(&name, &start.model, &input, task, None, &PlanOptions::Scratch {}, recipe.seed)?;
    let checkpoints = checkpoints(out.join(format!("{SOURCE}.{}", run_dir::CHECKPOINTS)));
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
            checkpoints: Some(&checkpoints),
        },
        &mut Shown::new(progress, format!("source {}", task.classes[1]), 0),
    )?;
    let run = Run {
        record: RunRecord {
            plan: "scratch".into(),
            size,
            task: Some(task.record.clone()),
            chosen: Some(trained.chosen.clone()),
            end: Some(trained.end),
            steps: trained.steps,
            seconds: trained.seconds,
            cpu_seconds: trained.cpu_seconds,
            trained_parameters: trained.trained_parameters,
            parameters: trained.parameters,
            ..blank_record(&name, recipe.seed, place)
        },
        card,
        weights: jetgraft_nn::state::state(&trained.model),
        log: trained.log,
        graft: Some(start.report),
        folder: PathBuf::new(),
    };
    training::write_run(&folder, &run, None, &[])?;
    forget(&checkpoints.folder)?;
    network::from_run(&folder)
}

fn blank_record(name: &str, seed: u64, place: &PlaceArgs) -> RunRecord {
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
        machine: training::machine(&place.device),
    }
}

fn checkpoints(folder: PathBuf) -> Checkpoints {
    Checkpoints { folder, every: CheckpointEvery { steps: Some(CHECKPOINT_STEPS), epochs: None }, resume: true }
}

/// Runs all cells that are not there yet. A cell that another process holds is left to it, and looked at again at the end.
fn cells(bench: &Bench<'_>, mut done: u64) -> Result<()> {
    let matrix = &bench.recipe.study;
    let mut left = Vec::new();
    for seed in 0..matrix.seeds {
        for &size in &matrix.sizes {
            for plan in &matrix.plans {
                if !cell(bench, plan, size, seed, done)? {
                    left.push((plan, size, seed));
                }
                done += planned_jets(&bench.recipe.train, size);
                bench.progress.advance(done, &format!("{} with {size} jets, seed {} done", plan.name, seed + 1));
            }
        }
    }
    for (plan, size, seed) in left {
        // The other process may have died since: then its lock is free and the cell is ours.
        if !cell(bench, plan, size, seed, done)? {
            return Err(Error::new(format!("another process still works on {}", cell_name(&plan.name, size, seed)))
                .hint("all other runs are done: wait for it, then collect with --resume"));
        }
    }
    Ok(())
}

/// Runs one cell; false if another process holds it.
fn cell(bench: &Bench<'_>, plan: &NamedPlan, size: usize, seed: usize, done: u64) -> Result<bool> {
    let name = cell_name(&plan.name, size, seed);
    let cells = bench.out.join(CELLS);
    let folder = cells.join(&name);
    if folder.exists() {
        return Ok(true);
    }
    std::fs::create_dir_all(&cells).map_err(|error| Error::new(format!("{}: {error}", cells.display())))?;
    let lock_path = cells.join(format!("{name}.lock"));
    let lock = File::create(&lock_path).map_err(|error| Error::new(format!("{}: {error}", lock_path.display())))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(Error::new(format!("{}: {error}", lock_path.display()))),
    }
    if !folder.exists() {
        run_cell(bench, plan, size, seed, done, &folder)?;
    }
    // Only tidiness: a lock file without a lock is nothing.
    let _ = std::fs::remove_file(&lock_path);
    Ok(true)
}

fn run_cell(bench: &Bench<'_>, plan: &NamedPlan, size: usize, seed: usize, done: u64, folder: &Path) -> Result<()> {
    let recipe = bench.recipe;
    let index = [seed as u64];
    let weights_seed = derive(recipe.seed, "initial weights", &index);
    let Start { model, plan: steps, report } = training::start(
        &recipe.model,
        &bench.input,
        Some(&bench.source),
        &plan.plan,
        weights_seed,
        &bench.device,
    )?;
    let rows: Vec<usize> = bench.subsets.rows(seed, size).iter().map(|row| bench.target.rows.train[*row]).collect();
    let options = TrainOptions { seed: derive(recipe.seed, "training", &index), ..recipe.train.clone() };
    let name = cell_name(&plan.name, size, seed);
    let card = training::card(
        &name,
        &model,
        &bench.input,
        &bench.target,
        Some(&bench.source),
        &plan.plan,
        weights_seed,
    )?;
    let checkpoints = checkpoints(folder.with_file_name(format!("{name}.{}", run_dir::CHECKPOINTS)));
    let trained = train(
        Job {
            model,
            plan: &steps,
            training: training::part(&bench.target, &rows),
            validation: bench.validation.clone(),
            options: &options,
            device: &bench.device,
            cache_bytes: training::CACHE_BYTES,
            checkpoints: Some(&checkpoints),
        },
        &mut Shown::new(bench.progress, format!("{} with {size} jets, seed {}", plan.name, seed + 1), done),
    )?;
    let predictions = training::score(&trained.model, &bench.test, &bench.target.classes, &bench.device)?;
    let place = PlaceArgs { device: bench.device_name.clone(), threads: None };
    let run = Run {
        record: RunRecord {
            title: format!("{}: {} with {size} jets, seed {}", recipe.title, plan.name, seed + 1),
            plan: plan.name.clone(),
            size,
            chosen: Some(trained.chosen.clone()),
            end: Some(trained.end),
            steps: trained.steps,
            seconds: trained.seconds,
            cpu_seconds: trained.cpu_seconds,
            trained_parameters: trained.trained_parameters,
            parameters: trained.parameters,
            ..blank_record(&name, weights_seed, &place)
        },
        card,
        weights: jetgraft_nn::state::state(&trained.model),
        log: trained.log,
        graft: Some(report),
        folder: PathBuf::new(),
    };
    training::write_run(folder, &run, Some(&predictions), &[])?;
    forget(&checkpoints.folder)?;
    Ok(())
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
            format!("LundNet-{} learnt on {} against {}", bench.input.features.len(), task.classes[1], task.classes[0])
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
        subsets: bench.subsets.describe(),
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
        machine: training::machine(&bench.device_name),
        seconds,
        table: analysis::StudyTable { level: recipe.statistics.level, test_jets: [0, 0], rows: Vec::new(), plans: Vec::new() },
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
    Ok(Some(training::score(&model, &bench.test, &bench.target.classes, &bench.device)?))
}
