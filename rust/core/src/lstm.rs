//! A bidirectional LSTM over packed texts (Hochreiter & Schmidhuber 1997, gates as in torch), on a CPU.
//!
//! ```text
//! i, f, g, o = input[t] + weight h[t - 1] + bias
//! c[t] = sigmoid(f) c[t - 1] + sigmoid(i) tanh(g)
//! h[t] = sigmoid(o) tanh(c[t])
//! ```
//!
//! What the inputs make of the gates is a product over all words, which others compute. Left is a step a word, each of
//! which waits for the one before: all texts take theirs together, so that the weights are read once a step.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::cmp::Reverse;

use pulp::{Simd, WithSimd};

use crate::error::LstmError;
use crate::functions::{sigmoid, tanh};
use crate::host::{Host, Pieces, run_on, worthwhile};
use crate::panels::{Panels, Rows};
use crate::vectors::widest;

/// One of the two ways through a text.
#[derive(Clone, Copy, Debug)]
pub struct Direction<'a> {
    /// (N, 4 `width`): what each word's input makes of the gates.
    pub inputs: &'a [f32],
    /// (4 `width`, `width`), of the state before.
    pub weight: &'a [f32],
    /// (4 `width`,).
    pub bias: &'a [f32],
}

/// One layer, and what goes in.
#[derive(Clone, Copy, Debug)]
pub struct Lstm<'a> {
    /// From each text's first word, and from its last.
    pub directions: [Direction<'a>; 2],
    /// Numbers of a state.
    pub width: usize,
}

impl Lstm<'_> {
    /// The states at each word of packed texts, both directions side by side: (N, 2 `width`).
    ///
    /// What becomes of a text depends on that text alone, to the last bit, whatever the others and the number of threads.
    ///
    /// # Errors
    ///
    /// When the lengths do not fit each other, or states have no width.
    pub fn apply(self, lengths: &[i64], threads: usize, host: &impl Host) -> Result<Vec<f32>, LstmError> {
        let (mut texts, words) = self.check(lengths)?;
        let width = self.width;
        if words == 0 {
            return Ok(Vec::new());
        }
        let threads = worthwhile(host, (words * width) as u128 * 8 * width as u128, threads);
        texts.sort_by_key(|text| Reverse(text.length)); // stable
        let groups = threads.div_ceil(2).min(texts.len());
        let mut pieces = Vec::with_capacity(2 * groups);
        for group in 0..groups {
            // Long and short texts to each group.
            let own: Vec<Text> = texts.iter().copied().skip(group).step_by(groups).collect();
            for (backwards, direction) in [(false, self.directions[0]), (true, self.directions[1])] {
                pieces.push(Piece { direction, backwards, texts: own.clone(), states: Vec::new() });
            }
        }
        let pieces = Pieces::from_iter(pieces);
        let work = || widest().dispatch(Worker { pieces: &pieces, width });
        run_on(host, threads.min(pieces.len()), &work);
        let mut out = vec![0.0; 2 * words * width];
        for Piece { backwards, texts, states, .. } in pieces.into_inner() {
            let mut states = states.chunks_exact(width);
            for text in texts {
                let rows = out[2 * text.first * width..].chunks_exact_mut(2 * width).take(text.length);
                for (row, state) in rows.zip(states.by_ref()) {
                    row[usize::from(backwards) * width..][..width].copy_from_slice(state);
                }
            }
        }
        Ok(out)
    }

    /// The texts that have words, and the number of words.
    fn check(&self, lengths: &[i64]) -> Result<(Vec<Text>, usize), LstmError> {
        let mut total = 0_u128;
        for (text, &value) in lengths.iter().enumerate() {
            total += u128::from(u64::try_from(value).map_err(|_| LstmError::Length { text, value })?);
        }
        let width = self.width as u128;
        if width == 0 {
            return Err(LstmError::Empty);
        }
        for (direction, own) in ["forward", "backward"].into_iter().zip(self.directions) {
            for (name, values, expected) in [
                ("inputs", own.inputs.len(), total.saturating_mul(4 * width)),
                ("weight", own.weight.len(), width.saturating_mul(4 * width)),
                ("bias", own.bias.len(), 4 * width),
            ] {
                if values as u128 != expected {
                    return Err(LstmError::Values { direction, name, values, expected });
                }
            }
        }
        let (mut texts, mut first) = (Vec::new(), 0);
        for length in lengths.iter().filter_map(|&length| usize::try_from(length).ok()) {
            if length > 0 {
                texts.push(Text { first, length });
            }
            first += length;
        }
        Ok((texts, first))
    }
}

/// A text's words among all.
#[derive(Clone, Copy)]
struct Text {
    first: usize,
    length: usize,
}

/// Some texts in one direction, the longest first.
struct Piece<'a> {
    direction: Direction<'a>,
    backwards: bool,
    texts: Vec<Text>,
    /// (words of the texts, width), filled by whoever takes the piece.
    states: Vec<f32>,
}

/// One thread's share: pieces, as long as there are any.
struct Worker<'a, 'b> {
    pieces: &'a Pieces<Piece<'b>>,
    width: usize,
}

impl WithSimd for Worker<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        while let Some(mut piece) = self.pieces.take() {
            run(simd, &mut piece, self.width);
        }
    }
}

#[inline(always)]
fn run<S: Simd>(simd: S, piece: &mut Piece<'_>, width: usize) {
    let Piece { direction, backwards, ref texts, ref mut states } = *piece;
    let mut weight = Panels::default();
    weight.fill_columns(simd, width, 4 * width, |gate| &direction.weight[gate * width..][..width]);
    let mut first_states = Vec::with_capacity(texts.len()); // of each text, counted in words
    let mut words = 0;
    for text in texts {
        first_states.push(words);
        words += text.length;
    }
    states.resize(words * width, 0.0);
    // The state and cell that each text has come to, and what its state makes of the gates.
    let mut last = vec![0.0; texts.len() * width];
    let mut cells = last.clone();
    let mut gates = Vec::new();
    for step in 0..texts.first().map_or(0, |text| text.length) {
        let going = texts.partition_point(|text| text.length > step);
        let before = Rows { numbers: &last, stride: width, count: going };
        let stride = weight.multiply(simd, before, 0..width, 0..4 * width, &mut gates).width;
        for at in 0..going {
            let Text { first, length } = texts[at];
            let row = if backwards { length - 1 - step } else { step };
            let inputs = &direction.inputs[(first + row) * 4 * width..][..4 * width];
            let cell = &mut cells[at * width..][..width];
            let state = &mut states[(first_states[at] + row) * width..][..width];
            finish(simd, &gates[at * stride..], inputs, direction.bias, cell, state);
            last[at * width..][..width].copy_from_slice(state);
        }
    }
}

/// One text's step, once the state before is in the gates: its cell and its state.
#[inline(always)]
fn finish<S: Simd>(simd: S, gates: &[f32], inputs: &[f32], bias: &[f32], cell: &mut [f32], state: &mut [f32]) {
    let width = state.len();
    for at in (0..width).step_by(S::F32_LANES) {
        let lanes = at..width.min(at + S::F32_LANES);
        let [i, f, g, o] = [0, 1, 2, 3].map(|kind| {
            let part = kind * width + lanes.start..kind * width + lanes.end;
            let [gate, input, bias] = [gates, inputs, bias].map(|from| simd.partial_load_f32s(&from[part.clone()]));
            simd.add_f32s(gate, simd.add_f32s(input, bias))
        });
        let before = simd.partial_load_f32s(&cell[lanes.clone()]);
        let new = simd.mul_f32s(sigmoid(simd, i), tanh(simd, g));
        let new = simd.mul_add_f32s(sigmoid(simd, f), before, new);
        simd.partial_store_f32s(&mut cell[lanes.clone()], new);
        simd.partial_store_f32s(&mut state[lanes], simd.mul_f32s(sigmoid(simd, o), tanh(simd, new)));
    }
}

#[cfg(test)]
mod tests;
