//! Jets as trees of declusterings, as LundNet reads them: one node a declustering, with its Lund coordinates. A jet
//! without any declustering has no node.

pub use jetgraft_physics::lund::{FeatureSet, PsiForm};
use jetgraft_physics::lund::{LundCuts, LundTree, LundWorkspace};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::graph_set::GraphSet;
use crate::input::{Refusal, collect, place};
use crate::jets::{Jets, OnBad};
use crate::ledger::Ledger;

/// What of a jet's Lund tree a network reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LundInput {
    /// Coordinates of a node, in order.
    pub features: FeatureSet,
    /// Which declusterings become nodes.
    pub cuts: LundCuts,
    /// Form of the azimuth.
    pub psi: PsiForm,
}

impl LundInput {
    /// One sentence for reports.
    pub fn describe(&self) -> String {
        format!("{}; {}; {}", self.features.describe(), self.cuts.describe(), self.psi.describe())
    }
}

/// Reclusters every jet and takes it apart, on the threads of the current `rayon` pool; order is kept and the
/// result does not depend on the number of threads.
///
/// A jet that the physics refuses (a constituent of negative energy, say) is dropped and counted, or ends the work with
/// [`OnBad::Error`] in [`lund_graphs_with`]. The ledger notes how many jets have no declustering.
///
/// # Units
/// Features as [`FeatureSet`] says: natural logarithms of GeV, rad.
///
/// # Errors
/// [`DataError::Physics`] when the cuts themselves make no sense.
pub fn lund_graphs(jets: &Jets, input: &LundInput) -> Result<(GraphSet, Ledger), DataError> {
    lund_graphs_with(jets, input, OnBad::Drop)
}

/// [`lund_graphs`] with a choice of what happens to jets that the physics refuses.
///
/// # Errors
/// [`DataError::Physics`] naming the jet.
pub fn lund_graphs_with(
    jets: &Jets,
    input: &LundInput,
    on_bad: OnBad,
) -> Result<(GraphSet, Ledger), DataError> {
    check_cuts(&input.cuts)?;
    let empty = || {
        let names = input.features.names().iter().map(|name| (*name).to_owned()).collect();
        GraphSet::empty(names, true, false)
    };
    collect(jets, on_bad, empty, LundWorkspace::new, |workspace, jet, graphs, ledger| {
        let tree = workspace
            .tree(jets.constituents_of(jet), &input.cuts)
            .map_err(|source| Refusal::physics("constituents that cannot be clustered", source))?;
        let before = graphs.features.len();
        tree.features(input.features, input.psi, &mut graphs.features);
        if !graphs.features[before..].iter().all(|value| value.is_finite()) {
            return Err(Refusal::reason("a Lund coordinate is not finite"));
        }
        tree.parents(graphs.parents.get_or_insert_default());
        ledger.note("jets without a declustering", u64::from(tree.nodes.is_empty()));
        Ok(())
    })
}

/// Lund trees of all jets, in order, with every coordinate, for files and figures; for each jet its tree or why there
/// is none.
///
/// # Errors
/// [`DataError::Physics`] when the cuts themselves make no sense.
pub fn lund_trees(jets: &Jets, cuts: &LundCuts) -> Result<Vec<Result<LundTree, DataError>>, DataError> {
    check_cuts(cuts)?;
    let rows: Vec<usize> = (0..jets.len()).collect();
    Ok(rows
        .par_iter()
        .with_min_len(16)
        .map_init(LundWorkspace::new, |workspace, jet| {
            workspace
                .tree(jets.constituents_of(*jet), cuts)
                .cloned()
                .map_err(|source| DataError::Physics { place: place(jets, *jet), source })
        })
        .collect())
}

/// Refuses cuts that make no sense before any jet is blamed for them.
pub(crate) fn check_cuts(cuts: &LundCuts) -> Result<(), DataError> {
    LundWorkspace::new()
        .tree(&[], cuts)
        .map(drop)
        .map_err(|source| DataError::Physics { place: "Lund cuts".into(), source })
}
