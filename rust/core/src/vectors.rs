//! What all kernels ask of vectors.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

#[cfg(target_arch = "x86_64")]
use std::any::Any;

use pulp::{Arch, Simd, WithSimd};

/// The vectors that kernels compute with: the machine's widest; in tests those that `GLINER_FAST_TEST_VECTORS` names.
pub(crate) fn widest() -> Arch {
    #[cfg(test)]
    if let Some(asked) = asked() {
        return asked;
    }
    Arch::new()
}

/// A machine with AVX-512 would otherwise test nothing else.
#[cfg(test)]
fn asked() -> Option<Arch> {
    match std::env::var("GLINER_FAST_TEST_VECTORS").as_deref() {
        Ok("scalar") => Some(Arch::Scalar),
        #[cfg(target_arch = "x86_64")]
        Ok("avx2") => Some(Arch::V3(pulp::x86::V3::try_new().expect("a CPU with AVX2"))),
        Ok(other) => panic!("GLINER_FAST_TEST_VECTORS is {other}: expected scalar or, on x86, avx2"),
        Err(_) => None,
    }
}

/// All vectors that this machine has, and none.
#[cfg(test)]
pub(crate) fn each() -> impl Iterator<Item = Arch> {
    #[cfg(target_arch = "x86_64")]
    let vectors = [pulp::x86::V3::try_new().map(Arch::V3), pulp::x86::V4::try_new().map(Arch::V4)];
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = [Some(Arch::new())];
    vectors.into_iter().flatten().chain([Arch::Scalar])
}

/// Whether this machine has vector instructions that the kernels are written for; without them they are right, and slow.
pub fn has_vectors() -> bool {
    struct IsVector;
    impl WithSimd for IsVector {
        type Output = bool;
        fn with_simd<S: Simd>(self, _: S) -> bool {
            !S::IS_SCALAR
        }
    }
    widest().dispatch(IsVector)
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

/// A bit for each number that reaches its bound, from the lowest; NaN reaches none, and none reaches a NaN.
#[inline(always)]
pub(crate) fn reaching<S: Simd>(simd: S, numbers: &[f32; 8], bounds: &[f32; 8]) -> u8 {
    // Known when this is compiled: no test is left. The compiler does not find the instruction by itself.
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = as_avx2(simd) {
        let [numbers, bounds] = [numbers, bounds].map(|eight| pulp::cast(*eight));
        let reaching = simd.avx._mm256_cmp_ps::<{ std::arch::x86_64::_CMP_GE_OQ }>(numbers, bounds);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "eight bits")]
        return simd.avx._mm256_movemask_ps(reaching) as u8;
    }
    let _ = simd;
    let bits = (0..).zip(numbers.iter().zip(bounds)).map(|(bit, (number, bound))| u8::from(number >= bound) << bit);
    bits.fold(0, |all, bit| all | bit)
}

/// AVX2, where these vectors are its own or AVX-512's.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn as_avx2<S: Simd>(simd: S) -> Option<pulp::x86::V3> {
    let simd = &simd as &dyn Any;
    simd.downcast_ref::<pulp::x86::V4>().map(|simd| **simd).or_else(|| simd.downcast_ref().copied())
}

/// Adds numbers to others.
#[inline(always)]
pub(crate) fn add<S: Simd>(simd: S, to: &mut [f32], from: &[f32]) {
    let ((to, to_rest), (from, from_rest)) = (S::as_mut_simd_f32s(to), S::as_simd_f32s(from));
    for (to, from) in to.iter_mut().zip(from) {
        *to = simd.add_f32s(*to, *from);
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        *to += from;
    }
}
