//! Many strings in one buffer, and reading Python's strings.

use std::string::FromUtf8Error;

/// Many strings laid end to end: two allocations instead of one for each string.
#[derive(Clone, Debug, Default)]
pub struct PackedStrings {
    text: String,
    ends: Vec<usize>,
}

impl PackedStrings {
    /// Adds a string and returns its index.
    #[inline]
    pub fn push(&mut self, string: &str) -> usize {
        self.text.push_str(string);
        self.ends.push(self.text.len());
        self.ends.len() - 1
    }

    /// String `index`.
    ///
    /// # Panics
    ///
    /// When `index >= self.len()`, as an index into a slice does.
    #[inline]
    pub fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index]]
    }

    /// Bytes of all strings together.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The strings, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Forgets all strings and keeps the buffers.
    pub fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}

/// Reads UTF-8 in which lone surrogates stand as three bytes (Python's `surrogatepass`), each as U+FFFD.
///
/// U+FFFD is three bytes long as well, so no offset moves, neither in bytes nor in code points.
///
/// # Errors
///
/// When the bytes are not UTF-8 in another way.
pub fn replace_surrogates(mut bytes: Vec<u8>) -> Result<String, FromUtf8Error> {
    let mut at = 0;
    while at + 2 < bytes.len() {
        // U+D800..=U+DFFF are ED A0 80..=ED BF BF; after ED, UTF-8 proper goes no further than 9F.
        if bytes[at] == 0xED && bytes[at + 1] >= 0xA0 {
            bytes[at..at + 3].copy_from_slice("\u{FFFD}".as_bytes());
            at += 3;
        } else {
            at += 1;
        }
    }
    String::from_utf8(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_strings_come_back_as_they_went_in() {
        let strings = ["", "a", "", "déjà", "日本"];
        let mut packed = PackedStrings::default();
        for (index, string) in strings.iter().enumerate() {
            assert_eq!(packed.push(string), index);
        }
        assert_eq!(packed.iter().collect::<Vec<_>>(), strings);
    }

    #[test]
    fn each_surrogate_becomes_one_replacement_character() {
        let bytes = b"a\xED\xA0\x80\xED\xBF\xBFb\xED\x9F\xBF\xED\xB0\x80".to_vec();
        assert_eq!(replace_surrogates(bytes).unwrap(), "a\u{FFFD}\u{FFFD}b\u{D7FF}\u{FFFD}");
    }

    #[test]
    fn other_broken_bytes_are_refused() {
        assert!(replace_surrogates(b"a\xFF".to_vec()).is_err());
        assert!(replace_surrogates(b"\xED\xA0".to_vec()).is_err());
    }
}
