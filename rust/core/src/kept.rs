//! The spans kept so far of one text, and whether another clashes with them.

use crate::decode::Overlap;
use crate::span::{Span, WordIndex};

/// Answers "does it clash?" in O(log words) for every mode. Made once a batch; `restart` begins the next text.
///
/// Where spans may nest, a span that was kept is kept again whatever the mode: it crosses itself as little as the
/// others do. So without multi-label the later ones of identical spans are dropped in the end, all at once, which takes
/// no look-up here.
pub(crate) struct KeptSpans {
    overlap: Overlap,
    disjoint: DisjointSpans,
    nestable: NestableSpans,
}

impl KeptSpans {
    pub(crate) fn new() -> Self {
        Self { overlap: Overlap::Flat, disjoint: DisjointSpans::default(), nestable: NestableSpans::default() }
    }

    /// Forgets all spans; the next ones lie within `words`.
    pub(crate) fn restart(&mut self, overlap: Overlap, words: usize) {
        self.overlap = overlap;
        match overlap {
            Overlap::Flat | Overlap::FlatMultiLabel => self.disjoint.restart(words),
            Overlap::Nested | Overlap::NestedMultiLabel => self.nestable.restart(words),
        }
    }

    /// Whether the span clashes with another one that is kept; if so, it always will.
    pub(crate) fn clash_with(&self, span: Span) -> bool {
        match self.overlap {
            Overlap::Flat => self.disjoint.overlap_with(span),
            Overlap::FlatMultiLabel => self.disjoint.overlap_with(span) && !self.disjoint.contain(span),
            Overlap::Nested | Overlap::NestedMultiLabel => self.nestable.cross(span),
        }
    }

    /// Keeps a span that clashes with none.
    pub(crate) fn insert(&mut self, span: Span) {
        match self.overlap {
            Overlap::Flat | Overlap::FlatMultiLabel => self.disjoint.insert(span),
            Overlap::Nested | Overlap::NestedMultiLabel => self.nestable.insert(span),
        }
    }
}

/// Spans that share no word: the words that they cover as a set, and the end of each.
#[derive(Default)]
struct DisjointSpans {
    covered: WordSet,
    /// For each word that starts a span, the end of it; 0 for all others.
    ends: Vec<u32>,
}

impl DisjointSpans {
    fn restart(&mut self, words: usize) {
        self.covered.restart(words + 1); // one more: a span may end where the text ends, and is asked about there
        self.ends.clear();
        self.ends.resize(words, 0);
    }

    fn overlap_with(&self, span: Span) -> bool {
        self.covered.last_before(span.end()).is_some_and(|word| word >= span.start())
    }

    fn contain(&self, span: Span) -> bool {
        self.ends[span.start().index()] == span.end().get()
    }

    /// Adds a span that overlaps none, or again one that is there.
    fn insert(&mut self, span: Span) {
        if self.contain(span) {
            return;
        }
        // Each word is covered once, so all spans together take O(words).
        for word in span.words() {
            self.covered.insert(word);
        }
        self.ends[span.start().index()] = span.end().get();
    }
}

/// A set of words as bits, with a level above that has a bit for each non-empty 64 of the level below, and so on up to
/// one number. Six bits a level: "the last one before" takes four steps in a text of a million words.
#[derive(Default)]
struct WordSet {
    /// From the words themselves up.
    levels: Vec<Vec<u64>>,
}

impl WordSet {
    fn restart(&mut self, words: usize) {
        let mut size = words;
        let mut depth = 0;
        loop {
            size = size.div_ceil(64).max(1);
            if depth == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let level = &mut self.levels[depth];
            level.clear();
            level.resize(size, 0);
            depth += 1;
            if size == 1 {
                break;
            }
        }
        self.levels.truncate(depth);
    }

    fn insert(&mut self, word: WordIndex) {
        let mut at = word.index();
        for level in &mut self.levels {
            let block = &mut level[at / 64];
            let was_empty = *block == 0;
            *block |= 1 << (at % 64);
            if !was_empty {
                break; // the levels above know this block
            }
            at /= 64;
        }
    }

    /// The largest word in the set that is below `bound`.
    fn last_before(&self, bound: WordIndex) -> Option<WordIndex> {
        let mut at = bound.index();
        for (height, level) in self.levels.iter().enumerate() {
            // The blocks before this one are the level above's to search. A bound at the very end has no block of its
            // own.
            let below = level.get(at / 64).map_or(0, |block| block & ((1_u64 << (at % 64)) - 1));
            if below != 0 {
                return Some(self.descend(height, (at / 64) * 64 + highest_bit(below)));
            }
            at /= 64;
        }
        None
    }

    /// The largest word under bit `at` of a level.
    fn descend(&self, height: usize, mut at: usize) -> WordIndex {
        for level in self.levels[..height].iter().rev() {
            at = at * 64 + highest_bit(level[at]);
        }
        WordIndex::new(u32::try_from(at).expect("only words were put in"))
    }
}

/// Which bit is the highest; the number is not 0.
fn highest_bit(bits: u64) -> usize {
    bits.ilog2() as usize
}

/// How far kept spans reach from the edges in some range of words.
#[derive(Clone, Copy)]
struct Reach {
    /// The first word of the longest span that ends in the range.
    first: u32,
    /// The end of the longest span that starts in the range.
    last: u32,
}

impl Reach {
    const NONE: Self = Self { first: u32::MAX, last: 0 };

    fn passes(self, span: Span) -> bool {
        self.first < span.start().get() || self.last > span.end().get()
    }
}

/// Edges of spans that a leaf of the tree sums up: two neighbouring cache lines of them, which are read faster than
/// four levels of nodes in as many lines. From 8 to 32 the time is the same within noise.
const BLOCK: usize = 16;

/// Spans of which none crosses another, by range minimum of starts over ends and range maximum of ends over starts.
/// Always asked about the same range, the two lie side by side.
#[derive(Default)]
struct NestableSpans {
    /// For each edge between words, the longest span that ends there and the longest that starts there.
    edges: Vec<Reach>,
    blocks: SegmentTree,
}

impl NestableSpans {
    fn restart(&mut self, words: usize) {
        let edges = words + 1;
        self.edges.clear();
        self.edges.resize(edges, Reach::NONE);
        self.blocks.restart(edges.div_ceil(BLOCK));
    }

    /// Adds a span that crosses none, or again one that is there.
    fn insert(&mut self, span: Span) {
        let (start, end) = (span.start().index(), span.end().index());
        if span.start().get() < self.edges[end].first {
            self.edges[end].first = span.start().get();
            self.blocks.extend_first(end / BLOCK, span);
        }
        if span.end().get() > self.edges[start].last {
            self.edges[start].last = span.end().get();
            self.blocks.extend_last(start / BLOCK, span);
        }
    }

    /// Whether an inserted span crosses this one: then exactly one of its edges lies strictly inside, and either it
    /// ends there and starts before, or it starts there and ends after.
    fn cross(&self, span: Span) -> bool {
        let (first, past) = (span.start().index() + 1, span.end().index());
        let (first_block, past_block) = (first.div_ceil(BLOCK), past / BLOCK);
        let any_of = |edges: &[Reach]| edges.iter().any(|edge| edge.passes(span));
        if first_block >= past_block {
            return any_of(&self.edges[first..past]);
        }
        // Whole blocks first: the upper nodes of the tree are few and stay in the cache, and answer for most of a wide
        // span.
        self.blocks.any_passes(first_block, past_block, span)
            || any_of(&self.edges[first..first_block * BLOCK])
            || any_of(&self.edges[past_block * BLOCK..past])
    }
}

/// The reach of each block and of each subtree: `nodes[size + block]` are the blocks, and `nodes[i]` sums up `nodes[2 *
/// i]` and `nodes[2 * i + 1]`.
#[derive(Default)]
struct SegmentTree {
    nodes: Vec<Reach>,
    size: usize,
}

impl SegmentTree {
    fn restart(&mut self, blocks: usize) {
        self.size = blocks;
        self.nodes.clear();
        self.nodes.resize(2 * blocks, Reach::NONE);
    }

    /// Tells the tree of a span that ends in the block.
    fn extend_first(&mut self, block: usize, span: Span) {
        let mut at = self.size + block;
        while at > 0 && span.start().get() < self.nodes[at].first {
            self.nodes[at].first = span.start().get();
            at /= 2;
        }
    }

    /// Tells the tree of a span that starts in the block.
    fn extend_last(&mut self, block: usize, span: Span) {
        let mut at = self.size + block;
        while at > 0 && span.end().get() > self.nodes[at].last {
            self.nodes[at].last = span.end().get();
            at /= 2;
        }
    }

    /// Whether some span with an edge in `first..past`, which is not empty, reaches out of this one. From the top down.
    fn any_passes(&self, first: usize, past: usize, span: Span) -> bool {
        let (first, past) = (self.size + first, self.size + past);
        (0..=(past - first).ilog2()).rev().any(|height| {
            let (low, high) = (first.div_ceil(1 << height), past >> height); // whole nodes of this height
            low < high
                && (low % 2 == 1 && self.nodes[low].passes(span) || high % 2 == 1 && self.nodes[high - 1].passes(span))
        })
    }
}
