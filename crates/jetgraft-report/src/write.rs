//! Files: each is whole or absent.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::ReportError;
use crate::page::Page;
use crate::plot::svg;

/// Names and sizes of the files of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteOptions {
    /// Name of the page.
    pub page: String,
    /// Folder of the figures beside the page; empty puts them into the same folder.
    pub figures: String,
    /// Pixels of the PNG files to a unit of the SVG files: 2 for screens and slides, 4 for print.
    pub png_scale: f64,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { page: "report.html".to_owned(), figures: "figures".to_owned(), png_scale: 2.0 }
    }
}

/// Writes the page and the SVG and PNG of each figure; answers the files, the page first. Folders are made as needed. The
/// page comes last on disk, so that whoever finds it finds its figures.
///
/// # Errors
/// What [`Page::html`] and [`crate::Figure::png`] say, and [`ReportError::Io`].
pub fn write_report(page: &Page, folder: &Path, options: &WriteOptions) -> Result<Vec<PathBuf>, ReportError> {
    let html = page.html(Some(&options.figures))?;
    let figures = if options.figures.is_empty() { folder.to_owned() } else { folder.join(&options.figures) };
    fs::create_dir_all(&figures).map_err(|source| ReportError::Io {
        path: figures.clone(),
        action: "making folder",
        source,
    })?;
    let page_path = folder.join(&options.page);
    let mut written = vec![page_path.clone()];
    for figure in page.figures() {
        let name = svg::slug(&figure.id);
        let pixels = figure.png(options.png_scale)?;
        for (extension, bytes) in [("svg", figure.svg().into_bytes()), ("png", pixels)] {
            let path = figures.join(format!("{name}.{extension}"));
            write_whole(&path, &bytes)?;
            written.push(path);
        }
    }
    write_whole(&page_path, html.as_bytes())?;
    Ok(written)
}

/// Writes a file under another name beside it, flushes it to the disk and gives it its name.
///
/// # Errors
/// [`ReportError::Io`]; the file that had the name before is then untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let fault =
        |action: &'static str| move |source| ReportError::Io { path: path.to_owned(), action, source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = (|| {
        let mut file = File::create(&temporary).map_err(fault("creating"))?;
        file.write_all(bytes).map_err(fault("writing"))?;
        file.sync_all().map_err(fault("flushing"))?;
        fs::rename(&temporary, path).map_err(fault("naming"))
    })();
    if result.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        return result;
    }
    // The name itself is safe only once its folder is; not every system can flush a folder.
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    if let Some(Ok(folder)) = folder.map(File::open) {
        let _ = folder.sync_all();
    }
    Ok(())
}
