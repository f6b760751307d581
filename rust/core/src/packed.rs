//! Linear layers whose weights are packed once, as the innermost loop reads them.
//!
//! Weights stand in panels of `OUTPUTS` rows, one number of each row after the other. Some rows of what goes in, as they
//! lie, times a panel keep their sums in registers. With few rows most of the time is that of fetching the weights: while
//! the rows go past some of a panel, the next part is fetched, some lines at a time between products. All at once these
//! fetches would stand in the way of what is read from the second-level cache.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::array::from_fn;

use pulp::{Simd, WithSimd};

use crate::error::LinearError;
use crate::host::{Cache, Fetches, Host, LINE, Pieces, run_on, worthwhile};
use crate::product::{Activation, Cut, Piece, Shape, activate, of_panel, store};
use crate::vectors::widest;

/// Rows of weights in a panel: four of AVX-512's vectors, eight of AVX2's, which takes two at a time.
const OUTPUTS: usize = 64;
/// Most rows at a time: with AVX2 12 vectors of sums, 2 of the weights and 1 of the rows, of 16 registers; with AVX-512
/// 24, 4 and 1 of 32.
const ROWS: usize = 6;
/// Most numbers of a row that are summed before the next rows are taken up: a panel's are 192 KiB.
const BLOCK: usize = 768;
/// Most rows that a piece of work goes through for each panel, about: a block's numbers of them are 396 KiB.
const CHUNK: usize = 132;
/// Steps of the innermost loop between which lines are fetched.
const STEP: usize = 16;
/// Steps of the innermost loop that make one turn of it: the counting costs a twentieth where another thread has half
/// the core.
const UNROLLED: usize = 4;
/// Steps of the innermost loop after which what is fetched into the nearest cache is read.
const SOON: usize = 8;
/// Rows from which fetching a panel into the nearest cache, too, costs more than it saves.
const MANY: usize = 96;
/// Numbers that are compared to know weights again, and the distance of their columns: a prime.
const SAMPLES: usize = 32;
const STRIDE: usize = 103;

/// A number of each row of weights in a panel: lines of a cache, and no load reads from two.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Weights([f32; OUTPUTS]);

/// A matrix of weights, packed.
#[derive(Clone, Debug)]
pub struct PackedWeights {
    /// (panels, inputs): zeros after the last output.
    panels: Vec<Weights>,
    shape: Shape,
}

impl PackedWeights {
    /// Packs a row-major matrix of `outputs` rows.
    ///
    /// # Errors
    ///
    /// When rows are empty, or the length does not fit.
    pub fn pack(weight: &[f32], outputs: usize, inputs: usize) -> Result<Self, LinearError> {
        let shape = Shape::of(weight, outputs, inputs)?;
        let mut panels = vec![Weights([0.0; OUTPUTS]); outputs.div_ceil(OUTPUTS) * inputs];
        for (panel, rows) in panels.chunks_exact_mut(inputs).zip(weight.chunks(OUTPUTS.saturating_mul(inputs))) {
            // Some numbers of all rows before the next: what they are written to then stays in the nearest cache.
            for (part, panel) in panel.chunks_mut(STEP).enumerate() {
                for (output, row) in rows.chunks_exact(inputs).enumerate() {
                    for (to, &number) in panel.iter_mut().zip(&row[part * STEP..]) {
                        to.0[output] = number;
                    }
                }
            }
        }
        Ok(Self { panels, shape })
    }

    /// Length of a row that goes in.
    pub fn inputs(&self) -> usize {
        self.shape.inputs
    }

    /// Numbers that a row becomes.
    pub fn outputs(&self) -> usize {
        self.shape.outputs
    }

    /// Some numbers, spread over the whole, and where in the matrix of weights they stood: output and input.
    pub fn samples(&self) -> impl Iterator<Item = ([usize; 2], f32)> {
        let Shape { inputs, outputs } = self.shape;
        (0..SAMPLES.min(outputs)).map(move |sample| {
            let (output, input) = (sample * outputs / SAMPLES.min(outputs), sample * STRIDE % inputs);
            ([output, input], self.panels[output / OUTPUTS * inputs + input].0[output % OUTPUTS])
        })
    }

    /// Fills `out`, (rows, `outputs`), with `activation(x @ weight.T + bias)`, for row-major rows.
    ///
    /// What becomes of a row depends on that row alone, to the last bit, whatever the others and the number of threads.
    ///
    /// # Errors
    ///
    /// When the lengths do not fit each other.
    pub fn apply(
        &self,
        x: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
        out: &mut [f32],
        threads: usize,
        host: &impl Host,
    ) -> Result<(), LinearError> {
        let outputs = self.shape.outputs;
        self.shape.rows_to(x, bias, out)?;
        let threads = worthwhile(host, x.len() as u128 * outputs as u128, threads);
        let bias = bias.unwrap_or_default();
        let pieces: Pieces<_> = cut(outputs, threads).pieces(out).into_iter().collect();
        let work = || widest().dispatch(Worker { x, weights: self, bias, activation, pieces: &pieces, host });
        run_on(host, threads.min(pieces.len()), &work);
        Ok(())
    }
}

/// How a product is cut.
fn cut(outputs: usize, threads: usize) -> Cut {
    Cut { outputs, panel: OUTPUTS, rows: CHUNK, tile: ROWS, threads }
}

/// One thread's share: pieces, as long as there are any.
struct Worker<'a, 'out, H> {
    /// Row-major.
    x: &'a [f32],
    weights: &'a PackedWeights,
    bias: &'a [f32],
    activation: Activation,
    pieces: &'a Pieces<Piece<'out>>,
    host: &'a H,
}

impl<H: Host> WithSimd for Worker<'_, '_, H> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::F32_LANES == 16 {
            self.multiply::<S, 4>(simd);
        } else {
            self.multiply::<S, 2>(simd);
        }
    }
}

/// What some rows meet.
struct Meeting<'a> {
    /// The rows, from the first one's first number to be taken.
    x: &'a [f32],
    /// As many of each output in a panel as are taken of a row.
    weights: &'a [Weights],
    /// Weights to be fetched meanwhile.
    ahead: &'a [Weights],
    /// Whether fewer than `MANY` rows meet these weights.
    are_few: bool,
    /// Where the sums begin, if there are none before these.
    bias: Option<&'a [f32; OUTPUTS]>,
    /// What becomes of them.
    activation: Activation,
    /// The first output, of those that are kept of a row.
    first: usize,
}

impl<H: Host> Worker<'_, '_, H> {
    #[inline(always)]
    fn multiply<S: Simd, const V: usize>(&self, simd: S) {
        let PackedWeights { ref panels, shape: Shape { inputs, .. } } = *self.weights;
        let width = inputs.div_ceil(inputs.div_ceil(BLOCK));
        while let Some(mut piece) = self.pieces.take() {
            let Piece { first_row, first_panel, ref mut out } = *piece;
            let count = out.first().map_or(0, |row| row.len().div_ceil(OUTPUTS));
            let panels = &panels[first_panel * inputs..][..count * inputs];
            for begin in (0..inputs).step_by(width) {
                let part = begin..inputs.min(begin + width);
                for panel in 0..count {
                    let numbers = &panels[panel * inputs..][..inputs];
                    let bias = of_panel(self.bias, first_panel + panel);
                    // What is multiplied next: the next panel's, or the first one's next part.
                    let next = match panels.get((panel + 1) * inputs..) {
                        Some(next) if panel + 1 < count => &next[part.clone()],
                        _ => &panels[part.end..inputs.min(part.end + width)],
                    };
                    let are_few = out.len() < MANY;
                    let mut tiles = out.len().div_ceil(ROWS);
                    let (mut row, mut rest, mut ahead) = (first_row, &mut **out, Fetches::new(next, tiles));
                    while !rest.is_empty() {
                        // All of nearly one size: the weights of a small one are read for little.
                        let (tile, after) = rest.split_at_mut(rest.len().div_ceil(tiles));
                        let meeting = Meeting {
                            x: &self.x[row * inputs + begin..],
                            weights: &numbers[part.clone()],
                            ahead: ahead.next(),
                            are_few,
                            bias: (begin == 0).then_some(&bias),
                            activation: if part.end == inputs { self.activation } else { Activation::Identity },
                            first: panel * OUTPUTS,
                        };
                        row += tile.len();
                        tiles -= 1;
                        match tile.len() {
                            1 => self.tile::<S, 1, V>(simd, &meeting, tile),
                            2 => self.tile::<S, 2, V>(simd, &meeting, tile),
                            3 => self.tile::<S, 3, V>(simd, &meeting, tile),
                            4 => self.tile::<S, 4, V>(simd, &meeting, tile),
                            5 => self.tile::<S, 5, V>(simd, &meeting, tile),
                            _ => self.tile::<S, ROWS, V>(simd, &meeting, tile),
                        }
                        rest = after;
                    }
                }
            }
        }
    }

    /// `R` rows times a part of a panel.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(&self, simd: S, meeting: &Meeting<'_>, out: &mut [&mut [f32]]) {
        let &Meeting { bias, first, .. } = meeting;
        // A panel that goes beyond the last output has its sums apart.
        let mut apart = [[0.0; OUTPUTS]; R];
        let is_apart = out.iter().any(|row| row.len() < first + OUTPUTS);
        if is_apart && bias.is_none() {
            for (sums, out) in apart.iter_mut().zip(&*out) {
                sums[..out.len() - first].copy_from_slice(&out[first..]);
            }
        }
        let mut places = apart.iter_mut();
        let mut rows = out.iter_mut();
        let sums: [&mut [f32; OUTPUTS]; R] = from_fn(|_| {
            let (place, row) = (places.next(), rows.next());
            let whole = row.and_then(|row| row[first..].first_chunk_mut());
            whole.or(place).expect("as many places as rows")
        });
        self.sum::<S, R, V>(simd, meeting, sums);
        if is_apart {
            for (sums, out) in apart.iter().zip(out) {
                store(sums, &mut out[first..]);
            }
        }
    }

    /// The same where there is place for a whole panel's sums.
    #[inline(always)]
    fn sum<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        meeting: &Meeting<'_>,
        mut out: [&mut [f32; OUTPUTS]; R],
    ) {
        let &Meeting { x, weights, ahead, are_few, bias, activation, .. } = meeting;
        let inputs = self.weights.inputs();
        let rows: [&[f32]; R] = from_fn(|row| &x[row * inputs..][..weights.len()]);
        let (blocks, rest) = weights.as_chunks::<STEP>();
        let mut fetches = Fetches::new(ahead, OUTPUTS / (S::F32_LANES * V) * blocks.len());
        for at in (0..OUTPUTS / S::F32_LANES).step_by(V) {
            let mut sums = [[simd.splat_f32s(0.0); V]; R];
            for (sums, out) in sums.iter_mut().zip(&out) {
                let before: &[f32; OUTPUTS] = bias.map_or(&**out, |bias| bias);
                let (before, _) = S::as_simd_f32s(before);
                sums.copy_from_slice(&before[at..at + V]);
            }
            let starts: [&[[f32; STEP]]; R] = from_fn(|row| &rows[row].as_chunks().0[..blocks.len()]);
            for (block, weights) in blocks.iter().enumerate() {
                fetches.fetch(self.host);
                let x: [&[f32; STEP]; R] = from_fn(|row| &starts[row][block]);
                for turn in 0..STEP / UNROLLED {
                    if are_few {
                        self.fetch_soon::<S, V>(weights, turn, at);
                    }
                    for own in 0..UNROLLED {
                        let own = turn * UNROLLED + own;
                        step::<S, R, V>(simd, from_fn(|row| x[row][own]), &weights[own], at, &mut sums);
                    }
                }
            }
            let first = weights.len() - rest.len();
            let ends: [&[f32]; R] = from_fn(|row| &rows[row][first..][..rest.len()]);
            for (own, weights) in rest.iter().enumerate() {
                step::<S, R, V>(simd, from_fn(|row| ends[row][own]), weights, at, &mut sums);
            }
            for (sums, out) in sums.into_iter().zip(&mut out) {
                let (out, _) = S::as_mut_simd_f32s(&mut **out);
                out[at..at + V].copy_from_slice(&sums);
            }
        }
        if activation != Activation::Identity {
            for out in out {
                activate(simd, activation, out);
            }
        }
    }

    /// Fetches the weights that are read some steps later into the nearest cache.
    #[inline(always)]
    fn fetch_soon<S: Simd, const V: usize>(&self, weights: &[Weights; STEP], turn: usize, at: usize) {
        for weights in &weights[turn * UNROLLED..][..UNROLLED] {
            for line in weights.0[at * S::F32_LANES..][..V * S::F32_LANES].chunks(LINE / size_of::<f32>()) {
                self.host.prefetch(line.as_ptr().wrapping_add(SOON * OUTPUTS), Cache::First);
            }
        }
    }
}

/// One number of each row times one of each output, for some vectors of outputs.
#[inline(always)]
fn step<S: Simd, const R: usize, const V: usize>(
    simd: S,
    x: [f32; R],
    weights: &Weights,
    at: usize,
    sums: &mut [[S::f32s; V]; R],
) {
    let (weights, _) = S::as_simd_f32s(&weights.0);
    let weights: &[S::f32s; V] = weights[at..].first_chunk().expect("as many as a panel has");
    let weights = *weights;
    for (sums, number) in sums.iter_mut().zip(x) {
        let number = simd.splat_f32s(number);
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum = simd.mul_add_e_f32s(number, weight, *sum);
        }
    }
}

#[cfg(test)]
mod tests;
