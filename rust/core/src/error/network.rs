//! What can be wrong with what the network's own kernels are given.

use std::error::Error;
use std::fmt;

/// Attention over packed texts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the message tells")]
pub enum AttentionError {
    /// A negative number of subwords.
    Length { text: usize, value: i64 },
    /// No head, or heads of no number.
    Empty,
    /// Not as many numbers as the lengths, heads and rows add up to.
    Values { name: &'static str, values: usize, expected: u128 },
    /// Not a row for each distance of the longest text, those of both directions and 0.
    Distances { values: usize, longest: usize },
    /// A row that the tables do not have.
    Row { index: usize, value: i32, rows: usize },
    /// Vectors that have no halves.
    Odd { head_dim: usize },
    /// Not an angle for each plane and place of the longest text.
    Angles { name: &'static str, values: usize, half: usize, longest: usize },
}

impl fmt::Display for AttentionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { text, value } => write!(f, "lengths[{text}] is {value}: expected 0 or more"),
            Self::Empty => write!(f, "qkv has no heads, or heads without a number"),
            Self::Values { name, values, expected } => write!(f, "{name} has {values} values: expected {expected}"),
            Self::Distances { values, longest } => write!(
                f,
                "by_distance has {values} values: expected an odd number, and at least {} for a text of {longest}",
                (2 * longest).saturating_sub(1)
            ),
            Self::Row { index, value, rows } => {
                write!(f, "by_distance[{index}] is {value}: expected a row below {rows}")
            }
            Self::Odd { head_dim } => {
                write!(f, "heads of {head_dim} numbers cannot be turned: expected an even number")
            }
            Self::Angles { name, values, half, longest } => write!(
                f,
                "{name} has {values} values: expected {half} for each place, at least {longest} places, and as many \
                 cosines as sines"
            ),
        }
    }
}

impl Error for AttentionError {}

/// A linear layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the message tells")]
pub enum LinearError {
    /// Rows without a number.
    Inputs,
    /// Rows that are not all whole.
    Rows { values: usize, inputs: usize },
    /// Not a row of weights for each output.
    Weight { values: usize, outputs: usize, inputs: usize },
    /// Not a number for each output.
    Bias { values: usize, outputs: usize },
    /// No room, or too much, for each row's outputs.
    Out { values: usize, rows: usize, outputs: usize },
}

impl fmt::Display for LinearError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inputs => write!(f, "x and weight have no columns: expected at least one"),
            Self::Rows { values, inputs } => write!(f, "x has {values} values: expected rows of {inputs}"),
            Self::Weight { values, outputs, inputs } => {
                write!(f, "weight has {values} values: expected {outputs} rows of {inputs}")
            }
            Self::Bias { values, outputs } => write!(f, "bias has {values} values: expected {outputs}"),
            Self::Out { values, rows, outputs } => {
                write!(f, "out has {values} values: expected {rows} rows of {outputs}")
            }
        }
    }
}

impl Error for LinearError {}

/// Layers one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the message tells")]
pub enum SublayersError {
    /// Not as many numbers as what is beside it takes or gives.
    Width { name: &'static str, values: usize, expected: usize },
    /// Not as many rows as what the attention gives.
    Rows { name: &'static str, values: usize, rows: usize, width: usize },
    /// A product's own.
    Linear(LinearError),
}

impl fmt::Display for SublayersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Width { name, values, expected } => {
                write!(f, "{name}: {values}, expected {expected} to fit the layer beside it")
            }
            Self::Rows { name, values, rows, width } => {
                write!(f, "{name} has {values} values: expected {rows} rows of {width}, as many as attended has")
            }
            Self::Linear(error) => error.fmt(f),
        }
    }
}

impl Error for SublayersError {}

impl From<LinearError> for SublayersError {
    fn from(error: LinearError) -> Self {
        Self::Linear(error)
    }
}

/// An LSTM over packed texts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the message tells")]
pub enum LstmError {
    /// A negative number of words.
    Length { text: usize, value: i64 },
    /// States of no number.
    Empty,
    /// Not as many numbers as the lengths and the width add up to, for the direction of a name.
    Values { direction: &'static str, name: &'static str, values: usize, expected: u128 },
}

impl fmt::Display for LstmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { text, value } => write!(f, "lengths[{text}] is {value}: expected 0 or more"),
            Self::Empty => write!(f, "the states have no width: expected at least one number"),
            Self::Values { direction, name, values, expected } => {
                write!(f, "{name} of the {direction} direction has {values} values: expected {expected}")
            }
        }
    }
}

impl Error for LstmError {}
