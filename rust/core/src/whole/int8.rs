//! Whole numbers of 8 bits, of which AVX-512 multiplies 64 at a time and adds the products of four to one of 32 bits.
//!
//! In a row 64 neighbours at a time are measured, by the greatest of them: by that of a row most numbers would be rounded
//! too much, since in what an encoder's layers give to the next a few are many times as large as the rest.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

#[cfg(target_arch = "x86_64")]
use std::any::Any;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

#[cfg(target_arch = "x86_64")]
use gliner_fast_vnni::Vnni;
use pulp::Simd;

use super::{Dots, Kind, OUTPUTS, ROUNDER, ROWS, greatest};
use crate::host::{Fetches, Host};

/// What the greatest of some numbers becomes: 7 bits and a sign.
const MOST: f32 = 127.0;
/// Numbers that are measured together.
const GROUP: usize = 64;
/// Fours of them: the innermost loop reads one at a time.
const FOURS: usize = GROUP / 4;
/// What is added to a weight, as the instruction multiplies numbers without a sign by numbers with one.
const SHIFT: u8 = 128;

/// Whole numbers of 8 bits.
#[derive(Clone, Copy, Debug)]
pub struct Int8;

/// Numbers of a row, zeros after the last, and what 1 stands for.
#[derive(Clone, Copy, Default)]
pub struct Group {
    numbers: [[i8; 4]; FOURS],
    scale: f32,
}

/// Those of each row of a tile.
#[derive(Clone, Copy, Default)]
pub struct RowGroups {
    numbers: [[[i8; 4]; ROWS]; FOURS],
    /// Their sums times `SHIFT`, which are taken off the products.
    shifts: [i32; ROWS],
    scales: [f32; ROWS],
}

/// Those of each row of weights in a panel: lines of a cache, and no load reads from two.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct WeightGroups {
    /// With `SHIFT` added.
    numbers: [[[u8; 4]; OUTPUTS]; FOURS],
    scales: [f32; OUTPUTS],
}

impl Default for WeightGroups {
    fn default() -> Self {
        Self { numbers: [[[SHIFT; 4]; OUTPUTS]; FOURS], scales: [0.0; OUTPUTS] }
    }
}

impl Kind for Int8 {
    const INPUTS: usize = GROUP;
    type Unit = Group;
    type Rows = RowGroups;
    type Weights = WeightGroups;

    #[inline(always)]
    fn measure(row: &[f32], units: &mut [Group]) -> f32 {
        let (whole, rest) = row.as_chunks::<GROUP>();
        for (to, numbers) in units.iter_mut().zip(whole) {
            *to = measure(numbers);
        }
        if let (Some(to), false) = (units.last_mut(), rest.is_empty()) {
            let mut last = [0.0; GROUP];
            last[..rest.len()].copy_from_slice(rest);
            *to = measure(&last);
        }
        1.0
    }

    #[inline(always)]
    fn put_row(rows: &mut RowGroups, row: usize, unit: &Group) {
        for (to, four) in rows.numbers.iter_mut().zip(unit.numbers) {
            to[row] = four;
        }
        rows.shifts[row] =
            unit.numbers.as_flattened().iter().map(|&number| i32::from(number)).sum::<i32>() * i32::from(SHIFT);
        rows.scales[row] = unit.scale;
    }

    #[inline(always)]
    fn put_weights(weights: &mut WeightGroups, output: usize, unit: &Group) {
        for (to, four) in weights.numbers.iter_mut().zip(unit.numbers) {
            to[output] = four.map(|number| number.cast_unsigned().wrapping_add(SHIFT));
        }
        weights.scales[output] = unit.scale;
    }

    #[inline(always)]
    fn multiply<S: Simd, const R: usize>(
        simd: S,
        dots: Dots,
        x: &[RowGroups],
        weights: &[WeightGroups],
        ahead: &[WeightGroups],
        host: &impl Host,
    ) -> [[f32; OUTPUTS]; R] {
        // Known when this is compiled: no test is left.
        #[cfg(target_arch = "x86_64")]
        if let Some(vnni) = dots {
            return multiply_by_vnni(vnni, x, weights, ahead, host);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(&simd) = (&simd as &dyn Any).downcast_ref::<pulp::x86::V3>() {
            return multiply_by_avx2(simd, x, weights, ahead, host);
        }
        let _ = (simd, dots);
        let mut fetches = Fetches::new(ahead, x.len());
        let mut sums = [[0.0_f32; OUTPUTS]; R];
        for (x, weights) in x.iter().zip(weights) {
            fetches.fetch(host);
            for (row, sums) in sums.iter_mut().enumerate() {
                let mut whole = [-x.shifts[row]; OUTPUTS];
                for (x, weights) in x.numbers.iter().zip(&weights.numbers) {
                    let x = x[row].map(i32::from);
                    for (whole, weight) in whole.iter_mut().zip(weights) {
                        for (x, weight) in x.iter().zip(weight) {
                            *whole += x * i32::from(*weight);
                        }
                    }
                }
                for ((sum, whole), scale) in sums.iter_mut().zip(whole).zip(weights.scales) {
                    #[expect(clippy::cast_precision_loss, reason = "as the vector instruction does it")]
                    let whole = whole as f32;
                    *sum = whole.mul_add(x.scales[row] * scale, *sum);
                }
            }
        }
        sums
    }
}

#[inline(always)]
fn measure(numbers: &[f32; GROUP]) -> Group {
    let (most, zero) = greatest(numbers);
    if most < 1e-30 || zero.is_nan() {
        // So small numbers add nothing to anything, and their inverse might not fit.
        return Group { scale: zero, ..Group::default() };
    }
    let factor = MOST / most;
    #[expect(clippy::cast_possible_truncation, reason = "the lowest bits are what is wanted")]
    let whole = numbers.map(|x| (x * factor + ROUNDER).to_bits() as i8);
    Group { numbers: pulp::cast(whole), scale: most / MOST }
}

/// 6 times 2 vectors of whole sums and as many of float32: with what is multiplied 27 of 32 registers.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn multiply_by_vnni<const R: usize>(
    simd: Vnni,
    x: &[RowGroups],
    weights: &[WeightGroups],
    ahead: &[WeightGroups],
    host: &impl Host,
) -> [[f32; OUTPUTS]; R] {
    let mut fetches = Fetches::new(ahead, x.len());
    let mut sums = [[simd.avx512f._mm512_setzero_ps(); 2]; R];
    for (x, weights) in x.iter().zip(weights) {
        fetches.fetch(host);
        let mut whole = [[simd.avx512f._mm512_setzero_si512(); 2]; R];
        for (whole, shift) in whole.iter_mut().zip(x.shifts) {
            *whole = [simd.avx512f._mm512_set1_epi32(-shift); 2];
        }
        for (x, weights) in x.numbers.iter().zip(&weights.numbers) {
            let halves: [[[u8; 4]; 16]; 2] = pulp::cast(*weights);
            let halves: [__m512i; 2] = halves.map(pulp::cast);
            for (whole, &four) in whole.iter_mut().zip(x) {
                let four = simd.avx512f._mm512_set1_epi32(pulp::cast(four));
                for (whole, weights) in whole.iter_mut().zip(halves) {
                    *whole = simd.add_products(*whole, weights, four);
                }
            }
        }
        let halves: [[f32; 16]; 2] = pulp::cast(weights.scales);
        let halves = halves.map(pulp::cast);
        for ((sums, whole), &scale) in sums.iter_mut().zip(whole).zip(&x.scales) {
            let scale = simd.avx512f._mm512_set1_ps(scale);
            for ((sum, whole), weights) in sums.iter_mut().zip(whole).zip(halves) {
                let scale = simd.avx512f._mm512_mul_ps(scale, weights);
                *sum = simd.avx512f._mm512_fmadd_ps(simd.avx512f._mm512_cvtepi32_ps(whole), scale, *sum);
            }
        }
    }
    sums.map(pulp::cast)
}

/// 6 vectors of whole sums; those in float32 wait in memory. The instruction for whole numbers of 8 bits adds two products
/// in 16 bits, where those of 8 bits need not fit: weights are multiplied by halves, of 4 bits each.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn multiply_by_avx2<const R: usize>(
    simd: pulp::x86::V3,
    x: &[RowGroups],
    weights: &[WeightGroups],
    ahead: &[WeightGroups],
    host: &impl Host,
) -> [[f32; OUTPUTS]; R] {
    let (avx, avx2) = (simd.avx, simd.avx2);
    let mut fetches = Fetches::new(ahead, x.len());
    let mut sums = [[[0.0; 8]; OUTPUTS / 8]; R];
    let (low, ones, sixteens) = (avx._mm256_set1_epi8(15), avx._mm256_set1_epi16(1), avx._mm256_set1_epi16(16));
    for (x, weights) in x.iter().zip(weights) {
        fetches.fetch(host);
        for part in 0..OUTPUTS / 8 {
            let mut whole = [avx._mm256_setzero_si256(); R];
            for (x, weights) in x.numbers.iter().zip(&weights.numbers) {
                let eights: [[[u8; 4]; 8]; OUTPUTS / 8] = pulp::cast(*weights);
                let weights = pulp::cast(eights[part]);
                let lows = avx2._mm256_and_si256(weights, low);
                let highs = avx2._mm256_and_si256(avx2._mm256_srli_epi16::<4>(weights), low);
                for (whole, &four) in whole.iter_mut().zip(x) {
                    let four = avx._mm256_set1_epi32(pulp::cast(four));
                    let lows = avx2._mm256_madd_epi16(avx2._mm256_maddubs_epi16(lows, four), ones);
                    let highs = avx2._mm256_madd_epi16(avx2._mm256_maddubs_epi16(highs, four), sixteens);
                    *whole = avx2._mm256_add_epi32(*whole, avx2._mm256_add_epi32(lows, highs));
                }
            }
            let scales: [[f32; 8]; OUTPUTS / 8] = pulp::cast(weights.scales);
            for (row, (sums, whole)) in sums.iter_mut().zip(whole).enumerate() {
                let whole = avx2._mm256_sub_epi32(whole, avx._mm256_set1_epi32(x.shifts[row]));
                let whole: [f32; 8] = pulp::cast(avx._mm256_cvtepi32_ps(whole));
                for ((sum, whole), scale) in sums[part].iter_mut().zip(whole).zip(scales[part]) {
                    *sum = whole.mul_add(x.scales[row] * scale, *sum);
                }
            }
        }
    }
    sums.map(pulp::cast)
}
