//! Words to subword ids: remembered, since a tokenizer that sees each word alone is a function of the word.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::align::Subwords;
use crate::error::CacheError;
use crate::offsets::Offsets;
use crate::text::PackedStrings;
use crate::words::Words;

/// Longer words are not remembered: they hardly ever come back, and a few of them could fill the memory.
const MAX_WORD_BYTES: usize = 256;
/// Nor are words with more ids than this, for the same reason; no tokenizer makes more than two of a byte.
const MAX_WORD_IDS: usize = 1024;
/// Most bytes of words and ids for each word that may be remembered: an English word takes some 16, and a cache full of
/// addresses or numbers must not take twenty times as much.
const MEAN_BYTES: usize = 64;

/// Strings known by number, found by their text: each once.
#[derive(Default)]
struct Index {
    strings: PackedStrings,
    hashes: Vec<u64>,
    table: HashTable<usize>,
}

impl Index {
    #[inline]
    fn find(&self, hash: u64, string: &str) -> Option<usize> {
        self.table.find(hash, |&at| self.strings.get(at) == string).copied()
    }

    /// Adds a string that is not there yet.
    fn insert(&mut self, hash: u64, string: &str) -> usize {
        let at = self.strings.push(string);
        self.hashes.push(hash);
        self.table.insert_unique(hash, at, |&at| self.hashes[at]);
        at
    }

    fn len(&self) -> usize {
        self.strings.len()
    }
}

/// Some words with their ids. Laid end to end: remembering a word allocates nothing of its own.
#[derive(Default)]
struct Generation {
    words: Index,
    id_offsets: Offsets,
    ids: Vec<u32>,
}

impl Generation {
    #[inline]
    fn find(&self, hash: u64, word: &str) -> Option<Range<usize>> {
        self.words.find(hash, word).map(|at| self.id_offsets.range(at))
    }

    fn insert(&mut self, hash: u64, word: &str, ids: &[u32]) {
        self.words.insert(hash, word);
        self.ids.extend_from_slice(ids);
        self.id_offsets.push(self.ids.len());
    }

    /// Whether it has its share of a cache: `limit` words, or as many bytes as that many words may take.
    fn is_full(&self, limit: usize) -> bool {
        let bytes = self.words.strings.bytes() + size_of_val(self.ids.as_slice());
        self.words.len() >= limit || bytes >= limit.saturating_mul(MEAN_BYTES)
    }
}

/// Two generations: a word that is asked for moves to the young one, and when that is full, what was not asked for
/// since the last time is forgotten at once. No list of uses to keep, no single entry to drop.
#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
    /// Words that are in both.
    shared: usize,
}

impl Generations {
    /// Copies a word's ids to the end of `out` and returns how many there are.
    #[inline]
    fn recall(&mut self, hash: u64, word: &str, limit: usize, out: &mut Vec<u32>) -> Option<usize> {
        if let Some(ids) = self.young.find(hash, word) {
            out.extend_from_slice(&self.young.ids[ids.clone()]);
            return Some(ids.len());
        }
        let ids = self.old.find(hash, word)?;
        let first = out.len();
        out.extend_from_slice(&self.old.ids[ids]);
        self.insert(hash, word, &out[first..], limit);
        Some(out.len() - first)
    }

    /// Adds a word that the young generation does not hold.
    fn insert(&mut self, hash: u64, word: &str, ids: &[u32], limit: usize) {
        self.shared += usize::from(self.old.find(hash, word).is_some());
        self.young.insert(hash, word, ids);
        if self.young.is_full(limit) {
            self.old = std::mem::take(&mut self.young);
            self.shared = 0;
        }
    }
}

/// A bounded memory of words' subword ids, for many threads at once.
pub struct SubwordCache {
    generations: Mutex<Generations>,
    /// Most words in a generation; the old one is dropped before the two together pass the capacity.
    limit: usize,
    hasher: RandomState,
}

impl SubwordCache {
    /// A cache of at most `capacity` words; none at all with 0.
    pub fn new(capacity: usize) -> Self {
        let limit = if capacity == 0 { 0 } else { (capacity / 2).max(1) };
        Self { generations: Mutex::default(), limit, hasher: RandomState::default() }
    }

    /// Words remembered at the moment.
    pub fn len(&self) -> usize {
        let generations = self.lock();
        generations.young.words.len() + generations.old.words.len() - generations.shared
    }

    /// Whether no word is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.lock() = Generations::default();
    }

    /// Finds the ids of all words, as far as they are known; [`Lookup::complete`] takes the others.
    pub fn look_up(self: &Arc<Self>, words: &Words) -> Lookup {
        let strings = words.strings();
        let mut slots = Vec::with_capacity(strings.len());
        let mut known = Vec::with_capacity(strings.len());
        let mut missing = Index::default();
        let mut generations = self.lock();
        for word in strings.iter() {
            let hash = self.hasher.hash_one(word);
            slots.push(if let Some(count) = generations.recall(hash, word, self.limit, &mut known) {
                Slot::Known { count }
            } else {
                let index = missing.find(hash, word).unwrap_or_else(|| missing.insert(hash, word));
                Slot::Missing { index }
            });
        }
        drop(generations);
        Lookup { cache: Arc::clone(self), text_offsets: words.text_offsets().clone(), slots, known, missing }
    }

    fn remember(&self, words: &Index, id_offsets: &Offsets, ids: &[u32]) {
        if self.limit == 0 {
            return;
        }
        let mut generations = self.lock();
        for ((word, &hash), at) in words.strings.iter().zip(&words.hashes).zip(id_offsets.ranges()) {
            // Another thread may have met the same word meanwhile.
            let is_new = generations.young.find(hash, word).is_none();
            if is_new && word.len() <= MAX_WORD_BYTES && at.len() <= MAX_WORD_IDS {
                generations.insert(hash, word, &ids[at], self.limit);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        // Nothing panics while the lock is held, so what a poisoned one guards is whole.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a word's ids come from.
#[derive(Clone, Copy)]
enum Slot {
    /// The next `count` of those that the cache knew.
    Known { count: usize },
    /// A word that the cache did not know.
    Missing { index: usize },
}

/// A batch of words of which some are not known yet.
pub struct Lookup {
    cache: Arc<SubwordCache>,
    text_offsets: Offsets,
    slots: Vec<Slot>,
    /// Ids of the known words, in the order of the slots: copied, so that forgetting them meanwhile changes nothing.
    known: Vec<u32>,
    missing: Index,
}

impl Lookup {
    /// The distinct words that the cache did not know, in the order in which they came.
    pub fn missing(&self) -> &PackedStrings {
        &self.missing.strings
    }

    /// Takes `counts[i]` ids for missing word `i`, end to end, and remembers them.
    ///
    /// # Errors
    ///
    /// When the lengths disagree, or an id is not within `0..2^32`.
    pub fn complete(&self, ids: &[i64], counts: &[i64]) -> Result<Subwords, CacheError> {
        let given_offsets = self.check_counts(ids.len(), counts)?;
        let given = ids
            .iter()
            .enumerate()
            .map(|(index, &value)| u32::try_from(value).map_err(|_| CacheError::Id { index, value }))
            .collect::<Result<Vec<u32>, _>>()?;
        self.cache.remember(&self.missing, &given_offsets, &given);

        let mut flat = Vec::with_capacity(self.known.len() + given.len());
        let mut id_offsets = Offsets::with_capacity(self.slots.len());
        let mut known = self.known.as_slice();
        for slot in &self.slots {
            match *slot {
                Slot::Known { count } => {
                    let (ids, rest) = known.split_at(count);
                    flat.extend_from_slice(ids);
                    known = rest;
                }
                Slot::Missing { index } => flat.extend_from_slice(&given[given_offsets.range(index)]),
            }
            id_offsets.push(flat.len());
        }
        Ok(Subwords::new(self.text_offsets.clone(), id_offsets, flat))
    }

    fn check_counts(&self, ids: usize, counts: &[i64]) -> Result<Offsets, CacheError> {
        if counts.len() != self.missing.len() {
            return Err(CacheError::Words { counts: counts.len(), missing: self.missing.len() });
        }
        let mut counted = 0_u128;
        for (index, &value) in counts.iter().enumerate() {
            counted += u128::try_from(value).map_err(|_| CacheError::Count { index, value })?;
        }
        if counted != ids as u128 {
            return Err(CacheError::Ids { ids, counted });
        }
        let mut offsets = Offsets::with_capacity(counts.len());
        for &count in counts {
            let count = usize::try_from(count).expect("no count passes their sum, which is a length");
            offsets.push(offsets.total() + count);
        }
        Ok(offsets)
    }
}
