//! Python strings in.

use gliner_fast_core::replace_surrogates;
use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyString};

use crate::arrays::value_error;

/// A text as UTF-8 that may be read without the GIL.
pub(crate) enum HostText {
    /// Borrowed from the Python string, which is held on to.
    Borrowed(PyBackedStr),
    /// A copy in which U+FFFD stands for each lone surrogate.
    Replaced(String),
}

impl AsRef<str> for HostText {
    fn as_ref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Replaced(text) => text,
        }
    }
}

/// Texts, of a sequence that is not itself a string.
pub(crate) fn read_texts(name: &str, texts: &Bound<'_, PyAny>) -> PyResult<Vec<HostText>> {
    if texts.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(format!("{name} is a str: put it into a list, [{name}]")));
    }
    let mut read = Vec::with_capacity(expected(texts));
    for (index, text) in texts.try_iter()?.enumerate() {
        read.push(read_text(name, index, text?)?);
    }
    Ok(read)
}

/// How many items an object says it has, as far as that is to be believed before they are there.
pub(crate) fn expected(items: &Bound<'_, PyAny>) -> usize {
    items.len().unwrap_or(0).min(1 << 16)
}

fn read_text(name: &str, index: usize, text: Bound<'_, PyAny>) -> PyResult<HostText> {
    let text = text.cast_into::<PyString>().map_err(|error| {
        let kind = error.into_inner().get_type();
        PyTypeError::new_err(format!("{name}[{index}] is of {kind}: expected a str"))
    })?;
    match PyBackedStr::try_from(text.clone()) {
        Ok(text) => Ok(HostText::Borrowed(text)),
        Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(text.py()) => {
            // str.encode itself, so that a subclass's own `encode` is not asked.
            let encoded = text.py().get_type::<PyString>().call_method1("encode", (&text, "utf-8", "surrogatepass"))?;
            let bytes = encoded.cast_into::<PyBytes>()?.as_bytes().to_vec();
            replace_surrogates(bytes).map(HostText::Replaced).map_err(value_error)
        }
        Err(error) => Err(error),
    }
}
