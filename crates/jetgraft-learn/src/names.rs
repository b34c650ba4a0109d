//! Which stage a tensor belongs to.

use jetgraft_nn::contract::Stage;
use jetgraft_nn::state::{Role, State};

use crate::error::LearnError;

/// Name, shape and role of a tensor: all that a plan looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorName {
    /// Full name, such as `edge_conv.0.linear.weight`.
    pub name: String,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Parameter or buffer.
    pub role: Role,
}

impl TensorName {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The names of a state, in its order.
pub fn names_of(state: &State) -> Vec<TensorName> {
    state
        .iter()
        .map(|(name, tensor)| TensorName {
            name: name.clone(),
            shape: tensor.shape.clone(),
            role: tensor.role,
        })
        .collect()
}

/// Whether a tensor called `name` belongs to a stage with this prefix: it is the prefix, or goes on after a dot.
pub fn belongs(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The stage of a tensor: the one with the longest prefix that fits.
///
/// # Errors
/// [`LearnError::Homeless`].
pub fn stage_of(name: &str, stages: &[Stage]) -> Result<usize, LearnError> {
    stages
        .iter()
        .enumerate()
        .filter(|(_, stage)| belongs(name, &stage.prefix))
        .max_by_key(|(_, stage)| stage.prefix.len())
        .map(|(at, _)| at)
        .ok_or_else(|| LearnError::Homeless {
            name: name.to_owned(),
            stages: stages.iter().map(|stage| stage.prefix.clone()).collect(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_dots() {
        let stages: Vec<Stage> =
            ["a", "a.b", "c.1", "c.10"].map(|name| Stage { name: name.into(), prefix: name.into() }).into();
        for (name, at) in [("a", 0), ("a.x", 0), ("a.b", 1), ("a.b.w", 1), ("c.1.w", 2), ("c.10.w", 3)] {
            assert_eq!(stage_of(name, &stages).unwrap(), at, "{name}");
        }
        assert!(matches!(stage_of("ab.w", &stages), Err(LearnError::Homeless { .. })));
        assert!(matches!(stage_of("c.100", &stages), Err(LearnError::Homeless { .. })));
    }
}
