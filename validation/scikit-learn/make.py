"""Answers of scikit-learn and SciPy that the tests of jetgraft-stats compare with.

    python make.py            writes expected.json beside this file

Inputs are stored with the answers, so the tests need no Python and no random generator in common.
"""
import json
from pathlib import Path

import numpy
import scipy
import sklearn
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import accuracy_score, brier_score_loss, roc_auc_score, roc_curve

rng = numpy.random.default_rng(20240917)


def roc_case(name, scores, labels, weights=None):
    scores = numpy.asarray(scores, float)
    labels = numpy.asarray(labels, int)
    fpr, tpr, thresholds = roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    return {
        "name": name,
        "scores": scores.tolist(),
        "labels": [bool(x) for x in labels],
        "weights": None if weights is None else [float(w) for w in weights],
        # The first point of scikit-learn is the origin with an infinite threshold.
        "false_positive_rate": fpr[1:].tolist(),
        "true_positive_rate": tpr[1:].tolist(),
        "thresholds": thresholds[1:].tolist(),
        "auc": float(roc_auc_score(labels, scores, sample_weight=weights)),
        "accuracy_at_half": float(accuracy_score(labels, scores >= 0.5)),
    }


def toy(n_signal, n_background, shift, digits=None):
    scores = numpy.concatenate([rng.normal(shift, 1, n_signal), rng.normal(0, 1, n_background)])
    if digits is not None:
        scores = numpy.round(scores, digits)
    labels = numpy.concatenate([numpy.ones(n_signal, int), numpy.zeros(n_background, int)])
    order = rng.permutation(len(scores))
    return scores[order], labels[order]


roc_cases = [roc_case("smooth", *toy(120, 180, 1.2)), roc_case("ties", *toy(150, 100, 0.8, digits=0))]
roc_cases.append(roc_case("two events", [0.3, 0.7], [0, 1]))
roc_cases.append(roc_case("two events, wrong way", [0.7, 0.3], [0, 1]))
roc_cases.append(roc_case("few events with a tie", [0.1, 0.4, 0.4, 0.8, 0.2], [0, 0, 1, 1, 1]))
roc_cases.append(roc_case("separable", [0.1, 0.2, 0.3, 0.8, 0.9], [0, 0, 0, 1, 1]))
roc_cases.append(roc_case("constant", [0.5] * 7, [0, 1, 0, 0, 1, 1, 0]))
roc_cases.append(roc_case("one signal event", *toy(1, 60, 1.0)))
scores, labels = toy(90, 130, 1.0)
roc_cases.append(roc_case("weights", scores, labels, rng.exponential(1.0, 220)))
scores, labels = toy(90, 130, 1.0, digits=0)
weights = rng.exponential(1.0, 220)
weights[::7] = 0.0
roc_cases.append(roc_case("weights, ties and zeros", scores, labels, weights))

intervals = []
for k, n in [(0, 10), (1, 10), (5, 10), (10, 10), (3, 1000), (28, 50000), (450000, 1000000), (999999, 1000000)]:
    for level in [0.68, 0.95, 0.99]:
        test = stats.binomtest(k, n)
        exact = test.proportion_ci(level, method="exact")
        wilson = test.proportion_ci(level, method="wilson")
        upper = stats.binomtest(k, n, alternative="less").proportion_ci(level, method="exact").high
        intervals.append({"count": k, "total": n, "level": level, "exact": [float(exact.low), float(exact.high)],
                          "wilson": [float(wilson.low), float(wilson.high)], "upper": float(upper)})

students = []
for k in [2, 3, 5, 10, 30]:
    values = rng.normal(0.9, 0.01, k)
    for level in [0.68, 0.95]:
        half = float(stats.t.ppf(0.5 + level / 2, k - 1) * values.std(ddof=1) / numpy.sqrt(k))
        students.append({"values": values.tolist(), "level": level, "mean": float(values.mean()), "half": half})

signs = [{"few": a, "many": b, "p": float(stats.binomtest(a, a + b).pvalue)}
         for a, b in [(0, 1), (2, 8), (8, 2), (5, 5), (40, 61), (450, 560)]]

divergences = []
for bins in [2, 5, 40]:
    p, q = rng.integers(0, 50, bins) + numpy.arange(bins) % 2, rng.integers(0, 50, bins)
    p[0] += 1
    q[0] += 1
    divergences.append({"p": [float(x) for x in p], "q": [float(x) for x in q], "distance": float(jensenshannon(p, q, base=2))})

kolmogorov = []
for na, nb, shift in [(30, 40, 0.0), (200, 300, 0.3), (50, 50, 1.5)]:
    a, b = rng.normal(0, 1, na), rng.normal(shift, 1, nb)
    kolmogorov.append({"a": a.tolist(), "b": b.tolist(), "statistic": float(stats.ks_2samp(a, b, method="asymp").statistic),
                       "p": float(stats.ks_2samp(a, b, method="exact").pvalue)})

p = rng.uniform(0, 1, 200)
y = rng.uniform(0, 1, 200) < p
brier = {"probabilities": p.tolist(), "labels": [bool(v) for v in y], "brier": float(brier_score_loss(y, p))}

out = {
    "versions": {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__, "numpy": numpy.__version__},
    "roc": roc_cases, "intervals": intervals, "student": students, "sign_test": signs,
    "jensen_shannon": divergences, "kolmogorov_smirnov": kolmogorov, "brier": brier,
}
path = Path(__file__).with_name("expected.json")
path.write_text(json.dumps(out, indent=None, separators=(",", ":")) + "\n")
print(f"{path.name}: {path.stat().st_size} bytes")
