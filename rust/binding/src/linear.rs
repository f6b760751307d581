//! Linear layers on a CPU.

use gliner_fast_core::{Activation, Int8Weights, Int16Weights, Linear, PackedWeights};
use numpy::{
    IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::{count, slice, slice_mut, value_error};
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
    let activation = to_activation(activation)?;
    let bias = bias.as_ref().map(|bias| slice("bias", bias)).transpose()?;
    let layer = Linear { x: slice("x", &x)?, weight: slice("weight", &weight)?, bias, inputs, outputs, activation };
    let threads = count("threads", threads)?;
    // SAFETY: what the .pyi asks of callers.
    let host = unsafe { TorchThreads::at(openmp) };
    let out = py.detach(|| layer.apply(threads, &host)).map_err(value_error)?;
    out.into_pyarray(py).reshape([rows, outputs])
}

/// A class of packed weights for Python.
macro_rules! weights_class {
    ($class:ident, $weights:ident, $name:literal, { $($more:tt)* }) => {
        #[doc = concat!("`", $name, "`, for Python.")]
        #[pyclass(frozen, name = $name, module = "gliner_fast._rust")]
        pub(crate) struct $class(pub(crate) $weights);

        #[pymethods]
        impl $class {
            #[new]
            fn new(py: Python<'_>, weight: PyReadonlyArray2<'_, f32>) -> PyResult<Self> {
                let (outputs, inputs) = (weight.shape()[0], weight.shape()[1]);
                let weight = slice("weight", &weight)?;
                py.detach(|| $weights::pack(weight, outputs, inputs)).map(Self).map_err(value_error)
            }

            /// (outputs, inputs).
            #[getter]
            fn shape(&self) -> (usize, usize) {
                (self.0.outputs(), self.0.inputs())
            }

            #[expect(clippy::too_many_arguments, reason = "flat arrays, as they cross from Python")]
            fn apply(
                &self,
                py: Python<'_>,
                x: PyReadonlyArray2<'_, f32>,
                bias: Option<PyReadonlyArray1<'_, f32>>,
                activation: &str,
                mut out: PyReadwriteArray2<'_, f32>,
                threads: &Bound<'_, PyAny>,
                openmp: usize,
            ) -> PyResult<()> {
                check_shapes(x.shape(), out.shape(), self.shape())?;
                let activation = to_activation(activation)?;
                let bias = bias.as_ref().map(|bias| slice("bias", bias)).transpose()?;
                let (x, threads) = (slice("x", &x)?, count("threads", threads)?);
                let out = slice_mut("out", &mut out)?;
                // SAFETY: what the .pyi asks of callers.
                let host = unsafe { TorchThreads::at(openmp) };
                py.detach(|| self.0.apply(x, bias, activation, out, threads, &host)).map_err(value_error)
            }

            fn __repr__(&self) -> String {
                let (outputs, inputs) = self.shape();
                format!(concat!($name, "({}, {})"), outputs, inputs)
            }

            $($more)*
        }
    };
}

weights_class!(PyInt8Weights, Int8Weights, "Int8Weights", {});
weights_class!(PyInt16Weights, Int16Weights, "Int16Weights", {});
weights_class!(PyPackedWeights, PackedWeights, "PackedWeights", {
    fn resembles(&self, weight: PyReadonlyArray2<'_, f32>, first: usize) -> PyResult<bool> {
        let [rows, columns] = [weight.shape()[0], weight.shape()[1]];
        let (outputs, inputs) = self.shape();
        let numbers = slice("weight", &weight)?;
        let is_at = |([output, input], number): ([usize; 2], f32)| {
            numbers[output * columns + first + input].to_bits() == number.to_bits()
        };
        let fits = rows == outputs && first.checked_add(inputs).is_some_and(|end| end <= columns);
        Ok(fits && self.0.samples().all(is_at))
    }
});

fn check_shapes(x: &[usize], out: &[usize], (outputs, inputs): (usize, usize)) -> PyResult<()> {
    if x[1] == inputs && out == [x[0], outputs] {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "x is {x:?} and out {out:?}, but the weights are {:?}: expected (rows, inputs), (rows, outputs) and (outputs, \
         inputs)",
        [outputs, inputs]
    )))
}

pub(crate) fn to_activation(name: &str) -> PyResult<Activation> {
    match name {
        "none" => Ok(Activation::Identity),
        "gelu" => Ok(Activation::Gelu),
        "gelu_tanh" => Ok(Activation::GeluTanh),
        other => Err(PyValueError::new_err(format!("activation is {other:?}: expected none, gelu or gelu_tanh"))),
    }
}
