//! Words and entity types to span candidates, on a CPU.

use gliner_fast_core::Factors;
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::{Ints, count, slice, value_error, whole_number};
use crate::decoding::{Likely, to_likely};
use crate::openmp::TorchThreads;

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "flat arrays, as they cross from Python")]
pub(crate) fn find_spans<'py>(
    py: Python<'py>,
    u: PyReadonlyArray2<'py, f32>,
    v: PyReadonlyArray2<'py, f32>,
    g: PyReadonlyArray2<'py, f32>,
    c: PyReadonlyArray1<'py, f32>,
    word_counts: Ints<'py>,
    class_counts: Ints<'py>,
    max_width: &Bound<'py, PyAny>,
    thresholds: PyReadonlyArray1<'py, f32>,
    threads: &Bound<'py, PyAny>,
    openmp: usize,
) -> PyResult<Likely<'py>> {
    let hidden = u.shape()[1];
    for (name, columns) in [("v", v.shape()[1]), ("g", g.shape()[1])] {
        if columns != hidden {
            return Err(PyValueError::new_err(format!(
                "{name} has {columns} columns and u has {hidden}: expected as many"
            )));
        }
    }
    let factors = Factors { u: slice("u", &u)?, v: slice("v", &v)?, g: slice("g", &g)?, c: slice("c", &c)?, hidden };
    let (word_counts, class_counts) = (slice("word_counts", &word_counts)?, slice("class_counts", &class_counts)?);
    let thresholds = slice("thresholds", &thresholds)?;
    let (max_width, threads) = (whole_number("max_width", max_width)?, count("threads", threads)?);
    // SAFETY: what the .pyi asks of callers.
    let host = unsafe { TorchThreads::at(openmp) };
    let found = py
        .detach(|| {
            gliner_fast_core::find_spans(factors, word_counts, class_counts, max_width, thresholds, threads, &host)
        })
        .map_err(value_error)?;
    Ok(to_likely(py, found))
}

#[pyfunction]
pub(crate) fn has_vectors() -> bool {
    gliner_fast_core::has_vectors()
}
