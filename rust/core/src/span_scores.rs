//! Span scores on a CPU: the spans whose logit is high enough, no other number ever stored.
//!
//! ```text
//! logit[i, k, t] = relu(u[i] + v[i + k]) . g[t] + c[t]        (GLiNER, equation 1, with the head factored)
//! ```
//!
//! A piece of work is a few neighbouring start words of one text with all their widths and types. It goes through the
//! sum in blocks of `BLOCK` numbers, so that the rows it reads again and again stay in the first-level cache, and
//! within a block in tiles of a few spans and types, whose sums stay in registers. Many types it takes up in groups.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use pulp::{Simd, WithSimd};

use crate::candidates::{LikelySpans, LogitBounds, ScoredSpans, Shape};
use crate::error::CandidateError;
use crate::host::{Host, worthwhile};
use crate::offsets::Offsets;
use crate::span_tile::{Tile, add_tile, spans_of_tile, types_of_tile};
use crate::vectors::widest;

/// Numbers of a row that are summed before the next rows are taken up: 1 KiB, and a multiple of every vector's length.
/// 12 rows of `v`, one of `u` and 5 of `g` then fit a first-level cache of 32 KiB with room to spare.
const BLOCK: usize = 256;
/// Start words of a piece, unless spans are so wide that its sums would leave the second-level cache.
const STARTS: usize = 8;
/// Most types that a piece takes up at a time: a block of their rows, 64 KiB, stays in the second-level cache for all
/// of its start words, and so do their sums.
const TYPES: usize = 64;
/// Sums that a piece keeps, each of a vector; of 32 bytes they are 256 KiB.
const SUMS: usize = 8192;

/// The factored head's output for a batch of texts, each a row-major matrix of `hidden` columns.
#[derive(Clone, Copy, Debug)]
pub struct Factors<'a> {
    /// Start halves of the packed words, bias included.
    pub u: &'a [f32],
    /// End halves of the packed words.
    pub v: &'a [f32],
    /// The texts' entity types after the second layer, packed.
    pub g: &'a [f32],
    /// Their constants.
    pub c: &'a [f32],
    /// H, the length of a row.
    pub hidden: usize,
}

/// Finds the spans whose probability may pass its threshold: what [`find_likely`](crate::find_likely) finds among the
/// logits of all spans, which are stored nowhere.
///
/// The answer for a text depends on nothing but the text, whatever the other texts and the number of `threads`.
///
/// # Errors
///
/// As [`find_likely`](crate::find_likely), and when rows are empty.
pub fn find_spans(
    factors: Factors<'_>,
    word_counts: &[i64],
    class_counts: &[i64],
    max_width: i64,
    thresholds: &[f32],
    threads: usize,
    host: &impl Host,
) -> Result<LikelySpans, CandidateError> {
    let shape = Shape::check(word_counts, class_counts, max_width)?;
    let bounds = LogitBounds::of(thresholds, &shape)?;
    check_factors(factors, &shape)?;
    Ok(bounds.judge(find_reaching(factors, &shape, &bounds.least, threads, host), &shape))
}

fn check_factors(factors: Factors<'_>, shape: &Shape) -> Result<(), CandidateError> {
    if factors.hidden == 0 {
        return Err(CandidateError::Hidden); // rows of nothing could be said to be any number
    }
    let hidden = factors.hidden as u128;
    let total = |counts: &[usize]| counts.iter().map(|&count| count as u128).sum::<u128>();
    let (all_words, all_classes) = (total(&shape.words), total(&shape.classes));
    for (name, values, expected) in [
        ("u", factors.u, all_words.saturating_mul(hidden)),
        ("v", factors.v, all_words.saturating_mul(hidden)),
        ("g", factors.g, all_classes.saturating_mul(hidden)),
        ("c", factors.c, all_classes),
    ] {
        if values.len() as u128 != expected {
            return Err(CandidateError::Factor { name, values: values.len(), expected });
        }
    }
    Ok(())
}

/// Finds the spans whose logit is at least the bound of their type; nothing reaches a bound that is NaN, and no NaN
/// reaches a bound.
fn find_reaching(factors: Factors<'_>, shape: &Shape, bounds: &[f32], threads: usize, host: &impl Host) -> ScoredSpans {
    let batch = Batch { factors, bounds, max_width: shape.width };
    let pieces = cut(&shape.words, &shape.classes, shape.width);
    let work: u128 = pieces.iter().map(|piece| piece.multiply_adds(&batch)).sum();
    let threads = worthwhile(host, work, threads).min(pieces.len());
    let mut hits = compute(&batch, &pieces, threads, host);
    hits.sort_unstable_by_key(|own| own.piece);

    let mut found = ScoredSpans { text_offsets: Offsets::with_capacity(shape.words.len()), ..ScoredSpans::default() };
    let mut hits = hits.into_iter().peekable();
    for text in 0..shape.words.len() {
        while let Some(own) = hits.next_if(|own| pieces[own.piece].text == text) {
            for hit in own.hits {
                found.starts.push(hit.start);
                found.ends.push(hit.end);
                found.classes.push(hit.class);
                found.scores.push(hit.logit);
            }
        }
        found.text_offsets.push(found.scores.len());
    }
    found
}

#[derive(Clone, Copy)]
struct Batch<'a> {
    factors: Factors<'a>,
    bounds: &'a [f32],
    max_width: usize,
}

/// Neighbouring start words of a text.
struct Piece {
    text: usize,
    /// First word of the text, counted through the batch.
    first_word: usize,
    /// Words of the text.
    words: usize,
    /// Entity types of the text, counted through the batch.
    types: Range<usize>,
    /// Start words, counted in the text.
    starts: Range<usize>,
}

impl Piece {
    fn multiply_adds(&self, batch: &Batch<'_>) -> u128 {
        (self.starts.len() as u128)
            * (batch.max_width.min(self.words) as u128)
            * (self.types.len() as u128)
            * (batch.factors.hidden as u128)
    }
}

struct Hit {
    start: usize,
    end: usize,
    class: usize,
    logit: f32,
}

struct PieceHits {
    piece: usize,
    hits: Vec<Hit>,
}

/// Cuts the texts that have spans and types to score into pieces.
fn cut(words: &[usize], classes: &[usize], max_width: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut first_word, mut first_type) = (0, 0);
    for (text, (&words, &classes)) in words.iter().zip(classes).enumerate() {
        let types = first_type..first_type + classes;
        // Where there are no words or types, there is nothing to divide by, and no piece.
        if let Some(starts) = SUMS.checked_div(max_width.min(words).saturating_mul(classes.min(TYPES))) {
            let step = starts.clamp(1, STARTS);
            pieces.extend((0..words).step_by(step).map(|start| Piece {
                text,
                first_word,
                words,
                types: types.clone(),
                starts: start..words.min(start + step),
            }));
        }
        first_word += words;
        first_type = types.end;
    }
    pieces
}

/// All hits, pieces in no order.
fn compute(batch: &Batch<'_>, pieces: &[Piece], threads: usize, host: &impl Host) -> Vec<PieceHits> {
    let next = AtomicUsize::new(0);
    let run = || widest().dispatch(Worker { batch, pieces, next: &next });
    if threads <= 1 {
        return run();
    }
    let all = Mutex::new(Vec::new());
    host.run(threads, &|| {
        let own = run();
        all.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// One thread's share: pieces, as long as there are any.
struct Worker<'a> {
    batch: &'a Batch<'a>,
    pieces: &'a [Piece],
    next: &'a AtomicUsize,
}

impl WithSimd for Worker<'_> {
    type Output = Vec<PieceHits>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<PieceHits> {
        let (mut found, mut sums) = (Vec::new(), Vec::new());
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = self.pieces.get(number) else {
                return found;
            };
            let mut hits = Vec::new();
            for types in groups(&piece.types) {
                add_up(simd, self.batch, piece, &types, &mut sums);
                pick(simd, self.batch, piece, &types, &sums, &mut hits);
            }
            if piece.types.len() > TYPES {
                hits.sort_unstable_by_key(|hit| (hit.start, hit.end, hit.class));
            }
            if !hits.is_empty() {
                found.push(PieceHits { piece: number, hits });
            }
        }
    }
}

/// Types in as few and as equal groups as can be, of at most `TYPES`.
fn groups(types: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let (first, len, count) = (types.start, types.len(), types.len().div_ceil(TYPES));
    (0..count).map(move |group| first + len * group / count..first + len * (group + 1) / count)
}

/// Fills `sums` with the products of a piece with some of its types, (starts, widths, types), each spread over a vector.
#[inline(always)]
fn add_up<S: Simd>(simd: S, batch: &Batch<'_>, piece: &Piece, own_types: &Range<usize>, sums: &mut Vec<S::f32s>) {
    let Factors { u, v, g, hidden, .. } = batch.factors;
    let (types, widths) = (own_types.len(), batch.max_width.min(piece.words));
    sums.clear();
    sums.resize(piece.starts.len() * widths * types, simd.splat_f32s(0.0));
    for first in (0..hidden).step_by(BLOCK) {
        let last = hidden.min(first + BLOCK);
        let part = |row: usize| row * hidden + first..row * hidden + last;
        for (of_start, start) in sums.chunks_exact_mut(widths * types).zip(piece.starts.clone()) {
            let inside = widths.min(piece.words - start); // wider spans pass the end of the text
            let word = piece.first_word + start;
            let u = &u[part(word)];
            let mut first_type = 0;
            while first_type < types {
                let type_count = types_of_tile(types, first_type);
                let mut first_width = 0;
                while first_width < inside {
                    let span_count = spans_of_tile(type_count).min(inside - first_width);
                    let tile = Tile {
                        u,
                        v: |span: usize| &v[part(word + first_width + span)],
                        g: |own: usize| &g[part(own_types.start + first_type + own)],
                        stride: types,
                    };
                    add_tile(simd, &tile, span_count, type_count, &mut of_start[first_width * types + first_type..]);
                    first_width += span_count;
                }
                first_type += type_count;
            }
        }
    }
}

/// Adds the spans of a piece that reach the bound of one of some types, by start, width and type.
#[inline(always)]
fn pick<S: Simd>(
    simd: S,
    batch: &Batch<'_>,
    piece: &Piece,
    own_types: &Range<usize>,
    sums: &[S::f32s],
    hits: &mut Vec<Hit>,
) {
    let (types, widths) = (own_types.len(), batch.max_width.min(piece.words));
    let (c, bounds) = (&batch.factors.c[own_types.clone()], &batch.bounds[own_types.clone()]);
    let first_class = own_types.start - piece.types.start;
    for (of_start, start) in sums.chunks_exact(widths * types).zip(piece.starts.clone()) {
        let inside = widths.min(piece.words - start);
        for (of_span, width) in of_start.chunks_exact(types).zip(0..inside) {
            for (class, ((&sum, &c), &bound)) in (first_class..).zip(of_span.iter().zip(c).zip(bounds)) {
                let logit = simd.reduce_sum_f32s(sum) + c;
                if logit >= bound {
                    hits.push(Hit { start, end: start + width + 1, class, logit });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
