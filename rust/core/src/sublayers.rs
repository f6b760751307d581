//! What follows the attention in a layer of BERT's kind, in one call: linear layer, residual and norm, then two linear
//! layers with an activation between them, residual and norm.
//!
//! The products are those of packed weights. In between, a batch of one short text has so few numbers that it takes
//! longer to come back from here, find memory and be called again than to go through them.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::cell::Cell;

use pulp::{Simd, WithSimd};

use crate::error::{LinearError, SublayersError};
use crate::host::{Host, Pieces, run_on, worthwhile};
use crate::number::{Number, round_all, widen_all};
use crate::packed::PackedWeights;
use crate::product::Activation;
use crate::vectors::{add, widest};
use crate::whole::{Int8Weights, Int16Weights};

mod gated;

pub use gated::{GatedSublayers, gate};

/// Rows for each thread that go all the way before the next do, about: as many as a packed product goes through for each
/// panel. What stands between the products is then 2 MiB a thread for a layer of base size.
const BLOCK: usize = 132;
/// Rows that a thread norms at a time.
const NORMED: usize = 8;
/// What norming a number costs, in multiply-adds.
const COST: u128 = 8;
/// Most numbers whose memory is kept for the next call: 16 MiB.
const KEPT: usize = 1 << 22;

/// Packed weights of any kind.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// As they are.
    Float32(&'a PackedWeights),
    /// In whole numbers of 16 bits.
    Int16(&'a Int16Weights),
    /// In whole numbers of 8 bits.
    Int8(&'a Int8Weights),
}

/// A linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Dense<'a> {
    /// Of the products.
    pub weights: Weights<'a>,
    /// A number for each output.
    pub bias: Option<&'a [f32]>,
}

/// A layer norm (Ba, Kiros & Hinton 2016), or one by the root mean square (Zhang & Sennrich 2019).
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Factor of each number of a row.
    pub weight: &'a [f32],
    /// What is added to it.
    pub bias: Option<&'a [f32]>,
    /// What is added to the variance.
    pub epsilon: f32,
    /// Whether the mean is taken off first.
    pub is_centred: bool,
}

/// The linear layers and norms of a layer, but for those that go into its attention.
#[derive(Clone, Copy, Debug)]
pub struct Sublayers<'a> {
    /// Of what the attention gives.
    pub attention_output: Dense<'a>,
    /// Of that and the residual.
    pub attention_norm: Norm<'a>,
    /// To the inner width.
    pub intermediate: Dense<'a>,
    /// Of the inner numbers.
    pub activation: Activation,
    /// Back to the width of the layer.
    pub output: Dense<'a>,
    /// Of that and the residual.
    pub output_norm: Norm<'a>,
}

impl Sublayers<'_> {
    /// Fills `out`, (rows, width), from what the attention gives and what came into the layer, both row-major.
    ///
    /// What becomes of a row depends on that row alone, to the last bit, whatever the others and the number of threads.
    ///
    /// # Errors
    ///
    /// When the lengths do not fit each other.
    pub fn apply(
        &self,
        attended: &[f32],
        hidden: &[f32],
        out: &mut [f32],
        threads: usize,
        host: &impl Host,
    ) -> Result<(), SublayersError> {
        let (from, width, inner) = self.widths()?;
        let rows = rows_of(attended, from, [("hidden", hidden.len()), ("out", out.len())], width)?;
        if out.is_empty() {
            return Ok(());
        }
        let rows = block_of(rows, threads);
        let mut scratch = Scratch::of(rows * (width + inner));
        let inputs = attended.chunks(rows * from).zip(hidden.chunks(rows * width));
        for ((attended, hidden), out) in inputs.zip(out.chunks_mut(rows * width)) {
            let (normed, rest) = scratch.0.split_at_mut(out.len());
            let between = &mut rest[..out.len() / width * inner];
            self.attention_output.apply(attended, Activation::Identity, normed, threads, host)?;
            self.attention_norm.apply(normed, hidden, threads, host);
            self.intermediate.apply(normed, self.activation, between, threads, host)?;
            self.output.apply(between, Activation::Identity, out, threads, host)?;
            self.output_norm.apply(out, normed, threads, host);
        }
        Ok(())
    }

    /// Numbers of a row that come from the attention, that the layer has, and between its last two products.
    fn widths(&self) -> Result<(usize, usize, usize), SublayersError> {
        let [attention, intermediate, output] =
            [self.attention_output, self.intermediate, self.output].map(|dense| dense.weights);
        let (width, inner) = (attention.outputs(), intermediate.outputs());
        expect_widths([
            ("intermediate's inputs", Some(intermediate.inputs()), width),
            ("output's inputs", Some(output.inputs()), inner),
            ("output's outputs", Some(output.outputs()), width),
            ("attention_norm's weight", Some(self.attention_norm.weight.len()), width),
            ("attention_norm's bias", self.attention_norm.bias.map(<[f32]>::len), width),
            ("output_norm's weight", Some(self.output_norm.weight.len()), width),
            ("output_norm's bias", self.output_norm.bias.map(<[f32]>::len), width),
            ("attention_output's bias", self.attention_output.bias.map(<[f32]>::len), width),
            ("intermediate's bias", self.intermediate.bias.map(<[f32]>::len), inner),
            ("output's bias", self.output.bias.map(<[f32]>::len), width),
        ])?;
        Ok((attention.inputs(), width, inner))
    }
}

/// Refuses a number that is there and another than what is expected.
fn expect_widths<const COUNT: usize>(
    widths: [(&'static str, Option<usize>, usize); COUNT],
) -> Result<(), SublayersError> {
    for (name, values, expected) in widths {
        if let Some(values) = values.filter(|&values| values != expected) {
            return Err(SublayersError::Width { name, values, expected });
        }
    }
    Ok(())
}

/// Rows of `from` numbers that the attention gives; what is beside them has as many, of `width`.
fn rows_of(
    attended: &[f32],
    from: usize,
    beside: [(&'static str, usize); 2],
    width: usize,
) -> Result<usize, SublayersError> {
    if !attended.len().is_multiple_of(from) {
        return Err(LinearError::Rows { values: attended.len(), inputs: from }.into());
    }
    let rows = attended.len() / from;
    for (name, values) in beside {
        if values as u128 != rows as u128 * width as u128 {
            return Err(SublayersError::Rows { name, values, rows, width });
        }
    }
    Ok(rows)
}

/// Rows that go all the way before the next do: all blocks are of nearly one size.
fn block_of(rows: usize, threads: usize) -> usize {
    rows.div_ceil(rows.div_ceil(BLOCK * threads.clamp(1, 64)))
}

impl Weights<'_> {
    /// Length of a row that goes in.
    pub fn inputs(self) -> usize {
        match self {
            Self::Float32(weights) => weights.inputs(),
            Self::Int16(weights) => weights.inputs(),
            Self::Int8(weights) => weights.inputs(),
        }
    }

    /// Numbers that a row becomes.
    pub fn outputs(self) -> usize {
        match self {
            Self::Float32(weights) => weights.outputs(),
            Self::Int16(weights) => weights.outputs(),
            Self::Int8(weights) => weights.outputs(),
        }
    }
}

impl Dense<'_> {
    fn apply(
        self,
        x: &[f32],
        activation: Activation,
        out: &mut [f32],
        threads: usize,
        host: &impl Host,
    ) -> Result<(), LinearError> {
        match self.weights {
            Weights::Float32(weights) => weights.apply(x, self.bias, activation, out, threads, host),
            Weights::Int16(weights) => weights.apply(x, self.bias, activation, out, threads, host),
            Weights::Int8(weights) => weights.apply(x, self.bias, activation, out, threads, host),
        }
    }
}

impl Norm<'_> {
    /// Fills `out` with normed rows, each rounded once.
    ///
    /// # Errors
    ///
    /// When the lengths do not fit each other.
    pub fn fill<N: Number>(
        &self,
        x: &[N],
        out: &mut [N],
        threads: usize,
        host: &impl Host,
    ) -> Result<(), SublayersError> {
        let width = self.weight.len();
        expect_widths([("norm's bias", self.bias.map(<[f32]>::len), width), ("out", Some(out.len()), x.len())])?;
        if width == 0 || !x.len().is_multiple_of(width) {
            return Err(LinearError::Rows { values: x.len(), inputs: width }.into());
        }
        let threads = worthwhile(host, x.len() as u128 * COST, threads);
        let pieces: Pieces<_> = out.chunks_mut(NORMED * width).zip(x.chunks(NORMED * width)).collect();
        let work = || widest().dispatch(Filler { norm: *self, pieces: &pieces });
        run_on(host, threads.min(pieces.len()), &work);
        Ok(())
    }

    /// Adds the residual to rows and norms them.
    fn apply(&self, x: &mut [f32], residual: &[f32], threads: usize, host: &impl Host) {
        let width = self.weight.len().max(1);
        let threads = worthwhile(host, x.len() as u128 * COST, threads);
        let pieces: Pieces<_> = x.chunks_mut(NORMED * width).zip(residual.chunks(NORMED * width)).collect();
        let work = || widest().dispatch(Normer { norm: *self, pieces: &pieces });
        run_on(host, threads.min(pieces.len()), &work);
    }
}

/// One thread's share of the norming: rows, as long as there are any.
struct Normer<'a, 'x> {
    norm: Norm<'a>,
    pieces: &'a Pieces<(&'x mut [f32], &'x [f32])>,
}

impl WithSimd for Normer<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.norm.weight.len().max(1);
        while let Some(mut piece) = self.pieces.take() {
            let (x, residual) = &mut *piece;
            for (x, residual) in x.chunks_exact_mut(width).zip(residual.chunks_exact(width)) {
                add(simd, x, residual);
                norm_row(simd, &self.norm, x);
            }
        }
    }
}

/// The same where rows go elsewhere, and nothing is added.
struct Filler<'a, 'x, N> {
    norm: Norm<'a>,
    pieces: &'a Pieces<(&'x mut [N], &'x [N])>,
}

impl<N: Number> WithSimd for Filler<'_, '_, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.norm.weight.len().max(1);
        let mut row = vec![0.0; width];
        while let Some(mut piece) = self.pieces.take() {
            let (out, x) = &mut *piece;
            for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                widen_all(x, &mut row);
                norm_row(simd, &self.norm, &mut row);
                round_all(&row, out);
            }
        }
    }
}

/// Norms a row in place: less its mean, where the norm is centred, over the root of what is then its mean square.
#[inline(always)]
fn norm_row<S: Simd>(simd: S, norm: &Norm<'_>, x: &mut [f32]) {
    #[expect(clippy::cast_precision_loss, reason = "rows are not that long")]
    let count = x.len() as f32;
    let (whole, rest) = S::as_mut_simd_f32s(x);
    let mut mean = 0.0;
    if norm.is_centred {
        let sum = whole.iter().fold(simd.splat_f32s(0.0), |sum, x| simd.add_f32s(sum, *x));
        mean = (simd.reduce_sum_f32s(sum) + rest.iter().sum::<f32>()) / count;
    }
    // Twice through the row: the mean of squares less the square of the mean would lose what is near the mean.
    let (means, mut squares, mut rest_squares) = (simd.splat_f32s(mean), simd.splat_f32s(0.0), 0.0);
    for x in &mut *whole {
        *x = simd.sub_f32s(*x, means);
        squares = simd.mul_add_f32s(*x, *x, squares);
    }
    for x in &mut *rest {
        *x -= mean;
        rest_squares += *x * *x;
    }
    let variance = (simd.reduce_sum_f32s(squares) + rest_squares) / count;
    let scale = (variance + norm.epsilon).sqrt().recip();
    let scales = simd.splat_f32s(scale);
    let (weights, rest_weights) = S::as_simd_f32s(norm.weight);
    let Some(bias) = norm.bias else {
        for (x, weight) in whole.iter_mut().zip(weights) {
            *x = simd.mul_f32s(simd.mul_f32s(*x, scales), *weight);
        }
        for (x, weight) in rest.iter_mut().zip(rest_weights) {
            *x = *x * scale * weight;
        }
        return;
    };
    let (biases, rest_biases) = S::as_simd_f32s(bias);
    for ((x, weight), bias) in whole.iter_mut().zip(weights).zip(biases) {
        *x = simd.mul_add_f32s(simd.mul_f32s(*x, scales), *weight, *bias);
    }
    for ((x, weight), bias) in rest.iter_mut().zip(rest_weights).zip(rest_biases) {
        *x = *x * scale * weight + bias;
    }
}

/// What stands between the products, in memory that stays with the thread unless it is much.
struct Scratch(Vec<f32>);

impl Scratch {
    fn of(count: usize) -> Self {
        let mut numbers = SCRATCH.take();
        let more = count.saturating_sub(numbers.len());
        numbers.reserve_exact(more);
        numbers.resize(numbers.len() + more, 0.0);
        Self(numbers)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.len() <= KEPT {
            SCRATCH.set(std::mem::take(&mut self.0));
        }
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

#[cfg(test)]
mod formula;
#[cfg(test)]
mod tests;
