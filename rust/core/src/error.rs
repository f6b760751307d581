//! What can be wrong with what a caller gives: one enum a stage, each message with the value, the bound and the way
//! out.

mod network;

use std::error::Error;
use std::fmt;

pub use network::{AttentionError, LinearError, LstmError, SublayersError};

/// Offsets that do not cut their array.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the message tells")]
pub enum OffsetsError {
    /// No value at all.
    Empty { name: &'static str },
    /// The first value is not 0.
    First { name: &'static str, value: i64 },
    /// A value lies below the one before it.
    Falls { name: &'static str, index: usize, value: i64, previous: usize },
    /// The last value is not the array's length.
    Last { name: &'static str, value: usize, total: usize },
}

impl fmt::Display for OffsetsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { name } => write!(f, "{name} is empty: even for no text it holds one value, 0"),
            Self::First { name, value } => write!(f, "{name}[0] is {value}: the first part starts at 0"),
            Self::Falls { name, index, value, previous } => {
                write!(f, "{name}[{index}] is {value}, below {previous} before it: offsets never fall")
            }
            Self::Last { name, value, total } => {
                write!(f, "{name} ends at {value}, but {total} values were given: the last offset is their number")
            }
        }
    }
}

impl Error for OffsetsError {}

/// Text to words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the message tells")]
pub enum WordsError {
    /// A range of code points that is reversed, out of order or too far.
    Range { name: &'static str, index: usize, start: u32, end: u32, previous: u32 },
    /// Not as many ends as starts.
    Lengths { starts: usize, ends: usize },
    /// Not as many parts as texts.
    Texts { texts: usize, offsets: usize },
    /// A word that reaches out of its text.
    OutOfText { text: usize, row: usize, start: i64, end: i64, chars: usize },
    /// Offsets that do not cut their array.
    Offsets(OffsetsError),
}

impl fmt::Display for WordsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { name, index, start, end, previous } => write!(
                f,
                "{name}[{index}] is {start}..{end} after a range that ends at {previous}: \
                 expected ascending half-open ranges of code points up to 1114112"
            ),
            Self::Lengths { starts, ends } => {
                write!(f, "starts has {starts} values and ends has {ends}: each word has one of both")
            }
            Self::Texts { texts, offsets } => {
                write!(f, "text_offsets has {offsets} values for {texts} texts: expected one more than there are texts")
            }
            Self::OutOfText { text, row, start, end, chars } => write!(
                f,
                "word {row} is {start}..{end}, which is not within text {text} of {chars} code points: \
                 offsets count code points of the word's own text, the end excluded"
            ),
            Self::Offsets(error) => error.fmt(f),
        }
    }
}

impl Error for WordsError {}

impl From<OffsetsError> for WordsError {
    fn from(error: OffsetsError) -> Self {
        Self::Offsets(error)
    }
}

/// Subword ids of words that the cache did not know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the message tells")]
pub enum CacheError {
    /// Not as many counts as missing words.
    Words { counts: usize, missing: usize },
    /// A negative count.
    Count { index: usize, value: i64 },
    /// Not as many ids as the counts add up to.
    Ids { ids: usize, counted: u128 },
    /// An id that no vocabulary has.
    Id { index: usize, value: i64 },
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words { counts, missing } => {
                write!(f, "counts has {counts} values for {missing} missing words: expected one for each")
            }
            Self::Count { index, value } => write!(f, "counts[{index}] is {value}: a word has no fewer than 0 ids"),
            Self::Ids { ids, counted } => {
                write!(f, "ids has {ids} values, but counts add up to {counted}: give every word's ids, end to end")
            }
            Self::Id { index, value } => {
                write!(f, "ids[{index}] is {value}: a subword id lies within 0..4294967296")
            }
        }
    }
}

impl Error for CacheError {}

/// Subword ids to rows for the encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the message tells")]
pub enum AlignError {
    /// Not as many prompts as rows.
    Lengths { rows: usize, prompts: usize },
    /// A row that names no text.
    Text { row: usize, value: i64, texts: usize },
    /// A row that names no prompt.
    Prompt { row: usize, value: i64, prompts: usize },
    /// Not as many shifts as prompts.
    Shifts { shifts: usize, prompts: usize },
    /// A prompt that would number words upwards.
    Shift { prompt: usize, value: i64 },
    /// No room for the special tokens.
    NoRoom { max_subwords: i64, specials: usize },
    /// A pooling that does not exist.
    Pooling { value: String },
    /// More than memory can hold.
    TooLarge { rows: usize, subwords: usize },
    /// Offsets that do not cut their array.
    Offsets(OffsetsError),
}

impl fmt::Display for AlignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lengths { rows, prompts } => {
                write!(f, "prompt_of_row has {prompts} values for {rows} rows: expected one for each")
            }
            Self::Text { row, value, texts } => {
                write!(f, "rows[{row}] is {value}, but there are {texts} texts: expected an index below {texts}")
            }
            Self::Prompt { row, value, prompts } => write!(
                f,
                "prompt_of_row[{row}] is {value}, but there are {prompts} prompts: expected an index below {prompts}"
            ),
            Self::Shifts { shifts, prompts } => {
                write!(f, "shifts has {shifts} values for {prompts} prompts: expected one for each")
            }
            Self::Shift { prompt, value } => write!(
                f,
                "shifts[{prompt}] is {value}: the words that yielded an id, less all words of the prompt, are at most 0"
            ),
            Self::NoRoom { max_subwords, specials } => write!(
                f,
                "max_subwords is {max_subwords}, but prefix and suffix alone take {specials}: raise it or pass None"
            ),
            Self::Pooling { value } => {
                write!(f, "pooling is {value:?}: expected 'first', 'last', 'mean' or 'max'")
            }
            Self::TooLarge { rows, subwords } => write!(
                f,
                "{rows} rows of {subwords} subwords do not fit into memory: use smaller batches or set max_subwords"
            ),
            Self::Offsets(error) => error.fmt(f),
        }
    }
}

impl Error for AlignError {}

impl From<OffsetsError> for AlignError {
    fn from(error: OffsetsError) -> Self {
        Self::Offsets(error)
    }
}

/// Span scores to candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the message tells")]
pub enum CandidateError {
    /// Not as many class counts as word counts.
    Lengths { words: usize, classes: usize },
    /// A negative number of words or classes.
    Count { name: &'static str, text: usize, value: i64 },
    /// A width below 1.
    Width { value: i64 },
    /// Not as many scores as the shapes add up to.
    Scores { scores: usize, expected: u128 },
    /// Not as many marks of words as the shapes add up to.
    Marks { scores: usize, expected: u128 },
    /// Not as many thresholds as classes.
    Thresholds { name: &'static str, values: usize, expected: u128 },
    /// Scores of one start word that cannot be numbered in 32 bits.
    Row { text: usize },
    /// Rows without a number.
    Hidden,
    /// Not a row for each word or class.
    Factor { name: &'static str, values: usize, expected: u128 },
}

impl fmt::Display for CandidateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lengths { words, classes } => {
                write!(f, "word_counts has {words} values and class_counts has {classes}: each text has one of both")
            }
            Self::Count { name, text, value } => write!(f, "{name}[{text}] is {value}: expected 0 or more"),
            Self::Width { value } => write!(f, "max_width is {value}: the widest span has at least 1 word"),
            Self::Scores { scores, expected } => write!(
                f,
                "scores has {scores} values, but the texts' word_counts * max_width * class_counts add up to \
                 {expected}: give one block a text, without padding"
            ),
            Self::Marks { scores, expected } => write!(
                f,
                "scores has {scores} values, but the texts' word_counts * class_counts * 3 add up to {expected}: give \
                 one block a text, without padding"
            ),
            Self::Thresholds { name, values, expected } => write!(
                f,
                "{name} has {values} values, but class_counts add up to {expected}: give one a text and class"
            ),
            Self::Row { text } => write!(
                f,
                "text {text} has 2**32 or more spans and classes to one start word: ask for fewer classes or a \
                 smaller max_width"
            ),
            Self::Hidden => write!(f, "u, v and g have no columns: expected at least one"),
            Self::Factor { name, values, expected } => {
                write!(f, "{name} has {values} values: expected {expected}, a row for each word or class of all texts")
            }
        }
    }
}

impl Error for CandidateError {}

/// Candidates to entities.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the message tells")]
pub enum DecodeError {
    /// Not as many starts, ends and scores.
    Lengths { starts: usize, ends: usize, scores: usize },
    /// Not as many values as texts.
    Texts { name: &'static str, values: usize, texts: usize },
    /// A negative number of words, or more than a span can count.
    Words { text: usize, value: i64 },
    /// A span that holds no word.
    EmptySpan { text: usize, candidate: usize, start: i64, end: i64 },
    /// A span that reaches out of its text.
    SpanOutOfText { text: usize, candidate: usize, start: i64, end: i64, words: u32 },
    /// More candidates than can be counted.
    TooMany { text: usize, candidates: usize },
    /// Offsets that do not cut their array.
    Offsets(OffsetsError),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lengths { starts, ends, scores } => write!(
                f,
                "starts has {starts} values, ends {ends} and scores {scores}: each candidate has one of all three"
            ),
            Self::Texts { name, values, texts } => {
                write!(f, "{name} has {values} values for {texts} texts: expected one for each")
            }
            Self::Words { text, value } => {
                write!(f, "word_counts[{text}] is {value}: expected a number within 0..4294967296")
            }
            Self::EmptySpan { text, candidate, start, end } => write!(
                f,
                "candidate {candidate} of text {text} is the empty span {start}..{end}: the end is excluded, \
                 so give the last word + 1"
            ),
            Self::SpanOutOfText { text, candidate, start, end, words } => write!(
                f,
                "candidate {candidate} is the span {start}..{end}, which is not within text {text} of {words} words: \
                 drop spans that pass the end before decoding"
            ),
            Self::TooMany { text, candidates } => write!(
                f,
                "text {text} has {candidates} candidates: at most 4294967295 are decoded, so raise the threshold"
            ),
            Self::Offsets(error) => error.fmt(f),
        }
    }
}

impl Error for DecodeError {}

impl From<OffsetsError> for DecodeError {
    fn from(error: OffsetsError) -> Self {
        Self::Offsets(error)
    }
}
