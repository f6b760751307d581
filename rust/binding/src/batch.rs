//! Words to rows for the encoder.

use std::sync::Arc;

use gliner_fast_core::{Lookup, Prompts, RowLayout, Rows, SubwordCache, Subwords};
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::arrays::{Ints, count, iter_to_array, slice, to_array, value_error, whole_number};
use crate::splitting::PyWords;

#[pyclass(name = "SubwordCache", module = "gliner_fast._rust", frozen)]
pub(crate) struct PySubwordCache(Arc<SubwordCache>);

#[pymethods]
impl PySubwordCache {
    #[new]
    #[pyo3(signature = (capacity))]
    fn new(capacity: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(Arc::new(SubwordCache::new(count("capacity", capacity)?))))
    }

    fn look_up(&self, py: Python<'_>, words: &Bound<'_, PyWords>) -> PyLookup {
        let words = &words.get().0;
        PyLookup(py.detach(|| self.0.look_up(words)))
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        py.detach(|| self.0.len())
    }

    fn clear(&self, py: Python<'_>) {
        py.detach(|| self.0.clear());
    }
}

#[pyclass(name = "Lookup", module = "gliner_fast._rust", frozen)]
pub(crate) struct PyLookup(Lookup);

#[pymethods]
impl PyLookup {
    #[getter]
    fn missing<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.0.missing().iter())
    }

    fn complete(&self, py: Python<'_>, ids: Ints<'_>, counts: Ints<'_>) -> PyResult<PySubwords> {
        let (ids, counts) = (slice("ids", &ids)?, slice("counts", &counts)?);
        py.detach(|| self.0.complete(ids, counts)).map(PySubwords).map_err(value_error)
    }
}

#[pyclass(name = "Prompts", module = "gliner_fast._rust", frozen)]
pub(crate) struct PyPrompts(Prompts);

#[pymethods]
impl PyPrompts {
    #[new]
    fn new(ids: Ints<'_>, offsets: Ints<'_>, shifts: Ints<'_>) -> PyResult<Self> {
        let (ids, offsets, shifts) = (slice("ids", &ids)?, slice("offsets", &offsets)?, slice("shifts", &shifts)?);
        Prompts::new(ids, offsets, shifts).map(Self).map_err(value_error)
    }
}

#[pyclass(name = "RowLayout", module = "gliner_fast._rust", frozen)]
pub(crate) struct PyRowLayout(RowLayout);

#[pymethods]
impl PyRowLayout {
    #[new]
    #[pyo3(signature = (*, prefix, suffix, pad_id, class_token_id, max_subwords, pooling, corrected))]
    fn new(
        prefix: Ints<'_>,
        suffix: Ints<'_>,
        pad_id: &Bound<'_, PyAny>,
        class_token_id: &Bound<'_, PyAny>,
        max_subwords: Option<&Bound<'_, PyAny>>,
        pooling: &str,
        corrected: bool,
    ) -> PyResult<Self> {
        let max_subwords = max_subwords.map(|most| whole_number("max_subwords", most)).transpose()?;
        let layout = RowLayout::new(
            slice("prefix", &prefix)?.to_vec(),
            slice("suffix", &suffix)?.to_vec(),
            whole_number("pad_id", pad_id)?,
            whole_number("class_token_id", class_token_id)?,
            max_subwords,
            pooling.parse().map_err(value_error)?,
            corrected,
        );
        layout.map(Self).map_err(value_error)
    }
}

#[pyclass(name = "Subwords", module = "gliner_fast._rust", frozen)]
pub(crate) struct PySubwords(Subwords);

#[pymethods]
impl PySubwords {
    #[getter]
    fn subword_counts<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        iter_to_array(py, self.0.subword_counts())
    }

    #[getter]
    fn word_counts<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        iter_to_array(py, self.0.word_counts())
    }

    #[getter]
    fn word_lengths<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        iter_to_array(py, self.0.word_lengths())
    }

    #[pyo3(signature = (rows, prompts, prompt_of_row, layout, *, padded = true))]
    fn assemble(
        &self,
        py: Python<'_>,
        rows: Ints<'_>,
        prompts: &Bound<'_, PyPrompts>,
        prompt_of_row: Ints<'_>,
        layout: &Bound<'_, PyRowLayout>,
        padded: bool,
    ) -> PyResult<PyRows> {
        let (rows, prompt_of_row) = (slice("rows", &rows)?, slice("prompt_of_row", &prompt_of_row)?);
        let (prompts, layout) = (&prompts.get().0, &layout.get().0);
        let rows = py.detach(|| self.0.assemble(rows, prompts, prompt_of_row, layout, padded)).map_err(value_error)?;
        PyRows::new(py, rows, padded)
    }
}

/// Arrays rather than the core's rows: they are handed over without a copy, and asked for one by one.
#[pyclass(name = "Rows", module = "gliner_fast._rust", frozen, get_all)]
pub(crate) struct PyRows {
    input_ids: Py<PyArrayDyn<i64>>,
    offsets: Py<PyArray1<i64>>,
    lengths: Py<PyArray1<i64>>,
    word_counts: Py<PyArray1<i64>>,
    pooled_positions: Py<PyArray1<i64>>,
    pooled_words: Py<PyArray1<i64>>,
    class_positions: Py<PyArray1<i64>>,
    class_counts: Py<PyArray1<i64>>,
}

impl PyRows {
    fn new(py: Python<'_>, rows: Rows, padded: bool) -> PyResult<Self> {
        let shape = [rows.lengths.len(), rows.width];
        let flat = PyArray1::from_vec(py, rows.input_ids);
        let input_ids = if padded { flat.reshape(shape)?.to_dyn().clone() } else { flat.to_dyn().clone() };
        Ok(Self {
            input_ids: input_ids.unbind(),
            offsets: to_array(py, rows.offsets).unbind(),
            lengths: to_array(py, rows.lengths).unbind(),
            word_counts: to_array(py, rows.word_counts).unbind(),
            pooled_positions: to_array(py, rows.pooled_positions).unbind(),
            pooled_words: to_array(py, rows.pooled_words).unbind(),
            class_positions: to_array(py, rows.class_positions).unbind(),
            class_counts: to_array(py, rows.class_counts).unbind(),
        })
    }
}
