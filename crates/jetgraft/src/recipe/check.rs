//! What must fit together in a recipe, beyond the types. All faults are collected.

use jetgraft_learn::plan::PlanOptions;

use super::read::Fault;
use super::schema::{
    FORMAT, InputRecipe, ModelRecipe, SourceRecipe, SplitRecipe, StatisticsRecipe, StudyRecipe, TaskRecipe,
    TrainRecipe, WeightsRecipe,
};

/// Faults of a train recipe.
pub fn train(recipe: &TrainRecipe) -> Vec<Fault> {
    let mut faults = Vec::new();
    head(&recipe.format, &recipe.name, &mut faults);
    input("input", &recipe.input, &recipe.model, &mut faults);
    task("task", &recipe.task, &mut faults);
    statistics(&recipe.statistics, &mut faults);
    if let Err(error) = recipe.train.check() {
        faults.push(Fault::new("train", error.to_string()));
    }
    match (&recipe.source, &recipe.plan) {
        (None, None) => {}
        (None, Some(PlanOptions::Scratch { .. })) => {}
        (None, Some(_)) => faults.push(Fault::new("plan", "a plan other than `scratch` needs a [source]")),
        (Some(_), None) => {
            faults.push(Fault::new("source", "a source needs a [plan], such as kind = \"fine-tune\""))
        }
        (Some(source), Some(_)) => {
            match (&source.run, &source.weights) {
                (Some(_), None) => {}
                (None, Some(file)) => weights("source.weights", file, &mut faults),
                _ => faults.push(Fault::new("source", "give exactly one of `run` and `weights`")),
            };
        }
    }
    faults
}

/// Faults of a study recipe.
pub fn study(recipe: &StudyRecipe) -> Vec<Fault> {
    let mut faults = Vec::new();
    head(&recipe.format, &recipe.name, &mut faults);
    input("input", &recipe.input, &recipe.model, &mut faults);
    if let Some(inner) = &recipe.source {
        source(inner, &mut faults);
    }
    task("target", &recipe.target, &mut faults);
    if recipe.target.split.test <= 0.0 {
        faults.push(Fault::new("target.split.test", "a study needs test events"));
    }
    statistics(&recipe.statistics, &mut faults);
    if let Err(error) = recipe.train.check() {
        faults.push(Fault::new("train", error.to_string()));
    }
    let matrix = &recipe.study;
    if matrix.sizes.is_empty() || matrix.sizes.windows(2).any(|pair| pair[0] >= pair[1]) {
        faults.push(Fault::new("study.sizes", format!("expected rising sizes, found {:?}", matrix.sizes)));
    }
    if matrix.sizes.first().is_some_and(|size| *size < 4) {
        faults.push(Fault::new(
            "study.sizes",
            "a size is the number of training jets of both classes: 4 or more",
        ));
    }
    if matrix.seeds < 2 {
        faults.push(Fault::new(
            "study.seeds",
            format!("found {}; intervals over seeds need 2 or more, 3 is the least to show", matrix.seeds),
        ));
    }
    plans(recipe, &mut faults);
    faults
}

fn head(format: &str, name: &str, faults: &mut Vec<Fault>) {
    if format != FORMAT {
        faults.push(Fault::new("format", format!("expected `{FORMAT}`, found `{format}`")));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(good) {
        faults
            .push(Fault::new("name", format!("`{name}` names a folder: use letters, digits, `-`, `_`, `.`")));
    }
}

fn input(key: &str, input: &InputRecipe, model: &ModelRecipe, faults: &mut Vec<Fault>) {
    if !model.inputs().contains(&input.kind()) {
        let kinds = model.inputs().join("` or `");
        faults.push(Fault::new(
            format!("{key}.kind"),
            format!("this [model] reads `{kinds}`, not `{}`", input.kind()),
        ));
    }
    if let InputRecipe::Lund { ln_kt_min, ln_delta_min, .. } = input {
        for (name, value) in [("ln_kt_min", ln_kt_min), ("ln_delta_min", ln_delta_min)] {
            if value.is_some_and(|value| !value.is_finite()) {
                faults.push(Fault::new(
                    format!("{key}.{name}"),
                    "expected a finite number; leave the key out for no cut",
                ));
            }
        }
    } else if let Err(error) = input.spec().check() {
        faults.push(Fault::new(key, error.to_string()));
    }
}

fn task(key: &str, task: &TaskRecipe, faults: &mut Vec<Fault>) {
    let by_class = !task.background.files.is_empty() && !task.signal.files.is_empty();
    if task.files.is_empty() && !by_class {
        faults.push(Fault::new(
            format!("{key}.files"),
            format!("no files: give them with --set '{key}.files=[\"jets.parquet\"]'"),
        ));
    }
    for (class, text) in [(&task.background, "background"), (&task.signal, "signal")] {
        if class.when.is_none() && class.files.is_empty() {
            faults.push(Fault::new(format!("{key}.{text}"), "say which jets these are: `when`, or `files`"));
        }
        let [low, high] = class.share;
        if !(0.0..=1.0).contains(&low) || !(0.0..=1.0).contains(&high) || low >= high {
            faults.push(Fault::new(
                format!("{key}.{text}.share"),
                format!("expected 0 <= low < high <= 1, found [{low}, {high}]"),
            ));
        }
        if class.name.is_empty() || class.name.contains(char::is_whitespace) {
            faults.push(Fault::new(
                format!("{key}.{text}.name"),
                "a class name is a word: it becomes a column name",
            ));
        }
    }
    if task.background.name == task.signal.name {
        faults.push(Fault::new(format!("{key}.signal.name"), "the two classes have the same name"));
    }
    split(&format!("{key}.split"), &task.split, faults);
}

fn split(key: &str, split: &SplitRecipe, faults: &mut Vec<Fault>) {
    let parts = [split.train, split.validation, split.test];
    let sum: f64 = parts.iter().sum();
    if parts.iter().any(|part| !(0.0..=1.0).contains(part)) || (sum - 1.0).abs() > 1e-9 {
        faults.push(Fault::new(key, format!("expected three fractions with the sum 1, found {parts:?}")));
    }
    if split.train <= 0.0 || split.validation <= 0.0 {
        faults.push(Fault::new(key, "train and validation must be larger than 0"));
    }
}

fn source(source: &SourceRecipe, faults: &mut Vec<Fault>) {
    let given = [source.train.is_some(), source.run.is_some(), source.weights.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        faults.push(Fault::new("source", "give exactly one of `train` (with `task`), `run` and `weights`"));
    }
    match (&source.train, &source.task) {
        (Some(_), None) => {
            faults.push(Fault::new("source.task", "a source that is trained here needs its task"))
        }
        (Some(train), Some(_)) => {
            if let Err(error) = train.check() {
                faults.push(Fault::new("source.train", error.to_string()));
            }
        }
        (None, _) => {}
    }
    if let Some(inner) = &source.task {
        task("source.task", inner, faults);
    }
    if let Some(file) = &source.weights {
        weights("source.weights", file, faults);
    }
}

fn weights(key: &str, weights: &WeightsRecipe, faults: &mut Vec<Fault>) {
    if weights.file.as_os_str().is_empty() {
        faults.push(Fault::new(
            format!("{key}.file"),
            format!(
                "this recipe starts from a published weight file: give its path with --set {key}.file=PATH"
            ),
        ));
    }
}

fn plans(recipe: &StudyRecipe, faults: &mut Vec<Fault>) {
    let plans = &recipe.study.plans;
    let own = || plans.iter().filter(|named| named.model.is_none());
    let scratch = own().filter(|named| !named.plan.needs_source()).count();
    if scratch != 1 {
        faults.push(Fault::new(
            "study.plans",
            format!(
                "expected one plan of kind `scratch` with the study's network, the reference; found {scratch}"
            ),
        ));
    }
    for (i, named) in plans.iter().enumerate() {
        let key = format!("study.plans.{i}");
        if named.plan.needs_source() {
            if recipe.source.is_none() {
                faults.push(Fault::new(key.as_str(), "a plan other than `scratch` needs a [source]"));
            }
            if named.model.is_some() || named.input.is_some() {
                let what = "another network, or another input, can only start from scratch";
                faults.push(Fault::new(key.as_str(), what));
            }
        }
        if named.model.is_some() || named.input.is_some() {
            input(&format!("{key}.input"), recipe.input_of(named), recipe.model_of(named), faults);
        }
        if let Err(error) = recipe.train_of(named).check() {
            faults.push(Fault::new(key.as_str(), error.to_string()));
        }
    }
    for (i, named) in plans.iter().enumerate() {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if named.name.is_empty() || !named.name.chars().all(good) {
            faults.push(Fault::new(
                format!("study.plans.{i}.name"),
                format!("`{}` names a folder: use letters, digits, `-`, `_`", named.name),
            ));
        }
        if plans[..i].iter().any(|earlier| earlier.name == named.name) {
            faults.push(Fault::new(
                format!("study.plans.{i}.name"),
                format!("`{}` is there twice", named.name),
            ));
        }
    }
}

fn statistics(statistics: &StatisticsRecipe, faults: &mut Vec<Fault>) {
    for (key, level) in
        [("statistics.level", statistics.level), ("statistics.band_level", statistics.band_level)]
    {
        if !(level > 0.0 && level < 1.0) {
            faults.push(Fault::new(key, format!("a level lies between 0 and 1, found {level}")));
        }
    }
    if statistics.replicates < 100 {
        faults.push(Fault::new(
            "statistics.replicates",
            format!("expected 100 or more, found {}", statistics.replicates),
        ));
    }
}
