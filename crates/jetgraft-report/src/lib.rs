//! Figures, tables and the one-page report of a jetgraft run or study.
//!
//! Typed inputs go in ([`figure`], [`Table`], [`Page`]), self-contained files come out ([`write_report`]): an HTML page
//! that opens from disk in light and dark, on paper and on a phone, and SVG and PNG of each figure beside it. This crate
//! reads nothing and knows no run folder: whoever fills the inputs does.
//!
//! ```
//! use jetgraft_report::{Block, Estimate, Page, Section, Table};
//! use jetgraft_report::table::{Cell, Column};
//!
//! let mut table = Table::new("scores", "Area under the ROC curve of each plan.");
//! table.columns = vec![Column::text("plan"), Column::number("AUC")];
//! table.push(vec![Cell::text("scratch"), Cell::estimate(Estimate::new(0.921, 0.915, 0.927), 3)]);
//! let page = Page {
//!     title: "A study".into(),
//!     answer: vec!["Fine-tuning needs \\bf{3.1 times} fewer labels.".into()],
//!     sections: vec![Section::new("Scores", vec![Block::Table(table)])],
//!     ..Page::default()
//! };
//! assert!(page.html(None)?.contains("0.921"));
//! # Ok::<(), jetgraft_report::ReportError>(())
//! ```

pub mod error;
pub mod figure;
pub mod page;
pub mod plot;
pub mod table;
pub mod write;

pub use error::ReportError;
pub use figure::{Context, Estimate, Figure};
pub use page::{Block, KeyNumber, Page, Section};
pub use table::Table;

pub use write::{WriteOptions, write_report};
