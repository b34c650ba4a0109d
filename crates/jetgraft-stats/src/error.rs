//! What can be wrong with the numbers handed to this crate.

/// A fault in the input of a statistic. Fields say where, what was found and what was expected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// Fewer entries than the statistic is defined for.
    #[error("{what}: found {found}, expected at least {needed}")]
    TooFew {
        /// What was counted, for example `signal events`.
        what: &'static str,
        /// How many there were.
        found: usize,
        /// The smallest number that the statistic accepts.
        needed: usize,
    },
    /// Two columns that must run over the same events do not.
    #[error("{left} has {left_len} entries, {right} has {right_len}; both must run over the same events")]
    LengthMismatch {
        /// First column.
        left: &'static str,
        /// Its length.
        left_len: usize,
        /// Second column.
        right: &'static str,
        /// Its length.
        right_len: usize,
    },
    /// A NaN or an infinity.
    #[error("{what}[{index}] is {value}; expected a finite number")]
    NotFinite {
        /// Column.
        what: &'static str,
        /// Row, counted from 0.
        index: usize,
        /// What stood there.
        value: f64,
    },
    /// A negative number where only zero and above make sense.
    #[error("{what}[{index}] is {value}; expected zero or more")]
    Negative {
        /// Column.
        what: &'static str,
        /// Row, counted from 0.
        index: usize,
        /// What stood there.
        value: f64,
    },
    /// A number that must be above zero is not.
    #[error("{what}[{index}] is {value}; expected more than zero")]
    NotPositive {
        /// Column.
        what: &'static str,
        /// Row, counted from 0.
        index: usize,
        /// What stood there.
        value: f64,
    },
    /// All events belong to one class, so nothing separates.
    #[error("all {total} events are {present}; expected both signal and background")]
    OneClass {
        /// The class that is there: `signal` or `background`.
        present: &'static str,
        /// Number of events.
        total: usize,
    },
    /// A parameter outside its range.
    #[error("{what} is {value}; expected a number from {low} to {high}")]
    OutOfRange {
        /// Parameter.
        what: &'static str,
        /// What was given.
        value: f64,
        /// Lower end of the range.
        low: f64,
        /// Upper end of the range.
        high: f64,
    },
    /// More successes than trials.
    #[error("{count} successes in {total} trials")]
    CountAboveTotal {
        /// Successes.
        count: u64,
        /// Trials.
        total: u64,
    },
    /// Bin edges must rise.
    #[error("bin edge {index} is {right}, the one before is {left}; edges must rise")]
    BadEdges {
        /// Index of the right one of the two edges.
        index: usize,
        /// Edge before.
        left: f64,
        /// The edge.
        right: f64,
    },
    /// Two histograms with different binnings.
    #[error("the histograms differ in binning: {left} and {right} bins, or other edges")]
    BinningMismatch {
        /// Bins of the first.
        left: usize,
        /// Bins of the second.
        right: usize,
    },
    /// The subset holds more than the whole in a bin.
    #[error("bin {bin}: the subset holds {subset}, the whole {whole}")]
    NotASubset {
        /// Bin.
        bin: usize,
        /// Content of the part.
        subset: f64,
        /// Content of the whole.
        whole: f64,
    },
    /// A statement about event counts was asked of weighted events.
    #[error("{what} counts events; these events carry weights")]
    Weighted {
        /// The statistic.
        what: &'static str,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, StatsError>;

impl StatsError {
    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::TooFew { .. } => "use more events, seeds or sizes, or leave this number out",
            Self::LengthMismatch { .. } => "align the columns by event id before comparing them",
            Self::NotFinite { .. } => "find the event and the cause of the value; it is not dropped silently",
            Self::Negative { .. } => "negative weights have no ROC curve; reweight to positive weights first",
            Self::NotPositive { .. } => "a zero error cannot be extrapolated; use a larger test set",
            Self::OneClass { .. } => "check which class is the signal, and the selection",
            Self::OutOfRange { .. } => "give a value in the range",
            Self::CountAboveTotal { .. } => "the two counts may be exchanged",
            Self::BadEdges { .. } => "sort the edges and remove repeated ones",
            Self::BinningMismatch { .. } => "fill both histograms with the same edges",
            Self::NotASubset { .. } => "the second histogram must be filled from events of the first",
            Self::Weighted { .. } => "evaluate without weights, or use the weighted ROC curve with its AUC",
        })
    }
}

/// Both columns run over the same events.
pub(crate) fn same_length(left: &'static str, l: usize, right: &'static str, r: usize) -> Result<()> {
    if l == r {
        return Ok(());
    }
    Err(StatsError::LengthMismatch { left, left_len: l, right, right_len: r })
}

/// At least `needed` entries.
pub(crate) fn at_least(what: &'static str, found: usize, needed: usize) -> Result<()> {
    if found >= needed {
        return Ok(());
    }
    Err(StatsError::TooFew { what, found, needed })
}

/// No NaN, no infinity.
pub(crate) fn all_finite(what: &'static str, values: &[f64]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(StatsError::NotFinite { what, index, value: values[index] }),
    }
}

/// A confidence level strictly between 0 and 1.
pub(crate) fn good_level(level: f64) -> Result<()> {
    if level > 0.0 && level < 1.0 {
        return Ok(());
    }
    Err(StatsError::OutOfRange { what: "confidence level", value: level, low: 0.0, high: 1.0 })
}
