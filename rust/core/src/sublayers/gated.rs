//! The same of a layer of `ModernBERT`'s or T5's kind: linear layer and residual, then norm, a linear layer, of whose
//! numbers one half is multiplied with what the activation makes of the other (Shazeer 2020), linear layer and residual.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::{Simd, WithSimd};

use super::{COST, Dense, NORMED, Norm, Scratch, block_of, expect_widths, rows_of};
use crate::error::SublayersError;
use crate::host::{Host, Pieces, run_on, worthwhile};
use crate::number::{Number, round_all, widen_all};
use crate::product::Activation;
use crate::vectors::{add, widest};

/// Numbers that a thread adds at a time.
const ADDED: usize = 1 << 13;
/// The same of those that it gates, and of those that are widened at a time, which is a whole number of vectors.
const GATED: usize = 1 << 12;
const WIDENED: usize = 1 << 8;

/// The linear layers and norms of a layer, but for those that go into its attention.
#[derive(Clone, Copy, Debug)]
pub struct GatedSublayers<'a> {
    /// Of what the attention gives.
    pub attention_output: Dense<'a>,
    /// Of that and the residual together.
    pub norm: Norm<'a>,
    /// To the inner width: what is activated; without `gates` to twice that, what it is multiplied with behind it.
    pub intermediate: Dense<'a>,
    /// What that is multiplied with, where it has a layer of its own.
    pub gates: Option<Dense<'a>>,
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
            if let Some(gates) = self.gates {
                let (first, second) = between.split_at_mut(rows * inner);
                self.intermediate.apply(beside, Activation::Identity, first, threads, host)?;
                gates.apply(beside, Activation::Identity, second, threads, host)?;
                gate(first, second, self.activation, gated, threads, host)?;
            } else {
                self.intermediate.apply(beside, Activation::Identity, between, threads, host)?;
                self.gate_halves(between, gated, threads, host);
            }
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
        let between = if self.gates.is_some() { inner } else { inner.saturating_mul(2) };
        expect_widths([
            ("intermediate's inputs", Some(intermediate.inputs()), width),
            ("intermediate's outputs", Some(intermediate.outputs()), between),
            ("gates' inputs", self.gates.map(|gates| gates.weights.inputs()), width),
            ("gates' outputs", self.gates.map(|gates| gates.weights.outputs()), inner),
            ("gates' bias", self.gates.and_then(|gates| gates.bias).map(<[f32]>::len), inner),
            ("output's outputs", Some(output.outputs()), width),
            ("norm's weight", Some(self.norm.weight.len()), width),
            ("norm's bias", self.norm.bias.map(<[f32]>::len), width),
            ("attention_output's bias", self.attention_output.bias.map(<[f32]>::len), width),
            ("intermediate's bias", self.intermediate.bias.map(<[f32]>::len), between),
            ("output's bias", self.output.bias.map(<[f32]>::len), width),
        ])?;
        Ok((attention.inputs(), width, inner))
    }

    /// (rows, 2, inner) -> (rows, inner).
    fn gate_halves(&self, between: &[f32], gated: &mut [f32], threads: usize, host: &impl Host) {
        let inner = self.output.weights.inputs().max(1);
        let threads = worthwhile(host, between.len() as u128 * COST, threads);
        let pieces: Pieces<_> = gated.chunks_mut(NORMED * inner).zip(between.chunks(NORMED * 2 * inner)).collect();
        let work = || widest().dispatch(HalvesGater { activation: self.activation, inner, pieces: &pieces });
        run_on(host, threads.min(pieces.len()), &work);
    }
}

/// Fills `out` with what the activation makes of numbers, times their gates, each rounded once.
///
/// # Errors
///
/// When there are not as many of each.
pub fn gate<N: Number>(
    x: &[N],
    gates: &[N],
    activation: Activation,
    out: &mut [N],
    threads: usize,
    host: &impl Host,
) -> Result<(), SublayersError> {
    expect_widths([("gates", Some(gates.len()), x.len()), ("out", Some(out.len()), x.len())])?;
    let threads = worthwhile(host, x.len() as u128 * COST, threads);
    let inputs = x.chunks(GATED).zip(gates.chunks(GATED));
    let pieces = out.chunks_mut(GATED).zip(inputs).map(|(out, (x, gates))| Gated { x, gates, out }).collect();
    let work = || widest().dispatch(Gater { activation, pieces: &pieces });
    run_on(host, threads.min(pieces.len()), &work);
    Ok(())
}

/// As many numbers of each.
struct Gated<'x, N> {
    x: &'x [N],
    gates: &'x [N],
    out: &'x mut [N],
}

/// One thread's share of the gating: numbers, as long as there are any.
struct Gater<'a, 'x, N> {
    activation: Activation,
    pieces: &'a Pieces<Gated<'x, N>>,
}

impl<N: Number> WithSimd for Gater<'_, '_, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        while let Some(mut piece) = self.pieces.take() {
            let Gated { x, gates, out } = &mut *piece;
            if let (Some(x), Some(gates), Some(out)) = (N::as_float32(x), N::as_float32(gates), N::as_float32_mut(out))
            {
                gate_row(simd, self.activation, x, gates, out);
                continue;
            }
            for ((x, gates), out) in x.chunks(WIDENED).zip(gates.chunks(WIDENED)).zip(out.chunks_mut(WIDENED)) {
                let mut wide = [[0.0; WIDENED]; 3];
                let [own, own_gates, gated] = wide.each_mut().map(|numbers| &mut numbers[..x.len()]);
                widen_all(x, own);
                widen_all(gates, own_gates);
                gate_row(simd, self.activation, own, own_gates, gated);
                round_all(gated, out);
            }
        }
    }
}

/// The same of rows that hold both: one half, then the other.
struct HalvesGater<'a, 'x> {
    activation: Activation,
    inner: usize,
    pieces: &'a Pieces<(&'x mut [f32], &'x [f32])>,
}

impl WithSimd for HalvesGater<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        while let Some(mut piece) = self.pieces.take() {
            let (out, between) = &mut *piece;
            for (to, row) in out.chunks_exact_mut(self.inner).zip(between.chunks_exact(2 * self.inner)) {
                let (x, gates) = row.split_at(self.inner);
                gate_row(simd, self.activation, x, gates, to);
            }
        }
    }
}

#[inline(always)]
fn gate_row<S: Simd>(simd: S, activation: Activation, x: &[f32], gates: &[f32], to: &mut [f32]) {
    let ((x, rest_x), (gates, rest_gates)) = (S::as_simd_f32s(x), S::as_simd_f32s(gates));
    let (whole, rest) = S::as_mut_simd_f32s(to);
    for ((to, x), own) in whole.iter_mut().zip(x).zip(gates) {
        *to = simd.mul_f32s(activation.of(simd, *x), *own);
    }
    if !rest.is_empty() {
        let last = activation.of(simd, simd.partial_load_f32s(rest_x));
        simd.partial_store_f32s(rest, simd.mul_f32s(last, simd.partial_load_f32s(rest_gates)));
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
