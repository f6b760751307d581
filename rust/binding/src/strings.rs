//! Python strings in.

use gliner_fast_core::replace_surrogates;
use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyString};

use crate::arrays::value_error;

/// A text as UTF-8 that may be read without the GIL.
pub(crate) enum HostText {
    /// Borrowed from an ASCII string of Python's, which is held on to.
    Borrowed(PyBackedStr),
    /// A copy, in which U+FFFD stands for each lone surrogate. Python would keep the UTF-8 of a string that is not ASCII
    /// beside its characters for as long as the string lives.
    Copied(String),
}

impl AsRef<str> for HostText {
    fn as_ref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Copied(text) => text,
        }
    }
}

/// Texts, of a sequence that is not itself a string.
pub(crate) fn read_texts(name: &str, texts: &Bound<'_, PyAny>) -> PyResult<Vec<HostText>> {
    if texts.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(format!("{name} is a str: put it into a list, [{name}]")));
    }
    // str's own methods, so that those of a subclass are not asked.
    let is_ascii = texts.py().get_type::<PyString>().getattr("isascii")?;
    let mut read = Vec::with_capacity(expected(texts));
    for (index, text) in texts.try_iter()?.enumerate() {
        read.push(read_text(name, index, text?, &is_ascii)?);
    }
    Ok(read)
}

/// How many items an object says it has, as far as that is to be believed before they are there.
pub(crate) fn expected(items: &Bound<'_, PyAny>) -> usize {
    items.len().unwrap_or(0).min(1 << 16)
}

fn read_text<'py>(
    name: &str,
    index: usize,
    text: Bound<'py, PyAny>,
    is_ascii: &Bound<'py, PyAny>,
) -> PyResult<HostText> {
    let text = text.cast_into::<PyString>().map_err(|error| {
        let kind = error.into_inner().get_type();
        PyTypeError::new_err(format!("{name}[{index}] is of {kind}: expected a str"))
    })?;
    if is_ascii.call1((&text,))?.is_truthy()? {
        return PyBackedStr::try_from(text).map(HostText::Borrowed);
    }
    match text.encode_utf8() {
        Ok(encoded) => String::from_utf8(encoded.as_bytes().to_vec()).map(HostText::Copied).map_err(value_error),
        Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(text.py()) => {
            let encoded = text.py().get_type::<PyString>().call_method1("encode", (&text, "utf-8", "surrogatepass"))?;
            let bytes = encoded.cast_into::<PyBytes>()?.as_bytes().to_vec();
            replace_surrogates(bytes).map(HostText::Copied).map_err(value_error)
        }
        Err(error) => Err(error),
    }
}
