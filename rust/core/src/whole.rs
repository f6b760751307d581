//! Linear layers in whole numbers: on CPUs that multiply no shorter floating-point numbers, twice (`int16`) or, by
//! VNNI, four times (`int8`) the products an instruction of float32.
//!
//! The numbers of a row of the weights, and of a row that goes in, are measured by the greatest of them, or of some
//! neighbours of them: that becomes the greatest whole number, the others whole numbers in proportion. All of them are
//! thus rounded by as much, half of 1, where bf16 rounds each in proportion to itself. Products are added up in 32 bits
//! as long as they fit there, whatever they are; then they go to a sum in float32.
//!
//! Weights are packed once: in panels of `OUTPUTS` rows, as the instruction reads them.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

mod int16;
mod int8;

use std::fmt::Debug;

#[cfg(target_arch = "x86_64")]
use gliner_fast_vnni::Vnni;
use pulp::{Simd, WithSimd};

use crate::error::LinearError;
use crate::host::{Fetches, Host, Pieces, run_on, worthwhile};
use crate::product::{Activation, Cut, Piece, Shape, activate, of_panel, store};
use crate::vectors::widest;
pub use int8::Int8;
pub use int16::Int16;

/// Rows of a tile: 6 times 2 vectors of sums, 2 of the weights, 1 of the rows and 1 of products are AVX2's 16 registers.
const ROWS: usize = 6;
/// Rows of weights in a panel: two of AVX-512's vectors, four of AVX2's.
const OUTPUTS: usize = 32;
/// Bytes of rows, two a number, that a piece of work goes through for each panel: half of a second-level cache of
/// 512 KiB; those of `int8` take half as many.
const CHUNK: usize = 1 << 18;
/// Tiles whose rows are measured at a time.
const MEASURED: usize = 10;

/// A matrix of weights in whole numbers of 16 bits.
pub type Int16Weights = WholeWeights<Int16>;
/// A matrix of weights in whole numbers of 8 bits.
pub type Int8Weights = WholeWeights<Int8>;

/// 1.5 * 2^23: a number of few bits that is added to it is rounded to a whole one, and stands in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;

/// The token of AVX-512's instructions for whole numbers, where they are known to be there when this is compiled.
#[cfg(target_arch = "x86_64")]
type Dots = Option<Vnni>;
#[cfg(not(target_arch = "x86_64"))]
type Dots = Option<std::convert::Infallible>;

/// A kind of whole numbers: how they are made, laid out and multiplied.
pub trait Kind: Copy + Debug + 'static {
    /// Numbers of a row that are laid out together.
    const INPUTS: usize;
    /// Those of one row, in whole numbers.
    type Unit: Copy + Default + Send + Sync;
    /// Those of each row of a tile.
    type Rows: Copy + Default + Send + Sync;
    /// Those of each row of weights in a panel.
    type Weights: Copy + Debug + Default + Send + Sync;

    /// Writes a row in whole numbers, zeros after the last, and returns what 1 stands for, times what units themselves
    /// say of it: the one or the other is NaN where a number of the row is not finite.
    fn measure(row: &[f32], units: &mut [Self::Unit]) -> f32;

    /// Lays out a unit of a tile's row.
    fn put_row(rows: &mut Self::Rows, row: usize, unit: &Self::Unit);

    /// Lays out a unit of a panel's row of weights.
    fn put_weights(weights: &mut Self::Weights, output: usize, unit: &Self::Unit);

    /// A tile's first `R` rows times a panel.
    fn multiply<S: Simd, const R: usize>(
        simd: S,
        dots: Dots,
        x: &[Self::Rows],
        weights: &[Self::Weights],
        ahead: &[Self::Weights],
        host: &impl Host,
    ) -> [[f32; OUTPUTS]; R];
}

/// A matrix of weights in whole numbers, packed.
#[derive(Clone, Debug)]
pub struct WholeWeights<K: Kind> {
    /// (panels, units of inputs): zeros after the last output, and after the last input.
    panels: Vec<K::Weights>,
    /// What 1 stands for in each output's row.
    scales: Vec<f32>,
    inputs: usize,
}

impl<K: Kind> WholeWeights<K> {
    /// Packs a row-major matrix of `outputs` rows.
    ///
    /// # Errors
    ///
    /// When rows are empty, or the length does not fit.
    pub fn pack(weight: &[f32], outputs: usize, inputs: usize) -> Result<Self, LinearError> {
        Shape::of(weight, outputs, inputs)?;
        let length = inputs.div_ceil(K::INPUTS);
        let mut panels = vec![K::Weights::default(); outputs.div_ceil(OUTPUTS) * length];
        let mut units = vec![K::Unit::default(); length];
        let measure = |(output, weights): (usize, &[f32])| {
            let scale = K::measure(weights, &mut units);
            for (to, unit) in panels[output / OUTPUTS * length..].iter_mut().zip(&units) {
                K::put_weights(to, output % OUTPUTS, unit);
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
        let x = Measured::<K>::new(x, inputs, threads, host);
        let bias = bias.unwrap_or_default();
        let panels: Vec<_> = (0..outputs.div_ceil(OUTPUTS)).map(|panel| self.panel(panel, bias)).collect();
        let pieces: Pieces<_> = cut(outputs, inputs, threads).pieces(out).into_iter().collect();
        let work = || widest().dispatch(Worker { x: &x, panels: &panels, activation, pieces: &pieces, host });
        run_on(host, threads.min(pieces.len()), &work);
        Ok(())
    }

    fn panel(&self, panel: usize, bias: &[f32]) -> Panel<'_, K> {
        let length = self.inputs.div_ceil(K::INPUTS);
        Panel {
            weights: &self.panels[panel * length..][..length],
            scales: of_panel(&self.scales, panel),
            bias: of_panel(bias, panel),
        }
    }
}

/// The weights of some outputs, zeros after the last.
struct Panel<'a, K: Kind> {
    weights: &'a [K::Weights],
    scales: [f32; OUTPUTS],
    bias: [f32; OUTPUTS],
}

/// Rows that go in, in whole numbers.
struct Measured<K: Kind> {
    /// (tiles of `ROWS` rows, units of inputs): zeros after the last row.
    tiles: Vec<K::Rows>,
    /// What 1 stands for in each row.
    scales: Vec<f32>,
}

impl<K: Kind> Measured<K> {
    fn new(x: &[f32], inputs: usize, threads: usize, host: &impl Host) -> Self {
        let (rows, length) = (x.len() / inputs, inputs.div_ceil(K::INPUTS));
        let mut measured =
            Self { tiles: vec![K::Rows::default(); rows.div_ceil(ROWS) * length], scales: vec![0.0; rows] };
        let tiles = measured.tiles.chunks_mut(MEASURED * length);
        let pieces = x.chunks(MEASURED * ROWS * inputs).zip(tiles).zip(measured.scales.chunks_mut(MEASURED * ROWS));
        let pieces: Pieces<_> = pieces.map(|((x, tiles), scales)| Measure::<K> { x, tiles, scales, inputs }).collect();
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
struct Measure<'a, K: Kind> {
    x: &'a [f32],
    tiles: &'a mut [K::Rows],
    scales: &'a mut [f32],
    inputs: usize,
}

impl<K: Kind> WithSimd for &mut Measure<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let length = self.inputs.div_ceil(K::INPUTS);
        let mut units = vec![K::Unit::default(); length];
        for (row, (x, scale)) in self.x.chunks_exact(self.inputs).zip(&mut *self.scales).enumerate() {
            *scale = K::measure(x, &mut units);
            for (to, unit) in self.tiles[row / ROWS * length..].iter_mut().zip(&units) {
                K::put_row(to, row % ROWS, unit);
            }
        }
    }
}

/// The greatest of some numbers without their signs, and a sum of zeros: NaN where a number is not finite.
#[inline(always)]
fn greatest(numbers: &[f32]) -> (f32, f32) {
    // Several sums at a time, so that they become vectors: the order of a greatest and of zeros changes nothing.
    let (whole, rest) = numbers.as_chunks::<16>();
    let (mut most, mut zeros) = ([0.0_f32; 16], [0.0_f32; 16]);
    for chunk in whole {
        for ((most, zero), x) in most.iter_mut().zip(&mut zeros).zip(chunk) {
            *most = if x.abs() > *most { x.abs() } else { *most };
            *zero += x * 0.0; // NaN for what is not finite
        }
    }
    let most = most.into_iter().chain(rest.iter().map(|x| x.abs())).fold(0.0, f32::max);
    let zero = zeros.into_iter().chain(rest.iter().map(|x| x * 0.0)).sum::<f32>();
    (most, zero)
}

/// How a product is cut: rows that stay in a cache in each piece.
fn cut(outputs: usize, inputs: usize, threads: usize) -> Cut {
    Cut { outputs, panel: OUTPUTS, rows: (CHUNK / (2 * inputs)).next_multiple_of(ROWS).max(ROWS), tile: ROWS, threads }
}

/// One thread's share: pieces, as long as there are any.
struct Worker<'a, 'out, K: Kind, H> {
    x: &'a Measured<K>,
    panels: &'a [Panel<'a, K>],
    activation: Activation,
    pieces: &'a Pieces<Piece<'out>>,
    host: &'a H,
}

impl<K: Kind, H: Host> WithSimd for Worker<'_, '_, K, H> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        #[cfg(target_arch = "x86_64")]
        if S::F32_LANES == 16
            && let Some(vnni) = Vnni::try_new()
        {
            return vnni.vectorize(ByVnni(self, simd, vnni));
        }
        self.multiply(simd, Dots::default());
    }
}

/// The same, to be compiled with one kind of instructions more.
#[cfg(target_arch = "x86_64")]
struct ByVnni<'a, 'out, K: Kind, H, S>(Worker<'a, 'out, K, H>, S, Vnni);

#[cfg(target_arch = "x86_64")]
impl<K: Kind, H: Host, S: Simd> pulp::NullaryFnOnce for ByVnni<'_, '_, K, H, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.multiply(self.1, Some(self.2));
    }
}

impl<K: Kind, H: Host> Worker<'_, '_, K, H> {
    #[inline(always)]
    fn multiply<S: Simd>(&self, simd: S, dots: Dots) {
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
                    let tile = &Tile { row, panel, ahead: ahead.next(), first };
                    match out.len() {
                        1 => self.tile::<S, 1>(simd, dots, tile, out),
                        2 => self.tile::<S, 2>(simd, dots, tile, out),
                        3 => self.tile::<S, 3>(simd, dots, tile, out),
                        4 => self.tile::<S, 4>(simd, dots, tile, out),
                        5 => self.tile::<S, 5>(simd, dots, tile, out),
                        _ => self.tile::<S, ROWS>(simd, dots, tile, out),
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&self, simd: S, dots: Dots, tile: &Tile<'_, K>, out: &mut [&mut [f32]]) {
        let &Tile { row, panel, ahead, first } = tile;
        let length = panel.weights.len();
        let x = &self.x.tiles[row / ROWS * length..][..length];
        let sums = K::multiply::<S, R>(simd, dots, x, panel.weights, ahead, self.host);
        for ((mut sums, of_row), out) in sums.into_iter().zip(&self.x.scales[row..]).zip(out) {
            for ((sum, scale), bias) in sums.iter_mut().zip(&panel.scales).zip(&panel.bias) {
                *sum = *sum * (of_row * scale) + bias; // a sum is large: with one of the two it may not fit
            }
            activate(simd, self.activation, &mut sums);
            store(&sums, &mut out[first..]);
        }
    }
}

/// Some rows times the weights of a panel, whose outputs begin at `first` of each row's part of the result.
struct Tile<'a, K: Kind> {
    row: usize,
    panel: &'a Panel<'a, K>,
    /// To be fetched meanwhile.
    ahead: &'a [K::Weights],
    first: usize,
}

#[cfg(test)]
mod tests;
