//! The same of a layer of `ModernBERT`'s kind: linear layer and residual, then norm, a linear layer, of whose numbers one
//! half is multiplied with what the activation makes of the other (Shazeer 2020), linear layer and residual.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::{Simd, WithSimd};

use super::{COST, Dense, NORMED, Norm, Scratch, block_of, expect_widths, rows_of};
use crate::error::SublayersError;
use crate::functions::gelu;
use crate::host::{Host, Pieces, run_on, worthwhile};
use crate::product::Activation;
use crate::vectors::{add, widest};

/// Numbers that a thread adds at a time.
const ADDED: usize = 1 << 13;

/// The linear layers and norms of a layer, but for those that go into its attention.
#[derive(Clone, Copy, Debug)]
pub struct GatedSublayers<'a> {
    /// Of what the attention gives.
    pub attention_output: Dense<'a>,
    /// Of that and the residual together.
    pub norm: Norm<'a>,
    /// To twice the inner width: what is activated, then what it is multiplied with.
    pub intermediate: Dense<'a>,
    /// Of the first half of the inner numbers.
    pub activation: Activation,
    /// Back to the width of the layer.
    pub output: Dense<'a>,
}

impl GatedSublayers<'_> {
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
        let mut scratch = Scratch::of(rows * (width + 3 * inner));
        let inputs = attended.chunks(rows * from).zip(hidden.chunks(rows * width));
        for ((attended, hidden), out) in inputs.zip(out.chunks_mut(rows * width)) {
            let rows = out.len() / width;
            let (beside, rest) = scratch.0.split_at_mut(rows * width);
            let (between, rest) = rest.split_at_mut(rows * 2 * inner);
            let gated = &mut rest[..rows * inner];
            self.attention_output.apply(attended, Activation::Identity, out, threads, host)?;
            beside.copy_from_slice(out);
            self.norm.apply(beside, hidden, threads, host);
            add_all(out, hidden, threads, host);
            self.intermediate.apply(beside, Activation::Identity, between, threads, host)?;
            self.gate(between, gated, threads, host);
            self.output.apply(gated, Activation::Identity, beside, threads, host)?;
            add_all(out, beside, threads, host);
        }
        Ok(())
    }

    /// Numbers of a row that come from the attention, that the layer has, and that its last product takes.
    fn widths(&self) -> Result<(usize, usize, usize), SublayersError> {
        let [attention, intermediate, output] =
            [self.attention_output, self.intermediate, self.output].map(|dense| dense.weights);
        let (width, inner) = (attention.outputs(), output.inputs());
        expect_widths([
            ("intermediate's inputs", Some(intermediate.inputs()), width),
            ("intermediate's outputs", Some(intermediate.outputs()), inner.saturating_mul(2)),
            ("output's outputs", Some(output.outputs()), width),
            ("norm's weight", Some(self.norm.weight.len()), width),
            ("norm's bias", self.norm.bias.map(<[f32]>::len), width),
            ("attention_output's bias", self.attention_output.bias.map(<[f32]>::len), width),
            ("intermediate's bias", self.intermediate.bias.map(<[f32]>::len), inner.saturating_mul(2)),
            ("output's bias", self.output.bias.map(<[f32]>::len), width),
        ])?;
        Ok((attention.inputs(), width, inner))
    }

    /// (rows, 2, inner) -> (rows, inner).
    fn gate(&self, between: &[f32], gated: &mut [f32], threads: usize, host: &impl Host) {
        let inner = self.output.weights.inputs().max(1);
        let threads = worthwhile(host, between.len() as u128 * COST, threads);
        let pieces: Pieces<_> = gated.chunks_mut(NORMED * inner).zip(between.chunks(NORMED * 2 * inner)).collect();
        let work = || widest().dispatch(Gater { activation: self.activation, inner, pieces: &pieces });
        run_on(host, threads.min(pieces.len()), &work);
    }
}

/// One thread's share of the gating: rows, as long as there are any.
struct Gater<'a, 'x> {
    activation: Activation,
    inner: usize,
    pieces: &'a Pieces<(&'x mut [f32], &'x [f32])>,
}

impl WithSimd for Gater<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        while let Some(mut piece) = self.pieces.take() {
            let (gated, between) = &mut *piece;
            for (to, row) in gated.chunks_exact_mut(self.inner).zip(between.chunks_exact(2 * self.inner)) {
                gate_row(simd, self.activation, row, to);
            }
        }
    }
}

#[inline(always)]
fn gate_row<S: Simd>(simd: S, activation: Activation, row: &[f32], to: &mut [f32]) {
    let (x, gates) = row.split_at(to.len());
    let ((x, rest_x), (gates, rest_gates)) = (S::as_simd_f32s(x), S::as_simd_f32s(gates));
    let (whole, rest) = S::as_mut_simd_f32s(to);
    for ((to, x), own) in whole.iter_mut().zip(x).zip(gates) {
        *to = gate(simd, activation, *x, *own);
    }
    if !rest.is_empty() {
        let last = gate(simd, activation, simd.partial_load_f32s(rest_x), simd.partial_load_f32s(rest_gates));
        simd.partial_store_f32s(rest, last);
    }
}

#[inline(always)]
fn gate<S: Simd>(simd: S, activation: Activation, x: S::f32s, gate: S::f32s) -> S::f32s {
    match activation {
        Activation::Identity => simd.mul_f32s(x, gate),
        Activation::Gelu => simd.mul_f32s(gelu(simd, x), gate),
    }
}

/// Adds numbers to others.
fn add_all(to: &mut [f32], from: &[f32], threads: usize, host: &impl Host) {
    let threads = worthwhile(host, to.len() as u128, threads);
    let pieces: Pieces<_> = to.chunks_mut(ADDED).zip(from.chunks(ADDED)).collect();
    let work = || widest().dispatch(Adder { pieces: &pieces });
    run_on(host, threads.min(pieces.len()), &work);
}

/// One thread's share of the adding.
struct Adder<'a, 'x> {
    pieces: &'a Pieces<(&'x mut [f32], &'x [f32])>,
}

impl WithSimd for Adder<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        while let Some(mut piece) = self.pieces.take() {
            let (to, from) = &mut *piece;
            add(simd, to, from);
        }
    }
}

#[cfg(test)]
mod tests;
