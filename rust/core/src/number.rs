//! What tensors keep numbers as; the kernels compute in float32.

#![expect(clippy::inline_always, reason = "they stand in innermost loops")]

/// A number of a tensor.
pub trait Number: Copy + Send + Sync {
    /// As float32, which it fits into.
    fn widen(self) -> f32;

    /// The nearest one, of two that are as near the even one; NaN stays NaN.
    fn round(number: f32) -> Self;

    /// The same numbers where they are float32 as they lie.
    fn as_float32(_numbers: &[Self]) -> Option<&[f32]> {
        None
    }

    /// The same of numbers that are to be written.
    fn as_float32_mut(_numbers: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}

impl Number for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(number: f32) -> Self {
        number
    }

    fn as_float32(numbers: &[Self]) -> Option<&[f32]> {
        Some(numbers)
    }

    fn as_float32_mut(numbers: &mut [Self]) -> Option<&mut [f32]> {
        Some(numbers)
    }
}

/// bf16, the upper half of float32, by its bits.
impl Number for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    #[inline(always)]
    fn round(number: f32) -> Self {
        let bits = number.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        if number.is_nan() { 0x7fc0 } else { rounded as Self }
    }
}

/// Each number of `from`; there are as many in `to`.
#[inline(always)]
pub(crate) fn widen_all(from: &[impl Number], to: &mut [f32]) {
    for (to, number) in to.iter_mut().zip(from) {
        *to = number.widen();
    }
}

/// The same back again.
#[inline(always)]
pub(crate) fn round_all<N: Number>(from: &[f32], to: &mut [N]) {
    for (to, &number) in to.iter_mut().zip(from) {
        *to = N::round(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_rounded_to_the_nearest() {
        for bits in 0..=u16::MAX {
            let exact = Number::widen(bits); // not `bits.widen()`: the standard library is to have one of its own
            if exact.is_nan() {
                assert!(Number::widen(u16::round(exact)).is_nan());
                continue;
            }
            assert_eq!(u16::round(exact), bits);
            if exact.is_infinite() {
                continue;
            }
            let next = f64::from(Number::widen(bits + 1));
            let next = if next.is_infinite() { f64::from(exact.signum()) * 2_f64.powi(128) } else { next };
            let exact = f64::from(exact);
            for (share, nearest) in [(0.49, bits), (0.51, bits + 1), (0.5, bits + (bits & 1))] {
                #[expect(clippy::cast_possible_truncation, reason = "that is what is tested")]
                let between = (exact + share * (next - exact)) as f32;
                assert_eq!(u16::round(between), nearest, "{exact} and {share} of the way to {next}");
            }
        }
        // Whose upper half alone says infinity, and those that rounding up makes another number of.
        for bits in [0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff] {
            assert!(Number::widen(u16::round(f32::from_bits(bits))).is_nan(), "{bits:x}");
        }
    }
}
