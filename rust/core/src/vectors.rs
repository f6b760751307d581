//! What all kernels ask of vectors.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::{Arch, Simd, WithSimd};

/// Whether this machine has vector instructions that the kernels are written for; without them they are right, and slow.
pub fn has_vectors() -> bool {
    struct IsVector;
    impl WithSimd for IsVector {
        type Output = bool;
        fn with_simd<S: Simd>(self, _: S) -> bool {
            !S::IS_SCALAR
        }
    }
    Arch::new().dispatch(IsVector)
}

/// The larger of a number and a bound; NaN stays NaN.
#[inline(always)]
pub(crate) fn at_least<S: Simd>(simd: S, bound: S::f32s, x: S::f32s) -> S::f32s {
    if S::IS_SCALAR {
        simd.select_f32s(simd.less_than_f32s(x, bound), bound, x)
    } else {
        simd.max_f32s(bound, x) // of two, x86 takes the second where one is NaN, ARM the NaN
    }
}
