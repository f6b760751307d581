//! The softmax of a row.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::Simd;

use crate::functions::exp;

/// Makes a row e^(x - m), m its largest number, and gives the sum, which is NaN where a number is NaN or +inf.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(simd: S, row: &mut [f32]) -> f32 {
    // A maximum that a NaN has hidden does not matter: its own power is NaN, and so is the sum.
    let least = simd.splat_f32s(f32::NEG_INFINITY);
    let (whole, rest) = S::as_simd_f32s(row);
    let (pairs, odd) = whole.as_chunks::<2>();
    let mut largest = [least; 2];
    for [even, odd] in pairs {
        largest = [simd.max_f32s(largest[0], *even), simd.max_f32s(largest[1], *odd)];
    }
    for x in odd {
        largest[0] = simd.max_f32s(largest[0], *x);
    }
    let largest = simd.reduce_max_f32s(simd.max_f32s(largest[0], largest[1]));
    let shift = simd.splat_f32s(rest.iter().copied().fold(largest, f32::max));
    let mut sum = simd.splat_f32s(0.0);
    let (whole, rest) = S::as_mut_simd_f32s(row);
    for x in whole {
        *x = exp(simd, simd.sub_f32s(*x, shift));
        sum = simd.add_f32s(sum, *x);
    }
    let mut rest_sum = 0.0;
    if !rest.is_empty() {
        let powers = exp(simd, simd.sub_f32s(simd.partial_load_f32s(rest), shift));
        simd.partial_store_f32s(rest, powers);
        rest_sum = rest.iter().sum();
    }
    simd.reduce_sum_f32s(sum) + rest_sum
}

#[cfg(test)]
mod tests {
    use pulp::{Scalar, WithSimd};

    use super::*;
    use crate::vectors::widest;

    struct All<'a>(&'a mut [f32]);

    impl WithSimd for All<'_> {
        type Output = f32;
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> f32 {
            softmax(simd, self.0)
        }
    }

    #[test]
    fn powers_are_as_good_as_their_type() {
        for vectors in [false, true] {
            for step in 0_u16..2000 {
                let x = -f32::from(step) * 0.043;
                let mut row = [0.0, x, -0.0, x * 0.5, 0.0, x, 0.0, 0.0, x];
                let sum =
                    if vectors { widest().dispatch(All(&mut row)) } else { All(&mut row).with_simd(Scalar::new()) };
                let (power, half) = (f64::from(x).exp(), f64::from(x * 0.5).exp());
                for (at, expected) in [(1, power), (3, half), (5, power), (8, power), (0, 1.0)] {
                    let error = (f64::from(row[at]) - expected).abs() / expected;
                    assert!(error < 1.2e-7, "e^{x} is {} for {expected}", row[at]);
                }
                assert!((f64::from(sum) - (5.0 + 3.0 * power + half)).abs() < 4e-6);
            }
        }
    }

    #[test]
    fn the_largest_number_is_found_wherever_it_stands() {
        for length in 1..70 {
            for place in 0..length {
                let mut row = vec![-1000.0; length];
                row[place] = 1000.0; // farther from the others than any power reaches
                let sum = widest().dispatch(All(&mut row));
                assert!((sum - 1.0).abs() < 1e-6 && (row[place] - 1.0).abs() < 1e-6, "{sum} at {place} of {length}");
            }
        }
    }

    #[test]
    fn numbers_that_are_none() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut row = [0.0, 1.0, bad, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
            assert!(widest().dispatch(All(&mut row)).is_nan());
        }
        let mut row = [f32::NEG_INFINITY, 3.0, -1e30];
        assert!((widest().dispatch(All(&mut row)) - 1.0).abs() < 1e-6);
        assert!(row[0] < 1e-36 && row[2] < 1e-36);
    }
}
