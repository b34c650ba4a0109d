//! What the CPU kernels share: instruction paths, matrix views, tiles, statistics.
//!
//! Work is cut into tiles of whole jets, the same for any number of threads. A tile's rows are written by one
//! thread, and sums over tiles are added in tile order, so results do not depend on threads. Elementwise loops
//! run along the columns without fused multiply-add, so they do not depend on the instruction path either; the
//! products of the `gemm` crate choose their own path.

use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::bridge::slice;
use crate::layers::NORM_EPSILON;

/// Instruction path of the elementwise loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// What every processor of the target has.
    Portable,
    /// AVX2.
    Avx2,
    /// AVX-512 F, VL, BW, DQ.
    Avx512,
}

static FORCED: AtomicU8 = AtomicU8::new(0);

impl Path {
    /// The widest path that this processor has.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let wide = std::is_x86_feature_detected!("avx512f")
                && std::is_x86_feature_detected!("avx512vl")
                && std::is_x86_feature_detected!("avx512bw")
                && std::is_x86_feature_detected!("avx512dq");
            if wide {
                return Self::Avx512;
            }
            if std::is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// The path that operations take now.
    pub fn current() -> Self {
        let best = Self::best();
        match FORCED.load(Ordering::Relaxed) {
            1 => Self::Portable,
            2 if best != Self::Portable => Self::Avx2,
            _ => best,
        }
    }

    /// For tests: makes all operations of the process take `path`, or the best one again. A path that the
    /// processor lacks is not taken.
    #[doc(hidden)]
    pub fn force(path: Option<Self>) {
        let code = match path {
            Some(Self::Portable) => 1,
            Some(Self::Avx2) => 2,
            Some(Self::Avx512) | None => 0,
        };
        FORCED.store(code, Ordering::Relaxed);
    }
}

/// Compiles each function once per instruction path; the first argument chooses.
macro_rules! kernels {
    ($($(#[$meta:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub fn $name(path: $crate::ops::cpu::Path, $($argument: $type),*) {
            #[inline(always)]
            fn portable($($argument: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
                fn avx512($($argument: $type),*) { portable($($argument),*) }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) { portable($($argument),*) }
                match path {
                    // SAFETY: `Path` names only what this processor was found to have.
                    $crate::ops::cpu::Path::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::ops::cpu::Path::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::ops::cpu::Path::Portable => {}
                }
            }
            let _ = path;
            portable($($argument),*)
        }
    )*};
}
pub(crate) use kernels;

/// A strided matrix to read.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` elements, `stride` apart.
    ///
    /// # Panics
    /// If they do not fit in `data`.
    pub fn rows(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * stride + columns <= data.len(), "{rows} x {columns} by {stride}");
        Self { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// Rows with columns and rows exchanged.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `out = left right`, or `out += left right`; `out` has rows of `right.columns` elements, `stride` apart.
///
/// # Panics
/// If sizes do not agree.
pub fn product(out: &mut [f32], stride: usize, accumulate: bool, left: Matrix<'_>, right: Matrix<'_>) {
    let (m, n, k) = (left.rows, right.columns, left.columns);
    assert_eq!(k, right.rows, "inner sizes");
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * stride + n <= out.len(), "{m} x {n} by {stride} in {}", out.len());
    if k == 0 {
        if !accumulate {
            out.chunks_mut(stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    // SAFETY: both matrices fit in their slices (checked where they were made) and `out` holds the result
    // (checked above); `out` is borrowed alone.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `[rows, columns]` with rows and columns exchanged; products read whole rows faster.
pub fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| values[at % rows * columns + at / rows]).collect()
}

/// A large buffer that comes from a store of used ones and goes back there when it is dropped.
///
/// Allocators return large blocks to the system, which then hands out zeroed pages again: for the tensors of a
/// training step that costs a tenth of the step. What a fresh or used buffer holds is unspecified but set.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Everything that was ever allocated, all of it set.
    values: Vec<f32>,
    length: usize,
}

/// Buffers that wait, and at most this many elements in all (one gigabyte).
static STORE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());
const STORE_LIMIT: usize = 1 << 28;

fn store() -> MutexGuard<'static, Vec<Vec<f32>>> {
    // A panic elsewhere cannot leave the list half changed.
    STORE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Buffer {
    /// A buffer of `length` values, which the caller sets before it reads them.
    pub fn take(length: usize) -> Self {
        if length == 0 {
            return Self::default();
        }
        // Batches differ a little in size: a margin lets the next one use the same buffers.
        let ample = length.saturating_mul(2).max(1 << 12);
        let mut waiting = store();
        let best = (waiting.iter().enumerate())
            .filter(|(_, values)| (length..=ample).contains(&values.len()))
            .min_by_key(|(_, values)| values.len())
            .map(|(at, _)| at);
        let found = best.map(|at| waiting.swap_remove(at));
        drop(waiting);
        let values = found.unwrap_or_else(|| vec![0.0; length + length / 8]);
        Self { values, length }
    }

    /// Hands out `length` values, from a larger buffer if need be.
    pub fn at_least(&mut self, length: usize) -> &mut [f32] {
        if self.length < length {
            *self = Self::take(length);
        }
        &mut self.values[..length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.values.is_empty() {
            return;
        }
        let mut waiting = store();
        let held: usize = waiting.iter().map(Vec::len).sum();
        if held + self.values.len() <= STORE_LIMIT {
            waiting.push(std::mem::take(&mut self.values));
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.length]
    }
}

/// A vector for a tensor of Burn's, whose values are yet to be written: large ones would take as long to zero as
/// to use.
#[allow(clippy::uninit_vec)]
pub fn unset(length: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(length);
    // SAFETY: the capacity is there, any bit pattern is an f32, and kernels write every element before they
    // read it.
    unsafe { values.set_len(length) };
    values
}

/// Rows of a packed batch cut into tiles of whole jets.
#[derive(Clone, Debug)]
pub struct Tiles {
    /// First jet of each tile, and the number of jets.
    pub jets: Vec<usize>,
    /// First node of each tile, and the number of nodes.
    pub nodes: Vec<usize>,
}

/// Nodes that make a tile full: a tile of the widest layers then stays in a second-level cache. Between 128 and
/// 512 the time of a step is the same within the noise.
const TILE_NODES: usize = 256;

/// What is left of the tiles is cut by this for the next run: the first runs are long, so that there are few sums to
/// add up, and the last ones short, so that the threads end together.
const RUN_SHARE: usize = 5;

/// The shortest run is the batch cut by this.
const RUNS_AT_LEAST: usize = 32;

impl Tiles {
    /// Cuts after every jet that fills a tile.
    pub fn new(jet_offsets: &[i32]) -> Self {
        let mut tiles = Self { jets: vec![0], nodes: vec![0] };
        let mut start = 0;
        for (jet, &end) in jet_offsets.iter().enumerate().skip(1) {
            let end = end as usize;
            if end - start >= TILE_NODES || (jet == jet_offsets.len() - 1 && end > start) {
                tiles.jets.push(jet);
                tiles.nodes.push(end);
                start = end;
            }
        }
        tiles
    }

    /// Number of tiles.
    pub fn count(&self) -> usize {
        self.nodes.len() - 1
    }

    /// Number of nodes.
    pub fn rows(&self) -> usize {
        self.nodes[self.count()]
    }

    /// Nodes of a tile.
    pub fn range(&self, tile: usize) -> Range<usize> {
        self.nodes[tile]..self.nodes[tile + 1]
    }

    /// Runs of tiles whose weight gradients share an accumulator, longest first; fixed by the batch alone.
    pub fn runs(&self) -> Vec<Range<usize>> {
        runs(self.count())
    }

    /// Cuts a row-major buffer into the tiles' rows.
    pub fn split<'a>(&self, buffer: &'a mut [f32], columns: usize) -> Vec<&'a mut [f32]> {
        split(buffer, (0..self.count()).map(|tile| self.range(tile).len() * columns))
    }
}

/// Runs of `count` tiles whose sums share an accumulator, longest first; fixed by the batch alone.
pub fn runs(count: usize) -> Vec<Range<usize>> {
    let shortest = count.div_ceil(RUNS_AT_LEAST);
    let mut runs = Vec::new();
    let mut start = 0;
    while start < count {
        let left = count - start;
        let length = left.div_ceil(RUN_SHARE).max(shortest).min(left);
        runs.push(start..start + length);
        start += length;
    }
    runs
}

/// Does every task on the threads of the pool, the first ones first, and returns the results in the order of the tasks.
///
/// A thread takes the next task when it is done with one, so that uneven tasks, or a thread that the system holds up,
/// leave little idle time at the end. `local` makes what a thread keeps between its tasks.
pub fn in_turn<T: Send, L, R: Send>(
    tasks: Vec<T>,
    local: impl Fn() -> L + Sync,
    work: impl Fn(&mut L, T) -> R + Sync,
) -> Vec<R> {
    let count = tasks.len();
    let threads = rayon::current_num_threads().min(count);
    if threads <= 1 {
        let mut local = local();
        return tasks.into_iter().map(|task| work(&mut local, task)).collect();
    }
    let waiting = Mutex::new(tasks.into_iter().enumerate());
    let done = Mutex::new((0..count).map(|_| None).collect::<Vec<Option<R>>>());
    let worker = || {
        let mut local = local();
        loop {
            // A panic in a task ends the whole operation; the list is whole at any time.
            let task = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((at, task)) = task else { return };
            let result = work(&mut local, task);
            done.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result);
        }
    };
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| worker());
        }
        worker();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

/// Does the whole of an operation on a thread of the pool, so that its passes begin and end there: each hand-over
/// from a thread outside costs as much as a short pass.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

/// Cuts a buffer into pieces of the given lengths.
pub fn split(buffer: &mut [f32], lengths: impl Iterator<Item = usize>) -> Vec<&mut [f32]> {
    let mut rest = buffer;
    lengths
        .map(|length| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(length);
            rest = tail;
            head
        })
        .collect()
}

/// Adds up the accumulators of chunks in order.
pub fn add_up(parts: Vec<Buffer>) -> Vec<f32> {
    let Some((first, parts)) = parts.split_first() else { return Vec::new() };
    let mut total = first.to_vec();
    total.par_chunks_mut(4096).enumerate().for_each(|(at, block)| {
        for part in parts {
            for (sum, value) in block.iter_mut().zip(&part[at * 4096..]) {
                *sum += value;
            }
        }
    });
    total
}

/// Sums over some rows: per column of `x - shift` and of its square.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Number of rows.
    pub rows: usize,
    /// Close to the mean of these rows, so that squares do not cancel.
    pub shift: Vec<f32>,
    /// Sum of `x - shift`.
    pub first: Vec<f32>,
    /// Sum of `(x - shift)^2`.
    pub second: Vec<f32>,
}

impl Sums {
    /// No rows yet.
    pub fn new(columns: usize) -> Self {
        Self { rows: 0, shift: vec![0.0; columns], first: vec![0.0; columns], second: vec![0.0; columns] }
    }
}

/// Mean and variance of a norm, and what follows from them.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Rows that they were taken over; 0 for running ones.
    pub rows: usize,
    /// Per column.
    pub mean: Vec<f32>,
    /// Biased.
    pub variance: Vec<f32>,
    /// `1 / sqrt(variance + eps)`.
    pub inverse: Vec<f32>,
}

impl Statistics {
    /// Running statistics.
    pub fn running(mean: &[f32], variance: &[f32]) -> Self {
        Self { rows: 0, mean: mean.to_vec(), variance: variance.to_vec(), inverse: inverses(variance) }
    }

    /// Joins the tiles' sums in order (Chan, Golub, LeVeque 1979), in double precision.
    pub fn join<'a>(parts: impl Iterator<Item = &'a Sums> + Clone, columns: usize) -> Self {
        let mut mean = vec![0f64; columns];
        let mut spread = vec![0f64; columns];
        let mut rows = 0usize;
        for part in parts.filter(|part| part.rows > 0) {
            let (old, new) = (rows as f64, part.rows as f64);
            rows += part.rows;
            for column in 0..columns {
                let first = f64::from(part.first[column]) / new;
                let here = f64::from(part.shift[column]) + first;
                let inside = (f64::from(part.second[column]) - new * first * first).max(0.0);
                let step = here - mean[column];
                mean[column] += step * new / (old + new);
                spread[column] += inside + step * step * old * new / (old + new);
            }
        }
        let variance: Vec<f32> = spread.iter().map(|&sum| (sum / rows.max(1) as f64) as f32).collect();
        let inverse = inverses(&variance);
        Self { rows, mean: mean.iter().map(|&mean| mean as f32).collect(), variance, inverse }
    }

    /// Factor on `x - mean` for a norm with these weights.
    pub fn scale(&self, weight: &[f32]) -> Vec<f32> {
        self.inverse.iter().zip(weight).map(|(inverse, weight)| inverse * weight).collect()
    }
}

fn inverses(variance: &[f32]) -> Vec<f32> {
    variance.iter().map(|&variance| (1.0 / (f64::from(variance) + NORM_EPSILON).sqrt()) as f32).collect()
}

/// Parameters of a norm, contiguous.
#[derive(Clone, Debug)]
pub struct CpuNorm {
    /// Scale.
    pub weight: FlexTensor,
    /// Shift.
    pub bias: FlexTensor,
    /// Running mean and variance, if they are to be used.
    pub running: Option<(FlexTensor, FlexTensor)>,
}

impl CpuNorm {
    /// Running statistics, if they are to be used.
    pub fn statistics(&self) -> Option<Statistics> {
        self.running.as_ref().map(|(mean, variance)| Statistics::running(slice(mean), slice(variance)))
    }

    /// Factor and term of running statistics.
    pub fn folded(&self) -> Option<(Vec<f32>, Vec<f32>)> {
        let statistics = self.statistics()?;
        let scale = statistics.scale(slice(&self.weight));
        let shift = (slice(&self.bias).iter().zip(&statistics.mean).zip(&scale))
            .map(|((bias, mean), scale)| bias - mean * scale)
            .collect();
        Some((scale, shift))
    }
}

/// `(x - mean) * scale + bias`.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Per column.
    pub mean: &'a [f32],
    /// Per column.
    pub scale: &'a [f32],
    /// Per column.
    pub bias: &'a [f32],
}

/// Backward of a norm: `k0 d + k1 (x - mean) + k2` for a gradient `d` of its output, with the gradients of its
/// own parameters.
#[derive(Clone, Debug)]
pub struct NormGradient {
    /// Factor on `d`.
    pub k0: Vec<f32>,
    /// Factor on `x - mean`; 0 for running statistics.
    pub k1: Vec<f32>,
    /// Added; 0 for running statistics.
    pub k2: Vec<f32>,
    /// Gradient of the scale.
    pub weight: Vec<f32>,
    /// Gradient of the shift.
    pub bias: Vec<f32>,
}

impl NormGradient {
    /// From the tiles' sums of `d` and `d (x - mean)`, added in order in double precision.
    pub fn new<'a>(
        parts: impl Iterator<Item = (&'a [f32], &'a [f32])>,
        statistics: &Statistics,
        weight: &[f32],
    ) -> Self {
        let columns = weight.len();
        let mut first = vec![0f64; columns];
        let mut second = vec![0f64; columns];
        for (d, dx) in parts {
            for column in 0..columns {
                first[column] += f64::from(d[column]);
                second[column] += f64::from(dx[column]);
            }
        }
        let mut gradient = Self {
            k0: statistics.scale(weight),
            k1: vec![0.0; columns],
            k2: vec![0.0; columns],
            weight: Vec::with_capacity(columns),
            bias: first.iter().map(|&sum| sum as f32).collect(),
        };
        for column in 0..columns {
            let inverse = f64::from(statistics.inverse[column]);
            gradient.weight.push((second[column] * inverse) as f32);
            if statistics.rows > 0 {
                let each = -f64::from(weight[column]) * inverse / statistics.rows as f64;
                gradient.k1[column] = (each * inverse * inverse * second[column]) as f32;
                gradient.k2[column] = (each * first[column]) as f32;
            }
        }
        gradient
    }
}

/// `max(x, 0)` that lets a NaN through, so that it is noticed.
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

kernels! {
    /// Sums of rows `stride` apart, from column 0 on, in two passes: the shift is the rows' mean.
    fn column_sums(x: &[f32], stride: usize, rows: usize, sums: &mut Sums) {
        if rows == 0 {
            return;
        }
        let columns = sums.first.len();
        sums.rows = rows;
        let shift = &mut sums.shift[..columns];
        shift.fill(0.0);
        for row in 0..rows {
            let x = &x[row * stride..row * stride + columns];
            for j in 0..columns {
                shift[j] += x[j];
            }
        }
        for value in &mut *shift {
            *value /= rows as f32;
        }
        let (first, second) = (&mut sums.first[..columns], &mut sums.second[..columns]);
        for row in 0..rows {
            let x = &x[row * stride..row * stride + columns];
            for j in 0..columns {
                let value = x[j] - shift[j];
                first[j] += value;
                second[j] += value * value;
            }
        }
    }
}
