//! What must hold for any input: invariances, agreement of twins, and errors instead of panics.

use jetgraft_stats::compare::{auc_difference, error_reduction};
use jetgraft_stats::histogram::{Axis, Histogram};
use jetgraft_stats::proportion::{clopper_pearson, wilson};
use jetgraft_stats::rejection::{Rejection, SeedRejection, SeedRejectionEstimate};
use jetgraft_stats::roc::Roc;
use jetgraft_stats::{Bootstrap, StatsError};
use proptest::prelude::*;

/// Scores on a coarse grid, so that ties are common, with both classes present.
fn scored() -> impl Strategy<Value = (Vec<f64>, Vec<bool>)> {
    prop::collection::vec((-20..20_i32, any::<bool>()), 2..60).prop_map(|rows| {
        let mut labels: Vec<bool> = rows.iter().map(|r| r.1).collect();
        (labels[0], labels[1]) = (true, false);
        (rows.iter().map(|r| f64::from(r.0) / 4.0).collect(), labels)
    })
}

/// AUC by all pairs, the slow obvious twin.
fn auc_by_pairs(scores: &[f64], labels: &[bool]) -> f64 {
    let (mut sum, mut pairs) = (0.0, 0.0);
    for (s, _) in scores.iter().zip(labels).filter(|r| *r.1) {
        for (b, _) in scores.iter().zip(labels).filter(|r| !*r.1) {
            pairs += 1.0;
            sum += if s > b {
                1.0
            } else if s == b {
                0.5
            } else {
                0.0
            };
        }
    }
    sum / pairs
}

/// DeLong's variance of AUC(a) - AUC(b) from all pairs.
fn delong_by_pairs(a: &[f64], b: &[f64], labels: &[bool]) -> f64 {
    let psi = |x: f64, y: f64| {
        if x > y {
            1.0
        } else if x == y {
            0.5
        } else {
            0.0
        }
    };
    let rows = |class: bool| (0..labels.len()).filter(|&i| labels[i] == class).collect::<Vec<usize>>();
    let (signal, background) = (rows(true), rows(false));
    let kernel = |i: usize, j: usize| psi(a[i], a[j]) - psi(b[i], b[j]);
    let part = |own: &[usize], other: &[usize], kernel: &dyn Fn(usize, usize) -> f64| {
        let v: Vec<f64> = own
            .iter()
            .map(|&i| other.iter().map(|&j| kernel(i, j)).sum::<f64>() / other.len() as f64)
            .collect();
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (v.len() as f64 * (v.len() as f64 - 1.0))
    };
    part(&signal, &background, &kernel) + part(&background, &signal, &|j, i| kernel(i, j))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn auc_is_the_share_of_ordered_pairs((scores, labels) in scored()) {
        let roc = Roc::new(&scores, &labels).unwrap();
        prop_assert!((roc.auc() - auc_by_pairs(&scores, &labels)).abs() < 1e-12);
    }

    #[test]
    fn monotone_maps_change_nothing((scores, labels) in scored()) {
        let roc = Roc::new(&scores, &labels).unwrap();
        let mapped: Vec<f64> = scores.iter().map(|s| (0.7 * s).exp() - 3.0).collect();
        let other = Roc::new(&mapped, &labels).unwrap();
        prop_assert_eq!(roc.auc(), other.auc());
        prop_assert_eq!(roc.points().len(), other.points().len());
        for (p, q) in roc.points().iter().zip(other.points()) {
            prop_assert_eq!((p.signal_count, p.background_count), (q.signal_count, q.background_count));
        }
        let (a, b) = (Rejection::at(&roc, 0.5, 0.95).unwrap(), Rejection::at(&other, 0.5, 0.95).unwrap());
        prop_assert_eq!(a.estimate, b.estimate);
    }

    #[test]
    fn flipped_labels_or_scores_give_one_minus_auc((scores, labels) in scored()) {
        let auc = Roc::new(&scores, &labels).unwrap().auc();
        let flipped: Vec<bool> = labels.iter().map(|l| !l).collect();
        prop_assert!((Roc::new(&scores, &flipped).unwrap().auc() - (1.0 - auc)).abs() < 1e-12);
        let negative: Vec<f64> = scores.iter().map(|s| -s).collect();
        prop_assert!((Roc::new(&negative, &labels).unwrap().auc() - (1.0 - auc)).abs() < 1e-12);
    }

    #[test]
    fn order_of_events_and_equal_weights_change_nothing((scores, labels) in scored(), weight in 0.1..9.0_f64) {
        let roc = Roc::new(&scores, &labels).unwrap();
        let (rs, rl): (Vec<f64>, Vec<bool>) = scores.iter().copied().zip(labels.iter().copied()).rev().unzip();
        let reversed = Roc::new(&rs, &rl).unwrap();
        prop_assert_eq!(roc.points(), reversed.points());
        prop_assert_eq!(roc.auc(), reversed.auc());
        let weighted = Roc::with_weights(&scores, &labels, &vec![weight; scores.len()]).unwrap();
        prop_assert!((weighted.auc() - roc.auc()).abs() < 1e-12);
        if let (Ok(a), Ok(b)) = (roc.auc_interval(0.9), weighted.auc_interval(0.9)) {
            prop_assert!((a.low - b.low).abs() < 1e-9 && (a.high - b.high).abs() < 1e-9);
        }
    }

    #[test]
    fn a_weight_of_two_is_a_doubled_event((scores, labels) in scored(), pick in prop::collection::vec(1..3_usize, 60)) {
        let weights: Vec<f64> = (0..scores.len()).map(|i| pick[i] as f64).collect();
        let rows: Vec<usize> = (0..scores.len()).flat_map(|i| std::iter::repeat_n(i, pick[i])).collect();
        let doubled_scores: Vec<f64> = rows.iter().map(|&i| scores[i]).collect();
        let doubled_labels: Vec<bool> = rows.iter().map(|&i| labels[i]).collect();
        let weighted = Roc::with_weights(&scores, &labels, &weights).unwrap();
        let doubled = Roc::new(&doubled_scores, &doubled_labels).unwrap();
        prop_assert!((weighted.auc() - doubled.auc()).abs() < 1e-12);
        for (p, q) in weighted.points().iter().zip(doubled.points()) {
            prop_assert!((p.background_efficiency - q.background_efficiency).abs() < 1e-12);
        }
    }

    #[test]
    fn the_curve_is_monotone_and_ends_at_one((scores, labels) in scored(), at in 0.0..1.0_f64) {
        let roc = Roc::new(&scores, &labels).unwrap();
        prop_assert!(roc.points().windows(2).all(|p| p[0].threshold > p[1].threshold
            && p[0].signal_efficiency <= p[1].signal_efficiency
            && p[0].background_efficiency <= p[1].background_efficiency));
        let last = roc.points().last().unwrap();
        prop_assert_eq!((last.signal_efficiency, last.background_efficiency), (1.0, 1.0));
        let (here, more) = (roc.background_efficiency_at(at).unwrap(), roc.background_efficiency_at(1.0).unwrap());
        prop_assert!((0.0..=1.0).contains(&here) && here <= more);
        let band = roc.band(&[0.25, 0.5, 1.0], 0.68).unwrap();
        prop_assert!(band.iter().all(|b| b.low <= b.background_efficiency && b.background_efficiency <= b.high));
    }

    #[test]
    fn intervals_hold_their_value_and_stay_in_range((scores, labels) in scored(), level in 0.01..0.999_f64) {
        let roc = Roc::new(&scores, &labels).unwrap();
        if let Ok(i) = roc.auc_interval(level) {
            prop_assert!(0.0 <= i.low && i.low <= i.value && i.value <= i.high && i.high <= 1.0, "{:?}", i);
        }
        let other: Vec<f64> = scores.iter().enumerate().map(|(i, s)| if i % 3 == 0 { -s } else { *s }).collect();
        for target in [0.02, 0.3, 0.97, 1.0] {
            let single = Rejection::at(&roc, target, level).unwrap().estimate;
            let mut intervals: Vec<_> = single.interval().into_iter().cloned().collect();
            if labels.iter().filter(|&&signal| !signal).count() > 1 {
                let seeds = SeedRejection::new(&[&scores, &other], &labels, target, level).unwrap();
                if let SeedRejectionEstimate::Measured { parts } = seeds.estimate {
                    prop_assert!(parts.total.high >= parts.seeds.high * (1.0 - 1e-12), "{:?}", parts);
                    intervals.extend([parts.total, parts.seeds, parts.events]);
                }
            }
            for i in intervals {
                let near = 1.0 + 1e-12;
                prop_assert!(1.0 <= i.low && i.low <= i.value * near && i.value <= i.high * near, "{:?}", i);
                prop_assert!(i.high.is_finite(), "{:?}", i);
            }
        }
    }

    #[test]
    fn delong_by_ranks_equals_delong_by_pairs(
        rows in prop::collection::vec((-9..9_i32, -9..9_i32, any::<bool>()), 4..40),
    ) {
        let (a, b): (Vec<f64>, Vec<f64>) = rows.iter().map(|r| (f64::from(r.0), f64::from(r.1))).unzip();
        let labels: Vec<bool> = rows.iter().enumerate().map(|(i, r)| if i < 4 { i % 2 == 0 } else { r.2 }).collect();
        let difference = auc_difference(&a, &b, &labels, 0.95).unwrap();
        // Two separable networks follow another rule, tested beside it.
        prop_assume!(difference.auc_a != difference.auc_b || !(difference.auc_a == 0.0 || difference.auc_a == 1.0));
        let variance = (difference.difference.half_width() / 1.959_963_984_540_054).powi(2);
        prop_assert!((variance - delong_by_pairs(&a, &b, &labels)).abs() < 1e-12);
        prop_assert!((difference.difference.value - (auc_by_pairs(&a, &labels) - auc_by_pairs(&b, &labels))).abs() < 1e-12);
    }

    #[test]
    fn proportions_mirror(n in 1..5000_u64, share in 0.0..=1.0_f64, level in 0.05..0.999_f64) {
        let k = (share * n as f64).round() as u64;
        for interval in [clopper_pearson, wilson] {
            let (a, b) = (interval(k, n, level).unwrap(), interval(n - k, n, level).unwrap());
            prop_assert!((a.low - (1.0 - b.high)).abs() < 1e-9 && (a.high - (1.0 - b.low)).abs() < 1e-9);
            prop_assert!(0.0 <= a.low && a.low <= a.value && a.value <= a.high && a.high <= 1.0, "{:?}", a);
        }
    }

    #[test]
    fn error_reduction_never_breaks(rows in prop::collection::vec((any::<bool>(), any::<bool>()), 1..80)) {
        let (t, s): (Vec<bool>, Vec<bool>) = rows.iter().copied().unzip();
        let result = error_reduction(&t, &s, 0.95).unwrap();
        match result.interval() {
            Some(i) => prop_assert!(i.low.is_finite() && i.low <= i.value + 1e-12 && i.value <= i.high + 1e-12 && i.high <= 1.0, "{:?}", i),
            None => prop_assert!(s.iter().all(|&c| c)),
        }
    }

    #[test]
    fn nothing_is_lost_in_a_histogram(values in prop::collection::vec(any::<f64>(), 0..50)) {
        let mut h = Histogram::new(Axis::regular(7, -2.0, 3.0).unwrap());
        h.fill_all(&values);
        let inside: u64 = h.bins().iter().map(|b| b.entries).sum();
        prop_assert_eq!(inside + h.under().entries + h.over().entries + h.nan().entries, values.len() as u64);
    }

    #[test]
    fn bootstrap_repeats(seed in any::<u64>()) {
        let x = [0.1, 0.9, 0.3, 0.7, 0.5];
        let mean = |rows: &[usize]| rows.iter().map(|&i| x[i]).sum::<f64>() / rows.len() as f64;
        let b = Bootstrap { seed, replicates: 100, ..Bootstrap::default() };
        prop_assert_eq!(b.events(5, mean).unwrap(), b.events(5, mean).unwrap());
    }
}

#[test]
fn hostile_scores_are_named() {
    let error = |scores: &[f64], labels: &[bool]| Roc::new(scores, labels).unwrap_err();
    assert!(matches!(error(&[], &[]), StatsError::TooFew { found: 0, .. }));
    assert!(matches!(
        error(&[0.1, 0.2], &[true]),
        StatsError::LengthMismatch { left_len: 2, right_len: 1, .. }
    ));
    assert!(matches!(
        error(&[0.1, 0.2], &[true, true]),
        StatsError::OneClass { present: "signal", total: 2 }
    ));
    assert!(matches!(
        error(&[0.1, 0.2], &[false, false]),
        StatsError::OneClass { present: "background", .. }
    ));
    let nan = error(&[0.1, f64::NAN], &[true, false]);
    assert_eq!(nan.to_string(), "score[1] is NaN; expected a finite number");
    assert!(nan.hint().is_some());
    assert!(matches!(error(&[f64::INFINITY, 0.0], &[true, false]), StatsError::NotFinite { index: 0, .. }));
    let weighted = |w: &[f64]| Roc::with_weights(&[0.1, 0.2], &[true, false], w).unwrap_err();
    assert!(matches!(weighted(&[1.0, -1.0]), StatsError::Negative { index: 1, .. }));
    assert!(matches!(weighted(&[1.0, f64::NAN]), StatsError::NotFinite { index: 1, .. }));
    assert!(matches!(weighted(&[1.0]), StatsError::LengthMismatch { .. }));
    assert!(matches!(weighted(&[1.0, 0.0]), StatsError::OneClass { present: "signal", .. }));
    let roc = Roc::new(&[0.1, 0.2], &[true, false]).unwrap();
    for level in [0.0, 1.0, 95.0, f64::NAN] {
        assert!(matches!(roc.band(&[0.5], level), Err(StatsError::OutOfRange { .. })));
        assert!(matches!(Rejection::at(&roc, 0.5, level), Err(StatsError::OutOfRange { .. })));
        assert!(matches!(clopper_pearson(1, 2, level), Err(StatsError::OutOfRange { .. })));
    }
    for target in [-0.1, 1.1, f64::NAN] {
        assert!(matches!(roc.background_efficiency_at(target), Err(StatsError::OutOfRange { .. })));
        assert!(matches!(roc.band(&[target], 0.9), Err(StatsError::OutOfRange { .. })));
    }
    assert!(matches!(clopper_pearson(3, 2, 0.9), Err(StatsError::CountAboveTotal { count: 3, total: 2 })));
    assert!(matches!(wilson(0, 0, 0.9), Err(StatsError::TooFew { .. })));
}
