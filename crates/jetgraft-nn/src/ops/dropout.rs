//! Dropout masks that loops draw where they need them: a factor is a hash of the seed, a row and a column, so it does
//! not depend on threads or tiles, and the backward draws it again.

use crate::init::mix;

/// Masks of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    key: u64,
    threshold: u32,
    keep: f32,
}

/// The masks of one row.
#[derive(Clone, Copy, Debug)]
pub struct DropoutRow {
    low: u32,
    high: u32,
    threshold: u32,
    keep: f32,
}

impl Dropout {
    /// Sets a value to 0 with probability `rate` in `[0, 1)` (to 32 bits), and multiplies it by `1 / (1 - rate)` else.
    pub fn new(rate: f64, seed: u64) -> Self {
        Self { key: mix(seed), threshold: (rate * 2f64.powi(32)) as u32, keep: (1.0 / (1.0 - rate)) as f32 }
    }

    /// The factor on what is kept, `1 / (1 - rate)`.
    #[inline(always)]
    pub fn keep(&self) -> f32 {
        self.keep
    }

    /// The masks of a row.
    #[inline(always)]
    pub fn row(&self, row: usize) -> DropoutRow {
        let key = mix(self.key ^ row as u64);
        DropoutRow { low: key as u32, high: (key >> 32) as u32, threshold: self.threshold, keep: self.keep }
    }

    /// The mask of a whole matrix, row by row.
    pub fn matrix(&self, rows: usize, columns: usize) -> Vec<f32> {
        let row = |row| self.row(row);
        (0..rows).flat_map(|at| (0..columns).map(move |column| row(at).factor(column))).collect()
    }
}

impl DropoutRow {
    /// The factor at a column: 0, or `1 / (1 - rate)`.
    ///
    /// Two rounds of multiplication and shift (the finaliser of MurmurHash3) of the column's place in a sequence that
    /// steps by the golden ratio.
    #[inline(always)]
    pub fn factor(&self, column: usize) -> f32 {
        let mut hash = self.low.wrapping_add((column as u32).wrapping_mul(0x9e37_79b9));
        hash ^= hash >> 16;
        hash = hash.wrapping_mul(0x85eb_ca6b) ^ self.high;
        hash ^= hash >> 13;
        hash = hash.wrapping_mul(0xc2b2_ae35);
        hash ^= hash >> 16;
        if hash < self.threshold { 0.0 } else { self.keep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_as_frequent_as_asked_and_independent() {
        let (rows, columns) = (2000, 256);
        let mask = Dropout::new(0.1, 3).matrix(rows, columns);
        let zero = |at: usize| f64::from(u8::from(mask[at] == 0.0));
        let count = mask.len() as f64;
        let share = (0..mask.len()).map(zero).sum::<f64>() / count;
        assert!((share - 0.1).abs() < 5.0 * (0.09 / count).sqrt(), "{share}");
        assert!(mask.iter().all(|&value| value == 0.0 || (value - 1.0 / 0.9).abs() < 1e-6));
        // Neighbours in a row and in a column are both dropped as often as chance has it.
        for step in [1, 2, 16, columns, 2 * columns] {
            let both = (0..mask.len() - step).map(|at| zero(at) * zero(at + step)).sum::<f64>() / count;
            assert!((both - 0.01).abs() < 6.0 * (0.0099 / count).sqrt(), "{step}: {both}");
        }
        assert_ne!(mask, Dropout::new(0.1, 4).matrix(rows, columns));
    }
}
