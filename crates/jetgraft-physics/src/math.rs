//! Logarithm, azimuth and rapidity without branches or calls.
//!
//! A loop over them becomes vectors, one call of them waits for nobody, and they give the same bits on every platform and for
//! every instruction set, which the system's library does not promise.

use crate::momentum::{BEAM_RAPIDITY, SMALLEST_MT2_GEV2};

/// Natural logarithm of a positive, finite, normal number, within about one unit in the last place.
///
/// Written without branches or calls so that a loop over it becomes vectors, and with the same bits on every platform:
/// x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), and ln(1 + f) = 2 artanh(s) with s = f / (2 + f), whose series in
/// s^2 < 0.0295 needs ten terms.
#[inline(always)]
pub(crate) fn ln(x: f64) -> f64 {
    const ONE: u64 = 1023 << 52;
    const SQRT_HALF: u64 = 0x3FE6_A09E_667F_3BCD;
    // ln 2 in two parts; the first has 20 zero bits at its end, so that its product with k is exact.
    const LN2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Whole numbers below 2^52 become f64 by their bits: AVX2 has no conversion.
    const WHOLE: u64 = 0x4330_0000_0000_0000;
    let bits = x.to_bits();
    let biased = bits.wrapping_add(ONE.wrapping_sub(SQRT_HALF)) >> 52;
    let k = f64::from_bits(biased | WHOLE) - (f64::from_bits(WHOLE) + 1023.0);
    let f = f64::from_bits(bits.wrapping_sub(biased << 52).wrapping_add(ONE)) - 1.0;
    let s = f / (2.0 + f);
    let t = s * s;
    let (t2, t4) = (t * t, (t * t) * (t * t));
    // 2/3 + 2/5 t + ... + 2/21 t^9, in pairs for a short chain.
    let a = 2.0 / 3.0 + t * (2.0 / 5.0);
    let b = 2.0 / 7.0 + t * (2.0 / 9.0);
    let c = 2.0 / 11.0 + t * (2.0 / 13.0);
    let d = 2.0 / 15.0 + t * (2.0 / 17.0);
    let e = 2.0 / 19.0 + t * (2.0 / 21.0);
    let series = t * ((a + t2 * b) + t4 * ((c + t2 * d) + t4 * e));
    k * LN2_HIGH + (f - (s * (f - series) - k * LN2_LOW))
}

/// Azimuth of (x, y) in [0, 2 pi), 0 for (0, 0), within two units in the last place; NaN if a component is not finite.
///
/// With a <= b the sizes of the components, atan(a / b) is atan(u), u = a / b, or pi/4 + atan(u), u = (a - b) / (a + b), so that
/// |u| < 0.4143; there atan(u) = u + u^3 P(u^2) with P fitted to 2e-19 (Chebyshev, 12 coefficients).
#[inline(always)]
pub(crate) fn azimuth(x: f64, y: f64) -> f64 {
    use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};
    const P: [f64; 12] = [
        -0.333_333_333_333_333_3,
        0.199_999_999_999_998,
        -0.142_857_142_856_593_26,
        0.111_111_111_051_067_05,
        -0.090_909_087_510_766_36,
        0.076_922_963_047_744_7,
        -0.066_664_236_280_692_58,
        0.058_789_145_444_006_215,
        -0.052_303_478_730_160_745,
        0.045_511_081_263_251_72,
        -0.034_558_092_551_413_795,
        0.016_271_944_751_624_06,
    ];
    let (x_size, y_size) = (x.abs(), y.abs());
    let steep = y_size > x_size;
    let (a, b) = if steep { (x_size, y_size) } else { (y_size, x_size) };
    let middle = a > 0.414_213_562_373_095_03 * b;
    let over = if middle { a - b } else { a };
    let under = if middle { a + b } else { b };
    let under = if under > 0.0 { under } else { 1.0 };
    let u = over / under;
    let w = u * u;
    let (w2, w4) = (w * w, (w * w) * (w * w));
    let low = (P[0] + w * P[1]) + w2 * (P[2] + w * P[3]);
    let mid = (P[4] + w * P[5]) + w2 * (P[6] + w * P[7]);
    let high = (P[8] + w * P[9]) + w2 * (P[10] + w * P[11]);
    let series = u * w * (low + w4 * (mid + w4 * high));
    let angle = (if middle { FRAC_PI_4 } else { 0.0 }) + (u + series);
    let angle = if steep { FRAC_PI_2 - angle } else { angle };
    let angle = if x < 0.0 { PI - angle } else { angle };
    let angle = if y < 0.0 { 2.0 * PI - angle } else { angle };
    // A tiny angle below the axis rounds up to 2 pi itself. Infinity over infinity has made NaN above; x / infinity has not.
    let angle = if angle < 2.0 * PI { angle } else { 0.0 };
    if x_size + y_size < f64::INFINITY { angle } else { f64::NAN }
}

/// Rapidity from the components, GeV, with the conventions of [`crate::momentum`]; NaN if one is not finite.
#[inline(always)]
pub(crate) fn rapidity(pt2: f64, pz: f64, energy: f64) -> f64 {
    let reach = energy + pz.abs();
    let reach2 = reach * reach;
    let m2 = (energy + pz) * (energy - pz) - pt2;
    let mt2 = pt2 + if m2 > 0.0 { m2 } else { 0.0 };
    let beam = mt2 < SMALLEST_MT2_GEV2;
    let ratio = if beam | (reach2 < SMALLEST_MT2_GEV2) { 1.0 } else { reach2 / mt2 };
    let y = 0.5 * ln(ratio);
    let y = if ratio.is_normal() { y } else { f64::NAN };
    let y = if beam { BEAM_RAPIDITY + pz.abs() } else { y };
    if pz < 0.0 { -y } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_is_within_an_ulp_or_so() {
        let mut worst = 0.0_f64;
        let mut x = 1e-300_f64;
        while x < 1e300 {
            for x in [x, x * 1.37, 1.0 + x.min(1e-3), 1.0 - x.min(1e-3)] {
                let want = x.ln();
                let ulp = want.abs().max(f64::MIN_POSITIVE) * f64::EPSILON;
                worst = worst.max((ln(x) - want).abs() / ulp);
            }
            x *= 1.000_37 * 1.01;
        }
        assert_eq!(ln(1.0), 0.0);
        assert!(worst < 1.6, "{worst} units");
    }

    #[test]
    fn azimuth_is_within_two_ulp() {
        let mut worst = 0.0_f64;
        for i in 0..200_000 {
            let angle = f64::from(i) * 3.141_59e-5;
            for size in [1e-60, 1.0, 1e40] {
                let (x, y) = (size * angle.cos(), size * angle.sin());
                let want = y.atan2(x);
                let want = if want < 0.0 { want + 2.0 * std::f64::consts::PI } else { want };
                let ulp = f64::EPSILON * want.max(1e-10);
                worst = worst.max((azimuth(x, y) - want).abs() / ulp);
            }
        }
        assert!(worst < 2.5, "{worst} units");
        assert_eq!(azimuth(1e-200, 0.0), 0.0);
        assert_eq!(azimuth(1.0, 1e-300), 1e-300);
        for fault in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(
                azimuth(fault, 1.0).is_nan()
                    && azimuth(1.0, fault).is_nan()
                    && azimuth(fault, fault).is_nan()
            );
            for other in [0.0, 1.0, -1.0, fault] {
                assert!(rapidity(fault.abs(), other, 1.0).is_nan() || fault.abs() == 0.0);
                assert!(rapidity(1.0, fault, other.abs()).is_nan());
                assert!(rapidity(1.0, other, fault).is_nan());
            }
        }
    }
}
