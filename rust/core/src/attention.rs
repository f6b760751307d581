//! Disentangled attention over packed texts (`DeBERTa`, He et al. 2021, equations 2 to 4), on a CPU.
//!
//! ```text
//! score[i, j] = scale * q[i].k[j] + q[i].keys[row(i - j)] + k[j].queries[row(i - j)]
//! out[i]      = sum over j of softmax(score[i])[j] * v[j]                     (row: of a distance, `Positions`)
//! ```
//!
//! A piece of work is one head of one text. Its scores are computed for a block of queries at a time, so that they and
//! all that is added to them stay in the second-level cache. A product with consecutive distances holds the position
//! scores on its diagonals.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use pulp::{Arch, Simd, WithSimd};

use crate::error::AttentionError;
use crate::host::{Host, worthwhile};
use crate::panels::{Columns, Panels};
use crate::softmax::softmax;

/// Queries of a block: a multiple of the rows of a tile.
const QUERIES: usize = 96;
/// Keys whose distances to a block of queries are taken at a time.
const KEYS: usize = 12;

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
        let width = self.heads * self.head_dim;
        let mut out = vec![0.0; subwords * width];
        // Each piece writes a part of its own, which no other one can reach.
        let mut pieces = Vec::with_capacity(self.heads * lengths.len());
        let mut rest = out.as_mut_slice();
        for head in 0..self.heads {
            let mut first = 0;
            for &length in &lengths {
                let (own, others) = rest.split_at_mut(length * self.head_dim);
                rest = others;
                if length > 0 {
                    pieces.push(Mutex::new(Piece { head, first, length, out: own }));
                }
                first += length;
            }
        }
        let work = lengths.iter().map(|&length| (length * length) as u128).sum::<u128>() * 4 * width as u128;
        let threads = worthwhile(host, work, threads).min(pieces.len());
        let next = AtomicUsize::new(0);
        let work = || Arch::new().dispatch(Worker { layer: &self, pieces: &pieces, next: &next });
        if threads <= 1 {
            work();
        } else {
            host.run(threads, &work);
        }
        drop(pieces);
        Ok(out)
    }

    fn check(&self, lengths: &[i64]) -> Result<(Vec<usize>, usize), AttentionError> {
        let Positions { keys, queries, rows, by_distance } = self.positions;
        let mut checked = Vec::with_capacity(lengths.len());
        for (text, &value) in lengths.iter().enumerate() {
            checked.push(usize::try_from(value).map_err(|_| AttentionError::Length { text, value })?);
        }
        let row = 3 * self.heads as u128 * self.head_dim as u128;
        if row == 0 {
            return Err(AttentionError::Empty);
        }
        let subwords = checked.iter().map(|&length| length as u128).sum::<u128>();
        if self.qkv.len() as u128 != subwords * row {
            return Err(AttentionError::Values { name: "qkv", values: self.qkv.len(), expected: subwords * row });
        }
        for (name, table) in [("keys", keys), ("queries", queries)] {
            let expected = row / 3 * rows as u128;
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
        Ok((checked, self.qkv.len() / (3 * self.heads * self.head_dim)))
    }

    /// A query (0), key (1) or value (2) of a subword.
    #[inline(always)]
    fn vector(&self, subword: usize, kind: usize, head: usize) -> &[f32] {
        &self.qkv[((subword * 3 + kind) * self.heads + head) * self.head_dim..][..self.head_dim]
    }

    /// The row of a table for the distance `place - (length - 1)`.
    #[inline(always)]
    fn table_row<'t>(&self, table: &'t [f32], head: usize, length: usize, place: usize) -> &'t [f32] {
        let by_distance = self.positions.by_distance;
        let at = by_distance.len() / 2 + place - (length - 1);
        let row = usize::try_from(by_distance[at]).unwrap_or_default(); // `check` has refused negative ones
        &table[(head * self.positions.rows + row) * self.head_dim..][..self.head_dim]
    }
}

/// One head of one text.
struct Piece<'a> {
    head: usize,
    /// First subword of the text.
    first: usize,
    length: usize,
    /// (length, `head_dim`).
    out: &'a mut [f32],
}

/// One thread's share: pieces, as long as there are any.
struct Worker<'a, 'out> {
    layer: &'a Attention<'a>,
    pieces: &'a [Mutex<Piece<'out>>],
    next: &'a AtomicUsize,
}

impl WithSimd for Worker<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut memory = Memory::default();
        while let Some(piece) = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let mut piece = piece.lock().unwrap_or_else(PoisonError::into_inner);
            attend(simd, self.layer, &mut piece, &mut memory);
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
    position_keys: Panels,
    position_queries: Panels,
    scores: Vec<f32>,
    strip: Vec<f32>,
    context: Vec<f32>,
}

#[inline(always)]
fn attend<S: Simd>(simd: S, layer: &Attention<'_>, piece: &mut Piece<'_>, memory: &mut Memory) {
    let &mut Piece { head, first, length, ref mut out } = piece;
    let (d, scale) = (layer.head_dim, layer.scale);
    let Memory { queries, key_rows, scaled, keys, values, position_keys, position_queries, scores, strip, context } =
        memory;
    for (rows, kind, factor) in [(&mut *queries, 0, 1.0), (&mut *key_rows, 1, 1.0), (&mut *scaled, 1, scale)] {
        rows.clear();
        rows.extend((0..length).flat_map(|at| layer.vector(first + at, kind, head)).map(|number| factor * number));
    }
    keys.fill_columns::<S>(d, length, |at| &scaled[at * d..(at + 1) * d]);
    values.fill_rows::<S>(length, d, |at| layer.vector(first + at, 2, head));
    // Column x is the distance length - 1 - x for the keys, which a row of scores meets from left to right; for the
    // queries x - (length - 1), which a column of scores meets from top to bottom.
    let distances = 2 * length - 1;
    if let Some(table) = layer.positions.keys {
        position_keys.fill_columns::<S>(d, distances, |x| layer.table_row(table, head, length, distances - 1 - x));
    }
    if let Some(table) = layer.positions.queries {
        position_queries.fill_columns::<S>(d, distances, |x| layer.table_row(table, head, length, x));
    }
    for begin in (0..length).step_by(QUERIES) {
        let count = QUERIES.min(length - begin);
        let block = &queries[begin * d..(begin + count) * d];
        let stride = keys.multiply(simd, block, d, count, 0..length, scores).width;
        if layer.positions.keys.is_some() {
            let left = length - (begin + count);
            let Columns { skipped, width } =
                position_keys.multiply(simd, block, d, count, left..left + length + count - 1, strip);
            for (own, row) in scores.chunks_exact_mut(stride).take(count).enumerate() {
                let at = own * width + skipped + (count - 1 - own); // each query has a diagonal of its own
                add(simd, &mut row[..length], &strip[at..at + length]);
            }
        }
        if layer.positions.queries.is_some() {
            for first_key in (0..length).step_by(KEYS) {
                let keys = first_key..length.min(first_key + KEYS);
                let block = &key_rows[keys.start * d..keys.end * d];
                let left = length - keys.end + begin;
                let Columns { skipped, width } =
                    position_queries.multiply(simd, block, d, keys.len(), left..left + keys.len() + count - 1, strip);
                for (own, row) in scores.chunks_exact_mut(stride).take(count).enumerate() {
                    // The next key's score stands a row lower and a column to the left.
                    let diagonal = strip[skipped + keys.len() - 1 + own..].iter().step_by((width - 1).max(1));
                    for (score, more) in row[keys.clone()].iter_mut().zip(diagonal) {
                        *score += more;
                    }
                }
            }
        }
        let mut sums = [1.0; QUERIES];
        for (sum, row) in sums.iter_mut().zip(scores.chunks_exact_mut(stride)).take(count) {
            *sum = softmax(simd, &mut row[..length]);
        }
        let width = values.multiply(simd, scores, stride, count, 0..d, context).width;
        for (own, to) in out[begin * d..(begin + count) * d].chunks_exact_mut(d).enumerate() {
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
