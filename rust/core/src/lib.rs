//! The host side of GLiNER inference, without Python and without tensors.
//!
//! Beside it a product for the encoder's linear layers (`few_rows`), since torch's is not made for one short text.
//!
//! One way through, one module a step:
//!
//! ```text
//! text -> words (words) -> subword ids (cache) -> rows for the encoder (align)
//!      -> span scores, elsewhere or on a CPU here (span_scores) -> candidates (candidates) -> entities (decode)
//! ```
//!
//! Every entry point takes a whole batch as flat arrays, checks them once at the door and answers a bad one with an
//! error that names the place, the value and what was expected. Nothing panics on what a caller gives.

#![forbid(unsafe_code)]

mod align;
mod cache;
mod candidates;
mod decode;
mod error;
mod few_rows;
mod host;
mod kept;
mod offsets;
mod prompt;
mod queue;
mod span;
mod span_scores;
mod span_tile;
mod text;
mod words;

pub use align::{Rows, Subwords};
pub use cache::{Lookup, SubwordCache};
pub use candidates::{ScoredSpans, find_candidates};
pub use decode::{CandidateArrays, Kept, Overlap, resolve};
pub use error::{AlignError, CacheError, CandidateError, DecodeError, LinearError, OffsetsError, WordsError};
pub use few_rows::Linear;
pub use host::{Host, NewThreads};
pub use offsets::Offsets;
pub use prompt::{Pooling, Prompts, RowLayout};
pub use span::{Span, WordIndex};
pub use span_scores::{Factors, find_spans, has_vectors};
pub use text::{PackedStrings, replace_surrogates};
pub use words::{WordSplitter, Words};
