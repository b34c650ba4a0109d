//! Score files as the statistics see them: truth and signal score.

use std::path::Path;

use jetgraft_data::jets::NO_LABEL;
use jetgraft_data::writer::{Scores, read_scores};

use crate::error::{Error, Result};

/// Two-class scores with their truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// Background and signal.
    pub classes: [String; 2],
    /// Event of each jet.
    pub event_id: Vec<u64>,
    /// True for signal.
    pub labels: Vec<bool>,
    /// Softmax score of the signal, in f64 from the logits: in f32 the best jets would all be 1.
    pub signal: Vec<f64>,
}

/// Softmax score of the second of two classes.
fn signal_score(logits: &[f32]) -> f64 {
    1.0 / (1.0 + (f64::from(logits[0]) - f64::from(logits[1])).exp())
}

/// Signal score of each jet; the signal is the last of two classes.
///
/// # Errors
/// Another number of classes.
pub fn signal_scores(scores: &Scores) -> Result<Vec<f64>> {
    if scores.classes.len() != 2 {
        return Err(Error::new("an evaluation compares two classes")
            .found(format!("scores of {}", scores.classes.join(", "))));
    }
    Ok(scores.logits.chunks_exact(2).map(signal_score).collect())
}

/// Reads a score file with labels of two classes.
///
/// # Errors
/// A file that is no score file, has no labels, or has another number of classes.
pub fn read_binary(path: &Path) -> Result<Binary> {
    let scores = read_scores(path)?;
    let signal = signal_scores(&scores).map_err(|error| error.at(path.display()))?;
    if scores.label.contains(&NO_LABEL) || scores.label.is_empty() {
        return Err(Error::new("the file has no labels").at(path.display()).hint(
            "say the classes when the scores are made: \
             `jetgraft predict ... --signal 'process == 2' --background 'process == 0'`",
        ));
    }
    Ok(Binary {
        classes: [scores.classes[0].clone(), scores.classes[1].clone()],
        event_id: scores.event_id,
        labels: scores.label.iter().map(|label| *label == 1).collect(),
        signal,
    })
}

#[cfg(test)]
mod tests {
    use super::signal_score;

    #[test]
    fn scores_keep_their_order_where_f32_would_not() {
        assert_eq!(signal_score(&[0.0, 0.0]), 0.5);
        assert!(signal_score(&[-20.0, 0.0]) < signal_score(&[-20.5, 0.0]));
        assert!((signal_score(&[0.0, 2.0]) + signal_score(&[2.0, 0.0]) - 1.0).abs() < 1e-15);
    }
}
