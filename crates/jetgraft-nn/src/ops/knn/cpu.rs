//! Nearest neighbours on the CPU: all distances of one node at a time, lanes along the other nodes of its jet, then
//! the `k` smallest by insertion. Beside the products of a network on the graph this is small: no use is made of
//! `|x|^2 + |y|^2 - 2 x y`, which would lose digits.

use burn::backend::flex::FlexTensor;

use crate::ops::bridge::rows;
use crate::ops::cpu::{Buffer, Path, Tiles, in_turn, kernels};

/// Nodes whose distances are taken together.
const LANES: usize = 32;

/// Senders by receiver, nearest first; `offsets` says how many each node has.
pub fn knn(points: &FlexTensor, jet_offsets: &[i32], offsets: &[i32], path: Path) -> Vec<i32> {
    let tiles = Tiles::new(jet_offsets);
    let columns = points.layout().shape()[1];
    let (data, stride) = rows(points);
    let mut senders = vec![0i32; offsets.last().map_or(0, |&edges| edges as usize)];
    let mut rest = &mut senders[..];
    let pieces: Vec<(usize, &mut [i32])> = (0..tiles.count())
        .map(|tile| {
            let nodes = tiles.range(tile);
            let edges = (offsets[nodes.end] - offsets[nodes.start]) as usize;
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(edges);
            rest = tail;
            (tile, head)
        })
        .collect();
    in_turn(pieces, <(Buffer, Buffer, Vec<u64>)>::default, |(turned, distances, best), (tile, mut out)| {
        for jet in tiles.jets[tile]..tiles.jets[tile + 1] {
            let (first, end) = (jet_offsets[jet] as usize, jet_offsets[jet + 1] as usize);
            let edges = (offsets[end] - offsets[first]) as usize;
            let (head, tail) = std::mem::take(&mut out).split_at_mut(edges);
            out = tail;
            if edges == 0 {
                continue;
            }
            let nodes = end - first;
            let wide = nodes.next_multiple_of(LANES);
            let turned = turned.at_least(wide * columns.max(1));
            let x = &data[first * stride..];
            for column in 0..columns {
                let row = &mut turned[column * wide..(column + 1) * wide];
                for (node, value) in row[..nodes].iter_mut().enumerate() {
                    *value = x[node * stride + column];
                }
                row[nodes..].fill(0.0);
            }
            best.resize(edges / nodes, 0);
            neighbours(
                path,
                turned,
                wide,
                nodes,
                columns,
                first as i32,
                distances.at_least(wide),
                best,
                head,
            );
        }
    });
    senders
}

kernels! {
    /// Neighbours of all nodes of a jet whose columns lie `wide` apart in `x`.
    fn neighbours(
        x: &[f32],
        wide: usize,
        nodes: usize,
        columns: usize,
        first: i32,
        distances: &mut [f32],
        best: &mut [u64],
        out: &mut [i32],
    ) {
        let k = best.len();
        for (node, out) in out.chunks_exact_mut(k).enumerate() {
            for (block, distances) in distances[..wide].chunks_exact_mut(LANES).enumerate() {
                let mut sums = [0f32; LANES];
                for column in 0..columns {
                    let row = &x[column * wide..(column + 1) * wide];
                    let (mine, others) = (row[node], &row[block * LANES..(block + 1) * LANES]);
                    for (sum, other) in sums.iter_mut().zip(others) {
                        let step = other - mine;
                        *sum += step * step;
                    }
                }
                for (distance, sum) in distances.iter_mut().zip(&sums) {
                    // Not a number compares false.
                    *distance = if *sum <= f32::MAX { *sum } else { f32::MAX };
                }
            }
            distances[node] = f32::INFINITY;
            distances[nodes..wide].fill(f32::INFINITY);
            select(distances, wide, best);
            for (out, key) in out.iter_mut().zip(&*best) {
                *out = first + (*key & 0xffff_ffff) as i32;
            }
        }
    }
}

/// The smallest distances with their places, in order; there are enough finite ones.
#[inline(always)]
fn select(distances: &[f32], wide: usize, best: &mut [u64]) {
    let last = best.len() - 1;
    best.fill(u64::from(f32::INFINITY.to_bits()) << 32);
    let mut limit = f32::INFINITY;
    for (block, distances) in distances[..wide].chunks_exact(LANES).enumerate() {
        let mut nearer = 0u32;
        for (lane, &distance) in distances.iter().enumerate() {
            nearer |= u32::from(distance < limit) << lane;
        }
        while nearer != 0 {
            let lane = nearer.trailing_zeros() as usize;
            nearer &= nearer - 1;
            let distance = distances[lane];
            if distance < limit {
                // Squares are not negative: their bits are in the order of their values. A place that comes later
                // is larger, so it goes behind an equal distance.
                let key = u64::from(distance.to_bits()) << 32 | (block * LANES + lane) as u64;
                let mut at = last;
                while at > 0 && best[at - 1] > key {
                    best[at] = best[at - 1];
                    at -= 1;
                }
                best[at] = key;
                limit = f32::from_bits((best[last] >> 32) as u32);
            }
        }
    }
}
