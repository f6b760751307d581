//! Span scores to candidates.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::{Arch, Simd, WithSimd};

use crate::error::CandidateError;
use crate::offsets::Offsets;

/// Scores that are compared at once.
const TOGETHER: usize = 16;

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

/// What scores are, and so how thresholds are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Probabilities, which must pass their threshold: one that is equal to it is left out, as in GLiNER.
    Probability,
    /// Logits of probabilities. All come whose probability may pass, computed in float32 by whomever, and some that are a
    /// few roundings below.
    Logit,
}

impl Scale {
    /// The least score that passes a threshold; NaN where none does.
    fn least(self, threshold: f32) -> f32 {
        match self {
            Self::Probability if threshold == f32::INFINITY => f32::NAN,
            Self::Probability => {
                let above = threshold.next_up();
                // Where the process takes the smallest numbers for 0, the one above 0 is a larger one.
                if above <= threshold { f32::MIN_POSITIVE } else { above }
            }
            Self::Logit if threshold >= 1.0 => f32::NAN,
            Self::Logit => {
                let (passing, failing) = (f64::from(threshold), 1.0 - f64::from(threshold));
                // A probability that is a few roundings off, as far as its logit moves; negative ones have none.
                let logit = (passing / failing).ln() - 1e-6 / failing - 1e-6;
                #[expect(clippy::cast_possible_truncation, reason = "rounded by less than what was taken off")]
                let least = if threshold > 0.0 { (logit - logit.abs() * 1e-6) as f32 } else { f32::NEG_INFINITY };
                if threshold.is_nan() { f32::NAN } else { least }
            }
        }
    }
}

/// Picks the spans that score above their threshold and lie within their text; NaN does not.
///
/// `scores` holds a block `(word_counts[b], max_width, class_counts[b])` for each text, one after another; width index
/// `k` stands for `k + 1` words. `thresholds` holds `class_counts[b]` probabilities a text.
///
/// # Errors
///
/// When the lengths do not fit the counts, or a count is negative.
pub fn find_candidates(
    scores: &[f32],
    word_counts: &[i64],
    class_counts: &[i64],
    max_width: i64,
    thresholds: &[f32],
    scale: Scale,
) -> Result<ScoredSpans, CandidateError> {
    let Shape { words, classes, width } = Shape::check(word_counts, class_counts, max_width)?;
    let block = |(words, classes): (&usize, &usize)| {
        (*words as u128).saturating_mul(width as u128).saturating_mul(*classes as u128)
    };
    let expected = words.iter().zip(&classes).map(block).fold(0_u128, u128::saturating_add);
    if expected != scores.len() as u128 {
        return Err(CandidateError::Scores { scores: scores.len(), expected });
    }
    let expected = classes.iter().map(|&classes| classes as u128).sum::<u128>();
    if expected != thresholds.len() as u128 {
        return Err(CandidateError::Thresholds { thresholds: thresholds.len(), expected });
    }
    let least: Vec<_> = thresholds.iter().map(|&threshold| scale.least(threshold)).collect();
    Ok(Arch::new().dispatch(Scan { scores, least: &least, words: &words, classes: &classes, width }))
}

/// All blocks of a batch, checked.
struct Scan<'a> {
    scores: &'a [f32],
    /// The least passing score of each class of each text.
    least: &'a [f32],
    words: &'a [usize],
    classes: &'a [usize],
    width: usize,
}

impl WithSimd for Scan<'_> {
    type Output = ScoredSpans;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> ScoredSpans {
        let Self { mut scores, mut least, words, classes, width } = self;
        let mut found = ScoredSpans::default();
        let mut row = Row::default();
        for (&words, &classes) in words.iter().zip(classes) {
            let (own, later) = least.split_at(classes);
            least = later;
            // Without a word or class the other numbers may be anything, and their product need not fit.
            if words > 0 && classes > 0 {
                row.fill(own, width.min(words));
                let (block, later) = scores.split_at(words * width * classes);
                scores = later;
                for (start, of_start) in block.chunks_exact(width * classes).enumerate() {
                    let inside = width.min(words - start); // wider spans pass the end of the text
                    row.scan(start, &of_start[..inside * classes], &mut found);
                }
            }
            found.text_offsets.push(found.scores.len());
        }
        found
    }
}

/// The spans of a text that start with one word, by width and class.
#[derive(Default)]
struct Row {
    /// The least score that passes.
    least: Vec<f32>,
    /// Words of the span, and its class.
    places: Vec<(usize, usize)>,
    /// Where scores passed.
    hits: Vec<usize>,
}

impl Row {
    #[inline(always)]
    fn fill(&mut self, least: &[f32], width: usize) {
        self.least.clear();
        self.places.clear();
        for words in 1..=width {
            self.least.extend_from_slice(least);
            self.places.extend((0..least.len()).map(|class| (words, class)));
        }
    }

    /// Adds the candidates.
    #[inline(always)]
    fn scan(&mut self, start: usize, scores: &[f32], found: &mut ScoredSpans) {
        self.hits.clear();
        let (together, rest) = scores.as_chunks::<TOGETHER>();
        let (least, least_of_rest) = self.least[..scores.len()].as_chunks::<TOGETHER>();
        for (at, (scores, least)) in together.iter().zip(least).enumerate() {
            self.hits.extend(Bits(passing(scores, least)).map(|bit| at * TOGETHER + bit));
        }
        for (at, (score, least)) in (together.len() * TOGETHER..).zip(rest.iter().zip(least_of_rest)) {
            if score >= least {
                self.hits.push(at);
            }
        }
        let (hits, count) = (&self.hits, self.hits.len());
        found.starts.resize(found.starts.len() + count, start);
        found.ends.extend(hits.iter().map(|&at| start + self.places[at].0));
        found.classes.extend(hits.iter().map(|&at| self.places[at].1));
        found.scores.extend(hits.iter().map(|&at| scores[at]));
    }
}

/// A bit for each score that passes: a few vector instructions, and no branch.
#[inline(always)]
fn passing(scores: &[f32; TOGETHER], least: &[f32; TOGETHER]) -> u32 {
    let bits = (0..).zip(scores.iter().zip(least)).map(|(bit, (score, least))| u32::from(score >= least) << bit);
    bits.fold(0, |all, bit: u32| all | bit)
}

/// Places of the bits of a number, from the lowest.
struct Bits(u32);

impl Iterator for Bits {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let place = (self.0 != 0).then(|| self.0.trailing_zeros() as usize);
        self.0 &= self.0.wrapping_sub(1);
        place
    }
}

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
        let found = find_candidates(&scores, &[3], &[2], 2, &[0.5, 0.5], Scale::Probability).unwrap();
        let spans: Vec<_> = found.starts.iter().zip(&found.ends).zip(&found.classes).collect();
        let expected = [(0, 1, 0), (0, 1, 1), (0, 2, 0), (0, 2, 1), (1, 2, 0), (1, 2, 1), (1, 3, 0), (1, 3, 1)];
        let last = [(2, 3, 0), (2, 3, 1)];
        assert!(spans.iter().map(|&((&start, &end), &class)| (start, end, class)).eq(expected.into_iter().chain(last)));
    }

    #[test]
    fn a_score_must_pass_its_own_threshold() {
        let scores = [0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.3, 0.3];
        let found =
            find_candidates(&scores, &[1, 1], &[4, 2], 1, &[0.5, 0.0, 1.0, -1.0, 0.3, 0.29], Scale::Probability)
                .unwrap();
        assert_eq!(found.classes, [2, 1]);
        assert_eq!(found.text_offsets.as_slice(), [0, 1, 2]);
    }

    #[test]
    fn a_logit_comes_where_its_probability_may_pass() {
        for threshold in [1e-30_f32, 1e-7, 0.001, 0.3, 0.5, 0.9, 0.999, 1.0 - 1e-6, 1.0_f32.next_down()] {
            let exact = (f64::from(threshold) / (1.0 - f64::from(threshold))).ln();
            #[expect(clippy::cast_possible_truncation, reason = "near enough")]
            let logit = exact as f32;
            let far = 1e-5 + 1e-5 * logit.abs() + 1e-5 / (1.0 - threshold);
            let found =
                find_candidates(&[logit - far, logit, logit + far], &[1], &[3], 1, &[threshold; 3], Scale::Logit);
            assert_eq!(found.unwrap().classes, [1, 2], "{threshold}");
        }
        let least = [-1.0, 0.0, 1.0, f32::INFINITY, f32::NAN];
        for (logit, classes) in [(f32::NEG_INFINITY, vec![0, 1]), (f32::INFINITY, vec![0, 1]), (f32::NAN, vec![])] {
            let found = find_candidates(&[logit; 5], &[1], &[5], 1, &least, Scale::Logit).unwrap();
            assert_eq!(found.classes, classes, "{logit}");
        }
    }

    #[test]
    fn huge_counts_are_an_error_and_no_overflow() {
        let error = find_candidates(&[], &[i64::MAX], &[i64::MAX], i64::MAX, &[], Scale::Logit).unwrap_err();
        assert!(matches!(error, CandidateError::Scores { scores: 0, .. }));
        assert!(find_candidates(&[], &[i64::MAX], &[0], i64::MAX, &[], Scale::Logit).is_ok());
    }
}
