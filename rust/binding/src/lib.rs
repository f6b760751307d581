//! `gliner_fast._rust`: converts, releases the GIL around one call into the core, maps its error. No algorithm lives
//! here.
//!
//! What Python sees is documented in `python/gliner_fast/_rust.pyi`.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands owned values to functions, borrowed ones or not")]

use pyo3::prelude::*;

mod arrays;
mod attention;
mod batch;
mod decoding;
mod linear;
mod lstm;
mod openmp;
mod scoring;
mod signals;
mod splitting;
mod strings;
mod sublayers;

/// The native module.
#[pymodule(gil_used = true)]
mod _rust {
    #[pymodule_export]
    use super::attention::attention;
    #[pymodule_export]
    use super::batch::{PyLookup, PyPrompts, PyRowLayout, PyRows, PySubwordCache, PySubwords};
    #[pymodule_export]
    use super::decoding::{find_candidates, find_likely, find_marked_spans, resolve};
    #[pymodule_export]
    use super::linear::{PyInt8Weights, PyInt16Weights, PyPackedWeights, linear};
    #[pymodule_export]
    use super::lstm::lstm;
    #[pymodule_export]
    use super::scoring::{find_spans, has_vectors};
    #[pymodule_export]
    use super::signals::take_signal_stacks;
    #[pymodule_export]
    use super::splitting::{PyWordSplitter, PyWords};
    #[pymodule_export]
    use super::sublayers::{gate, gated_sublayers, norm_rows, sublayers};
}
