//! Marks of words to candidates: the spans of token-level models.

use crate::candidates::Shape;
use crate::error::CandidateError;
use crate::offsets::Offsets;

/// Marks of a word for a class: whether a span starts there, ends there, and goes on there.
const MARKS: usize = 3;

/// The spans of a batch of texts that are marked, flat; by text, start, class and end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MarkedSpans {
    /// Spans by text.
    pub text_offsets: Offsets,
    /// First word.
    pub starts: Vec<usize>,
    /// The word after the last one.
    pub ends: Vec<usize>,
    /// Entity type.
    pub classes: Vec<usize>,
    /// The lower score of the marks of its two edges.
    pub edges: Vec<f32>,
    /// The lowest score of the marks of what is inside, its edges among it.
    pub insides: Vec<f32>,
}

/// Picks the spans that start and end at a word marked as such, with all words from there to there marked as inside.
///
/// `scores` holds a block `(word_counts[b], class_counts[b], 3)` for each text, one after another: the probabilities
/// that a span starts with a word, ends with it, and that the word is inside one. `edges` and `insides` hold
/// `class_counts[b]` thresholds a text: what starts and ends must pass, and what words inside must reach. NaN does
/// neither. Each start takes as long as its words inside go on.
///
/// # Errors
///
/// When the lengths do not fit the counts, or a count is negative.
pub fn find_marked_spans(
    scores: &[f32],
    word_counts: &[i64],
    class_counts: &[i64],
    edges: &[f32],
    insides: &[f64],
) -> Result<MarkedSpans, CandidateError> {
    let shape = Shape::check(word_counts, class_counts, 3)?;
    shape.check_marks(scores.len())?;
    shape.check_thresholds("edges", edges.len())?;
    shape.check_thresholds("insides", insides.len())?;
    let mut found = MarkedSpans::default();
    let (mut block, mut edges, mut insides) = (scores, edges, insides);
    for (&words, &classes) in shape.words.iter().zip(&shape.classes) {
        let (own, later) = block.split_at(words * classes * MARKS);
        let (own_edges, later_edges) = edges.split_at(classes);
        let (own_insides, later_insides) = insides.split_at(classes);
        let text = Text { scores: own, words, classes };
        for start in 0..words {
            for (class, (&edge, &inside)) in own_edges.iter().zip(own_insides).enumerate() {
                text.find_from(start, class, edge, inside, &mut found);
            }
        }
        found.text_offsets.push(found.starts.len());
        (block, edges, insides) = (later, later_edges, later_insides);
    }
    Ok(found)
}

/// The marks of a text.
#[derive(Clone, Copy)]
struct Text<'a> {
    scores: &'a [f32],
    words: usize,
    classes: usize,
}

impl Text<'_> {
    /// Start, end and inside.
    fn marks(self, word: usize, class: usize) -> [f32; MARKS] {
        let at = (word * self.classes + class) * MARKS;
        [self.scores[at], self.scores[at + 1], self.scores[at + 2]]
    }

    /// Adds the spans of a class that start with a word.
    fn find_from(self, first: usize, class: usize, edge: f32, inside: f64, found: &mut MarkedSpans) {
        let [start, ..] = self.marks(first, class);
        if start.is_nan() || start <= edge {
            return;
        }
        let mut lowest = f32::INFINITY;
        for last in first..self.words {
            let [_, end, within] = self.marks(last, class);
            if within.is_nan() || f64::from(within) < inside {
                return;
            }
            lowest = lowest.min(within);
            if end > edge {
                found.starts.push(first);
                found.ends.push(last + 1);
                found.classes.push(class);
                found.edges.push(start.min(end));
                found.insides.push(lowest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One text of one class.
    fn find(marks: &[[f32; MARKS]], edge: f32, inside: f64) -> Vec<(usize, usize, f32, f32)> {
        let words = i64::try_from(marks.len()).unwrap();
        let found = find_marked_spans(marks.as_flattened(), &[words], &[1], &[edge], &[inside]).unwrap();
        let spans = found.starts.into_iter().zip(found.ends);
        spans
            .zip(found.edges)
            .zip(found.insides)
            .map(|(((start, end), edge), inside)| (start, end, edge, inside))
            .collect()
    }

    #[test]
    fn a_span_goes_on_until_a_word_is_not_inside() {
        let marks = [[0.9, 0.0, 0.8], [0.0, 0.7, 0.6], [0.0, 0.8, 0.9], [0.0, 0.9, 0.4], [0.0, 0.9, 0.9]];
        assert_eq!(find(&marks, 0.5, 0.5), [(0, 2, 0.7, 0.6), (0, 3, 0.8, 0.6)]);
    }

    #[test]
    fn edges_must_pass_what_words_inside_need_but_reach() {
        assert_eq!(find(&[[0.9, 0.9, 0.5]], 0.5, 0.5), [(0, 1, 0.9, 0.5)]);
        assert_eq!(find(&[[0.9, 0.9, 0.5]], 0.5, 0.5 + 1e-12), []); // which float32 does not tell from 0.5
        for marks in
            [[0.5, 0.9, 0.9], [0.9, 0.5, 0.9], [f32::NAN, 0.9, 0.9], [0.9, f32::NAN, 0.9], [0.9, 0.9, f32::NAN]]
        {
            assert_eq!(find(&[marks], 0.5, 0.5), []);
        }
    }

    #[test]
    fn spans_come_by_start_then_class_then_end() {
        let found = find_marked_spans(&[0.9; 2 * 2 * 3], &[2], &[2], &[0.5; 2], &[0.5; 2]).unwrap();
        assert_eq!(found.starts, [0, 0, 0, 0, 1, 1]);
        assert_eq!(found.classes, [0, 0, 1, 1, 0, 1]);
        assert_eq!(found.ends, [1, 2, 1, 2, 2, 2]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let message = |marks: usize, edges: usize, insides: usize| {
            find_marked_spans(&vec![0.0; marks], &[2], &[1], &vec![0.0; edges], &vec![0.0; insides])
                .unwrap_err()
                .to_string()
        };
        assert!(message(5, 1, 1).contains("add up to 6"));
        assert!(message(7, 1, 1).contains("add up to 6"));
        assert!(message(6, 0, 1).contains("edges has 0 values"));
        assert!(message(6, 2, 1).contains("edges has 2 values"));
        assert!(message(6, 1, 0).contains("insides has 0 values"));
        assert!(message(6, 1, 2).contains("insides has 2 values"));
    }
}
