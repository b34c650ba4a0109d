//! The embedding of pairs on the CPU: tiles of pairs, passes parted by the statistics of the norms.
//!
//! The first layer has four inputs: its statistics follow from the means and products of the features, and so do its
//! gradients from the products of features and gradient. So its values are never stored: tiles compute them from the
//! features. Of the later layers what comes before the norm is kept.

use burn::backend::flex::FlexTensor;

use super::{FEATURES, kernels};
use crate::layers::NORM_EPSILON;
use crate::ops::bridge::{integers, slice};
use crate::ops::cpu::{
    Affine, Buffer, CpuNorm, Matrix, NormGradient, Path, Statistics, Sums, add_up, column_sums, in_turn,
    product, runs, split, unset,
};
use crate::ops::rows::kernels::{add_rows, repeat};

/// See [`super::Layer`].
#[derive(Debug)]
pub struct Layer {
    pub weight: FlexTensor,
    pub bias: FlexTensor,
    pub norm: CpuNorm,
}

impl Layer {
    fn width(&self) -> usize {
        slice(&self.bias).len()
    }

    fn inputs(&self) -> usize {
        slice(&self.weight).len() / self.width().max(1)
    }
}

/// Everything that the operation reads.
#[derive(Debug)]
pub struct Inputs {
    /// `[N, 4]`, contiguous.
    pub kinematics: FlexTensor,
    /// `[B + 1]`.
    pub offsets: FlexTensor,
    pub input: CpuNorm,
    pub layers: Vec<Layer>,
}

/// Pairs of a tile.
const TILE: usize = 512;

/// Which pairs there are.
struct Pairs {
    /// First pair of each jet, and the number of pairs.
    starts: Vec<usize>,
}

impl Pairs {
    fn new(offsets: &[i32]) -> Self {
        let mut starts = vec![0];
        for jet in offsets.windows(2) {
            let size = (jet[1] - jet[0]) as usize;
            starts.push(starts[starts.len() - 1] + size * (size + 1) / 2);
        }
        Self { starts }
    }

    fn count(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn jets(&self) -> usize {
        self.starts.len() - 1
    }

    fn tiles(&self) -> usize {
        self.count().div_ceil(TILE)
    }

    fn tile(&self, tile: usize) -> std::ops::Range<usize> {
        tile * TILE..((tile + 1) * TILE).min(self.count())
    }

    fn split<'a>(&self, buffer: &'a mut [f32], columns: usize) -> Vec<&'a mut [f32]> {
        split(buffer, (0..self.tiles()).map(|tile| self.tile(tile).len() * columns))
    }

    fn split_jets<'a>(&self, buffer: &'a mut [f32], columns: usize) -> Vec<&'a mut [f32]> {
        split(buffer, self.starts.windows(2).map(|pair| (pair[1] - pair[0]) * columns))
    }
}

/// Sums of features and of their products, in double precision.
#[derive(Clone, Copy, Debug, Default)]
struct FeatureSums {
    first: [f64; FEATURES],
    second: [[f64; FEATURES]; FEATURES],
}

/// The input's norm and the first layer, as maps of the features less their mean.
#[derive(Debug)]
struct First {
    pairs: f64,
    /// Statistics of the input's norm.
    input: Statistics,
    /// `weight / sqrt(variance + eps)` of the input's norm.
    scale: [f64; FEATURES],
    /// Sums of features less the norm's mean, and of their products.
    sums: FeatureSums,
    /// Statistics of the first layer's norm.
    statistics: Statistics,
    /// Mean of the first layer before its norm, less what the norm takes off.
    offset: Vec<f64>,
    /// `[4, C]`: from features less their mean to the argument of the GELU.
    map: Vec<f32>,
    /// Added there.
    term: Vec<f32>,
}

impl First {
    fn new(inputs: &Inputs, pairs: usize, raw: FeatureSums) -> Self {
        let layer = &inputs.layers[0];
        let (c, count) = (layer.width(), pairs as f64);
        let (weight, bias) = (slice(&layer.weight), slice(&layer.bias));
        let input = inputs.input.statistics().unwrap_or_else(|| {
            let mean: Vec<f64> = raw.first.iter().map(|sum| sum / count).collect();
            let variance: Vec<f32> = (0..FEATURES)
                .map(|k| (raw.second[k][k] / count - mean[k] * mean[k]).max(0.0) as f32)
                .collect();
            let mean: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
            Statistics { rows: pairs, ..Statistics::running(&mean, &variance) }
        });
        let mean: [f64; FEATURES] = std::array::from_fn(|k| f64::from(input.mean[k]));
        // Sums about the mean.
        let mut sums = raw;
        for k in 0..FEATURES {
            sums.first[k] = raw.first[k] - count * mean[k];
            for l in 0..FEATURES {
                sums.second[k][l] = raw.second[k][l] - mean[k] * raw.first[l] - mean[l] * raw.first[k]
                    + count * mean[k] * mean[l];
            }
        }
        let scale: [f64; FEATURES] = std::array::from_fn(|k| {
            f64::from(slice(&inputs.input.weight)[k]) / (f64::from(input.variance[k]) + NORM_EPSILON).sqrt()
        });
        let w = |k: usize, j: usize| f64::from(weight[k * c + j]) * scale[k];
        // The layer at the mean of the features.
        let centre = |j: usize| {
            f64::from(bias[j])
                + (0..FEATURES)
                    .map(|k| f64::from(slice(&inputs.input.bias)[k]) * f64::from(weight[k * c + j]))
                    .sum::<f64>()
        };
        let statistics = layer.norm.statistics().unwrap_or_else(|| {
            let (mut means, mut variances) = (Vec::with_capacity(c), Vec::with_capacity(c));
            for j in 0..c {
                let step = (0..FEATURES).map(|k| w(k, j) * sums.first[k]).sum::<f64>() / count;
                let square: f64 = (0..FEATURES)
                    .map(|k| (0..FEATURES).map(|l| w(k, j) * w(l, j) * sums.second[k][l]).sum::<f64>())
                    .sum();
                means.push((centre(j) + step) as f32);
                variances.push((square / count - step * step).max(0.0) as f32);
            }
            Statistics { rows: pairs, ..Statistics::running(&means, &variances) }
        });
        let offset: Vec<f64> = (0..c).map(|j| centre(j) - f64::from(statistics.mean[j])).collect();
        let outer = statistics.scale(slice(&layer.norm.weight));
        let map = (0..FEATURES * c).map(|at| (w(at / c, at % c) * f64::from(outer[at % c])) as f32).collect();
        let term = (0..c)
            .map(|j| (offset[j] * f64::from(outer[j]) + f64::from(slice(&layer.norm.bias)[j])) as f32)
            .collect();
        Self { pairs: count, input, scale, sums, statistics, offset, map, term }
    }
}

/// What the forward pass leaves for the backward.
#[derive(Debug)]
pub struct Passed {
    features: Buffer,
    first: Option<First>,
    /// Results of the later layers before their norms.
    z: Vec<Buffer>,
    /// Of the later layers' norms.
    statistics: Vec<Statistics>,
}

impl Passed {
    /// Statistics of the input's norm and of each layer's; none without pairs.
    pub fn statistics(&self) -> Vec<&Statistics> {
        let first = self.first.iter().flat_map(|first| [&first.input, &first.statistics]);
        first.chain(&self.statistics).collect()
    }
}

/// Features of all pairs, `[P, 4]`, and their sums.
fn features(inputs: &Inputs, pairs: &Pairs, path: Path) -> (Buffer, FeatureSums) {
    let offsets = integers(&inputs.offsets);
    let mut features = Buffer::take(pairs.count() * FEATURES);
    let tasks = pairs.split_jets(&mut features, FEATURES).into_iter().enumerate().collect();
    let sums = in_turn(tasks, <(Vec<f32>, Vec<f32>)>::default, |(columns, row), (jet, out)| {
        let nodes = offsets[jet] as usize..offsets[jet + 1] as usize;
        let n = nodes.len();
        let kinematics = &slice(&inputs.kinematics)[nodes.start * 4..nodes.end * 4];
        columns.resize(5 * n, 0.0);
        row.resize(FEATURES * n, 0.0);
        for (node, p) in kinematics.as_chunks::<4>().0.iter().enumerate() {
            let m2 = p[3] * p[3].abs();
            let mt2 = p[0] * p[0] + m2;
            let mt = if mt2 < 0.0 { 0.0 } else { mt2.sqrt() };
            for (column, value) in [p[0], p[1], p[2], m2, mt].into_iter().enumerate() {
                columns[column * n + node] = value;
            }
        }
        let column = |at: usize| &columns[at * n..(at + 1) * n];
        let particles =
            kernels::Particles { pt: column(0), y: column(1), phi: column(2), m2: column(3), mt: column(4) };
        let mut sums = FeatureSums::default();
        let mut out = out.as_chunks_mut::<FEATURES>().0;
        for i in 0..n {
            kernels::features(path, particles, i, row);
            let (here, rest) = out.split_at_mut(i + 1);
            out = rest;
            for (j, out) in here.iter_mut().enumerate() {
                *out = std::array::from_fn(|feature| row[feature * (i + 1) + j]);
                let values = out.map(f64::from);
                for k in 0..FEATURES {
                    sums.first[k] += values[k];
                    for l in 0..=k {
                        sums.second[k][l] += values[k] * values[l];
                    }
                }
            }
        }
        sums
    });
    let mut total = FeatureSums::default();
    for sums in sums {
        for k in 0..FEATURES {
            total.first[k] += sums.first[k];
            for l in 0..=k {
                total.second[k][l] += sums.second[k][l];
                total.second[l][k] = total.second[k][l];
            }
        }
    }
    (features, total)
}

/// Result of the layer before `layer` for a tile, into `out`.
fn hidden(
    inputs: &Inputs,
    passed: &Passed,
    layer: usize,
    rows: &std::ops::Range<usize>,
    out: &mut [f32],
    path: Path,
) {
    let Some(first) = &passed.first else { return };
    if layer == 1 {
        let f = &passed.features[rows.start * FEATURES..rows.end * FEATURES];
        kernels::first_layer(path, f, &first.input.mean, &first.map, &first.term, out);
    } else {
        let statistics = &passed.statistics[layer - 2];
        let norm = &inputs.layers[layer - 1].norm;
        let scale = statistics.scale(slice(&norm.weight));
        let norm = Affine { mean: &statistics.mean, scale: &scale, bias: slice(&norm.bias) };
        let c = scale.len();
        kernels::norm_gelu(path, &passed.z[layer - 2][rows.start * c..rows.end * c], norm, out);
    }
}

/// The result in the order of [`super::super::attention::PairBias`], and what the backward needs.
pub fn forward(inputs: &Inputs, path: Path) -> (Vec<f32>, Passed) {
    let pairs = Pairs::new(integers(&inputs.offsets));
    let (features, sums) = features(inputs, &pairs, path);
    let count = pairs.count();
    let first = (count > 0).then(|| First::new(inputs, count, sums));
    let mut passed = Passed { features, first, z: Vec::new(), statistics: Vec::new() };
    if count == 0 {
        return (Vec::new(), passed);
    }
    for (at, layer) in inputs.layers.iter().enumerate().skip(1) {
        let (before, c) = (layer.inputs(), layer.width());
        let weight = Matrix::rows(slice(&layer.weight), before, c, c);
        let mut z = Buffer::take(count * c);
        let tasks = pairs.split(&mut z, c).into_iter().enumerate().collect();
        let sums = in_turn(tasks, Buffer::default, |h, (tile, z)| {
            let rows = pairs.tile(tile);
            let h = h.at_least(rows.len() * before);
            hidden(inputs, &passed, at, &rows, h, path);
            repeat(path, slice(&layer.bias), z);
            product(z, c, true, Matrix::rows(h, rows.len(), before, before), weight);
            let mut sums = Sums::new(c);
            if layer.norm.running.is_none() {
                column_sums(path, z, c, rows.len(), &mut sums);
            }
            sums
        });
        passed.statistics.push(layer.norm.statistics().unwrap_or_else(|| Statistics::join(sums.iter(), c)));
        passed.z.push(z);
    }
    // By head: jet by jet.
    let (last, heads) = (inputs.layers.len(), inputs.layers[inputs.layers.len() - 1].width());
    let mut y = unset(count * heads);
    let tasks = pairs.split_jets(&mut y, heads).into_iter().enumerate().collect();
    in_turn(tasks, Buffer::default, |h, (jet, y)| {
        let rows = pairs.starts[jet]..pairs.starts[jet + 1];
        let h = h.at_least(rows.len() * heads);
        hidden(inputs, &passed, last, &rows, h, path);
        for (pair, h) in h.chunks_exact(heads).enumerate() {
            for (head, value) in h.iter().enumerate() {
                y[head * rows.len() + pair] = *value;
            }
        }
    });
    (y, passed)
}

/// Gradients in the order of the parents: scale and shift of the input's norm; then of each layer weight, bias, scale and
/// shift of its norm.
pub fn backward(inputs: &Inputs, passed: &Passed, dy: &[f32], path: Path) -> Vec<Vec<f32>> {
    let pairs = Pairs::new(integers(&inputs.offsets));
    let count = pairs.count();
    let mut found: Vec<Vec<f32>> = [FEATURES, FEATURES]
        .into_iter()
        .chain(inputs.layers.iter().flat_map(|layer| {
            let c = layer.width();
            [layer.inputs() * c, c, c, c]
        }))
        .map(|length| vec![0.0; length])
        .collect();
    let Some(first) = passed.first.as_ref().filter(|_| count > 0) else { return found };
    let last = inputs.layers.len() - 1;
    let heads = inputs.layers[last].width();
    // From heads to rows of pairs.
    let mut d = Buffer::take(count * heads);
    let tasks = pairs.split_jets(&mut d, heads).into_iter().enumerate().collect();
    in_turn(
        tasks,
        || (),
        |(), (jet, d)| {
            let rows = pairs.starts[jet + 1] - pairs.starts[jet];
            let dy = &dy[pairs.starts[jet] * heads..pairs.starts[jet + 1] * heads];
            for (pair, d) in d.chunks_exact_mut(heads).enumerate() {
                for (head, d) in d.iter_mut().enumerate() {
                    *d = dy[head * rows + pair];
                }
            }
        },
    );
    debug_assert_eq!(pairs.jets() + 1, integers(&inputs.offsets).len());
    let mut sums: Vec<(Vec<f32>, Vec<f32>)> = Vec::new();
    if last > 0 {
        let (statistics, norm) = (&passed.statistics[last - 1], &inputs.layers[last].norm);
        let scale = statistics.scale(slice(&norm.weight));
        let affine = Affine { mean: &statistics.mean, scale: &scale, bias: slice(&norm.bias) };
        let tasks = pairs.split(&mut d, heads).into_iter().enumerate().collect();
        sums = in_turn(
            tasks,
            || (),
            |(), (tile, d)| {
                let rows = pairs.tile(tile);
                let z = &passed.z[last - 1][rows.start * heads..rows.end * heads];
                kernels::norm_gelu_gradient(path, z, affine, d);
                let mut sums = (vec![0f32; heads], vec![0f32; heads]);
                kernels::norm_sums(path, d, z, &statistics.mean, &mut sums.0, &mut sums.1);
                sums
            },
        );
    }
    let width = inputs.layers[0].width();
    // Products of features and gradient of the first layer's argument, and sums of the gradient.
    let mut moments: Vec<Buffer> = Vec::new();
    for at in (1..=last).rev() {
        let layer = &inputs.layers[at];
        let (before, c) = (layer.inputs(), layer.width());
        let statistics = &passed.statistics[at - 1];
        let parts = sums.iter().map(|(first, second)| (&first[..], &second[..]));
        let gradient = NormGradient::new(parts, statistics, slice(&layer.norm.weight));
        let weight = Matrix::rows(slice(&layer.weight), before, c, c).transposed();
        let below = (at > 1).then(|| {
            let (statistics, norm) = (&passed.statistics[at - 2], &inputs.layers[at - 1].norm);
            (statistics, statistics.scale(slice(&norm.weight)), slice(&norm.bias))
        });
        let mut next = Buffer::take(if at > 1 { count * before } else { 0 });
        let chunks = {
            let mut d = pairs.split(&mut d, c).into_iter();
            let mut next = pairs.split(&mut next, if at > 1 { before } else { 0 }).into_iter();
            let cut = |chunk: std::ops::Range<usize>| {
                let length = chunk.len();
                let d = d.by_ref().take(length).collect::<Vec<_>>();
                (chunk, d, next.by_ref().take(length).collect::<Vec<_>>())
            };
            runs(pairs.tiles()).into_iter().map(cut).collect::<Vec<_>>()
        };
        type Scratch = (Buffer, Buffer, Buffer, Buffer);
        let done = in_turn(chunks, Scratch::default, |(h, slope, dz, dh), (chunk, d, next)| {
            let zeros = |length: usize| {
                let mut zeros = Buffer::take(length);
                zeros.fill(0.0);
                zeros
            };
            let (mut d_weight, mut d_bias) = (zeros(before * c), zeros(c));
            let mut moments = zeros(if at > 1 { 0 } else { (FEATURES + 1) * before });
            let mut sums = Vec::new();
            for ((tile, d), next) in chunk.zip(d).zip(next) {
                let rows = pairs.tile(tile);
                let n = rows.len();
                let (h, slope) = (h.at_least(n * before), slope.at_least(n * before));
                let dz = dz.at_least(n * c);
                let z = &passed.z[at - 1][rows.start * c..rows.end * c];
                let NormGradient { k0, k1, k2, .. } = &gradient;
                kernels::norm_gradient(path, d, z, &statistics.mean, k0, k1, k2, dz);
                let f = &passed.features[rows.start * FEATURES..rows.end * FEATURES];
                match &below {
                    Some((statistics, scale, bias)) => {
                        let z = &passed.z[at - 2][rows.start * before..rows.end * before];
                        let norm = Affine { mean: &statistics.mean, scale, bias };
                        kernels::norm_gelu_both(path, z, norm, h, slope);
                    }
                    None => {
                        let mean = &first.input.mean;
                        kernels::first_layer_both(path, f, mean, &first.map, &first.term, h, slope);
                    }
                }
                let rows_dz = Matrix::rows(dz, n, c, c);
                product(&mut d_weight, c, true, Matrix::rows(h, n, before, before).transposed(), rows_dz);
                add_rows(path, dz, &mut d_bias);
                match &below {
                    Some((statistics, ..)) => {
                        product(next, before, false, rows_dz, weight);
                        let z = &passed.z[at - 2][rows.start * before..rows.end * before];
                        let mut pair = (vec![0f32; before], vec![0f32; before]);
                        let mean = &statistics.mean;
                        kernels::through(path, slope, z, mean, next, &mut pair.0, &mut pair.1);
                        sums.push(pair);
                    }
                    None => {
                        let dh = dh.at_least(n * before);
                        product(dh, before, false, rows_dz, weight);
                        let (products, sums) = moments.split_at_mut(FEATURES * before);
                        kernels::feature_sums(path, f, &first.input.mean, dh, slope, products, sums);
                    }
                }
            }
            (d_weight, d_bias, moments, sums)
        });
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        sums.clear();
        for (weight, bias, moment, sum) in done {
            weights.push(weight);
            biases.push(bias);
            moments.push(moment);
            sums.extend(sum);
        }
        found[2 + 4 * at] = add_up(weights);
        found[3 + 4 * at] = add_up(biases);
        found[4 + 4 * at] = gradient.weight;
        found[5 + 4 * at] = gradient.bias;
        if at > 1 {
            d = next;
            moments.clear();
        }
    }
    if last == 0 {
        // The first layer is the only one.
        let tasks = pairs.split(&mut d, width).into_iter().enumerate().collect();
        moments = in_turn(tasks, <(Buffer, Buffer)>::default, |(h, slope), (tile, d)| {
            let rows = pairs.tile(tile);
            let (h, slope) = (h.at_least(rows.len() * width), slope.at_least(rows.len() * width));
            let f = &passed.features[rows.start * FEATURES..rows.end * FEATURES];
            kernels::first_layer_both(path, f, &first.input.mean, &first.map, &first.term, h, slope);
            let mut moments = Buffer::take((FEATURES + 1) * width);
            moments.fill(0.0);
            let (products, sums) = moments.split_at_mut(FEATURES * width);
            kernels::feature_sums(path, f, &first.input.mean, d, slope, products, sums);
            moments
        });
    }
    first_gradients(inputs, first, &moments, &mut found);
    found
}

/// Gradients of the input's norm and of the first layer, from the sums over pairs of the gradient `d` of the argument of
/// its GELU, alone and with the features.
fn first_gradients(inputs: &Inputs, first: &First, moments: &[Buffer], found: &mut [Vec<f32>]) {
    let layer = &inputs.layers[0];
    let c = layer.width();
    let weight = slice(&layer.weight);
    let mut sums = vec![0f64; (FEATURES + 1) * c];
    for part in moments {
        for (sum, value) in sums.iter_mut().zip(part.iter()) {
            *sum += f64::from(*value);
        }
    }
    let (products, sums) = sums.split_at(FEATURES * c);
    let shift = slice(&inputs.input.bias);
    let mut input = ([0f64; FEATURES], [0f64; FEATURES]);
    for j in 0..c {
        let w = |k: usize| f64::from(weight[k * c + j]) * first.scale[k];
        // Before the norm, less the mean that it takes off: offset + sum of w_k f_k.
        let centred: f64 =
            first.offset[j] * sums[j] + (0..FEATURES).map(|k| w(k) * products[k * c + j]).sum::<f64>();
        let inverse = f64::from(first.statistics.inverse[j]);
        let k0 = inverse * f64::from(slice(&layer.norm.weight)[j]);
        let (k1, k2) = if first.statistics.rows > 0 {
            (-k0 * inverse * inverse * centred / first.pairs, -k0 * sums[j] / first.pairs)
        } else {
            (0.0, 0.0)
        };
        // Sum over pairs of the centred values, alone and with each feature.
        let total =
            first.pairs * first.offset[j] + (0..FEATURES).map(|k| w(k) * first.sums.first[k]).sum::<f64>();
        let bias = k0 * sums[j] + k1 * total + k2 * first.pairs;
        for k in 0..FEATURES {
            let with = first.offset[j] * first.sums.first[k]
                + (0..FEATURES).map(|l| w(l) * first.sums.second[k][l]).sum::<f64>();
            let gradient = k0 * products[k * c + j] + k1 * with + k2 * first.sums.first[k];
            found[2][k * c + j] = (first.scale[k] * gradient + f64::from(shift[k]) * bias) as f32;
            let inverse = 1.0 / (f64::from(first.input.variance[k]) + NORM_EPSILON).sqrt();
            input.0[k] += f64::from(weight[k * c + j]) * gradient * inverse;
            input.1[k] += f64::from(weight[k * c + j]) * bias;
        }
        found[3][j] = bias as f32;
        found[4][j] = (inverse * centred) as f32;
        found[5][j] = sums[j] as f32;
    }
    found[0] = input.0.iter().map(|&value| value as f32).collect();
    found[1] = input.1.iter().map(|&value| value as f32).collect();
}
