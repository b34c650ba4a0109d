//! Products of a tile's rows with a weight that many tiles share.
//!
//! The weight is packed once; rows are read where they lie. On processors with AVX-512 a block of 12 x 32 results stays in
//! registers, and no time goes into packing rows, which for tiles that fit in a cache is a tenth of a general product.
//! Elsewhere the general product does it. Every result is one sum in the order of the inner index, whatever the block
//! it is in, so results do not depend on how rows are cut.

use super::cpu::{Matrix, product};

/// Columns of a panel.
#[cfg(target_arch = "x86_64")]
const PANEL: usize = 32;

/// A right factor `[rows, columns]`.
#[derive(Debug)]
pub struct Packed {
    rows: usize,
    columns: usize,
    /// Panels of 32 columns, each row by row and filled up with 0; or plain rows.
    values: Vec<f32>,
}

/// Whether this processor has the kernel below. It does not follow a forced path: as with the general product, the path
/// of the elementwise loops does not change a bit of a result.
fn wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("avx512f")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

impl Packed {
    /// Packs `[rows, columns]`, row major.
    ///
    /// # Panics
    /// If `values` does not fill it.
    pub fn new(values: &[f32], rows: usize, columns: usize) -> Self {
        Self::of(values, rows, columns, |row, column| row * columns + column)
    }

    /// Packs the transpose of `[columns, rows]`, row major.
    ///
    /// # Panics
    /// As [`Packed::new`].
    pub fn transposed(values: &[f32], rows: usize, columns: usize) -> Self {
        Self::of(values, rows, columns, |row, column| column * rows + row)
    }

    fn of(values: &[f32], rows: usize, columns: usize, place: impl Fn(usize, usize) -> usize) -> Self {
        assert_eq!(values.len(), rows * columns, "{rows} x {columns}");
        #[cfg(target_arch = "x86_64")]
        if wide() {
            let mut packed = Vec::with_capacity(rows * columns.next_multiple_of(PANEL));
            for first in (0..columns).step_by(PANEL) {
                for row in 0..rows {
                    packed.extend(
                        (first..first + PANEL)
                            .map(|column| if column < columns { values[place(row, column)] } else { 0.0 }),
                    );
                }
            }
            return Self { rows, columns, values: packed };
        }
        let plain = (0..rows * columns).map(|at| values[place(at / columns, at % columns)]).collect();
        Self { rows, columns, values: plain }
    }

    /// `out = left self` for `count` rows of `left` and `out` that lie behind each other.
    ///
    /// # Panics
    /// If the rows do not fit.
    pub fn after(&self, left: &[f32], count: usize, out: &mut [f32]) {
        let Self { rows, columns, values } = self;
        let (left, out) = (&left[..count * rows], &mut out[..count * columns]);
        #[cfg(target_arch = "x86_64")]
        if wide() {
            // SAFETY: the processor has AVX-512 F, and the slices were cut to the sizes that are given.
            unsafe {
                avx512::blocks(avx512::Block {
                    rows: count,
                    columns: *columns,
                    depth: *rows,
                    left: left.as_ptr(),
                    left_row: *rows,
                    left_step: 1,
                    right: values.as_ptr(),
                    right_panel: rows * PANEL,
                    right_step: PANEL,
                    right_padded: true,
                    out: out.as_mut_ptr(),
                    accumulate: false,
                });
            }
            return;
        }
        let left = Matrix::rows(left, count, *rows, *rows);
        product(out, *columns, false, left, Matrix::rows(values, *rows, *columns, *columns));
    }
}

/// `out += left^T right` for `count` rows of `left: [count, rows]` and `right: [count, columns]`;
/// `out: [rows, columns]`.
///
/// # Panics
/// If the rows do not fit.
pub fn add_transposed(
    left: &[f32],
    right: &[f32],
    count: usize,
    rows: usize,
    columns: usize,
    out: &mut [f32],
) {
    let (left, right) = (&left[..count * rows], &right[..count * columns]);
    let out = &mut out[..rows * columns];
    #[cfg(target_arch = "x86_64")]
    if wide() {
        // SAFETY: as in `after`.
        unsafe {
            avx512::blocks(avx512::Block {
                rows,
                columns,
                depth: count,
                left: left.as_ptr(),
                left_row: 1,
                left_step: rows,
                right: right.as_ptr(),
                right_panel: PANEL,
                right_step: columns,
                right_padded: false,
                out: out.as_mut_ptr(),
                accumulate: true,
            });
        }
        return;
    }
    let left = Matrix::rows(left, count, rows, rows).transposed();
    product(out, columns, true, left, Matrix::rows(right, count, columns, columns));
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __mmask16, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::PANEL;

    /// Rows of results in registers: 24 of the 32 registers hold sums.
    const ROWS: usize = 12;

    /// `out[i][j] (+)= sum over p of left[i * left_row + p * left_step] * right(p, j)`, where `right(p, j)` lies at
    /// `j / 32 * right_panel + p * right_step + j % 32`; rows of `out` are `columns` long.
    #[derive(Clone, Copy)]
    pub struct Block {
        pub rows: usize,
        pub columns: usize,
        pub depth: usize,
        pub left: *const f32,
        pub left_row: usize,
        pub left_step: usize,
        pub right: *const f32,
        pub right_panel: usize,
        pub right_step: usize,
        /// Panels are whole: values behind the last column may be read.
        pub right_padded: bool,
        pub out: *mut f32,
        pub accumulate: bool,
    }

    /// # Safety
    /// The processor has AVX-512 F; all places that the sizes name can be read, and those of `out` written.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn blocks(block: Block) {
        for first in (0..block.columns).step_by(PANEL) {
            let width = (block.columns - first).min(PANEL);
            let mut row = 0;
            while row < block.rows {
                let count = (block.rows - row).min(ROWS);
                // SAFETY: the offsets stay inside what the caller promises.
                unsafe {
                    let part = Block {
                        left: block.left.add(row * block.left_row),
                        right: block.right.add(first / PANEL * block.right_panel),
                        out: block.out.add(row * block.columns + first),
                        ..block
                    };
                    if width == PANEL {
                        by_rows::<true>(part, count, width);
                    } else {
                        by_rows::<false>(part, count, width);
                    }
                }
                row += count;
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn by_rows<const WHOLE: bool>(block: Block, count: usize, width: usize) {
        // SAFETY: as `blocks`.
        unsafe {
            match count {
                12 => micro::<12, WHOLE>(block, width),
                11 => micro::<11, WHOLE>(block, width),
                10 => micro::<10, WHOLE>(block, width),
                9 => micro::<9, WHOLE>(block, width),
                8 => micro::<8, WHOLE>(block, width),
                7 => micro::<7, WHOLE>(block, width),
                6 => micro::<6, WHOLE>(block, width),
                5 => micro::<5, WHOLE>(block, width),
                4 => micro::<4, WHOLE>(block, width),
                3 => micro::<3, WHOLE>(block, width),
                2 => micro::<2, WHOLE>(block, width),
                _ => micro::<1, WHOLE>(block, width),
            }
        }
    }

    /// `M` rows of one panel.
    #[target_feature(enable = "avx512f")]
    unsafe fn micro<const M: usize, const WHOLE: bool>(block: Block, width: usize) {
        let mask =
            |from: usize| -> __mmask16 { ((1u32 << (width.clamp(from, from + 16) - from)) - 1) as u16 };
        let (low, high) = (mask(0), mask(16));
        let whole_right = WHOLE || block.right_padded;
        // SAFETY: as `blocks`; masked lanes are neither read nor written.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; M];
            if block.accumulate {
                for (row, sum) in sums.iter_mut().enumerate() {
                    let out = block.out.add(row * block.columns);
                    if WHOLE {
                        *sum = [_mm512_loadu_ps(out), _mm512_loadu_ps(out.add(16))];
                    } else {
                        *sum = [
                            _mm512_maskz_loadu_ps(low, out),
                            _mm512_maskz_loadu_ps(high, out.wrapping_add(16)),
                        ];
                    }
                }
            }
            let (mut left, mut right) = (block.left, block.right);
            for _ in 0..block.depth {
                let (one, other) = if whole_right {
                    (_mm512_loadu_ps(right), _mm512_loadu_ps(right.add(16)))
                } else {
                    (_mm512_maskz_loadu_ps(low, right), _mm512_maskz_loadu_ps(high, right.wrapping_add(16)))
                };
                for (row, sum) in sums.iter_mut().enumerate() {
                    let value = _mm512_set1_ps(*left.add(row * block.left_row));
                    sum[0] = _mm512_fmadd_ps(value, one, sum[0]);
                    sum[1] = _mm512_fmadd_ps(value, other, sum[1]);
                }
                left = left.wrapping_add(block.left_step);
                right = right.wrapping_add(block.right_step);
            }
            for (row, sum) in sums.iter().enumerate() {
                let out = block.out.add(row * block.columns);
                if WHOLE {
                    _mm512_storeu_ps(out, sum[0]);
                    _mm512_storeu_ps(out.add(16), sum[1]);
                } else {
                    _mm512_mask_storeu_ps(out, low, sum[0]);
                    _mm512_mask_storeu_ps(out.wrapping_add(16), high, sum[1]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(length: usize, seed: usize) -> Vec<f32> {
        (0..length).map(|at| ((at * 7919 + seed * 104_729) % 1000) as f32 * 2e-3 - 1.0).collect()
    }

    #[test]
    fn products_are_sums_of_products() {
        for (count, rows, columns) in
            [(0, 3, 5), (1, 1, 1), (25, 33, 31), (40, 64, 32), (13, 7, 70), (24, 256, 48), (5, 0, 9)]
        {
            let (left, right) = (values(count * rows, 1), values(rows * columns, 2));
            let turned: Vec<f32> =
                (0..rows * columns).map(|at| right[at % rows * columns + at / rows]).collect();
            let mut found = vec![f32::NAN; count * columns];
            Packed::new(&right, rows, columns).after(&left, count, &mut found);
            let mut again = vec![f32::NAN; count * columns];
            Packed::transposed(&turned, rows, columns).after(&left, count, &mut again);
            for row in 0..count {
                for column in 0..columns {
                    let terms = (0..rows)
                        .map(|p| f64::from(left[row * rows + p]) * f64::from(right[p * columns + column]));
                    let (sum, place) = (terms.sum::<f64>(), row * columns + column);
                    assert!((sum - f64::from(found[place])).abs() < 1e-4, "{count} x {rows} x {columns}");
                    assert_eq!(found[place].to_bits(), again[place].to_bits());
                }
            }
            let other = values(count * columns, 3);
            let mut total = values(rows * columns, 4);
            add_transposed(&left, &other, count, rows, columns, &mut total);
            for (place, (found, start)) in total.iter().zip(values(rows * columns, 4)).enumerate() {
                let (row, column) = (place / columns, place % columns);
                let terms = (0..count)
                    .map(|p| f64::from(left[p * rows + row]) * f64::from(other[p * columns + column]));
                assert!((f64::from(start) + terms.sum::<f64>() - f64::from(*found)).abs() < 1e-4);
            }
        }
    }
}
