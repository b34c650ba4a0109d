//! The Lund plane: a jet taken apart again, step by step, and the coordinates of every splitting.
//!
//! The constituents are clustered anew with Cambridge/Aachen, then the last merging is undone, giving the harder
//! branch 1 and the softer branch 2 (by pt), and so on in both.
//!
//! ```text
//! Delta = sqrt((y1 - y2)^2 + (phi1 - phi2)^2)    z = pt2 / (pt1 + pt2)    kt = pt2 Delta    m^2 = (p1 + p2)^2
//! ```
//!
//! Sources: F. A. Dreyer, G. P. Salam, G. Soyez, JHEP 12 (2018) 064, arXiv:1807.04758 (the plane); F. A. Dreyer,
//! H. Qu, JHEP 03 (2021) 052, arXiv:2012.08526 (LundNet: the tree with its secondary planes as a graph).
//!
//! # Cuts
//! At every splitting Delta is tested first: below the cut the branch ends there and is a leaf. Then kt: below the cut
//! the softer branch is dropped whole, with any harder splitting in it, and the harder branch goes on in the same place
//! of the tree. Both cuts keep equality.
//!
//! # Floors
//! Logarithms are of floored values, so that they are always finite: Delta at [`DELTA_FLOOR`] (as LundNet does), z at
//! [`Z_FLOOR`], the softer pt at [`PT_FLOOR_GEV`], |m^2| at [`M2_FLOOR_GEV2`]. The last three lie below what simulated jets hold
//! (one jet in 200 has a splitting with pt below 1e-8 GeV), so that LundNet's numbers, which have no floor there, are kept. The plain `delta`, `kt`, `z`, `m2` carry no
//! floor, and the cuts test those.
//!
//! # Momenta along the beam
//! Constituents that lie further than 1000 in (y, phi) from everything else, which are those
//! without transverse momentum and mass, are no part of the jet and are left out.

use serde::{Deserialize, Serialize};

use crate::cluster::{ClusterSequence, Clusterer, JetDefinition};
use crate::simd::{LANES, Lanes, Level, Vector, compiled_per_level};
use crate::{FourMomentum, PhysicsError, delta_phi, math};

/// Smallest Delta inside a logarithm.
pub const DELTA_FLOOR: f64 = 1e-6;
/// Smallest z inside a logarithm.
pub const Z_FLOOR: f64 = 1e-15;
/// Smallest softer pt inside ln kt, GeV.
pub const PT_FLOOR_GEV: f64 = 1e-12;
/// Smallest |m^2| inside ln m, GeV^2.
pub const M2_FLOOR_GEV2: f64 = 1e-16;

/// At or below this, a cut on a logarithm means no cut, as in LundNet's options.
const NO_CUT: f64 = -99.0;

/// Cuts on splittings, as natural logarithms; see the [module](self) for their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LundCuts {
    /// Smallest ln(kt / GeV). Absent, or at most -99: no cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ln_kt_min: Option<f64>,
    /// Smallest ln Delta. Absent, or at most -99: no cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ln_delta_min: Option<f64>,
}

impl LundCuts {
    /// No cut: a tree of n constituents has n - 1 splittings.
    pub const fn none() -> Self {
        Self { ln_kt_min: None, ln_delta_min: None }
    }

    /// One sentence for reports.
    pub fn describe(&self) -> String {
        let kt = active(self.ln_kt_min).map(|cut| format!("ln(kt/GeV) >= {cut}"));
        let delta = active(self.ln_delta_min).map(|cut| format!("ln(Delta) >= {cut}"));
        match (delta, kt) {
            (None, None) => "all declusterings".into(),
            (Some(one), None) | (None, Some(one)) => format!("declusterings with {one}"),
            (Some(delta), Some(kt)) => format!("declusterings with {delta}, then {kt}"),
        }
    }

    /// Smallest Delta and smallest kt (GeV); zero without a cut.
    fn thresholds(&self) -> Result<(f64, f64), PhysicsError> {
        let threshold = |setting, cut: Option<f64>| match active(cut) {
            None => Ok(0.0),
            Some(cut) if cut.is_nan() || cut > 700.0 => Err(PhysicsError::Setting {
                setting,
                found: cut,
                expected: "a natural logarithm, at most 700",
            }),
            Some(cut) => Ok(cut.exp()),
        };
        Ok((threshold("ln_delta_min", self.ln_delta_min)?, threshold("ln_kt_min", self.ln_kt_min)?))
    }
}

/// A cut that cuts.
fn active(cut: Option<f64>) -> Option<f64> {
    cut.filter(|cut| cut.is_nan() || *cut > NO_CUT)
}

/// The two forms of the azimuth psi of a splitting around its harder branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PsiForm {
    /// atan((y1 - y2) / (phi1 - phi2)) with both azimuths in [0, 2 pi) and their difference **not** wrapped; 0 if
    /// they are equal. In (-pi/2, pi/2). What the published LundNet weights were trained on: the sign of the direction is
    /// lost, and so is continuity across azimuth 0.
    #[default]
    LundNet,
    /// atan2(y2 - y1, wrapped phi2 - phi1), in (-pi, pi]: the direction of the softer branch seen from the harder.
    Atan2,
}

impl PsiForm {
    /// One sentence for reports.
    pub fn describe(self) -> &'static str {
        match self {
            Self::LundNet => "psi = atan((y1 - y2) / (phi1 - phi2)), azimuths in [0, 2 pi) unwrapped",
            Self::Atan2 => "psi = atan2(y_soft - y_hard, wrapped phi_soft - phi_hard)",
        }
    }
}

/// Which coordinates a network reads, in LundNet's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeatureSet {
    /// ln Delta, ln kt.
    #[serde(rename = "lundnet-2")]
    LundNet2,
    /// ln z, ln Delta, ln kt.
    #[serde(rename = "lundnet-3")]
    LundNet3,
    /// ln z, ln Delta, ln kt, psi.
    #[serde(rename = "lundnet-4")]
    LundNet4,
    /// ln z, ln Delta, psi, ln m, ln kt.
    #[default]
    #[serde(rename = "lundnet-5")]
    LundNet5,
}

impl FeatureSet {
    /// All sets, smallest first.
    pub const ALL: [Self; 4] = [Self::LundNet2, Self::LundNet3, Self::LundNet4, Self::LundNet5];

    /// Names of the columns in order: `ln_z`, `ln_delta`, `psi`, `ln_m` (GeV), `ln_kt` (GeV).
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::LundNet2 => &["ln_delta", "ln_kt"],
            Self::LundNet3 => &["ln_z", "ln_delta", "ln_kt"],
            Self::LundNet4 => &["ln_z", "ln_delta", "ln_kt", "psi"],
            Self::LundNet5 => &["ln_z", "ln_delta", "psi", "ln_m", "ln_kt"],
        }
    }

    /// Number of columns.
    #[expect(clippy::len_without_is_empty, reason = "no set is empty")]
    pub const fn len(self) -> usize {
        self.names().len()
    }

    /// `LundNet-5: ln_z, ln_delta, psi, ln_m, ln_kt`.
    pub fn describe(self) -> String {
        format!("LundNet-{}: {}", self.len(), self.names().join(", "))
    }
}

/// Which branch of its parent a splitting lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The first splitting of the jet.
    Root,
    /// Along the harder branch.
    Harder,
    /// Along the softer branch: the start of a secondary plane.
    Softer,
}

/// One splitting. Momenta in GeV, logarithms natural, of GeV where there is a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Declustering {
    /// Index of the splitting above in the tree; `None` for the root.
    pub parent: Option<u32>,
    /// Which branch of the parent this is.
    pub side: Side,
    /// The branch of larger pt.
    pub harder: FourMomentum,
    /// The branch of smaller pt.
    pub softer: FourMomentum,
    /// y_soft - y_hard.
    pub delta_rapidity: f64,
    /// phi_soft - phi_hard wrapped into (-pi, pi].
    pub delta_phi: f64,
    /// phi_soft - phi_hard with both in [0, 2 pi), not wrapped.
    pub delta_phi_unwrapped: f64,
    /// Distance of the branches, no floor.
    pub delta: f64,
    /// pt_soft Delta, GeV, no floor.
    pub kt: f64,
    /// pt_soft / (pt_soft + pt_hard), no floor; 0 if neither has pt.
    pub z: f64,
    /// Squared mass of the pair, GeV^2; below zero by rounding or for space-like input.
    pub m2: f64,
    /// ln max(z, floor).
    pub ln_z: f64,
    /// ln max(Delta, floor).
    pub ln_delta: f64,
    /// 1/2 ln max(|m^2|, floor).
    pub ln_m: f64,
    /// ln(max(pt_soft, floor) max(Delta, floor)).
    pub ln_kt: f64,
}

impl Declustering {
    /// The azimuth of the splitting in the form asked for, rad.
    #[inline]
    pub fn psi(&self, form: PsiForm) -> f64 {
        let dy = self.delta_rapidity;
        match form {
            PsiForm::LundNet => {
                let dphi = self.delta_phi_unwrapped;
                let size = math::azimuth(dphi.abs(), dy.abs());
                let signed = if (dy < 0.0) == (dphi < 0.0) { size } else { -size };
                if dphi == 0.0 { 0.0 } else { signed }
            }
            PsiForm::Atan2 => {
                let size = math::azimuth(self.delta_phi, dy.abs());
                if dy < 0.0 { -size } else { size }
            }
        }
    }
}

/// The splittings of a jet: root first, depth first, all of the harder branch before the softer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LundTree {
    /// The splittings; empty for a jet without any.
    pub nodes: Vec<Declustering>,
    /// Momentum of the reclustered jet.
    pub jet: FourMomentum,
}

impl LundTree {
    /// Appends one row of `set.len()` numbers per splitting to `rows`.
    ///
    /// # Shapes
    /// `[nodes, features]`, row by row. A tree without splittings appends nothing.
    pub fn features(&self, set: FeatureSet, psi: PsiForm, rows: &mut Vec<f32>) {
        rows.reserve(self.nodes.len() * set.len());
        match set {
            FeatureSet::LundNet2 => {
                rows.extend(self.nodes.iter().flat_map(|d| [d.ln_delta, d.ln_kt].map(|x| x as f32)));
            }
            FeatureSet::LundNet3 => {
                rows.extend(self.nodes.iter().flat_map(|d| [d.ln_z, d.ln_delta, d.ln_kt].map(|x| x as f32)));
            }
            FeatureSet::LundNet4 => rows.extend(
                self.nodes.iter().flat_map(|d| [d.ln_z, d.ln_delta, d.ln_kt, d.psi(psi)].map(|x| x as f32)),
            ),
            FeatureSet::LundNet5 => rows.extend(
                self.nodes
                    .iter()
                    .flat_map(|d| [d.ln_z, d.ln_delta, d.psi(psi), d.ln_m, d.ln_kt].map(|x| x as f32)),
            ),
        }
    }

    /// Appends the index of every splitting's parent within the jet, -1 for the root.
    pub fn parents(&self, parents: &mut Vec<i32>) {
        parents.extend(self.nodes.iter().map(|node| node.parent.map_or(-1, |parent| parent as i32)));
    }

    /// The primary plane: the splittings along the harder branch, from the root.
    pub fn primary(&self) -> impl Iterator<Item = &Declustering> {
        // Depth first with the harder branch first: the primary plane is the unbroken beginning.
        self.nodes.iter().take_while(|node| node.side != Side::Softer)
    }
}

/// Makes trees of one jet after another in the same memory.
///
/// ```
/// use jetgraft_physics::lund::{FeatureSet, LundCuts, LundWorkspace, PsiForm};
/// # let jets = [vec![jetgraft_physics::FourMomentum::new(3.0, 4.0, 0.0, 5.0); 3]];
/// let (mut workspace, mut rows) = (LundWorkspace::new(), Vec::new());
/// for constituents in &jets {
///     let tree = workspace.tree(constituents, &LundCuts::none())?;
///     tree.features(FeatureSet::LundNet5, PsiForm::LundNet, &mut rows);
/// }
/// # Ok::<(), jetgraft_physics::PhysicsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LundWorkspace {
    clusterer: Clusterer,
    tree: LundTree,
    decluster: Decluster,
}

/// Memory of the declustering.
#[derive(Clone, Debug)]
struct Decluster {
    /// Branches still to be taken apart: node, index of the parent splitting, side.
    open: Vec<(u32, Option<u32>, Side)>,
    /// What logarithms are taken of, four to a splitting, and then the logarithms.
    logs: Vec<Lanes>,
    level: Level,
}

impl Default for LundWorkspace {
    fn default() -> Self {
        Self::new()
    }
}

impl LundWorkspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self {
            clusterer: Clusterer::new(JetDefinition::whole_jet()),
            tree: LundTree::default(),
            decluster: Decluster { open: Vec::new(), logs: Vec::new(), level: Level::detect() },
        }
    }

    /// Clusters `constituents` with Cambridge/Aachen (R = 1000) and takes the hardest jet apart; without constituents the
    /// tree is empty.
    ///
    /// # Errors
    /// [`PhysicsError`] naming a constituent that cannot be used, or a cut that is no number. The tree is then empty.
    pub fn tree(
        &mut self,
        constituents: &[FourMomentum],
        cuts: &LundCuts,
    ) -> Result<&LundTree, PhysicsError> {
        self.tree.nodes.clear();
        self.tree.jet = FourMomentum::default();
        let thresholds = cuts.thresholds()?;
        let sequence = self.clusterer.cluster(constituents)?;
        if let Some(jet) = sequence.hardest_jet() {
            self.decluster.run(sequence, jet.node, thresholds, &mut self.tree);
        }
        Ok(&self.tree)
    }

    /// Takes a node of a finished Cambridge/Aachen (or any other) sequence apart.
    ///
    /// # Errors
    /// [`PhysicsError::NoSuchNode`], or a cut that is no number.
    pub fn tree_of(
        &mut self,
        sequence: &ClusterSequence,
        node: u32,
        cuts: &LundCuts,
    ) -> Result<&LundTree, PhysicsError> {
        self.tree.nodes.clear();
        self.tree.jet = FourMomentum::default();
        let thresholds = cuts.thresholds()?;
        sequence.parents(node)?;
        self.decluster.run(sequence, node, thresholds, &mut self.tree);
        Ok(&self.tree)
    }

    /// The reclustering of the last jet that [`Self::tree`] took apart.
    pub fn sequence(&self) -> &ClusterSequence {
        self.clusterer.sequence()
    }
}

/// The Lund tree of one jet; for many jets a [`LundWorkspace`] saves the memory's allocation.
///
/// # Errors
/// As [`LundWorkspace::tree`].
pub fn lund_tree(constituents: &[FourMomentum], cuts: &LundCuts) -> Result<LundTree, PhysicsError> {
    let mut workspace = LundWorkspace::new();
    workspace.tree(constituents, cuts)?;
    Ok(workspace.tree)
}

/// Logarithms per splitting: z, Delta, kt, |m^2|.
const LOGS: usize = 4;

impl Decluster {
    fn run(
        &mut self,
        sequence: &ClusterSequence,
        root: u32,
        (delta_min, kt_min): (f64, f64),
        tree: &mut LundTree,
    ) {
        let nodes = &sequence.nodes;
        tree.jet = nodes.momenta[root as usize];
        tree.nodes.reserve(sequence.n_particles());
        self.open.clear();
        self.open.push((root, None, Side::Root));
        self.logs.clear();
        self.logs.resize((sequence.n_particles() * LOGS).div_ceil(LANES), Lanes::splat(1.0));
        while let Some((mut at, parent, side)) = self.open.pop() {
            // Down the harder branch until a splitting passes or the branch ends.
            while let Some([hard, soft]) = sequence.split(at) {
                let (p1, p2) = (&nodes.points[hard as usize], &nodes.points[soft as usize]);
                let delta = p1.delta2(p2).sqrt();
                if delta < delta_min {
                    break;
                }
                let (pt1, pt2) = (p1.pt2.sqrt(), p2.pt2.sqrt());
                let kt = pt2 * delta;
                if kt < kt_min {
                    at = hard;
                    continue;
                }
                let pt_sum = pt1 + pt2;
                let z = if pt_sum > 0.0 { pt2 / pt_sum } else { 0.0 };
                let m2 = nodes.momenta[at as usize].mass2();
                let index = tree.nodes.len();
                let delta_floored = delta.max(DELTA_FLOOR);
                let of = [
                    z.max(Z_FLOOR),
                    delta_floored,
                    pt2.max(PT_FLOOR_GEV) * delta_floored,
                    m2.abs().max(M2_FLOOR_GEV2),
                ];
                let first = index * LOGS % LANES;
                self.logs[index * LOGS / LANES].0[first..first + LOGS].copy_from_slice(&of);
                tree.nodes.push(Declustering {
                    parent,
                    side,
                    harder: nodes.momenta[hard as usize],
                    softer: nodes.momenta[soft as usize],
                    delta_rapidity: p2.rapidity - p1.rapidity,
                    delta_phi: delta_phi(p2.phi, p1.phi),
                    delta_phi_unwrapped: p2.phi - p1.phi,
                    delta,
                    kt,
                    z,
                    m2,
                    ln_z: 0.0,
                    ln_delta: 0.0,
                    ln_m: 0.0,
                    ln_kt: 0.0,
                });
                let above = Some(index as u32);
                self.open.push((soft, above, Side::Softer));
                self.open.push((hard, above, Side::Harder));
                break;
            }
        }
        let used = (tree.nodes.len() * LOGS).div_ceil(LANES);
        logarithms(self.level, &mut self.logs[..used]);
        for (index, node) in tree.nodes.iter_mut().enumerate() {
            let first = index * LOGS % LANES;
            let ln = &self.logs[index * LOGS / LANES].0[first..first + LOGS];
            node.ln_z = ln[0];
            node.ln_delta = ln[1];
            node.ln_kt = ln[2];
            node.ln_m = 0.5 * ln[3];
        }
    }
}

compiled_per_level! {
    /// Replaces every lane by its natural logarithm.
    fn logarithms(values: &mut [Lanes]) = logarithms_body::<V>
}

#[inline(always)]
fn logarithms_body<V: Vector>(values: &mut [Lanes]) {
    for lanes in values {
        for value in &mut lanes.0 {
            *value = math::ln(*value);
        }
    }
}
