//! What went wrong, for the person at the keyboard: where, what was found, what was expected, what to do.

use std::fmt;

/// An error as it is shown. Libraries keep typed errors; here they gain a place, a remedy and an exit status.
#[derive(Debug)]
pub struct Error {
    what: String,
    details: Vec<(&'static str, String)>,
    hint: Option<String>,
    ours: bool,
}

/// Result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that the user can mend.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), details: Vec::new(), hint: None, ours: false }
    }

    /// An error that is our fault.
    pub fn ours(what: impl Into<String>) -> Self {
        Self {
            hint: Some(
                "this is a fault of jetgraft: please report it with the command and the recipe".into(),
            ),
            ours: true,
            ..Self::new(what)
        }
    }

    /// Adds what was expected.
    #[must_use]
    pub fn expected(self, text: impl Into<String>) -> Self {
        self.detail("expected", text)
    }

    /// Adds what was found.
    #[must_use]
    pub fn found(self, text: impl Into<String>) -> Self {
        self.detail("found", text)
    }

    /// Adds a line `label: text` under the error.
    #[must_use]
    pub fn detail(mut self, label: &'static str, text: impl Into<String>) -> Self {
        self.details.push((label, text.into()));
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into());
        self
    }

    /// Puts the place in front: `scores.parquet: ...`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.what = format!("{place}: {}", self.what);
        self
    }

    /// 1: the user can mend it; 2: our fault.
    pub fn exit_status(&self) -> u8 {
        if self.ours { 2 } else { 1 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for (label, text) in &self.details {
            let mut lines = text.lines();
            write!(f, "\n  {:<9} {}", format!("{label}:"), lines.next().unwrap_or(""))?;
            for line in lines {
                write!(f, "\n            {line}")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Text of an error and all its sources, innermost last.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

impl From<jetgraft_data::DataError> for Error {
    fn from(error: jetgraft_data::DataError) -> Self {
        let hint = error.hint();
        Self { hint, ..Self::new(with_sources(&error)) }
    }
}

impl From<jetgraft_stats::StatsError> for Error {
    fn from(error: jetgraft_stats::StatsError) -> Self {
        let hint = error.hint().map(str::to_string);
        Self { hint, ..Self::new(with_sources(&error)) }
    }
}

impl From<jetgraft_physics::PhysicsError> for Error {
    fn from(error: jetgraft_physics::PhysicsError) -> Self {
        Self::new(with_sources(&error))
    }
}

impl From<jetgraft_nn::error::NnError> for Error {
    fn from(error: jetgraft_nn::error::NnError) -> Self {
        let hint = error.hint().map(str::to_string);
        Self { hint, ..Self::new(with_sources(&error)) }
    }
}

impl From<jetgraft_learn::LearnError> for Error {
    fn from(error: jetgraft_learn::LearnError) -> Self {
        match error {
            // One of ours that went through a study of the library.
            jetgraft_learn::LearnError::Store(inner) => match inner.downcast::<Self>() {
                Ok(own) => *own,
                Err(inner) => Self::new(with_sources(&*inner)),
            },
            error => Self { hint: error.hint(), ..Self::new(with_sources(&error)) },
        }
    }
}

impl From<jetgraft_report::ReportError> for Error {
    fn from(error: jetgraft_report::ReportError) -> Self {
        let hint = error.hint();
        Self { hint, ..Self::new(with_sources(&error)) }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(with_sources(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn an_error_shows_place_found_expected_and_remedy() {
        let error = Error::new("no column `part_deta`")
            .at("train.parquet")
            .expected("the constituent columns")
            .found("12 columns; nearest `part_eta`")
            .hint("map it under `columns`");
        assert_eq!(
            error.to_string(),
            "error: train.parquet: no column `part_deta`\n  expected: the constituent columns\n  found:    12 columns; \
             nearest `part_eta`\n\nhint: map it under `columns`"
        );
        assert_eq!(error.exit_status(), 1);
        assert_eq!(Error::ours("x").exit_status(), 2);
    }
}
