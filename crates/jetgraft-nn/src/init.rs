//! Initial values and masks that depend on a seed and a name only, never on the order of creation.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `count` values, uniform in `[-bound, bound)`, drawn from `seed` and the tensor's `name`.
pub fn uniform(seed: u64, name: &str, count: usize, bound: f32) -> Vec<f32> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    let mut random = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
    (0..count)
        .map(|_| {
            // 24 random bits: every value is exact in f32.
            let unit = (random.next_u32() >> 8) as f32 * (1.0 / (1u32 << 24) as f32);
            (2.0 * unit - 1.0) * bound
        })
        .collect()
}

/// `count` values from a normal distribution of mean 0 and the given standard deviation, drawn from `seed` and the
/// tensor's `name` (Box and Muller 1958).
pub fn normal(seed: u64, name: &str, count: usize, deviation: f64) -> Vec<f32> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    let mut random = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
    // In (0, 1], so that its logarithm is finite.
    let mut unit = || ((random.next_u64() >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64);
    (0..count)
        .map(|_| {
            let radius = (-2.0 * unit().ln()).sqrt();
            (deviation * radius * (2.0 * std::f64::consts::PI * unit()).cos()) as f32
        })
        .collect()
}

/// Dropout mask of a `[rows, columns]` activation: 0 with probability `rate`, else `1 / (1 - rate)`.
///
/// The entry at a position is a hash of the seed and the position (SplitMix64's finaliser), so the mask does
/// not depend on threads or on how rows are cut.
pub fn dropout_mask(seed: u64, rows: usize, columns: usize, rate: f64) -> Vec<f32> {
    let keep = (1.0 / (1.0 - rate)) as f32;
    let threshold = (rate * 2f64.powi(64)) as u64;
    let key = mix(seed ^ 0x6a09_e667_f3bc_c908);
    (0..rows as u64 * columns as u64)
        .map(|position| if mix(key.wrapping_add(mix(position))) < threshold { 0.0 } else { keep })
        .collect()
}

/// The seed of one use of a step's seed, such as one dropout of many.
pub fn named_seed(seed: u64, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    let mut bytes = [0u8; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// SplitMix64's finaliser: a hash of one number.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_depend_on_seed_and_name_only() {
        assert_eq!(uniform(1, "a", 10, 0.5), uniform(1, "a", 10, 0.5));
        assert_ne!(uniform(1, "a", 10, 0.5), uniform(1, "b", 10, 0.5));
        assert_ne!(uniform(1, "a", 10, 0.5), uniform(2, "a", 10, 0.5));
        let many = uniform(3, "w", 40_000, 0.25);
        assert!(many.iter().all(|value| value.abs() <= 0.25));
        let mean = many.iter().sum::<f32>() / 4e4;
        let square = many.iter().map(|value| value * value).sum::<f32>() / 4e4;
        // Mean 0 and variance bound^2 / 3, each within five standard errors.
        assert!(mean.abs() < 5.0 * 0.25 / (3f32 * 4e4).sqrt());
        assert!((square - 0.0625 / 3.0).abs() < 5.0 * 0.0625 * (4.0f32 / 45.0 / 4e4).sqrt());
    }

    #[test]
    fn normal_values_have_their_moments() {
        assert_eq!(normal(1, "a", 10, 0.5), normal(1, "a", 10, 0.5));
        assert_ne!(normal(1, "a", 10, 0.5), normal(2, "a", 10, 0.5));
        let many: Vec<f64> =
            normal(3, "w", 40_000, 0.25).into_iter().map(|value| f64::from(value) / 0.25).collect();
        let moment = |power: i32| many.iter().map(|value| value.powi(power)).sum::<f64>() / 4e4;
        // Moments 0, 1 and 3 with variances 1, 2 and 96 per value, each within five standard errors.
        assert!(moment(1).abs() < 5.0 / 200.0);
        assert!((moment(2) - 1.0).abs() < 5.0 * 2f64.sqrt() / 200.0);
        assert!((moment(4) - 3.0).abs() < 5.0 * 96f64.sqrt() / 200.0);
    }

    #[test]
    fn masks_keep_the_mean() {
        let mask = dropout_mask(7, 500, 256, 0.1);
        let dropped = mask.iter().filter(|&&value| value == 0.0).count() as f64;
        assert!((dropped / 128e3 - 0.1).abs() < 5.0 * (0.09f64 / 128e3).sqrt());
        assert!(mask.iter().all(|&value| value == 0.0 || (value - 1.0 / 0.9).abs() < 1e-6));
        assert_ne!(mask, dropout_mask(8, 500, 256, 0.1));
        // A longer batch begins with the same rows.
        assert_eq!(mask[..2560], dropout_mask(7, 10, 256, 0.1));
    }
}
