//! Tables of numbers with their intervals.

use serde::{Deserialize, Serialize};

use crate::error::ReportError;
use crate::figure::{Estimate, count, decimal};

/// A table: texts to the left, numbers to the right in figures of equal width, so that equal decimals stand in line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Table {
    /// Anchor on the page.
    pub id: String,
    /// One sentence (markup) that says what is in it.
    pub caption: String,
    /// Columns.
    pub columns: Vec<Column>,
    /// Rows, each with a cell for every column.
    pub rows: Vec<Row>,
    /// Notes below it (markup).
    pub notes: Vec<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Heading (markup), unit in brackets.
    pub name: String,
    /// True: set to the right.
    pub number: bool,
}

impl Column {
    /// A column of words.
    pub fn text(name: impl Into<String>) -> Self {
        Self { name: name.into(), number: false }
    }

    /// A column of numbers.
    pub fn number(name: impl Into<String>) -> Self {
        Self { name: name.into(), number: true }
    }
}

/// A row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Cells, the first of which names the row.
    pub cells: Vec<Cell>,
    /// Rows of the same group (markup) stand together under its name; empty for none.
    pub group: String,
    /// True for the row to look at.
    pub strong: bool,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    /// Words (plain).
    Text(String),
    /// Words with markup.
    Markup(String),
    /// A whole number.
    Count(u64),
    /// A number with its decimals.
    Number {
        /// The number.
        value: f64,
        /// Decimals shown.
        decimals: usize,
    },
    /// A number with its interval.
    Estimate {
        /// The number.
        estimate: Estimate,
        /// Decimals shown.
        decimals: usize,
    },
    /// Nothing to show.
    Missing,
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number with its decimals.
    pub fn number(value: f64, decimals: usize) -> Self {
        Self::Number { value, decimals }
    }

    /// A number with its interval.
    pub fn estimate(estimate: Estimate, decimals: usize) -> Self {
        Self::Estimate { estimate, decimals }
    }

    /// What is shown: the value and, for an estimate, its interval.
    pub(crate) fn parts(&self) -> (String, String) {
        let alone = |text: String| (text, String::new());
        match self {
            Self::Text(text) | Self::Markup(text) => alone(text.clone()),
            Self::Count(n) => alone(count(*n)),
            Self::Number { value, decimals } => alone(decimal(*value, *decimals)),
            Self::Estimate { estimate, decimals } => {
                let shown = estimate.show(*decimals);
                match shown.split_once(" [") {
                    Some((value, interval)) => (value.to_owned(), format!("[{interval}")),
                    None => (shown, String::new()),
                }
            }
            Self::Missing => alone("–".to_owned()),
        }
    }
}

impl Table {
    /// An empty table.
    pub fn new(id: impl Into<String>, caption: impl Into<String>) -> Self {
        Self { id: id.into(), caption: caption.into(), ..Self::default() }
    }

    /// Adds a row.
    pub fn push(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row { cells, ..Row::default() });
    }

    /// Adds a row under a group's name (markup).
    pub fn push_in(&mut self, group: impl Into<String>, cells: Vec<Cell>) {
        self.rows.push(Row { cells, group: group.into(), strong: false });
    }

    /// Refuses a table without columns or rows, or with a row of another length.
    ///
    /// # Errors
    /// [`ReportError::Empty`], [`ReportError::Length`].
    pub fn check(&self) -> Result<(), ReportError> {
        let item = format!("table `{}`", self.id);
        for (what, empty) in [("columns", self.columns.is_empty()), ("rows", self.rows.is_empty())] {
            if empty {
                return Err(ReportError::Empty { item, what: what.to_owned() });
            }
        }
        for (i, row) in self.rows.iter().enumerate() {
            if row.cells.len() != self.columns.len() {
                return Err(ReportError::Length {
                    item,
                    what: format!("row {}", i + 1),
                    found: row.cells.len(),
                    expected: self.columns.len(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_show_value_and_interval_apart() {
        let shown = Cell::estimate(Estimate::new(1234.4, 1000.0, 1500.0), 0).parts();
        assert_eq!(shown, ("1,234".to_owned(), "[1,000, 1,500]".to_owned()));
        let limit = Cell::estimate(Estimate::new(f64::INFINITY, 812.0, f64::INFINITY), 0).parts();
        assert_eq!(limit, ("> 812".to_owned(), String::new()));
    }

    #[test]
    fn rows_of_another_length_are_refused() {
        let mut table = Table::new("t", "");
        table.columns = vec![Column::text("a"), Column::number("b")];
        assert!(matches!(table.check(), Err(ReportError::Empty { .. })));
        table.push(vec![Cell::text("x")]);
        assert!(matches!(table.check(), Err(ReportError::Length { found: 1, expected: 2, .. })));
    }
}
