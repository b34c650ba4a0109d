//! Nearest neighbours among all, in vectors of eight: for jets and small events.
//!
//! Alive nodes lie in slots, eight to a block, without gaps: what is removed is replaced by the last. Every slot knows its
//! nearest neighbour and its distance d. A step merges the pair of smallest d, and in one pass over the blocks offers the new
//! node to all others as a neighbour, finds the new node's own, and the smallest d of the rest. Slots whose neighbour
//! vanished search anew; there is about one a step.

use super::nodes::delta2_of_eight;
use super::{Algorithm, JetDefinition, Nodes};
use crate::simd::{LANES, Lanes, Level, Vector, compiled_per_level, least};

/// Node numbers are whole `f64`, so that a vector has one type; this one stands for the beam.
pub(super) const BEAM: f64 = ((1u64 << 26) - 1) as f64;

/// [`BEAM`] as a whole number.
pub(super) const BEAM_NODE: u32 = (1 << 26) - 1;

/// Rapidity of an empty slot: the square of a difference to it is infinite.
pub(super) const NOWHERE: f64 = 1e200;

/// Blocks whose masks fill one word of bits.
pub(super) const GROUP: usize = 64 / LANES;

/// Eight slots.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Block {
    pub y: Lanes,
    pub phi: Lanes,
    /// Node number.
    pub id: Lanes,
    /// Delta^2 to the nearest neighbour, R^2 without one.
    pub near: Lanes,
    /// Node number of the nearest neighbour, or `BEAM`.
    pub who: Lanes,
    /// d_ij or d_iB; for Cambridge/Aachen `near` serves.
    pub d: Lanes,
    /// pt^2p.
    pub weight: Lanes,
    /// Delta^2 to whoever is searching.
    pub found: Lanes,
}

impl Block {
    pub const EMPTY: Self = Self {
        y: Lanes::splat(NOWHERE),
        phi: Lanes::splat(0.0),
        id: Lanes::splat(BEAM),
        near: Lanes::splat(f64::INFINITY),
        who: Lanes::splat(BEAM),
        d: Lanes::splat(f64::INFINITY),
        weight: Lanes::splat(0.0),
        found: Lanes::splat(f64::INFINITY),
    };
}

/// Memory that is kept from one clustering to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Plain {
    blocks: Vec<Block>,
    /// Slot of each node.
    slot_of: Vec<u32>,
    /// One bit for every slot that has to search anew, a word for every group of blocks.
    again: Vec<u64>,
}

/// The node of lowest number whose `found` is `delta2`; `BEAM` if there is none.
#[inline(always)]
pub(super) fn found_at<V: Vector>(blocks: &[Block], delta2: f64) -> f64 {
    let delta2 = V::splat(delta2);
    let mut node = BEAM;
    // Most often there is one word, with one bit.
    for group in blocks.chunks(GROUP) {
        let mut word = 0_u64;
        for (number, block) in group.iter().enumerate() {
            word |= u64::from(V::bits(V::load(&block.found).equal(delta2))) << (LANES * number);
        }
        while word != 0 {
            let slot = word.trailing_zeros() as usize;
            node = least(node, group[slot / LANES].id.0[slot % LANES]);
            word &= word - 1;
        }
    }
    node
}

compiled_per_level! {
    fn by_angle(nodes: &mut Nodes, definition: &JetDefinition, memory: &mut Plain) = body::<V, true>
}

compiled_per_level! {
    fn by_weight(nodes: &mut Nodes, definition: &JetDefinition, memory: &mut Plain) = body::<V, false>
}

/// Clusters what `nodes` was started with. Quadratic in the number of particles, with a small factor.
pub(super) fn run(nodes: &mut Nodes, definition: &JetDefinition, memory: &mut Plain, level: Level) {
    if definition.algorithm() == Algorithm::CambridgeAachen {
        by_angle(level, nodes, definition, memory);
    } else {
        by_weight(level, nodes, definition, memory);
    }
}

#[inline(always)]
fn body<V: Vector, const CAMBRIDGE: bool>(nodes: &mut Nodes, definition: &JetDefinition, memory: &mut Plain) {
    let n = nodes.particles;
    let radius2 = definition.radius() * definition.radius();
    let per_radius2 = 1.0 / radius2;
    // Delta^2 <= limit means Delta < R.
    let limit = radius2.next_down();
    let Plain { blocks, slot_of, again } = memory;
    blocks.clear();
    blocks.resize(n.div_ceil(LANES), Block::EMPTY);
    slot_of.clear();
    slot_of.resize(2 * n, 0);
    again.clear();
    again.resize(blocks.len().div_ceil(GROUP), 0);
    for (i, point) in nodes.points.iter().enumerate() {
        let block = &mut blocks[i / LANES];
        block.y.0[i % LANES] = point.rapidity;
        block.phi.0[i % LANES] = point.phi;
        block.id.0[i % LANES] = i as f64;
        block.weight.0[i % LANES] = point.weight;
        slot_of[i] = i as u32;
    }
    for slot in 0..n {
        search::<V, CAMBRIDGE>(blocks, slot, limit, radius2, per_radius2, nodes);
    }

    // The smallest distance, where the last step has left it known.
    let mut known = None;
    for alive in (1..=n).rev() {
        let blocks = &mut blocks[..alive.div_ceil(LANES)];
        let last = alive - 1;
        let d = known.take().unwrap_or_else(|| smallest::<V, CAMBRIDGE>(blocks));
        let (a, b) = pair_at::<V, CAMBRIDGE>(blocks, d);
        let slot = slot_of[a as usize] as usize;
        if b == BEAM_NODE {
            nodes.retire(a, if CAMBRIDGE { 1.0 } else { d });
            // Nobody has a jet as its neighbour: nothing lies within R of it.
            remove::<V, CAMBRIDGE>(blocks, slot_of, slot, last);
            continue;
        }
        let other = slot_of[b as usize] as usize;
        hide::<V, CAMBRIDGE>(&mut blocks[slot / LANES], slot % LANES);
        hide::<V, CAMBRIDGE>(&mut blocks[other / LANES], other % LANES);
        let node = nodes.merge(a, b, if CAMBRIDGE { d * per_radius2 } else { d }, definition);
        let point = nodes.points[node as usize];
        slot_of[node as usize] = slot as u32;
        let id = f64::from(node);

        let (mut nearest, mut rest) = (V::splat(f64::INFINITY), V::splat(f64::INFINITY));
        let (y, phi, new) = (V::splat(point.rapidity), V::splat(point.phi), V::splat(id));
        let (gone_a, gone_b) = (V::splat(f64::from(a)), V::splat(f64::from(b)));
        for (group, again) in blocks.chunks_mut(GROUP).zip(again.iter_mut()) {
            let mut word = 0_u64;
            for (number, block) in group.iter_mut().enumerate() {
                let delta2 = delta2_of_eight(y, phi, V::load(&block.y), V::load(&block.phi));
                delta2.store(&mut block.found);
                nearest = nearest.min(delta2);
                // The new number is the highest, so that it wins no tie.
                let near = V::load(&block.near);
                let nearer = delta2.less(near);
                let who = V::choose(nearer, new, V::load(&block.who));
                who.store(&mut block.who);
                let near = near.min(delta2);
                near.store(&mut block.near);
                let distance = if CAMBRIDGE {
                    near
                } else {
                    let weight = V::load(&block.weight).min(V::splat(point.weight));
                    let d = weight.mul(delta2.mul(V::splat(per_radius2)));
                    let d = V::choose(nearer, d, V::load(&block.d));
                    d.store(&mut block.d);
                    d
                };
                let lost = V::either(who.equal(gone_a), who.equal(gone_b));
                rest = rest.min(V::choose(lost, V::splat(f64::INFINITY), distance));
                word |= u64::from(V::bits(lost)) << (LANES * number);
            }
            *again = word;
        }
        let near = nearest.smallest();
        let neighbour = if near <= limit { found_at::<V>(blocks, near) } else { BEAM };
        // The new node takes the slot of one parent; the other's stays empty until the last moves there.
        let block = &mut blocks[slot / LANES];
        V::put(&mut block.y, slot % LANES, point.rapidity);
        V::put(&mut block.phi, slot % LANES, point.phi);
        V::put(&mut block.id, slot % LANES, id);
        if !CAMBRIDGE {
            V::put(&mut block.weight, slot % LANES, point.weight);
        }
        let mut least_d = least(
            rest.smallest(),
            assign::<V, CAMBRIDGE>(block, slot % LANES, near, neighbour, radius2, per_radius2, nodes),
        );
        let groups = blocks.len().div_ceil(GROUP);
        for (group, &word) in again.iter().enumerate().take(groups) {
            let mut word = word;
            while word != 0 {
                let slot = group * GROUP * LANES + word.trailing_zeros() as usize;
                let d = search::<V, CAMBRIDGE>(blocks, slot, limit, radius2, per_radius2, nodes);
                least_d = least(least_d, d);
                word &= word - 1;
            }
        }
        known = Some(least_d);
        remove::<V, CAMBRIDGE>(blocks, slot_of, other, last);
    }
}

/// Finds the neighbour of a slot among all others, and returns its d.
#[inline(always)]
fn search<V: Vector, const CAMBRIDGE: bool>(
    blocks: &mut [Block],
    slot: usize,
    limit: f64,
    radius2: f64,
    per_radius2: f64,
    nodes: &Nodes,
) -> f64 {
    let (number, lane) = (slot / LANES, slot % LANES);
    let (y, phi) = (V::splat(blocks[number].y.0[lane]), V::splat(blocks[number].phi.0[lane]));
    let itself = V::splat(blocks[number].id.0[lane]);
    let nowhere = V::splat(f64::INFINITY);
    let mut nearest = nowhere;
    for block in blocks.iter_mut() {
        let delta2 = delta2_of_eight(y, phi, V::load(&block.y), V::load(&block.phi));
        let delta2 = V::choose(V::load(&block.id).equal(itself), nowhere, delta2);
        delta2.store(&mut block.found);
        nearest = nearest.min(delta2);
    }
    let near = nearest.smallest();
    let neighbour = if near <= limit { found_at::<V>(blocks, near) } else { BEAM };
    assign::<V, CAMBRIDGE>(&mut blocks[number], lane, near, neighbour, radius2, per_radius2, nodes)
}

/// Writes the neighbour of a slot.
#[inline(always)]
fn assign<V: Vector, const CAMBRIDGE: bool>(
    block: &mut Block,
    lane: usize,
    near: f64,
    neighbour: f64,
    radius2: f64,
    per_radius2: f64,
    nodes: &Nodes,
) -> f64 {
    let alone = neighbour == BEAM;
    let near = if alone { radius2 } else { near };
    V::put(&mut block.near, lane, near);
    V::put(&mut block.who, lane, neighbour);
    if CAMBRIDGE {
        return near;
    }
    let weight = block.weight.0[lane];
    let d = if alone {
        weight
    } else {
        least(weight, nodes.points[neighbour as usize].weight) * (near * per_radius2)
    };
    V::put(&mut block.d, lane, d);
    d
}

/// What is compared first: d, or for Cambridge/Aachen Delta^2, which orders alike.
#[inline(always)]
fn distance<V: Vector, const CAMBRIDGE: bool>(block: &Block) -> V {
    V::load(if CAMBRIDGE { &block.near } else { &block.d })
}

/// The smallest distance.
#[inline(always)]
fn smallest<V: Vector, const CAMBRIDGE: bool>(blocks: &[Block]) -> f64 {
    let mut best = V::splat(f64::INFINITY);
    for block in blocks {
        best = best.min(distance::<V, CAMBRIDGE>(block));
    }
    best.smallest()
}

/// The pair at distance `d`, lower number first; of several the nearest, then the lowest numbers. The second is
/// `BEAM_NODE` for a jet.
#[inline(always)]
fn pair_at<V: Vector, const CAMBRIDGE: bool>(blocks: &[Block], d: f64) -> (u32, u32) {
    let d = V::splat(d);
    let mut best = (f64::INFINITY, u32::MAX, u32::MAX);
    for group in blocks.chunks(GROUP) {
        let mut word = 0_u64;
        for (number, block) in group.iter().enumerate() {
            let same = distance::<V, CAMBRIDGE>(block).equal(d);
            word |= u64::from(V::bits(same)) << (LANES * number);
        }
        // Two bits as a rule, for the two ends of one pair.
        while word != 0 {
            let slot = word.trailing_zeros() as usize;
            let (block, lane) = (&group[slot / LANES], slot % LANES);
            let (id, who) = (block.id.0[lane] as u32, block.who.0[lane] as u32);
            let pair = (block.near.0[lane], id.min(who), id.max(who));
            if pair < best {
                best = pair;
            }
            word &= word - 1;
        }
    }
    (best.1, best.2)
}

/// Takes a slot out of everybody's sight: far away, never smallest, nobody's child.
#[inline(always)]
fn hide<V: Vector, const CAMBRIDGE: bool>(block: &mut Block, lane: usize) {
    V::put(&mut block.y, lane, NOWHERE);
    V::put(&mut block.near, lane, f64::INFINITY);
    V::put(&mut block.who, lane, BEAM);
    if !CAMBRIDGE {
        V::put(&mut block.d, lane, f64::INFINITY);
    }
}

/// Fills `slot` with the last one and empties that.
#[inline(always)]
fn remove<V: Vector, const CAMBRIDGE: bool>(
    blocks: &mut [Block],
    slot_of: &mut [u32],
    slot: usize,
    last: usize,
) {
    let (number, lane) = (last / LANES, last % LANES);
    if slot != last {
        let from = &blocks[number];
        let weighted = if CAMBRIDGE { [0.0; 2] } else { [from.d.0[lane], from.weight.0[lane]] };
        let moved = [from.y.0[lane], from.phi.0[lane], from.id.0[lane], from.near.0[lane], from.who.0[lane]];
        let to = &mut blocks[slot / LANES];
        let lane = slot % LANES;
        V::put(&mut to.y, lane, moved[0]);
        V::put(&mut to.phi, lane, moved[1]);
        V::put(&mut to.id, lane, moved[2]);
        V::put(&mut to.near, lane, moved[3]);
        V::put(&mut to.who, lane, moved[4]);
        if !CAMBRIDGE {
            V::put(&mut to.d, lane, weighted[0]);
            V::put(&mut to.weight, lane, weighted[1]);
        }
        slot_of[moved[2] as usize] = slot as u32;
    }
    hide::<V, CAMBRIDGE>(&mut blocks[number], lane);
}
