//! Ten steps on the sample: every loss against committed numbers, so that no change of the path from file to weights
//! goes unnoticed.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{TINY_TRAIN, at, json, ok, scratch, with};

/// Training loss of each step and validation loss after it. The tolerance covers the order of sums in the matrix
/// products and fused operations of other processors (AVX2 or portable instead of AVX-512); on one machine the
/// numbers repeat bit by bit. Adam divides by the root of small second moments, which makes rounding grow with the steps.
const TOLERANCE: f64 = 2e-4;

#[test]
fn ten_steps() {
    let folder = scratch();
    let out = at(&folder, "run");
    let ten: &[&str] = &["--set", "train.budget={steps=10}", "--set", "train.evaluate_every={steps=1}"];
    ok(&with(&["train", "lundnet5-w", "--out", &out], &[TINY_TRAIN, ten]));
    let text = std::fs::read_to_string(format!("{out}/run/log.jsonl")).unwrap();
    let found: Vec<[f64; 2]> = text
        .lines()
        .map(|line| {
            let record = json(line);
            [record["training_loss"].as_f64().unwrap(), record["validation"]["loss"].as_f64().unwrap()]
        })
        .filter(|losses| losses.iter().all(|loss| loss.is_finite()))
        .collect();
    let golden =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden_train.csv")).unwrap();
    let expected: Vec<[f64; 2]> = golden
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("step"))
        .map(|line| {
            let mut numbers = line.split(',').skip(1).map(|number| number.parse().unwrap());
            [numbers.next().unwrap(), numbers.next().unwrap()]
        })
        .collect();
    let shown: String =
        found.iter().enumerate().map(|(step, [a, b])| format!("{},{a:.7},{b:.7}\n", step + 1)).collect();
    assert_eq!(found.len(), expected.len(), "found:\n{shown}");
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() <= TOLERANCE, "found:\n{shown}");
    }
}
