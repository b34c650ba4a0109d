//! One file per command. A command returns what goes to stdout; words and progress go through [`Progress`].

pub mod cluster;
pub mod compare;
pub mod devices;
pub mod evaluate;
pub mod export;
pub mod import;
pub mod inspect;
pub mod lund;
pub mod predict;
pub mod quickstart;
pub mod recipe;
pub mod report;
pub mod study;
pub mod train;

use crate::args::Command;
use crate::error::Result;
use crate::progress::Progress;

/// Runs a command.
///
/// # Errors
/// What the command says; [`crate::Error::exit_status`] tells whose fault it is.
pub fn run(command: &Command, progress: &dyn Progress) -> Result<String> {
    match command {
        Command::Quickstart(args) => quickstart::run(args, progress),
        Command::Inspect(args) => inspect::run(args),
        Command::Cluster(args) => cluster::run(args, progress),
        Command::Lund(args) => lund::run(args, progress),
        Command::Train(args) => train::run(args, progress),
        Command::Study(args) => study::run(args, progress),
        Command::Import(args) => import::run(args, progress),
        Command::Export(args) => export::run(args, progress),
        Command::Predict(args) => predict::run(args, progress),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Report(args) => report::run(args, progress),
        Command::Compare(args) => compare::run(args),
        Command::Recipe(command) => recipe::run(command, progress),
        Command::Devices(args) => devices::run(args),
    }
}

/// JSON on stdout.
fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| crate::Error::ours(format!("the result cannot be written as JSON: {error}")))
}
