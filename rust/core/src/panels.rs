//! Small matrix products: one side packed into panels, as many columns of it in each as two vectors hold.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::array;
use std::ops::Range;

use pulp::{NullaryFnOnce, Simd};

use crate::transpose::put_columns;

/// Rows of a tile: 6 times 2 vectors of sums, 2 of the panel and 1 of the rows fill 16 registers but one.
const ROWS: usize = 6;
/// Numbers of a vector that is so long that there are 32 registers: they take the sums of two panels at once.
const LONG: usize = 16;
/// Numbers of a row that are met between two looks at where it ends: a head's 32 or 64 numbers are a multiple.
const BLOCK: usize = 8;

/// A matrix, (rows, columns), a panel after the other: (rows, two vectors) each, anything after the last column.
#[derive(Default)]
pub(crate) struct Panels {
    numbers: Vec<f32>,
    rows: usize,
}

/// Rows that are multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) numbers: &'a [f32],
    /// From one row to the next.
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

/// Columns of a product: of those asked for the first stands in column `skipped` of `width`.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) skipped: usize,
    pub(crate) width: usize,
}

impl Panels {
    /// Takes a matrix by its columns, each of `rows` numbers.
    #[inline(always)]
    pub(crate) fn fill_columns<'a, S: Simd>(
        &mut self,
        simd: S,
        rows: usize,
        columns: usize,
        column: impl Fn(usize) -> &'a [f32],
    ) {
        let wide = self.resize::<S>(rows, columns);
        for (panel, first) in self.numbers.chunks_exact_mut((rows * wide).max(1)).zip((0..columns).step_by(wide)) {
            let own = wide.min(columns - first);
            let own_column = |at: usize| &column(first + at)[..rows];
            put_columns(simd, own, own_column, panel, wide, |to, number| *to = number);
        }
    }

    /// Takes a matrix by its rows, each of `columns` numbers.
    #[inline(always)]
    pub(crate) fn fill_rows<'a, S: Simd>(&mut self, rows: usize, columns: usize, row: impl Fn(usize) -> &'a [f32]) {
        let wide = self.resize::<S>(rows, columns);
        for at in 0..rows {
            for (panel, part) in row(at).chunks(wide).enumerate() {
                self.numbers[(panel * rows + at) * wide..][..part.len()].copy_from_slice(part);
            }
        }
    }

    /// Makes room for a matrix; gives the columns of a panel.
    #[inline(always)]
    fn resize<S: Simd>(&mut self, rows: usize, columns: usize) -> usize {
        let wide = 2 * S::F32_LANES;
        self.rows = rows;
        self.numbers.resize(columns.div_ceil(wide) * wide * rows, 0.0);
        wide
    }

    /// Rows times some columns of some rows of the panels, as many as each has numbers.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd>(
        &self,
        simd: S,
        x: Rows<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Columns {
        let wide = 2 * S::F32_LANES;
        let panels = columns.start / wide..columns.end.div_ceil(wide);
        let width = panels.len() * wide;
        out.resize(out.len().max(x.count * width), 0.0);
        let skipped = columns.start - panels.start * wide;
        let panels = &self.numbers[(panels.start * self.rows + rows.start) * wide..];
        let columns = skipped..skipped + columns.len();
        simd.vectorize(Product { simd, x, length: rows.len(), panels, height: self.rows, columns, out, width });
        Columns { skipped, width }
    }
}

/// Rows that meet panels: a function of its own, as it is long and called from several places.
struct Product<'a, S> {
    simd: S,
    x: Rows<'a>,
    /// Of a row.
    length: usize,
    /// From the first number on that a row meets.
    panels: &'a [f32],
    /// Rows of a panel.
    height: usize,
    /// Those that are asked for, from the first panel on.
    columns: Range<usize>,
    out: &'a mut [f32],
    /// Of a row of `out`.
    width: usize,
}

impl<S: Simd> NullaryFnOnce for Product<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let lanes = S::F32_LANES;
        let mut panel = 0;
        while panel * 2 * lanes < self.width {
            let [second, fourth] = [1, 3].map(|vectors| (2 * panel + vectors) * lanes);
            // Of the first panel, and of the last, perhaps one vector alone is asked for.
            if self.columns.start >= second {
                self.with::<1, 1, 1>(panel);
            } else if self.columns.end <= second {
                self.with::<1, 0, 1>(panel);
            } else if lanes >= LONG && self.columns.end > fourth {
                self.with::<2, 0, 2>(panel);
                panel += 1;
            } else {
                self.with::<1, 0, 2>(panel);
            }
            panel += 1;
        }
    }
}

impl<S: Simd> Product<'_, S> {
    /// Multiplies all rows with some panels, and of each with so many of its two vectors from `FIRST` on.
    #[inline(always)]
    fn with<const PANELS: usize, const FIRST: usize, const VECTORS: usize>(&mut self, panel: usize) {
        for row in (0..self.x.count).step_by(ROWS) {
            match self.x.count - row {
                1 => self.tile::<1, PANELS, FIRST, VECTORS>(row, panel),
                2 => self.tile::<2, PANELS, FIRST, VECTORS>(row, panel),
                3 => self.tile::<3, PANELS, FIRST, VECTORS>(row, panel),
                4 => self.tile::<4, PANELS, FIRST, VECTORS>(row, panel),
                5 => self.tile::<5, PANELS, FIRST, VECTORS>(row, panel),
                _ => self.tile::<ROWS, PANELS, FIRST, VECTORS>(row, panel),
            }
        }
    }

    #[inline(always)]
    fn tile<const R: usize, const PANELS: usize, const FIRST: usize, const VECTORS: usize>(
        &mut self,
        first_row: usize,
        first_panel: usize,
    ) {
        let &mut Self { simd, x: Rows { numbers: x, stride, .. }, length, panels, height, width, .. } = self;
        let wide = 2 * S::F32_LANES;
        let x: [_; R] = array::from_fn(|row| x[(first_row + row) * stride..][..length].as_chunks::<BLOCK>());
        let panels: [_; PANELS] =
            array::from_fn(|panel| &panels[(first_panel + panel) * height * wide..][..length * wide]);
        let mut sums = [[[simd.splat_f32s(0.0); VECTORS]; PANELS]; R];
        let whole = length / BLOCK;
        for at in 0..whole {
            let x: [_; R] = array::from_fn(|row| &x[row].0[at]);
            let panels = panels.map(|panel| &panel[at * BLOCK * wide..][..BLOCK * wide]);
            for step in 0..BLOCK {
                let panels = panels.map(|panel| &panel[step * wide..][..wide]);
                add::<S, R, PANELS, FIRST, VECTORS>(simd, x.map(|x| x[step]), panels, &mut sums);
            }
        }
        for step in 0..length - whole * BLOCK {
            let panels = panels.map(|panel| &panel[(whole * BLOCK + step) * wide..][..wide]);
            add::<S, R, PANELS, FIRST, VECTORS>(simd, x.map(|x| x.1[step]), panels, &mut sums);
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (panel, sums) in sums.into_iter().enumerate() {
                let (to, _) = S::as_mut_simd_f32s(
                    &mut self.out[(first_row + row) * width + (first_panel + panel) * wide..][..wide],
                );
                to[FIRST..FIRST + VECTORS].copy_from_slice(&sums);
            }
        }
    }
}

#[inline(always)]
fn add<S: Simd, const R: usize, const PANELS: usize, const FIRST: usize, const VECTORS: usize>(
    simd: S,
    x: [f32; R],
    panels: [&[f32]; PANELS],
    sums: &mut [[[S::f32s; VECTORS]; PANELS]; R],
) {
    let weights: [[_; VECTORS]; PANELS] = panels.map(|panel| {
        let (panel, _) = S::as_simd_f32s(panel);
        array::from_fn(|vector| panel[FIRST + vector])
    });
    for (sums, x) in sums.iter_mut().zip(x) {
        let x = simd.splat_f32s(x);
        for (sums, weights) in sums.iter_mut().zip(weights) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = simd.mul_add_e_f32s(x, weight, *sum);
            }
        }
    }
}
