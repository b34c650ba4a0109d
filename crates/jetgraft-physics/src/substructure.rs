//! N-subjettiness: how well N axes describe a jet.
//!
//! ```text
//! tau_N = sum_i pt_i min_k Delta_ik^beta / sum_i pt_i R0^beta
//! ```
//!
//! with the N axes of exclusive kt jets in the winner-take-all scheme. Small tau_N / tau_(N-1) means N prongs.
//!
//! Sources: J. Thaler, K. Van Tilburg, JHEP 03 (2011) 015, arXiv:1011.2268 and JHEP 02 (2012) 093, arXiv:1108.2701;
//! A. J. Larkoski, D. Neill, J. Thaler, JHEP 04 (2014) 017, arXiv:1401.2158 (winner-take-all axes).

use serde::{Deserialize, Serialize};

use crate::cluster::{Algorithm, Clusterer, JetDefinition, Recombination};
use crate::{FourMomentum, PhysicsError};

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
