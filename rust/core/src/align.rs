//! Subword ids to rows for the encoder, and which subword stands for which word.

use std::ops::Range;

use crate::error::AlignError;
use crate::offsets::Offsets;
use crate::prompt::{Pooling, Prompts, RowLayout};

/// The subword ids of every word of a batch of texts, flat.
#[derive(Clone, Debug)]
pub struct Subwords {
    /// Words by text.
    text_offsets: Offsets,
    /// Ids by word.
    id_offsets: Offsets,
    ids: Vec<u32>,
}

/// Rows for the encoder: `R` of them, one after another.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// `(N,)`, row after row; where they are padded, each on the right to the longest, `N` is `R` times its subwords.
    pub input_ids: Vec<i64>,
    /// Subwords of the longest row.
    pub width: usize,
    /// Where each row begins in `input_ids`, and where the last one ends, `(R + 1,)`.
    pub offsets: Vec<usize>,
    /// Subwords in each row without padding, `(R,)`.
    pub lengths: Vec<usize>,
    /// Words of each row's text, `(R,)`.
    pub word_counts: Vec<usize>,
    /// Place in `input_ids` of every subword that stands for a word, ascending, `(M,)`.
    pub pooled_positions: Vec<usize>,
    /// The word that it stands for, counted through all rows, `(M,)`.
    pub pooled_words: Vec<usize>,
    /// Place of every class token, ascending, `(T,)`.
    pub class_positions: Vec<usize>,
    /// Class tokens in each row, `(R,)`.
    pub class_counts: Vec<usize>,
}

/// A row before it is written: which text and prompt, and how much of them remains.
struct Plan {
    text: usize,
    prompt: usize,
    /// Subwords of the prompt that fit.
    prompt_length: usize,
    /// Subwords of the text that fit after it.
    text_length: usize,
}

impl Subwords {
    /// Words by text, ids by word, and the ids; the parts fit each other.
    pub(crate) fn new(text_offsets: Offsets, id_offsets: Offsets, ids: Vec<u32>) -> Self {
        debug_assert_eq!(text_offsets.total(), id_offsets.len());
        debug_assert_eq!(id_offsets.total(), ids.len());
        Self { text_offsets, id_offsets, ids }
    }

    /// Ids in each text.
    pub fn subword_counts(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.text_offsets.ranges().map(|words| self.ids_of(&words).len())
    }

    /// Words in each text.
    pub fn word_counts(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.text_offsets.ranges().map(|words| words.len())
    }

    /// Ids of each word, text after text.
    pub fn word_lengths(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.id_offsets.ranges().map(|ids| ids.len())
    }

    /// Where the ids of some consecutive words lie.
    fn ids_of(&self, words: &Range<usize>) -> Range<usize> {
        let ends = self.id_offsets.as_slice();
        ends[words.start]..ends[words.end]
    }

    /// Lays prompt `prompt_of_row[r]` and text `rows[r]` into row `r`: prefix, then prompt and words' ids as far as
    /// they fit, then suffix and, if asked for, padding.
    ///
    /// GLiNER numbers a word by counting the words met so far in the row *that have an id*, and takes away the number
    /// of the prompt's words. So a word without ids moves all later ones down by one, and a label without ids hides the
    /// first word. By default this is done likewise; `layout.corrected` uses the word's own index.
    ///
    /// # Errors
    ///
    /// When `prompt_of_row` has another length than `rows`, a row names a text or prompt that does not exist, or the
    /// rows do not fit into memory.
    pub fn assemble(
        &self,
        rows: &[i64],
        prompts: &Prompts,
        prompt_of_row: &[i64],
        layout: &RowLayout,
        padded: bool,
    ) -> Result<Rows, AlignError> {
        let plans = self.plan(rows, prompts, prompt_of_row, layout)?;
        let specials = layout.prefix.len() + layout.suffix.len();
        let lengths: Vec<usize> = plans.iter().map(|plan| specials + plan.prompt_length + plan.text_length).collect();
        let width = lengths.iter().copied().max().unwrap_or(0);

        let mut out = Rows { width, offsets: vec![0], ..Rows::default() };
        let too_large = AlignError::TooLarge { rows: plans.len(), subwords: width };
        // One long text among many short ones can ask for far more than was given, so this one allocation is allowed to
        // fail.
        let cells = if padded { plans.len().checked_mul(width) } else { Some(lengths.iter().sum()) };
        let cells = cells.ok_or_else(|| too_large.clone())?;
        out.input_ids.try_reserve_exact(cells).map_err(|_| too_large)?;

        let mut words_before = 0;
        for plan in &plans {
            let first_cell = out.input_ids.len();
            let words = self.text_offsets.range(plan.text);
            let word_count = words.len();
            self.write_ids(plan, prompts, layout, &mut out.input_ids);

            let written = &out.input_ids[first_cell..];
            let classes_before = out.class_positions.len();
            let is_class = |(cell, &id): (usize, &i64)| (id == layout.class_token_id).then_some(first_cell + cell);
            out.class_positions.extend(written.iter().enumerate().filter_map(is_class));
            out.class_counts.push(out.class_positions.len() - classes_before);

            let lag = if layout.corrected { 0 } else { prompts.lag(plan.prompt) };
            let first_text_cell = first_cell + layout.prefix.len() + plan.prompt_length;
            self.select(words, plan.text_length, layout, lag, |cell, word| {
                out.pooled_positions.push(first_text_cell + cell);
                out.pooled_words.push(words_before + word);
            });

            if padded {
                out.input_ids.resize(first_cell + width, layout.pad_id);
            }
            out.offsets.push(out.input_ids.len());
            out.word_counts.push(word_count);
            words_before += word_count;
        }
        out.lengths = lengths;
        Ok(out)
    }

    /// Checks each row and works out what of it fits.
    fn plan(
        &self,
        rows: &[i64],
        prompts: &Prompts,
        prompt_of_row: &[i64],
        layout: &RowLayout,
    ) -> Result<Vec<Plan>, AlignError> {
        if rows.len() != prompt_of_row.len() {
            return Err(AlignError::Lengths { rows: rows.len(), prompts: prompt_of_row.len() });
        }
        let mut plans = Vec::with_capacity(rows.len());
        for (row, (&text_value, &prompt_value)) in rows.iter().zip(prompt_of_row).enumerate() {
            let texts = self.text_offsets.len();
            let text = index_below(text_value, texts).ok_or(AlignError::Text { row, value: text_value, texts })?;
            let prompt = index_below(prompt_value, prompts.len()).ok_or(AlignError::Prompt {
                row,
                value: prompt_value,
                prompts: prompts.len(),
            })?;
            let prompt_length = prompts.ids(prompt).len().min(layout.room());
            let text_length = self.ids_of(&self.text_offsets.range(text)).len().min(layout.room() - prompt_length);
            plans.push(Plan { text, prompt, prompt_length, text_length });
        }
        Ok(plans)
    }

    /// Writes a row without its padding.
    fn write_ids(&self, plan: &Plan, prompts: &Prompts, layout: &RowLayout, out: &mut Vec<i64>) {
        let ids = self.ids_of(&self.text_offsets.range(plan.text));
        out.extend_from_slice(&layout.prefix);
        out.extend_from_slice(&prompts.ids(plan.prompt)[..plan.prompt_length]);
        out.extend(self.ids[ids][..plan.text_length].iter().copied().map(i64::from));
        out.extend_from_slice(&layout.suffix);
    }

    /// Tells `found` each subword that stands for a word, as (subword of the text, word of the text).
    fn select(
        &self,
        words: Range<usize>,
        text_length: usize,
        layout: &RowLayout,
        lag: usize,
        mut found: impl FnMut(usize, usize),
    ) {
        let mut at = 0; // subwords of the text passed
        let mut met = 0_usize; // words with an id passed
        for (index, word) in words.enumerate() {
            if at >= text_length {
                break; // truncation cut this word and all after it
            }
            let count = self.id_offsets.range(word).len();
            if count == 0 {
                continue;
            }
            let present = at..(at + count).min(text_length);
            let number = if layout.corrected { Some(index) } else { met.checked_sub(lag) };
            if let Some(number) = number {
                match layout.pooling {
                    Pooling::First => found(present.start, number),
                    Pooling::Last => found(present.end - 1, number),
                    Pooling::All => present.for_each(|cell| found(cell, number)),
                }
            }
            at += count;
            met += 1;
        }
    }
}

/// A number from outside as an index, if it is one.
fn index_below(value: i64, bound: usize) -> Option<usize> {
    usize::try_from(value).ok().filter(|&index| index < bound)
}
