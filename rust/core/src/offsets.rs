//! Offsets that cut a flat array into consecutive parts.

use std::ops::Range;

use crate::error::OffsetsError;

/// Part `i` of a flat array is `offsets[i]..offsets[i + 1]`. Starts at 0, never falls, ends at the array's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offsets(Vec<usize>);

impl Offsets {
    /// Offsets of no part at all.
    pub fn new() -> Self {
        Self(vec![0])
    }

    /// Offsets of no part yet, with room for `parts`.
    pub(crate) fn with_capacity(parts: usize) -> Self {
        let mut values = Vec::with_capacity(parts + 1);
        values.push(0);
        Self(values)
    }

    /// Checks offsets that came from outside.
    ///
    /// # Errors
    ///
    /// When `values` is empty, does not start at 0, falls somewhere, or does not end at `total`.
    pub fn check(name: &'static str, values: &[i64], total: usize) -> Result<Self, OffsetsError> {
        let Some(&first) = values.first() else {
            return Err(OffsetsError::Empty { name });
        };
        if first != 0 {
            return Err(OffsetsError::First { name, value: first });
        }
        let mut checked = Vec::with_capacity(values.len());
        let mut previous = 0_usize;
        for (index, &value) in values.iter().enumerate() {
            match usize::try_from(value) {
                Ok(offset) if offset >= previous => previous = offset,
                _ => return Err(OffsetsError::Falls { name, index, value, previous }),
            }
            checked.push(previous);
        }
        if previous != total {
            return Err(OffsetsError::Last { name, value: previous, total });
        }
        Ok(Self(checked))
    }

    /// Ends the part that is being filled at `end`, the length of the flat array so far.
    pub(crate) fn push(&mut self, end: usize) {
        debug_assert!(end >= self.total(), "offsets never fall");
        self.0.push(end);
    }

    /// How many parts there are.
    pub fn len(&self) -> usize {
        self.0.len() - 1
    }

    /// Whether there is no part.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where part `index` lies in the flat array.
    ///
    /// # Panics
    ///
    /// When `index >= self.len()`, as an index into a slice does.
    #[inline]
    pub fn range(&self, index: usize) -> Range<usize> {
        self.0[index]..self.0[index + 1]
    }

    /// The length of the flat array.
    #[inline]
    pub fn total(&self) -> usize {
        self.0[self.0.len() - 1]
    }

    /// The parts' places, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.0.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// The bare values: one more than there are parts.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

impl Default for Offsets {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_offsets_give_their_parts() {
        let offsets = Offsets::check("o", &[0, 2, 2, 5], 5).unwrap();
        assert_eq!(offsets.ranges().collect::<Vec<_>>(), [0..2, 2..2, 2..5]);
    }

    #[test]
    fn each_kind_of_bad_offsets_is_named() {
        let check = |values: &[i64], total| Offsets::check("o", values, total).unwrap_err().to_string();
        assert!(check(&[], 0).contains("o is empty"));
        assert!(check(&[1, 2], 2).contains("o[0] is 1"));
        assert!(check(&[0, 3, 2], 2).contains("o[2] is 2, below 3"));
        assert!(check(&[0, -1], 0).contains("o[1] is -1, below 0"));
        assert!(check(&[0, 2], 3).contains("ends at 2, but 3"));
        assert!(check(&[0, 4], 3).contains("ends at 4, but 3"));
    }
}
