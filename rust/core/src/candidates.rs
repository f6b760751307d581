//! Span scores to candidates.

use crate::error::CandidateError;
use crate::offsets::Offsets;

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

/// Picks the spans that score above their threshold and lie within their text.
///
/// `scores` holds a block `(word_counts[b], max_width, class_counts[b])` for each text, one after another; width index
/// `k` stands for `k + 1` words. `thresholds` holds `class_counts[b]` values a text. A score equal to its threshold is
/// left out, as in GLiNER, and so is NaN.
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

    let mut found = ScoredSpans::default();
    let (mut scores, mut thresholds) = (scores, thresholds);
    for (&words, &classes) in words.iter().zip(&classes) {
        let (limits, later_thresholds) = thresholds.split_at(classes);
        thresholds = later_thresholds;
        // Without a word or class the other numbers may be anything, and their product need not fit.
        if words > 0 && classes > 0 {
            let (block, later_scores) = scores.split_at(words * width * classes);
            scores = later_scores;
            scan_text(block, limits, words, width, &mut found);
        }
        found.text_offsets.push(found.scores.len());
    }
    Ok(found)
}

/// Adds the candidates of one text with at least one word and class.
fn scan_text(block: &[f32], thresholds: &[f32], words: usize, width: usize, found: &mut ScoredSpans) {
    let classes = thresholds.len();
    for (start, of_start) in block.chunks_exact(width * classes).enumerate() {
        let inside = width.min(words - start); // wider spans pass the end of the text
        for (wider, of_span) in of_start.chunks_exact(classes).take(inside).enumerate() {
            // Nearly no span has a candidate, and without a branch for each class this loop is a few vector
            // instructions.
            let above = |any, (score, threshold): (&f32, &f32)| any || score > threshold;
            if !of_span.iter().zip(thresholds).fold(false, above) {
                continue;
            }
            for (class, (&score, &threshold)) in of_span.iter().zip(thresholds).enumerate() {
                if score > threshold {
                    found.starts.push(start);
                    found.ends.push(start + wider + 1);
                    found.classes.push(class);
                    found.scores.push(score);
                }
            }
        }
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
        let found = find_candidates(&scores, &[3], &[2], 2, &[0.5, 0.5]).unwrap();
        let spans: Vec<_> = found.starts.iter().zip(&found.ends).zip(&found.classes).collect();
        let expected = [(0, 1, 0), (0, 1, 1), (0, 2, 0), (0, 2, 1), (1, 2, 0), (1, 2, 1), (1, 3, 0), (1, 3, 1)];
        let last = [(2, 3, 0), (2, 3, 1)];
        assert!(spans.iter().map(|&((&start, &end), &class)| (start, end, class)).eq(expected.into_iter().chain(last)));
    }

    #[test]
    fn a_score_must_pass_its_own_threshold() {
        let scores = [0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.3, 0.3];
        let found = find_candidates(&scores, &[1, 1], &[4, 2], 1, &[0.5, 0.0, 1.0, -1.0, 0.3, 0.29]).unwrap();
        assert_eq!(found.classes, [2, 1]);
        assert_eq!(found.text_offsets.as_slice(), [0, 1, 2]);
    }

    #[test]
    fn huge_counts_are_an_error_and_no_overflow() {
        let error = find_candidates(&[], &[i64::MAX], &[i64::MAX], i64::MAX, &[]).unwrap_err();
        assert!(matches!(error, CandidateError::Scores { scores: 0, .. }));
        assert!(find_candidates(&[], &[i64::MAX], &[0], i64::MAX, &[]).is_ok());
    }
}
