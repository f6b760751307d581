//! Places in a text, counted in words.

/// Which word of its text, from 0. `u32`: four thousand million words of one text are refused at the door, and halving
/// the spans lets twice as many stay in a cache level while decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WordIndex(u32);

impl WordIndex {
    /// The word with this number.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The bare number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number as an index into an array that has a place for each word.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Words `start..end` of a text; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    start: WordIndex,
    end: WordIndex,
}

impl Span {
    /// The span of words `start..end`, or nothing when that is empty.
    pub fn new(start: WordIndex, end: WordIndex) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// The first word.
    pub const fn start(self) -> WordIndex {
        self.start
    }

    /// The word after the last one.
    pub const fn end(self) -> WordIndex {
        self.end
    }

    /// Its words, in order.
    pub fn words(self) -> impl Iterator<Item = WordIndex> {
        (self.start.0..self.end.0).map(WordIndex)
    }

    /// Whether the two share a word.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether the two share a word and neither lies within the other.
    pub fn crosses(self, other: Self) -> bool {
        let (first, second) = if self.start <= other.start { (self, other) } else { (other, self) };
        first.start < second.start && second.start < first.end && first.end < second.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u32, end: u32) -> Span {
        Span::new(WordIndex::new(start), WordIndex::new(end)).unwrap()
    }

    #[test]
    fn an_empty_span_does_not_exist() {
        assert_eq!(Span::new(WordIndex::new(3), WordIndex::new(3)), None);
        assert_eq!(Span::new(WordIndex::new(4), WordIndex::new(3)), None);
    }

    #[test]
    fn crossing_is_overlap_without_nesting() {
        for (a, b, overlaps, crosses) in [
            (span(0, 2), span(2, 4), false, false), // neighbours
            (span(0, 3), span(2, 4), true, true),
            (span(0, 4), span(1, 3), true, false), // within
            (span(0, 4), span(0, 3), true, false), // the same start
            (span(0, 4), span(2, 4), true, false), // the same end
            (span(1, 3), span(1, 3), true, false), // the same span
        ] {
            assert_eq!((a.overlaps(b), b.overlaps(a)), (overlaps, overlaps), "{a:?} {b:?}");
            assert_eq!((a.crosses(b), b.crosses(a)), (crosses, crosses), "{a:?} {b:?}");
        }
    }
}
