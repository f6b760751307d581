//! What linear layers share: their arguments' checks, how they are cut into pieces, and what becomes of sums.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::Simd;

use crate::error::LinearError;
use crate::functions::{gelu, gelu_tanh};

/// Pieces for each thread: few, as the first panel of each is fetched only when it is needed.
const PIECES: usize = 2;

/// What becomes of a linear layer's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// The exact one, by the normal distribution.
    Gelu,
    /// By a tanh, which is near it.
    GeluTanh,
}

impl Activation {
    /// What becomes of numbers.
    #[inline(always)]
    pub(crate) fn of<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        match self {
            Self::Identity => x,
            Self::Gelu => gelu(simd, x),
            Self::GeluTanh => gelu_tanh(simd, x),
        }
    }
}

/// Numbers of a row that goes in, and those that it becomes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

impl Shape {
    /// Of row-major weights, if they are of it.
    pub(crate) fn of(weight: &[f32], outputs: usize, inputs: usize) -> Result<Self, LinearError> {
        if inputs == 0 {
            return Err(LinearError::Inputs);
        }
        if weight.len() as u128 != outputs as u128 * inputs as u128 {
            return Err(LinearError::Weight { values: weight.len(), outputs, inputs });
        }
        Ok(Self { inputs, outputs })
    }

    /// How many rows go in, if the lengths fit each other.
    pub(crate) fn rows(self, x: &[f32], bias: Option<&[f32]>) -> Result<usize, LinearError> {
        let Self { inputs, outputs } = self;
        if !x.len().is_multiple_of(inputs) {
            return Err(LinearError::Rows { values: x.len(), inputs });
        }
        if let Some(bias) = bias.filter(|bias| bias.len() != outputs) {
            return Err(LinearError::Bias { values: bias.len(), outputs });
        }
        Ok(x.len() / inputs)
    }

    /// The same where they go to `out`.
    pub(crate) fn rows_to(self, x: &[f32], bias: Option<&[f32]>, out: &[f32]) -> Result<usize, LinearError> {
        let rows = self.rows(x, bias)?;
        if out.len() as u128 != rows as u128 * self.outputs as u128 {
            return Err(LinearError::Out { values: out.len(), rows, outputs: self.outputs });
        }
        Ok(rows)
    }
}

/// A piece of work: neighbouring rows, neighbouring panels, and where they meet in the result.
pub(crate) struct Piece<'a> {
    pub(crate) first_row: usize,
    pub(crate) first_panel: usize,
    /// Of each row the outputs of the panels.
    pub(crate) out: Vec<&'a mut [f32]>,
}

/// How a product is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Of a row in all.
    pub(crate) outputs: usize,
    /// Outputs of a panel.
    pub(crate) panel: usize,
    /// Most rows of a piece, about.
    pub(crate) rows: usize,
    /// What the first row of a piece is a multiple of.
    pub(crate) tile: usize,
    /// That share the pieces.
    pub(crate) threads: usize,
}

impl Cut {
    pub(crate) fn pieces(self, out: &mut [f32]) -> Vec<Piece<'_>> {
        let Self { outputs, panel, tile, threads, .. } = self;
        let mut pieces = Vec::new();
        let Some(rows) = out.len().checked_div(outputs) else {
            return pieces;
        };
        let chunks = rows.div_ceil(self.rows).max(1);
        let tall = rows.div_ceil(chunks).next_multiple_of(tile); // all of one size or nearly
        let wanted = if threads <= 1 { 1 } else { PIECES * threads };
        let wide = outputs.div_ceil(panel).div_ceil(wanted.div_ceil(chunks));
        for (chunk, out) in out.chunks_mut((tall * outputs).max(1)).enumerate() {
            let first = pieces.len();
            let groups = (0..outputs.div_ceil(panel)).step_by(wide);
            pieces.extend(groups.map(|first_panel| Piece { first_row: chunk * tall, first_panel, out: Vec::new() }));
            for row in out.chunks_mut(outputs) {
                for (piece, part) in pieces[first..].iter_mut().zip(row.chunks_mut(wide * panel)) {
                    piece.out.push(part);
                }
            }
        }
        pieces
    }
}

/// A panel's part of something that each output has one of: zeros after the last.
pub(crate) fn of_panel<const N: usize>(all: &[f32], panel: usize) -> [f32; N] {
    let mut part = [0.0; N];
    for (to, &from) in part.iter_mut().zip(all.iter().skip(panel * N)) {
        *to = from;
    }
    part
}

/// Where a row's sums of a panel go, as many as fit.
#[inline(always)]
pub(crate) fn store<const N: usize>(sums: &[f32; N], out: &mut [f32]) {
    match out.first_chunk_mut() {
        Some(out) => *out = *sums,
        None => out.copy_from_slice(&sums[..out.len()]),
    }
}

#[inline(always)]
pub(crate) fn activate<S: Simd>(simd: S, activation: Activation, sums: &mut [f32]) {
    if activation != Activation::Identity {
        let (whole, rest) = S::as_mut_simd_f32s(sums);
        debug_assert!(rest.is_empty(), "no vector is longer than a panel");
        for x in whole {
            *x = activation.of(simd, *x);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_number_is_in_one_piece(
            count in 0_usize..200, outputs in 0_usize..90, panel in 1_usize..50, rows in 1_usize..100,
            tile in 1_usize..13, threads in 0_usize..9,
        ) {
            let mut out = vec![0.0; count * outputs];
            for Piece { first_row, first_panel, out } in (Cut { outputs, panel, rows, tile, threads }).pieces(&mut out) {
                prop_assert_eq!(first_row % tile, 0);
                for (row, part) in (first_row..).zip(out) {
                    for (output, number) in (first_panel * panel..).zip(part) {
                        *number += f32::from(u16::try_from(row * outputs + output + 1).unwrap());
                    }
                }
            }
            prop_assert!(out.iter().zip(1_u16..).all(|(number, place)| (number - f32::from(place)).abs() < 0.5));
        }
    }
}
