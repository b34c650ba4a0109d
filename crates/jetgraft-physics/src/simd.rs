//! Vectors of eight numbers, on whatever the processor has for them.
//!
//! Loops are written once against [`Vector`] and compiled for AVX-512, AVX2 and portable Rust; which one runs is chosen when the
//! program starts. Every operation is exactly rounded and none is fused or reordered, so that all three give the same bits
//! (tested in `cluster`); only speed differs. Left to itself the compiler vectorises these loops in pieces of two, which a
//! profile showed to cost half the time of a clustering.

/// Numbers in a vector.
pub(crate) const LANES: usize = 8;

/// A vector in memory.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Lanes(pub [f64; LANES]);

impl Lanes {
    /// The same number in every lane.
    pub const fn splat(value: f64) -> Self {
        Self([value; LANES])
    }
}

/// The smaller of two numbers that are not NaN: one instruction, unlike `f64::min`.
#[inline(always)]
pub(crate) fn least(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// A vector in registers. No lane is ever NaN.
pub(crate) trait Vector: Copy {
    /// One truth value a lane.
    type Mask: Copy;
    fn splat(value: f64) -> Self;
    fn load(from: &Lanes) -> Self;
    fn store(self, to: &mut Lanes);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn abs(self) -> Self;
    fn min(self, other: Self) -> Self;
    fn less(self, than: Self) -> Self::Mask;
    fn equal(self, to: Self) -> Self::Mask;
    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    fn either(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// `yes` where the mask is set, `no` elsewhere.
    fn choose(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// The same but for one lane, which is below [`LANES`].
    fn with_lane(self, lane: usize, value: f64) -> Self;
    /// Writes one lane in memory by way of a vector: a vector read that follows then need not wait for a narrower write to
    /// leave the store buffer.
    #[inline(always)]
    fn put(to: &mut Lanes, lane: usize, value: f64) {
        Self::load(to).with_lane(lane, value).store(to);
    }
    /// The mask as bits, lane 0 lowest.
    fn bits(mask: Self::Mask) -> u32;
    /// The smallest lane.
    fn smallest(self) -> f64;
}

/// The [`Vector`] of plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f64; LANES]);

impl Portable {
    #[inline(always)]
    fn zip<T>(self, other: Self, f: impl Fn(f64, f64) -> T) -> [T; LANES] {
        std::array::from_fn(|l| f(self.0[l], other.0[l]))
    }
}

impl Vector for Portable {
    /// All bits of a lane, or none: a choice is then plain logic, which every target has for whole vectors.
    type Mask = [u64; LANES];
    #[inline(always)]
    fn splat(value: f64) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    fn load(from: &Lanes) -> Self {
        Self(from.0)
    }
    #[inline(always)]
    fn store(self, to: &mut Lanes) {
        to.0 = self.0;
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.zip(other, |a, b| a + b))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.zip(other, |a, b| a - b))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.zip(other, |a, b| a * b))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f64::abs))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(self.zip(other, least))
    }
    #[inline(always)]
    fn less(self, than: Self) -> Self::Mask {
        self.zip(than, |a, b| u64::from(a < b).wrapping_neg())
    }
    #[inline(always)]
    fn equal(self, to: Self) -> Self::Mask {
        self.zip(to, |a, b| u64::from(a == b).wrapping_neg())
    }
    #[inline(always)]
    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask {
        std::array::from_fn(|l| a[l] & b[l])
    }
    #[inline(always)]
    fn either(a: Self::Mask, b: Self::Mask) -> Self::Mask {
        std::array::from_fn(|l| a[l] | b[l])
    }
    #[inline(always)]
    fn choose(mask: Self::Mask, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|l| {
            f64::from_bits((yes.0[l].to_bits() & mask[l]) | (no.0[l].to_bits() & !mask[l]))
        }))
    }
    #[inline(always)]
    fn with_lane(mut self, lane: usize, value: f64) -> Self {
        self.0[lane % LANES] = value;
        self
    }
    #[inline(always)]
    fn bits(mask: Self::Mask) -> u32 {
        let weighed: [u64; LANES] = std::array::from_fn(|l| mask[l] & (1 << l));
        weighed.iter().fold(0, |bits, lane| bits | lane) as u32
    }
    #[inline(always)]
    fn smallest(self) -> f64 {
        let a = self.0;
        let b: [f64; 4] = std::array::from_fn(|l| least(a[l], a[l + 4]));
        least(least(b[0], b[2]), least(b[1], b[3]))
    }
}

/// The vectors of x86-64. Their methods may only run where [`Level`] found the feature: they are used by the functions that
/// [`compiled_per_level`] makes, and by nothing else.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Lanes, Vector};
    use std::arch::x86_64::*;

    /// AVX-512 F and DQ.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512d);

    // SAFETY: of every block below: the feature is there, see the module; loads and stores are of whole, aligned `Lanes`.
    impl Vector for Avx512 {
        type Mask = __mmask8;
        #[inline(always)]
        fn splat(value: f64) -> Self {
            unsafe { Self(_mm512_set1_pd(value)) }
        }
        #[inline(always)]
        fn load(from: &Lanes) -> Self {
            unsafe { Self(_mm512_load_pd(from.0.as_ptr())) }
        }
        #[inline(always)]
        fn store(self, to: &mut Lanes) {
            unsafe { _mm512_store_pd(to.0.as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { Self(_mm512_add_pd(self.0, other.0)) }
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            unsafe { Self(_mm512_sub_pd(self.0, other.0)) }
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            unsafe { Self(_mm512_mul_pd(self.0, other.0)) }
        }
        #[inline(always)]
        fn abs(self) -> Self {
            unsafe { Self(_mm512_abs_pd(self.0)) }
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            unsafe { Self(_mm512_min_pd(self.0, other.0)) }
        }
        #[inline(always)]
        fn less(self, than: Self) -> Self::Mask {
            unsafe { _mm512_cmp_pd_mask::<_CMP_LT_OQ>(self.0, than.0) }
        }
        #[inline(always)]
        fn equal(self, to: Self) -> Self::Mask {
            unsafe { _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(self.0, to.0) }
        }
        #[inline(always)]
        fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask {
            a & b
        }
        #[inline(always)]
        fn either(a: Self::Mask, b: Self::Mask) -> Self::Mask {
            a | b
        }
        #[inline(always)]
        fn choose(mask: Self::Mask, yes: Self, no: Self) -> Self {
            unsafe { Self(_mm512_mask_blend_pd(mask, no.0, yes.0)) }
        }
        #[inline(always)]
        fn with_lane(self, lane: usize, value: f64) -> Self {
            Self::choose(1 << (lane % LANES), Self::splat(value), self)
        }
        #[inline(always)]
        fn bits(mask: Self::Mask) -> u32 {
            u32::from(mask)
        }
        #[inline(always)]
        fn smallest(self) -> f64 {
            unsafe { _mm512_reduce_min_pd(self.0) }
        }
    }

    /// AVX2, in two halves.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2([__m256d; 2]);

    impl Avx2 {
        #[inline(always)]
        fn zip(self, other: Self, f: impl Fn(__m256d, __m256d) -> __m256d) -> [__m256d; 2] {
            [f(self.0[0], other.0[0]), f(self.0[1], other.0[1])]
        }
    }

    // SAFETY: of every block below: as for `Avx512`.
    impl Vector for Avx2 {
        type Mask = [__m256d; 2];
        #[inline(always)]
        fn splat(value: f64) -> Self {
            unsafe { Self([_mm256_set1_pd(value); 2]) }
        }
        #[inline(always)]
        fn load(from: &Lanes) -> Self {
            let from = from.0.as_ptr();
            unsafe { Self([_mm256_load_pd(from), _mm256_load_pd(from.add(4))]) }
        }
        #[inline(always)]
        fn store(self, to: &mut Lanes) {
            let to = to.0.as_mut_ptr();
            unsafe {
                _mm256_store_pd(to, self.0[0]);
                _mm256_store_pd(to.add(4), self.0[1]);
            }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(self.zip(other, |a, b| unsafe { _mm256_add_pd(a, b) }))
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            Self(self.zip(other, |a, b| unsafe { _mm256_sub_pd(a, b) }))
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            Self(self.zip(other, |a, b| unsafe { _mm256_mul_pd(a, b) }))
        }
        #[inline(always)]
        fn abs(self) -> Self {
            Self(self.0.map(|a| unsafe { _mm256_andnot_pd(_mm256_set1_pd(-0.0), a) }))
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            Self(self.zip(other, |a, b| unsafe { _mm256_min_pd(a, b) }))
        }
        #[inline(always)]
        fn less(self, than: Self) -> Self::Mask {
            self.zip(than, |a, b| unsafe { _mm256_cmp_pd::<_CMP_LT_OQ>(a, b) })
        }
        #[inline(always)]
        fn equal(self, to: Self) -> Self::Mask {
            self.zip(to, |a, b| unsafe { _mm256_cmp_pd::<_CMP_EQ_OQ>(a, b) })
        }
        #[inline(always)]
        fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask {
            unsafe { [_mm256_and_pd(a[0], b[0]), _mm256_and_pd(a[1], b[1])] }
        }
        #[inline(always)]
        fn either(a: Self::Mask, b: Self::Mask) -> Self::Mask {
            unsafe { [_mm256_or_pd(a[0], b[0]), _mm256_or_pd(a[1], b[1])] }
        }
        #[inline(always)]
        fn choose(mask: Self::Mask, yes: Self, no: Self) -> Self {
            unsafe {
                Self([
                    _mm256_blendv_pd(no.0[0], yes.0[0], mask[0]),
                    _mm256_blendv_pd(no.0[1], yes.0[1], mask[1]),
                ])
            }
        }
        #[inline(always)]
        fn with_lane(self, lane: usize, value: f64) -> Self {
            let number = Self::load(&Lanes([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]));
            Self::choose(number.equal(Self::splat(lane as f64)), Self::splat(value), self)
        }
        #[inline(always)]
        fn put(to: &mut Lanes, lane: usize, value: f64) {
            const NUMBER: Lanes = Lanes([0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0]);
            let lane = lane % LANES;
            // SAFETY: as below; `half` is 0 or 4, so that four lanes follow.
            unsafe {
                let half = to.0.as_mut_ptr().add(lane & 4);
                let here = _mm256_set1_pd((lane & 3) as f64);
                let mask = _mm256_cmp_pd::<_CMP_EQ_OQ>(_mm256_load_pd(NUMBER.0.as_ptr()), here);
                _mm256_store_pd(half, _mm256_blendv_pd(_mm256_load_pd(half), _mm256_set1_pd(value), mask));
            }
        }
        #[inline(always)]
        fn bits(mask: Self::Mask) -> u32 {
            unsafe { (_mm256_movemask_pd(mask[0]) | (_mm256_movemask_pd(mask[1]) << 4)) as u32 }
        }
        #[inline(always)]
        fn smallest(self) -> f64 {
            unsafe {
                let four = _mm256_min_pd(self.0[0], self.0[1]);
                let two = _mm_min_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
                _mm_cvtsd_f64(_mm_min_sd(two, _mm_unpackhi_pd(two, two)))
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The target's baseline.
    Portable,
    /// AVX2; only made by [`Level::detect`] and [`Level::available`].
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, DQ, VL; only made by [`Level::detect`] and [`Level::available`].
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best one.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// All of them, worst first.
    pub fn available() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx2") {
                if std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512vl")
                {
                    return &[Self::Portable, Self::Avx2, Self::Avx512];
                }
                return &[Self::Portable, Self::Avx2];
            }
        }
        &[Self::Portable]
    }
}

/// Defines `$name(level, arguments...)`, which runs the `#[inline(always)]` generic `$body::<V>` with the vector of `level`,
/// compiled for its instruction set.
macro_rules! compiled_per_level {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident::<V $(, $c:literal)?>) => {
        $(#[$doc])*
        $vis fn $name(level: $crate::simd::Level, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2")]
            fn avx512($($arg: $ty),*) {
                $body::<$crate::simd::Avx512 $(, $c)?>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $ty),*) {
                $body::<$crate::simd::Avx2 $(, $c)?>($($arg),*)
            }
            match level {
                $crate::simd::Level::Portable => $body::<$crate::simd::Portable $(, $c)?>($($arg),*),
                // SAFETY: a `Level` above `Portable` is only made after the processor was asked for its features.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use compiled_per_level;
