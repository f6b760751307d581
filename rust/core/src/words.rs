//! Text to words: `\w+(?:[-_]\w+)*|\S`, in which `_` is both a `\w` and one of what joins. Tested from Python, against
//! the expression itself (`tests/test_words.py`).

use crate::error::WordsError;
use crate::offsets::Offsets;
use crate::text::PackedStrings;

/// One past the largest code point.
const CODE_POINTS: usize = 0x11_0000;

/// What the splitter's expression makes of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// `\w`
    Word,
    /// `\s`
    Space,
    /// Neither: a word by itself.
    Symbol,
}

/// A set of code points, one bit each: 136 KiB, of which a text in one script touches a few cache lines.
struct CodePoints(Vec<u64>);

impl CodePoints {
    fn from_ranges(name: &'static str, ranges: &[[u32; 2]]) -> Result<Self, WordsError> {
        let mut bits = vec![0_u64; CODE_POINTS / 64];
        let mut previous = 0;
        for (index, &[start, end]) in ranges.iter().enumerate() {
            if start < previous || end < start || end as usize > CODE_POINTS {
                return Err(WordsError::Range { name, index, start, end, previous });
            }
            for code_point in start..end {
                bits[code_point as usize / 64] |= 1 << (code_point % 64);
            }
            previous = end;
        }
        Ok(Self(bits))
    }

    #[inline]
    fn contains(&self, code_point: u32) -> bool {
        self.0[code_point as usize / 64] >> (code_point % 64) & 1 == 1
    }
}

/// Splits as `re.compile(r"\w+(?:[-_]\w+)*|\S").finditer` does, given the interpreter's own tables of `\w` and `\s`.
///
/// Runs of word characters, joined by single hyphens or underscores, are words; every other character that is not a
/// space is one by itself. Backtracking never changes an answer here: the longest run is always taken, and nothing
/// follows it.
pub struct WordSplitter {
    /// Most text is ASCII, and one look-up in 128 bytes decides there.
    ascii: [Class; 128],
    word: CodePoints,
    space: CodePoints,
}

impl WordSplitter {
    /// A splitter for these tables: half-open ranges of code points, ascending and disjoint.
    ///
    /// # Errors
    ///
    /// When a range is reversed, out of order, or passes U+10FFFF.
    pub fn new(word_ranges: &[[u32; 2]], space_ranges: &[[u32; 2]]) -> Result<Self, WordsError> {
        let word = CodePoints::from_ranges("word_ranges", word_ranges)?;
        let space = CodePoints::from_ranges("space_ranges", space_ranges)?;
        let mut ascii = [Class::Symbol; 128];
        for (code_point, class) in (0..).zip(&mut ascii) {
            *class = classify(&word, &space, code_point);
        }
        Ok(Self { ascii, word, space })
    }

    /// The words of each text, at most `max_words` of them a text.
    pub fn split<T: AsRef<str>>(&self, texts: &[T], max_words: Option<usize>) -> Words {
        let mut words = Words::default();
        for text in texts {
            let total = self.split_text(text.as_ref(), max_words.unwrap_or(usize::MAX), &mut words);
            words.end_text(total);
        }
        words
    }

    /// Adds a text's first `max_words` words and returns how many it has.
    fn split_text(&self, text: &str, max_words: usize, words: &mut Words) -> usize {
        let bytes = text.as_bytes();
        let mut total = 0;
        let mut at = Place::default();
        while at.byte < bytes.len() {
            let start = at;
            let (class, width) = self.classify_at(text, at.byte);
            at.step(width);
            match class {
                Class::Space => continue,
                Class::Symbol => {}
                Class::Word => {
                    self.pass_word_characters(text, &mut at);
                    while matches!(bytes.get(at.byte), Some(b'-' | b'_')) && self.is_word_at(text, at.byte + 1) {
                        at.step(1);
                        self.pass_word_characters(text, &mut at);
                    }
                }
            }
            if total < max_words {
                words.push(&text[start.byte..at.byte], start.char, at.char);
            }
            total += 1;
        }
        total
    }

    #[inline]
    fn pass_word_characters(&self, text: &str, at: &mut Place) {
        while at.byte < text.len() {
            let (class, width) = self.classify_at(text, at.byte);
            if class != Class::Word {
                break;
            }
            at.step(width);
        }
    }

    #[inline]
    fn is_word_at(&self, text: &str, byte: usize) -> bool {
        byte < text.len() && self.classify_at(text, byte).0 == Class::Word
    }

    /// The class of the character that starts at `byte`, and its width in bytes.
    #[inline]
    fn classify_at(&self, text: &str, byte: usize) -> (Class, usize) {
        let first = text.as_bytes()[byte];
        if first < 128 {
            return (self.ascii[usize::from(first)], 1);
        }
        let character = text[byte..].chars().next().expect("`byte` is where a character starts");
        (classify(&self.word, &self.space, u32::from(character)), character.len_utf8())
    }
}

/// As the expression asks: first whether it is a word character, then whether it is a space.
#[inline]
fn classify(word: &CodePoints, space: &CodePoints, code_point: u32) -> Class {
    if word.contains(code_point) {
        Class::Word
    } else if space.contains(code_point) {
        Class::Space
    } else {
        Class::Symbol
    }
}

/// The same place in both units.
#[derive(Clone, Copy, Default)]
struct Place {
    byte: usize,
    char: usize,
}

impl Place {
    /// Passes one character.
    #[inline]
    fn step(&mut self, width: usize) {
        self.byte += width;
        self.char += 1;
    }
}

/// The words of a batch of texts, flat.
#[derive(Clone, Debug, Default)]
pub struct Words {
    text_offsets: Offsets,
    total_counts: Vec<usize>,
    starts: Vec<usize>,
    ends: Vec<usize>,
    strings: PackedStrings,
}

impl Words {
    /// Words that another splitter found: `starts[i]..ends[i]` counts code points of the text that owns row `i`.
    ///
    /// # Errors
    ///
    /// When the arrays do not fit each other, or a word reaches out of its text.
    pub fn from_offsets<T: AsRef<str>>(
        texts: &[T],
        text_offsets: &[i64],
        starts: &[i64],
        ends: &[i64],
    ) -> Result<Self, WordsError> {
        if starts.len() != ends.len() {
            return Err(WordsError::Lengths { starts: starts.len(), ends: ends.len() });
        }
        let text_offsets = Offsets::check("text_offsets", text_offsets, starts.len())?;
        if text_offsets.len() != texts.len() {
            return Err(WordsError::Texts { texts: texts.len(), offsets: text_offsets.as_slice().len() });
        }
        let mut words = Self::default();
        let mut byte_of_char = Vec::new();
        for (index, (text, rows)) in texts.iter().zip(text_offsets.ranges()).enumerate() {
            let text = text.as_ref();
            byte_of_char.clear();
            if !text.is_ascii() {
                byte_of_char.extend(text.char_indices().map(|(byte, _)| byte));
                byte_of_char.push(text.len());
            }
            let chars = if text.is_ascii() { text.len() } else { byte_of_char.len() - 1 };
            let byte_of = |char: usize| if byte_of_char.is_empty() { char } else { byte_of_char[char] };
            for row in rows.clone() {
                let (start, end) = (starts[row], ends[row]);
                match (usize::try_from(start), usize::try_from(end)) {
                    (Ok(start), Ok(end)) if start <= end && end <= chars => {
                        words.push(&text[byte_of(start)..byte_of(end)], start, end);
                    }
                    _ => return Err(WordsError::OutOfText { text: index, row, start, end, chars }),
                }
            }
            words.end_text(rows.len());
        }
        Ok(words)
    }

    /// Words that were split before, with the places they would have if one blank stood between them.
    pub fn from_lists<W: AsRef<str>>(texts: &[Vec<W>]) -> Self {
        let mut words = Self::default();
        for text in texts {
            let mut start = 0;
            for word in text {
                let word = word.as_ref();
                let end = start + word.chars().count();
                words.push(word, start, end);
                start = end + 1;
            }
            words.end_text(text.len());
        }
        words
    }

    #[inline]
    fn push(&mut self, string: &str, start: usize, end: usize) {
        self.strings.push(string);
        self.starts.push(start);
        self.ends.push(end);
    }

    fn end_text(&mut self, total: usize) {
        self.text_offsets.push(self.starts.len());
        self.total_counts.push(total);
    }

    /// Where each text's words lie among all.
    pub fn text_offsets(&self) -> &Offsets {
        &self.text_offsets
    }

    /// Words in each text before `max_words` cut them.
    pub fn total_counts(&self) -> &[usize] {
        &self.total_counts
    }

    /// First code point of each word, in its text.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// The code point after the last one of each word, in its text.
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The words themselves.
    pub fn strings(&self) -> &PackedStrings {
        &self.strings
    }
}
