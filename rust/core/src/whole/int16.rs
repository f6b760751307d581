//! Whole numbers of 16 bits, of which x86 multiplies 16 or 32 at a time and adds the products of two to one of 32 bits.
//!
//! Each row is measured by its greatest number.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

#[cfg(target_arch = "x86_64")]
use std::any::Any;

use pulp::Simd;

use super::{Dots, Kind, OUTPUTS, ROUNDER, ROWS, greatest};
#[cfg(target_arch = "x86_64")]
use crate::host::Fetches;
use crate::host::Host;

/// What the greatest number of a row becomes: 13 bits and a sign.
const MOST: f32 = 8191.0;
/// Products whose sum fits into 32 bits: 8191 * 8191 * 32 < 2^31. Numbers of a bit less would let sums be four times as
/// long, for a twentieth of the time, and twice the rounding.
const BLOCK: usize = 32;

/// Whole numbers of 16 bits.
#[derive(Clone, Copy, Debug)]
pub struct Int16;

/// Two numbers of each row of a tile, which the innermost loop reads at a time.
type RowPairs = [[i16; 2]; ROWS];

/// Two numbers of each row of weights in a panel: lines of a cache, and no load reads from two.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct WeightPairs([[i16; 2]; OUTPUTS]);

impl Default for WeightPairs {
    fn default() -> Self {
        Self([[0; 2]; OUTPUTS])
    }
}

impl Kind for Int16 {
    const INPUTS: usize = 2;
    type Unit = [i16; 2];
    type Rows = RowPairs;
    type Weights = WeightPairs;

    #[inline(always)]
    fn measure(row: &[f32], units: &mut [[i16; 2]]) -> f32 {
        let (most, zero) = greatest(row);
        if most < 1e-30 || zero.is_nan() {
            // So small a row adds nothing to anything, and its inverse might not fit.
            units.fill([0; 2]);
            return zero;
        }
        let factor = MOST / most;
        #[expect(clippy::cast_possible_truncation, reason = "the lowest bits are what is wanted")]
        let as_whole = |x: f32| (x * factor + ROUNDER).to_bits() as i16;
        let (both, last) = row.as_chunks::<2>();
        for (to, pair) in units.iter_mut().zip(both) {
            *to = pair.map(as_whole);
        }
        if let (Some(to), Some(&last)) = (units.last_mut(), last.first()) {
            *to = [as_whole(last), 0];
        }
        most / MOST
    }

    #[inline(always)]
    fn put_row(rows: &mut RowPairs, row: usize, unit: &[i16; 2]) {
        rows[row] = *unit;
    }

    #[inline(always)]
    fn put_weights(weights: &mut WeightPairs, output: usize, unit: &[i16; 2]) {
        weights.0[output] = *unit;
    }

    #[inline(always)]
    fn multiply<S: Simd, const R: usize>(
        simd: S,
        _: Dots, // unused: with VNNI the compiler makes one of a product and a sum by itself
        x: &[RowPairs],
        weights: &[WeightPairs],
        ahead: &[WeightPairs],
        host: &impl Host,
    ) -> [[f32; OUTPUTS]; R] {
        multiply(simd, x, weights, ahead, host)
    }
}

/// A tile's first `R` rows times a panel: sums of whole numbers, in float32 as soon as they might not fit into 32 bits.
#[inline(always)]
fn multiply<S: Simd, const R: usize>(
    simd: S,
    x: &[RowPairs],
    weights: &[WeightPairs],
    ahead: &[WeightPairs],
    host: &impl Host,
) -> [[f32; OUTPUTS]; R] {
    // Known when this is compiled: no test is left.
    #[cfg(target_arch = "x86_64")]
    if let Some(&simd) = (&simd as &dyn Any).downcast_ref::<pulp::x86::V4>() {
        return multiply_by_avx512(simd, x, weights, ahead, host);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(&simd) = (&simd as &dyn Any).downcast_ref::<pulp::x86::V3>() {
        return multiply_by_avx2(simd, x, weights, ahead, host);
    }
    let _ = (simd, ahead, host);
    let mut sums = [[0.0; OUTPUTS]; R];
    for (x, weights) in x.chunks(BLOCK / 2).zip(weights.chunks(BLOCK / 2)) {
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
    sums
}

/// 6 times 2 vectors of whole sums and as many of float32: with what is multiplied 27 of 32 registers.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn multiply_by_avx512<const R: usize>(
    simd: pulp::x86::V4,
    x: &[RowPairs],
    weights: &[WeightPairs],
    ahead: &[WeightPairs],
    host: &impl Host,
) -> [[f32; OUTPUTS]; R] {
    let mut fetches = Fetches::new(ahead, x.len().div_ceil(BLOCK / 2));
    let mut sums = [[simd.avx512f._mm512_setzero_ps(); 2]; R];
    for (x, weights) in x.chunks(BLOCK / 2).zip(weights.chunks(BLOCK / 2)) {
        fetches.fetch(host);
        let mut whole = [[simd.avx512f._mm512_setzero_si512(); 2]; R];
        for (x, weights) in x.iter().zip(weights) {
            let halves: [[[i16; 2]; 16]; 2] = pulp::cast(weights.0);
            let weights = halves.map(pulp::cast);
            for (whole, &pair) in whole.iter_mut().zip(x) {
                let pair = simd.avx512f._mm512_set1_epi32(pulp::cast(pair));
                for (whole, weights) in whole.iter_mut().zip(weights) {
                    let products = simd.avx512bw._mm512_madd_epi16(pair, weights);
                    *whole = simd.avx512f._mm512_add_epi32(*whole, products);
                }
            }
        }
        for (sums, whole) in sums.iter_mut().zip(whole) {
            for (sum, whole) in sums.iter_mut().zip(whole) {
                *sum = simd.avx512f._mm512_add_ps(*sum, simd.avx512f._mm512_cvtepi32_ps(whole));
            }
        }
    }
    sums.map(pulp::cast)
}

/// 6 times 2 vectors of whole sums; those in float32 wait in memory.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn multiply_by_avx2<const R: usize>(
    simd: pulp::x86::V3,
    x: &[RowPairs],
    weights: &[WeightPairs],
    ahead: &[WeightPairs],
    host: &impl Host,
) -> [[f32; OUTPUTS]; R] {
    let mut fetches = Fetches::new(ahead, x.len().div_ceil(BLOCK / 2));
    let mut sums = [[[0.0; OUTPUTS / 2]; 2]; R];
    for (x, weights) in x.chunks(BLOCK / 2).zip(weights.chunks(BLOCK / 2)) {
        fetches.fetch(host);
        for half in 0..2 {
            let mut whole = [[simd.avx._mm256_setzero_si256(); 2]; R];
            for (x, weights) in x.iter().zip(weights) {
                let eights: [[[[i16; 2]; 8]; 2]; 2] = pulp::cast(weights.0);
                let weights = eights[half].map(pulp::cast);
                for (whole, &pair) in whole.iter_mut().zip(x) {
                    let pair = simd.avx._mm256_set1_epi32(pulp::cast(pair));
                    for (whole, weights) in whole.iter_mut().zip(weights) {
                        *whole = simd.avx2._mm256_add_epi32(*whole, simd.avx2._mm256_madd_epi16(pair, weights));
                    }
                }
            }
            for (sums, whole) in sums.iter_mut().zip(whole) {
                let both: [[f32; 8]; 2] = whole.map(|eight| pulp::cast(simd.avx._mm256_cvtepi32_ps(eight)));
                for (sum, whole) in sums[half].iter_mut().zip(both.as_flattened()) {
                    *sum += whole;
                }
            }
        }
    }
    sums.map(pulp::cast)
}
