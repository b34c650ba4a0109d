//! What every strategy works on: the momenta that have been made so far, and where they lie.

use super::{Algorithm, JetDefinition, Recombination, Step};
use crate::simd::{LANES, Level, Vector, compiled_per_level, least};
use crate::{FourMomentum, math};

/// Where a node lies on the (y, phi) cylinder, and the weight pt^2p of its distances.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Point {
    pub rapidity: f64,
    pub phi: f64,
    pub pt2: f64,
    pub weight: f64,
}

/// Weights are kept finite: products with Delta^2 / R^2 < 1 then never give NaN.
const LARGEST_WEIGHT: f64 = 1e300;

impl Point {
    #[inline(always)]
    fn of(momentum: &FourMomentum, algorithm: Algorithm) -> Self {
        let pt2 = momentum.pt2();
        Self {
            rapidity: math::rapidity(pt2, momentum.pz, momentum.energy),
            phi: math::azimuth(momentum.px, momentum.py),
            pt2,
            weight: weight(pt2, algorithm),
        }
    }

    /// Delta^2 between two points, with azimuths in [0, 2 pi). Symmetric to the last bit.
    #[inline]
    pub fn delta2(&self, other: &Self) -> f64 {
        delta2(self.rapidity, self.phi, other.rapidity, other.phi)
    }
}

/// The one expression for Delta^2: every strategy must compute the same bits.
#[inline(always)]
pub(crate) fn delta2(y_a: f64, phi_a: f64, y_b: f64, phi_b: f64) -> f64 {
    let dy = y_a - y_b;
    let dphi = (phi_a - phi_b).abs();
    let dphi = least(dphi, 2.0 * std::f64::consts::PI - dphi);
    dy * dy + dphi * dphi
}

/// [`delta2`] of one point to eight, bit for bit.
#[inline(always)]
pub(crate) fn delta2_of_eight<V: Vector>(y: V, phi: V, ys: V, phis: V) -> V {
    let dy = y.sub(ys);
    let dphi = phi.sub(phis).abs();
    let dphi = dphi.min(V::splat(2.0 * std::f64::consts::PI).sub(dphi));
    dy.mul(dy).add(dphi.mul(dphi))
}

#[inline(always)]
fn weight(pt2: f64, algorithm: Algorithm) -> f64 {
    match algorithm {
        Algorithm::CambridgeAachen => 1.0,
        Algorithm::Kt => pt2,
        Algorithm::AntiKt => (1.0 / pt2).min(LARGEST_WEIGHT),
        Algorithm::GeneralisedKt { p } => pt2.powf(p).min(LARGEST_WEIGHT),
    }
}

compiled_per_level! {
    /// Appends the points of particles.
    fn points_of(
        particles: &[FourMomentum],
        algorithm: Algorithm,
        points: &mut Vec<Point>,
    ) = points_body::<V>
}

/// [`Point::of`], eight at a time.
#[inline(always)]
fn points_body<V: Vector>(particles: &[FourMomentum], algorithm: Algorithm, points: &mut Vec<Point>) {
    let (eights, rest) = particles.as_chunks::<LANES>();
    for eight in eights {
        let [mut pt2, mut rapidity, mut phi] = [[0.0; LANES]; 3];
        for (l, p) in eight.iter().enumerate() {
            pt2[l] = p.pt2();
            rapidity[l] = math::rapidity(pt2[l], p.pz, p.energy);
            phi[l] = math::azimuth(p.px, p.py);
        }
        for l in 0..LANES {
            let weight = weight(pt2[l], algorithm);
            points.push(Point { rapidity: rapidity[l], phi: phi[l], pt2: pt2[l], weight });
        }
    }
    points.extend(rest.iter().map(|p| Point::of(p, algorithm)));
}

/// Stands for "no node" in `parents` and `child`.
pub(crate) const NO_NODE: u32 = u32::MAX;

/// All nodes of a clustering and the steps taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes {
    pub momenta: Vec<FourMomentum>,
    pub points: Vec<Point>,
    /// Lower node number first; `NO_NODE` twice for a particle.
    pub parents: Vec<[u32; 2]>,
    pub child: Vec<u32>,
    pub steps: Vec<Step>,
    /// Number of particles.
    pub particles: usize,
}

impl Nodes {
    /// Forgets the last clustering, keeps its memory, and takes new particles.
    pub fn start(&mut self, particles: &[FourMomentum], definition: &JetDefinition, level: Level) {
        let n = particles.len();
        self.particles = n;
        self.momenta.clear();
        self.momenta.reserve(2 * n);
        self.momenta.extend_from_slice(particles);
        self.points.clear();
        self.points.reserve(2 * n);
        points_of(level, particles, definition.algorithm, &mut self.points);
        self.parents.clear();
        self.parents.reserve(2 * n);
        self.parents.resize(n, [NO_NODE; 2]);
        self.child.clear();
        self.child.reserve(2 * n);
        self.child.resize(n, NO_NODE);
        self.steps.clear();
        self.steps.reserve(n);
    }

    /// Merges two nodes at distance `d` into the next one.
    #[inline(always)]
    pub fn merge(&mut self, a: u32, b: u32, d: f64, definition: &JetDefinition) -> u32 {
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        let (i, j) = (low as usize, high as usize);
        let (momentum, point) = match definition.recombination {
            Recombination::EScheme => {
                let sum = self.momenta[i] + self.momenta[j];
                (sum, Point::of(&sum, definition.algorithm))
            }
            Recombination::WinnerTakesAll => self.winner(i, j, definition.algorithm),
        };
        let node = self.momenta.len() as u32;
        self.momenta.push(momentum);
        self.points.push(point);
        self.parents.push([low, high]);
        self.child.push(NO_NODE);
        self.child[i] = node;
        self.child[j] = node;
        self.steps.push(Step::Merge { a: low, b: high, node, d });
        node
    }

    /// Makes a node a jet at distance `d` from the beam.
    #[inline]
    pub fn retire(&mut self, node: u32, d: f64) {
        self.steps.push(Step::Beam { node, d });
    }

    fn winner(&self, i: usize, j: usize, algorithm: Algorithm) -> (FourMomentum, Point) {
        let (hard, soft) = if self.points[j].pt2 > self.points[i].pt2 { (j, i) } else { (i, j) };
        let pt_hard = self.points[hard].pt2.sqrt();
        let pt = pt_hard + self.points[soft].pt2.sqrt();
        let p = &self.momenta[hard];
        let mt2 = p.mt2();
        if pt_hard == 0.0 || mt2 == 0.0 {
            let sum = self.momenta[i] + self.momenta[j];
            return (sum, Point::of(&sum, algorithm));
        }
        // Same direction and m^2: the transverse components scale as pt, E and pz as the transverse mass.
        let transverse = pt / pt_hard;
        let m2 = mt2 - self.points[hard].pt2;
        let longitudinal = ((pt * pt + m2) / mt2).sqrt();
        let momentum = FourMomentum::new(
            p.px * transverse,
            p.py * transverse,
            p.pz * longitudinal,
            p.energy * longitudinal,
        );
        // The direction is copied, not computed again: the axis is that of one particle to the last bit.
        let pt2 = pt * pt;
        (momentum, Point { pt2, weight: weight(pt2, algorithm), ..self.points[hard] })
    }
}
