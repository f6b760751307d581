//! numpy arrays in and out.

use std::fmt::Display;

use numpy::{Element, PyArray1, PyReadonlyArray, PyReadonlyArray1, PyReadwriteArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;

/// A core error as Python's `ValueError`. A plain function: neither type is ours to implement `From` on.
pub(crate) fn value_error(error: impl Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// An array's values, refused unless they lie one after another.
pub(crate) fn slice<'a, T: Element, D: numpy::ndarray::Dimension>(
    name: &str,
    array: &'a PyReadonlyArray<'_, T, D>,
) -> PyResult<&'a [T]> {
    if !array.is_c_contiguous() {
        let advice = format!("{name} is not C-contiguous: pass numpy.ascontiguousarray({name})");
        return Err(PyValueError::new_err(advice));
    }
    array.as_slice().map_err(|_| PyValueError::new_err(format!("{name} is not aligned: pass {name}.copy()")))
}

/// The same of an array that is written to.
pub(crate) fn slice_mut<'a, T: Element, D: numpy::ndarray::Dimension>(
    name: &str,
    array: &'a mut PyReadwriteArray<'_, T, D>,
) -> PyResult<&'a mut [T]> {
    if !array.is_c_contiguous() {
        return Err(PyValueError::new_err(format!("{name} is not C-contiguous: pass numpy.empty of its shape")));
    }
    array
        .as_slice_mut()
        .map_err(|_| PyValueError::new_err(format!("{name} is not aligned: pass numpy.empty of its shape")))
}

/// Counts and indices as int64, the type in which they come back.
pub(crate) fn to_array(py: Python<'_>, values: Vec<usize>) -> Bound<'_, PyArray1<i64>> {
    PyArray1::from_vec(py, values.into_iter().map(to_i64).collect())
}

/// The same from an iterator.
pub(crate) fn iter_to_array(py: Python<'_>, values: impl ExactSizeIterator<Item = usize>) -> Bound<'_, PyArray1<i64>> {
    PyArray1::from_vec(py, values.map(to_i64).collect())
}

fn to_i64(value: usize) -> i64 {
    i64::try_from(value).expect("lengths and indices of what is in memory fit")
}

/// A whole number that need not be an `i64`: too large a one is a `ValueError` too, not Python's `OverflowError`.
pub(crate) fn whole_number(name: &str, value: &Bound<'_, PyAny>) -> PyResult<i64> {
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            PyValueError::new_err(format!("{name} is {value}: expected a number below 2**63"))
        } else {
            error
        }
    })
}

/// A number that counts something.
pub(crate) fn count(name: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    let number = whole_number(name, value)?;
    usize::try_from(number).map_err(|_| PyValueError::new_err(format!("{name} is {number}: expected 0 or more")))
}

/// The usual input.
pub(crate) type Ints<'py> = PyReadonlyArray1<'py, i64>;
