//! What is laid around a text's subwords: prompts, special tokens, and the rules of a row.

use std::str::FromStr;

use crate::error::AlignError;
use crate::offsets::Offsets;

/// The distinct prompts of a call, tokenized.
#[derive(Clone, Debug)]
pub struct Prompts {
    ids: Vec<i64>,
    offsets: Offsets,
    /// By how much the numbers of a text's words fall behind, one a prompt; see [`crate::Subwords::assemble`].
    lags: Vec<usize>,
}

impl Prompts {
    /// Prompts laid end to end: `ids[offsets[p]..offsets[p + 1]]` is prompt `p`, and `shifts[p]` the number of its
    /// words that yielded an id less the number of its words.
    ///
    /// # Errors
    ///
    /// When the arrays do not fit each other, or a shift is above 0.
    pub fn new(ids: &[i64], offsets: &[i64], shifts: &[i64]) -> Result<Self, AlignError> {
        let offsets = Offsets::check("offsets", offsets, ids.len())?;
        if offsets.len() != shifts.len() {
            return Err(AlignError::Shifts { shifts: shifts.len(), prompts: offsets.len() });
        }
        let lag = |(prompt, &value): (usize, &i64)| {
            let lag = value.checked_neg().and_then(|lag| usize::try_from(lag).ok());
            lag.ok_or(AlignError::Shift { prompt, value })
        };
        let lags = shifts.iter().enumerate().map(lag).collect::<Result<_, _>>()?;
        Ok(Self { ids: ids.to_vec(), offsets, lags })
    }

    /// How many prompts there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub(crate) fn ids(&self, prompt: usize) -> &[i64] {
        &self.ids[self.offsets.range(prompt)]
    }

    pub(crate) fn lag(&self, prompt: usize) -> usize {
        self.lags[prompt]
    }
}

/// Which subwords of a word make up its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The first one.
    First,
    /// The last one that truncation left.
    Last,
    /// All: their mean or their maximum is taken, elsewhere.
    All,
}

impl FromStr for Pooling {
    type Err = AlignError;

    fn from_str(name: &str) -> Result<Self, AlignError> {
        match name {
            "first" => Ok(Self::First),
            "last" => Ok(Self::Last),
            "mean" | "max" => Ok(Self::All),
            _ => Err(AlignError::Pooling { value: name.to_owned() }),
        }
    }
}

/// How a row is put together.
#[derive(Clone, Debug)]
pub struct RowLayout {
    /// Special tokens before the prompt.
    pub prefix: Vec<i64>,
    /// Special tokens after the text.
    pub suffix: Vec<i64>,
    /// What fills shorter rows up.
    pub pad_id: i64,
    /// The token that stands before each entity type.
    pub class_token_id: i64,
    /// Which subwords of a word are looked at.
    pub pooling: Pooling,
    /// Whether a word is known by its own index, instead of by a count that skips words without ids.
    pub corrected: bool,
    room: usize,
}

impl RowLayout {
    /// A layout for rows of at most `max_subwords`, special tokens included.
    ///
    /// # Errors
    ///
    /// When the special tokens alone take more than `max_subwords`.
    pub fn new(
        prefix: Vec<i64>,
        suffix: Vec<i64>,
        pad_id: i64,
        class_token_id: i64,
        max_subwords: Option<i64>,
        pooling: Pooling,
        corrected: bool,
    ) -> Result<Self, AlignError> {
        let specials = prefix.len() + suffix.len();
        let room = match max_subwords {
            None => usize::MAX,
            Some(max_subwords) => usize::try_from(max_subwords)
                .ok()
                .and_then(|most| most.checked_sub(specials))
                .ok_or(AlignError::NoRoom { max_subwords, specials })?,
        };
        Ok(Self { prefix, suffix, pad_id, class_token_id, pooling, corrected, room })
    }

    /// Most subwords between the special tokens.
    pub(crate) fn room(&self) -> usize {
        self.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_positive_shift_is_refused() {
        assert_eq!(Prompts::new(&[7], &[0, 1], &[1]).unwrap_err(), AlignError::Shift { prompt: 0, value: 1 });
        let least = Prompts::new(&[7], &[0, 1], &[i64::MIN]).unwrap_err();
        assert_eq!(least, AlignError::Shift { prompt: 0, value: i64::MIN });
    }

    #[test]
    fn special_tokens_need_their_room() {
        let layout = |most| RowLayout::new(vec![1], vec![2], 0, 9, most, Pooling::First, false);
        assert_eq!(layout(Some(2)).unwrap().room(), 0);
        assert_eq!(layout(Some(1)).unwrap_err(), AlignError::NoRoom { max_subwords: 1, specials: 2 });
        assert!(layout(Some(-1)).is_err());
        assert!(layout(None).is_ok());
    }
}
