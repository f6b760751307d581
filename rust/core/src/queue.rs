//! A priority queue over the candidates of one text.

use std::iter::Rev;
use std::vec::Drain;

use crate::span::Span;

/// When a candidate is looked at: by score, then by arrival. One number, so that comparing two is one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u64);

impl Turn {
    /// The turn of a candidate whose score is not NaN.
    pub(crate) fn new(score: f32, arrival: u32) -> Self {
        let bits = (score + 0.0).to_bits(); // -0.0 becomes 0.0: they are equal, so arrival decides
        // Makes the bits of numbers rise as the numbers do: negative ones count down from their sign bit.
        let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(rising) << 32 | u64::from(u32::MAX - arrival))
    }

    /// The number that the candidate came with.
    pub(crate) fn arrival(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
        let reversed = self.0 as u32;
        u32::MAX - reversed
    }
}

/// A candidate and its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ranked {
    pub(crate) turn: Turn,
    pub(crate) span: Span,
}

/// Gives the best candidates left, as many at a time as are asked for: an incremental quicksort (Paredes and Navarro
/// 2006).
///
/// A binary heap of a million candidates outgrows the caches, and each pop from it waits for memory a dozen times: 146
/// ns, against 29 ns from a heap of a thousand (AMD EPYC, 512 KiB of L2, 2026-11). Selecting and sorting read memory
/// from end to end: 28 ns and 19 ns. And those who still wait can be asked whether they have lost already: then they
/// need no order.
#[derive(Default)]
pub(crate) struct BestFirst {
    waiting: Vec<Ranked>,
}

impl BestFirst {
    /// Takes the candidates of the next text, of which there are `most` or fewer.
    pub(crate) fn fill(&mut self, most: usize, candidates: impl Iterator<Item = Ranked>) {
        self.waiting.clear();
        self.waiting.reserve(most);
        self.waiting.extend(candidates);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Removes the best `count` candidates, or all if there are fewer, and returns them from the best down.
    pub(crate) fn take_best(&mut self, count: usize) -> Rev<Drain<'_, Ranked>> {
        let first = self.waiting.len().saturating_sub(count);
        if first > 0 {
            self.waiting.select_nth_unstable(first);
        }
        self.waiting[first..].sort_unstable();
        self.waiting.drain(first..).rev()
    }

    /// Removes those whose spans have lost.
    pub(crate) fn drop_lost(&mut self, mut has_lost: impl FnMut(Span) -> bool) {
        self.waiting.retain(|candidate| !has_lost(candidate.span));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::span::WordIndex;

    fn order(scores: &[f32], at_a_time: usize) -> Vec<u32> {
        let span = Span::new(WordIndex::new(0), WordIndex::new(1)).unwrap();
        let candidates = (0..).zip(scores).map(|(arrival, &score)| Ranked { turn: Turn::new(score, arrival), span });
        let mut queue = BestFirst::default();
        queue.fill(scores.len(), candidates);
        let mut order = Vec::new();
        while queue.len() > 0 {
            order.extend(queue.take_best(at_a_time).map(|candidate| candidate.turn.arrival()));
        }
        order
    }

    #[test]
    fn infinities_and_both_zeros_have_their_place() {
        let scores = [0.0, f32::NEG_INFINITY, -0.0, f32::INFINITY, -1.0, f32::MIN_POSITIVE, 0.0, 1.0];
        for at_a_time in 1..10 {
            assert_eq!(order(&scores, at_a_time), [3, 7, 5, 0, 2, 6, 4, 1]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_best_comes_first_and_equal_ones_as_they_came(
            scores in prop::collection::vec(prop_oneof![Just(0.5_f32), Just(1.0), -1e3..1e3_f32], 0..300),
            at_a_time in 1..400_usize,
        ) {
            let mut expected: Vec<u32> = (0..).take(scores.len()).collect();
            expected.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize])); // stable
            prop_assert_eq!(order(&scores, at_a_time), expected);
        }
    }
}
