//! What can go wrong between a file and a packed batch, said with fields: where, found, expected, nearest names.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Everything this crate can refuse. [`DataError::hint`] says what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried: `open`, `read`, `write`, ...
        action: &'static str,
        /// The reason given.
        source: std::io::Error,
    },

    /// The content is not data: an LFS pointer, an error page, nothing at all, half a file, another format.
    #[error("{} is not a file of jets: {found}", path.display())]
    NotData {
        /// The file.
        path: PathBuf,
        /// What lies there instead.
        found: String,
        /// What to do.
        remedy: String,
    },

    /// The format is right but the content is broken.
    #[error("{} is damaged at {entry}: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it: `line 17`, `row group 3, column part_pt`, `footer`.
        entry: String,
        /// What is wrong.
        detail: String,
        /// What to do.
        remedy: String,
    },

    /// The file asks for more memory than this reader grants.
    #[error("{} asks for too much at {entry}: {what} is {found}, the limit is {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Where in it.
        entry: String,
        /// Which size.
        what: &'static str,
        /// The size asked for.
        found: u64,
        /// The largest size granted.
        limit: u64,
    },

    /// A column is missing.
    #[error("no column `{name}` in {} (needed for {needed_for})", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// What it was wanted for.
        needed_for: &'static str,
        /// The names in the file.
        found: Vec<String>,
        /// The names in the file closest to it, best first.
        nearest: Vec<String>,
    },

    /// A column is there but of another kind.
    #[error("column `{name}` of {} is {found}; {needed_for} needs {expected}", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        name: String,
        /// What it was wanted for.
        needed_for: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        expected: String,
    },

    /// Values that cannot be a jet, where the query asks for an error instead of a dropped row.
    #[error("row {row} of {}: {reason}", path.display())]
    BadRow {
        /// The file.
        path: PathBuf,
        /// Row number in the file, from 0.
        row: u64,
        /// What is wrong with it.
        reason: String,
    },

    /// The lists of one row differ in length.
    #[error("row {row} of {}: list `{first}` has {first_len} entries and list `{second}` has {second_len}", path.display())]
    RaggedMismatch {
        /// The file.
        path: PathBuf,
        /// Row number in the file, from 0.
        row: u64,
        /// One column.
        first: String,
        /// Its length.
        first_len: usize,
        /// Another column.
        second: String,
        /// Its length.
        second_len: usize,
    },

    /// An expression could not be read.
    #[error("{message} at character {} of `{text}`", at + 1)]
    Expression {
        /// The whole expression.
        text: String,
        /// Where, in bytes from 0.
        at: usize,
        /// Length of the faulty part in bytes; at least 1.
        len: usize,
        /// What is wrong: found and expected.
        message: String,
        /// Nearest names, when a name is unknown.
        nearest: Vec<String>,
    },

    /// One row answers to two classes.
    #[error(
        "row {row} of {} (event {event_id}) is in class `{first}` and in class `{second}`",
        path.display()
    )]
    TwoClasses {
        /// The file.
        path: PathBuf,
        /// Row number in the file, from 0.
        row: u64,
        /// Its event.
        event_id: u64,
        /// One class.
        first: String,
        /// The other.
        second: String,
    },

    /// The same content is given twice.
    #[error("{} and {} have the same content", first.display(), second.display())]
    SameFile {
        /// One path.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },

    /// Nothing is left.
    #[error("no {what} left: {detail}")]
    Empty {
        /// What is missing: `jets`, `jets of class top`.
        what: String,
        /// Where they went.
        detail: String,
    },

    /// An option has a value that makes no sense.
    #[error("{option} is {found}; it must be {expected}")]
    Option {
        /// The option's name.
        option: String,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },

    /// Rows were lost or counted twice: a fault of this program.
    #[error("the ledger does not add up: read {read}, used {used}, dropped {dropped}")]
    Ledger {
        /// Rows read.
        read: u64,
        /// Rows used.
        used: u64,
        /// Rows dropped, over all reasons.
        dropped: u64,
    },

    /// One event is in two parts that must not share any.
    #[error("event {event_id} is in `{first}` and in `{second}` ({shared} events are in both)")]
    SharedEvent {
        /// One part.
        first: String,
        /// The other.
        second: String,
        /// The smallest such event.
        event_id: u64,
        /// How many there are.
        shared: usize,
    },

    /// A file is not what the manifest says.
    #[error("{} is not the file of the manifest: {what} is {found}, recorded was {expected}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// `size` or `digest`.
        what: &'static str,
        /// As it is now.
        found: String,
        /// As it was recorded.
        expected: String,
    },

    /// A jet that an input cannot be made of, where an error is asked for instead of a dropped jet.
    #[error("{place}: {reason}")]
    BadJet {
        /// Which jet.
        place: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The physics refused.
    #[error("{place}: {source}")]
    Physics {
        /// Which jet, which definition.
        place: String,
        /// Its own error.
        source: jetgraft_physics::PhysicsError,
    },
}

impl DataError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    pub(crate) fn option(
        option: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Option { option: option.into(), found: found.to_string(), expected: expected.into() }
    }

    /// What the user can do about it, in one sentence; `None` when the message says it all.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("check the path; relative paths start at the working folder".into())
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some space or choose another place with --out".into())
            }
            Self::NotData { remedy, .. } | Self::Corrupt { remedy, .. } => Some(remedy.clone()),
            Self::TooLarge { .. } => Some(
                "the file is damaged or made to harm; if it is sound, write it again with smaller pages"
                    .into(),
            ),
            Self::NoColumn { found, nearest, .. } => Some(if nearest.is_empty() {
                format!("map it under `columns` of the task; the file has: {}", shortened(found, 24))
            } else {
                format!(
                    "map it under `columns` of the task; nearest: {}; the file has: {}",
                    quoted(nearest),
                    shortened(found, 24)
                )
            }),
            Self::ColumnType { .. } => Some(
                "map another column under `columns` of the task; `jetgraft inspect FILE` lists types".into(),
            ),
            Self::BadRow { .. } | Self::BadJet { .. } => {
                Some("`on_bad = \"drop\"` leaves such rows out and counts them".into())
            }
            Self::RaggedMismatch { .. } => {
                Some("these columns do not belong to the same particles; check `columns` of the task".into())
            }
            Self::Expression { nearest, .. } => {
                (!nearest.is_empty()).then(|| format!("nearest columns: {}", quoted(nearest)))
            }
            Self::TwoClasses { .. } => Some("make the `when` of the classes exclude each other".into()),
            Self::SameFile { .. } => Some("leave one out: the same events would count twice".into()),
            Self::Empty { .. } => Some("loosen the selection, or give more files".into()),
            Self::SharedEvent { .. } => {
                Some("split by event id: use other files, or one split for all of them".into())
            }
            Self::Changed { .. } => Some("fetch the file again, or record a new manifest".into()),
            Self::Ledger { .. } => Some("this is a fault of the program; please report it".into()),
            Self::Io { .. } | Self::Option { .. } | Self::Physics { .. } => None,
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn shortened(names: &[String], limit: usize) -> String {
    let mut text = quoted(&names[..names.len().min(limit)]);
    if names.len() > limit {
        text.push_str(&format!(" and {} more", names.len() - limit));
    }
    text
}

/// The names closest to `name`, best first, at most three; none that has little in common with it.
///
/// Closeness is the share of letters in a longest common subsequence, upper and lower case alike, so that
/// `part_deta` is closer to `part_delta_eta` than to `part_dphi`.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let wanted: Vec<char> = name.to_lowercase().chars().take(128).collect();
    let mut scored: Vec<(f64, &str)> = names
        .into_iter()
        .map(|candidate| {
            let letters: Vec<char> = candidate.to_lowercase().chars().take(128).collect();
            let common = 2.0 * common_letters(&wanted, &letters) as f64;
            (common / (wanted.len() + letters.len()).max(1) as f64, candidate)
        })
        .filter(|(share, _)| *share >= 0.6)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, candidate)| candidate.to_owned()).collect()
}

/// Length of a longest common subsequence.
fn common_letters(a: &[char], b: &[char]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names_come_best_first_and_strangers_not_at_all() {
        let names = ["part_eta", "part_delta_eta", "part_dphi", "part_pt", "weight"];
        assert_eq!(nearest("part_deta", names)[..2], ["part_eta", "part_delta_eta"]);
        assert!(nearest("zzzz", names).is_empty());
        assert_eq!(nearest("JET_PT", ["jet_pt"]), ["jet_pt"]);
        assert_eq!(nearest("jte_pt", ["jet_pt", "jet_phi", "part_pt"])[0], "jet_pt");
        assert!(nearest("", ["a"]).is_empty());
    }
}
