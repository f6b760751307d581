//! Linear layers in whole numbers of 16 bits: twice the products an instruction of float32, on CPUs that multiply
//! nothing shorter.
//!
//! Each row of the weights, and each row that goes in, is measured by its own greatest number: that becomes `MOST`, the
//! others whole numbers in proportion, of which x86 multiplies 16 or 32 at a time and adds the products of two to one of
//! 32 bits. `tile::BLOCK` products fit there, whatever they are; then they go to a sum in float32. All numbers of a row are
//! thus rounded by as much, half of 1, where bf16 rounds each in proportion to itself.
//!
//! Weights are packed once: in panels of `OUTPUTS` rows, two numbers of each row after the other, as the instruction
//! reads them.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

mod tile;

use pulp::{Simd, WithSimd};

use crate::error::LinearError;
use crate::host::{Fetches, Host, Pieces, run_on, worthwhile};
use crate::product::{Activation, Cut, Piece, Shape, activate, of_panel, store};
use crate::vectors::widest;
use tile::{OUTPUTS, ROWS, RowPairs, WeightPairs, multiply};

/// What the greatest number of a row becomes: 13 bits and a sign.
const MOST: f32 = 8191.0;
/// Bytes of rows that a piece of work goes through for each panel: half of a second-level cache of 512 KiB.
const CHUNK: usize = 1 << 18;
/// Tiles whose rows are measured at a time.
const MEASURED: usize = 10;

/// A matrix of weights, packed.
#[derive(Clone, Debug)]
pub struct Int16Weights {
    /// (panels, pairs of inputs): zeros after the last output, and after the last input where their number is odd.
    panels: Vec<WeightPairs>,
    /// What 1 stands for in each output's row.
    scales: Vec<f32>,
    inputs: usize,
}

impl Int16Weights {
    /// Packs a row-major matrix of `outputs` rows.
    ///
    /// # Errors
    ///
    /// When rows are empty, or the length does not fit.
    pub fn pack(weight: &[f32], outputs: usize, inputs: usize) -> Result<Self, LinearError> {
        Shape::of(weight, outputs, inputs)?;
        let pairs = inputs.div_ceil(2);
        let mut panels = vec![WeightPairs([[0; 2]; OUTPUTS]); outputs.div_ceil(OUTPUTS) * pairs];
        let mut row = vec![[0; 2]; pairs];
        let measure = |(output, weights): (usize, &[f32])| {
            let scale = measure(weights, &mut row);
            let panel = &mut panels[output / OUTPUTS * pairs..][..pairs];
            for (to, &pair) in panel.iter_mut().zip(&row) {
                to.0[output % OUTPUTS] = pair;
            }
            scale
        };
        let scales = weight.chunks_exact(inputs).enumerate().map(measure).collect();
        Ok(Self { panels, scales, inputs })
    }

    /// Length of a row that goes in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers that a row becomes.
    pub fn outputs(&self) -> usize {
        self.scales.len()
    }

    /// Fills `out`, (rows, `outputs`), with `activation(x @ weight.T + bias)`, for row-major rows.
    ///
    /// What becomes of a row depends on that row alone, to the last bit, whatever the others and the number of threads.
    /// A row with a number that is not finite becomes NaN.
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
        let (inputs, outputs) = (self.inputs, self.outputs());
        Shape { inputs, outputs }.rows_to(x, bias, out)?;
        let threads = worthwhile(host, x.len() as u128 * outputs as u128 / 2, threads);
        let x = Measured::new(x, inputs, threads, host);
        let bias = bias.unwrap_or_default();
        let panels: Vec<_> = (0..outputs.div_ceil(OUTPUTS)).map(|panel| self.panel(panel, bias)).collect();
        let pieces: Pieces<_> = cut(outputs, inputs, threads).pieces(out).into_iter().collect();
        let work = || widest().dispatch(Worker { x: &x, panels: &panels, activation, pieces: &pieces, host });
        run_on(host, threads.min(pieces.len()), &work);
        Ok(())
    }

    fn panel(&self, panel: usize, bias: &[f32]) -> Panel<'_> {
        let length = self.inputs.div_ceil(2);
        Panel {
            weights: &self.panels[panel * length..][..length],
            scales: of_panel(&self.scales, panel),
            bias: of_panel(bias, panel),
        }
    }
}

/// The weights of some outputs, zeros after the last.
struct Panel<'a> {
    weights: &'a [WeightPairs],
    scales: [f32; OUTPUTS],
    bias: [f32; OUTPUTS],
}

/// Rows that go in, in whole numbers.
struct Measured {
    /// (tiles of `ROWS` rows, pairs of inputs): zeros after the last row.
    tiles: Vec<RowPairs>,
    /// What 1 stands for in each row.
    scales: Vec<f32>,
}

impl Measured {
    fn new(x: &[f32], inputs: usize, threads: usize, host: &impl Host) -> Self {
        let (rows, length) = (x.len() / inputs, inputs.div_ceil(2));
        let mut measured = Self { tiles: vec![[[0; 2]; ROWS]; rows.div_ceil(ROWS) * length], scales: vec![0.0; rows] };
        let tiles = measured.tiles.chunks_mut(MEASURED * length);
        let pieces = x.chunks(MEASURED * ROWS * inputs).zip(tiles).zip(measured.scales.chunks_mut(MEASURED * ROWS));
        let pieces: Pieces<_> = pieces.map(|((x, tiles), scales)| Measure { x, tiles, scales, inputs }).collect();
        run_on(host, threads.min(pieces.len()), &|| {
            while let Some(mut piece) = pieces.take() {
                widest().dispatch(&mut *piece);
            }
        });
        drop(pieces);
        measured
    }
}

/// Some rows to be measured, and where to.
struct Measure<'a> {
    x: &'a [f32],
    tiles: &'a mut [RowPairs],
    scales: &'a mut [f32],
    inputs: usize,
}

impl WithSimd for &mut Measure<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let length = self.inputs.div_ceil(2);
        let mut pairs = vec![[0; 2]; length];
        for (row, (x, scale)) in self.x.chunks_exact(self.inputs).zip(&mut *self.scales).enumerate() {
            *scale = measure(x, &mut pairs);
            for (to, &pair) in self.tiles[row / ROWS * length..].iter_mut().zip(&pairs) {
                to[row % ROWS] = pair;
            }
        }
    }
}

/// Writes a row in whole numbers, zero after the last where their number is odd, and returns what 1 stands for: NaN
/// where a number of the row is not finite.
#[inline(always)]
fn measure(row: &[f32], pairs: &mut [[i16; 2]]) -> f32 {
    /// 1.5 * 2^23: a number of few bits that is added to it is rounded to a whole one, and stands in the lowest bits.
    const ROUNDER: f32 = 12_582_912.0;
    // Several sums at a time, so that they become vectors: the order of a greatest and of zeros changes nothing.
    let (whole, rest) = row.as_chunks::<16>();
    let (mut most, mut zeros) = ([0.0_f32; 16], [0.0_f32; 16]);
    for chunk in whole {
        for ((most, zero), x) in most.iter_mut().zip(&mut zeros).zip(chunk) {
            *most = if x.abs() > *most { x.abs() } else { *most };
            *zero += x * 0.0; // NaN for what is not finite
        }
    }
    let most = most.into_iter().chain(rest.iter().map(|x| x.abs())).fold(0.0, f32::max);
    let zero = zeros.into_iter().chain(rest.iter().map(|x| x * 0.0)).sum::<f32>();
    if most < 1e-30 || zero.is_nan() {
        // So small a row adds nothing to anything, and its inverse might not fit.
        pairs.fill([0; 2]);
        return zero;
    }
    let factor = MOST / most;
    #[expect(clippy::cast_possible_truncation, reason = "the lowest bits are what is wanted")]
    let as_whole = |x: f32| (x * factor + ROUNDER).to_bits() as i16;
    let (both, last) = row.as_chunks::<2>();
    for (to, pair) in pairs.iter_mut().zip(both) {
        *to = pair.map(as_whole);
    }
    if let (Some(to), Some(&last)) = (pairs.last_mut(), last.first()) {
        *to = [as_whole(last), 0];
    }
    most / MOST
}

/// How a product is cut: rows that stay in a cache in each piece.
fn cut(outputs: usize, inputs: usize, threads: usize) -> Cut {
    Cut { outputs, panel: OUTPUTS, rows: (CHUNK / (2 * inputs)).next_multiple_of(ROWS).max(ROWS), tile: ROWS, threads }
}

/// One thread's share: pieces, as long as there are any.
struct Worker<'a, 'out, H> {
    x: &'a Measured,
    panels: &'a [Panel<'a>],
    activation: Activation,
    pieces: &'a Pieces<Piece<'out>>,
    host: &'a H,
}

impl<H: Host> WithSimd for Worker<'_, '_, H> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        #[cfg(target_arch = "x86_64")]
        if S::F32_LANES == 16
            && let Some(vnni) = tile::Vnni::try_new()
        {
            return vnni.vectorize(ByVnni(self, simd));
        }
        self.multiply(simd);
    }
}

/// The same, to be compiled with one instruction more.
#[cfg(target_arch = "x86_64")]
struct ByVnni<'a, 'out, H, S>(Worker<'a, 'out, H>, S);

#[cfg(target_arch = "x86_64")]
impl<H: Host, S: Simd> pulp::NullaryFnOnce for ByVnni<'_, '_, H, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.multiply(self.1);
    }
}

impl<H: Host> Worker<'_, '_, H> {
    #[inline(always)]
    fn multiply<S: Simd>(&self, simd: S) {
        while let Some(mut piece) = self.pieces.take() {
            let Piece { first_row, first_panel, ref mut out } = *piece;
            let count = out.first().map_or(0, |row| row.len().div_ceil(OUTPUTS));
            let panels = &self.panels[first_panel..][..count];
            let tiles = out.len().div_ceil(ROWS);
            for (at, (panel, first)) in panels.iter().zip((0..).step_by(OUTPUTS)).enumerate() {
                // Weights come from afar where rows are few: while all of these go past a panel, the next is fetched.
                let next = panels.get(at + 1).map_or_else(Default::default, |next| next.weights);
                let mut ahead = Fetches::new(next, tiles);
                for (row, out) in (first_row..).step_by(ROWS).zip(out.chunks_mut(ROWS)) {
                    let ahead = ahead.next();
                    match out.len() {
                        1 => self.tile::<S, 1>(simd, row, panel, ahead, first, out),
                        2 => self.tile::<S, 2>(simd, row, panel, ahead, first, out),
                        3 => self.tile::<S, 3>(simd, row, panel, ahead, first, out),
                        4 => self.tile::<S, 4>(simd, row, panel, ahead, first, out),
                        5 => self.tile::<S, 5>(simd, row, panel, ahead, first, out),
                        _ => self.tile::<S, ROWS>(simd, row, panel, ahead, first, out),
                    }
                }
            }
        }
    }

    /// Some rows times the weights of a panel, whose outputs begin at `first` of each row's `out`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(
        &self,
        simd: S,
        row: usize,
        panel: &Panel<'_>,
        ahead: &[WeightPairs],
        first: usize,
        out: &mut [&mut [f32]],
    ) {
        let length = panel.weights.len();
        let x = &self.x.tiles[row / ROWS * length..][..length];
        let sums = multiply::<S, R>(simd, x, panel.weights, ahead, self.host);
        for ((mut sums, of_row), out) in sums.into_iter().zip(&self.x.scales[row..]).zip(out) {
            for ((sum, scale), bias) in sums.iter_mut().zip(&panel.scales).zip(&panel.bias) {
                *sum = *sum * of_row * scale + bias;
            }
            activate(simd, self.activation, &mut sums);
            store(&sums, &mut out[first..]);
        }
    }
}

#[cfg(test)]
mod tests;
