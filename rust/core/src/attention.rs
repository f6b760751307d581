//! Attention over packed texts, on a CPU: disentangled (`DeBERTa`, He et al. 2021, equations 2 to 4), rotated, windowed.
//!
//! ```text
//! score[i, j] = scale * q[i].k[j] + q[i].keys[row(i - j)] + k[j].queries[row(i - j)]
//! out[i]      = sum over j of softmax(score[i])[j] * v[j]                     (row: of a distance, `Positions`)
//! ```
//!
//! Distances may have numbers instead, which are added (`Positions::biases`): T5. Queries and keys may be turned by their places first (`Rotations`), and j may be near to i (`window`): `ModernBERT`.
//!
//! A piece of work is some heads of one text, which lie beside each other in memory, or some queries of it where there
//! are few. Scores are computed for a block of queries at a time: in texts of usual length they stay in the
//! second-level cache. A product with consecutive distances holds the position scores on its diagonals.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::ops::Range;
use std::sync::OnceLock;

use pulp::{Simd, WithSimd};

use crate::error::AttentionError;
use crate::host::{Host, Pieces, run_on, worthwhile};
use crate::number::Number;
use crate::panels::{Columns, Panels, Rows};
use crate::softmax::softmax;
use crate::transpose::{SIDE, put_columns};
use crate::vectors::{add, widest};

mod places;

use places::PositionPanels;
pub use places::{Positions, Rotations};

/// Queries of a block: a multiple of the rows of a tile.
const QUERIES: usize = 96;
/// Queries whose position scores are taken at a time: the fewer, the less of a product is off the diagonals.
const QUERY_STRIP: usize = 12;
/// The same of keys, whose scores are turned a square at a time.
const KEY_STRIP: usize = SIDE;
/// Values that are summed one after another: thousands that are alike lose more digits in one sum than in several.
const VALUES: usize = 256;
/// Pieces for each thread that there should be: texts are of many lengths.
const PIECES: usize = 4;
/// Most heads of a piece: of each subword they are 1 KiB in a row, where a head has 64 numbers. Not tuned.
const HEADS: usize = 4;

/// One layer's attention, and the subwords that it reads.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a, N> {
    /// (N, 3, `heads`, `head_dim`): queries, keys and values of the packed subwords.
    pub qkv: &'a [N],
    /// H.
    pub heads: usize,
    /// d.
    pub head_dim: usize,
    /// Of this layer.
    pub positions: Positions<'a>,
    /// Of queries and keys, if they are turned.
    pub rotations: Option<Rotations<'a>>,
    /// Subwords on either side that a query sees at most; none: it sees all.
    pub window: Option<usize>,
    /// Factor of query . key.
    pub scale: f32,
}

impl<N: Number> Attention<'_, N> {
    /// Fills `out` with values, averaged by the softmax of the scores within each text: (N, heads, `head_dim`).
    ///
    /// What a text becomes depends on that text alone, to the last bit, whatever the others and the number of threads.
    ///
    /// # Errors
    ///
    /// When the lengths do not fit each other, or a distance has no row.
    pub fn apply(self, lengths: &[i64], out: &mut [N], threads: usize, host: &impl Host) -> Result<(), AttentionError> {
        let (lengths, subwords) = self.check(lengths, out)?;
        if subwords == 0 {
            return Ok(());
        }
        let width = self.heads * self.head_dim;
        let work = lengths.iter().map(|&length| (length as u128).pow(2)).sum::<u128>() * 4 * width as u128;
        let threads = worthwhile(host, work, threads);
        let texts = lengths.iter().filter(|&&length| length > 0).count();
        let wanted = if threads == 1 { 1 } else { PIECES * threads };
        let heads = (self.heads * texts / wanted).clamp(1, HEADS.min(self.heads));
        let parts = wanted.div_ceil(self.heads * texts);
        // Each piece writes parts of rows of its own, which no other one can reach.
        let mut pieces = Vec::new();
        let (mut first, mut rest) = (0, out);
        for length in lengths.iter().copied().filter(|&length| length > 0) {
            let step = length.div_ceil(parts).next_multiple_of(QUERIES);
            for begin in (0..length).step_by(step) {
                let queries = begin..length.min(begin + step);
                let (own, others) = rest.split_at_mut(queries.len() * width);
                rest = others;
                let groups = (0..self.heads).step_by(heads).map(|head| head..self.heads.min(head + heads));
                let before = pieces.len();
                pieces.extend(groups.map(|heads| {
                    let out = Vec::with_capacity(queries.len());
                    Piece { heads, first, length, queries: queries.clone(), out }
                }));
                for row in own.chunks_exact_mut(width) {
                    for (piece, part) in pieces[before..].iter_mut().zip(row.chunks_mut(heads * self.head_dim)) {
                        piece.out.push(part);
                    }
                }
            }
            first += length;
        }
        let longest = lengths.iter().copied().max().unwrap_or_default();
        // 8 bytes for each distance and number of the width: 5 MB for texts of 400 subwords in the base size.
        let positions: Vec<_> = (0..self.heads).map(|_| OnceLock::new()).collect();
        let pieces = Pieces::from_iter(pieces);
        let work = || widest().dispatch(Worker { layer: &self, pieces: &pieces, positions: &positions, longest });
        run_on(host, threads.min(pieces.len()), &work);
        Ok(())
    }

    fn check(&self, lengths: &[i64], out: &[N]) -> Result<(Vec<usize>, usize), AttentionError> {
        let Positions { keys, queries, rows, by_distance, biases } = self.positions;
        let mut checked = Vec::with_capacity(lengths.len());
        for (text, &value) in lengths.iter().enumerate() {
            checked.push(usize::try_from(value).map_err(|_| AttentionError::Length { text, value })?);
        }
        let row = (self.heads as u128).saturating_mul(self.head_dim as u128).saturating_mul(3);
        if row == 0 {
            return Err(AttentionError::Empty);
        }
        let subwords = checked.iter().map(|&length| length as u128).sum::<u128>();
        for (name, values, row) in [("qkv", self.qkv.len(), row), ("out", out.len(), row / 3)] {
            let expected = subwords.saturating_mul(row);
            if values as u128 != expected {
                return Err(AttentionError::Values { name, values, expected });
            }
        }
        for (name, table) in [("keys", keys), ("queries", queries)] {
            let expected = (row / 3).saturating_mul(rows as u128);
            if let Some(table) = table.filter(|table| table.len() as u128 != expected) {
                return Err(AttentionError::Values { name, values: table.len(), expected });
            }
        }
        if let Some(biases) = biases {
            let expected = (self.heads as u128).saturating_mul(by_distance.len() as u128);
            if biases.len() as u128 != expected {
                return Err(AttentionError::Values { name: "biases", values: biases.len(), expected });
            }
        }
        let longest = checked.iter().copied().max().unwrap_or_default();
        if let Some(Rotations { cosines, sines }) = self.rotations {
            if !self.head_dim.is_multiple_of(2) {
                return Err(AttentionError::Odd { head_dim: self.head_dim });
            }
            let half = self.head_dim / 2;
            for (name, angles) in [("cosines", cosines.len()), ("sines", sines.len())] {
                if angles != cosines.len() || !angles.is_multiple_of(half) || angles / half < longest {
                    return Err(AttentionError::Angles { name, values: angles, half, longest });
                }
            }
        }
        let reaches = !by_distance.len().is_multiple_of(2) && by_distance.len() / 2 + 1 >= longest;
        if keys.or(queries).or(biases).is_some() && !reaches {
            return Err(AttentionError::Distances { values: by_distance.len(), longest });
        }
        if keys.or(queries).is_some()
            && let Some(index) =
                by_distance.iter().position(|&row| usize::try_from(row).map_or(true, |row| row >= rows))
        {
            return Err(AttentionError::Row { index, value: by_distance[index], rows });
        }
        let subwords = checked.iter().sum(); // of vectors that are in memory, or none
        Ok((checked, subwords))
    }

    /// Queries (0), keys (1) or values (2) of some places of the text that begins at `first`: of each head (places,
    /// `head_dim`), one after the other.
    #[inline(always)]
    fn gather(&self, kind: usize, first: usize, places: Range<usize>, heads: &Range<usize>, to: &mut Vec<f32>) {
        match self.rotations.filter(|_| kind < 2) {
            Some(angles) => {
                self.gather_with(kind, first, places, heads, to, |place, from, to| angles.turn(place, from, to));
            }
            None => self.gather_with(kind, first, places, heads, to, |_, from, to| {
                for (to, number) in to.iter_mut().zip(from) {
                    *to = number.widen();
                }
            }),
        }
    }

    #[inline(always)]
    fn gather_with(
        &self,
        kind: usize,
        first: usize,
        places: Range<usize>,
        heads: &Range<usize>,
        to: &mut Vec<f32>,
        take: impl Fn(usize, &[N], &mut [f32]),
    ) {
        let (d, count) = (self.head_dim, places.len());
        to.resize(heads.len() * count * d, 0.0);
        for (at, place) in places.enumerate() {
            let row = &self.qkv[(((first + place) * 3 + kind) * self.heads + heads.start) * d..][..heads.len() * d];
            for (from, to) in row.chunks_exact(d).zip(to.chunks_exact_mut(count * d)) {
                take(place, from, &mut to[at * d..][..d]);
            }
        }
    }

    /// The places that some places of a text see between them.
    #[inline(always)]
    fn seen_by(&self, places: &Range<usize>, length: usize) -> Range<usize> {
        let window = self.window.unwrap_or(length);
        places.start.saturating_sub(window)..places.end.saturating_add(window).min(length)
    }
}

/// Queries of some heads of one text.
struct Piece<'a, N> {
    heads: Range<usize>,
    /// First subword of the text.
    first: usize,
    length: usize,
    /// Counted in the text.
    queries: Range<usize>,
    /// Of each query (heads, `head_dim`).
    out: Vec<&'a mut [N]>,
}

/// One thread's share: pieces, as long as there are any.
struct Worker<'a, 'out, N> {
    layer: &'a Attention<'a, N>,
    pieces: &'a Pieces<Piece<'out, N>>,
    /// Of each head, once a thread has met it.
    positions: &'a [OnceLock<PositionPanels>],
    /// Subwords of the longest text.
    longest: usize,
}

impl<N: Number> WithSimd for Worker<'_, '_, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { layer, longest, .. } = self;
        let mut memory = Memory::default();
        while let Some(mut piece) = self.pieces.take() {
            let (first, own) = (piece.first, &piece.queries);
            let seen = layer.seen_by(own, piece.length);
            layer.gather(0, first, own.clone(), &piece.heads, &mut memory.queries);
            layer.gather(1, first, seen.clone(), &piece.heads, &mut memory.keys);
            layer.gather(2, first, seen, &piece.heads, &mut memory.values);
            for head in piece.heads.clone() {
                let positions = if let Some(made) = self.positions[head].get() {
                    made
                } else {
                    let made = PositionPanels::of(simd, &layer.positions, layer.head_dim, head, longest); // here, where there are vectors
                    self.positions[head].get_or_init(|| made) // where another thread was faster, they are the same
                };
                attend(simd, layer, &mut piece, head, positions, longest, &mut memory);
            }
        }
    }
}

/// What a thread keeps from piece to piece.
#[derive(Default)]
struct Memory {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scaled: Vec<f32>,
    key_panels: Panels,
    value_panels: Panels,
    scores: Vec<f32>,
    strip: Vec<f32>,
    context: Vec<f32>,
}

#[inline(always)]
fn attend<S: Simd, N: Number>(
    simd: S,
    layer: &Attention<'_, N>,
    piece: &mut Piece<'_, N>,
    head: usize,
    positions: &PositionPanels,
    longest: usize,
    memory: &mut Memory,
) {
    let &mut Piece { ref heads, length, queries: ref asked, ref mut out, .. } = piece;
    let (d, scale) = (layer.head_dim, layer.scale);
    let Memory { queries, keys, values, scaled, key_panels, value_panels, scores, strip, context } = memory;
    let head = head - heads.start;
    let all_seen = layer.seen_by(asked, length);
    let [queries, keys, values] = [(&*queries, asked.len()), (&*keys, all_seen.len()), (&*values, all_seen.len())]
        .map(|(all, rows)| &all[head * rows * d..][..rows * d]);
    scaled.clear();
    scaled.extend(keys.iter().map(|number| scale * number));
    key_panels.fill_columns(simd, d, all_seen.len(), |at| &scaled[at * d..(at + 1) * d]);
    value_panels.fill_rows::<S>(all_seen.len(), d, |at| &values[at * d..(at + 1) * d]);
    // A column of positions is the one of the longest text's last subword, less this text's last, and so on.
    let shorter = longest - length;
    for begin in asked.clone().step_by(QUERIES) {
        let block = begin..asked.end.min(begin + QUERIES);
        let own = &queries[(block.start - asked.start) * d..(block.end - asked.start) * d];
        let seen = layer.seen_by(&block, length);
        let among = seen.start - all_seen.start..seen.end - all_seen.start; // of the keys and values that are packed
        let Columns { skipped: before, width: stride } = key_panels.multiply(
            simd,
            Rows { numbers: own, stride: d, count: block.len() },
            0..d,
            among.clone(),
            scores,
        );
        if layer.positions.keys.is_some() {
            for at in (0..block.len()).step_by(QUERY_STRIP) {
                let count = QUERY_STRIP.min(block.len() - at);
                let left = shorter + length + seen.start - (block.start + at + count);
                let columns = left..left + seen.len() + count - 1;
                let Columns { skipped, width } = positions.keys.multiply(
                    simd,
                    Rows { numbers: &own[at * d..], stride: d, count },
                    0..d,
                    columns,
                    strip,
                );
                for (own, row) in scores.chunks_exact_mut(stride).skip(at).take(count).enumerate() {
                    let first = own * width + skipped + (count - 1 - own); // each query has a diagonal of its own
                    add(simd, &mut row[before..][..seen.len()], &strip[first..first + seen.len()]);
                }
            }
        }
        if layer.positions.queries.is_some() {
            for at in seen.clone().step_by(KEY_STRIP) {
                let count = KEY_STRIP.min(seen.end - at);
                let left = shorter + length - (at + count) + block.start;
                let columns = left..left + count + block.len() - 1;
                let keys = Rows { numbers: &keys[(at - all_seen.start) * d..], stride: d, count };
                let Columns { skipped, width } = positions.queries.multiply(simd, keys, 0..d, columns, strip);
                // The next key's score stands a row lower and a column to the left.
                let diagonals = &strip[skipped + count - 1..];
                let diagonal = |key: usize| &diagonals[key * (width - 1)..][..block.len()];
                let scores = &mut scores[before + at - seen.start..];
                put_columns(simd, count, diagonal, scores, stride, |to, number| *to += number);
            }
        }
        if layer.positions.biases.is_some() {
            for (at, row) in scores.chunks_exact_mut(stride).take(block.len()).enumerate() {
                let left = longest - 1 + seen.start - (block.start + at);
                add(simd, &mut row[before..][..seen.len()], &positions.biases[left..left + seen.len()]);
            }
        }
        let mut shares = [1.0; QUERIES];
        for (at, (share, row)) in shares.iter_mut().zip(scores.chunks_exact_mut(stride)).take(block.len()).enumerate() {
            let mut row = &mut row[before..][..seen.len()];
            if layer.window.is_some() {
                let own = layer.seen_by(&(block.start + at..block.start + at + 1), length);
                let (own, end) = (own.start - seen.start, own.end - seen.start);
                row[..own].fill(0.0);
                row[end..].fill(0.0);
                row = &mut row[own..end];
            }
            *share = 1.0 / softmax(simd, row);
        }
        let mut width = 0;
        for at in among.clone().step_by(VALUES) {
            let weights = Rows { numbers: &scores[before + at - among.start..], stride, count: block.len() };
            let sums = if at == among.start { &mut *context } else { &mut *strip };
            width = value_panels.multiply(simd, weights, at..among.end.min(at + VALUES), 0..d, sums).width;
            if at > among.start {
                add(simd, &mut context[..block.len() * width], &strip[..block.len() * width]);
            }
        }
        let rows = &mut out[block.start - asked.start..][..block.len()];
        for ((to, share), own) in rows.iter_mut().zip(shares).zip(context.chunks_exact(width)) {
            for (to, number) in to[head * d..][..d].iter_mut().zip(own) {
                *to = N::round(number * share);
            }
        }
    }
}

#[cfg(test)]
mod tests;
