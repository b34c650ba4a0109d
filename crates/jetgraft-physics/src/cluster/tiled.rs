//! Nearest neighbours within tiles of the (y, phi) cylinder: for events.
//!
//! Tiles are at least R wide, so that whatever lies within R of a particle is in its tile or one of the eight around. The
//! slots of a tile lie together in blocks of eight without gaps. The smallest d is known for every block and for every group
//! of 64 blocks, and only what a step has touched is looked at again. A search begins in its own tile and leaves out
//! neighbours whose border is further than what it has found.

use super::nodes::delta2_of_eight;
use super::plain::{BEAM, BEAM_NODE, Block, NOWHERE};
use super::{JetDefinition, Nodes, Point};
use crate::simd::{LANES, Lanes, Level, Vector, compiled_per_level, least};

/// Widens tiles and shortens distances to borders, so that rounding never hides a neighbour.
const MARGIN: f64 = 1e-9;

/// Particles beyond share the outermost tiles.
const OUTERMOST_RAPIDITY: f64 = 20.0;

/// Blocks under one entry of the upper level.
const GROUP: usize = LANES * LANES;

/// A rectangle of the cylinder, and where its slots are.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// Block of the first slot.
    first: u32,
    /// Blocks reserved.
    room: u32,
    /// Slots used.
    used: u32,
    /// How many of `around` count.
    n_around: u32,
    /// The tile itself, then its neighbours.
    around: [u32; 9],
    /// Steps in y (-1, 0, 1) and phi to each.
    way: [[i8; 2]; 9],
}

impl Tile {
    #[inline(always)]
    fn blocks(&self) -> std::ops::Range<usize> {
        let first = self.first as usize;
        first..first + (self.used as usize).div_ceil(LANES)
    }
}

/// The division of the cylinder.
#[derive(Clone, Copy, Debug, Default)]
struct Grid {
    y_low: f64,
    y_width: f64,
    phi_width: f64,
    n_y: usize,
    n_phi: usize,
}

impl Grid {
    fn over(points: &[Point], radius: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for point in points {
            let y = point.rapidity.clamp(-OUTERMOST_RAPIDITY, OUTERMOST_RAPIDITY);
            (low, high) = (low.min(y), high.max(y));
        }
        let turn = 2.0 * std::f64::consts::PI;
        // Not more tiles than particles.
        let fair = ((high - low) * turn / points.len().max(1) as f64).sqrt();
        let width = (radius * (1.0 + MARGIN)).max(fair).max(1e-3);
        let n_y = ((high - low) / width).floor().max(1.0);
        let n_phi = (turn / width).floor();
        // With fewer than three, a tile would be its neighbour's neighbour twice: one then goes all the way around.
        let n_phi = if n_phi < 3.0 { 1.0 } else { n_phi };
        let y_width = ((high - low) / n_y).max(width);
        Self { y_low: low, y_width, phi_width: turn / n_phi, n_y: n_y as usize, n_phi: n_phi as usize }
    }

    /// Row and column of a point.
    #[inline(always)]
    fn place(&self, y: f64, phi: f64) -> (usize, usize) {
        // A cast saturates: what is below the first row is in it.
        let row = (((y - self.y_low) / self.y_width) as usize).min(self.n_y - 1);
        let column = ((phi / self.phi_width) as usize).min(self.n_phi - 1);
        (row, column)
    }

    /// Distances of a point to the borders of its tile, a little shortened: [step + 1] for y and phi.
    #[inline(always)]
    fn borders(&self, y: f64, phi: f64, row: usize, column: usize) -> [[f64; 3]; 2] {
        let shortened = |d: f64| if d > MARGIN { d - MARGIN } else { 0.0 };
        let y_from = y - (self.y_low + row as f64 * self.y_width);
        let phi_from = phi - column as f64 * self.phi_width;
        [
            [shortened(y_from), 0.0, shortened(self.y_width - y_from)],
            [shortened(phi_from), 0.0, shortened(self.phi_width - phi_from)],
        ]
    }
}

/// Memory that is kept from one clustering to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Tiled {
    grid: Grid,
    tiles: Vec<Tile>,
    blocks: Vec<Block>,
    /// Tile of each block.
    tile_of: Vec<u32>,
    /// Slot of each node.
    slot_of: Vec<u32>,
    /// Smallest d of each block, and of each group of blocks.
    block_min: Vec<Lanes>,
    group_min: Vec<Lanes>,
    /// Groups whose smallest d is to be found anew.
    stale: Vec<u64>,
    /// Step in which a tile was last visited.
    visited: Vec<u32>,
    /// Nodes that have to search anew.
    again: Vec<u32>,
}

compiled_per_level! {
    /// Clusters what `nodes` was started with.
    pub(super) fn run_compiled(nodes: &mut Nodes, definition: &JetDefinition, memory: &mut Tiled) = body::<V>
}

/// Clusters what `nodes` was started with. About linear in the number of particles as long as tiles hold few.
pub(super) fn run(nodes: &mut Nodes, definition: &JetDefinition, memory: &mut Tiled, level: Level) {
    run_compiled(level, nodes, definition, memory);
}

#[inline(always)]
fn body<V: Vector>(nodes: &mut Nodes, definition: &JetDefinition, memory: &mut Tiled) {
    let n = nodes.particles;
    if n == 0 {
        return;
    }
    let radius2 = definition.radius() * definition.radius();
    let per_radius2 = 1.0 / radius2;
    // Delta^2 <= limit means Delta < R.
    let limit = radius2.next_down();
    memory.fill(nodes, definition.radius());
    for node in 0..n as u32 {
        memory.search::<V>(node, nodes, limit, radius2, per_radius2);
    }

    for step in 1..=n as u32 {
        let d = memory.smallest::<V>();
        let (a, b) = memory.pair_at::<V>(d);
        let tile_a = memory.take_out::<V>(a);
        if b == BEAM_NODE {
            nodes.retire(a, d);
            continue;
        }
        let tile_b = memory.take_out::<V>(b);
        let node = nodes.merge(a, b, d, definition);
        let point = nodes.points[node as usize];
        memory.again.clear();
        let (tile, near, neighbour) = memory.introduce::<V>(node, &point, [a, b], step, per_radius2);
        memory.forsake::<V>(tile_a, [a, b], step);
        if tile_b != tile_a {
            memory.forsake::<V>(tile_b, [a, b], step);
        }
        memory.put_in::<V>(node, &point, tile);
        let (near, neighbour) = if near <= limit { (near, neighbour) } else { (radius2, BEAM) };
        memory.assign::<V>(node, near, neighbour, nodes, per_radius2);
        for index in 0..memory.again.len() {
            memory.search::<V>(memory.again[index], nodes, limit, radius2, per_radius2);
        }
    }
}

impl Tiled {
    /// Divides the cylinder and puts the particles into their tiles.
    fn fill(&mut self, nodes: &Nodes, radius: f64) {
        let n = nodes.particles;
        let points = &nodes.points[..n];
        let grid = Grid::over(points, radius);
        self.grid = grid;
        let n_tiles = grid.n_y * grid.n_phi;
        self.tiles.clear();
        for row in 0..grid.n_y {
            for column in 0..grid.n_phi {
                let mut tile =
                    Tile { first: 0, room: 0, used: 0, n_around: 0, around: [0; 9], way: [[0; 2]; 9] };
                // Itself, then sides, then corners.
                const WAYS: [[i8; 2]; 9] =
                    [[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [-1, 1], [1, -1], [1, 1]];
                for way in WAYS {
                    let Some(row) = row.checked_add_signed(way[0].into()).filter(|&row| row < grid.n_y)
                    else {
                        continue;
                    };
                    if way[1] != 0 && grid.n_phi == 1 {
                        continue;
                    }
                    let column = (column + grid.n_phi).wrapping_add_signed(way[1].into()) % grid.n_phi;
                    let at = tile.n_around as usize;
                    tile.around[at] = (row * grid.n_phi + column) as u32;
                    tile.way[at] = way;
                    tile.n_around += 1;
                }
                self.tiles.push(tile);
            }
        }
        // Count, reserve with some room for what moves in, then fill.
        self.slot_of.clear();
        self.slot_of.resize(2 * n, 0);
        for (node, point) in points.iter().enumerate() {
            let tile = self.tile_at(point);
            self.slot_of[node] = tile;
            self.tiles[tile as usize].used += 1;
        }
        self.tile_of.clear();
        let mut blocks = 0;
        for (index, tile) in self.tiles.iter_mut().enumerate() {
            tile.first = blocks;
            tile.room = (tile.used + 2).div_ceil(LANES as u32);
            tile.used = 0;
            blocks += tile.room;
            self.tile_of.resize(blocks as usize, index as u32);
        }
        self.blocks.clear();
        self.blocks.resize(blocks as usize, Block::EMPTY);
        self.block_min.clear();
        self.group_min.clear();
        self.stale.clear();
        self.reserve_minima();
        self.visited.clear();
        self.visited.resize(n_tiles, 0);
        for (node, point) in points.iter().enumerate() {
            let tile = &mut self.tiles[self.slot_of[node] as usize];
            let slot = tile.first as usize * LANES + tile.used as usize;
            tile.used += 1;
            self.slot_of[node] = slot as u32;
            let block = &mut self.blocks[slot / LANES];
            block.y.0[slot % LANES] = point.rapidity;
            block.phi.0[slot % LANES] = point.phi;
            block.id.0[slot % LANES] = node as f64;
            block.weight.0[slot % LANES] = point.weight;
        }
    }

    /// Lets both levels of minima cover all blocks.
    fn reserve_minima(&mut self) {
        let blocks = self.blocks.len();
        self.block_min.resize(blocks.div_ceil(GROUP) * LANES, Lanes::splat(f64::INFINITY));
        let groups = blocks.div_ceil(GROUP);
        self.group_min.resize(groups.div_ceil(LANES), Lanes::splat(f64::INFINITY));
        self.stale.resize(groups.div_ceil(64), 0);
    }

    #[inline(always)]
    fn tile_at(&self, point: &Point) -> u32 {
        let (row, column) = self.grid.place(point.rapidity, point.phi);
        (row * self.grid.n_phi + column) as u32
    }

    /// Writes the smallest d of a block anew.
    #[inline(always)]
    fn refresh<V: Vector>(&mut self, block: usize) {
        let smallest = V::load(&self.blocks[block].d).smallest();
        V::put(&mut self.block_min[block / LANES], block % LANES, smallest);
        let group = block / GROUP;
        self.stale[group / 64] |= 1 << (group % 64);
    }

    /// The smallest d of all.
    #[inline(always)]
    fn smallest<V: Vector>(&mut self) -> f64 {
        for (number, word) in self.stale.iter_mut().enumerate() {
            while *word != 0 {
                let group = 64 * number + word.trailing_zeros() as usize;
                *word &= *word - 1;
                let mut best = V::splat(f64::INFINITY);
                for lanes in &self.block_min[group * LANES..(group + 1) * LANES] {
                    best = best.min(V::load(lanes));
                }
                V::put(&mut self.group_min[group / LANES], group % LANES, best.smallest());
            }
        }
        let mut best = V::splat(f64::INFINITY);
        for lanes in &self.group_min {
            best = best.min(V::load(lanes));
        }
        best.smallest()
    }

    /// The pair at distance `d`, as in the plain strategy.
    #[inline(always)]
    fn pair_at<V: Vector>(&self, d: f64) -> (u32, u32) {
        let at = V::splat(d);
        let mut best = (f64::INFINITY, u32::MAX, u32::MAX);
        let hits = |lanes: &Lanes| V::bits(V::load(lanes).equal(at));
        for (number, lanes) in self.group_min.iter().enumerate() {
            for group in bits(hits(lanes)).map(|l| number * LANES + l) {
                let minima = &self.block_min[group * LANES..(group + 1) * LANES];
                for (number, lanes) in minima.iter().enumerate() {
                    for l in bits(hits(lanes)) {
                        let block = &self.blocks[group * GROUP + number * LANES + l];
                        for lane in bits(hits(&block.d)) {
                            let (id, who) = (block.id.0[lane] as u32, block.who.0[lane] as u32);
                            let pair = (block.near.0[lane], id.min(who), id.max(who));
                            if pair < best {
                                best = pair;
                            }
                        }
                    }
                }
            }
        }
        (best.1, best.2)
    }

    /// Removes a node from its tile, which is returned: the tile's last slot takes its place.
    #[inline(always)]
    fn take_out<V: Vector>(&mut self, node: u32) -> u32 {
        let slot = self.slot_of[node as usize] as usize;
        let number = self.tile_of[slot / LANES];
        let tile = &mut self.tiles[number as usize];
        tile.used -= 1;
        let last = tile.first as usize * LANES + tile.used as usize;
        if slot != last {
            let (from, lane) = (&self.blocks[last / LANES], last % LANES);
            let moved = [from.y.0[lane], from.phi.0[lane], from.id.0[lane], from.near.0[lane]];
            let others = [from.who.0[lane], from.d.0[lane], from.weight.0[lane]];
            let (to, lane) = (&mut self.blocks[slot / LANES], slot % LANES);
            V::put(&mut to.y, lane, moved[0]);
            V::put(&mut to.phi, lane, moved[1]);
            V::put(&mut to.id, lane, moved[2]);
            V::put(&mut to.near, lane, moved[3]);
            V::put(&mut to.who, lane, others[0]);
            V::put(&mut to.d, lane, others[1]);
            V::put(&mut to.weight, lane, others[2]);
            self.slot_of[moved[2] as usize] = slot as u32;
            if slot / LANES != last / LANES {
                self.refresh::<V>(slot / LANES);
            }
        }
        let (block, lane) = (&mut self.blocks[last / LANES], last % LANES);
        V::put(&mut block.y, lane, NOWHERE);
        V::put(&mut block.near, lane, f64::INFINITY);
        V::put(&mut block.who, lane, BEAM);
        V::put(&mut block.d, lane, f64::INFINITY);
        self.refresh::<V>(last / LANES);
        number
    }

    /// Offers a new node to all around it; notes who has lost a neighbour among `gone`; returns its tile and nearest.
    #[inline(always)]
    fn introduce<V: Vector>(
        &mut self,
        node: u32,
        point: &Point,
        gone: [u32; 2],
        step: u32,
        per_radius2: f64,
    ) -> (u32, f64, f64) {
        let tile = self.tile_at(point);
        let Tile { around, n_around, .. } = self.tiles[tile as usize];
        let (y, phi, new) = (V::splat(point.rapidity), V::splat(point.phi), V::splat(f64::from(node)));
        let (weight, per_radius2) = (V::splat(point.weight), V::splat(per_radius2));
        let [gone_a, gone_b] = gone.map(|node| V::splat(f64::from(node)));
        let mut nearest = Nearest::<V>::nobody();
        for &at in &around[..n_around as usize] {
            self.visited[at as usize] = step;
            for number in self.tiles[at as usize].blocks() {
                let block = &mut self.blocks[number];
                let delta2 = delta2_of_eight(y, phi, V::load(&block.y), V::load(&block.phi));
                nearest.offer(delta2, V::load(&block.id));
                // The new number is the highest, so that it wins no tie.
                let near = V::load(&block.near);
                let nearer = delta2.less(near);
                let mut who = V::load(&block.who);
                let changed = V::bits(nearer) != 0;
                if changed {
                    who = V::choose(nearer, new, who);
                    who.store(&mut block.who);
                    near.min(delta2).store(&mut block.near);
                    let d = V::load(&block.weight).min(weight).mul(delta2.mul(per_radius2));
                    V::choose(nearer, d, V::load(&block.d)).store(&mut block.d);
                }
                let lost = V::bits(V::either(who.equal(gone_a), who.equal(gone_b)));
                self.again.extend(bits(lost).map(|lane| block.id.0[lane] as u32));
                if changed {
                    self.refresh::<V>(number);
                }
            }
        }
        let (near, neighbour) = nearest.of_all();
        (tile, near, neighbour)
    }

    /// Notes who around a tile has lost a neighbour, where this step has not been yet.
    #[inline(always)]
    fn forsake<V: Vector>(&mut self, tile: u32, gone: [u32; 2], step: u32) {
        let Tile { around, n_around, .. } = self.tiles[tile as usize];
        let [gone_a, gone_b] = gone.map(|node| V::splat(f64::from(node)));
        for &at in &around[..n_around as usize] {
            if self.visited[at as usize] == step {
                continue;
            }
            self.visited[at as usize] = step;
            for block in &self.blocks[self.tiles[at as usize].blocks()] {
                let who = V::load(&block.who);
                let lost = V::bits(V::either(who.equal(gone_a), who.equal(gone_b)));
                self.again.extend(bits(lost).map(|lane| block.id.0[lane] as u32));
            }
        }
    }

    /// Gives a new node a slot in a tile.
    #[inline(always)]
    fn put_in<V: Vector>(&mut self, node: u32, point: &Point, tile: u32) {
        if self.tiles[tile as usize].used == self.tiles[tile as usize].room * LANES as u32 {
            self.enlarge::<V>(tile);
        }
        let tile = &mut self.tiles[tile as usize];
        let slot = tile.first as usize * LANES + tile.used as usize;
        tile.used += 1;
        self.slot_of[node as usize] = slot as u32;
        let (block, lane) = (&mut self.blocks[slot / LANES], slot % LANES);
        V::put(&mut block.y, lane, point.rapidity);
        V::put(&mut block.phi, lane, point.phi);
        V::put(&mut block.id, lane, f64::from(node));
        V::put(&mut block.weight, lane, point.weight);
    }

    /// Moves a full tile to the end of all blocks, with twice the room.
    #[cold]
    #[inline(never)]
    fn enlarge<V: Vector>(&mut self, tile: u32) {
        let Tile { first, room, .. } = self.tiles[tile as usize];
        let (old, new) = (first as usize, self.blocks.len());
        self.blocks.resize(new + 2 * room as usize, Block::EMPTY);
        self.tile_of.resize(self.blocks.len(), tile);
        self.reserve_minima();
        for at in 0..room as usize {
            self.blocks[new + at] = self.blocks[old + at];
            self.blocks[old + at] = Block::EMPTY;
            for lane in 0..LANES {
                let id = self.blocks[new + at].id.0[lane];
                if id != BEAM {
                    self.slot_of[id as usize] = ((new + at) * LANES + lane) as u32;
                }
            }
        }
        for at in 0..room as usize {
            self.refresh_portably(old + at);
            self.refresh_portably(new + at);
        }
        let tile = &mut self.tiles[tile as usize];
        tile.first = new as u32;
        tile.room = 2 * room;
    }

    fn refresh_portably(&mut self, block: usize) {
        self.block_min[block / LANES].0[block % LANES] =
            self.blocks[block].d.0.into_iter().fold(f64::INFINITY, least);
        self.stale[block / GROUP / 64] |= 1 << (block / GROUP % 64);
    }

    /// Finds the neighbour of a node.
    #[inline(always)]
    fn search<V: Vector>(&mut self, node: u32, nodes: &Nodes, limit: f64, radius2: f64, per_radius2: f64) {
        let point = &nodes.points[node as usize];
        let (row, column) = self.grid.place(point.rapidity, point.phi);
        let tile = &self.tiles[row * self.grid.n_phi + column];
        let (y, phi) = (V::splat(point.rapidity), V::splat(point.phi));
        let (itself, nowhere) = (V::splat(f64::from(node)), V::splat(f64::INFINITY));
        let mut nearest = Nearest::<V>::nobody();
        for block in &self.blocks[tile.blocks()] {
            let delta2 = delta2_of_eight(y, phi, V::load(&block.y), V::load(&block.phi));
            let ids = V::load(&block.id);
            nearest.offer(V::choose(ids.equal(itself), nowhere, delta2), ids);
        }
        let reach = least(nearest.delta2.smallest(), limit);
        let borders = self.grid.borders(point.rapidity, point.phi, row, column);
        for at in 1..tile.n_around as usize {
            let [step_y, step_phi] = tile.way[at].map(|step| (step + 1) as usize);
            let (dy, dphi) = (borders[0][step_y], borders[1][step_phi]);
            if dy * dy + dphi * dphi > reach {
                continue;
            }
            for block in &self.blocks[self.tiles[tile.around[at] as usize].blocks()] {
                let delta2 = delta2_of_eight(y, phi, V::load(&block.y), V::load(&block.phi));
                nearest.offer(delta2, V::load(&block.id));
            }
        }
        let (near, neighbour) = nearest.of_all();
        let (near, neighbour) = if near <= limit { (near, neighbour) } else { (radius2, BEAM) };
        self.assign::<V>(node, near, neighbour, nodes, per_radius2);
    }

    /// Writes the neighbour of a node and its d.
    #[inline(always)]
    fn assign<V: Vector>(&mut self, node: u32, near: f64, neighbour: f64, nodes: &Nodes, per_radius2: f64) {
        let slot = self.slot_of[node as usize] as usize;
        let weight = nodes.points[node as usize].weight;
        let d = if neighbour == BEAM {
            weight
        } else {
            least(weight, nodes.points[neighbour as usize].weight) * (near * per_radius2)
        };
        let (block, lane) = (&mut self.blocks[slot / LANES], slot % LANES);
        V::put(&mut block.near, lane, near);
        V::put(&mut block.who, lane, neighbour);
        V::put(&mut block.d, lane, d);
        self.refresh::<V>(slot / LANES);
    }
}

/// The bits that are set, lowest first.
#[inline(always)]
fn bits(mut word: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = word.trailing_zeros() as usize;
        (word != 0).then(|| {
            word &= word - 1;
            lane
        })
    })
}

/// The nearest so far in each lane.
#[derive(Clone, Copy)]
struct Nearest<V> {
    delta2: V,
    who: V,
}

impl<V: Vector> Nearest<V> {
    #[inline(always)]
    fn nobody() -> Self {
        Self { delta2: V::splat(f64::INFINITY), who: V::splat(BEAM) }
    }

    /// Eight more candidates. Of equally near ones the lower number is kept.
    #[inline(always)]
    fn offer(&mut self, delta2: V, id: V) {
        let closer =
            V::either(delta2.less(self.delta2), V::both(delta2.equal(self.delta2), id.less(self.who)));
        self.delta2 = V::choose(closer, delta2, self.delta2);
        self.who = V::choose(closer, id, self.who);
    }

    /// The nearest of all: (Delta^2, node number).
    #[inline(always)]
    fn of_all(self) -> (f64, f64) {
        let delta2 = self.delta2.smallest();
        let who = V::choose(self.delta2.equal(V::splat(delta2)), self.who, V::splat(BEAM));
        (delta2, who.smallest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FourMomentum;
    use crate::cluster::Algorithm;
    use crate::simd::Portable;

    /// A tile hardly ever fills up: two momenta must merge into a tile that neither was in. So all are moved by hand.
    #[test]
    fn tiles_that_move_lose_nothing() {
        let particles: Vec<_> = (0..150)
            .map(|i| {
                let x = f64::from(i);
                let (y, phi) = (3.0 * (1.7 * x).sin(), 3.0 + 3.0 * (2.9 * x).cos());
                FourMomentum::from_pt_rapidity_phi_mass(1.0 + x, y, phi, 0.1)
            })
            .collect();
        let definition = JetDefinition::new(Algorithm::Kt, 0.6).expect("in range");
        let (mut nodes, mut memory) = (Nodes::default(), Tiled::default());
        nodes.start(&particles, &definition, Level::Portable);
        memory.fill(&nodes, 0.6);
        let (radius2, limit) = (0.36, 0.36_f64.next_down());
        for node in 0..150 {
            memory.search::<Portable>(node, &nodes, limit, radius2, 1.0 / radius2);
        }
        let smallest = memory.smallest::<Portable>();
        let pair = memory.pair_at::<Portable>(smallest);
        for tile in 0..memory.tiles.len() as u32 {
            memory.enlarge::<Portable>(tile);
        }
        assert_eq!(memory.smallest::<Portable>(), smallest);
        assert_eq!(memory.pair_at::<Portable>(smallest), pair);
        for node in 0..150_u32 {
            let slot = memory.slot_of[node as usize] as usize;
            assert_eq!(memory.blocks[slot / LANES].id.0[slot % LANES], f64::from(node));
            let tile = memory.tile_at(&nodes.points[node as usize]);
            assert_eq!(memory.tile_of[slot / LANES], tile);
            assert!(memory.tiles[tile as usize].blocks().contains(&(slot / LANES)));
        }
    }
}
