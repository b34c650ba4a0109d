//! How a jet's momentum is shared out: N-subjettiness, energy correlation functions, width.
//!
//! # N-subjettiness
//! How well N axes describe a jet:
//!
//! ```text
//! tau_N = sum_i pt_i min_k Delta_ik^beta / sum_i pt_i R0^beta
//! ```
//!
//! with the N axes of exclusive kt jets in the winner-take-all scheme. Small tau_N / tau_(N-1) means N prongs.
//!
//! Sources: J. Thaler, K. Van Tilburg, JHEP 03 (2011) 015, arXiv:1011.2268 and JHEP 02 (2012) 093, arXiv:1108.2701;
//! A. J. Larkoski, D. Neill, J. Thaler, JHEP 04 (2014) 017, arXiv:1401.2158 (winner-take-all axes).
//!
//! # Energy correlation functions
//! With z_i = pt_i / sum pt over the constituents and Delta in rapidity and azimuth,
//!
//! ```text
//! e2 = sum_(i<j) z_i z_j Delta_ij^beta
//! e3 = sum_(i<j<k) z_i z_j z_k (Delta_ij Delta_ik Delta_jk)^beta
//! C2 = e3 / e2^2        D2 = e3 / e2^3
//! ```
//!
//! They need no axes and no clustering. Small C2 and D2 mean two prongs.
//!
//! Sources: A. J. Larkoski, G. P. Salam, J. Thaler, JHEP 06 (2013) 108, arXiv:1305.0007 (e2, e3, C2); A. J. Larkoski, I. Moult,
//! D. Neill, JHEP 12 (2014) 009, arXiv:1409.6298 (D2).
//!
//! # Width
//! Also girth: sum_i pt_i Delta(i, jet) / sum_i pt_i, the jet being the sum of its constituents.

use serde::{Deserialize, Serialize};

use crate::cluster::{Algorithm, Clusterer, JetDefinition, Recombination};
use crate::{FourMomentum, PhysicsError, delta_phi};

/// Settings of N-subjettiness.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NSubjettiness {
    /// Power of the angle, above zero; 1 is usual with these axes.
    pub beta: f64,
    /// Angle that makes tau dimensionless, usually the jet's radius.
    pub r0: f64,
}

impl Default for NSubjettiness {
    fn default() -> Self {
        Self { beta: 1.0, r0: 1.0 }
    }
}

impl NSubjettiness {
    /// `N-subjettiness, beta = 1, R0 = 1, winner-take-all kt axes`.
    pub fn describe(&self) -> String {
        format!("N-subjettiness, beta = {}, R0 = {}, winner-take-all kt axes", self.beta, self.r0)
    }

    /// tau_1 to tau_N of one jet, N = `n_max`, from a single clustering. A jet of no more than N constituents has
    /// tau_N = 0, and so has one without pt.
    ///
    /// # Errors
    /// [`PhysicsError`] naming a constituent that cannot be used, or a setting out of range.
    pub fn taus(&self, constituents: &[FourMomentum], n_max: usize) -> Result<Vec<f64>, PhysicsError> {
        let fault = |setting, found| Err(PhysicsError::Setting { setting, found, expected: "above zero" });
        if !(self.beta > 0.0 && self.beta.is_finite()) {
            return fault("N-subjettiness beta", self.beta);
        }
        if !(self.r0 > 0.0 && self.r0.is_finite()) {
            return fault("N-subjettiness R0", self.r0);
        }
        let definition = JetDefinition::new(Algorithm::Kt, JetDefinition::RADIUS_RANGE[1])?
            .with_recombination(Recombination::WinnerTakesAll);
        let mut clusterer = Clusterer::new(definition);
        let sequence = clusterer.cluster(constituents)?;
        let points = &sequence.nodes.points;
        let particles = &points[..constituents.len()];
        let norm: f64 = particles.iter().map(|p| p.pt2.sqrt()).sum::<f64>() * self.r0.powf(self.beta);
        (1..=n_max)
            .map(|n| {
                if n >= constituents.len() || norm == 0.0 {
                    return Ok(0.0);
                }
                let axes = sequence.exclusive_jets(n)?;
                let sum: f64 = particles
                    .iter()
                    .filter(|p| p.pt2 > 0.0)
                    .map(|p| {
                        let nearest2 = axes
                            .iter()
                            .map(|axis| p.delta2(&points[axis.node as usize]))
                            .fold(f64::INFINITY, f64::min);
                        p.pt2.sqrt() * nearest2.powf(0.5 * self.beta)
                    })
                    .sum();
                Ok(sum / norm)
            })
            .collect()
    }
}

/// tau_N of one jet.
///
/// # Errors
/// As [`NSubjettiness::taus`]; also for n = 0, which has no axes.
pub fn n_subjettiness(
    constituents: &[FourMomentum],
    n: usize,
    settings: &NSubjettiness,
) -> Result<f64, PhysicsError> {
    match settings.taus(constituents, n)?.pop() {
        Some(tau) => Ok(tau),
        None => Err(PhysicsError::Setting {
            setting: "number of subjets",
            found: n as f64,
            expected: "one or more",
        }),
    }
}

/// tau_N / tau_(N-1), `None` where the denominator is zero (too few constituents, or all on the axes).
///
/// # Errors
/// As [`NSubjettiness::taus`]; also for n below 2.
pub fn n_subjettiness_ratio(
    constituents: &[FourMomentum],
    n: usize,
    settings: &NSubjettiness,
) -> Result<Option<f64>, PhysicsError> {
    match settings.taus(constituents, n)?.as_slice() {
        [.., below, tau] => Ok((*below > 0.0).then(|| tau / below)),
        _ => Err(PhysicsError::Setting {
            setting: "number of subjets of a ratio",
            found: n as f64,
            expected: "two or more",
        }),
    }
}

/// Settings of the energy correlation functions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyCorrelation {
    /// Power of the angles, above zero.
    pub beta: f64,
}

impl Default for EnergyCorrelation {
    fn default() -> Self {
        Self { beta: 1.0 }
    }
}

/// At or below this, e2 is the rounding of momenta in one direction.
const SMALLEST_E2: f64 = 1e-13;

/// Two- and three-point energy correlation of a jet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Correlations {
    /// e2; 0 for fewer than two constituents with pt, and, to rounding, for momenta in one direction.
    pub e2: f64,
    /// e3; 0 for fewer than three constituents with pt.
    pub e3: f64,
}

impl Correlations {
    /// C2 = e3 / e2^2; `None` where e2 is zero, to rounding (1e-13).
    pub fn c2(&self) -> Option<f64> {
        (self.e2 > SMALLEST_E2).then(|| self.e3 / self.e2 / self.e2)
    }

    /// D2 = e3 / e2^3; `None` where e2 is zero, to rounding (1e-13).
    pub fn d2(&self) -> Option<f64> {
        (self.e2 > SMALLEST_E2).then(|| self.e3 / self.e2 / self.e2 / self.e2)
    }
}

impl EnergyCorrelation {
    /// `energy correlation functions, beta = 1, in rapidity and azimuth`.
    pub fn describe(&self) -> String {
        format!("energy correlation functions, beta = {}, in rapidity and azimuth", self.beta)
    }

    /// e2 and e3 of one jet. Constituents without pt weigh nothing, wherever they are.
    ///
    /// All triples are summed, as n^2 / 2 products of rows: 0.2 million multiplications for 100 constituents, 1.3
    /// million for 200.
    ///
    /// # Errors
    /// [`PhysicsError`] naming a constituent that cannot be used, or a beta out of range.
    pub fn correlations(&self, constituents: &[FourMomentum]) -> Result<Correlations, PhysicsError> {
        if !(self.beta > 0.0 && self.beta.is_finite()) {
            return Err(PhysicsError::Setting {
                setting: "energy correlation beta",
                found: self.beta,
                expected: "above zero",
            });
        }
        for (index, momentum) in constituents.iter().enumerate() {
            momentum.check(index)?;
        }
        // pt, rapidity, azimuth of everything with pt.
        let points: Vec<[f64; 3]> = constituents
            .iter()
            .map(|momentum| [momentum.pt(), momentum.rapidity(), momentum.phi()])
            .filter(|point| point[0] > 0.0)
            .collect();
        let (n, sum) = (points.len(), points.iter().map(|point| point[0]).sum::<f64>());
        // Row i holds sqrt(z_j) Delta_ij^beta, so that the product of two rows is a sum with the weights z.
        let mut rows = vec![0.0; n * n];
        let roots: Vec<f64> = points.iter().map(|point| (point[0] / sum).sqrt()).collect();
        for (i, a) in points.iter().enumerate() {
            for (j, b) in points.iter().enumerate().skip(i + 1) {
                let (dy, dphi) = (a[1] - b[1], delta_phi(a[2], b[2]));
                let angle = (dy * dy + dphi * dphi).sqrt();
                let angle = if self.beta == 1.0 { angle } else { angle.powf(self.beta) };
                rows[i * n + j] = roots[j] * angle;
                rows[j * n + i] = roots[i] * angle;
            }
        }
        let mut found = Correlations::default();
        for i in 0..n {
            let (mut pairs, mut triples) = (0.0, 0.0);
            for j in i + 1..n {
                let pair = roots[j] * rows[i * n + j];
                pairs += pair;
                triples += pair * dot(&rows[i * n + j + 1..(i + 1) * n], &rows[j * n + j + 1..(j + 1) * n]);
            }
            found.e2 += roots[i] * roots[i] * pairs;
            found.e3 += roots[i] * roots[i] * triples;
        }
        Ok(found)
    }
}

/// Sum of products in an order that depends on the length only; eight sums side by side fill the vector units.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a.zip(b) {
        for (sum, (x, y)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// The width (girth) of a jet: the mean distance of its constituents from the direction of their sum, in rapidity and
/// azimuth, weighted with pt. 0 for a jet without pt.
///
/// # Errors
/// [`PhysicsError`] naming a constituent that cannot be used.
pub fn width(constituents: &[FourMomentum]) -> Result<f64, PhysicsError> {
    for (index, momentum) in constituents.iter().enumerate() {
        momentum.check(index)?;
    }
    let jet: FourMomentum = constituents.iter().sum();
    let (rapidity, phi) = (jet.rapidity(), jet.phi());
    let (mut moment, mut sum) = (0.0, 0.0);
    for momentum in constituents {
        let pt = momentum.pt();
        if pt > 0.0 {
            moment += pt * (momentum.rapidity() - rapidity).hypot(delta_phi(momentum.phi(), phi));
            sum += pt;
        }
    }
    Ok(if sum > 0.0 { moment / sum } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jet(particles: &[(f64, f64, f64)]) -> Vec<FourMomentum> {
        particles
            .iter()
            .map(|&(pt, y, phi)| FourMomentum::from_pt_rapidity_phi_mass(pt, y, phi, 0.14))
            .collect()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-13 * b.abs().max(1e-3), "{a} {b}");
    }

    #[test]
    fn correlations_by_hand() {
        let beta_one = EnergyCorrelation::default();
        let of = |particles: &[(f64, f64, f64)]| beta_one.correlations(&jet(particles)).unwrap();
        // Nobody to correlate with.
        for particles in [&[][..], &[(100.0, 0.3, 1.0)], &[(60.0, 0.3, 1.0), (40.0, 0.3, 1.0)]] {
            let none = of(particles);
            assert_eq!((none.e3, none.c2(), none.d2()), (0.0, None, None));
            assert!(none.e2 < 1e-15);
        }
        // Two: z 0.75 and 0.25 at 0.5 (3-4-5 triangle), azimuth over the edge.
        let two = of(&[(30.0, 0.0, 0.1), (10.0, 0.4, 2.0 * std::f64::consts::PI - 0.2)]);
        close(two.e2, 0.75 * 0.25 * 0.5);
        assert_eq!((two.e3, two.c2(), two.d2()), (0.0, Some(0.0), Some(0.0)));
        // Three alike at the corners of an equilateral triangle of side a: e2 = a / 3, e3 = a^3 / 27, D2 = 1.
        let side = 0.6_f64;
        let height = side * 0.75_f64.sqrt();
        let triangle = [(50.0, 0.0, 1.0), (50.0, side, 1.0), (50.0, side / 2.0, 1.0 + height)];
        let three = of(&triangle);
        close(three.e2, side / 3.0);
        close(three.e3, side.powi(3) / 27.0);
        close(three.c2().unwrap(), side / 3.0);
        close(three.d2().unwrap(), 1.0);
        // With beta = 2 the angles count squared.
        let squared = EnergyCorrelation { beta: 2.0 }.correlations(&jet(&triangle)).unwrap();
        close(squared.e2, side * side / 3.0);
        close(squared.e3, side.powi(6) / 27.0);
        // Unequal: 3-4-5 triangle with z = 1/2, 1/3, 1/6.
        let unequal = of(&[(30.0, 0.0, 1.0), (20.0, 0.3, 1.0), (10.0, 0.0, 1.4)]);
        close(unequal.e2, 0.3 / 6.0 + 0.4 / 12.0 + 0.5 / 18.0);
        close(unequal.e3, 0.3 * 0.4 * 0.5 / 36.0);
    }

    /// n alike on a circle: sums over chords.
    #[test]
    fn correlations_of_a_ring() {
        for n in [4_usize, 9, 20, 37] {
            let radius = 0.3;
            let place = |i: usize| 2.0 * std::f64::consts::PI * i as f64 / n as f64;
            let ring: Vec<_> =
                (0..n).map(|i| (10.0, radius * place(i).cos(), 3.0 + radius * place(i).sin())).collect();
            let found = EnergyCorrelation::default().correlations(&jet(&ring)).unwrap();
            let chord = |i: usize, j: usize| 2.0 * radius * (0.5 * (place(i) - place(j))).sin().abs();
            let (mut e2, mut e3) = (0.0, 0.0);
            for i in 0..n {
                for j in i + 1..n {
                    e2 += chord(i, j) / (n * n) as f64;
                    for k in j + 1..n {
                        e3 += chord(i, j) * chord(i, k) * chord(j, k) / (n * n * n) as f64;
                    }
                }
            }
            assert!((found.e2 / e2 - 1.0).abs() < 1e-12 && (found.e3 / e3 - 1.0).abs() < 1e-12, "{n}");
        }
    }

    #[test]
    fn width_by_hand() {
        // Two alike: the axis lies half way, each half the distance away (to second order in the masses).
        let found = width(&jet(&[(50.0, 0.2, 0.0), (50.0, -0.2, 0.0)])).unwrap();
        assert!((found - 0.2).abs() < 1e-12, "{found}");
        assert_eq!(width(&jet(&[(50.0, 0.2, 0.0)])).unwrap(), 0.0);
        assert_eq!(width(&[]).unwrap(), 0.0);
        assert_eq!(width(&[FourMomentum::new(0.0, 0.0, 3.0, 3.0)]).unwrap(), 0.0);
        assert!(width(&[FourMomentum::new(1.0, 0.0, 0.0, -1.0)]).is_err());
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let bad = [FourMomentum::new(1.0, 0.0, 0.0, f64::NAN)];
        let settings = EnergyCorrelation::default();
        assert!(matches!(settings.correlations(&bad), Err(PhysicsError::NonFinite { index: 0, .. })));
        for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let fault = EnergyCorrelation { beta }.correlations(&[]);
            assert!(matches!(fault, Err(PhysicsError::Setting { .. })), "{beta}");
        }
        // Without pt there is no weight.
        let alone = [FourMomentum::new(0.0, 0.0, 7.0, 7.0), FourMomentum::new(3.0, 0.0, 0.0, 3.0)];
        assert_eq!(settings.correlations(&alone).unwrap(), Correlations::default());
    }
}
