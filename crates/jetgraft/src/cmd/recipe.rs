//! `jetgraft recipe`.

use crate::args::RecipeCommand;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::recipe::{LoadedRecipe, read, shipped};

/// Lists, shows, copies or checks recipes.
///
/// # Errors
/// An unknown name, a file that is there already, every fault of a checked recipe.
pub fn run(command: &RecipeCommand, progress: &dyn Progress) -> Result<String> {
    match command {
        RecipeCommand::List => {
            let width = shipped::all().iter().map(|recipe| recipe.name.len()).max().unwrap_or(0);
            Ok(shipped::all().iter().map(|r| format!("{:width$}  {}\n", r.name, r.purpose())).collect())
        }
        RecipeCommand::Show { name } => Ok(find(name)?.text.to_string()),
        RecipeCommand::Copy { name, to } => {
            let recipe = find(name)?;
            if to.exists() {
                return Err(
                    Error::new(format!("{} is there already", to.display())).hint("choose another name")
                );
            }
            jetgraft_data::atomic::write_bytes(to, recipe.text.as_bytes())?;
            progress.words(&format!("wrote {}", to.display()));
            Ok(String::new())
        }
        RecipeCommand::Check { recipe, set } => {
            let loaded = LoadedRecipe::load(recipe, set)?;
            progress.words(&format!("recipe `{recipe}` has no fault; resolved:"));
            loaded.resolved()
        }
    }
}

fn find(name: &str) -> Result<&'static shipped::Shipped> {
    shipped::find(name).ok_or_else(|| {
        let names: Vec<&str> = shipped::all().iter().map(|recipe| recipe.name).collect();
        let error = Error::new(format!("no shipped recipe `{name}`")).expected(names.join(", "));
        match read::nearest(name, names.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        }
    })
}
