//! Span scores to entities.

use gliner_fast_core::{CandidateArrays, LikelySpans, MarkedSpans, Overlap, ScoredSpans};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::{Ints, slice, to_array, value_error, whole_number};

type Array<'py, T> = Bound<'py, PyArray1<T>>;
/// `text_offsets`, starts, ends, classes, scores.
type Candidates<'py> = (Array<'py, i64>, Array<'py, i64>, Array<'py, i64>, Array<'py, i64>, Array<'py, f32>);
/// The same with logits and `ROOM` zeros behind them, and whether all pass their threshold.
pub(crate) type Likely<'py> =
    (Array<'py, i64>, Array<'py, i64>, Array<'py, i64>, Array<'py, i64>, Array<'py, f32>, bool);

/// `text_offsets`, starts, ends, classes, edges, insides.
type Marked<'py> =
    (Array<'py, i64>, Array<'py, i64>, Array<'py, i64>, Array<'py, i64>, Array<'py, f32>, Array<'py, f32>);

/// Numbers behind the last logit, as `gliner_fast.scoring.probabilities` needs them.
const ROOM: usize = 64;

#[pyfunction]
pub(crate) fn find_candidates<'py>(
    py: Python<'py>,
    scores: PyReadonlyArray1<'py, f32>,
    word_counts: Ints<'py>,
    class_counts: Ints<'py>,
    max_width: &Bound<'py, PyAny>,
    thresholds: PyReadonlyArray1<'py, f32>,
) -> PyResult<Candidates<'py>> {
    let (scores, thresholds) = (slice("scores", &scores)?, slice("thresholds", &thresholds)?);
    let (word_counts, class_counts) = (slice("word_counts", &word_counts)?, slice("class_counts", &class_counts)?);
    let max_width = whole_number("max_width", max_width)?;
    let found = py
        .detach(|| gliner_fast_core::find_candidates(scores, word_counts, class_counts, max_width, thresholds))
        .map_err(value_error)?;
    let ScoredSpans { text_offsets, starts, ends, classes, scores } = found;
    let [starts, ends, classes] = [starts, ends, classes].map(|column| to_array(py, column));
    Ok((to_array(py, text_offsets.as_slice().to_vec()), starts, ends, classes, PyArray1::from_vec(py, scores)))
}

#[pyfunction]
pub(crate) fn find_likely<'py>(
    py: Python<'py>,
    logits: PyReadonlyArray1<'py, f32>,
    word_counts: Ints<'py>,
    class_counts: Ints<'py>,
    max_width: &Bound<'py, PyAny>,
    thresholds: PyReadonlyArray1<'py, f32>,
) -> PyResult<Likely<'py>> {
    let (logits, thresholds) = (slice("logits", &logits)?, slice("thresholds", &thresholds)?);
    let (word_counts, class_counts) = (slice("word_counts", &word_counts)?, slice("class_counts", &class_counts)?);
    let max_width = whole_number("max_width", max_width)?;
    let found = py
        .detach(|| gliner_fast_core::find_likely(logits, word_counts, class_counts, max_width, thresholds))
        .map_err(value_error)?;
    Ok(to_likely(py, found))
}

#[pyfunction]
pub(crate) fn find_marked_spans<'py>(
    py: Python<'py>,
    scores: PyReadonlyArray1<'py, f32>,
    word_counts: Ints<'py>,
    class_counts: Ints<'py>,
    edges: PyReadonlyArray1<'py, f32>,
    insides: PyReadonlyArray1<'py, f64>,
) -> PyResult<Marked<'py>> {
    let (word_counts, class_counts) = (slice("word_counts", &word_counts)?, slice("class_counts", &class_counts)?);
    let (scores, edges, insides) = (slice("scores", &scores)?, slice("edges", &edges)?, slice("insides", &insides)?);
    let found = py
        .detach(|| gliner_fast_core::find_marked_spans(scores, word_counts, class_counts, edges, insides))
        .map_err(value_error)?;
    let MarkedSpans { text_offsets, starts, ends, classes, edges, insides } = found;
    let [starts, ends, classes] = [starts, ends, classes].map(|column| to_array(py, column));
    let [edges, insides] = [edges, insides].map(|column| PyArray1::from_vec(py, column));
    Ok((to_array(py, text_offsets.as_slice().to_vec()), starts, ends, classes, edges, insides))
}

/// Likely spans as Python takes them.
pub(crate) fn to_likely(py: Python<'_>, found: LikelySpans) -> Likely<'_> {
    let ScoredSpans { text_offsets, starts, ends, classes, mut scores } = found.spans;
    let [starts, ends, classes] = [starts, ends, classes].map(|column| to_array(py, column));
    scores.resize(scores.len() + ROOM, 0.0);
    let offsets = to_array(py, text_offsets.as_slice().to_vec());
    (offsets, starts, ends, classes, PyArray1::from_vec(py, scores), found.all_pass)
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "flat arrays, as they cross from Python")]
pub(crate) fn resolve<'py>(
    py: Python<'py>,
    text_offsets: Ints<'py>,
    starts: Ints<'py>,
    ends: Ints<'py>,
    scores: PyReadonlyArray1<'py, f32>,
    word_counts: Ints<'py>,
    nested: PyReadonlyArray1<'py, bool>,
    multi_label: PyReadonlyArray1<'py, bool>,
) -> PyResult<(Array<'py, i64>, Array<'py, i64>)> {
    let candidates = CandidateArrays {
        text_offsets: slice("text_offsets", &text_offsets)?,
        starts: slice("starts", &starts)?,
        ends: slice("ends", &ends)?,
        scores: slice("scores", &scores)?,
        word_counts: slice("word_counts", &word_counts)?,
    };
    let (nested, multi_label) = (slice("nested", &nested)?, slice("multi_label", &multi_label)?);
    if nested.len() != multi_label.len() {
        return Err(PyValueError::new_err(format!(
            "nested has {} values and multi_label has {}: each text has one of both",
            nested.len(),
            multi_label.len()
        )));
    }
    let overlaps: Vec<_> = nested.iter().zip(multi_label).map(|(&n, &m)| Overlap::new(n, m)).collect();
    let kept = py.detach(|| gliner_fast_core::resolve(candidates, &overlaps)).map_err(value_error)?;
    Ok((to_array(py, kept.indices), to_array(py, kept.text_offsets.as_slice().to_vec())))
}
