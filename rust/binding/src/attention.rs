//! Attention, on a CPU.

use gliner_fast_core::{Attention, Number, Positions, Rotations};
use numpy::{
    Element, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3, PyReadonlyArray4, PyReadwriteArray3,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::arrays::{Ints, count, slice, slice_mut, value_error};
use crate::openmp::TorchThreads;

/// Queries, keys and values: float32, or bf16 by its bits.
#[derive(FromPyObject)]
pub(crate) enum Vectors<'py> {
    Float32(PyReadonlyArray4<'py, f32>),
    Bf16(PyReadonlyArray4<'py, u16>),
}

/// What a layer knows of distances.
type Tables<'py> = (
    Option<PyReadonlyArray3<'py, f32>>,
    Option<PyReadonlyArray3<'py, f32>>,
    PyReadonlyArray1<'py, i32>,
    Option<PyReadonlyArray2<'py, f32>>,
);
/// Cosines and sines.
type Angles<'py> = (PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, f32>);

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "flat arrays, as they cross from Python")]
pub(crate) fn attention<'py>(
    py: Python<'py>,
    qkv: Vectors<'py>,
    keys: Option<PyReadonlyArray3<'py, f32>>,
    queries: Option<PyReadonlyArray3<'py, f32>>,
    by_distance: PyReadonlyArray1<'py, i32>,
    biases: Option<PyReadonlyArray2<'py, f32>>,
    rotations: Option<Angles<'py>>,
    window: Option<&Bound<'py, PyAny>>,
    lengths: Ints<'py>,
    scale: f32,
    out: &Bound<'py, PyAny>,
    threads: &Bound<'py, PyAny>,
    openmp: usize,
) -> PyResult<()> {
    let places = Places {
        tables: (keys, queries, by_distance, biases),
        rotations,
        window: window.map(|window| count("window", window)).transpose()?,
    };
    let threads = count("threads", threads)?;
    // SAFETY: what the .pyi asks of callers.
    let host = unsafe { TorchThreads::at(openmp) };
    match qkv {
        Vectors::Float32(qkv) => attend(py, &qkv, &places, &lengths, scale, writable(out)?, threads, &host),
        Vectors::Bf16(qkv) => attend(py, &qkv, &places, &lengths, scale, writable(out)?, threads, &host),
    }
}

/// What becomes of a subword's place.
struct Places<'py> {
    tables: Tables<'py>,
    rotations: Option<Angles<'py>>,
    window: Option<usize>,
}

fn writable<'py, N: Element>(out: &Bound<'py, PyAny>) -> PyResult<PyReadwriteArray3<'py, N>> {
    out.extract().map_err(|error: PyErr| {
        PyTypeError::new_err(format!(
            "argument 'out': {} (expected one of qkv's kind of numbers)",
            error.value(out.py())
        ))
    })
}

#[expect(clippy::too_many_arguments, reason = "those of `attention`")]
fn attend<N: Number + Element>(
    py: Python<'_>,
    qkv: &PyReadonlyArray4<'_, N>,
    Places { tables: (keys, queries, by_distance, biases), rotations, window }: &Places<'_>,
    lengths: &Ints<'_>,
    scale: f32,
    mut out: PyReadwriteArray3<'_, N>,
    threads: usize,
    host: &TorchThreads,
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
    for (name, table) in [("keys", keys), ("queries", queries)] {
        let Some(table) = table else { continue };
        let own = table.shape()[1];
        if table.shape() != [heads, *rows.get_or_insert(own), head_dim] {
            return Err(PyValueError::new_err(format!(
                "{name} is {:?}: expected {heads} heads, as many rows in keys and queries, vectors of {head_dim}",
                table.shape()
            )));
        }
    }
    if let Some(biases) = biases
        && biases.shape() != [heads, by_distance.len()]
    {
        return Err(PyValueError::new_err(format!(
            "biases is {:?}: expected {heads} heads, and as many distances as by_distance has",
            biases.shape()
        )));
    }
    let positions = Positions {
        keys: keys.as_ref().map(|keys| slice("keys", keys)).transpose()?,
        queries: queries.as_ref().map(|queries| slice("queries", queries)).transpose()?,
        rows: rows.unwrap_or_default(),
        by_distance: slice("by_distance", by_distance)?,
        biases: biases.as_ref().map(|biases| slice("biases", biases)).transpose()?,
    };
    let rotations = if let Some((cosines, sines)) = rotations {
        for (name, angles) in [("cosines", cosines), ("sines", sines)] {
            if angles.shape()[1] != head_dim / 2 {
                return Err(PyValueError::new_err(format!(
                    "{name} is {:?}: expected {} angles for each place, half a head's numbers",
                    angles.shape(),
                    head_dim / 2
                )));
            }
        }
        Some(Rotations { cosines: slice("cosines", cosines)?, sines: slice("sines", sines)? })
    } else {
        None
    };
    let layer = Attention { qkv: slice("qkv", qkv)?, heads, head_dim, positions, rotations, window: *window, scale };
    let lengths = slice("lengths", lengths)?;
    let out = slice_mut("out", &mut out)?;
    py.detach(|| layer.apply(lengths, out, threads, host)).map_err(value_error)
}
