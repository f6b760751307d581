//! Candidates to entities: the best first, and none that clashes with a better one.

use std::mem::replace;
use std::ops::Range;

use crate::error::DecodeError;
use crate::kept::KeptSpans;
use crate::offsets::Offsets;
use crate::queue::{BestFirst, Ranked, Turn};
use crate::span::{Span, WordIndex};

/// So many candidates are put in order at once: to choose among them gains nothing.
const FEW: usize = 64;

/// Which spans may stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// None that share a word.
    Flat,
    /// None that share a word, but a span may have several entity types.
    FlatMultiLabel,
    /// One may lie within another; a span has one entity type.
    Nested,
    /// One may lie within another, and a span may have several entity types.
    NestedMultiLabel,
}

impl Overlap {
    /// The mode that GLiNER's two switches stand for.
    pub fn new(nested: bool, multi_label: bool) -> Self {
        match (nested, multi_label) {
            (false, false) => Self::Flat,
            (false, true) => Self::FlatMultiLabel,
            (true, false) => Self::Nested,
            (true, true) => Self::NestedMultiLabel,
        }
    }

    /// Whether two candidates may not stand together: the rule that [`resolve`] keeps to, said plainly.
    pub fn clash(self, one: Span, other: Span) -> bool {
        if one == other {
            return matches!(self, Self::Flat | Self::Nested);
        }
        match self {
            Self::Flat | Self::FlatMultiLabel => one.overlaps(other),
            Self::Nested | Self::NestedMultiLabel => one.crosses(other),
        }
    }
}

/// The candidates of a batch of texts as they come: flat and unchecked.
#[derive(Clone, Copy, Debug)]
pub struct CandidateArrays<'a> {
    /// Candidates by text.
    pub text_offsets: &'a [i64],
    /// First word.
    pub starts: &'a [i64],
    /// The word after the last one.
    pub ends: &'a [i64],
    /// Score.
    pub scores: &'a [f32],
    /// Words in each text.
    pub word_counts: &'a [i64],
}

/// Which candidates were kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Indices into the candidates: by text, then start; at the same start the better score first.
    pub indices: Vec<usize>,
    /// Kept candidates by text.
    pub text_offsets: Offsets,
}

/// Keeps the best-scoring candidates that may stand together, in reading order.
///
/// Goes through each text's candidates from the best score down and keeps one unless it clashes with one that is kept.
/// Equal scores count in the order in which they came. A candidate whose score is NaN is dropped. O(n log n) for every
/// mode.
///
/// # Errors
///
/// When the arrays do not fit each other, a span is empty or reaches out of its text, or there are more words or
/// candidates of one text than 32 bits count.
pub fn resolve(candidates: CandidateArrays<'_>, overlaps: &[Overlap]) -> Result<Kept, DecodeError> {
    let CandidateArrays { text_offsets, starts, ends, scores, word_counts } = candidates;
    if starts.len() != ends.len() || starts.len() != scores.len() {
        return Err(DecodeError::Lengths { starts: starts.len(), ends: ends.len(), scores: scores.len() });
    }
    let text_offsets = Offsets::check("text_offsets", text_offsets, starts.len())?;
    let texts = text_offsets.len();
    for (name, values) in [("word_counts", word_counts.len()), ("nested and multi_label", overlaps.len())] {
        if values != texts {
            return Err(DecodeError::Texts { name, values, texts });
        }
    }
    let mut kept = Kept::default();
    let mut decoder = TextDecoder::new();
    for (text, rows) in text_offsets.ranges().enumerate() {
        let words = check_spans(text, word_counts[text], rows.clone(), &candidates)?;
        let spans = Spans { starts: &starts[rows.clone()], ends: &ends[rows.clone()] };
        decoder.decode(overlaps[text], words, spans, &scores[rows.clone()]);
        kept.indices.extend(decoder.kept.iter().map(|kept| rows.start + kept.turn.arrival() as usize));
        kept.text_offsets.push(kept.indices.len());
    }
    Ok(kept)
}

/// Checks the candidates of a text and returns the greatest of their ends.
fn check_spans(
    text: usize,
    words: i64,
    rows: Range<usize>,
    candidates: &CandidateArrays<'_>,
) -> Result<u32, DecodeError> {
    if u32::try_from(rows.len()).is_err() {
        return Err(DecodeError::TooMany { text, candidates: rows.len() });
    }
    let words = u32::try_from(words).map_err(|_| DecodeError::Words { text, value: words })?;
    let mut last_end = 0;
    let edges = candidates.starts[rows.clone()].iter().zip(&candidates.ends[rows.clone()]);
    for (candidate, (&start, &end)) in rows.zip(edges) {
        if start < 0 || end < 0 || end > i64::from(words) {
            return Err(DecodeError::SpanOutOfText { text, candidate, start, end, words });
        }
        if start >= end {
            return Err(DecodeError::EmptySpan { text, candidate, start, end });
        }
        last_end = last_end.max(end);
    }
    Ok(u32::try_from(last_end).expect("no end passes the words"))
}

/// The spans of a text, checked.
#[derive(Clone, Copy)]
struct Spans<'a> {
    starts: &'a [i64],
    ends: &'a [i64],
}

impl Spans<'_> {
    fn get(self, arrival: u32) -> Span {
        let word = |edge: i64| WordIndex::new(u32::try_from(edge).expect("checked before"));
        let at = arrival as usize;
        Span::new(word(self.starts[at]), word(self.ends[at])).expect("checked before")
    }
}

/// Decodes one text after another in the same buffers.
struct TextDecoder {
    /// The edges of all spans, ascending, where words are numbered anew.
    edges: Vec<i64>,
    queue: BestFirst,
    kept_spans: KeptSpans,
    kept: Vec<Ranked>,
    /// For each end, the start of the last span that was seen to end there.
    start_by_end: Vec<WordIndex>,
}

impl TextDecoder {
    fn new() -> Self {
        Self {
            edges: Vec::new(),
            queue: BestFirst::default(),
            kept_spans: KeptSpans::new(),
            kept: Vec::new(),
            start_by_end: Vec::new(),
        }
    }

    /// Fills `kept`, in reading order. No span reaches beyond `words`.
    fn decode(&mut self, overlap: Overlap, words: u32, spans: Spans<'_>, scores: &[f32]) {
        let numbered = (0..).zip(scores).filter(|(_, score)| !score.is_nan());
        let candidates =
            numbered.map(|(arrival, &score)| Ranked { turn: Turn::new(score, arrival), span: spans.get(arrival) });
        let words = words as usize;
        // What decoding keeps for each word must not outgrow the candidates: a text's length is only a number here.
        if words <= 1024 + 8 * scores.len() {
            self.queue.fill(scores.len(), candidates);
            self.keep_best(overlap, words);
        } else {
            self.find_edges(spans);
            let renumbered = candidates.map(|it| Ranked { span: renumber(&self.edges, it.span), ..it });
            self.queue.fill(scores.len(), renumbered);
            self.keep_best(overlap, self.edges.len());
        }
    }

    fn find_edges(&mut self, spans: Spans<'_>) {
        self.edges.clear();
        self.edges.extend_from_slice(spans.starts);
        self.edges.extend_from_slice(spans.ends);
        self.edges.sort_unstable();
        self.edges.dedup();
    }

    fn keep_best(&mut self, overlap: Overlap, words: usize) {
        self.kept_spans.restart(overlap, words);
        self.kept.clear();
        while self.queue.len() > 0 {
            let count = match overlap {
                // The best eighth covers so many words that most others have lost, and are never sorted.
                Overlap::Flat | Overlap::FlatMultiLabel => FEW.max(self.queue.len() / 8),
                // Nesting spares too many: asking the others costs more than it saves.
                Overlap::Nested | Overlap::NestedMultiLabel => self.queue.len(),
            };
            for candidate in self.queue.take_best(count) {
                if !self.kept_spans.clash_with(candidate.span) {
                    self.kept_spans.insert(candidate.span);
                    self.kept.push(candidate);
                }
            }
            self.queue.drop_lost(|span| self.kept_spans.clash_with(span));
        }
        self.kept.sort_by_key(|kept| kept.span.start()); // stable: at the same start, the better one stays first
        if overlap == Overlap::Nested {
            self.drop_repeated_spans(words);
        }
    }

    /// Drops from `kept`, which is in reading order, all but the first of identical spans: it is the best of them.
    fn drop_repeated_spans(&mut self, words: usize) {
        self.start_by_end.clear();
        self.start_by_end.resize(words + 1, WordIndex::new(u32::MAX)); // where no span starts
        self.kept.retain(|kept| {
            let (start, end) = (kept.span.start(), kept.span.end());
            replace(&mut self.start_by_end[end.index()], start) != start
        });
    }
}

/// The span with its edges numbered by their place among all edges, without gaps. Clashes depend on the order of edges
/// alone, so none changes.
fn renumber(edges: &[i64], span: Span) -> Span {
    let rank = |word: WordIndex| {
        let at = edges.partition_point(|&edge| edge < i64::from(word.get()));
        WordIndex::new(u32::try_from(at).expect("a rank is at most the number that it replaces"))
    };
    Span::new(rank(span.start()), rank(span.end())).expect("ranks rise as the edges do")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODES: [Overlap; 4] = [Overlap::Flat, Overlap::FlatMultiLabel, Overlap::Nested, Overlap::NestedMultiLabel];

    /// Start, end and score.
    type Scored = (i64, i64, f32);

    fn resolve_one(spans: &[(i64, i64, f32)], words: i64, overlap: Overlap) -> Result<Vec<usize>, DecodeError> {
        resolve_all(&[(spans, words)], overlap)
    }

    /// Spans and words of each text.
    fn resolve_all(texts: &[(&[Scored], i64)], overlap: Overlap) -> Result<Vec<usize>, DecodeError> {
        let mut spans: Vec<Scored> = Vec::new();
        let mut text_offsets = vec![0];
        for (own, _) in texts {
            spans.extend_from_slice(own);
            text_offsets.push(i64::try_from(spans.len()).unwrap());
        }
        let candidates = CandidateArrays {
            text_offsets: &text_offsets,
            starts: &spans.iter().map(|span| span.0).collect::<Vec<_>>(),
            ends: &spans.iter().map(|span| span.1).collect::<Vec<_>>(),
            scores: &spans.iter().map(|span| span.2).collect::<Vec<_>>(),
            word_counts: &texts.iter().map(|text| text.1).collect::<Vec<_>>(),
        };
        resolve(candidates, &vec![overlap; texts.len()]).map(|kept| kept.indices)
    }

    fn span(candidate: (i64, i64, f32)) -> Span {
        let word = |edge| WordIndex::new(u32::try_from(edge).unwrap());
        Span::new(word(candidate.0), word(candidate.1)).unwrap()
    }

    /// The rule itself, in quadratic time.
    fn greedy(spans: &[(i64, i64, f32)], overlap: Overlap) -> Vec<usize> {
        let mut turns: Vec<usize> = (0..spans.len()).filter(|&at| !spans[at].2.is_nan()).collect();
        turns.sort_by(|&a, &b| spans[b].2.partial_cmp(&spans[a].2).unwrap());
        let mut kept: Vec<usize> = Vec::new();
        for at in turns {
            if kept.iter().all(|&other| !overlap.clash(span(spans[at]), span(spans[other]))) {
                kept.push(at);
            }
        }
        kept.sort_by_key(|&at| spans[at].0);
        kept
    }

    proptest! {
        // A failure becomes a case of its own below, with a name, and not a line in a file.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_mode_keeps_what_the_rule_keeps(
            words in prop_oneof![1..200_i64, Just(64), Just(128)],
            edges in prop::collection::vec((0..200_i64, 1..40_i64, 0..8_u8), 0..60),
            far in prop_oneof![Just(1_i64), Just(20_000_000)], // far apart, spans are renumbered
        ) {
            let spans: Vec<_> = edges
                .iter()
                .map(|&(start, width, score)| {
                    let score = if score == 0 { f32::NAN } else { f32::from(score) - 4.0 };
                    let start = start % words;
                    (start * far, (start + width).min(words) * far, score) // many end with the text
                })
                .collect();
            // The worst first, in a text that ends earlier: nothing of the text before may be left.
            let half = (words - words / 2) * far;
            let within = spans.iter().filter(|span| span.1 <= half);
            let fewer: Vec<_> = within.map(|&(start, end, score)| (start, end, -score)).collect();
            for mode in MODES {
                let kept = resolve_all(&[(&spans, words * far), (&fewer, half)], mode).unwrap();
                let others = greedy(&fewer, mode).into_iter().map(|at| spans.len() + at);
                prop_assert_eq!(kept, greedy(&spans, mode).into_iter().chain(others).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_text_of_billions_of_words_takes_no_memory() {
        let words = i64::from(u32::MAX);
        for mode in MODES {
            assert_eq!(resolve_one(&[(0, 1, 0.1), (words - 1, words, 0.2)], words, mode).unwrap(), [0, 1]);
        }
    }

    #[test]
    fn spans_that_end_with_the_text_clash_at_every_length() {
        for words in 2..200 {
            let spans = [(words - 2, words - 1, 0.9), (words - 2, words, 0.8)];
            assert_eq!(resolve_one(&spans, words, Overlap::Flat).unwrap(), [0], "{words} words");
        }
    }

    #[test]
    fn bad_spans_are_named() {
        let message = |spans, words| resolve_one(spans, words, Overlap::Flat).unwrap_err().to_string();
        assert!(message(&[(0, 1, 0.5), (2, 4, 0.5)], 3).contains("candidate 1 is the span 2..4"));
        assert!(message(&[(-1, 1, 0.5)], 3).contains("-1..1"));
        assert!(message(&[(2, 2, 0.5)], 3).contains("empty span 2..2"));
        assert!(message(&[(3, 1, 0.5)], 3).contains("empty span 3..1"));
        assert!(message(&[], -1).contains("word_counts[0] is -1"));
        assert!(message(&[], i64::MAX).contains("word_counts[0]"));
    }

    #[test]
    fn lengths_that_do_not_fit_are_errors() {
        let resolve = |starts: &[i64], ends: &[i64], scores: &[f32], word_counts: &[i64], modes: usize| {
            let candidates = CandidateArrays { text_offsets: &[0, 1], starts, ends, scores, word_counts };
            resolve(candidates, &[Overlap::Flat, Overlap::Flat][..modes])
        };
        assert!(resolve(&[0], &[1], &[0.5], &[1], 1).is_ok());
        for (starts, ends, scores) in [(1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2), (2, 2, 1)] {
            let error = resolve(&[0; 2][..starts], &[1; 2][..ends], &[0.5; 2][..scores], &[1], 1).unwrap_err();
            assert_eq!(error, DecodeError::Lengths { starts, ends, scores });
        }
        for values in [0, 2] {
            let told = |name| Err(DecodeError::Texts { name, values, texts: 1 });
            assert_eq!(resolve(&[0], &[1], &[0.5], &[1; 2][..values], 1), told("word_counts"));
            assert_eq!(resolve(&[0], &[1], &[0.5], &[1], values), told("nested and multi_label"));
        }
    }

    #[test]
    fn a_large_text_leaves_nothing_for_a_small_one() {
        let candidates = CandidateArrays {
            text_offsets: &[0, 2, 4],
            starts: &[0, 500, 0, 2],
            ends: &[3, 600, 1, 4],
            scores: &[0.9, 0.8, 0.7, 0.6],
            word_counts: &[1000, 5],
        };
        for mode in MODES {
            let kept = resolve(candidates, &[mode; 2]).unwrap();
            assert_eq!((kept.indices, kept.text_offsets.as_slice()), (vec![0, 1, 2, 3], [0, 2, 4].as_slice()));
        }
    }
}
