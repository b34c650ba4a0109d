//! Agreement with scikit-learn and SciPy on the cases of `validation/scikit-learn/`.

use jetgraft_stats::calibration::reliability;
use jetgraft_stats::compare::mcnemar;
use jetgraft_stats::distance::{divergence, kolmogorov_smirnov};
use jetgraft_stats::proportion::{accuracy, clopper_pearson, clopper_pearson_upper, wilson};
use jetgraft_stats::roc::Roc;
use jetgraft_stats::seeds::mean_interval;
use jetgraft_stats::{Bootstrap, StatsError};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    roc: Vec<RocCase>,
    intervals: Vec<IntervalCase>,
    student: Vec<StudentCase>,
    sign_test: Vec<SignCase>,
    jensen_shannon: Vec<DivergenceCase>,
    kolmogorov_smirnov: Vec<KolmogorovCase>,
    brier: BrierCase,
}

#[derive(Deserialize)]
struct RocCase {
    name: String,
    scores: Vec<f64>,
    labels: Vec<bool>,
    weights: Option<Vec<f64>>,
    false_positive_rate: Vec<f64>,
    true_positive_rate: Vec<f64>,
    thresholds: Vec<f64>,
    auc: f64,
    accuracy_at_half: f64,
}

#[derive(Deserialize)]
struct IntervalCase {
    count: u64,
    total: u64,
    level: f64,
    exact: [f64; 2],
    wilson: [f64; 2],
    upper: f64,
}

#[derive(Deserialize)]
struct StudentCase {
    values: Vec<f64>,
    level: f64,
    mean: f64,
    half: f64,
}

#[derive(Deserialize)]
struct SignCase {
    few: usize,
    many: usize,
    p: f64,
}

#[derive(Deserialize)]
struct DivergenceCase {
    p: Vec<f64>,
    q: Vec<f64>,
    distance: f64,
}

#[derive(Deserialize)]
struct KolmogorovCase {
    a: Vec<f64>,
    b: Vec<f64>,
    statistic: f64,
    p: f64,
}

#[derive(Deserialize)]
struct BrierCase {
    probabilities: Vec<f64>,
    labels: Vec<bool>,
    brier: f64,
}

fn expected() -> Expected {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../validation/scikit-learn/expected.json");
    let text = std::fs::read_to_string(path).expect("the file is part of the repository");
    serde_json::from_str(&text).expect("the file has this form")
}

fn close(what: &str, found: f64, expected: f64, absolute: f64, relative: f64) {
    let allowed = absolute + relative * expected.abs();
    assert!((found - expected).abs() <= allowed, "{what}: found {found}, expected {expected}");
}

#[test]
fn roc_curves_and_areas() {
    let cases = expected().roc;
    assert!(cases.len() >= 10);
    for case in cases {
        let roc = match &case.weights {
            None => Roc::new(&case.scores, &case.labels),
            Some(weights) => Roc::with_weights(&case.scores, &case.labels, weights),
        }
        .expect("valid input");
        let name = &case.name;
        close(name, roc.auc(), case.auc, 1e-12, 0.0);
        assert_eq!(roc.points().len(), case.thresholds.len(), "{name}");
        for (i, point) in roc.points().iter().enumerate() {
            assert_eq!(point.threshold, case.thresholds[i], "{name}");
            close(name, point.signal_efficiency, case.true_positive_rate[i], 1e-12, 0.0);
            close(name, point.background_efficiency, case.false_positive_rate[i], 1e-12, 0.0);
        }
        // The area is also that of the trapezoids under the drawn curve.
        let (mut area, mut last) = (0.0, (0.0, 0.0));
        for p in roc.points() {
            area += (p.background_efficiency - last.1) * 0.5 * (p.signal_efficiency + last.0);
            last = (p.signal_efficiency, p.background_efficiency);
        }
        close(name, area, case.auc, 1e-12, 0.0);
        let correct: Vec<bool> =
            case.scores.iter().zip(&case.labels).map(|(s, l)| (*s >= 0.5) == *l).collect();
        close(name, accuracy(&correct, 0.9).expect("valid").value, case.accuracy_at_half, 1e-12, 0.0);
        if name == "one signal event" {
            assert!(matches!(roc.auc_interval(0.95), Err(StatsError::TooFew { .. })));
        }
    }
}

#[test]
fn binomial_intervals() {
    for case in expected().intervals {
        let what = format!("{} of {} at {}", case.count, case.total, case.level);
        let exact = clopper_pearson(case.count, case.total, case.level).expect("valid");
        let score = wilson(case.count, case.total, case.level).expect("valid");
        let upper = clopper_pearson_upper(case.count, case.total, case.level).expect("valid");
        close(&what, exact.low, case.exact[0], 1e-300, 1e-8);
        close(&what, exact.high, case.exact[1], 0.0, 1e-8);
        close(&what, score.low, case.wilson[0], 1e-15, 1e-8);
        close(&what, score.high, case.wilson[1], 0.0, 1e-8);
        close(&what, upper, case.upper, 0.0, 1e-8);
    }
}

#[test]
fn student_intervals() {
    for case in expected().student {
        let interval = mean_interval(&case.values, case.level).expect("valid");
        close("mean", interval.value, case.mean, 0.0, 1e-14);
        close("half width", interval.half_width(), case.half, 0.0, 1e-10);
    }
}

#[test]
fn sign_tests() {
    for case in expected().sign_test {
        let a: Vec<bool> = (0..case.few + case.many).map(|i| i < case.few).collect();
        let b: Vec<bool> = a.iter().map(|x| !x).collect();
        let test = mcnemar(&a, &b).expect("valid");
        close("p", test.p_exact, case.p, 0.0, 1e-9);
        assert!(test.p_mid <= test.p_exact);
    }
}

#[test]
fn distances() {
    let expected = expected();
    for case in expected.jensen_shannon {
        close("distance", divergence(&case.p, &case.q).expect("valid").sqrt(), case.distance, 1e-12, 0.0);
    }
    for case in expected.kolmogorov_smirnov {
        let test = kolmogorov_smirnov(&case.a, &case.b).expect("valid");
        close("statistic", test.statistic, case.statistic, 1e-14, 0.0);
        close("p", test.p_value, case.p, 0.02, 0.0);
    }
}

#[test]
fn brier_score() {
    let case = expected().brier;
    let result = reliability(&case.probabilities, &case.labels, 10, &Bootstrap::default()).expect("valid");
    close("brier", result.brier, case.brier, 1e-12, 0.0);
}
