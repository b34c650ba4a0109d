//! What a network reads of a jet: one description for files, recipes and cards, one way from jets to graphs for
//! training and prediction alike.

use jetgraft_physics::PhysicsError;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::columns::Extras;
use crate::error::DataError;
use crate::graph_set::{GraphSet, KINEMATICS};
use crate::high_level::HighLevelInput;
use crate::jets::{Jets, OnBad};
use crate::ledger::Ledger;
use crate::lund_graphs::{LundInput, check_cuts, lund_graphs_with};
use crate::particles::ParticleInput;

/// What a network reads of a jet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum InputSpec {
    /// The tree of its declusterings: nodes joined by edges.
    Lund(LundInput),
    /// Its constituents: nodes with kinematics, without edges.
    Particles(ParticleInput),
    /// Variables of the whole jet: one node.
    HighLevel(HighLevelInput),
}

/// One number that a network reads of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name, such as `ln_kt`.
    pub name: &'static str,
    /// Its unit with its fixed scale, such as `ln GeV` or `0.7 (ln GeV - 1.7)`.
    pub unit: &'static str,
}

impl InputSpec {
    /// Graphs of all jets, on the threads of the current `rayon` pool; order is kept, and the result does not depend on
    /// the number of threads. A jet that the input cannot be made of is dropped and counted.
    ///
    /// # Errors
    /// [`InputSpec::check`]; [`DataError::Option`] when the jets lack what [`InputSpec::extras`] asks for.
    pub fn graphs(&self, jets: &Jets) -> Result<(GraphSet, Ledger), DataError> {
        self.graphs_with(jets, OnBad::Drop)
    }

    /// [`InputSpec::graphs`] with a choice of what happens to jets that the input cannot be made of.
    ///
    /// # Errors
    /// Also [`DataError::Physics`] and [`DataError::BadJet`] naming the jet.
    pub fn graphs_with(&self, jets: &Jets, on_bad: OnBad) -> Result<(GraphSet, Ledger), DataError> {
        self.check()?;
        match self {
            Self::Lund(input) => lund_graphs_with(jets, input, on_bad),
            Self::Particles(input) => input.graphs(jets, on_bad),
            Self::HighLevel(input) => input.graphs(jets, on_bad),
        }
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// [`DataError::Option`], or [`DataError::Physics`] for cuts on declusterings.
    pub fn check(&self) -> Result<(), DataError> {
        match self {
            Self::Lund(input) => check_cuts(&input.cuts),
            Self::Particles(input) => input.check(),
            Self::HighLevel(input) => input.check(),
        }
    }

    /// One sentence for reports.
    pub fn describe(&self) -> String {
        match self {
            Self::Lund(input) => input.describe(),
            Self::Particles(input) => input.describe(),
            Self::HighLevel(input) => input.describe(),
        }
    }

    /// What a node is, in the plural.
    pub fn nodes(&self) -> &'static str {
        match self {
            Self::Lund(_) => "declusterings",
            Self::Particles(_) => "constituents",
            Self::HighLevel(_) => "sets of variables",
        }
    }

    /// The features in order.
    pub fn features(&self) -> Vec<Feature> {
        match self {
            Self::Lund(input) => {
                let unit = |name: &str| match name {
                    "ln_m" | "ln_kt" => "ln GeV",
                    "psi" => "rad",
                    _ => "ln 1",
                };
                input.features.names().iter().map(|&name| Feature { name, unit: unit(name) }).collect()
            }
            Self::Particles(input) => input.features.list(),
            Self::HighLevel(input) => input.variables.iter().map(|variable| variable.feature()).collect(),
        }
    }

    /// Constituent columns that it needs beyond the momenta.
    pub fn extras(&self) -> Extras {
        match self {
            Self::Particles(input) => input.features.extras(),
            Self::Lund(_) | Self::HighLevel(_) => Extras::default(),
        }
    }

    /// Whether the graphs have edges.
    pub fn has_edges(&self) -> bool {
        matches!(self, Self::Lund(_))
    }

    /// Whether the graphs have kinematics.
    pub fn has_kinematics(&self) -> bool {
        matches!(self, Self::Particles(_))
    }

    /// Whether features go in standardised on the training jets. Variables of whole jets do; the others have a fixed scale
    /// of their own, or networks that normalise them.
    pub fn standardised(&self) -> bool {
        matches!(self, Self::HighLevel(_))
    }

    /// The first difference between two inputs: what, this one's, the other's.
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        match (self, other) {
            (Self::Lund(mine), Self::Lund(theirs)) => {
                if mine.features != theirs.features {
                    Some(("the set of features", mine.features.describe(), theirs.features.describe()))
                } else if mine.cuts != theirs.cuts {
                    Some(("the cut on declusterings", mine.cuts.describe(), theirs.cuts.describe()))
                } else if mine.psi != theirs.psi {
                    Some(("the form of psi", mine.psi.describe().into(), theirs.psi.describe().into()))
                } else {
                    None
                }
            }
            (Self::Particles(mine), Self::Particles(theirs)) => mine.difference(theirs),
            (Self::HighLevel(mine), Self::HighLevel(theirs)) => (mine.variables != theirs.variables)
                .then(|| ("the list of variables", mine.describe(), theirs.describe())),
            _ => Some(("the kind of input", self.describe(), other.describe())),
        }
    }
}

/// Why a jet is left out.
pub(crate) struct Refusal {
    /// For the ledger.
    reason: &'static str,
    source: Option<PhysicsError>,
}

impl Refusal {
    pub(crate) fn reason(reason: &'static str) -> Self {
        Self { reason, source: None }
    }

    pub(crate) fn physics(reason: &'static str, source: PhysicsError) -> Self {
        Self { reason, source: Some(source) }
    }
}

/// Jets that one thread takes at a time.
const CHUNK: usize = 256;

/// Runs `make` for every jet, on threads: it appends the jet's nodes, or says why there are none. Everything else of a
/// graph set, the order, the ledger and what becomes of a refused jet is the same for every input.
pub(crate) fn collect<W>(
    jets: &Jets,
    on_bad: OnBad,
    empty: impl Fn() -> GraphSet + Sync,
    workspace: impl Fn() -> W + Sync + Send,
    make: impl Fn(&mut W, usize, &mut GraphSet, &mut Ledger) -> Result<(), Refusal> + Sync,
) -> Result<(GraphSet, Ledger), DataError> {
    let starts: Vec<usize> = (0..jets.len()).step_by(CHUNK).collect();
    let pieces: Vec<Result<(GraphSet, Ledger), DataError>> = starts
        .par_iter()
        .map_init(workspace, |workspace, start| {
            let mut graphs = empty();
            let mut ledger = Ledger::default();
            let width = graphs.n_features();
            for jet in *start..(start + CHUNK).min(jets.len()) {
                let nodes = graphs.node_offsets[graphs.len()];
                if let Err(refusal) = make(workspace, jet, &mut graphs, &mut ledger) {
                    graphs.features.truncate(nodes * width);
                    if let Some(parents) = &mut graphs.parents {
                        parents.truncate(nodes);
                    }
                    if let Some(kinematics) = &mut graphs.kinematics {
                        kinematics.truncate(nodes * KINEMATICS);
                    }
                    if on_bad == OnBad::Error {
                        return Err(refusal.error(jets, jet));
                    }
                    ledger.drop_row(refusal.reason);
                    continue;
                }
                let nodes = graphs.features.len() / width.max(1);
                debug_assert!(graphs.parents.as_ref().is_none_or(|parents| parents.len() == nodes));
                debug_assert!(graphs.kinematics.as_ref().is_none_or(|of| of.len() == nodes * KINEMATICS));
                graphs.node_offsets.push(nodes);
                graphs.event_id.push(jets.event_id[jet]);
                graphs.label.push(jets.label[jet]);
                graphs.jet_pt_gev.push(jets.jet_pt_gev[jet] as f32);
                graphs.jet_mass_gev.push(jets.jet_mass_gev[jet] as f32);
                ledger.use_row();
            }
            Ok((graphs, ledger))
        })
        .collect();
    let mut graphs = empty();
    let mut ledger = Ledger::default();
    for piece in pieces {
        let (part, counts) = piece?;
        graphs.append(part);
        ledger.merge(&counts);
    }
    ledger.check()?;
    Ok((graphs, ledger))
}

impl Refusal {
    fn error(self, jets: &Jets, jet: usize) -> DataError {
        let place = place(jets, jet);
        match self.source {
            Some(source) => DataError::Physics { place, source },
            None => DataError::BadJet { place, reason: self.reason.to_owned() },
        }
    }
}

/// A jet's name in messages.
pub(crate) fn place(jets: &Jets, jet: usize) -> String {
    format!("jet {} of event {}", jets.jet_index[jet], jets.event_id[jet])
}
