//! The host side of GLiNER inference, without Python and without tensors.
//!
//! Beside it, for the network, what torch has nothing made for: products for the linear layers of one short text
//! (`few_rows`, `packed`), in whole numbers (`whole`), all that follows the attention of a layer (`sublayers`),
//! attention over packed texts (`attention`) and an LSTM over texts of any lengths (`lstm`).
//!
//! One way through, one module a step:
//!
//! ```text
//! text -> words (words) -> subword ids (cache) -> rows for the encoder (align)
//!      -> span scores, elsewhere or on a CPU here (span_scores) -> candidates (candidates) -> entities (decode)
//!      or marks of words, elsewhere -> candidates (marks) -> entities
//! ```
//!
//! Every entry point takes a whole batch as flat arrays, checks them once at the door and answers a bad one with an
//! error that names the place, the value and what was expected. Nothing panics on what a caller gives.

#![forbid(unsafe_code)]

mod align;
mod attention;
mod cache;
mod candidates;
mod decode;
mod error;
mod few_rows;
mod functions;
mod host;
mod kept;
mod lstm;
mod marks;
mod number;
mod offsets;
mod packed;
mod panels;
mod product;
mod prompt;
mod queue;
mod softmax;
mod span;
mod span_scores;
mod span_tile;
mod sublayers;
mod text;
mod transpose;
mod vectors;
mod whole;
mod words;

pub use align::{Rows, Subwords};
pub use attention::{Attention, Positions, Rotations};
pub use cache::{Lookup, SubwordCache};
pub use candidates::{LikelySpans, ScoredSpans, find_candidates, find_likely};
pub use decode::{CandidateArrays, Kept, Overlap, resolve};
pub use error::{
    AlignError, AttentionError, CacheError, CandidateError, DecodeError, LinearError, LstmError, OffsetsError,
    SublayersError, WordsError,
};
pub use few_rows::Linear;
pub use host::{Cache, Host, NewThreads};
pub use lstm::{Direction, Lstm};
pub use marks::{MarkedSpans, find_marked_spans};
pub use number::Number;
pub use offsets::Offsets;
pub use packed::PackedWeights;
pub use product::Activation;
pub use prompt::{Pooling, Prompts, RowLayout};
pub use span::{Span, WordIndex};
pub use span_scores::{Factors, find_spans};
pub use sublayers::{Dense, GatedSublayers, Norm, Sublayers, Weights, gate};
pub use text::{PackedStrings, replace_surrogates};
pub use vectors::has_vectors;
pub use whole::{Int8Weights, Int16Weights};
pub use words::{WordSplitter, Words};
