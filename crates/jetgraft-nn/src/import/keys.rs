//! Between our tensor names and layout and those of a peer's state dictionary.

use std::collections::BTreeMap;

use super::ForeignTensor;
use crate::error::NnError;
use crate::state::{NamedTensor, Role, State};

/// A network found in a foreign file.
#[derive(Clone, Debug)]
pub struct Imported<C> {
    /// Sizes read off the tensors' shapes; what no tensor shows (dropout) is as published.
    pub config: C,
    /// Our names and layout.
    pub state: State,
    /// Entries that say nothing about the function: counters of batches.
    pub ignored: Vec<String>,
}

/// A counter that PyTorch keeps beside running statistics and never uses with a fixed momentum.
pub const COUNTER: &str = "num_batches_tracked";

/// Pairs of module names that mean the same; a module's leaves (`weight`, `bias`, `running_mean`, `running_var`) are
/// called the same on both sides.
#[derive(Clone, Copy, Debug)]
pub struct KeyMap {
    /// Name of the network for people, such as `LundNet`.
    pub network: &'static str,
    /// Ours and theirs; each `{}` stands for a number, which is the same on both sides and in the same order.
    pub modules: &'static [(&'static str, &'static str)],
    /// Some of their names, for messages.
    pub example: &'static str,
}

impl KeyMap {
    /// Our name of their tensor.
    pub fn ours(&self, name: &str) -> Option<String> {
        self.rename(name, |&(ours, theirs)| (theirs, ours))
    }

    /// Their name of our tensor.
    pub fn theirs(&self, name: &str) -> Option<String> {
        self.rename(name, |&(ours, theirs)| (ours, theirs))
    }

    fn rename(
        &self,
        name: &str,
        direction: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str),
    ) -> Option<String> {
        let (module, leaf) = name.rsplit_once('.')?;
        self.modules.iter().find_map(|pair| {
            let (from, to) = direction(pair);
            let numbers = numbers(from, module)?;
            let mut renamed = to.to_owned();
            for number in numbers {
                renamed = renamed.replacen("{}", number, 1);
            }
            Some(format!("{renamed}.{leaf}"))
        })
    }

    /// Names and layouts become ours (matrices are transposed); counters are set apart.
    ///
    /// # Errors
    /// [`NnError::Weights`] for an entry that the network does not have.
    pub fn to_state(
        &self,
        tensors: &BTreeMap<String, ForeignTensor>,
    ) -> Result<(State, Vec<String>), NnError> {
        let mut state = State::new();
        let mut ignored = Vec::new();
        for (name, tensor) in tensors {
            if name.rsplit('.').next() == Some(COUNTER) {
                ignored.push(name.clone());
                continue;
            }
            let ours = self.ours(name).ok_or_else(|| NnError::Weights {
                file: None,
                name: Some(name.clone()),
                found: format!("a tensor that {} does not have", self.network),
                expected: format!("names such as {}", self.example),
            })?;
            let (shape, values) = transposed(&tensor.shape, &tensor.values);
            let role = Role::of(&ours);
            state.insert(ours, NamedTensor { shape, values, role });
        }
        Ok((state, ignored))
    }

    /// Their names and layout of a state, counters included (as 0).
    ///
    /// # Errors
    /// [`NnError::Weights`] for a name that is not of this network.
    pub fn to_foreign(&self, state: &State) -> Result<BTreeMap<String, ForeignTensor>, NnError> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in state {
            let theirs = self.theirs(name).ok_or_else(|| NnError::Weights {
                file: None,
                name: Some(name.clone()),
                found: format!("a tensor that {} does not have", self.network),
                expected: format!("the state of a {}", self.network),
            })?;
            if let Some(module) = theirs.strip_suffix("running_mean") {
                let counter = ForeignTensor { shape: Vec::new(), values: vec![0.0], dtype: "i64" };
                tensors.insert(format!("{module}{COUNTER}"), counter);
            }
            let (shape, values) = transposed(&tensor.shape, &tensor.values);
            tensors.insert(theirs, ForeignTensor { shape, values, dtype: "f32" });
        }
        Ok(tensors)
    }
}

/// The numbers for which `{}` stands in `pattern`, if `name` has its form.
fn numbers<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let mut pieces = pattern.split("{}");
    let mut rest = name.strip_prefix(pieces.next()?)?;
    let mut numbers = Vec::new();
    for piece in pieces {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        let (number, after) = rest.split_at(digits);
        numbers.push(number);
        rest = after.strip_prefix(piece)?;
    }
    rest.is_empty().then_some(numbers)
}

/// `[rows, columns]` to `[columns, rows]`; other shapes stay.
pub fn transposed(shape: &[usize], values: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let &[rows, columns] = shape else { return (shape.to_vec(), values.to_vec()) };
    let values = (0..rows * columns).map(|at| values[at % rows * columns + at / rows]).collect();
    (vec![columns, rows], values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: KeyMap = KeyMap {
        network: "test",
        modules: &[("block.{}.linear.{}", "convs.{}.mlp{}.fc"), ("head", "fc")],
        example: "`fc.weight`",
    };

    #[test]
    fn names_go_both_ways() {
        for (ours, theirs) in
            [("block.0.linear.12.weight", "convs.0.mlp12.fc.weight"), ("head.bias", "fc.bias")]
        {
            assert_eq!(MAP.theirs(ours).as_deref(), Some(theirs));
            assert_eq!(MAP.ours(theirs).as_deref(), Some(ours));
        }
        for stranger in
            ["head", "heads.bias", "block..linear.0.weight", "block.x.linear.0.weight", "fc.0.weight"]
        {
            assert_eq!(MAP.theirs(stranger), None, "{stranger}");
        }
    }
}
