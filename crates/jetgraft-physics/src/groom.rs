//! Soft drop: the soft wide-angle part of a jet is cut away.
//!
//! The jet is reclustered with Cambridge/Aachen and taken apart along the harder branch until
//!
//! ```text
//! z = min(pt1, pt2) / (pt1 + pt2)  >  z_cut (Delta / R0)^beta
//! ```
//!
//! Source: A. J. Larkoski, S. Marzani, G. Soyez, J. Thaler, JHEP 05 (2014) 146, arXiv:1402.2657; beta = 0 is the modified
//! mass-drop tagger, M. Dasgupta et al., JHEP 09 (2013) 029, arXiv:1307.0007.

use serde::{Deserialize, Serialize};

use crate::cluster::{ClusterSequence, JetDefinition};
use crate::{FourMomentum, PhysicsError};

/// Settings of soft drop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftDrop {
    /// Smallest z at Delta = R0.
    pub z_cut: f64,
    /// Power of the angle.
    pub beta: f64,
    /// Angle at which z is compared with `z_cut` itself, usually the jet's radius.
    pub r0: f64,
}

impl SoftDrop {
    /// `soft drop, z_cut = 0.1, beta = 0, R0 = 1`.
    pub fn describe(&self) -> String {
        format!("soft drop, z_cut = {}, beta = {}, R0 = {}", self.z_cut, self.beta, self.r0)
    }

    fn check(&self) -> Result<(), PhysicsError> {
        let fault = |setting, found, expected| Err(PhysicsError::Setting { setting, found, expected });
        if !(self.z_cut >= 0.0 && self.z_cut.is_finite()) {
            return fault("soft drop z_cut", self.z_cut, "zero or more");
        }
        if !self.beta.is_finite() {
            return fault("soft drop beta", self.beta, "a finite number");
        }
        if !(self.r0 > 0.0 && self.r0.is_finite()) {
            return fault("soft drop R0", self.r0, "above zero");
        }
        Ok(())
    }
}

/// The splitting at which soft drop stopped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Splitting {
    /// Momentum sharing z_g.
    pub z: f64,
    /// Opening angle R_g.
    pub delta: f64,
}

/// What soft drop leaves of a jet.
#[derive(Clone, Debug, PartialEq)]
pub struct Groomed {
    /// Four-momentum that is left, GeV.
    pub momentum: FourMomentum,
    /// Positions in the input of the constituents that are left, rising.
    pub constituents: Vec<u32>,
    /// Where it stopped; `None` if no splitting passed, and a single constituent is left.
    pub splitting: Option<Splitting>,
    /// How many branches were dropped.
    pub dropped: usize,
}

/// Grooms the jet made of `constituents`.
///
/// Constituents along the beam, without transverse momentum and mass, are no part of the reclustered jet, see
/// [`crate::lund`].
///
/// # Errors
/// [`PhysicsError`] naming a constituent that cannot be used, a setting out of range, or the lack of constituents.
pub fn soft_drop(constituents: &[FourMomentum], settings: &SoftDrop) -> Result<Groomed, PhysicsError> {
    settings.check()?;
    let sequence = ClusterSequence::new(constituents, &JetDefinition::whole_jet())?;
    let Some(jet) = sequence.hardest_jet() else {
        return Err(PhysicsError::NoConstituents { operation: "soft drop" });
    };
    let points = &sequence.nodes.points;
    let (mut at, mut dropped, mut splitting) = (jet.node, 0, None);
    while let Some([hard, soft]) = sequence.split(at) {
        let (p1, p2) = (&points[hard as usize], &points[soft as usize]);
        let delta = p1.delta2(p2).sqrt();
        let (pt1, pt2) = (p1.pt2.sqrt(), p2.pt2.sqrt());
        let z = if pt1 + pt2 > 0.0 { pt2 / (pt1 + pt2) } else { 0.0 };
        if z > settings.z_cut * (delta / settings.r0).powf(settings.beta) {
            splitting = Some(Splitting { z, delta });
            break;
        }
        at = hard;
        dropped += 1;
    }
    Ok(Groomed {
        momentum: sequence.momenta()[at as usize],
        constituents: sequence.constituents(at)?,
        splitting,
        dropped,
    })
}
