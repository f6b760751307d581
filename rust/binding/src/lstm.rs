//! The word LSTM, on a CPU.

use gliner_fast_core::{Direction, Lstm};
use numpy::{IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::{Ints, count, slice, value_error};
use crate::openmp::TorchThreads;

/// What each word's input makes of the gates, the weight of the state before, and a bias.
type Arrays<'py> = (PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, f32>, PyReadonlyArray1<'py, f32>);

#[pyfunction]
pub(crate) fn lstm<'py>(
    py: Python<'py>,
    forward: Arrays<'py>,
    backward: Arrays<'py>,
    lengths: Ints<'py>,
    threads: &Bound<'py, PyAny>,
    openmp: usize,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let (words, width) = (forward.0.shape()[0], forward.1.shape()[1]);
    let layer =
        Lstm { directions: [direction("forward", &forward, width)?, direction("backward", &backward, width)?], width };
    let (lengths, threads) = (slice("lengths", &lengths)?, count("threads", threads)?);
    // SAFETY: what the .pyi asks of callers.
    let host = unsafe { TorchThreads::at(openmp) };
    let out = py.detach(|| layer.apply(lengths, threads, &host)).map_err(value_error)?;
    out.into_pyarray(py).reshape([words, 2 * width])
}

fn direction<'a>(name: &str, (inputs, weight, bias): &'a Arrays<'_>, width: usize) -> PyResult<Direction<'a>> {
    let words = inputs.shape()[0];
    for (part, shape, expected) in
        [("inputs", inputs.shape(), [words, 4 * width]), ("weight", weight.shape(), [4 * width, width])]
    {
        if shape != expected {
            let told = format!("{part} of the {name} direction is {shape:?}: expected {expected:?}");
            return Err(PyValueError::new_err(told));
        }
    }
    Ok(Direction { inputs: slice("inputs", inputs)?, weight: slice("weight", weight)?, bias: slice("bias", bias)? })
}
