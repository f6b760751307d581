//! Texts to words.

use gliner_fast_core::{WordSplitter, Words};
use numpy::{PyArray1, PyReadonlyArray2};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::arrays::{Ints, count, slice, to_array, value_error};
use crate::strings::{expected, read_texts};

#[pyclass(name = "WordSplitter", module = "gliner_fast._rust", frozen)]
pub(crate) struct PyWordSplitter(WordSplitter);

#[pymethods]
impl PyWordSplitter {
    #[new]
    #[pyo3(signature = (word_ranges, space_ranges))]
    fn new(word_ranges: PyReadonlyArray2<'_, u32>, space_ranges: PyReadonlyArray2<'_, u32>) -> PyResult<Self> {
        let word_ranges = ranges("word_ranges", &word_ranges)?;
        let space_ranges = ranges("space_ranges", &space_ranges)?;
        WordSplitter::new(word_ranges, space_ranges).map(Self).map_err(value_error)
    }

    #[pyo3(signature = (texts, max_words = None))]
    fn split(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        max_words: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyWords> {
        let max_words = max_words.map(|most| count("max_words", most)).transpose()?;
        let texts = read_texts("texts", texts)?;
        Ok(PyWords(py.detach(|| self.0.split(&texts, max_words))))
    }
}

fn ranges<'a>(name: &str, array: &'a PyReadonlyArray2<'_, u32>) -> PyResult<&'a [[u32; 2]]> {
    match slice(name, array)?.as_chunks() {
        (pairs, []) if array.as_array().ncols() == 2 => Ok(pairs),
        _ => Err(PyValueError::new_err(format!(
            "{name} has shape {:?}: expected (N, 2), a start and an end a row",
            array.as_array().shape()
        ))),
    }
}

#[pyclass(name = "Words", module = "gliner_fast._rust", frozen)]
pub(crate) struct PyWords(pub(crate) Words);

#[pymethods]
impl PyWords {
    #[staticmethod]
    fn from_offsets(
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        text_offsets: Ints<'_>,
        starts: Ints<'_>,
        ends: Ints<'_>,
    ) -> PyResult<Self> {
        let texts = read_texts("texts", texts)?;
        let text_offsets = slice("text_offsets", &text_offsets)?;
        let (starts, ends) = (slice("starts", &starts)?, slice("ends", &ends)?);
        py.detach(|| Words::from_offsets(&texts, text_offsets, starts, ends)).map(Self).map_err(value_error)
    }

    #[staticmethod]
    fn from_lists(py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Self> {
        if texts.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("texts is a str: expected a list of words for each text"));
        }
        let mut lists = Vec::with_capacity(expected(texts));
        for (index, words) in texts.try_iter()?.enumerate() {
            lists.push(read_texts(&format!("texts[{index}]"), &words?)?);
        }
        Ok(Self(py.detach(|| Words::from_lists(&lists))))
    }

    fn __len__(&self) -> usize {
        self.0.text_offsets().len()
    }

    #[getter]
    fn text_offsets<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        to_array(py, self.0.text_offsets().as_slice().to_vec())
    }

    #[getter]
    fn total_counts<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        to_array(py, self.0.total_counts().to_vec())
    }

    #[getter]
    fn starts<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        to_array(py, self.0.starts().to_vec())
    }

    #[getter]
    fn ends<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        to_array(py, self.0.ends().to_vec())
    }

    fn to_lists<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let texts = PyList::empty(py);
        for rows in self.0.text_offsets().ranges() {
            texts.append(PyList::new(py, rows.map(|row| self.0.strings().get(row)))?)?;
        }
        Ok(texts)
    }
}
