//! Quantiles that the intervals need.
//!
//! `statrs` gives `ln_gamma`, `erfc` and `erfc_inv`. Its incomplete beta function stops its continued fraction after
//! a fixed number of terms, too few for a million events (the fraction needs about the square root of the larger
//! shape), so the beta function and its quantile are written here and compared with SciPy on stored values.

use statrs::function::{erf, gamma};

/// Phi(z), the standard normal distribution.
pub(crate) fn normal_cdf(z: f64) -> f64 {
    0.5 * erf::erfc(-z / std::f64::consts::SQRT_2)
}

/// Quantile of the standard normal distribution; `p` in (0, 1).
pub(crate) fn normal_quantile(p: f64) -> f64 {
    -std::f64::consts::SQRT_2 * erf::erfc_inv(2.0 * p)
}

/// Two-sided normal factor: 1.96 for a level of 0.95.
pub(crate) fn two_sided_z(level: f64) -> f64 {
    -normal_quantile(0.5 * (1.0 - level))
}

/// Two-sided p-value of a normal deviate.
pub(crate) fn two_sided_p(z: f64) -> f64 {
    erf::erfc(z.abs() / std::f64::consts::SQRT_2).min(1.0)
}

/// Regularised incomplete beta function I_x(a, b) with x given by its log odds `y = ln(x / (1 - x))`, so that both
/// tails keep their digits.
fn beta_regularised_logit(a: f64, b: f64, y: f64) -> f64 {
    // ln x and ln(1 - x) without cancellation on either side.
    let (ln_x, ln_1x) = ln_sigmoid_pair(y);
    let x = ln_x.exp();
    // The fraction converges fast for x below the mean; above it the symmetry swaps the roles.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_tail(b, a, ln_1x, ln_x);
    }
    beta_tail(a, b, ln_x, ln_1x)
}

fn ln_sigmoid_pair(y: f64) -> (f64, f64) {
    let small = (-y.abs()).exp().ln_1p();
    if y >= 0.0 { (-small, -y - small) } else { (y - small, -small) }
}

/// ln of x^a (1 - x)^b / B(a, b).
fn ln_beta_power(a: f64, b: f64, ln_x: f64, ln_1x: f64) -> f64 {
    gamma::ln_gamma(a + b) - gamma::ln_gamma(a) - gamma::ln_gamma(b) + a * ln_x + b * ln_1x
}

/// Continued fraction of I_x(a, b) by Lentz's method (DLMF 8.17.22).
fn beta_tail(a: f64, b: f64, ln_x: f64, ln_1x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let x = ln_x.exp();
    let guard = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    // Needs O(sqrt(max(a, b))) terms: 200 000 serve 10^10 events.
    for i in 1..200_000 {
        let m = f64::from(i);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / guard(1.0 + even * d);
        c = guard(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / guard(1.0 + odd * d);
        c = guard(1.0 + odd / c);
        let step = d * c;
        fraction *= step;
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    ln_beta_power(a, b, ln_x, ln_1x).exp() * fraction / a
}

/// Log odds of the quantile `p` of the beta distribution: Newton's method inside a shrinking bracket.
fn beta_quantile_logit(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (-745.0_f64, 745.0_f64);
    // Start at the mean.
    let mut y = (a / b).ln().clamp(-700.0, 700.0);
    for _ in 0..200 {
        let excess = beta_regularised_logit(a, b, y) - p;
        if excess > 0.0 {
            high = y;
        } else {
            low = y;
        }
        let (ln_x, ln_1x) = ln_sigmoid_pair(y);
        // dI/dy = x^a (1 - x)^b / B(a, b).
        let slope = ln_beta_power(a, b, ln_x, ln_1x).exp();
        let newton = y - excess / slope;
        let next =
            if newton.is_finite() && newton > low && newton < high { newton } else { 0.5 * (low + high) };
        if (next - y).abs() <= 1e-14 * (1.0 + y.abs()) {
            return next;
        }
        y = next;
    }
    y
}

/// Quantile `p` of the beta distribution with shapes `a`, `b` above zero.
pub(crate) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    ln_sigmoid_pair(beta_quantile_logit(p, a, b)).0.exp()
}

/// Two-sided Student factor for `freedom` degrees of freedom: 4.303 for a level of 0.95 and two.
pub(crate) fn two_sided_t(level: f64, freedom: f64) -> f64 {
    // P(|T| > t) = I_x(f/2, 1/2) with x = f / (f + t^2), hence t^2 = f (1 - x) / x.
    let y = beta_quantile_logit(1.0 - level, 0.5 * freedom, 0.5);
    (freedom * (-y).exp()).sqrt()
}

/// P(X <= k) for X binomial with n trials of probability one half; the sign test.
pub(crate) fn binomial_half_cdf(k: u64, n: u64) -> f64 {
    if k >= n {
        return 1.0;
    }
    beta_regularised_logit((n - k) as f64, k as f64 + 1.0, 0.0)
}

/// Smallest k with P(X <= k) >= `q`, X binomial with `n` trials of probability `p` in (0, 1]; by halving.
pub(crate) fn binomial_quantile(q: f64, n: u64, p: f64) -> u64 {
    if p >= 1.0 {
        return n;
    }
    // P(X <= k) = I_{1-p}(n - k, k + 1) for k below n.
    let log_odds = ((1.0 - p) / p).ln();
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low) / 2;
        if beta_regularised_logit((n - middle) as f64, middle as f64 + 1.0, log_odds) >= q {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// P(X = k) for X binomial with n trials of probability one half.
pub(crate) fn binomial_half_pmf(k: u64, n: u64) -> f64 {
    let (k, n) = (k as f64, n as f64);
    let ln_choose = gamma::ln_gamma(n + 1.0) - gamma::ln_gamma(k + 1.0) - gamma::ln_gamma(n - k + 1.0);
    (ln_choose - n * std::f64::consts::LN_2).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64, relative: f64) {
        assert!((found - expected).abs() <= relative * expected.abs(), "found {found}, expected {expected}");
    }

    #[test]
    fn quantiles_known_in_closed_form() {
        // I_x(1, b) = 1 - (1 - x)^b and I_x(a, 1) = x^a.
        // The tolerance grows with b: ln_gamma(b) is rounded to 16 digits of b ln b before the difference is taken.
        for (b, tolerance) in [(1.0, 1e-13), (7.0, 1e-13), (50_000.0, 1e-11), (1e9, 1e-6)] {
            close(beta_quantile(0.95, 1.0, b), -(0.05_f64.ln() / b).exp_m1(), tolerance);
        }
        close(beta_quantile(0.025, 400.0, 1.0), 0.025_f64.powf(1.0 / 400.0), 1e-13);
        // Student with one degree of freedom is Cauchy, with two it is algebraic.
        close(two_sided_t(0.95, 1.0), (0.475 * std::f64::consts::PI).tan(), 1e-12);
        close(two_sided_t(0.95, 2.0), 0.95 * (2.0 / (1.0 - 0.95_f64.powi(2))).sqrt(), 1e-12);
        close(two_sided_z(0.95), 1.959_963_984_540_054, 1e-13);
        // Many degrees of freedom: z + (z^3 + z) / (4 f) + O(1 / f^2).
        let z = two_sided_z(0.95);
        close(two_sided_t(0.95, 1e5), z + (z.powi(3) + z) / 4e5, 1e-9);
    }

    #[test]
    fn sign_test_sums() {
        close(binomial_half_cdf(2, 10), 56.0 / 1024.0, 1e-12);
        close(binomial_half_pmf(2, 10), 45.0 / 1024.0, 1e-12);
        assert_eq!(binomial_half_cdf(10, 10), 1.0);
    }

    /// Against the sum of the probabilities, term by term.
    #[test]
    fn binomial_quantiles() {
        for (n, p) in [(1_u64, 0.3_f64), (7, 0.01), (10, 0.5), (300, 0.5), (1500, 0.98)] {
            for q in [0.025, 0.16, 0.5, 0.975] {
                let (mut sum, mut k) = (0.0, 0);
                loop {
                    let (x, t) = (k as f64, n as f64);
                    let ln_choose =
                        gamma::ln_gamma(t + 1.0) - gamma::ln_gamma(x + 1.0) - gamma::ln_gamma(t - x + 1.0);
                    sum += (ln_choose + x * p.ln() + (t - x) * (1.0 - p).ln()).exp();
                    if sum >= q - 1e-12 || k == n {
                        break;
                    }
                    k += 1;
                }
                assert_eq!(binomial_quantile(q, n, p), k, "n {n}, p {p}, q {q}");
            }
        }
        assert_eq!(binomial_quantile(0.025, 40, 1.0), 40);
    }
}
