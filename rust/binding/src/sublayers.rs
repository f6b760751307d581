//! What follows the attention in a layer, on a CPU.

use gliner_fast_core::{Activation, Dense, GatedSublayers, Norm, Number, Sublayers, SublayersError, Weights};
use numpy::{Element, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::arrays::{count, slice, slice_mut, value_error};
use crate::linear::{PyInt8Weights, PyInt16Weights, PyPackedWeights, to_activation};
use crate::openmp::TorchThreads;

/// Packed weights of any kind, and their bias.
#[derive(FromPyObject)]
pub(crate) struct PyDense<'py>(PyWeights<'py>, Option<PyReadonlyArray1<'py, f32>>);

#[derive(FromPyObject)]
enum PyWeights<'py> {
    Float32(PyRef<'py, PyPackedWeights>),
    Int16(PyRef<'py, PyInt16Weights>),
    Int8(PyRef<'py, PyInt8Weights>),
}

/// Weight, bias, epsilon, and whether the mean is taken off.
#[derive(FromPyObject)]
pub(crate) struct PyNorm<'py>(PyReadonlyArray1<'py, f32>, Option<PyReadonlyArray1<'py, f32>>, f32, bool);

impl PyDense<'_> {
    fn get(&self, name: &str) -> PyResult<Dense<'_>> {
        let weights = match &self.0 {
            PyWeights::Float32(weights) => Weights::Float32(&weights.0),
            PyWeights::Int16(weights) => Weights::Int16(&weights.0),
            PyWeights::Int8(weights) => Weights::Int8(&weights.0),
        };
        Ok(Dense { weights, bias: self.1.as_ref().map(|bias| slice(&format!("{name}'s bias"), bias)).transpose()? })
    }
}

impl PyNorm<'_> {
    fn get(&self, name: &str) -> PyResult<Norm<'_>> {
        let bias = self.1.as_ref().map(|bias| slice(&format!("{name}'s bias"), bias)).transpose()?;
        Ok(Norm { weight: slice(&format!("{name}'s weight"), &self.0)?, bias, epsilon: self.2, is_centred: self.3 })
    }
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "flat arrays, as they cross from Python")]
pub(crate) fn sublayers<'py>(
    py: Python<'py>,
    attended: PyReadonlyArray2<'py, f32>,
    hidden: PyReadonlyArray2<'py, f32>,
    attention_output: PyDense<'py>,
    attention_norm: PyNorm<'py>,
    intermediate: PyDense<'py>,
    activation: &str,
    output: PyDense<'py>,
    output_norm: PyNorm<'py>,
    out: PyReadwriteArray2<'py, f32>,
    threads: &Bound<'py, PyAny>,
    openmp: usize,
) -> PyResult<()> {
    let sublayers = Sublayers {
        attention_output: attention_output.get("attention_output")?,
        attention_norm: attention_norm.get("attention_norm")?,
        intermediate: intermediate.get("intermediate")?,
        activation: to_activation(activation)?,
        output: output.get("output")?,
        output_norm: output_norm.get("output_norm")?,
    };
    let apply = |attended: &[f32], hidden: &[f32], out: &mut [f32], threads, host: &TorchThreads| {
        sublayers.apply(attended, hidden, out, threads, host)
    };
    run(py, sublayers.attention_output.weights, &attended, &hidden, out, threads, openmp, apply)
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "flat arrays, as they cross from Python")]
pub(crate) fn gated_sublayers<'py>(
    py: Python<'py>,
    attended: PyReadonlyArray2<'py, f32>,
    hidden: PyReadonlyArray2<'py, f32>,
    attention_output: PyDense<'py>,
    norm: PyNorm<'py>,
    intermediate: PyDense<'py>,
    gates: Option<PyDense<'py>>,
    activation: &str,
    output: PyDense<'py>,
    out: PyReadwriteArray2<'py, f32>,
    threads: &Bound<'py, PyAny>,
    openmp: usize,
) -> PyResult<()> {
    let sublayers = GatedSublayers {
        attention_output: attention_output.get("attention_output")?,
        norm: norm.get("norm")?,
        intermediate: intermediate.get("intermediate")?,
        gates: gates.as_ref().map(|gates| gates.get("gates")).transpose()?,
        activation: to_activation(activation)?,
        output: output.get("output")?,
    };
    let apply = |attended: &[f32], hidden: &[f32], out: &mut [f32], threads, host: &TorchThreads| {
        sublayers.apply(attended, hidden, out, threads, host)
    };
    run(py, sublayers.attention_output.weights, &attended, &hidden, out, threads, openmp, apply)
}

/// Rows of float32, or of bf16 by its bits.
#[derive(FromPyObject)]
pub(crate) enum Rows<'py> {
    Float32(PyReadonlyArray2<'py, f32>),
    Bf16(PyReadonlyArray2<'py, u16>),
}

#[pyfunction]
pub(crate) fn norm_rows<'py>(
    py: Python<'py>,
    x: Rows<'py>,
    norm: PyNorm<'py>,
    out: &Bound<'py, PyAny>,
    threads: &Bound<'py, PyAny>,
    openmp: usize,
) -> PyResult<()> {
    let (norm, threads) = (norm.get("norm")?, count("threads", threads)?);
    // SAFETY: what the .pyi asks of callers.
    let host = unsafe { TorchThreads::at(openmp) };
    match x {
        Rows::Float32(x) => norm_all(py, &x, norm, alike("out", out)?, threads, &host),
        Rows::Bf16(x) => norm_all(py, &x, norm, alike("out", out)?, threads, &host),
    }
}

fn norm_all<N: Number + Element>(
    py: Python<'_>,
    x: &PyReadonlyArray2<'_, N>,
    norm: Norm<'_>,
    mut out: PyReadwriteArray2<'_, N>,
    threads: usize,
    host: &TorchThreads,
) -> PyResult<()> {
    expect_alike(x, "out", out.shape())?;
    if norm.weight.len() != x.shape()[1] {
        return Err(PyValueError::new_err(format!("norm's weight is [{}], x {:?}", norm.weight.len(), x.shape())));
    }
    let (x, out) = (slice("x", x)?, slice_mut("out", &mut out)?);
    py.detach(|| norm.fill(x, out, threads, host)).map_err(value_error)
}

#[pyfunction]
pub(crate) fn gate<'py>(
    py: Python<'py>,
    x: Rows<'py>,
    gates: &Bound<'py, PyAny>,
    activation: &str,
    out: &Bound<'py, PyAny>,
    threads: &Bound<'py, PyAny>,
    openmp: usize,
) -> PyResult<()> {
    let (activation, threads) = (to_activation(activation)?, count("threads", threads)?);
    // SAFETY: what the .pyi asks of callers.
    let host = unsafe { TorchThreads::at(openmp) };
    match x {
        Rows::Float32(x) => gate_all(py, &x, &alike("gates", gates)?, activation, alike("out", out)?, threads, &host),
        Rows::Bf16(x) => gate_all(py, &x, &alike("gates", gates)?, activation, alike("out", out)?, threads, &host),
    }
}

fn gate_all<N: Number + Element>(
    py: Python<'_>,
    x: &PyReadonlyArray2<'_, N>,
    gates: &PyReadonlyArray2<'_, N>,
    activation: Activation,
    mut out: PyReadwriteArray2<'_, N>,
    threads: usize,
    host: &TorchThreads,
) -> PyResult<()> {
    expect_alike(x, "gates", gates.shape())?;
    expect_alike(x, "out", out.shape())?;
    let (x, gates, out) = (slice("x", x)?, slice("gates", gates)?, slice_mut("out", &mut out)?);
    py.detach(|| gliner_fast_core::gate(x, gates, activation, out, threads, host)).map_err(value_error)
}

/// An array that has to be of x's kind of numbers.
fn alike<'a, 'py, T: FromPyObject<'a, 'py, Error = PyErr>>(name: &str, array: &'a Bound<'py, PyAny>) -> PyResult<T> {
    array.extract().map_err(|error: PyErr| {
        let problem = error.value(array.py());
        PyTypeError::new_err(format!("argument '{name}': {problem} (expected one of x's kind of numbers)"))
    })
}

fn expect_alike<N: Element>(x: &PyReadonlyArray2<'_, N>, name: &str, shape: &[usize]) -> PyResult<()> {
    if x.shape() == shape {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("x is {:?} and {name} {shape:?}: expected the same shape", x.shape())))
}

/// Checks shapes, and applies layers without the GIL.
#[expect(clippy::too_many_arguments, reason = "those of the functions for Python")]
fn run(
    py: Python<'_>,
    attention_output: Weights<'_>,
    attended: &PyReadonlyArray2<'_, f32>,
    hidden: &PyReadonlyArray2<'_, f32>,
    mut out: PyReadwriteArray2<'_, f32>,
    threads: &Bound<'_, PyAny>,
    openmp: usize,
    apply: impl Fn(&[f32], &[f32], &mut [f32], usize, &TorchThreads) -> Result<(), SublayersError> + Send + Sync,
) -> PyResult<()> {
    let (from, width) = (attention_output.inputs(), attention_output.outputs());
    let rows = attended.shape()[0];
    if attended.shape()[1] != from || hidden.shape() != [rows, width] || out.shape() != [rows, width] {
        return Err(PyValueError::new_err(format!(
            "attended is {:?}, hidden {:?} and out {:?}: expected [rows, {from}], then [rows, {width}] twice",
            attended.shape(),
            hidden.shape(),
            out.shape()
        )));
    }
    let (attended, hidden, threads) =
        (slice("attended", attended)?, slice("hidden", hidden)?, count("threads", threads)?);
    let out = slice_mut("out", &mut out)?;
    // SAFETY: what the .pyi asks of callers.
    let host = unsafe { TorchThreads::at(openmp) };
    py.detach(|| apply(attended, hidden, out, threads, &host)).map_err(value_error)
}
