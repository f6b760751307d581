//! Disentangled attention over packed texts (`DeBERTa`, He et al. 2021, equations 2 to 4), on a CPU.
//!
//! ```text
//! score[i, j] = scale * q[i].k[j] + q[i].keys[row(i - j)] + k[j].queries[row(i - j)]
//! out[i]      = sum over j of softmax(score[i])[j] * v[j]                     (row: of a distance, `Positions`)
//! ```
//!
//! A piece of work is one head of one text, or some queries of it where there are few. Its scores are computed for a
//! block of queries at a time: in texts of usual length they stay in the second-level cache. A product with consecutive
//! distances holds the position scores on its diagonals.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::error::AttentionError;
use crate::host::{Host, Pieces, run_on, worthwhile};
use crate::panels::{Columns, Panels};
use crate::softmax::softmax;

/// Queries of a block: a multiple of the rows of a tile.
const QUERIES: usize = 96;
/// Queries, or keys, whose position scores are taken at a time: the fewer, the less of a product is off the diagonals.
const STRIP: usize = 12;
/// Pieces for each thread that there should be: texts are of many lengths.
const PIECES: usize = 4;

/// What a layer knows of distances, scaled as the scores are.
#[derive(Clone, Copy, Debug)]
pub struct Positions<'a> {
    /// (heads, `rows`, d), what queries are multiplied with; none without content-to-position scores.
    pub keys: Option<&'a [f32]>,
    /// (heads, `rows`, d), what keys are multiplied with; none without position-to-content scores.
    pub queries: Option<&'a [f32]>,
    /// Rows of each head in both.
    pub rows: usize,
    /// The row of the distances `-(M - 1)..M`, (2M - 1,); M is at least the longest text.
    pub by_distance: &'a [i32],
}

/// One layer's attention, and the subwords that it reads.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// (N, 3, `heads`, `head_dim`): queries, keys and values of the packed subwords.
    pub qkv: &'a [f32],
    /// H.
    pub heads: usize,
    /// d.
    pub head_dim: usize,
    /// Of this layer.
    pub positions: Positions<'a>,
    /// Factor of query . key.
    pub scale: f32,
}

impl Attention<'_> {
    /// Values, averaged by the softmax of the scores within each text: (heads, N, `head_dim`).
    ///
    /// What a text becomes depends on that text alone, to the last bit, whatever the others and the number of threads.
    ///
    /// # Errors
    ///
    /// When the lengths do not fit each other, or a distance has no row.
    pub fn apply(self, lengths: &[i64], threads: usize, host: &impl Host) -> Result<Vec<f32>, AttentionError> {
        let (lengths, subwords) = self.check(lengths)?;
        if subwords == 0 {
            return Ok(Vec::new());
        }
        let width = self.heads * self.head_dim;
        let work = lengths.iter().map(|&length| (length as u128).pow(2)).sum::<u128>() * 4 * width as u128;
        let threads = worthwhile(host, work, threads);
        let texts = lengths.iter().filter(|&&length| length > 0).count();
        let parts = if threads == 1 { 1 } else { (PIECES * threads).div_ceil(self.heads * texts) };
        let mut out = vec![0.0; subwords * width];
        // Each piece writes a part of its own, which no other one can reach.
        let mut pieces = Vec::new();
        let mut rest = out.as_mut_slice();
        for head in 0..self.heads {
            let mut first = 0;
            for &length in &lengths {
                let step = length.div_ceil(parts).next_multiple_of(QUERIES);
                for begin in (0..length).step_by(step.max(1)) {
                    let queries = begin..length.min(begin + step);
                    let (own, others) = rest.split_at_mut(queries.len() * self.head_dim);
                    rest = others;
                    pieces.push(Piece { head, first, length, queries, out: own });
                }
                first += length;
            }
        }
        let longest = lengths.iter().copied().max().unwrap_or_default();
        let pieces = Pieces::from_iter(pieces);
        let work = || Arch::new().dispatch(Worker { layer: &self, pieces: &pieces, longest });
        run_on(host, threads.min(pieces.len()), &work);
        drop(pieces);
        Ok(out)
    }

    fn check(&self, lengths: &[i64]) -> Result<(Vec<usize>, usize), AttentionError> {
        let Positions { keys, queries, rows, by_distance } = self.positions;
        let mut checked = Vec::with_capacity(lengths.len());
        for (text, &value) in lengths.iter().enumerate() {
            checked.push(usize::try_from(value).map_err(|_| AttentionError::Length { text, value })?);
        }
        let row = (self.heads as u128).saturating_mul(self.head_dim as u128).saturating_mul(3);
        if row == 0 {
            return Err(AttentionError::Empty);
        }
        let subwords = checked.iter().map(|&length| length as u128).sum::<u128>();
        let expected = subwords.saturating_mul(row);
        if self.qkv.len() as u128 != expected {
            return Err(AttentionError::Values { name: "qkv", values: self.qkv.len(), expected });
        }
        for (name, table) in [("keys", keys), ("queries", queries)] {
            let expected = (row / 3).saturating_mul(rows as u128);
            if let Some(table) = table.filter(|table| table.len() as u128 != expected) {
                return Err(AttentionError::Values { name, values: table.len(), expected });
            }
        }
        if keys.or(queries).is_some() {
            let longest = checked.iter().copied().max().unwrap_or_default();
            if by_distance.len().is_multiple_of(2) || by_distance.len() / 2 + 1 < longest {
                return Err(AttentionError::Distances { values: by_distance.len(), longest });
            }
            if let Some(index) =
                by_distance.iter().position(|&row| usize::try_from(row).map_or(true, |row| row >= rows))
            {
                return Err(AttentionError::Row { index, value: by_distance[index], rows });
            }
        }
        let subwords = checked.iter().sum(); // of vectors that are in memory, or none
        Ok((checked, subwords))
    }

    /// A query (0), key (1) or value (2) of a subword.
    #[inline(always)]
    fn vector(&self, subword: usize, kind: usize, head: usize) -> &[f32] {
        &self.qkv[((subword * 3 + kind) * self.heads + head) * self.head_dim..][..self.head_dim]
    }

    /// The row of a table for the distance `place - (longest - 1)`.
    #[inline(always)]
    fn table_row<'t>(&self, table: &'t [f32], head: usize, longest: usize, place: usize) -> &'t [f32] {
        let by_distance = self.positions.by_distance;
        let at = by_distance.len() / 2 + place - (longest - 1);
        let row = usize::try_from(by_distance[at]).unwrap_or_default(); // `check` has refused negative ones
        &table[(head * self.positions.rows + row) * self.head_dim..][..self.head_dim]
    }
}

/// Queries of one head of one text.
struct Piece<'a> {
    head: usize,
    /// First subword of the text.
    first: usize,
    length: usize,
    /// Counted in the text.
    queries: Range<usize>,
    /// (queries, `head_dim`).
    out: &'a mut [f32],
}

/// One thread's share: pieces, as long as there are any.
struct Worker<'a, 'out> {
    layer: &'a Attention<'a>,
    pieces: &'a Pieces<Piece<'out>>,
    /// Subwords of the longest text.
    longest: usize,
}

impl WithSimd for Worker<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut memory = Memory::default();
        while let Some(mut piece) = self.pieces.take() {
            attend(simd, self.layer, &mut piece, self.longest, &mut memory);
        }
    }
}

/// What a thread keeps from piece to piece.
#[derive(Default)]
struct Memory {
    queries: Vec<f32>,
    key_rows: Vec<f32>,
    scaled: Vec<f32>,
    keys: Panels,
    values: Panels,
    positions: PositionPanels,
    scores: Vec<f32>,
    strip: Vec<f32>,
    context: Vec<f32>,
}

/// One head's vectors of all distances that the longest text has, M - 1 in both directions.
///
/// Column x is the distance M - 1 - x for the keys, which a row of scores meets from left to right; for the queries x -
/// (M - 1), which a column of scores meets from top to bottom.
#[derive(Default)]
struct PositionPanels {
    head: Option<usize>,
    keys: Panels,
    queries: Panels,
}

impl PositionPanels {
    #[inline(always)]
    fn fill<S: Simd>(&mut self, layer: &Attention<'_>, head: usize, longest: usize) {
        if self.head.replace(head) == Some(head) {
            return;
        }
        let (d, distances) = (layer.head_dim, 2 * longest - 1);
        if let Some(table) = layer.positions.keys {
            let row = |x| layer.table_row(table, head, longest, distances - 1 - x);
            self.keys.fill_columns::<S>(d, distances, row);
        }
        if let Some(table) = layer.positions.queries {
            self.queries.fill_columns::<S>(d, distances, |x| layer.table_row(table, head, longest, x));
        }
    }
}

#[inline(always)]
fn attend<S: Simd>(simd: S, layer: &Attention<'_>, piece: &mut Piece<'_>, longest: usize, memory: &mut Memory) {
    let &mut Piece { head, first, length, queries: ref asked, ref mut out } = piece;
    let (d, scale) = (layer.head_dim, layer.scale);
    let Memory { queries, key_rows, scaled, keys, values, positions, scores, strip, context } = memory;
    queries.clear();
    for at in asked.clone() {
        queries.extend_from_slice(layer.vector(first + at, 0, head));
    }
    key_rows.clear();
    for at in 0..length {
        key_rows.extend_from_slice(layer.vector(first + at, 1, head));
    }
    scaled.clear();
    scaled.extend(key_rows.iter().map(|number| scale * number));
    keys.fill_columns::<S>(d, length, |at| &scaled[at * d..(at + 1) * d]);
    values.fill_rows::<S>(length, d, |at| layer.vector(first + at, 2, head));
    positions.fill::<S>(layer, head, longest);
    let shorter = longest - length; // columns that this text leaves out on either side
    for begin in asked.clone().step_by(QUERIES) {
        let block = begin..asked.end.min(begin + QUERIES);
        let own = &queries[(block.start - asked.start) * d..(block.end - asked.start) * d];
        let stride = keys.multiply(simd, own, d, block.len(), 0..length, scores).width;
        if layer.positions.keys.is_some() {
            for at in (0..block.len()).step_by(STRIP) {
                let count = STRIP.min(block.len() - at);
                let left = shorter + length - (block.start + at + count);
                let columns = left..left + length + count - 1;
                let Columns { skipped, width } =
                    positions.keys.multiply(simd, &own[at * d..], d, count, columns, strip);
                for (own, row) in scores.chunks_exact_mut(stride).skip(at).take(count).enumerate() {
                    let first = own * width + skipped + (count - 1 - own); // each query has a diagonal of its own
                    add(simd, &mut row[..length], &strip[first..first + length]);
                }
            }
        }
        if layer.positions.queries.is_some() {
            for at in (0..length).step_by(STRIP) {
                let keys = at..length.min(at + STRIP);
                let left = shorter + length - keys.end + block.start;
                let columns = left..left + keys.len() + block.len() - 1;
                let rows = &key_rows[keys.start * d..];
                let Columns { skipped, width } = positions.queries.multiply(simd, rows, d, keys.len(), columns, strip);
                for (own, row) in scores.chunks_exact_mut(stride).take(block.len()).enumerate() {
                    // The next key's score stands a row lower and a column to the left.
                    let diagonal = strip[skipped + keys.len() - 1 + own..].iter().step_by(width - 1);
                    for (score, more) in row[keys.clone()].iter_mut().zip(diagonal) {
                        *score += more;
                    }
                }
            }
        }
        let mut sums = [1.0; QUERIES];
        for (sum, row) in sums.iter_mut().zip(scores.chunks_exact_mut(stride)).take(block.len()) {
            *sum = softmax(simd, &mut row[..length]);
        }
        let width = values.multiply(simd, scores, stride, block.len(), 0..d, context).width;
        let to = &mut out[(block.start - asked.start) * d..(block.end - asked.start) * d];
        for (own, to) in to.chunks_exact_mut(d).enumerate() {
            for (to, number) in to.iter_mut().zip(&context[own * width..]) {
                *to = number / sums[own];
            }
        }
    }
}

/// Adds numbers to others.
#[inline(always)]
fn add<S: Simd>(simd: S, to: &mut [f32], from: &[f32]) {
    let ((to, to_rest), (from, from_rest)) = (S::as_mut_simd_f32s(to), S::as_simd_f32s(from));
    for (to, from) in to.iter_mut().zip(from) {
        *to = simd.add_f32s(*to, *from);
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        *to += from;
    }
}

#[cfg(test)]
mod tests;
