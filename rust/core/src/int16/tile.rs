//! The innermost loop: a few rows times a panel of weights, in whole numbers.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::any::Any;

use pulp::Simd;

/// Rows of a tile: 6 times 2 vectors of sums, 2 of the weights, 1 of the rows and 1 of products are 16 registers.
pub(super) const ROWS: usize = 6;
/// Rows of weights in a panel.
pub(super) const OUTPUTS: usize = 16;

/// Two numbers of each row of a tile, which the innermost loop reads at a time.
pub(super) type RowPairs = [[i16; 2]; ROWS];

/// Two numbers of each row of weights in a panel: a line of a cache, and no load reads from two.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct WeightPairs(pub(super) [[i16; 2]; OUTPUTS]);

/// Adds the products of a tile's first `R` rows with a panel, as many numbers of each as their sum can hold.
#[inline(always)]
pub(super) fn add_products<S: Simd, const R: usize>(
    simd: S,
    x: &[RowPairs],
    weights: &[WeightPairs],
    sums: &mut [[f32; OUTPUTS]; R],
) {
    // Known when this is compiled: no test is left.
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = (&simd as &dyn Any).downcast_ref::<pulp::x86::V3>() {
        let mut whole = [[simd.avx._mm256_setzero_si256(); 2]; R];
        for (x, weights) in x.iter().zip(weights) {
            let eights: [[[i16; 2]; 8]; 2] = pulp::cast(weights.0);
            let weights = eights.map(pulp::cast);
            for (whole, &pair) in whole.iter_mut().zip(x) {
                let pair = simd.avx._mm256_set1_epi32(pulp::cast(pair));
                for (whole, weights) in whole.iter_mut().zip(weights) {
                    *whole = simd.avx2._mm256_add_epi32(*whole, simd.avx2._mm256_madd_epi16(pair, weights));
                }
            }
        }
        for (sums, whole) in sums.iter_mut().zip(whole) {
            let both: [[f32; 8]; 2] = whole.map(|eight| pulp::cast(simd.avx._mm256_cvtepi32_ps(eight)));
            for (sum, whole) in sums.iter_mut().zip(both.as_flattened()) {
                *sum += whole;
            }
        }
        return;
    }
    for (row, sums) in sums.iter_mut().enumerate() {
        let mut whole = [0_i32; OUTPUTS];
        for (x, weights) in x.iter().zip(weights) {
            let [first, second] = x[row].map(i32::from);
            for (whole, weight) in whole.iter_mut().zip(weights.0) {
                *whole += first * i32::from(weight[0]) + second * i32::from(weight[1]);
            }
        }
        for (sum, whole) in sums.iter_mut().zip(whole) {
            #[expect(clippy::cast_precision_loss, reason = "as the vector instruction does it")]
            let whole = whole as f32;
            *sum += whole;
        }
    }
}
