//! A few rows times a matrix of weights, as it lies: what one short text asks of every linear layer.
//!
//! Reading the weights is then half of the work, so that they are read once, and nothing is packed. A tile of a few rows
//! and a few rows of weights keeps its sums in registers; while all rows go past some weights, the next are fetched.
//! Long rows are cut into blocks, so that all rows' part of a block stays in the second-level cache.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

#[cfg(target_arch = "x86_64")]
use std::any::Any;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use pulp::{Simd, WithSimd};

use crate::error::LinearError;
use crate::host::{self, Cache, Host, Pieces, run_on, worthwhile};
use crate::product::{Activation, Shape};
use crate::vectors::widest;

/// 3 times 4 sums, 3 numbers of the rows and 1 of the weights: the 16 registers that AVX2 has.
const ROWS: usize = 3;
const OUTPUTS: usize = 4;
/// With twice as many registers AVX-512 reads the rows half as often from the second-level cache: 2 times 8 sums, which
/// are summed up all at once.
const ROWS_OF_AVX512: usize = 2;
const OUTPUTS_OF_AVX512: usize = 8;
/// Most tiles that a thread takes at a time.
const TILES: usize = 16;
/// Most numbers of a row that are summed before the next rows are taken up.
const BLOCK: usize = 1024;
/// Numbers that one fetch brings.
const LINE: usize = host::LINE / size_of::<f32>();
/// Numbers that a thread activates at a time, and the multiply-adds that each of them is worth.
const ACTIVATED: usize = 4096;
const ACTIVATION: u128 = 32;

/// A linear layer and what goes in, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// (rows, `inputs`).
    pub x: &'a [f32],
    /// (`outputs`, `inputs`).
    pub weight: &'a [f32],
    /// (`outputs`,).
    pub bias: Option<&'a [f32]>,
    /// Length of a row.
    pub inputs: usize,
    /// Numbers that a row becomes.
    pub outputs: usize,
    /// Of the sums.
    pub activation: Activation,
}

impl Linear<'_> {
    /// `activation(x @ weight.T + bias)`, (rows, `outputs`).
    ///
    /// What becomes of a row depends on that row alone, to the last bit, whatever the others and the number of threads.
    ///
    /// # Errors
    ///
    /// When the lengths do not fit each other, or rows are empty.
    pub fn apply(self, threads: usize, host: &impl Host) -> Result<Vec<f32>, LinearError> {
        let Self { x, weight, bias, inputs, outputs, activation } = self;
        let rows = Shape::of(weight, outputs, inputs)?.rows(x, bias)?;
        let threads = worthwhile(host, weight.len() as u128 * rows as u128, threads);
        // Threads write columns of one matrix: atomics are plain stores here, and need no trust.
        let mut out = Vec::new();
        out.resize_with(rows * outputs, AtomicU32::default);
        let tiles = outputs.div_ceil(OUTPUTS).div_ceil(4 * threads).clamp(1, TILES);
        // What AVX-512 does not take eight at a time it takes one by one: none of a piece is to be left over.
        let tiles = tiles.next_multiple_of(OUTPUTS_OF_AVX512 / OUTPUTS);
        let next = AtomicUsize::new(0);
        let work = || widest().dispatch(Worker { layer: &self, out: &out, piece: tiles * OUTPUTS, next: &next, host });
        run_on(host, threads, &work);
        let mut out = out.into_iter().map(|number| f32::from_bits(number.into_inner())).collect::<Vec<_>>();
        if activation != Activation::Identity {
            activate(activation, &mut out, threads, host);
        }
        Ok(out)
    }
}

/// What becomes of each number.
fn activate(activation: Activation, numbers: &mut [f32], threads: usize, host: &impl Host) {
    let threads = worthwhile(host, numbers.len() as u128 * ACTIVATION, threads);
    let pieces = numbers.chunks_mut(ACTIVATED).collect();
    run_on(host, threads, &|| widest().dispatch(Activator { activation, pieces: &pieces }));
}

/// One thread's share of the activation.
struct Activator<'a, 'out> {
    activation: Activation,
    pieces: &'a Pieces<&'out mut [f32]>,
}

impl WithSimd for Activator<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        while let Some(mut piece) = self.pieces.take() {
            let (whole, rest) = S::as_mut_simd_f32s(&mut piece);
            for x in whole {
                *x = self.activation.of(simd, *x);
            }
            if !rest.is_empty() {
                let activated = self.activation.of(simd, simd.partial_load_f32s(rest));
                simd.partial_store_f32s(rest, activated);
            }
        }
    }
}

/// One thread's share: pieces of the outputs, as long as there are any.
struct Worker<'a, H> {
    layer: &'a Linear<'a>,
    out: &'a [AtomicU32],
    /// Outputs of a piece.
    piece: usize,
    next: &'a AtomicUsize,
    host: &'a H,
}

impl<H: Host> WithSimd for Worker<'_, H> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let outputs = self.layer.outputs;
        loop {
            let first = self.next.fetch_add(self.piece, Ordering::Relaxed);
            if first >= outputs {
                return;
            }
            let last = outputs.min(first + self.piece);
            let inputs = self.layer.inputs;
            let block = inputs.div_ceil(inputs.div_ceil(BLOCK)).next_multiple_of(LINE);
            for begin in (0..inputs).step_by(block) {
                let part = begin..inputs.min(begin + block);
                if S::F32_LANES == 16 {
                    self.part::<S, ROWS_OF_AVX512, OUTPUTS_OF_AVX512>(simd, first..last, part);
                } else {
                    self.part::<S, ROWS, OUTPUTS>(simd, first..last, part);
                }
            }
        }
    }
}

impl<H: Host> Worker<'_, H> {
    /// All rows times the weights of some outputs, some numbers of each.
    #[inline(always)]
    fn part<S: Simd, const R: usize, const O: usize>(&self, simd: S, outputs: Range<usize>, part: Range<usize>) {
        let mut at = outputs.start;
        while at + O <= outputs.end {
            self.columns::<S, R, O>(simd, at, part.clone(), at + O..outputs.end.min(at + 2 * O));
            at += O;
        }
        for at in at..outputs.end {
            self.columns::<S, R, 1>(simd, at, part.clone(), at..at);
        }
    }

    /// All rows times the weights of `O` outputs, some numbers of each, while those of the following ones are fetched.
    #[inline(always)]
    fn columns<S: Simd, const MOST: usize, const O: usize>(
        &self,
        simd: S,
        at: usize,
        part: Range<usize>,
        following: Range<usize>,
    ) {
        let rows = self.layer.x.len() / self.layer.inputs;
        let w = std::array::from_fn(|own| self.weights(at + own, part.clone()));
        let step = (part.len() / rows.div_ceil(MOST).max(1)).next_multiple_of(LINE).max(LINE); // in each tile some lines
        for (tile, row) in (0..rows).step_by(MOST).enumerate() {
            for output in following.clone() {
                let ahead = self.weights(output, part.clone());
                for line in ahead.get(tile * step..).unwrap_or_default().iter().take(step).step_by(LINE) {
                    self.host.prefetch(line, Cache::Second);
                }
            }
            match rows - row {
                1 => self.tile::<S, 1, O>(simd, row, at, w, part.clone()),
                2 if MOST > 2 => self.tile::<S, 2, O>(simd, row, at, w, part.clone()),
                _ => self.tile::<S, MOST, O>(simd, row, at, w, part.clone()),
            }
        }
    }

    /// Some numbers of an output's weights.
    #[inline(always)]
    fn weights(&self, output: usize, part: Range<usize>) -> &[f32] {
        &self.layer.weight[output * self.layer.inputs..][part]
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const O: usize>(
        &self,
        simd: S,
        row: usize,
        at: usize,
        w: [&[f32]; O],
        part: Range<usize>,
    ) {
        let Linear { x, bias, inputs, outputs, .. } = *self.layer;
        let is_first = part.start == 0;
        let x = std::array::from_fn::<_, R, _>(|own| &x[(row + own) * inputs..][part.clone()]);
        for (own, sums) in products(simd, x, w).into_iter().enumerate() {
            let of_row = &self.out[(row + own) * outputs + at..][..O];
            for (index, (to, sum)) in of_row.iter().zip(sums).enumerate() {
                let before = if is_first {
                    bias.map_or(0.0, |bias| bias[at + index])
                } else {
                    f32::from_bits(to.load(Ordering::Relaxed))
                };
                to.store((before + sum).to_bits(), Ordering::Relaxed);
            }
        }
    }
}

/// Every row times every row of weights.
#[inline(always)]
fn products<S: Simd, const R: usize, const O: usize>(simd: S, x: [&[f32]; R], w: [&[f32]; O]) -> [[f32; O]; R] {
    let (x, w) = (x.map(S::as_simd_f32s), w.map(S::as_simd_f32s));
    let steps = x[0].0.len();
    // Slices of one known length each: no index below needs a check.
    let (x, x_rest) = (x.map(|(whole, _)| &whole[..steps]), x.map(|(_, rest)| rest));
    let (w, w_rest) = (w.map(|(whole, _)| &whole[..steps]), w.map(|(_, rest)| rest));
    let mut sums = [[simd.splat_f32s(0.0); O]; R];
    for at in 0..steps {
        let numbers = x.map(|row| row[at]);
        for output in 0..O {
            let weight = w[output][at];
            for row in 0..R {
                sums[row][output] = simd.mul_add_e_f32s(numbers[row], weight, sums[row][output]);
            }
        }
    }
    if !x_rest[0].is_empty() {
        let numbers = x_rest.map(|rest| simd.partial_load_f32s(rest));
        for output in 0..O {
            let weight = simd.partial_load_f32s(w_rest[output]);
            for row in 0..R {
                sums[row][output] = simd.mul_add_e_f32s(numbers[row], weight, sums[row][output]);
            }
        }
    }
    sum_up(simd, sums)
}

/// The sum of the numbers in each vector, in the same order for each.
#[inline(always)]
fn sum_up<S: Simd, const R: usize, const O: usize>(simd: S, vectors: [[S::f32s; O]; R]) -> [[f32; O]; R] {
    // Known when this is compiled: no test is left.
    #[cfg(target_arch = "x86_64")]
    if let Some(&avx512) = (&simd as &dyn Any).downcast_ref::<pulp::x86::V4>()
        && R * O <= 16
    {
        let mut all = [avx512.avx512f._mm512_setzero_ps(); 16];
        for (to, vector) in all.iter_mut().zip(vectors.as_flattened()) {
            let vector: &pulp::f32x16 = (vector as &dyn Any).downcast_ref().expect("vectors of AVX-512 are of 16");
            *to = pulp::cast(*vector);
        }
        let sums = sum_up_sixteen(avx512, all);
        let mut of_rows = [[0.0; O]; R];
        for (to, sum) in of_rows.as_flattened_mut().iter_mut().zip(sums) {
            *to = sum;
        }
        return of_rows;
    }
    vectors.map(|of_row| of_row.map(|sum| simd.reduce_sum_f32s(sum)))
}

/// Half of the numbers go to the place of the other half and are added there, four times over, of two vectors each time:
/// with 30 shuffles in place of the 64 that one after the other would take.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sum_up_sixteen(simd: pulp::x86::V4, vectors: [std::arch::x86_64::__m512; 16]) -> [f32; 16] {
    let simd = simd.avx512f;
    // No `array::from_fn`, which would not be inlined.
    let lanes = |a, b| simd._mm512_add_ps(simd._mm512_unpacklo_ps(a, b), simd._mm512_unpackhi_ps(a, b));
    let pairs = |a, b| {
        let [a, b] = [simd._mm512_castps_pd(a), simd._mm512_castps_pd(b)];
        let [low, high] = [simd._mm512_unpacklo_pd(a, b), simd._mm512_unpackhi_pd(a, b)];
        simd._mm512_add_ps(simd._mm512_castpd_ps(low), simd._mm512_castpd_ps(high))
    };
    let [v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15] = vectors;
    let four = [
        pairs(lanes(v0, v1), lanes(v2, v3)),
        pairs(lanes(v4, v5), lanes(v6, v7)),
        pairs(lanes(v8, v9), lanes(v10, v11)),
        pairs(lanes(v12, v13), lanes(v14, v15)),
    ];
    // In each quarter of a vector now the sums of four vectors' numbers there; what is left is to add the quarters.
    let quarters =
        |a, b| simd._mm512_add_ps(simd._mm512_shuffle_f32x4::<0x88>(a, b), simd._mm512_shuffle_f32x4::<0xDD>(a, b));
    pulp::cast(quarters(quarters(four[0], four[1]), quarters(four[2], four[3])))
}

#[cfg(test)]
mod tests;
