//! What can be wrong with the momenta or the settings that come in.

use thiserror::Error;

/// A momentum or a setting that cannot be used, with its place and what was found there.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum PhysicsError {
    /// A component of a momentum is NaN or infinite.
    #[error("particle {index}: {component} is {value}; expected a finite number of GeV")]
    NonFinite {
        /// Position of the particle in the input.
        index: usize,
        /// `px`, `py`, `pz` or `energy`.
        component: &'static str,
        /// What was found.
        value: f64,
    },
    /// A component is so large that squares would overflow.
    #[error("particle {index}: {component} is {value:e} GeV; expected at most {limit:e} in size")]
    TooLarge {
        /// Position of the particle in the input.
        index: usize,
        /// `px`, `py`, `pz` or `energy`.
        component: &'static str,
        /// What was found, GeV.
        value: f64,
        /// Largest size that is taken, GeV.
        limit: f64,
    },
    /// The energy is below zero, so that no rapidity can be given.
    #[error(
        "particle {index}: energy is {energy} GeV; expected zero or more (drop the particle or take |E|)"
    )]
    NegativeEnergy {
        /// Position of the particle in the input.
        index: usize,
        /// What was found, GeV.
        energy: f64,
    },
    /// More particles than the history can number.
    #[error("{found} particles; expected at most {limit}")]
    TooManyParticles {
        /// Number of particles given.
        found: usize,
        /// Largest number that is taken.
        limit: usize,
    },
    /// A setting is outside its range.
    #[error("{setting} is {found}; expected {expected}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What was found.
        found: f64,
        /// The range in words.
        expected: &'static str,
    },
    /// More exclusive jets were asked for than there are particles.
    #[error("{requested} exclusive jets of {particles} particles; expected no more jets than particles")]
    TooFewParticles {
        /// Number of jets asked for.
        requested: usize,
        /// Number of particles clustered.
        particles: usize,
    },
    /// A node number that the history does not hold.
    #[error("node {node}; expected a number below {nodes}, from this very cluster sequence")]
    NoSuchNode {
        /// Number asked for.
        node: u32,
        /// Number of nodes in the history.
        nodes: usize,
    },
    /// An operation on a jet was given no constituent.
    #[error("{operation} of a jet without constituents; expected one at least")]
    NoConstituents {
        /// What was asked for.
        operation: &'static str,
    },
    /// A boost at or above the speed of light.
    #[error("boost with beta^2 = {beta2}; expected less than 1")]
    Superluminal {
        /// Square of the velocity asked for.
        beta2: f64,
    },
}
