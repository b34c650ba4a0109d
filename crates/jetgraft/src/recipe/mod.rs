//! Recipes: what is done, in a file. `schema` documents every key, `read` finds faults, `check` knows what must fit
//! together, `shipped` holds the recipes that come with the program, `propose` writes one for a file.

pub mod check;
pub mod propose;
pub mod read;
pub mod schema;
pub mod shipped;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use read::{Fault, blame_changes, faults_to_error, parse, placed, set, typed};
pub use schema::{Recipe, StudyRecipe, TrainRecipe};

/// A recipe together with where it came from.
#[derive(Debug, Clone)]
pub struct LoadedRecipe {
    /// Shipped name or file name, for messages.
    pub name: String,
    /// Text as written.
    pub text: String,
    /// Changes made on the command line, in order.
    pub changes: Vec<String>,
    /// Folder of the file; `None` for a shipped recipe.
    pub folder: Option<PathBuf>,
    /// The recipe, checked.
    pub recipe: Recipe,
}

impl LoadedRecipe {
    /// Reads a recipe file or a shipped recipe, applies `changes` (`key=value`), and checks all of it.
    ///
    /// # Errors
    /// All faults at once, with their lines.
    pub fn load(name: &str, changes: &[String]) -> Result<Self> {
        let (text, folder) = text_of(name)?;
        let mut table = parse(&text).map_err(|fault| faults_to_error(name, &[fault]))?;
        for change in changes {
            set(&mut table, change)?;
        }
        let recipe = from_table(&table, &text).map_err(|mut faults| {
            blame_changes(&mut faults, changes);
            faults_to_error(name, &faults)
        })?;
        Ok(Self { name: name.into(), text, changes: changes.to_vec(), folder, recipe })
    }

    /// The recipe with all defaults and changes written out; running it repeats the run.
    ///
    /// # Errors
    /// Never for a recipe that was read; ours if it does.
    pub fn resolved(&self) -> Result<String> {
        let text = match &self.recipe {
            Recipe::Train(recipe) => toml::to_string_pretty(recipe),
            Recipe::Study(recipe) => toml::to_string_pretty(recipe),
        };
        text.map_err(|error| Error::ours(format!("the recipe cannot be written as TOML: {error}")))
    }

    /// A file named in the recipe: absolute, or sought from the current folder, beside the recipe, in the checkout
    /// that the program was built in or lies in.
    ///
    /// # Errors
    /// Says all places that were tried.
    pub fn find(&self, file: &Path) -> Result<PathBuf> {
        let mut places = vec![PathBuf::new()];
        places.extend(self.folder.clone());
        if let Ok(program) = std::env::current_exe() {
            // target/release/jetgraft lies three levels below the checkout.
            places.extend(program.ancestors().skip(1).take(4).map(Path::to_path_buf));
        }
        places.push(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")));
        if let Some(found) = places.iter().map(|place| place.join(file)).find(|path| path.is_file()) {
            return Ok(found);
        }
        let tried: Vec<String> = places.iter().map(|place| place.join(file).display().to_string()).collect();
        Err(Error::new(format!("no file `{}`, which the recipe `{}` reads", file.display(), self.name))
            .detail("tried", tried.join("\n"))
            .hint("give the path as the shell knows it, for example --set 'target.files=[\"jets.parquet\"]'"))
    }
}

fn text_of(name: &str) -> Result<(String, Option<PathBuf>)> {
    if let Some(shipped) = shipped::find(name) {
        return Ok((shipped.text.to_string(), None));
    }
    let path = Path::new(name);
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((text, Some(path.parent().unwrap_or(Path::new("")).to_path_buf()))),
        Err(error) => {
            let names: Vec<&str> = shipped::all().iter().map(|recipe| recipe.name).collect();
            let mut shown = Error::new(format!("no recipe `{name}`: {error}"))
                .expected(format!("a file, or one of the shipped recipes: {}", names.join(", ")));
            if let Some(near) = read::nearest(name, names.into_iter()) {
                shown = shown.hint(format!("did you mean `{near}`?"));
            }
            Err(shown)
        }
    }
}

/// Reads and checks; the kind decides the schema.
fn from_table(table: &toml::Table, text: &str) -> std::result::Result<Recipe, Vec<Fault>> {
    match table.get("kind").and_then(|kind| kind.as_str()) {
        Some("train") => {
            let mut recipe: TrainRecipe = typed(table, text)?;
            recipe.input.resolve();
            let faults = check::train(&recipe);
            if faults.is_empty() { Ok(Recipe::Train(Box::new(recipe))) } else { Err(placed(faults, text)) }
        }
        Some("study") => {
            let mut recipe: StudyRecipe = typed(table, text)?;
            recipe.input.resolve();
            for input in recipe.study.plans.iter_mut().filter_map(|plan| plan.input.as_mut()) {
                input.resolve();
            }
            let faults = check::study(&recipe);
            if faults.is_empty() { Ok(Recipe::Study(Box::new(recipe))) } else { Err(placed(faults, text)) }
        }
        found => Err(vec![Fault::new(
            "kind",
            format!(
                "expected `train` or `study`, found {}",
                found.map_or("nothing".into(), |k| format!("`{k}`"))
            ),
        )]),
    }
}
