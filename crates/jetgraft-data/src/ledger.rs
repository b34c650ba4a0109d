//! Every row that was read is accounted for: used, or dropped for a reason that has a name.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// Counts of rows: `read = used + sum of dropped`.
///
/// Two ledgers over different rows add up with [`Ledger::merge`]; the result does not depend on the order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Rows read.
    pub read: u64,
    /// Rows that went on.
    pub used: u64,
    /// Rows left out, by reason.
    #[serde(default)]
    pub dropped: BTreeMap<String, u64>,
    /// Other counts worth telling, which do not enter the sum.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, u64>,
}

impl Ledger {
    /// Counts one row that went on.
    pub fn use_row(&mut self) {
        self.read += 1;
        self.used += 1;
    }

    /// Counts one row that is left out because of `reason`.
    pub fn drop_row(&mut self, reason: &str) {
        self.read += 1;
        add(&mut self.dropped, reason, 1);
    }

    /// Counts something that is worth telling.
    pub fn note(&mut self, what: &str, count: u64) {
        if count > 0 {
            add(&mut self.notes, what, count);
        }
    }

    /// Rows left out, over all reasons.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.read += other.read;
        self.used += other.used;
        for (reason, count) in &other.dropped {
            add(&mut self.dropped, reason, *count);
        }
        for (what, count) in &other.notes {
            add(&mut self.notes, what, *count);
        }
    }

    /// The ledger of a step that took what this one used: `next.read` must equal `self.used`.
    ///
    /// # Errors
    /// [`DataError::Ledger`] when it does not, or when either does not add up.
    pub fn then(&self, next: &Self) -> Result<Self, DataError> {
        self.check()?;
        next.check()?;
        if next.read != self.used {
            return Err(DataError::Ledger {
                read: self.used,
                used: next.used,
                dropped: next.dropped_total(),
            });
        }
        let mut whole = self.clone();
        whole.used = next.used;
        for (reason, count) in &next.dropped {
            add(&mut whole.dropped, reason, *count);
        }
        for (what, count) in &next.notes {
            add(&mut whole.notes, what, *count);
        }
        Ok(whole)
    }

    /// Checks `read = used + dropped`.
    ///
    /// # Errors
    /// [`DataError::Ledger`] when it does not hold.
    pub fn check(&self) -> Result<(), DataError> {
        let dropped = self.dropped_total();
        if self.read == self.used + dropped {
            Ok(())
        } else {
            Err(DataError::Ledger { read: self.read, used: self.used, dropped })
        }
    }
}

fn add(counts: &mut BTreeMap<String, u64>, key: &str, count: u64) {
    match counts.get_mut(key) {
        Some(value) => *value += count,
        None => {
            counts.insert(key.to_owned(), count);
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} read = {} used", self.read, self.used)?;
        for (reason, count) in &self.dropped {
            write!(f, " + {count} dropped ({reason})")?;
        }
        for (what, count) in &self.notes {
            write!(f, "; {what}: {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_in_any_order() {
        let mut a = Ledger::default();
        a.use_row();
        a.drop_row("not finite");
        let mut b = Ledger::default();
        b.drop_row("not finite");
        b.drop_row("in no class");
        b.note("padding", 3);
        let mut ab = a.clone();
        ab.merge(&b);
        b.merge(&a);
        assert_eq!(ab, b);
        ab.check().unwrap();
        assert_eq!(
            ab.to_string(),
            "4 read = 1 used + 1 dropped (in no class) + 2 dropped (not finite); padding: 3"
        );
        ab.used += 1;
        assert!(matches!(ab.check(), Err(DataError::Ledger { read: 4, used: 2, dropped: 3 })));
    }

    #[test]
    fn steps_chain() {
        let mut first = Ledger::default();
        first.use_row();
        first.use_row();
        first.drop_row("selection");
        let mut second = Ledger::default();
        second.use_row();
        second.drop_row("declustering failed");
        let whole = first.then(&second).unwrap();
        assert_eq!((whole.read, whole.used, whole.dropped_total()), (3, 1, 2));
        assert!(first.then(&first).is_err());
    }
}
