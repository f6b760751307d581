//! Small matrix products: one side packed into panels, as many columns of it in each as two vectors hold.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::ops::Range;

use pulp::Simd;

/// Rows of a tile: 6 times 2 vectors of sums, 2 of the panel and 1 of the rows fill 16 registers but one.
const ROWS: usize = 6;

/// A matrix, (rows, columns), a panel after the other: (rows, two vectors) each, zeros after the last column.
#[derive(Default)]
pub(crate) struct Panels {
    numbers: Vec<f32>,
    rows: usize,
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
        rows: usize,
        columns: usize,
        column: impl Fn(usize) -> &'a [f32],
    ) {
        let wide = self.clear::<S>(rows, columns);
        for (panel, first) in self.numbers.chunks_exact_mut((rows * wide).max(1)).zip((0..columns).step_by(wide)) {
            for own in 0..wide.min(columns - first) {
                let to = panel.iter_mut().skip(own).step_by(wide);
                for (to, &from) in to.zip(column(first + own)) {
                    *to = from;
                }
            }
        }
    }

    /// Takes a matrix by its rows, each of `columns` numbers.
    #[inline(always)]
    pub(crate) fn fill_rows<'a, S: Simd>(&mut self, rows: usize, columns: usize, row: impl Fn(usize) -> &'a [f32]) {
        let wide = self.clear::<S>(rows, columns);
        for at in 0..rows {
            for (panel, part) in row(at).chunks(wide).enumerate() {
                self.numbers[(panel * rows + at) * wide..][..part.len()].copy_from_slice(part);
            }
        }
    }

    /// Columns of a panel.
    #[inline(always)]
    fn clear<S: Simd>(&mut self, rows: usize, columns: usize) -> usize {
        let wide = 2 * S::F32_LANES;
        self.rows = rows;
        self.numbers.clear();
        self.numbers.resize(columns.div_ceil(wide) * wide * rows, 0.0);
        wide
    }

    /// `count` rows of `x`, each `stride` after the other, times some columns.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd>(
        &self,
        simd: S,
        x: &[f32],
        stride: usize,
        count: usize,
        columns: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Columns {
        let wide = 2 * S::F32_LANES;
        let panels = columns.start / wide..columns.end.div_ceil(wide);
        let width = panels.len() * wide;
        out.resize(out.len().max(count * width), 0.0);
        let rows = self.rows;
        for (at, panel) in panels.clone().enumerate() {
            let panel = &self.numbers[panel * rows * wide..][..rows * wide];
            let mut row = 0;
            while row < count {
                let (x, out) = (&x[row * stride..], &mut out[row * width + at * wide..]);
                match count - row {
                    1 => tile::<S, 1>(simd, x, stride, rows, panel, out, width),
                    2 => tile::<S, 2>(simd, x, stride, rows, panel, out, width),
                    3 => tile::<S, 3>(simd, x, stride, rows, panel, out, width),
                    4 => tile::<S, 4>(simd, x, stride, rows, panel, out, width),
                    5 => tile::<S, 5>(simd, x, stride, rows, panel, out, width),
                    _ => tile::<S, ROWS>(simd, x, stride, rows, panel, out, width),
                }
                row += ROWS;
            }
        }
        Columns { skipped: columns.start - panels.start * wide, width }
    }
}

#[inline(always)]
fn tile<S: Simd, const R: usize>(
    simd: S,
    x: &[f32],
    stride: usize,
    length: usize,
    panel: &[f32],
    out: &mut [f32],
    width: usize,
) {
    let x = std::array::from_fn::<_, R, _>(|row| &x[row * stride..][..length]);
    let mut sums = [[simd.splat_f32s(0.0); 2]; R];
    for (at, panel) in panel.chunks_exact(2 * S::F32_LANES).take(length).enumerate() {
        let (weights, _) = S::as_simd_f32s(panel);
        let weights = [weights[0], weights[1]];
        for (sums, x) in sums.iter_mut().zip(x) {
            let number = simd.splat_f32s(x[at]);
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = simd.mul_add_e_f32s(number, weight, *sum);
            }
        }
    }
    for (row, sums) in sums.into_iter().enumerate() {
        let (to, _) = S::as_mut_simd_f32s(&mut out[row * width..][..2 * S::F32_LANES]);
        to.copy_from_slice(&sums);
    }
}
