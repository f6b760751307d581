//! Span scores to candidates.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::{Simd, WithSimd};

use crate::error::CandidateError;
use crate::offsets::Offsets;
use crate::vectors::reaching;
use crate::vectors::widest;

/// Scores that are compared at once.
const LANES: usize = 8;

/// The spans of a batch of texts that score above their threshold, flat; by text, start, width and class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredSpans {
    /// Candidates by text.
    pub text_offsets: Offsets,
    /// First word.
    pub starts: Vec<usize>,
    /// The word after the last one.
    pub ends: Vec<usize>,
    /// Entity type.
    pub classes: Vec<usize>,
    /// Score: a probability, or the logit of one.
    pub scores: Vec<f32>,
}

/// Spans whose probability may pass its threshold, and their logits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LikelySpans {
    /// The spans; their scores are logits.
    pub spans: ScoredSpans,
    /// Whether all pass, however their probabilities are rounded.
    pub all_pass: bool,
}

/// Picks the spans that score above their threshold and lie within their text; NaN does not.
///
/// `scores` holds a block `(word_counts[b], max_width, class_counts[b])` for each text, one after another; width index
/// `k` stands for `k + 1` words. `thresholds` holds `class_counts[b]` scores a text.
///
/// # Errors
///
/// When the lengths do not fit the counts, a count is negative, `max_width` is below 1, or a text has 2**32 or more
/// scores to one start word.
pub fn find_candidates(
    scores: &[f32],
    word_counts: &[i64],
    class_counts: &[i64],
    max_width: i64,
    thresholds: &[f32],
) -> Result<ScoredSpans, CandidateError> {
    let shape = Shape::check(word_counts, class_counts, max_width)?;
    shape.check_scores(scores.len())?;
    shape.check_rows()?;
    shape.check_thresholds("thresholds", thresholds.len())?;
    let least: Vec<_> = thresholds.iter().map(|&threshold| least_score(threshold)).collect();
    Ok(widest().dispatch(Scan { scores, least: &least, shape: &shape }))
}

/// As [`find_candidates`], but for logits, of which few need their sigmoid: picks all spans whose probability, computed
/// in float32 by whomever, may pass its threshold, and some that are a few roundings below.
///
/// # Errors
///
/// As there.
pub fn find_likely(
    logits: &[f32],
    word_counts: &[i64],
    class_counts: &[i64],
    max_width: i64,
    thresholds: &[f32],
) -> Result<LikelySpans, CandidateError> {
    let shape = Shape::check(word_counts, class_counts, max_width)?;
    shape.check_scores(logits.len())?;
    shape.check_rows()?;
    let bounds = LogitBounds::of(thresholds, &shape)?;
    let spans = widest().dispatch(Scan { scores: logits, least: &bounds.least, shape: &shape });
    Ok(bounds.judge(spans, &shape))
}

/// The least score that passes a threshold; NaN where none does.
fn least_score(threshold: f32) -> f32 {
    if threshold == f32::INFINITY {
        return f32::NAN;
    }
    let above = threshold.next_up();
    // Where the process takes the smallest numbers for 0, the one above 0 is a larger one.
    if above <= threshold { f32::MIN_POSITIVE } else { above }
}

/// What thresholds of probabilities ask of logits, whoever computes the sigmoid: each of two bounds lies a few roundings
/// from where it says that the threshold is.
pub(crate) struct LogitBounds {
    /// What a logit must reach for its probability to pass, perhaps; NaN where none does.
    pub(crate) least: Vec<f32>,
    /// What a logit must reach for its probability to pass for sure.
    sure: Vec<f32>,
}

impl LogitBounds {
    /// The bounds of all classes of all texts.
    pub(crate) fn of(thresholds: &[f32], shape: &Shape) -> Result<Self, CandidateError> {
        shape.check_thresholds("thresholds", thresholds.len())?;
        let (least, sure) = thresholds.iter().map(|&threshold| logit_bounds(threshold)).unzip();
        Ok(Self { least, sure })
    }

    /// Looks whether all spans that were found pass.
    pub(crate) fn judge(&self, spans: ScoredSpans, shape: &Shape) -> LikelySpans {
        let mut sure = self.sure.as_slice();
        let all_pass = spans.text_offsets.ranges().zip(&shape.classes).all(|(rows, &classes)| {
            let (own, later) = sure.split_at(classes);
            sure = later;
            spans.scores[rows.clone()].iter().zip(&spans.classes[rows]).all(|(&logit, &class)| logit >= own[class])
        });
        LikelySpans { spans, all_pass }
    }
}

/// The least logit whose probability may pass a threshold, and one from which on all do.
fn logit_bounds(threshold: f32) -> (f32, f32) {
    /// From here on no probability is so small that float32 cannot hold it.
    const HELD: f32 = -80.0;
    if threshold.is_nan() || threshold >= 1.0 {
        return (f32::NAN, f32::INFINITY);
    }
    if threshold < 0.0 {
        return (f32::NEG_INFINITY, f32::NEG_INFINITY); // no probability is negative
    }
    if threshold == 0.0 {
        return (f32::NEG_INFINITY, HELD);
    }
    let (passing, failing) = (f64::from(threshold), 1.0 - f64::from(threshold));
    let logit = (passing / failing).ln();
    // A probability that is a few roundings off, as far as its logit moves, and the rounding of the logit itself.
    let margin = 1e-6 / failing + 1e-6 + logit.abs() * 1e-6;
    #[expect(clippy::cast_possible_truncation, reason = "rounded by less than the margin")]
    let (least, sure) = ((logit - margin) as f32, (logit + margin) as f32);
    (least, sure.max(HELD))
}

/// All blocks of a batch, checked.
struct Scan<'a> {
    scores: &'a [f32],
    /// The least passing score of each class of each text.
    least: &'a [f32],
    shape: &'a Shape,
}

impl WithSimd for Scan<'_> {
    type Output = ScoredSpans;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> ScoredSpans {
        let Self { mut scores, mut least, shape } = self;
        let width = shape.width;
        let mut found = ScoredSpans::default();
        let mut rows = Rows::default();
        for (&words, &classes) in shape.words.iter().zip(&shape.classes) {
            let (own, later) = least.split_at(classes);
            least = later;
            // Without a word or class the other numbers may be anything, and their product need not fit.
            if words > 0 && classes > 0 {
                let (block, later) = scores.split_at(words * width * classes);
                scores = later;
                rows.begin(own, width.min(words));
                for (start, row) in block.chunks_exact(width * classes).enumerate() {
                    let inside = width.min(words - start); // wider spans pass the end of the text
                    rows.scan(simd, start, &row[..inside * classes], &mut found.starts);
                }
                rows.give(block, width * classes, &mut found);
            }
            found.text_offsets.push(found.scores.len());
        }
        found
    }
}

/// The spans of a text by the word that they start with; in a row by width and class.
#[derive(Default)]
struct Rows {
    /// The least score that passes, for each place of a row.
    least: Vec<f32>,
    /// Words of the span, and its class, for each place.
    places: Vec<(usize, usize)>,
    /// Where scores of a row passed, and room for what is written in vain.
    passed: Vec<u32>,
    /// Where scores of the text passed, in the row of each.
    hits: Vec<u32>,
}

impl Rows {
    /// Takes up another text.
    #[inline(always)]
    fn begin(&mut self, least: &[f32], width: usize) {
        self.least.clear();
        self.places.clear();
        self.hits.clear();
        for words in 1..=width {
            self.least.extend_from_slice(least);
            self.places.extend((0..least.len()).map(|class| (words, class)));
        }
        self.passed.resize(self.least.len() + LANES, 0);
    }

    /// Notes what passes in the row of a word.
    #[inline(always)]
    fn scan<S: Simd>(&mut self, simd: S, start: usize, scores: &[f32], starts: &mut Vec<usize>) {
        let (together, rest) = scores.as_chunks::<LANES>();
        let (least, least_of_rest) = self.least[..scores.len()].as_chunks::<LANES>();
        let mut count = 0;
        for (first, (scores, least)) in (0..).step_by(LANES).zip(together.iter().zip(least)) {
            let bits = reaching(simd, scores, least);
            // All lanes are written, and those that did not pass are written over: no branch to be mistaken in.
            let room: &mut [u32; LANES] = self.passed[count..].first_chunk_mut().expect("a row, and LANES more");
            *room = LANES_OF[usize::from(bits)].map(|lane| first + lane);
            count += bits.count_ones() as usize;
        }
        let first = scores.len() - rest.len();
        for (at, (score, least)) in (first..).zip(rest.iter().zip(least_of_rest)) {
            self.passed[count] = u32::try_from(at).expect("no row is longer");
            count += usize::from(score >= least);
        }
        self.hits.extend_from_slice(&self.passed[..count]);
        starts.resize(starts.len() + count, start);
    }

    /// Adds what passed to what was found in other texts; the starts are there already.
    #[inline(always)]
    fn give(&self, block: &[f32], row_length: usize, found: &mut ScoredSpans) {
        let starts = &found.starts[found.ends.len()..];
        found.ends.extend(starts.iter().zip(&self.hits).map(|(start, &at)| start + self.places[at as usize].0));
        found.classes.extend(self.hits.iter().map(|&at| self.places[at as usize].1));
        found.scores.extend(starts.iter().zip(&self.hits).map(|(start, &at)| block[start * row_length + at as usize]));
    }
}

/// The places of the bits of each number, from the lowest; behind them zeros.
static LANES_OF: [[u32; LANES]; 1 << LANES] = {
    let mut all = [[0; LANES]; 1 << LANES];
    let mut bits = 0;
    while bits < all.len() {
        let (mut lane, mut place) = (0, 0);
        while lane < 8 {
            if bits >> lane & 1 == 1 {
                all[bits][place] = lane;
                place += 1;
            }
            lane += 1;
        }
        bits += 1;
    }
    all
};

/// How the spans of a batch are laid out: words and classes of each text, and the widest span.
pub(crate) struct Shape {
    pub(crate) words: Vec<usize>,
    pub(crate) classes: Vec<usize>,
    pub(crate) width: usize,
}

impl Shape {
    pub(crate) fn check(word_counts: &[i64], class_counts: &[i64], max_width: i64) -> Result<Self, CandidateError> {
        if word_counts.len() != class_counts.len() {
            return Err(CandidateError::Lengths { words: word_counts.len(), classes: class_counts.len() });
        }
        let width = usize::try_from(max_width).ok().filter(|&width| width > 0);
        let width = width.ok_or(CandidateError::Width { value: max_width })?;
        let words = checked_counts("word_counts", word_counts)?;
        let classes = checked_counts("class_counts", class_counts)?;
        Ok(Self { words, classes, width })
    }

    /// Whether there is a score for each span and class.
    fn check_scores(&self, scores: usize) -> Result<(), CandidateError> {
        let expected = self.cells();
        if expected == scores as u128 { Ok(()) } else { Err(CandidateError::Scores { scores, expected }) }
    }

    /// Whether there is a score for each word, class and mark, of which there are as many as the width says.
    pub(crate) fn check_marks(&self, scores: usize) -> Result<(), CandidateError> {
        let expected = self.cells();
        if expected == scores as u128 { Ok(()) } else { Err(CandidateError::Marks { scores, expected }) }
    }

    /// Words times width times classes of all texts.
    fn cells(&self) -> u128 {
        let block = |(&words, &classes): (&usize, &usize)| {
            (words as u128).saturating_mul(self.width as u128).saturating_mul(classes as u128)
        };
        self.words.iter().zip(&self.classes).map(block).fold(0_u128, u128::saturating_add)
    }

    /// Whether the scores of each start word can be numbered in 32 bits.
    fn check_rows(&self) -> Result<(), CandidateError> {
        let is_long = |(&words, &classes): (&usize, &usize)| {
            u32::try_from(self.width.min(words).saturating_mul(classes).saturating_add(LANES)).is_err()
        };
        match self.words.iter().zip(&self.classes).position(is_long) {
            Some(text) => Err(CandidateError::Row { text }),
            None => Ok(()),
        }
    }

    /// Whether there is a threshold for each class.
    pub(crate) fn check_thresholds(&self, name: &'static str, values: usize) -> Result<(), CandidateError> {
        let expected = self.classes.iter().map(|&classes| classes as u128).sum::<u128>();
        if expected == values as u128 { Ok(()) } else { Err(CandidateError::Thresholds { name, values, expected }) }
    }
}

fn checked_counts(name: &'static str, values: &[i64]) -> Result<Vec<usize>, CandidateError> {
    let check = |(text, &value)| usize::try_from(value).map_err(|_| CandidateError::Count { name, text, value });
    values.iter().enumerate().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_come_by_start_width_and_class_and_lie_within_the_text() {
        let scores = vec![0.9_f32; 3 * 2 * 2];
        let found = find_candidates(&scores, &[3], &[2], 2, &[0.5, 0.5]).unwrap();
        let spans: Vec<_> = found.starts.iter().zip(&found.ends).zip(&found.classes).collect();
        let expected = [(0, 1, 0), (0, 1, 1), (0, 2, 0), (0, 2, 1), (1, 2, 0), (1, 2, 1), (1, 3, 0), (1, 3, 1)];
        let last = [(2, 3, 0), (2, 3, 1)];
        assert!(spans.iter().map(|&((&start, &end), &class)| (start, end, class)).eq(expected.into_iter().chain(last)));
    }

    #[test]
    fn a_score_must_pass_its_own_threshold() {
        let five = [0.5, 0.5_f32.next_up(), f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let scores = [&five[..], &five, &five, &[0.3, 0.3]].concat(); // more than are compared at once
        let thresholds = [[0.5, 0.5, 0.0, 1.0, -1.0]; 3];
        let thresholds = [thresholds.as_flattened(), &[0.3, 0.29]].concat();
        let found = find_candidates(&scores, &[1, 1], &[15, 2], 1, &thresholds).unwrap();
        assert_eq!(found.classes, [1, 3, 6, 8, 11, 13, 1]);
        assert_eq!(found.text_offsets.as_slice(), [0, 6, 7]);
    }

    #[test]
    fn a_logit_comes_where_its_probability_may_pass() {
        for threshold in [1e-30_f32, 1e-7, 0.001, 0.3, 0.5, 0.9, 0.999, 1.0 - 1e-6, 1.0_f32.next_down()] {
            let exact = (f64::from(threshold) / (1.0 - f64::from(threshold))).ln();
            #[expect(clippy::cast_possible_truncation, reason = "near enough")]
            let logit = exact as f32;
            let far = 1e-5 + 1e-5 * logit.abs() + 1e-5 / (1.0 - threshold);
            let found = find_likely(&[logit - far, logit, logit + far], &[1], &[3], 1, &[threshold; 3]).unwrap();
            assert_eq!((found.spans.classes, found.all_pass), (vec![1, 2], false), "{threshold}");
            assert!(find_likely(&[logit + far], &[1], &[1], 1, &[threshold]).unwrap().all_pass, "{threshold}");
        }
        let thresholds = [-1.0, 0.0, 1.0, f32::INFINITY, f32::NAN];
        for (logit, classes, all_pass) in [
            (f32::NEG_INFINITY, vec![0, 1], false), // whose probability of 0 is above the first threshold alone
            (-90.0, vec![0, 1], false),             // which is 0 in what holds no smaller numbers
            (f32::INFINITY, vec![0, 1], true),
            (f32::NAN, vec![], true),
        ] {
            let found = find_likely(&[logit; 5], &[1], &[5], 1, &thresholds).unwrap();
            assert_eq!((found.spans.classes, found.all_pass), (classes, all_pass), "{logit}");
        }
    }

    #[test]
    fn each_text_is_held_to_its_own_thresholds() {
        let find = |thresholds: &[f32]| find_likely(&[0.0; 4], &[1, 0, 1], &[2, 1, 2], 1, thresholds).unwrap();
        let found = find(&[0.4, 0.6, 0.5, 0.3, 0.5]);
        assert_eq!((found.spans.text_offsets.as_slice(), found.all_pass), ([0, 1, 1, 3].as_slice(), false));
        assert_eq!(found.spans.classes, [0, 0, 1]);
        assert!(find(&[0.4, 0.6, 0.5, 0.3, 0.2]).all_pass);
    }

    #[test]
    fn huge_counts_are_an_error_and_no_overflow() {
        let error = find_likely(&[], &[i64::MAX], &[i64::MAX], i64::MAX, &[]).unwrap_err();
        assert!(matches!(error, CandidateError::Scores { scores: 0, .. }));
        assert!(find_likely(&[], &[i64::MAX], &[0], i64::MAX, &[]).is_ok());
        assert!(find_likely(&[], &[0], &[4], i64::MAX, &[0.0; 4]).is_ok());
    }

    #[test]
    fn a_row_that_is_too_long_to_number_is_an_error() {
        let check = |classes| Shape::check(&[3, 9], &[1, classes], 4).unwrap().check_rows();
        assert_eq!(check((1 << 30) - 3), Ok(()));
        assert_eq!(check(1 << 30), Err(CandidateError::Row { text: 1 }));
        assert_eq!(Shape::check(&[1], &[1 << 31], 4).unwrap().check_rows(), Ok(()));
    }
}
