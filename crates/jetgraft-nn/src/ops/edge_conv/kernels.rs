//! Loops of the EdgeConv kernel over the edges and nodes of one tile, compiled per instruction path.
//!
//! A row of `u` is `[P | Q | S]`: what a node contributes as receiver and as sender, and its shortcut. The message
//! of an edge before the first norm is `P` of the receiver plus `Q` of the sender.

use crate::ops::cpu::{Affine, Sums, kernels, relu};

/// The edges that end in a tile, by receiver.
#[derive(Clone, Copy, Debug)]
pub struct Edges<'a> {
    /// First node of the tile.
    pub first: usize,
    /// Offsets of the tile's nodes in the whole edge list, one more than nodes.
    pub offsets: &'a [i32],
    /// Senders of the tile's edges.
    pub senders: &'a [i32],
}

impl Edges<'_> {
    /// Edges of the `node`-th node of the tile, counted in the tile.
    #[inline(always)]
    fn of(&self, node: usize) -> std::ops::Range<usize> {
        (self.offsets[node] - self.offsets[0]) as usize..(self.offsets[node + 1] - self.offsets[0]) as usize
    }

    #[inline(always)]
    fn nodes(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The sender of an edge, counted in the tile.
    #[inline(always)]
    fn sender(&self, edge: usize) -> usize {
        self.senders[edge] as usize - self.first
    }
}

kernels! {
    /// Sums of the messages before the first norm, in two passes: the shift is their mean.
    fn message_sums(u: &[f32], stride: usize, edges: Edges<'_>, sums: &mut Sums) {
        let c = sums.first.len();
        sums.rows = edges.senders.len();
        if sums.rows == 0 {
            return;
        }
        let (shift, first, second) = (&mut sums.shift[..c], &mut sums.first[..c], &mut sums.second[..c]);
        shift.fill(0.0);
        for node in 0..edges.nodes() {
            let p = &u[node * stride..node * stride + c];
            for edge in edges.of(node) {
                let at = edges.sender(edge) * stride + c;
                let q = &u[at..at + c];
                for j in 0..c {
                    shift[j] += p[j] + q[j];
                }
            }
        }
        for value in &mut *shift {
            *value /= edges.senders.len() as f32;
        }
        for node in 0..edges.nodes() {
            let p = &u[node * stride..node * stride + c];
            for edge in edges.of(node) {
                let at = edges.sender(edge) * stride + c;
                let q = &u[at..at + c];
                for j in 0..c {
                    let value = p[j] + q[j] - shift[j];
                    first[j] += value;
                    second[j] += value * value;
                }
            }
        }
    }

    /// Messages after the first norm and ReLU, `[edges, C]`.
    fn messages(u: &[f32], stride: usize, edges: Edges<'_>, norm: Affine<'_>, out: &mut [f32]) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        for node in 0..edges.nodes() {
            let p = &u[node * stride..node * stride + c];
            for edge in edges.of(node) {
                let at = edges.sender(edge) * stride + c;
                let q = &u[at..at + c];
                let out = &mut out[edge * c..edge * c + c];
                for j in 0..c {
                    out[j] = relu((p[j] + q[j] - mean[j]) * scale[j] + bias[j]);
                }
            }
        }
    }

    /// Messages with the first norm folded into `u` but for its shift.
    fn folded_messages(u: &[f32], stride: usize, edges: Edges<'_>, bias: &[f32], out: &mut [f32]) {
        let c = bias.len();
        for node in 0..edges.nodes() {
            let p = &u[node * stride..node * stride + c];
            for edge in edges.of(node) {
                let at = edges.sender(edge) * stride + c;
                let q = &u[at..at + c];
                let out = &mut out[edge * c..edge * c + c];
                for j in 0..c {
                    out[j] = relu(p[j] + q[j] + bias[j]);
                }
            }
        }
    }

    /// Mean over incoming edges of the second norm's ReLU, 0 without edges: `[nodes, C]`.
    fn node_means(z: &[f32], edges: Edges<'_>, norm: Affine<'_>, out: &mut [f32]) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        for node in 0..edges.nodes() {
            let out = &mut out[node * c..node * c + c];
            out.fill(0.0);
            let range = edges.of(node);
            let degree = range.len();
            for edge in range {
                let z = &z[edge * c..edge * c + c];
                for j in 0..c {
                    out[j] += relu((z[j] - mean[j]) * scale[j] + bias[j]);
                }
            }
            if degree > 1 {
                let share = 1.0 / degree as f32;
                for value in out {
                    *value *= share;
                }
            }
        }
    }

    /// `out = ReLU(out + norm(S))` for rows of `s`, `stride` apart.
    fn add_normed(s: &[f32], stride: usize, norm: Affine<'_>, out: &mut [f32]) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        for (row, out) in out.chunks_exact_mut(c).enumerate() {
            let s = &s[row * stride..row * stride + c];
            for j in 0..c {
                out[j] = relu(out[j] + ((s[j] - mean[j]) * scale[j] + bias[j]));
            }
        }
    }

    /// `out = ReLU(out + x)` for rows of `x`, `stride` apart.
    fn add_plain(x: &[f32], stride: usize, c: usize, out: &mut [f32]) {
        for (row, out) in out.chunks_exact_mut(c).enumerate() {
            let x = &x[row * stride..row * stride + c];
            for j in 0..c {
                out[j] = relu(out[j] + x[j]);
            }
        }
    }

    /// `out = d` where `y` is positive, else 0.
    fn where_positive(d: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, d), y) in out.iter_mut().zip(d).zip(y) {
            *out = if *y > 0.0 { *d } else { 0.0 };
        }
    }

    /// Sums of `d` and `d (S - mean)` over nodes.
    fn side_sums(d: &[f32], s: &[f32], stride: usize, mean: &[f32], first: &mut [f32], second: &mut [f32]) {
        let c = mean.len();
        let (first, second) = (&mut first[..c], &mut second[..c]);
        for (row, d) in d.chunks_exact(c).enumerate() {
            let s = &s[row * stride..row * stride + c];
            for j in 0..c {
                first[j] += d[j];
                second[j] += d[j] * (s[j] - mean[j]);
            }
        }
    }

    /// Sums over edges, for the second norm: gradient of its output, and that times `z - mean`.
    fn second_sums(
        d: &[f32],
        z: &[f32],
        edges: Edges<'_>,
        norm: Affine<'_>,
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        let (first, second) = (&mut first[..c], &mut second[..c]);
        for node in 0..edges.nodes() {
            let d = &d[node * c..node * c + c];
            let range = edges.of(node);
            let share = 1.0 / range.len().max(1) as f32;
            for edge in range {
                let z = &z[edge * c..edge * c + c];
                for j in 0..c {
                    let x = z[j] - mean[j];
                    let d = if x * scale[j] + bias[j] > 0.0 { d[j] * share } else { 0.0 };
                    first[j] += d;
                    second[j] += d * x;
                }
            }
        }
    }

    /// Gradient of the second product, `[edges, C]`.
    fn second_gradient(
        d: &[f32],
        z: &[f32],
        edges: Edges<'_>,
        norm: Affine<'_>,
        k1: &[f32],
        k2: &[f32],
        out: &mut [f32],
    ) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        let (k1, k2) = (&k1[..c], &k2[..c]);
        for node in 0..edges.nodes() {
            let d = &d[node * c..node * c + c];
            let range = edges.of(node);
            let share = 1.0 / range.len().max(1) as f32;
            for edge in range {
                let z = &z[edge * c..edge * c + c];
                let out = &mut out[edge * c..edge * c + c];
                for j in 0..c {
                    let x = z[j] - mean[j];
                    let d = if x * scale[j] + bias[j] > 0.0 { d[j] * share } else { 0.0 };
                    out[j] = scale[j] * d + k1[j] * x + k2[j];
                }
            }
        }
    }

    /// Takes the gradient through the first ReLU in place, and sums it and its product with the message less its
    /// mean.
    fn first_sums(
        d: &mut [f32],
        h: &[f32],
        u: &[f32],
        stride: usize,
        edges: Edges<'_>,
        mean: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let c = mean.len();
        let (first, second) = (&mut first[..c], &mut second[..c]);
        for node in 0..edges.nodes() {
            let p = &u[node * stride..node * stride + c];
            for edge in edges.of(node) {
                let at = edges.sender(edge) * stride + c;
                let q = &u[at..at + c];
                let d = &mut d[edge * c..edge * c + c];
                let h = &h[edge * c..edge * c + c];
                for j in 0..c {
                    let value = if h[j] > 0.0 { d[j] } else { 0.0 };
                    d[j] = value;
                    first[j] += value;
                    second[j] += value * (p[j] + q[j] - mean[j]);
                }
            }
        }
    }

    /// Gradients of `P` and `Q` from those of the messages: added up at receivers and senders.
    fn to_nodes(
        d: &[f32],
        u: &[f32],
        stride: usize,
        edges: Edges<'_>,
        mean: &[f32],
        k0: &[f32],
        k1: &[f32],
        k2: &[f32],
        du: &mut [f32],
    ) {
        let c = mean.len();
        let (k0, k1, k2) = (&k0[..c], &k1[..c], &k2[..c]);
        for row in du.chunks_exact_mut(stride) {
            row[..2 * c].fill(0.0);
        }
        for node in 0..edges.nodes() {
            let p = &u[node * stride..node * stride + c];
            for edge in edges.of(node) {
                let sender = edges.sender(edge) * stride + c;
                let q = &u[sender..sender + c];
                let d = &d[edge * c..edge * c + c];
                // `P` of one node and `Q` of another never overlap, but the two borrows would.
                let receiver = node * stride;
                if sender < receiver {
                    let (low, high) = du.split_at_mut(receiver);
                    let (dq, dp) = (&mut low[sender..sender + c], &mut high[..c]);
                    for j in 0..c {
                        let value = k0[j] * d[j] + k1[j] * (p[j] + q[j] - mean[j]) + k2[j];
                        dp[j] += value;
                        dq[j] += value;
                    }
                } else {
                    let (low, high) = du.split_at_mut(sender);
                    let (dp, dq) = (&mut low[receiver..receiver + c], &mut high[..c]);
                    for j in 0..c {
                        let value = k0[j] * d[j] + k1[j] * (p[j] + q[j] - mean[j]) + k2[j];
                        dp[j] += value;
                        dq[j] += value;
                    }
                }
            }
        }
    }

    /// Gradient of the shortcut's product, written `stride` apart.
    fn side_gradient(
        d: &[f32],
        s: &[f32],
        stride: usize,
        mean: &[f32],
        k0: &[f32],
        k1: &[f32],
        k2: &[f32],
        out: &mut [f32],
    ) {
        let c = mean.len();
        let (k0, k1, k2) = (&k0[..c], &k1[..c], &k2[..c]);
        for (row, d) in d.chunks_exact(c).enumerate() {
            let s = &s[row * stride..row * stride + c];
            let out = &mut out[row * stride..row * stride + c];
            for j in 0..c {
                out[j] = k0[j] * d[j] + k1[j] * (s[j] - mean[j]) + k2[j];
            }
        }
    }

    /// `out += d`.
    fn add(d: &[f32], out: &mut [f32]) {
        for (out, d) in out.iter_mut().zip(d) {
            *out += d;
        }
    }
}
