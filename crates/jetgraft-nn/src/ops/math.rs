//! Functions of one number for the inner loops, without branches, tables or fused multiply-add: compilers turn loops
//! over them into vector code, and every instruction path gives the same bits.

/// `exp(x)`, relative error below 2e-7; 0 below -87.3 (also for minus infinity); NaN stays.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.3;
    // Adding and taking away 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let clamped = if clamped > 88.0 { 88.0 } else { clamped };
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, the first of few bits.
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    // Cephes' polynomial for (exp(r) - 1 - r) / r^2 in |r| < ln(2) / 2.
    let mut q = 1.987_569_1e-4;
    q = q * r + 1.398_199_9e-3;
    q = q * r + 8.333_452e-3;
    q = q * r + 4.166_579_6e-2;
    q = q * r + 1.666_666_5e-1;
    q = q * r + 5.000_000_1e-1;
    let y = q * (r * r) + r + 1.0;
    // SAFETY: |n| < 128 after clamping; a NaN becomes some integer in the same range only if the conversion
    // saturates, so it is replaced first.
    let n = if n.abs() < 200.0 { n } else { 0.0 };
    let bits = (unsafe { n.to_int_unchecked::<i32>() } + 127) << 23;
    let scaled = y * f32::from_bits(bits as u32);
    if x < LOWEST { 0.0 } else { scaled }
}

/// The normal distribution function and density, `(Phi(x), phi(x))`; absolute error of the first below 2e-7, relative
/// error in the lower tail below 5e-7.
#[inline(always)]
pub fn normal(x: f32) -> (f32, f32) {
    let a = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let e = exp(-(a * a));
    // erfc(a) exp(a^2) as a polynomial in t = 1 / (1 + 0.33 a): weighted least squares towards the smallest largest
    // relative error over 0 <= a <= 9.5, which is 8e-8.
    let t = 1.0 / (1.0 + 0.33 * a);
    let mut q = -0.135_928_91;
    q = q * t + 0.462_688_74;
    q = q * t - 0.355_439_84;
    q = q * t + 0.412_542_46;
    q = q * t + 0.045_010_172;
    q = q * t + 0.201_923_98;
    q = q * t + 0.182_837_22;
    q = q * t + 0.186_366_11;
    let tail = 0.5 * e * (q * t);
    let below = if x > 0.0 { 1.0 - tail } else { tail };
    (below, e * 0.398_942_28)
}

/// `x Phi(x)`: the Gaussian error linear unit in its exact form (D. Hendrycks, K. Gimpel, arXiv:1606.08415).
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    x * normal(x).0
}

/// Derivative of [`gelu`].
#[inline(always)]
pub fn gelu_slope(x: f32) -> f32 {
    let (below, density) = normal(x);
    below + x * density
}

/// Natural logarithm of a positive normal number, relative or absolute error below 2e-7.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    // Mantissa in [sqrt(1/2), sqrt(2)).
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = (shifted as i32) >> 23;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    let s = m - 1.0;
    // Cephes' polynomial.
    let z = s * s;
    let mut q = 7.037_683_6e-2;
    q = q * s - 1.151_461e-1;
    q = q * s + 1.167_699_9e-1;
    q = q * s - 1.242_014_1e-1;
    q = q * s + 1.424_932_3e-1;
    q = q * s - 1.666_805_7e-1;
    q = q * s + 2.000_071_5e-1;
    q = q * s - 2.499_999_4e-1;
    q = q * s + 3.333_333_1e-1;
    let n = exponent as f32;
    let y = s * z * q + n * -2.121_944_4e-4 - 0.5 * z;
    s + y + n * 0.693_359_4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erfc(x: f64) -> f64 {
        // Continued fraction (Lentz) for large, Taylor series for small arguments.
        if x > 2.5 {
            let mut f = 0.0;
            for k in (1..200).rev() {
                f = f64::from(k) / 2.0 / (x + f);
            }
            (-x * x).exp() / std::f64::consts::PI.sqrt() / (x + f)
        } else {
            let (mut term, mut sum) = (x, x);
            for k in 1..80 {
                term *= -x * x / f64::from(k);
                sum += term / f64::from(2 * k + 1);
            }
            1.0 - sum * 2.0 / std::f64::consts::PI.sqrt()
        }
    }

    #[test]
    fn exponential_and_logarithm() {
        for step in -8700..8700 {
            let x = step as f32 * 0.01;
            let wanted = f64::from(x).exp();
            assert!((f64::from(exp(x)) / wanted - 1.0).abs() < 2e-7, "{x}");
            let y = wanted as f32;
            if y.is_normal() {
                let wanted = f64::from(y).ln();
                assert!((f64::from(ln(y)) - wanted).abs() < 2e-7 * wanted.abs().max(1.0), "ln {y}");
            }
        }
        assert_eq!((exp(f32::NEG_INFINITY), exp(-100.0), exp(0.0)), (0.0, 0.0, 1.0));
        assert!(exp(f32::NAN).is_nan() && gelu(f32::NAN).is_nan());
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn normal_distribution_and_gelu() {
        for step in -1200..=1200 {
            let x = step as f32 * 0.01;
            let a = f64::from(x).abs() / 2f64.sqrt();
            let tail = 0.5 * erfc(a);
            let below = if x > 0.0 { 1.0 - tail } else { tail };
            let density = (-0.5 * f64::from(x).powi(2)).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let (found, slope) = (f64::from(normal(x).0), f64::from(gelu_slope(x)));
            assert!((found - below).abs() < 2e-7, "{x}");
            if x < 0.0 && x > -8.0 {
                // The argument of the exponential carries its own rounding.
                assert!((found / below - 1.0).abs() < 5e-7 * (1.0 + a * a), "{x}: {found} {below}");
            }
            assert!((slope - below - f64::from(x) * density).abs() < 3e-7, "{x}");
        }
    }
}
