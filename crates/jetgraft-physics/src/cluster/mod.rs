//! Sequential clustering of the generalised-kt family, with its whole history.
//!
//! With transverse momentum pt, rapidity y and azimuth phi,
//!
//! ```text
//! d_ij = min(pt_i^2p, pt_j^2p) Delta_ij^2 / R^2,    Delta_ij^2 = (y_i - y_j)^2 + (phi_i - phi_j)^2
//! d_iB = pt_i^2p
//! ```
//!
//! the smallest of all distances is taken again and again: a pair is merged, a particle nearest to the beam
//! becomes a jet. p = 1 is kt, 0 Cambridge/Aachen, -1 anti-kt.
//!
//! Sources: S. Catani et al., Nucl. Phys. B 406 (1993) 187; S. D. Ellis, D. E. Soper, Phys. Rev. D 48 (1993) 3160
//! (kt); Y. L. Dokshitzer et al., JHEP 08 (1997) 001; M. Wobisch, T. Wengler, hep-ph/9907280 (Cambridge/Aachen);
//! M. Cacciari, G. P. Salam, G. Soyez, JHEP 04 (2008) 063, arXiv:0802.1189 (anti-kt).
//!
//! # Nodes
//! Particles are nodes `0..n` in the order of the input; every merging makes the next number. There are always `n`
//! [steps](Step), one particle or jet fewer after each.
//!
//! # Ties
//! A pair counts only if Delta < R: at Delta = R both are jets. Among equal d the smaller Delta is taken first, then
//! the pair with the lower lowest node number, then with the lower other number. This is a total order, so that
//! all [strategies](Strategy) give the same history bit for bit, on ties too. As it knows node numbers, input with
//! exact ties may cluster differently in another order; without ties the order of input changes only the rounding
//! of sums.
//!
//! # Strategies
//! The nearest neighbour of the softer (in the sense of pt^2p) partner of the smallest d_ij is the other one (M. Cacciari,
//! G. P. Salam, Phys. Lett. B 641 (2006) 57, hep-ph/0512210), so only nearest neighbours are kept. Up to some
//! hundred particles all distances to a new node are computed in vectors of eight ([`Strategy::Plain`]); above, only
//! those in neighbouring tiles of the (y, phi) cylinder ([`Strategy::Tiled`]).

mod naive;
mod nodes;
mod plain;
mod sequence;
mod tiled;

use serde::{Deserialize, Serialize};

use crate::PhysicsError;

pub use sequence::{ClusterSequence, Clusterer, Jet, Step};

pub(crate) use nodes::{Nodes, Point};

/// Largest number of particles of one clustering: node numbers then fit 26 bits.
pub const MOST_PARTICLES: usize = 1 << 25;

/// Which power of pt weighs the distances.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// p = -1: round jets around hard particles.
    #[serde(rename = "antikt")]
    AntiKt,
    /// p = 0: by angle alone.
    #[serde(rename = "cambridge")]
    CambridgeAachen,
    /// p = 1: soft and near first.
    Kt,
    /// Any power p of pt^2.
    GeneralisedKt {
        /// The power.
        p: f64,
    },
}

impl Algorithm {
    /// The power p of pt^2.
    pub fn power(self) -> f64 {
        match self {
            Self::AntiKt => -1.0,
            Self::CambridgeAachen => 0.0,
            Self::Kt => 1.0,
            Self::GeneralisedKt { p } => p,
        }
    }

    /// `anti-kt`, `Cambridge/Aachen`, `kt` or `generalised kt with p = ...`.
    pub fn describe(self) -> String {
        match self {
            Self::AntiKt => "anti-kt".into(),
            Self::CambridgeAachen => "Cambridge/Aachen".into(),
            Self::Kt => "kt".into(),
            Self::GeneralisedKt { p } => format!("generalised kt with p = {p}"),
        }
    }
}

/// What becomes of two momenta that are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recombination {
    /// The sum of the four-momenta.
    #[default]
    EScheme,
    /// The sum of the pt, in the direction (y, phi) and with the mass of the harder one (lower node number at equal
    /// pt): the axis never recoils. Two momenta without pt are added.
    ///
    /// Source: D. Bertolini, T. Chan, J. Thaler, JHEP 04 (2014) 013, arXiv:1310.7584.
    WinnerTakesAll,
}

impl Recombination {
    /// `E-scheme` or `winner-take-all (pt) scheme`.
    pub fn describe(self) -> &'static str {
        match self {
            Self::EScheme => "E-scheme",
            Self::WinnerTakesAll => "winner-take-all (pt) scheme",
        }
    }
}

/// How the smallest distance is found; changes speed alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// By the number of particles and the radius.
    #[default]
    Auto,
    /// All distances at every step, cubic: the slow obvious twin, for tests.
    Naive,
    /// Nearest neighbours, quadratic, in vectors.
    Plain,
    /// Nearest neighbours within tiles; for many particles and R below 2.
    Tiled,
}

/// An algorithm with its radius, recombination and strategy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct JetDefinition {
    algorithm: Algorithm,
    radius: f64,
    recombination: Recombination,
    strategy: Strategy,
}

impl JetDefinition {
    /// Smallest and largest radius that is taken.
    pub const RADIUS_RANGE: [f64; 2] = [1e-6, 1000.0];

    /// A definition in the E-scheme.
    ///
    /// # Errors
    /// [`PhysicsError::Setting`] if the radius is not between 1e-6 and 1000, or a generalised power is not finite.
    pub fn new(algorithm: Algorithm, radius: f64) -> Result<Self, PhysicsError> {
        let definition =
            Self { algorithm, radius, recombination: Recombination::EScheme, strategy: Strategy::Auto };
        definition.check()?;
        Ok(definition)
    }

    /// Cambridge/Aachen with the largest radius: everything that is not beam-like ends in one jet.
    pub const fn whole_jet() -> Self {
        Self {
            algorithm: Algorithm::CambridgeAachen,
            radius: Self::RADIUS_RANGE[1],
            recombination: Recombination::EScheme,
            strategy: Strategy::Auto,
        }
    }

    /// The same with another recombination.
    #[must_use]
    pub const fn with_recombination(self, recombination: Recombination) -> Self {
        Self { recombination, ..self }
    }

    /// The same with a strategy of the caller's choice.
    #[must_use]
    pub const fn with_strategy(self, strategy: Strategy) -> Self {
        Self { strategy, ..self }
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The radius R.
    pub const fn radius(&self) -> f64 {
        self.radius
    }

    /// The recombination.
    pub const fn recombination(&self) -> Recombination {
        self.recombination
    }

    /// The strategy asked for.
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// One sentence for reports: `anti-kt, R = 0.4, E-scheme`.
    pub fn describe(&self) -> String {
        format!("{}, R = {}, {}", self.algorithm.describe(), self.radius, self.recombination.describe())
    }

    /// Checks the settings: a value read by serde has not passed [`Self::new`].
    pub(crate) fn check(&self) -> Result<(), PhysicsError> {
        let [low, high] = Self::RADIUS_RANGE;
        if !(self.radius >= low && self.radius <= high) {
            return Err(PhysicsError::Setting {
                setting: "jet radius",
                found: self.radius,
                expected: "a number from 1e-6 to 1000",
            });
        }
        let power = self.algorithm.power();
        if !power.is_finite() {
            return Err(PhysicsError::Setting {
                setting: "power p of generalised kt",
                found: power,
                expected: "a finite number",
            });
        }
        Ok(())
    }

    /// What `Auto` means for so many particles. The crossing points are measured, see `benches/fastjet/README.md`.
    pub(crate) fn strategy_for(&self, particles: usize) -> Strategy {
        match self.strategy {
            Strategy::Auto if self.radius > 1.5 => Strategy::Plain,
            Strategy::Auto if particles < 375 => Strategy::Plain,
            Strategy::Auto => Strategy::Tiled,
            chosen => chosen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FourMomentum;
    use crate::simd::Level;
    use rand::{RngExt, SeedableRng};

    /// Events whose every strategy is tried on every instruction set that this machine has.
    fn events() -> Vec<Vec<FourMomentum>> {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        [0, 1, 2, 7, 8, 9, 63, 64, 65, 130, 700]
            .into_iter()
            .map(|n| {
                (0..n)
                    .map(|i| {
                        let pt = -10.0 * (1.0 - random.random::<f64>()).ln();
                        let (mut y, mut phi) =
                            (random.random_range(-3.0..3.0), random.random_range(0.0..6.2));
                        if i % 3 == 0 {
                            // A third on a lattice, so that there are exact ties.
                            (y, phi) = ((4.0_f64 * y).round() / 4.0, (4.0_f64 * phi).round() / 4.0);
                        }
                        FourMomentum::from_pt_rapidity_phi_mass(pt, y, phi, 0.1)
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        assert_eq!(Level::available().first(), Some(&Level::Portable));
        for event in events() {
            for algorithm in [Algorithm::AntiKt, Algorithm::CambridgeAachen, Algorithm::Kt] {
                for strategy in [Strategy::Plain, Strategy::Tiled] {
                    let definition =
                        JetDefinition::new(algorithm, 0.5).expect("in range").with_strategy(strategy);
                    let runs: Vec<_> = Level::available()
                        .iter()
                        .map(|&level| {
                            let mut clusterer = Clusterer::new(definition).with_level(level);
                            clusterer.cluster(&event).expect("good input").clone()
                        })
                        .collect();
                    for run in &runs {
                        assert_eq!(run.history(), runs[0].history(), "{strategy:?}");
                        assert_eq!(run.momenta(), runs[0].momenta(), "{strategy:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn large_events_agree_with_the_plain_strategy() {
        let event = events().pop().expect("events");
        for radius in [0.05, 0.4, 1.0, 1.9] {
            for algorithm in [Algorithm::AntiKt, Algorithm::CambridgeAachen, Algorithm::Kt] {
                let definition = JetDefinition::new(algorithm, radius).expect("in range");
                let run = |strategy| {
                    ClusterSequence::new(&event, &definition.with_strategy(strategy)).expect("good input")
                };
                let (plain, tiled) = (run(Strategy::Plain), run(Strategy::Tiled));
                assert_eq!(plain.history(), tiled.history(), "{}", definition.describe());
            }
        }
    }
}
