//! Jets as a few variables that physicists have long used: one node a jet.

use jetgraft_physics::FourMomentum;
use jetgraft_physics::groom::{SoftDrop, soft_drop};
use jetgraft_physics::substructure::{EnergyCorrelation, NSubjettiness, width};
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::graph_set::GraphSet;
use crate::input::{Feature, Refusal, collect};
use crate::jets::{Jets, OnBad};
use crate::ledger::Ledger;

/// Soft drop of [`Variable::SoftDropMass`]: the modified mass-drop tagger, which knows no radius.
pub const SOFT_DROP: SoftDrop = SoftDrop { z_cut: 0.1, beta: 0.0, r0: 1.0 };

/// A variable of a whole jet.
///
/// A ratio whose denominator vanishes is 0: tau21 of a jet of one constituent, D2 of a jet without opening. tau_N is 0 for
/// N constituents or fewer anyway, so that 0 always says "no more prongs than asked for".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variable {
    /// Transverse momentum of the jet as in the file, GeV.
    Pt,
    /// Mass of the jet as in the file, GeV; 0 where it is below zero.
    Mass,
    /// Mass after soft drop with [`SOFT_DROP`], GeV; 0 where it is below zero.
    SoftDropMass,
    /// tau_2 / tau_1, beta = 1, winner-take-all kt axes.
    Tau21,
    /// tau_3 / tau_2, likewise.
    Tau32,
    /// Number of constituents in the file.
    Multiplicity,
    /// C2 = e3 / e2^2, beta = 1.
    C2,
    /// D2 = e3 / e2^3, beta = 1.
    D2,
    /// Mean distance of constituents from the axis, weighted with pt.
    Width,
}

impl Variable {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Pt,
        Self::Mass,
        Self::SoftDropMass,
        Self::Tau21,
        Self::Tau32,
        Self::Multiplicity,
        Self::C2,
        Self::D2,
        Self::Width,
    ];

    /// Name and unit.
    pub const fn feature(self) -> Feature {
        let (name, unit) = match self {
            Self::Pt => ("pt", "GeV"),
            Self::Mass => ("mass", "GeV"),
            Self::SoftDropMass => ("soft_drop_mass", "GeV"),
            Self::Tau21 => ("tau21", "1"),
            Self::Tau32 => ("tau32", "1"),
            Self::Multiplicity => ("multiplicity", "1"),
            Self::C2 => ("c2", "1"),
            Self::D2 => ("d2", "1"),
            Self::Width => ("width", "1"),
        };
        Feature { name, unit }
    }
}

/// Which variables of a jet a network reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HighLevelInput {
    /// In order; by default mass, soft_drop_mass, tau21, tau32, multiplicity, d2.
    pub variables: Vec<Variable>,
}

impl Default for HighLevelInput {
    fn default() -> Self {
        use Variable::{D2, Mass, Multiplicity, SoftDropMass, Tau21, Tau32};
        Self { variables: vec![Mass, SoftDropMass, Tau21, Tau32, Multiplicity, D2] }
    }
}

impl HighLevelInput {
    /// `variables of the jet: mass, ...; soft drop, ...`, with the definitions that were used.
    pub fn describe(&self) -> String {
        let has = |wanted: &[Variable]| self.variables.iter().any(|variable| wanted.contains(variable));
        let names: Vec<&str> = self.variables.iter().map(|variable| variable.feature().name).collect();
        let mut text = format!("variables of the jet: {}", names.join(", "));
        if has(&[Variable::SoftDropMass]) {
            text += &format!("; soft drop, z_cut = {}, beta = {}", SOFT_DROP.z_cut, SOFT_DROP.beta);
        }
        if has(&[Variable::Tau21, Variable::Tau32]) {
            text += "; N-subjettiness, beta = 1, winner-take-all kt axes";
        }
        if has(&[Variable::C2, Variable::D2]) {
            text += &format!("; {}", EnergyCorrelation::default().describe());
        }
        text
    }

    pub(crate) fn check(&self) -> Result<(), DataError> {
        let twice = self.variables.iter().enumerate().find(|(at, of)| self.variables[..*at].contains(of));
        let expected = "a list of different variables, one at least";
        if self.variables.is_empty() {
            return Err(DataError::option("input.variables", "an empty list", expected));
        }
        match twice {
            Some((_, of)) => {
                Err(DataError::option("input.variables", format!("`{}` twice", of.feature().name), expected))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn graphs(&self, jets: &Jets, on_bad: OnBad) -> Result<(GraphSet, Ledger), DataError> {
        let empty = || {
            let names = self.variables.iter().map(|variable| variable.feature().name.to_owned()).collect();
            GraphSet::empty(names, false, false)
        };
        collect(
            jets,
            on_bad,
            empty,
            || (),
            |(), jet, graphs, _| {
                let constituents = jets.constituents_of(jet);
                if constituents.is_empty() {
                    return Err(Refusal::reason("no constituents"));
                }
                let kinematics = [jets.jet_pt_gev[jet], jets.jet_mass_gev[jet]];
                let start = graphs.features.len();
                self.values(constituents, kinematics, &mut graphs.features)
                    .map_err(|source| Refusal::physics("constituents that cannot be clustered", source))?;
                if !graphs.features[start..].iter().all(|value| value.is_finite()) {
                    return Err(Refusal::reason("a variable is not finite"));
                }
                Ok(())
            },
        )
    }

    /// Appends the variables of one jet.
    fn values(
        &self,
        constituents: &[FourMomentum],
        [pt_gev, mass_gev]: [f64; 2],
        out: &mut Vec<f32>,
    ) -> Result<(), jetgraft_physics::PhysicsError> {
        // Each is computed once, when the first variable asks for it.
        let (mut taus, mut correlations) = (None, None);
        for variable in &self.variables {
            let value = match variable {
                Variable::Pt => pt_gev,
                Variable::Mass => mass_gev.max(0.0),
                Variable::SoftDropMass => soft_drop(constituents, &SOFT_DROP)?.momentum.mass().max(0.0),
                Variable::Tau21 | Variable::Tau32 => {
                    let taus = match &taus {
                        Some(taus) => taus,
                        None => taus.insert(NSubjettiness::default().taus(constituents, 3)?),
                    };
                    let at = if *variable == Variable::Tau21 { 0 } else { 1 };
                    if taus[at] > 0.0 { taus[at + 1] / taus[at] } else { 0.0 }
                }
                Variable::Multiplicity => constituents.len() as f64,
                Variable::C2 | Variable::D2 => {
                    let found = match correlations {
                        Some(found) => found,
                        None => {
                            *correlations.insert(EnergyCorrelation::default().correlations(constituents)?)
                        }
                    };
                    let ratio = if *variable == Variable::C2 { found.c2() } else { found.d2() };
                    ratio.unwrap_or(0.0)
                }
                Variable::Width => width(constituents)?,
            };
            out.push(value as f32);
        }
        Ok(())
    }
}
