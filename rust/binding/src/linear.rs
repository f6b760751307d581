//! Linear layers of a few rows, on a CPU.

use gliner_fast_core::{Activation, Linear};
use numpy::{IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::{count, slice, value_error};
use crate::openmp::TorchThreads;

#[pyfunction]
pub(crate) fn linear<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f32>,
    weight: PyReadonlyArray2<'py, f32>,
    bias: Option<PyReadonlyArray1<'py, f32>>,
    activation: &str,
    threads: &Bound<'py, PyAny>,
    openmp: usize,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let (rows, [outputs, inputs]) = (x.shape()[0], [weight.shape()[0], weight.shape()[1]]);
    if x.shape()[1] != inputs {
        return Err(PyValueError::new_err(format!(
            "x has {} columns and weight has {inputs}: expected as many",
            x.shape()[1]
        )));
    }
    let activation = match activation {
        "none" => Activation::Identity,
        "gelu" => Activation::Gelu,
        other => return Err(PyValueError::new_err(format!("activation is {other:?}: expected none or gelu"))),
    };
    let bias = bias.as_ref().map(|bias| slice("bias", bias)).transpose()?;
    let layer = Linear { x: slice("x", &x)?, weight: slice("weight", &weight)?, bias, inputs, outputs, activation };
    let threads = count("threads", threads)?;
    // SAFETY: what the .pyi asks of callers.
    let host = unsafe { TorchThreads::at(openmp) };
    let out = py.detach(|| layer.apply(threads, &host)).map_err(value_error)?;
    out.into_pyarray(py).reshape([rows, outputs])
}
