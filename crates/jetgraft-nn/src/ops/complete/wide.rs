//! Sixteen numbers at a time, spelled out per instruction path: compilers leave loops over the columns of one head, which
//! end in a sum along the row, in pieces. Every path does the same operations lane by lane, so all give the same bits.

use super::NEGATIVE_SLOPE;

/// Lanes of a sum along a row.
pub const LANES: usize = 16;

/// Numbers side by side.
pub type Lanes = [f32; LANES];

/// `LANES` numbers from a position on.
#[inline(always)]
pub fn lanes(values: &[f32], at: usize) -> &Lanes {
    match values[at..at + LANES].try_into() {
        Ok(lanes) => lanes,
        Err(_) => unreachable!("cut to length"),
    }
}

/// The same to write.
#[inline(always)]
pub fn lanes_mut(values: &mut [f32], at: usize) -> &mut Lanes {
    match (&mut values[at..at + LANES]).try_into() {
        Ok(lanes) => lanes,
        Err(_) => unreachable!("cut to length"),
    }
}

/// `LeakyReLU(x)`; a NaN stays one.
#[inline(always)]
pub fn leaky(x: f32) -> f32 {
    let low = NEGATIVE_SLOPE * x;
    if x > low { x } else { low }
}

/// Numbers side by side in registers.
pub trait Wide: Copy {
    /// From memory.
    fn load(values: &Lanes) -> Self;
    /// To memory.
    fn store(self, values: &mut Lanes);
    /// The same number everywhere.
    fn splat(value: f32) -> Self;
    /// Sum.
    fn add(self, other: Self) -> Self;
    /// Product.
    fn mul(self, other: Self) -> Self;
    /// Negative.
    fn neg(self) -> Self;
    /// [`leaky`].
    fn leaky(self) -> Self;
    /// Adds `value` where `x > y`.
    fn add_where_above(self, x: Self, y: Self, value: Self) -> Self;
}

/// What every processor has.
#[derive(Clone, Copy)]
pub struct Portable(Lanes);

impl Portable {
    #[inline(always)]
    fn map(self, other: Self, function: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self;
        for lane in 0..LANES {
            out.0[lane] = function(self.0[lane], other.0[lane]);
        }
        out
    }
}

impl Wide for Portable {
    #[inline(always)]
    fn load(values: &Lanes) -> Self {
        Self(*values)
    }

    #[inline(always)]
    fn store(self, values: &mut Lanes) {
        *values = self.0;
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.map(other, |x, y| x + y)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.map(other, |x, y| x * y)
    }

    #[inline(always)]
    fn neg(self) -> Self {
        self.map(self, |x, _| -x)
    }

    #[inline(always)]
    fn leaky(self) -> Self {
        self.map(self, |x, _| leaky(x))
    }

    #[inline(always)]
    fn add_where_above(self, x: Self, y: Self, value: Self) -> Self {
        let mut out = self;
        for lane in 0..LANES {
            if x.0[lane] > y.0[lane] {
                out.0[lane] += value.0[lane];
            }
        }
        out
    }
}

/// Vector instructions of x86-64. A value is made only in functions that run after the processor was found to have them.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Lanes, NEGATIVE_SLOPE, Wide};

    /// AVX-512 F and DQ.
    #[derive(Clone, Copy)]
    pub struct Avx512(__m512);

    impl Wide for Avx512 {
        #[inline(always)]
        fn load(values: &Lanes) -> Self {
            // SAFETY: the processor has the instruction; sixteen numbers are there.
            Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
        }

        #[inline(always)]
        fn store(self, values: &mut Lanes) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: the processor has the instruction.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: the processor has the instruction.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: the processor has the instruction.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn neg(self) -> Self {
            // SAFETY: the processor has the instruction.
            Self(unsafe { _mm512_xor_ps(self.0, _mm512_set1_ps(-0.0)) })
        }

        #[inline(always)]
        fn leaky(self) -> Self {
            // SAFETY: the processor has the instruction.
            Self(unsafe { _mm512_max_ps(self.0, _mm512_mul_ps(_mm512_set1_ps(NEGATIVE_SLOPE), self.0)) })
        }

        #[inline(always)]
        fn add_where_above(self, x: Self, y: Self, value: Self) -> Self {
            // SAFETY: the processor has the instruction.
            Self(unsafe {
                let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x.0, y.0);
                _mm512_mask_add_ps(self.0, above, self.0, value.0)
            })
        }
    }

    /// AVX2.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256, __m256);

    /// Lanes of one register.
    const HALF: usize = LANES / 2;

    impl Wide for Avx2 {
        #[inline(always)]
        fn load(values: &Lanes) -> Self {
            // SAFETY: the processor has the instruction; sixteen numbers are there.
            unsafe { Self(_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(HALF))) }
        }

        #[inline(always)]
        fn store(self, values: &mut Lanes) {
            // SAFETY: as above.
            unsafe {
                _mm256_storeu_ps(values.as_mut_ptr(), self.0);
                _mm256_storeu_ps(values.as_mut_ptr().add(HALF), self.1);
            }
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: the processor has the instruction.
            let value = unsafe { _mm256_set1_ps(value) };
            Self(value, value)
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: the processor has the instruction.
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: the processor has the instruction.
            unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn neg(self) -> Self {
            // SAFETY: the processor has the instruction.
            unsafe {
                let sign = _mm256_set1_ps(-0.0);
                Self(_mm256_xor_ps(self.0, sign), _mm256_xor_ps(self.1, sign))
            }
        }

        #[inline(always)]
        fn leaky(self) -> Self {
            let low = self.mul(Self::splat(NEGATIVE_SLOPE));
            // SAFETY: the processor has the instruction.
            unsafe { Self(_mm256_max_ps(self.0, low.0), _mm256_max_ps(self.1, low.1)) }
        }

        #[inline(always)]
        fn add_where_above(self, x: Self, y: Self, value: Self) -> Self {
            let sum = self.add(value);
            // SAFETY: the processor has the instructions.
            unsafe {
                let above = (_mm256_cmp_ps::<_CMP_GT_OQ>(x.0, y.0), _mm256_cmp_ps::<_CMP_GT_OQ>(x.1, y.1));
                Self(_mm256_blendv_ps(self.0, sum.0, above.0), _mm256_blendv_ps(self.1, sum.1, above.1))
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

/// Compiles a function over [`Wide`] once per instruction path; the first argument chooses.
macro_rules! wide {
    ($($(#[$meta:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $body:ident;)*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub fn $name(path: $crate::ops::cpu::Path, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
                fn avx512($($argument: $type),*) { $body::<$crate::ops::complete::wide::Avx512>($($argument),*) }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) { $body::<$crate::ops::complete::wide::Avx2>($($argument),*) }
                match path {
                    // SAFETY: `Path` names only what this processor was found to have.
                    $crate::ops::cpu::Path::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::ops::cpu::Path::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::ops::cpu::Path::Portable => {}
                }
            }
            let _ = path;
            $body::<$crate::ops::complete::wide::Portable>($($argument),*)
        }
    )*};
}
pub(super) use wide;
