//! Small squares of numbers, turned in registers.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::Simd;

/// Rows and columns of a square.
pub(crate) const SIDE: usize = 8;

/// Puts some columns, all of one length, to the numbers of a matrix whose rows are each `stride` after the other.
#[inline(always)]
pub(crate) fn put_columns<'a, S: Simd>(
    simd: S,
    count: usize,
    column: impl Fn(usize) -> &'a [f32],
    to: &mut [f32],
    stride: usize,
    put: impl Fn(&mut f32, f32),
) {
    let whole = count - count % SIDE;
    for first in (0..whole).step_by(SIDE) {
        let columns = std::array::from_fn(|at| column(first + at));
        put_square_by_square(simd, columns, &mut to[first..], stride, &put);
    }
    for at in whole..count {
        for (row, number) in to[at..].chunks_mut(stride).zip(column(at)) {
            put(&mut row[0], *number);
        }
    }
}

#[inline(always)]
fn put_square_by_square<S: Simd>(
    simd: S,
    columns: [&[f32]; SIDE],
    to: &mut [f32],
    stride: usize,
    put: impl Fn(&mut f32, f32),
) {
    debug_assert!(to.len() + stride >= columns[0].len() * stride + SIDE, "a row of the matrix for each number");
    let columns = columns.map(<[f32]>::as_chunks::<SIDE>);
    let mut rows = to.chunks_mut(stride).map(|row| row.first_chunk_mut::<SIDE>());
    let mut put_row = |numbers: [f32; SIDE]| {
        if let Some(Some(row)) = rows.next() {
            for (to, number) in row.iter_mut().zip(numbers) {
                put(to, number);
            }
        }
    };
    for square in 0..columns[0].0.len() {
        transpose(simd, columns.map(|column| column.0[square])).into_iter().for_each(&mut put_row);
    }
    for at in 0..columns[0].1.len() {
        put_row(columns.map(|column| column.1[at]));
    }
}

/// The rows of a square as its columns.
#[inline(always)]
fn transpose<S: Simd>(simd: S, rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    // The compiler does not find the instructions by itself.
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = crate::vectors::as_avx2(simd) {
        return by_avx(simd, rows);
    }
    let _ = simd;
    std::array::from_fn(|column| rows.map(|row| row[column]))
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn by_avx(simd: pulp::x86::V3, rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    use std::arch::x86_64::{__m256, __m256d};
    let avx = simd.avx;
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows.map(pulp::cast::<[f32; SIDE], __m256>);
    // Rows two by two: their first and fifth numbers, and what follows these, stand beside each other.
    let pair = |a, b| {
        let halves = [avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b)];
        halves.map(pulp::cast::<__m256, __m256d>)
    };
    // Four by four: each half of a vector is half of a column.
    let four = |[a, b]: [__m256d; 2], [c, d]: [__m256d; 2]| {
        let columns = [
            avx._mm256_unpacklo_pd(a, c),
            avx._mm256_unpackhi_pd(a, c),
            avx._mm256_unpacklo_pd(b, d),
            avx._mm256_unpackhi_pd(b, d),
        ];
        columns.map(pulp::cast::<__m256d, __m256>)
    };
    let upper = four(pair(r0, r1), pair(r2, r3));
    let lower = four(pair(r4, r5), pair(r6, r7));
    let mut columns = [[0.0; SIDE]; SIDE];
    for at in 0..SIDE / 2 {
        columns[at] = pulp::cast(avx._mm256_permute2f128_ps::<0x20>(upper[at], lower[at]));
        columns[at + SIDE / 2] = pulp::cast(avx._mm256_permute2f128_ps::<0x31>(upper[at], lower[at]));
    }
    columns
}

#[cfg(test)]
mod tests {
    use pulp::{Scalar, WithSimd};

    use super::*;
    use crate::vectors::widest;

    struct Turn([[f32; SIDE]; SIDE]);

    impl WithSimd for Turn {
        type Output = [[f32; SIDE]; SIDE];

        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            transpose(simd, self.0)
        }
    }

    #[test]
    fn rows_become_columns() {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let number = |row: usize, column: usize| (row * SIDE + column) as f32;
        let rows = std::array::from_fn(|row| std::array::from_fn(|column| number(row, column)));
        let columns: [[f32; SIDE]; SIDE] = std::array::from_fn(|column| std::array::from_fn(|row| number(row, column)));
        assert_eq!(widest().dispatch(Turn(rows)), columns);
        assert_eq!(Turn(rows).with_simd(Scalar::new()), columns);
    }
}
