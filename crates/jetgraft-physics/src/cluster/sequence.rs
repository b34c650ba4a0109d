//! The result of a clustering: jets, constituents, history.

use serde::{Deserialize, Serialize};

use super::nodes::NO_NODE;
use super::plain::Plain;
use super::tiled::Tiled;
use super::{JetDefinition, MOST_PARTICLES, Nodes, Strategy, naive, plain, tiled};
use crate::simd::Level;
use crate::{FourMomentum, PhysicsError};

/// One step of a clustering. Distances are d_ij and d_iB of the [module's](super) formula: GeV^2p.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Two nodes became a new one.
    Merge {
        /// The parent of lower node number.
        a: u32,
        /// The parent of higher node number.
        b: u32,
        /// The new node.
        node: u32,
        /// d_ij.
        d: f64,
    },
    /// A node became a jet.
    Beam {
        /// The jet.
        node: u32,
        /// d_iB.
        d: f64,
    },
}

impl Step {
    /// The distance at which the step was taken.
    pub fn d(&self) -> f64 {
        match *self {
            Self::Merge { d, .. } | Self::Beam { d, .. } => d,
        }
    }
}

/// A jet: its momentum, and the node of the history that it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Jet {
    /// Four-momentum, GeV.
    pub momentum: FourMomentum,
    /// Node number in the sequence that made it.
    pub node: u32,
}

/// A finished clustering with its whole history.
#[derive(Clone, Debug)]
pub struct ClusterSequence {
    definition: JetDefinition,
    strategy: Strategy,
    pub(crate) nodes: Nodes,
}

impl ClusterSequence {
    /// Clusters `particles`.
    ///
    /// Space-like, massless and beam-like momenta are taken, see [`crate::momentum`]. For many events a
    /// [`Clusterer`] saves the memory's allocation.
    ///
    /// # Errors
    /// [`PhysicsError`] naming the first particle that is not finite, too large or of negative energy; too many
    /// particles; a definition read from a file with settings out of range.
    pub fn new(particles: &[FourMomentum], definition: &JetDefinition) -> Result<Self, PhysicsError> {
        let mut clusterer = Clusterer::new(*definition);
        clusterer.cluster(particles)?;
        Ok(clusterer.sequence)
    }

    /// The definition used.
    pub fn definition(&self) -> &JetDefinition {
        &self.definition
    }

    /// The strategy that was taken, never [`Strategy::Auto`].
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Number of particles that were clustered.
    pub fn n_particles(&self) -> usize {
        self.nodes.particles
    }

    /// Momenta of all nodes: the particles, then what the mergings made, in order.
    pub fn momenta(&self) -> &[FourMomentum] {
        &self.nodes.momenta
    }

    /// The steps in the order they were taken, as many as particles.
    pub fn history(&self) -> &[Step] {
        &self.nodes.steps
    }

    /// The two nodes that `node` was made of, harder (larger pt, at equal pt lower number) first; `None` for a
    /// particle.
    ///
    /// # Errors
    /// [`PhysicsError::NoSuchNode`].
    pub fn parents(&self, node: u32) -> Result<Option<[u32; 2]>, PhysicsError> {
        self.check(node)?;
        Ok(self.split(node))
    }

    /// The node that `node` was merged into; `None` for a jet.
    ///
    /// # Errors
    /// [`PhysicsError::NoSuchNode`].
    pub fn child(&self, node: u32) -> Result<Option<u32>, PhysicsError> {
        self.check(node)?;
        let child = self.nodes.child[node as usize];
        Ok((child != NO_NODE).then_some(child))
    }

    /// Positions in the input of the particles inside a node, rising.
    ///
    /// # Errors
    /// [`PhysicsError::NoSuchNode`].
    pub fn constituents(&self, node: u32) -> Result<Vec<u32>, PhysicsError> {
        self.check(node)?;
        let mut found = Vec::new();
        let mut open = vec![node];
        while let Some(at) = open.pop() {
            match self.nodes.parents[at as usize] {
                [NO_NODE, _] => found.push(at),
                parents => open.extend(parents),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Jets with pt of at least `pt_min_gev`, by falling pt (at equal pt by node number).
    pub fn inclusive_jets(&self, pt_min_gev: f64) -> Vec<Jet> {
        let mut jets: Vec<Jet> = self
            .nodes
            .steps
            .iter()
            .filter_map(|step| match *step {
                Step::Beam { node, .. } => Some(self.jet(node)),
                Step::Merge { .. } => None,
            })
            .filter(|jet| jet.momentum.pt() >= pt_min_gev)
            .collect();
        sort_by_pt(&mut jets);
        jets
    }

    /// The jet of largest pt; `None` without particles.
    pub fn hardest_jet(&self) -> Option<Jet> {
        let mut best: Option<(f64, u32)> = None;
        for step in self.nodes.steps.iter().rev() {
            if let Step::Beam { node, .. } = *step {
                let pt2 = self.nodes.points[node as usize].pt2;
                if best.is_none_or(|(most, at)| pt2 > most || (pt2 == most && node < at)) {
                    best = Some((pt2, node));
                }
            }
        }
        best.map(|(_, node)| self.jet(node))
    }

    /// The jets that are left when exactly `n` are, by falling pt. What went to the beam before is in none.
    ///
    /// # Errors
    /// [`PhysicsError::TooFewParticles`] if `n` is larger than the number of particles.
    pub fn exclusive_jets(&self, n: usize) -> Result<Vec<Jet>, PhysicsError> {
        let particles = self.nodes.particles;
        if n > particles {
            return Err(PhysicsError::TooFewParticles { requested: n, particles });
        }
        Ok(self.alive_after(particles - n))
    }

    /// The jets that are left before the first step at a distance above `d_cut` (GeV^2p), by falling pt.
    ///
    /// A step counts with the largest distance up to it, so that the number of jets falls as `d_cut` rises.
    pub fn exclusive_jets_dcut(&self, d_cut: f64) -> Vec<Jet> {
        let before = self.nodes.steps.iter().position(|step| step.d() > d_cut);
        self.alive_after(before.unwrap_or(self.nodes.steps.len()))
    }

    /// The distance of the step that went from n + 1 to n jets, GeV^2p; `None` if there were never n + 1.
    pub fn exclusive_d_merge(&self, n: usize) -> Option<f64> {
        let at = self.nodes.particles.checked_sub(n)?.checked_sub(1)?;
        self.nodes.steps.get(at).map(Step::d)
    }

    fn alive_after(&self, steps: usize) -> Vec<Jet> {
        // What a later step consumes, and was there before it, is alive.
        let made = self.nodes.particles
            + self.nodes.steps[..steps].iter().filter(|s| matches!(s, Step::Merge { .. })).count();
        let mut jets = Vec::with_capacity(self.nodes.steps.len() - steps);
        for step in &self.nodes.steps[steps..] {
            let consumed = match *step {
                Step::Merge { a, b, .. } => [a, b],
                Step::Beam { node, .. } => [node, NO_NODE],
            };
            jets.extend(
                consumed.into_iter().filter(|&node| (node as usize) < made).map(|node| self.jet(node)),
            );
        }
        sort_by_pt(&mut jets);
        jets
    }

    #[inline]
    fn jet(&self, node: u32) -> Jet {
        Jet { momentum: self.nodes.momenta[node as usize], node }
    }

    /// Parents of a node that is known to exist, harder first.
    #[inline]
    pub(crate) fn split(&self, node: u32) -> Option<[u32; 2]> {
        let [a, b] = self.nodes.parents[node as usize];
        if a == NO_NODE {
            return None;
        }
        let points = &self.nodes.points;
        Some(if points[b as usize].pt2 > points[a as usize].pt2 { [b, a] } else { [a, b] })
    }

    fn check(&self, node: u32) -> Result<(), PhysicsError> {
        let nodes = self.nodes.momenta.len();
        if (node as usize) < nodes { Ok(()) } else { Err(PhysicsError::NoSuchNode { node, nodes }) }
    }
}

fn sort_by_pt(jets: &mut [Jet]) {
    jets.sort_by(|a, b| b.momentum.pt2().total_cmp(&a.momentum.pt2()).then(a.node.cmp(&b.node)));
}

/// Clusters one event after another in the same memory.
#[derive(Clone, Debug)]
pub struct Clusterer {
    sequence: ClusterSequence,
    plain: Plain,
    tiled: Tiled,
    level: Level,
}

impl Clusterer {
    /// A clusterer for one definition.
    pub fn new(definition: JetDefinition) -> Self {
        Self {
            sequence: ClusterSequence { definition, strategy: Strategy::Plain, nodes: Nodes::default() },
            plain: Plain::default(),
            tiled: Tiled::default(),
            level: Level::detect(),
        }
    }

    /// Clusters `particles`; the result stays until the next call.
    ///
    /// # Errors
    /// As [`ClusterSequence::new`]; the sequence is then empty.
    pub fn cluster(&mut self, particles: &[FourMomentum]) -> Result<&ClusterSequence, PhysicsError> {
        let definition = self.sequence.definition;
        let nodes = &mut self.sequence.nodes;
        nodes.start(&[], &definition, self.level);
        definition.check()?;
        if particles.len() > MOST_PARTICLES {
            return Err(PhysicsError::TooManyParticles { found: particles.len(), limit: MOST_PARTICLES });
        }
        for (index, particle) in particles.iter().enumerate() {
            particle.check(index)?;
        }
        nodes.start(particles, &definition, self.level);
        let strategy = definition.strategy_for(particles.len());
        match strategy {
            Strategy::Naive => naive::run(nodes, &definition),
            Strategy::Tiled => tiled::run(nodes, &definition, &mut self.tiled, self.level),
            Strategy::Plain | Strategy::Auto => plain::run(nodes, &definition, &mut self.plain, self.level),
        }
        self.sequence.strategy = strategy;
        Ok(&self.sequence)
    }

    /// The last result; empty before the first.
    pub fn sequence(&self) -> &ClusterSequence {
        &self.sequence
    }

    /// The same with a chosen instruction set, for tests.
    #[cfg(test)]
    pub(crate) fn with_level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }
}
