//! Transfer learning for collider physics: recipes, run folders, commands.
//!
//! The binary of this crate only parses, prints and sets the exit status; everything it does is here and can be used
//! from another program. See ARCHITECTURE.md for the map.

pub mod analysis;
pub mod args;
pub mod cmd;
pub mod device;
pub mod error;
pub mod network;
pub mod progress;
pub mod published;
pub mod recipe;
pub mod run_dir;
pub mod run_page;
pub mod scores;
pub mod study;
pub mod study_figures;
pub mod study_folder;
pub mod study_page;
pub mod study_tables;
pub mod tables;
pub mod task;
pub mod training;

pub use error::{Error, Result};
