//! Linear layers whose weights are packed once, as the innermost loop reads them.
//!
//! Weights stand in panels of `OUTPUTS` rows, one number of each row after the other, and what goes in stands in tiles of
//! some rows in the same way. A tile times a panel keeps its sums in registers. With few rows most of the time is that of
//! fetching the weights: while the rows go past some of a panel, the next part is fetched, some lines at a time between
//! products. All at once these fetches would stand in the way of what is read from the second-level cache.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::cell::Cell;
use std::mem;

use pulp::{Arch, Simd, WithSimd};

use crate::error::LinearError;
use crate::host::{Cache, Fetches, Host, LINE, Pieces, run_on, worthwhile};
use crate::product::{Activation, Cut, Piece, Shape, activate, of_panel, store};

/// Rows of weights in a panel: four of AVX-512's vectors, eight of AVX2's, which takes two at a time.
const OUTPUTS: usize = 64;
/// Rows of a tile: with AVX2 12 vectors of sums, 2 of the weights and 1 of the rows, of 16 registers; with AVX-512 24, 4
/// and 1 of 32.
const ROWS: usize = 6;
/// Most numbers of a row that are summed before the next rows are taken up: a panel's are 192 KiB.
const BLOCK: usize = 768;
/// Most rows that a piece of work goes through for each panel, about: a block's numbers of them are 576 KiB.
const CHUNK: usize = 192;
/// Steps of the innermost loop between which lines are fetched.
const STEP: usize = 16;
/// Steps of the innermost loop that make one turn of it: the counting costs a twentieth where another thread has half
/// the core.
const UNROLLED: usize = 4;
/// Steps of the innermost loop after which what is fetched into the nearest cache is read.
const SOON: usize = 8;
/// Numbers that go in, from which several threads pack them.
const WORTH_PACKING: usize = 1 << 16;
/// Numbers that are compared to know weights again, and the distance of their columns: a prime.
const SAMPLES: usize = 32;
const STRIDE: usize = 103;
/// Most packed numbers whose memory is kept for the next product: 4 MiB.
const KEPT: usize = 1 << 20;

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
            for (output, row) in rows.chunks_exact(inputs).enumerate() {
                for (to, &number) in panel.iter_mut().zip(row) {
                    to.0[output] = number;
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
        let Shape { inputs, outputs } = self.shape;
        self.shape.rows_to(x, bias, out)?;
        let threads = worthwhile(host, x.len() as u128 * outputs as u128, threads);
        let x = PackedRows::new(x, inputs, threads, host);
        let bias = bias.unwrap_or_default();
        let pieces: Pieces<_> = cut(outputs, threads).pieces(out).into_iter().collect();
        let work = || Arch::new().dispatch(Worker { x: &x, weights: self, bias, activation, pieces: &pieces, host });
        run_on(host, threads.min(pieces.len()), &work);
        Ok(())
    }
}

/// Rows that go in, packed.
struct PackedRows {
    /// (tiles, inputs, rows of a tile), and anything after the last row.
    tiles: Vec<f32>,
}

impl PackedRows {
    fn new(x: &[f32], inputs: usize, threads: usize, host: &impl Host) -> Self {
        let rows = x.len() / inputs;
        let (size, mut tiles) = (ROWS * inputs, SCRATCH.take());
        let more = (rows.div_ceil(ROWS) * size).saturating_sub(tiles.len());
        tiles.reserve_exact(more);
        tiles.resize(tiles.len() + more, 0.0);
        let pieces: Pieces<_> = x.chunks(size).zip(tiles.chunks_exact_mut(size)).collect();
        let threads = if x.len() < WORTH_PACKING { 1 } else { threads.min(pieces.len()) };
        run_on(host, threads, &|| Arch::new().dispatch(RowPacker { pieces: &pieces, inputs }));
        drop(pieces);
        Self { tiles }
    }
}

impl Drop for PackedRows {
    fn drop(&mut self) {
        if self.tiles.len() <= KEPT {
            SCRATCH.set(mem::take(&mut self.tiles));
        }
    }
}

thread_local! {
    /// Where this thread packed rows the last time: new memory for each product would cost about a tenth of it.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// One thread's share of the packing: tiles, as long as there are any.
struct RowPacker<'a, 'x> {
    pieces: &'a Pieces<(&'x [f32], &'x mut [f32])>,
    inputs: usize,
}

impl WithSimd for RowPacker<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        while let Some(mut piece) = self.pieces.take() {
            let (x, ref mut tile) = *piece;
            pack_tile(x, self.inputs, tile);
        }
    }
}

#[inline(always)]
fn pack_tile(x: &[f32], inputs: usize, tile: &mut [f32]) {
    let (tile, _) = tile.as_chunks_mut::<ROWS>();
    if x.len() < ROWS * inputs {
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            for (to, &number) in tile.iter_mut().zip(x) {
                to[row] = number;
            }
        }
        return;
    }
    let mut rows = [x; ROWS];
    for (row, x) in rows.iter_mut().zip(x.chunks_exact(inputs)) {
        *row = x;
    }
    for (at, to) in tile.iter_mut().enumerate() {
        for (to, row) in to.iter_mut().zip(rows) {
            *to = row[at];
        }
    }
}

/// How a product is cut.
fn cut(outputs: usize, threads: usize) -> Cut {
    Cut { outputs, panel: OUTPUTS, rows: CHUNK, tile: ROWS, threads }
}

/// One thread's share: pieces, as long as there are any.
struct Worker<'a, 'out, H> {
    x: &'a PackedRows,
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

/// What a tile meets.
struct Meeting<'a> {
    /// Some numbers of each row of a tile.
    x: &'a [[f32; ROWS]],
    /// As many of each output in a panel.
    weights: &'a [Weights],
    /// Weights to be fetched meanwhile.
    ahead: &'a [Weights],
    /// Whether there are sums before these.
    is_first: bool,
    /// The bias, once all numbers of the rows were taken.
    bias: Option<&'a [f32; OUTPUTS]>,
    /// The first output, of those that are kept of a row.
    first: usize,
}

impl<H: Host> Worker<'_, '_, H> {
    #[inline(always)]
    fn multiply<S: Simd, const V: usize>(&self, simd: S) {
        let PackedWeights { ref panels, shape: Shape { inputs, .. } } = *self.weights;
        let width = inputs.div_ceil(inputs.div_ceil(BLOCK));
        let (tiles, _) = self.x.tiles.as_chunks::<ROWS>();
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
                    let mut ahead = Fetches::new(next, out.len().div_ceil(ROWS));
                    for (row, out) in (first_row..).step_by(ROWS).zip(out.chunks_mut(ROWS)) {
                        let meeting = Meeting {
                            x: &tiles[row / ROWS * inputs..][part.clone()],
                            weights: &numbers[part.clone()],
                            ahead: ahead.next(),
                            is_first: begin == 0,
                            bias: (part.end == inputs).then_some(&bias),
                            first: panel * OUTPUTS,
                        };
                        match out.len() {
                            1 => self.tile::<S, 1, V>(simd, &meeting, out),
                            2 => self.tile::<S, 2, V>(simd, &meeting, out),
                            3 => self.tile::<S, 3, V>(simd, &meeting, out),
                            4 => self.tile::<S, 4, V>(simd, &meeting, out),
                            5 => self.tile::<S, 5, V>(simd, &meeting, out),
                            _ => self.tile::<S, ROWS, V>(simd, &meeting, out),
                        }
                    }
                }
            }
        }
    }

    /// One number of each row times one of each output, for some vectors of outputs.
    #[inline(always)]
    fn step<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        x: &[f32; ROWS],
        weights: &Weights,
        at: usize,
        sums: &mut [[S::f32s; V]; R],
    ) {
        for line in weights.0[at * S::F32_LANES..][..V * S::F32_LANES].chunks(LINE / size_of::<f32>()) {
            self.host.prefetch(line.as_ptr().wrapping_add(SOON * OUTPUTS), Cache::First);
        }
        let (weights, _) = S::as_simd_f32s(&weights.0);
        let weights: &[S::f32s; V] = weights[at..].first_chunk().expect("as many as a panel has");
        let weights = *weights;
        for (sums, &number) in sums.iter_mut().zip(x) {
            let number = simd.splat_f32s(number);
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = simd.mul_add_e_f32s(number, weight, *sum);
            }
        }
    }

    /// The first `R` rows of a tile times some numbers of a panel.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(&self, simd: S, meeting: &Meeting<'_>, out: &mut [&mut [f32]]) {
        let &Meeting { x, weights, ahead, is_first, bias, first } = meeting;
        let mut all = [[0.0; OUTPUTS]; R];
        if !is_first {
            for (sums, out) in all.iter_mut().zip(&*out) {
                let out = &out[first..];
                match out.first_chunk() {
                    Some(out) => *sums = *out,
                    None => sums[..out.len()].copy_from_slice(out),
                }
            }
        }
        let turns = OUTPUTS / (S::F32_LANES * V);
        let mut fetches = Fetches::new(ahead, turns * x.len().div_ceil(STEP));
        for at in (0..OUTPUTS / S::F32_LANES).step_by(V) {
            let mut sums = [[simd.splat_f32s(0.0); V]; R];
            for (sums, all) in sums.iter_mut().zip(&all) {
                let (all, _) = S::as_simd_f32s(all);
                sums.copy_from_slice(&all[at..at + V]);
            }
            for (x, weights) in x.chunks(STEP).zip(weights.chunks(STEP)) {
                fetches.fetch(self.host);
                let ((x, x_rest), (weights, rest)) = (x.as_chunks::<UNROLLED>(), weights.as_chunks::<UNROLLED>());
                for (x, weights) in x.iter().zip(weights) {
                    for own in 0..UNROLLED {
                        self.step::<S, R, V>(simd, &x[own], &weights[own], at, &mut sums);
                    }
                }
                for (x, weights) in x_rest.iter().zip(rest) {
                    self.step::<S, R, V>(simd, x, weights, at, &mut sums);
                }
            }
            for (sums, all) in sums.into_iter().zip(&mut all) {
                let (all, _) = S::as_mut_simd_f32s(all);
                all[at..at + V].copy_from_slice(&sums);
            }
        }
        for (sums, out) in all.iter_mut().zip(out) {
            if let Some(bias) = bias {
                for (sum, bias) in S::as_mut_simd_f32s(sums).0.iter_mut().zip(S::as_simd_f32s(bias).0) {
                    *sum = simd.add_f32s(*sum, *bias);
                }
                activate(simd, self.activation, sums);
            }
            store(sums, &mut out[first..]);
        }
    }
}

#[cfg(test)]
mod tests;
