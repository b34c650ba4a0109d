//! Loops of the kernel over the edges and nodes of a tile or of a group of its nodes, compiled per instruction path.
//!
//! A row of `u` is `[P | Q | S]`: what a node contributes as receiver and as sender, and its shortcut. The message of
//! an edge before the first norm is `P` of the receiver plus `Q` of the sender. Loops go through the columns in
//! blocks, so that what belongs to a node stays in registers while its edges pass; a sum has the same order for any
//! width of the block.

use crate::ops::cpu::{Affine, Sums, kernels, relu};

/// Edges that end in a run of nodes of a tile, by receiver.
#[derive(Clone, Copy, Debug)]
pub struct Edges<'a> {
    /// First node of the tile.
    pub tile: usize,
    /// First node of the run, counted in the tile.
    pub first: usize,
    /// Offsets of the run's nodes in the whole edge list, one more than nodes.
    pub offsets: &'a [i32],
    /// Senders of the run's edges.
    pub senders: &'a [i32],
}

impl Edges<'_> {
    /// Edges of the `node`-th node of the run, counted in the run.
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
        self.senders[edge] as usize - self.tile
    }
}

/// `W` columns of a row.
#[inline(always)]
fn take<const W: usize>(values: &[f32], at: usize) -> &[f32; W] {
    match values[at..at + W].first_chunk() {
        Some(values) => values,
        None => unreachable!("cut to this length"),
    }
}

#[inline(always)]
fn take_mut<const W: usize>(values: &mut [f32], at: usize) -> &mut [f32; W] {
    match values[at..at + W].first_chunk_mut() {
        Some(values) => values,
        None => unreachable!("cut to this length"),
    }
}

/// Runs a function on all columns: blocks of 32, of 8, single ones.
macro_rules! by_columns {
    ($c:expr, $body:ident($($argument:expr),* $(,)?)) => {{
        let c = $c;
        let mut at = 0;
        while at + 32 <= c {
            $body::<32>(at, $($argument),*);
            at += 32;
        }
        while at + 8 <= c {
            $body::<8>(at, $($argument),*);
            at += 8;
        }
        while at < c {
            $body::<1>(at, $($argument),*);
            at += 1;
        }
    }};
}

/// Norm of a block of columns.
#[derive(Clone, Copy)]
struct Columns<const W: usize> {
    mean: [f32; W],
    scale: [f32; W],
    bias: [f32; W],
}

impl<const W: usize> Columns<W> {
    #[inline(always)]
    fn of(norm: Affine<'_>, at: usize) -> Self {
        Self { mean: *take(norm.mean, at), scale: *take(norm.scale, at), bias: *take(norm.bias, at) }
    }
}

kernels! {
    /// Sums of the messages before the first norm, and for each node the sum of its senders' `Q`.
    fn message_sums(u: &[f32], stride: usize, edges: Edges<'_>, sums: &mut Sums, senders: &mut [f32]) {
        let c = sums.first.len();
        sums.rows = edges.senders.len();
        let nodes = edges.nodes();
        if sums.rows == 0 {
            senders.fill(0.0);
            return;
        }
        // Nodes in place of edges: a shift need only be near the mean.
        let shift = &mut sums.shift[..c];
        shift.fill(0.0);
        for node in 0..nodes {
            let (p, q) = u[node * stride..node * stride + 2 * c].split_at(c);
            for j in 0..c {
                shift[j] += p[j] + q[j];
            }
        }
        for value in &mut *shift {
            *value /= nodes as f32;
        }
        #[inline(always)]
        fn body<const W: usize>(
            at: usize, u: &[f32], stride: usize, edges: Edges<'_>, c: usize, sums: &mut Sums, senders: &mut [f32],
        ) {
            let shift: [f32; W] = *take(&sums.shift, at);
            let (mut first, mut second) = ([0f32; W], [0f32; W]);
            for node in 0..edges.nodes() {
                let p: &[f32; W] = take(u, (edges.first + node) * stride + at);
                let mut centred = [0f32; W];
                for j in 0..W {
                    centred[j] = p[j] - shift[j];
                }
                let (mut sent, mut here) = ([0f32; W], [0f32; W]);
                for edge in edges.of(node) {
                    let q: &[f32; W] = take(u, edges.sender(edge) * stride + c + at);
                    for j in 0..W {
                        let value = centred[j] + q[j];
                        sent[j] += q[j];
                        here[j] += value;
                        second[j] += value * value;
                    }
                }
                for j in 0..W {
                    first[j] += here[j];
                }
                *take_mut(senders, node * c + at) = sent;
            }
            *take_mut(&mut sums.first, at) = first;
            *take_mut(&mut sums.second, at) = second;
        }
        by_columns!(c, body(u, stride, edges, c, sums, senders));
    }

    /// Messages before the first norm, `[edges, C]`.
    fn gather(u: &[f32], stride: usize, edges: Edges<'_>, c: usize, out: &mut [f32]) {
        for node in 0..edges.nodes() {
            let p = &u[(edges.first + node) * stride..][..c];
            for edge in edges.of(node) {
                let q = &u[edges.sender(edge) * stride + c..][..c];
                let out = &mut out[edge * c..][..c];
                for j in 0..c {
                    out[j] = p[j] + q[j];
                }
            }
        }
    }

    /// Messages after the first norm and ReLU, `[edges, C]`.
    fn messages(u: &[f32], stride: usize, edges: Edges<'_>, norm: Affine<'_>, out: &mut [f32]) {
        #[inline(always)]
        fn body<const W: usize>(
            at: usize, u: &[f32], stride: usize, edges: Edges<'_>, norm: Affine<'_>, out: &mut [f32],
        ) {
            let c = norm.mean.len();
            let Columns { mean, scale, bias } = Columns::<W>::of(norm, at);
            for node in 0..edges.nodes() {
                let p: &[f32; W] = take(u, (edges.first + node) * stride + at);
                for edge in edges.of(node) {
                    let q: &[f32; W] = take(u, edges.sender(edge) * stride + c + at);
                    let out: &mut [f32; W] = take_mut(out, edge * c + at);
                    for j in 0..W {
                        out[j] = relu((p[j] + q[j] - mean[j]) * scale[j] + bias[j]);
                    }
                }
            }
        }
        by_columns!(norm.mean.len(), body(u, stride, edges, norm, out));
    }

    /// Messages with the first norm folded into `u` but for its shift.
    fn folded_messages(u: &[f32], stride: usize, edges: Edges<'_>, bias: &[f32], out: &mut [f32]) {
        let c = bias.len();
        for node in 0..edges.nodes() {
            let p = &u[(edges.first + node) * stride..][..c];
            for edge in edges.of(node) {
                let q = &u[edges.sender(edge) * stride + c..][..c];
                let out = &mut out[edge * c..][..c];
                for j in 0..c {
                    out[j] = relu(p[j] + q[j] + bias[j]);
                }
            }
        }
    }

    /// `ReLU(norm(z))` of rows.
    fn normed_relu(z: &[f32], norm: Affine<'_>, out: &mut [f32]) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        for (out, z) in out.chunks_exact_mut(c).zip(z.chunks_exact(c)) {
            for j in 0..c {
                out[j] = relu((z[j] - mean[j]) * scale[j] + bias[j]);
            }
        }
    }

    /// `ReLU(z + bias)` of rows, in place.
    fn add_relu(z: &mut [f32], bias: &[f32]) {
        for row in z.chunks_exact_mut(bias.len()) {
            for (value, bias) in row.iter_mut().zip(bias) {
                *value = relu(*value + bias);
            }
        }
    }

    /// Sums of rows about the shift that is set.
    fn shifted_sums(z: &[f32], rows: usize, sums: &mut Sums) {
        #[inline(always)]
        fn body<const W: usize>(at: usize, z: &[f32], rows: usize, c: usize, sums: &mut Sums) {
            let shift: [f32; W] = *take(&sums.shift, at);
            let (mut first, mut second) = ([0f32; W], [0f32; W]);
            for row in 0..rows {
                let z: &[f32; W] = take(z, row * c + at);
                for j in 0..W {
                    let value = z[j] - shift[j];
                    first[j] += value;
                    second[j] += value * value;
                }
            }
            *take_mut(&mut sums.first, at) = first;
            *take_mut(&mut sums.second, at) = second;
        }
        sums.rows = rows;
        let c = sums.first.len();
        by_columns!(c, body(z, rows, c, sums));
    }

    /// For each node `[M | S]`: the number of its edges that the last ReLU lets through, and over them the sum of
    /// `z - mean`. A NaN passes, so that it is noticed.
    fn last_sums(z: &[f32], edges: Edges<'_>, norm: Affine<'_>, out: &mut [f32]) {
        #[inline(always)]
        fn body<const W: usize>(at: usize, z: &[f32], edges: Edges<'_>, norm: Affine<'_>, out: &mut [f32]) {
            let c = norm.mean.len();
            let Columns { mean, scale, bias } = Columns::<W>::of(norm, at);
            for node in 0..edges.nodes() {
                let (mut count, mut sum) = ([0f32; W], [0f32; W]);
                for edge in edges.of(node) {
                    let z: &[f32; W] = take(z, edge * c + at);
                    for j in 0..W {
                        let x = z[j] - mean[j];
                        let closed = x * scale[j] + bias[j] <= 0.0;
                        count[j] += if closed { 0.0 } else { 1.0 };
                        sum[j] += if closed { 0.0 } else { x };
                    }
                }
                *take_mut(out, node * 2 * c + at) = count;
                *take_mut(out, node * 2 * c + c + at) = sum;
            }
        }
        by_columns!(norm.mean.len(), body(z, edges, norm, out));
    }

    /// Mean over the edges of each node of `scale S + bias M`.
    fn node_means(sums: &[f32], edges: Edges<'_>, scale: &[f32], bias: &[f32], out: &mut [f32]) {
        let c = scale.len();
        let bias = &bias[..c];
        for (node, out) in out.chunks_exact_mut(c).enumerate() {
            let (count, sum) = sums[node * 2 * c..(node + 1) * 2 * c].split_at(c);
            let sum = &sum[..c];
            let share = 1.0 / edges.of(node).len().max(1) as f32;
            for j in 0..c {
                out[j] = (scale[j] * sum[j] + bias[j] * count[j]) * share;
            }
        }
    }

    /// Mean over the edges of each node of `ReLU(z + bias)`.
    fn folded_means(z: &[f32], edges: Edges<'_>, bias: &[f32], out: &mut [f32]) {
        #[inline(always)]
        fn body<const W: usize>(
            at: usize, z: &[f32], edges: Edges<'_>, c: usize, bias: &[f32], out: &mut [f32],
        ) {
            let bias: [f32; W] = *take(bias, at);
            for node in 0..edges.nodes() {
                let mut sum = [0f32; W];
                let range = edges.of(node);
                let share = 1.0 / range.len().max(1) as f32;
                for edge in range {
                    let z: &[f32; W] = take(z, edge * c + at);
                    for j in 0..W {
                        sum[j] += relu(z[j] + bias[j]);
                    }
                }
                for j in 0..W {
                    sum[j] *= share;
                }
                *take_mut(out, node * c + at) = sum;
            }
        }
        by_columns!(bias.len(), body(z, edges, bias.len(), bias, out));
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

    /// Through the last ReLU: gradient `d` of its argument, and from `[M | S]` the sums of the last edge norm.
    fn output_gradient(
        dy: &[f32],
        y: &[f32],
        sums: &[f32],
        edges: Edges<'_>,
        d: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let c = first.len();
        let second = &mut second[..c];
        for node in 0..edges.nodes() {
            let here = node * c..(node + 1) * c;
            let (dy, y, d) = (&dy[here.clone()], &y[here.clone()], &mut d[here]);
            let (count, sum) = sums[node * 2 * c..(node + 1) * 2 * c].split_at(c);
            let sum = &sum[..c];
            let share = 1.0 / edges.of(node).len().max(1) as f32;
            for j in 0..c {
                d[j] = if y[j] > 0.0 { dy[j] } else { 0.0 };
                first[j] += d[j] * share * count[j];
                second[j] += d[j] * share * sum[j];
            }
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

    /// Gradient of the last product, `[edges, C]`, from that of the nodes.
    fn last_gradient(
        d: &[f32],
        z: &[f32],
        edges: Edges<'_>,
        norm: Affine<'_>,
        k1: &[f32],
        k2: &[f32],
        out: &mut [f32],
    ) {
        #[inline(always)]
        fn body<const W: usize>(
            at: usize,
            d: &[f32],
            z: &[f32],
            edges: Edges<'_>,
            norm: Affine<'_>,
            k1: &[f32],
            k2: &[f32],
            out: &mut [f32],
        ) {
            let c = norm.mean.len();
            let Columns { mean, scale, bias } = Columns::<W>::of(norm, at);
            let (k1, k2): ([f32; W], [f32; W]) = (*take(k1, at), *take(k2, at));
            for node in 0..edges.nodes() {
                let range = edges.of(node);
                let share = 1.0 / range.len().max(1) as f32;
                let d: &[f32; W] = take(d, node * c + at);
                let mut open = [0f32; W];
                for j in 0..W {
                    open[j] = scale[j] * (d[j] * share) + k2[j];
                }
                for edge in range {
                    let z: &[f32; W] = take(z, edge * c + at);
                    let out: &mut [f32; W] = take_mut(out, edge * c + at);
                    for j in 0..W {
                        let x = z[j] - mean[j];
                        let base = if x * scale[j] + bias[j] <= 0.0 { k2[j] } else { open[j] };
                        out[j] = k1[j] * x + base;
                    }
                }
            }
        }
        by_columns!(norm.mean.len(), body(d, z, edges, norm, k1, k2, out));
    }

    /// An equal share of the node's gradient for each of its edges, `[edges, C]`.
    fn share_out(d: &[f32], edges: Edges<'_>, c: usize, out: &mut [f32]) {
        for node in 0..edges.nodes() {
            let d = &d[node * c..(node + 1) * c];
            let range = edges.of(node);
            let share = 1.0 / range.len().max(1) as f32;
            for edge in range {
                for (out, d) in out[edge * c..(edge + 1) * c].iter_mut().zip(d) {
                    *out = d * share;
                }
            }
        }
    }

    /// Gradient of an inner product, `[edges, C]`, from that of its norm's output: in place in `d`.
    fn inner_gradient(d: &mut [f32], z: &[f32], mean: &[f32], k0: &[f32], k1: &[f32], k2: &[f32]) {
        let c = mean.len();
        let (k0, k1, k2) = (&k0[..c], &k1[..c], &k2[..c]);
        for (d, z) in d.chunks_exact_mut(c).zip(z.chunks_exact(c)) {
            for j in 0..c {
                d[j] = k0[j] * d[j] + k1[j] * (z[j] - mean[j]) + k2[j];
            }
        }
    }

    /// Takes a gradient through a ReLU with output `h` in place, and sums it and its product with `z - mean`.
    fn inner_sums(d: &mut [f32], h: &[f32], z: &[f32], mean: &[f32], first: &mut [f32], second: &mut [f32]) {
        #[inline(always)]
        fn body<const W: usize>(
            at: usize,
            d: &mut [f32],
            h: &[f32],
            z: &[f32],
            mean: &[f32],
            first: &mut [f32],
            second: &mut [f32],
        ) {
            let c = mean.len();
            let mean: [f32; W] = *take(mean, at);
            let (mut all, mut product) = ([0f32; W], [0f32; W]);
            for row in 0..d.len() / c {
                let place = row * c + at;
                let (h, z): (&[f32; W], &[f32; W]) = (take(h, place), take(z, place));
                let d: &mut [f32; W] = take_mut(d, place);
                for j in 0..W {
                    let value = if h[j] > 0.0 { d[j] } else { 0.0 };
                    d[j] = value;
                    all[j] += value;
                    product[j] += value * (z[j] - mean[j]);
                }
            }
            let (first, second): (&mut [f32; W], &mut [f32; W]) = (take_mut(first, at), take_mut(second, at));
            for j in 0..W {
                first[j] += all[j];
                second[j] += product[j];
            }
        }
        by_columns!(mean.len(), body(d, h, z, mean, first, second));
    }

    /// Takes the gradient of the first norm's ReLU with output `h` to the nodes: a row of `out` is
    /// `[sum at the receiver | sum at the sender]`. The rows of a tile start at 0.
    fn to_nodes(d: &[f32], h: &[f32], edges: Edges<'_>, c: usize, out: &mut [f32]) {
        #[inline(always)]
        fn body<const W: usize>(at: usize, d: &[f32], h: &[f32], edges: Edges<'_>, c: usize, out: &mut [f32]) {
            for node in 0..edges.nodes() {
                let mut received = [0f32; W];
                for edge in edges.of(node) {
                    let (d, h): (&[f32; W], &[f32; W]) = (take(d, edge * c + at), take(h, edge * c + at));
                    let sent: &mut [f32; W] = take_mut(out, (edges.sender(edge) * 2 + 1) * c + at);
                    for j in 0..W {
                        let value = if h[j] > 0.0 { d[j] } else { 0.0 };
                        received[j] += value;
                        sent[j] += value;
                    }
                }
                let out: &mut [f32; W] = take_mut(out, (edges.first + node) * 2 * c + at);
                for j in 0..W {
                    out[j] += received[j];
                }
            }
        }
        by_columns!(c, body(d, h, edges, c, out));
    }

    /// Sums for the first norm from the nodes' sums of gradients: of `d` and `d (P + Q - mean)` over edges. `centre`
    /// is near the mean of `Q`, so that the two parts do not cancel.
    fn node_sums(
        sums: &[f32],
        u: &[f32],
        stride: usize,
        mean: &[f32],
        centre: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let c = mean.len();
        let (centre, first, second) = (&centre[..c], &mut first[..c], &mut second[..c]);
        for (row, sums) in sums.chunks_exact(2 * c).enumerate() {
            let (p, q) = u[row * stride..row * stride + 2 * c].split_at(c);
            let (received, sent) = sums.split_at(c);
            let (q, sent) = (&q[..c], &sent[..c]);
            for j in 0..c {
                first[j] += received[j];
                second[j] += received[j] * (p[j] - (mean[j] - centre[j])) + sent[j] * (q[j] - centre[j]);
            }
        }
    }

    /// Adds each receiver's `P` to its senders' rows of `out`, and one to their counts.
    fn receivers(u: &[f32], stride: usize, edges: Edges<'_>, c: usize, out: &mut [f32], counts: &mut [f32]) {
        #[inline(always)]
        fn body<const W: usize>(
            at: usize, u: &[f32], stride: usize, edges: Edges<'_>, c: usize, out: &mut [f32],
        ) {
            for node in 0..edges.nodes() {
                let p: [f32; W] = *take(u, (edges.first + node) * stride + at);
                for edge in edges.of(node) {
                    let out: &mut [f32; W] = take_mut(out, edges.sender(edge) * c + at);
                    for j in 0..W {
                        out[j] += p[j];
                    }
                }
            }
        }
        for edge in 0..edges.senders.len() {
            counts[edges.sender(edge)] += 1.0;
        }
        by_columns!(c, body(u, stride, edges, c, out));
    }

    /// Gradients of `P` and `Q` from the nodes' sums of gradients, of senders' `Q` and of receivers' `P`.
    fn node_gradient(
        sums: &[f32],
        u: &[f32],
        stride: usize,
        edges: Edges<'_>,
        senders: &[f32],
        receivers: &[f32],
        counts: &[f32],
        mean: &[f32],
        k0: &[f32],
        k1: &[f32],
        k2: &[f32],
        out: &mut [f32],
    ) {
        let c = mean.len();
        let (k0, k1, k2) = (&k0[..c], &k1[..c], &k2[..c]);
        for node in 0..edges.nodes() {
            let (p, q) = u[node * stride..node * stride + 2 * c].split_at(c);
            let (received, sent) = sums[node * 2 * c..(node + 1) * 2 * c].split_at(c);
            let (dp, dq) = out[node * stride..node * stride + 2 * c].split_at_mut(c);
            let (q, sent, dq) = (&q[..c], &sent[..c], &mut dq[..c]);
            let (senders, receivers) = (&senders[node * c..][..c], &receivers[node * c..][..c]);
            let (into, out_of) = (edges.of(node).len() as f32, counts[node]);
            for j in 0..c {
                let of_p = into * (p[j] - mean[j]) + senders[j];
                let of_q = out_of * (q[j] - mean[j]) + receivers[j];
                dp[j] = k0[j] * received[j] + k1[j] * of_p + k2[j] * into;
                dq[j] = k0[j] * sent[j] + k1[j] * of_q + k2[j] * out_of;
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
