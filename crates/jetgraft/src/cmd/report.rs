//! `jetgraft report`.

use jetgraft_report::{WriteOptions, write_report};

use crate::args::ReportArgs;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::{run_page, study_folder, study_page};

/// Writes the page and the figures of a study, or of single runs side by side.
///
/// # Errors
/// Folders that are neither, that have changed, or that cannot be compared.
pub fn run(args: &ReportArgs, progress: &dyn Progress) -> Result<String> {
    let studies = args.runs.iter().filter(|folder| study_folder::is_study(folder)).count();
    let page = match (studies, args.runs.as_slice()) {
        (1, [folder]) => study_page::page(&study_folder::read(folder)?)?,
        (0, folders) => run_page::page(folders)?,
        _ => {
            return Err(Error::new("a report shows one study, or runs")
                .found(format!("{studies} studies among {} folders", args.runs.len()))
                .hint("make one report per study"));
        }
    };
    let out = args.output.clone().unwrap_or_else(|| args.runs[0].clone());
    let files = write_report(&page, &out, &WriteOptions::default())?;
    progress.words(&format!("wrote {} files", files.len()));
    Ok(format!("{}\n", files.first().unwrap_or(&out).display()))
}
