//! Jets as sets of constituents: one node a particle, falling in pt, with named sets of features and the kinematics of
//! every node.
//!
//! Everything is computed in f64 and stored in f32. With the constituent's transverse momentum pt, pseudorapidity eta, azimuth
//! phi and energy E, and those of the jet,
//!
//! ```text
//! deta = s (eta - eta_jet),  s = +1 for eta_jet >= 0 and -1 below      dphi = phi - phi_jet wrapped into (-pi, pi]
//! deltaR = sqrt(deta^2 + dphi^2)
//! ```
//!
//! # Sets
//! | set | features of a node |
//! |---|---|
//! | `kin` | 0.7 (ln pt - 1.7), 0.7 (ln E - 2), 0.7 (ln(pt / pt_jet) + 4.7), 0.7 (ln(E / E_jet) + 4.7), 4 (deltaR - 0.2), each cut to -5 .. 5; deta, dphi as they are |
//! | `kinpid` | `kin` with charge and five flags (charged hadron, neutral hadron, photon, electron, muon) before deta |
//! | `full` | `kinpid` with tanh(d0), the error of d0 cut to 0 .. 1, tanh(dz), the error of dz cut to 0 .. 1 before deta |
//! | `jetclr` | pt / 600 GeV, eta, phi, both relative to the centroid sum pt (deta, dphi) / sum pt of the constituents kept |
//! | `flow` | z = pt / sum pt of the constituents kept, rapidity and azimuth relative to the jet |
//! | `directions` | rapidity and azimuth relative to the jet, for energy flow networks, which take z from the kinematics |
//!
//! pt and E in GeV. The last three do not mirror by the sign s.
//!
//! Sources: H. Qu, C. Li, S. Qian, PMLR 162 (2022) 18281, arXiv:2202.03772, and its feature cards (kin, kinpid, full); B. M.
//! Dillon et al., SciPost Phys. 12 (2022) 188, arXiv:2108.04253 (jetclr); P. T. Komiske, E. M. Metodiev, J. Thaler, JHEP 01
//! (2019) 121, arXiv:1810.05165 (flow, directions).
//!
//! Differences: the published code turns NaN into 0, here such a jet is left out and counted; JetCLR's code leaves the centring to
//! whoever makes the file, here it is done.
//!
//! # The jet
//! pt_jet, eta_jet, phi_jet and E_jet are the file's where it has them (JetClass), the sum of all constituents in the file where it
//! has none (the Top Tagging set); [`JetReference::Sum`] takes the sum always. Constituents cut away by `max_constituents` still
//! count in the sum.
//!
//! # Kinematics
//! pt (GeV), rapidity minus the jet's, azimuth minus the jet's, mass (GeV, 0 where rounding makes it space-like), never
//! mirrored, whatever the set.

use jetgraft_physics::{FourMomentum, delta_phi};
use serde::{Deserialize, Serialize};

use crate::columns::Extras;
use crate::error::DataError;
use crate::graph_set::GraphSet;
use crate::input::{Feature, Refusal, collect};
use crate::jets::{Jets, OnBad};
use crate::ledger::Ledger;

/// A named set of features; see the [module](self) for their formulas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParticleFeatures {
    /// Seven kinematic features, as JetClass's networks read them.
    #[default]
    Kin,
    /// Thirteen: with charge and kind.
    KinPid,
    /// Seventeen: with impact parameters.
    Full,
    /// Three, as JetCLR reads them.
    JetClr,
    /// Three, as particle flow networks read them.
    Flow,
    /// Two, as energy flow networks read them.
    Directions,
}

const fn feature(name: &'static str, unit: &'static str) -> Feature {
    Feature { name, unit }
}

/// All features of `full`; the smaller sets leave out runs of them.
const FULL: [Feature; 17] = [
    feature("part_pt_log", "0.7 (ln GeV - 1.7), cut at 5"),
    feature("part_e_log", "0.7 (ln GeV - 2), cut at 5"),
    feature("part_logptrel", "0.7 (ln 1 + 4.7), cut at 5"),
    feature("part_logerel", "0.7 (ln 1 + 4.7), cut at 5"),
    feature("part_deltaR", "4 (rad - 0.2), cut at 5"),
    feature("part_charge", "e"),
    feature("part_isChargedHadron", "0 or 1"),
    feature("part_isNeutralHadron", "0 or 1"),
    feature("part_isPhoton", "0 or 1"),
    feature("part_isElectron", "0 or 1"),
    feature("part_isMuon", "0 or 1"),
    feature("part_d0", "tanh mm"),
    feature("part_d0err", "mm, cut to 0 .. 1"),
    feature("part_dz", "tanh mm"),
    feature("part_dzerr", "mm, cut to 0 .. 1"),
    feature("part_deta", "1"),
    feature("part_dphi", "rad"),
];

impl ParticleFeatures {
    /// All sets.
    pub const ALL: [Self; 6] =
        [Self::Kin, Self::KinPid, Self::Full, Self::JetClr, Self::Flow, Self::Directions];

    /// Name in recipes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kin => "kin",
            Self::KinPid => "kinpid",
            Self::Full => "full",
            Self::JetClr => "jetclr",
            Self::Flow => "flow",
            Self::Directions => "directions",
        }
    }

    /// The features in order, with units.
    pub fn list(self) -> Vec<Feature> {
        match self {
            Self::Kin => [&FULL[..5], &FULL[15..]].concat(),
            Self::KinPid => [&FULL[..11], &FULL[15..]].concat(),
            Self::Full => FULL.to_vec(),
            Self::JetClr => vec![feature("pt", "600 GeV"), feature("eta", "1"), feature("phi", "rad")],
            Self::Flow => vec![feature("z", "1"), feature("rapidity", "1"), feature("phi", "rad")],
            Self::Directions => vec![feature("rapidity", "1"), feature("phi", "rad")],
        }
    }

    /// Constituent columns that it needs beyond the momenta.
    pub const fn extras(self) -> Extras {
        Extras {
            identity: matches!(self, Self::KinPid | Self::Full),
            displacement: matches!(self, Self::Full),
        }
    }

    /// Constituents kept where an input does not say: as many as the published networks read, all for `flow` and `directions`.
    pub const fn usual_constituents(self) -> Option<usize> {
        match self {
            Self::Kin | Self::KinPid | Self::Full => Some(128),
            Self::JetClr => Some(50),
            Self::Flow | Self::Directions => None,
        }
    }
}

/// Which momentum is that of the jet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JetReference {
    /// The file's, or the sum of all constituents where the file has none.
    #[default]
    Stored,
    /// The sum of all constituents.
    Sum,
}

/// What of a jet's constituents a network reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParticleInput {
    /// Features of a node.
    pub features: ParticleFeatures,
    /// Constituents kept, those of largest pt; absent: [`ParticleFeatures::usual_constituents`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_constituents: Option<usize>,
    /// The jet that features are relative to.
    pub jet: JetReference,
}

impl ParticleInput {
    /// Constituents kept at most; `None`: all.
    pub fn limit(&self) -> Option<usize> {
        self.max_constituents.or(self.features.usual_constituents())
    }

    /// `constituents: kin (part_pt_log, ...); the 128 of largest pt; relative to the jet of the file`.
    pub fn describe(&self) -> String {
        let names: Vec<&str> = self.features.list().iter().map(|feature| feature.name).collect();
        let limit = match self.limit() {
            Some(limit) => format!("the {limit} of largest pt"),
            None => "all of them".into(),
        };
        let jet = match self.jet {
            JetReference::Stored => "the jet of the file",
            JetReference::Sum => "the sum of the constituents",
        };
        format!("constituents: {} ({}); {limit}; relative to {jet}", self.features.name(), names.join(", "))
    }

    pub(crate) fn check(&self) -> Result<(), DataError> {
        match self.max_constituents {
            Some(0) => Err(DataError::option("input.max_constituents", 0, "1 or more")),
            _ => Ok(()),
        }
    }

    pub(crate) fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let limit = |input: &Self| input.limit().map_or("none".into(), |limit| limit.to_string());
        if self.features != other.features {
            let (mine, theirs) = (self.features.name(), other.features.name());
            Some(("the set of features", mine.into(), theirs.into()))
        } else if self.limit() != other.limit() {
            Some(("the largest number of constituents", limit(self), limit(other)))
        } else if self.jet != other.jet {
            Some(("the jet that features are relative to", self.describe(), other.describe()))
        } else {
            None
        }
    }

    pub(crate) fn graphs(&self, jets: &Jets, on_bad: OnBad) -> Result<(GraphSet, Ledger), DataError> {
        let wants = self.features.extras();
        let lacking = [
            (wants.identity && jets.identity.is_none(), "charge and kind"),
            (wants.displacement && jets.displacement.is_none(), "impact parameters"),
        ];
        if let Some((_, what)) = lacking.iter().find(|(lacks, _)| *lacks) {
            return Err(DataError::option(
                "input.features",
                format!("`{}`, for jets that were read without {what}", self.features.name()),
                "a set that the jets were read for (`extras` of the query)",
            ));
        }
        let empty = || {
            let names = self.features.list().iter().map(|feature| feature.name.to_owned()).collect();
            GraphSet::empty(names, false, true)
        };
        collect(jets, on_bad, empty, Vec::new, |particles, jet, graphs, ledger| {
            self.jet(jets, jet, particles, graphs, ledger)
        })
    }

    /// Appends the nodes of one jet.
    fn jet(
        &self,
        jets: &Jets,
        jet: usize,
        particles: &mut Vec<Particle>,
        graphs: &mut GraphSet,
        ledger: &mut Ledger,
    ) -> Result<(), Refusal> {
        let constituents = jets.constituents_of(jet);
        let first = jets.offsets[jet];
        particles.clear();
        for (at, momentum) in constituents.iter().enumerate() {
            momentum
                .check(at)
                .map_err(|source| Refusal::physics("a constituent that cannot be used", source))?;
            if momentum.energy <= 0.0 {
                return Err(Refusal::reason("a constituent without energy"));
            }
            let pt = momentum.pt();
            // Without pt there is no direction; such a particle is no part of a jet of finite radius.
            if pt > 0.0 {
                particles.push(Particle { momentum: *momentum, pt, at: first + at });
            }
        }
        if particles.is_empty() {
            return Err(Refusal::reason("no constituents with transverse momentum"));
        }
        let axis = self.axis(jets, jet).ok_or(Refusal::reason("a jet without transverse momentum"))?;
        ledger.note(
            "constituents without transverse momentum left out",
            (constituents.len() - particles.len()) as u64,
        );
        // In single precision, as files hold them: what is equal there keeps its order.
        let key = |particle: &Particle| particle.pt as f32;
        if !particles.is_sorted_by(|a, b| key(a) >= key(b)) {
            particles.sort_by(|a, b| key(b).total_cmp(&key(a)));
            ledger.note("jets whose constituents were sorted by pt", 1);
        }
        if let Some(limit) = self.limit().filter(|limit| *limit < particles.len()) {
            ledger.note("constituents beyond the largest number left out", (particles.len() - limit) as u64);
            particles.truncate(limit);
        }
        let start = graphs.features.len();
        match self.features {
            ParticleFeatures::JetClr => jetclr(particles, &axis, &mut graphs.features),
            ParticleFeatures::Flow => flow(particles, &axis, true, &mut graphs.features),
            ParticleFeatures::Directions => flow(particles, &axis, false, &mut graphs.features),
            _ => self.weaver(particles, &axis, jets, &mut graphs.features),
        }
        let kinematics = graphs.kinematics.get_or_insert_default();
        let kinematics_start = kinematics.len();
        for Particle { momentum, pt, .. } in particles.iter() {
            let values = [
                *pt,
                momentum.rapidity() - axis.rapidity,
                delta_phi(momentum.phi(), axis.phi),
                momentum.mass().max(0.0),
            ];
            kinematics.extend(values.map(|value| value as f32));
        }
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        if finite(&graphs.features[start..]) && finite(&kinematics[kinematics_start..]) {
            Ok(())
        } else {
            Err(Refusal::reason("a feature is not finite"))
        }
    }

    /// The jet that features are relative to; `None` if it has no transverse momentum or energy.
    fn axis(&self, jets: &Jets, jet: usize) -> Option<Axis> {
        let axis = match self.jet {
            JetReference::Stored => {
                let (pt, eta, phi) = (jets.jet_pt_gev[jet], jets.jet_eta[jet], jets.jet_phi[jet]);
                let momentum = FourMomentum::from_pt_eta_phi_mass(pt, eta, phi, jets.jet_mass_gev[jet]);
                Axis { pt, eta, phi, energy: momentum.energy, rapidity: momentum.rapidity() }
            }
            JetReference::Sum => {
                let sum: FourMomentum = jets.constituents_of(jet).iter().sum();
                Axis {
                    pt: sum.pt(),
                    eta: sum.pseudorapidity(),
                    phi: sum.phi(),
                    energy: sum.energy,
                    rapidity: sum.rapidity(),
                }
            }
        };
        (axis.pt > 0.0 && axis.energy > 0.0).then_some(axis)
    }

    /// `kin`, `kinpid` and `full`.
    fn weaver(&self, particles: &[Particle], axis: &Axis, jets: &Jets, out: &mut Vec<f32>) {
        let scaled = |value: f64, shift: f64, scale: f64| (((value - shift) * scale).clamp(-5.0, 5.0)) as f32;
        for Particle { momentum, pt, at } in particles {
            let [deta, dphi] = axis.relative(momentum);
            out.extend([
                scaled(pt.ln(), 1.7, 0.7),
                scaled(momentum.energy.ln(), 2.0, 0.7),
                scaled((pt / axis.pt).ln(), -4.7, 0.7),
                scaled((momentum.energy / axis.energy).ln(), -4.7, 0.7),
                scaled(deta.hypot(dphi), 0.2, 4.0),
            ]);
            if let (true, Some(identity)) = (self.features.extras().identity, &jets.identity) {
                out.extend(identity[*at]);
            }
            if let (true, Some(displacement)) = (self.features.extras().displacement, &jets.displacement) {
                let [d0, d0_error, dz, dz_error] = displacement[*at].map(f64::from);
                let values = [d0.tanh(), d0_error.clamp(0.0, 1.0), dz.tanh(), dz_error.clamp(0.0, 1.0)];
                out.extend(values.map(|value| value as f32));
            }
            let side = if axis.eta < 0.0 { -1.0 } else { 1.0 };
            out.extend([(side * deta) as f32, dphi as f32]);
        }
    }
}

/// A constituent at work.
struct Particle {
    momentum: FourMomentum,
    /// GeV.
    pt: f64,
    /// Place in the columns of [`Jets`].
    at: usize,
}

/// The jet that features are relative to; GeV, rad.
struct Axis {
    pt: f64,
    eta: f64,
    phi: f64,
    energy: f64,
    rapidity: f64,
}

impl Axis {
    /// Pseudorapidity and azimuth of a momentum relative to the axis.
    fn relative(&self, momentum: &FourMomentum) -> [f64; 2] {
        [momentum.pseudorapidity() - self.eta, delta_phi(momentum.phi(), self.phi)]
    }
}

fn jetclr(particles: &[Particle], axis: &Axis, out: &mut Vec<f32>) {
    let (mut sum, mut centre) = (0.0, [0.0; 2]);
    for Particle { momentum, pt, .. } in particles {
        let [deta, dphi] = axis.relative(momentum);
        sum += pt;
        centre[0] += pt * deta;
        centre[1] += pt * dphi;
    }
    for Particle { momentum, pt, .. } in particles {
        let [deta, dphi] = axis.relative(momentum);
        let values = [pt / 600.0, deta - centre[0] / sum, dphi - centre[1] / sum];
        out.extend(values.map(|value| value as f32));
    }
}

/// `flow`, and `directions` without the share of pt.
fn flow(particles: &[Particle], axis: &Axis, share: bool, out: &mut Vec<f32>) {
    let sum: f64 = particles.iter().map(|particle| particle.pt).sum();
    for Particle { momentum, pt, .. } in particles {
        if share {
            out.push((pt / sum) as f32);
        }
        let place = [momentum.rapidity() - axis.rapidity, delta_phi(momentum.phi(), axis.phi)];
        out.extend(place.map(|value| value as f32));
    }
}
