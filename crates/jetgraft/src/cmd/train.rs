//! `jetgraft train`.

use std::path::{Path, PathBuf};

use jetgraft_learn::card::InputCard;
use jetgraft_learn::checkpoint::{CheckpointEvery, Checkpoints, newest};
use jetgraft_learn::plan::PlanOptions;
use jetgraft_learn::seeds::derive;
use jetgraft_learn::snapshot;
use jetgraft_learn::trainer::{Job, Span, TrainOptions, train};

use crate::args::{PlaceArgs, RunArgs};
use crate::cmd::evaluate::{self, Evaluation};
use crate::error::{Error, Result};
use crate::network::{self, Network};
use crate::progress::Progress;
use crate::recipe::schema::{NetworkFile, TrainRecipe};
use crate::recipe::{LoadedRecipe, Recipe};
use crate::run_dir::{self, Run, RunRecord};
use crate::training::{self, Shown};
use crate::{device, task};

/// Trains one network and writes its run folder.
///
/// # Errors
/// A fault of the recipe, its data or its source; a folder that holds another run.
pub fn run(args: &RunArgs, progress: &dyn Progress) -> Result<String> {
    let mut changes = args.set.clone();
    changes.extend(args.seed.map(|seed| format!("seed={seed}")));
    let loaded = LoadedRecipe::load(&args.recipe, &changes)?;
    let Recipe::Train(recipe) = &loaded.recipe else {
        return Err(Error::new(format!("recipe `{}` is a study", loaded.name))
            .hint(format!("run it with `jetgraft study {}`", args.recipe)));
    };
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&recipe.name));
    let folder = out.join(run_dir::RUN);
    prepare(&out, &loaded, args.resume, &folder)?;
    if !folder.exists() {
        train_into(&loaded, recipe, &args.place, &out, &folder, progress)?;
    } else {
        progress.words("finished before; nothing to do");
        // A process killed at the very end leaves them.
        forget(&out.join(run_dir::CHECKPOINTS))?;
    }
    let evaluation = evaluate::evaluate(&run_dir::read(&folder)?.folder.join(run_dir::PREDICTIONS), None)?;
    progress.words(&format!("run folder: {}", out.display()));
    if args.json {
        super::json(&evaluation)
    } else {
        Ok(evaluate::show(&[Evaluation { file: "test".into(), ..evaluation }]))
    }
}

/// Makes the folder of a run and writes the recipe into it, or checks that what is there is the same run.
///
/// # Errors
/// A folder in use without `resume`, or with another recipe. A folder that holds a recipe only is not in use: what was
/// refused for its data, say, can be started again.
pub fn prepare(out: &Path, loaded: &LoadedRecipe, resume: bool, finished: &Path) -> Result<()> {
    let resolved_path = out.join(run_dir::RECIPE_RESOLVED);
    let resolved = loaded.resolved()?;
    if finished.exists() || (resolved_path.exists() && holds_work(out)) {
        if !resume {
            return Err(Error::new(format!("{} holds a run already", out.display()))
                .hint("go on with it by --resume, or give another folder with --out"));
        }
        let found = std::fs::read_to_string(&resolved_path)
            .map_err(|error| Error::new(format!("{}: {error}", resolved_path.display())))?;
        if found != resolved {
            let (line, (was, is)) = first_difference(&found, &resolved);
            return Err(Error::new(format!("{} is a run of another recipe", out.display()))
                .found(format!("line {line}: {was}"))
                .expected(is)
                .hint("resume with the same recipe and --set, or give another folder with --out"));
        }
        return Ok(());
    }
    jetgraft_data::atomic::write_bytes(&out.join(run_dir::RECIPE), loaded.text.as_bytes())?;
    jetgraft_data::atomic::write_bytes(&resolved_path, resolved.as_bytes())?;
    Ok(())
}

/// Whether a folder holds more than the recipe of a run that was refused before its first result.
fn holds_work(out: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(out) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        !hidden && name != run_dir::RECIPE && name != run_dir::RECIPE_RESOLVED
    })
}

fn first_difference(a: &str, b: &str) -> (usize, (String, String)) {
    let (mut a, mut b) = (a.lines(), b.lines());
    let mut line = 0;
    loop {
        line += 1;
        match (a.next(), b.next()) {
            (None, None) => return (line, (String::new(), String::new())),
            (x, y) if x == y => {}
            (x, y) => return (line, (x.unwrap_or("(end)").into(), y.unwrap_or("(end)").into())),
        }
    }
}

fn source(loaded: &LoadedRecipe, source: &NetworkFile, progress: &dyn Progress) -> Result<Network> {
    match (&source.run, &source.weights) {
        (Some(run), _) => network::from_run(run),
        (None, Some(weights)) => {
            let classes = ["background".to_string(), "signal".to_string()];
            let imported = network::import(&loaded.find(&weights.file)?, &weights.network, &classes)?;
            progress.words(&format!("source: {}", imported.network.card.name));
            Ok(imported.network)
        }
        (None, None) => Err(Error::ours("a source without run and weights passed the checks")),
    }
}

fn train_into(
    loaded: &LoadedRecipe,
    recipe: &TrainRecipe,
    place: &PlaceArgs,
    out: &Path,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let device = device::choose(place)?;
    let input = recipe.input.spec();
    let mut task = task::load(loaded, &recipe.task, &input)?;
    progress.words(&format!("jets: {}", task.record.ledger));
    let source = match &recipe.source {
        Some(file) => Some(source(loaded, file, progress)?),
        None => None,
    };
    if let Some(source) = &source {
        source.card.check_input(&input)?;
    }
    let plan = recipe.plan.clone().unwrap_or(PlanOptions::Scratch {});
    // What is kept of a source knows jets on its scale only.
    let scale = match &source {
        Some(source) if plan.needs_source() => source.card.input.standardisation.clone(),
        _ => task.learn_scale(&input)?,
    };
    task.rescale(scale.as_ref())?;
    let seed = derive(recipe.seed, "initial weights", &[]);
    let start = training::start(&recipe.model, &input, source.as_ref(), &plan, seed, &device)?;
    progress.words(start.report.to_string().trim_end());
    let options = TrainOptions { seed: derive(recipe.seed, "training", &[]), ..recipe.train.clone() };
    let input = InputCard::new(input, scale);
    let card =
        training::card(&recipe.name, &start.model, &input, &task, source.as_ref(), &plan, recipe.seed)?;
    let checkpoints = Checkpoints {
        folder: out.join(run_dir::CHECKPOINTS),
        every: CheckpointEvery { steps: Some(CHECKPOINT_STEPS), epochs: Some(1) },
        resume: true,
    };
    let (training_jets, validation) =
        (training::part(&task, &task.rows.train), training::part(&task, &task.rows.validation));
    progress.start(&recipe.name, planned_jets(&options, training_jets.len()), "jets");
    let trained = train(
        Job {
            model: start.model,
            plan: &start.plan,
            training: training_jets.clone(),
            validation,
            options: &options,
            device: &device,
            cache_bytes: training::CACHE_BYTES,
            shelf: None,
            checkpoints: Some(&checkpoints),
        },
        &mut Shown::new(progress, "training", 0),
    )
    .map_err(|error| with_kept_weights(error.into(), &checkpoints.folder))?;
    progress.finish(&format!(
        "trained {} steps in {:.1} s; weights of step {} chosen (epoch {:.1}), validation loss {:.4}",
        trained.steps,
        trained.seconds,
        trained.chosen.step,
        trained.chosen.epoch,
        trained.chosen.validation.loss
    ));
    let test = training::part(
        &task,
        if task.rows.test.is_empty() { &task.rows.validation } else { &task.rows.test },
    );
    let predictions = training::score(&trained.model, &test, &task.classes, &device)?;
    let run = Run {
        record: RunRecord {
            format: run_dir::FORMAT.into(),
            version: run_dir::version(),
            name: recipe.name.clone(),
            title: recipe.title.clone(),
            plan: plan.kind().into(),
            size: training_jets.len(),
            seed: recipe.seed,
            task: Some(task.record.clone()),
            chosen: Some(trained.chosen.clone()),
            end: Some(trained.end),
            steps: trained.steps,
            seconds: trained.seconds,
            cpu_seconds: trained.cpu_seconds,
            trained_parameters: trained.trained_parameters,
            parameters: trained.parameters,
            machine: training::machine(&place.device),
        },
        card,
        weights: jetgraft_nn::state::state(&trained.model),
        log: trained.log,
        graft: Some(start.report),
        folder: PathBuf::new(),
    };
    training::write_run(folder, &run, Some(&predictions), &recipes(loaded)?)?;
    // The run folder holds all that counts now.
    forget(&checkpoints.folder)?;
    Ok(())
}

/// Says where the weights from before a fault are.
fn with_kept_weights(error: Error, checkpoints: &Path) -> Error {
    match newest(checkpoints) {
        Ok(Some(folder)) => error.detail("kept", format!("weights from before it: {}", folder.display())),
        _ => error,
    }
}

/// Steps between checkpoints.
pub const CHECKPOINT_STEPS: u64 = 200;

/// Removes the checkpoints of a finished run; a short run has none.
///
/// # Errors
/// A folder that cannot be removed.
pub fn forget(checkpoints: &Path) -> Result<()> {
    if checkpoints.exists() { Ok(snapshot::remove(checkpoints)?) } else { Ok(()) }
}

/// The recipe's two files, for a run folder.
///
/// # Errors
/// Ours.
pub fn recipes(loaded: &LoadedRecipe) -> Result<Vec<(&'static str, Vec<u8>)>> {
    Ok(vec![
        (run_dir::RECIPE, loaded.text.clone().into_bytes()),
        (run_dir::RECIPE_RESOLVED, loaded.resolved()?.into_bytes()),
    ])
}

/// Jets that a training passes if nothing stops it early.
pub fn planned_jets(options: &TrainOptions, training_jets: usize) -> u64 {
    match options.budget {
        Span::Epochs(epochs) => epochs * training_jets as u64,
        Span::Steps(steps) => steps * options.step_size().min(training_jets) as u64,
    }
}
