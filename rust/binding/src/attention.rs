//! Disentangled attention, on a CPU.

use gliner_fast_core::{Attention, Positions};
use numpy::{PyReadonlyArray1, PyReadonlyArray3, PyReadonlyArray4, PyReadwriteArray3, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::{Ints, count, slice, value_error};
use crate::openmp::TorchThreads;

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "flat arrays, as they cross from Python")]
pub(crate) fn attention<'py>(
    py: Python<'py>,
    qkv: PyReadonlyArray4<'py, f32>,
    keys: Option<PyReadonlyArray3<'py, f32>>,
    queries: Option<PyReadonlyArray3<'py, f32>>,
    by_distance: PyReadonlyArray1<'py, i32>,
    lengths: Ints<'py>,
    scale: f32,
    mut out: PyReadwriteArray3<'py, f32>,
    threads: &Bound<'py, PyAny>,
    openmp: usize,
) -> PyResult<()> {
    let &[subwords, kinds, heads, head_dim] = qkv.shape() else { unreachable!("an array of four dimensions") };
    if kinds != 3 {
        return Err(PyValueError::new_err(format!("qkv has {kinds} kinds of vectors: expected (N, 3, H, d)")));
    }
    if out.shape() != [subwords, heads, head_dim] {
        return Err(PyValueError::new_err(format!(
            "out is {:?}: expected {subwords} subwords, {heads} heads, vectors of {head_dim}",
            out.shape()
        )));
    }
    let mut rows = None;
    for (name, table) in [("keys", &keys), ("queries", &queries)] {
        let Some(table) = table else { continue };
        let own = table.shape()[1];
        if table.shape() != [heads, *rows.get_or_insert(own), head_dim] {
            return Err(PyValueError::new_err(format!(
                "{name} is {:?}: expected {heads} heads, as many rows in keys and queries, vectors of {head_dim}",
                table.shape()
            )));
        }
    }
    let positions = Positions {
        keys: keys.as_ref().map(|keys| slice("keys", keys)).transpose()?,
        queries: queries.as_ref().map(|queries| slice("queries", queries)).transpose()?,
        rows: rows.unwrap_or_default(),
        by_distance: slice("by_distance", &by_distance)?,
    };
    let layer = Attention { qkv: slice("qkv", &qkv)?, heads, head_dim, positions, scale };
    let (lengths, threads) = (slice("lengths", &lengths)?, count("threads", threads)?);
    // SAFETY: what the .pyi asks of callers.
    let host = unsafe { TorchThreads::at(openmp) };
    let out = out.as_slice_mut().map_err(|_| PyValueError::new_err("out is not C-contiguous and aligned"))?;
    py.detach(|| layer.apply(lengths, out, threads, &host)).map_err(value_error)
}
