//! Every figure and a page from synthetic inputs: `cargo run --release -p jetgraft-report --example gallery -- FOLDER`.

mod synthetic;

use std::path::PathBuf;

use jetgraft_report::{WriteOptions, write_report};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/gallery"), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    write_report(&synthetic::page()?, &folder, &WriteOptions::default())?;
    write_report(&synthetic::hard_page()?, &folder.join("hard"), &WriteOptions::default())?;
    Ok(())
}
