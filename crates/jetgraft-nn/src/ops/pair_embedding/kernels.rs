//! Loops of the pair embedding, compiled per instruction path.

use super::EPSILON;
use crate::ops::cpu::{Affine, kernels};
use crate::ops::math::{gelu, gelu_slope, ln, normal};

/// Kinematics of the particles of one jet, column by column.
#[derive(Clone, Copy, Debug)]
pub struct Particles<'a> {
    pub pt: &'a [f32],
    pub y: &'a [f32],
    pub phi: &'a [f32],
    /// Signed square of the mass.
    pub m2: &'a [f32],
    /// Transverse mass.
    pub mt: &'a [f32],
}

/// `sinh(x)^2`, without cancellation near 0.
#[inline(always)]
fn sinh_2(x: f32) -> f32 {
    let s = x * x;
    // Series of (sinh(x) / x) for small arguments.
    let mut q = 2.755_731_9e-6;
    q = q * s + 1.984_127e-4;
    q = q * s + 8.333_333e-3;
    q = q * s + 1.666_666_7e-1;
    q = q * s + 1.0;
    let near = s * (q * q);
    let e = crate::ops::math::exp(x.abs());
    let far = 0.5 * (e - 1.0 / e);
    if s < 1.0 { near } else { far * far }
}

/// `sin(x)^2` for `|x| <= pi / 2`.
#[inline(always)]
fn sin_2(x: f32) -> f32 {
    let s = x * x;
    let mut q = 1.589_691e-10;
    q = q * s - 2.505_075_4e-8;
    q = q * s + 2.755_731_4e-6;
    q = q * s - 1.984_127e-4;
    q = q * s + 8.333_333e-3;
    q = q * s - 1.666_666_7e-1;
    q = q * s + 1.0;
    s * (q * q)
}

/// Logarithm of a feature, cut below; NaN stays.
#[inline(always)]
fn ln_cut(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let cut = if x < EPSILON as f32 { EPSILON as f32 } else { x };
    ln(if cut > f32::MAX { f32::MAX } else { cut })
}

kernels! {
    /// Features of particle `i` with all `j <= i`, four columns of `i + 1` entries.
    fn features(p: Particles<'_>, i: usize, out: &mut [f32]) {
        let count = i + 1;
        let (kt, rest) = out.split_at_mut(count);
        let (z, rest) = rest.split_at_mut(count);
        let (delta, m2) = rest.split_at_mut(count);
        let m2 = &mut m2[..count];
        let (pts, ys, phis, masses, mts) =
            (&p.pt[..count], &p.y[..count], &p.phi[..count], &p.m2[..count], &p.mt[..count]);
        let (pt_i, y_i, phi_i, m2_i, mt_i) = (p.pt[i], p.y[i], p.phi[i], p.m2[i], p.mt[i]);
        const ROUND: f32 = 12_582_912.0;
        const TURN: f32 = 2.0 * std::f32::consts::PI;
        for j in 0..count {
            let d_y = y_i - ys[j];
            let d_phi = phi_i - phis[j];
            let d_phi = d_phi - ((d_phi * (1.0 / TURN) + ROUND) - ROUND) * TURN;
            let distance = (d_y * d_y + d_phi * d_phi).sqrt();
            let softer = if pts[j] < pt_i { pts[j] } else { pt_i };
            let sum = pt_i + pts[j];
            let sum = if sum < EPSILON as f32 { EPSILON as f32 } else { sum };
            let (product_m, product_p) = (mt_i * mts[j], pt_i * pts[j]);
            let both = product_m + product_p;
            let both = if both < 1e-30 { 1e-30 } else { both };
            let slower = (m2_i * (mts[j] * mts[j]) + pt_i * pt_i * masses[j]) / both;
            let opening = product_m * sinh_2(0.5 * d_y) + product_p * sin_2(0.5 * d_phi);
            kt[j] = ln_cut(softer * distance);
            z[j] = ln_cut(softer / sum);
            delta[j] = ln_cut(distance);
            m2[j] = ln_cut(m2_i + masses[j] + 2.0 * slower + 4.0 * opening);
        }
    }

    /// `out = gelu(a (f - mean) + c)` for rows of four features; `a: [4, C]`.
    fn first_layer(f: &[f32], mean: &[f32], a: &[f32], c: &[f32], out: &mut [f32]) {
        let width = c.len();
        let (a0, rest) = a.split_at(width);
        let (a1, rest) = rest.split_at(width);
        let (a2, a3) = rest.split_at(width);
        let a3 = &a3[..width];
        for (f, out) in f.as_chunks::<4>().0.iter().zip(out.chunks_exact_mut(width)) {
            let (f0, f1, f2, f3) = (f[0] - mean[0], f[1] - mean[1], f[2] - mean[2], f[3] - mean[3]);
            for j in 0..width {
                out[j] = gelu(f0 * a0[j] + f1 * a1[j] + f2 * a2[j] + f3 * a3[j] + c[j]);
            }
        }
    }

    /// `d *= gelu'(a (f - mean) + c)`, and `out` becomes the function's value.
    fn first_layer_both(f: &[f32], mean: &[f32], a: &[f32], c: &[f32], value: &mut [f32], slope: &mut [f32]) {
        let width = c.len();
        let (a0, rest) = a.split_at(width);
        let (a1, rest) = rest.split_at(width);
        let (a2, a3) = rest.split_at(width);
        let a3 = &a3[..width];
        for ((f, value), slope) in
            (f.as_chunks::<4>().0.iter()).zip(value.chunks_exact_mut(width)).zip(slope.chunks_exact_mut(width))
        {
            let (f0, f1, f2, f3) = (f[0] - mean[0], f[1] - mean[1], f[2] - mean[2], f[3] - mean[3]);
            for j in 0..width {
                let x = f0 * a0[j] + f1 * a1[j] + f2 * a2[j] + f3 * a3[j] + c[j];
                let (below, density) = normal(x);
                value[j] = x * below;
                slope[j] = below + x * density;
            }
        }
    }

    /// `out = gelu(norm(z))`.
    fn norm_gelu(z: &[f32], norm: Affine<'_>, out: &mut [f32]) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        for (z, out) in z.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            for j in 0..c {
                out[j] = gelu((z[j] - mean[j]) * scale[j] + bias[j]);
            }
        }
    }

    /// `gelu(norm(z))` and the slope of the GELU there.
    fn norm_gelu_both(z: &[f32], norm: Affine<'_>, value: &mut [f32], slope: &mut [f32]) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        for ((z, value), slope) in
            z.chunks_exact(c).zip(value.chunks_exact_mut(c)).zip(slope.chunks_exact_mut(c))
        {
            for j in 0..c {
                let x = (z[j] - mean[j]) * scale[j] + bias[j];
                let (below, density) = normal(x);
                value[j] = x * below;
                slope[j] = below + x * density;
            }
        }
    }

    /// `d *= gelu'(norm(z))`.
    fn norm_gelu_gradient(z: &[f32], norm: Affine<'_>, d: &mut [f32]) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        for (z, d) in z.chunks_exact(c).zip(d.chunks_exact_mut(c)) {
            for j in 0..c {
                d[j] *= gelu_slope((z[j] - mean[j]) * scale[j] + bias[j]);
            }
        }
    }

    /// `d *= slope`, and sums of `d` and of `d (z - mean)` over rows.
    fn through(slope: &[f32], z: &[f32], mean: &[f32], d: &mut [f32], first: &mut [f32], second: &mut [f32]) {
        let c = mean.len();
        let (first, second) = (&mut first[..c], &mut second[..c]);
        for ((slope, z), d) in slope.chunks_exact(c).zip(z.chunks_exact(c)).zip(d.chunks_exact_mut(c)) {
            for j in 0..c {
                let value = d[j] * slope[j];
                d[j] = value;
                first[j] += value;
                second[j] += value * (z[j] - mean[j]);
            }
        }
    }

    /// Sums of `d` and of `d (z - mean)` over rows.
    fn norm_sums(d: &[f32], z: &[f32], mean: &[f32], first: &mut [f32], second: &mut [f32]) {
        let c = mean.len();
        let (first, second) = (&mut first[..c], &mut second[..c]);
        for (z, d) in z.chunks_exact(c).zip(d.chunks_exact(c)) {
            for j in 0..c {
                first[j] += d[j];
                second[j] += d[j] * (z[j] - mean[j]);
            }
        }
    }

    /// `out = k0 d + k1 (z - mean) + k2`.
    fn norm_gradient(
        d: &[f32],
        z: &[f32],
        mean: &[f32],
        k0: &[f32],
        k1: &[f32],
        k2: &[f32],
        out: &mut [f32],
    ) {
        let c = mean.len();
        let (k0, k1, k2) = (&k0[..c], &k1[..c], &k2[..c]);
        for ((z, d), out) in z.chunks_exact(c).zip(d.chunks_exact(c)).zip(out.chunks_exact_mut(c)) {
            for j in 0..c {
                out[j] = k0[j] * d[j] + k1[j] * (z[j] - mean[j]) + k2[j];
            }
        }
    }

    /// Sums over rows of four features less their mean times a gradient, `[4, C]`, and of the gradient.
    fn feature_sums(f: &[f32], mean: &[f32], d: &[f32], slope: &[f32], products: &mut [f32], sums: &mut [f32]) {
        let c = sums.len();
        let (p0, rest) = products.split_at_mut(c);
        let (p1, rest) = rest.split_at_mut(c);
        let (p2, p3) = rest.split_at_mut(c);
        let p3 = &mut p3[..c];
        for ((f, d), slope) in
            f.as_chunks::<4>().0.iter().zip(d.chunks_exact(c)).zip(slope.chunks_exact(c))
        {
            let (f0, f1, f2, f3) = (f[0] - mean[0], f[1] - mean[1], f[2] - mean[2], f[3] - mean[3]);
            for j in 0..c {
                let d = d[j] * slope[j];
                sums[j] += d;
                p0[j] += f0 * d;
                p1[j] += f1 * d;
                p2[j] += f2 * d;
                p3[j] += f3 * d;
            }
        }
    }
}
