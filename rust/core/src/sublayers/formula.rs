//! What tests of layers hold them to, in float64.

use super::Norm;

/// By the tail of the normal distribution (Abramowitz & Stegun 7.1.26 is good to 1.5e-7).
pub(super) fn gelu(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * (x.abs() / std::f64::consts::SQRT_2));
    let tail = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let tail = tail.into_iter().fold(0.0, |sum, factor| sum * t + factor) * t * (-x * x / 2.0).exp() / 2.0;
    x * if x < 0.0 { tail } else { 1.0 - tail }
}

/// What stands for it in T5.
pub(super) fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}

/// A linear layer of a row.
pub(super) fn dense(weights: &[f32], bias: Option<&[f32]>, x: &[f64]) -> Vec<f64> {
    let product = |row: &[f32]| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
    let bias = |output: usize| bias.map_or(0.0, |bias| f64::from(bias[output]));
    weights.chunks(x.len()).enumerate().map(|(output, row)| bias(output) + product(row)).collect()
}

/// A norm of a row.
pub(super) fn normed(x: &[f64], norm: &Norm<'_>) -> Vec<f64> {
    let &Norm { weight, bias, epsilon, is_centred } = norm;
    let count = f64::from(u32::try_from(x.len()).unwrap());
    let mean = if is_centred { x.iter().sum::<f64>() / count } else { 0.0 };
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let scale = (variance + f64::from(epsilon)).sqrt();
    let bias = |at: usize| bias.map_or(0.0, |bias| f64::from(bias[at]));
    let factors = weight.iter().enumerate();
    x.iter().zip(factors).map(|(x, (at, &weight))| (x - mean) / scale * f64::from(weight) + bias(at)).collect()
}

/// Two rows together.
pub(super) fn sum(x: &[f64], residual: &[f64]) -> Vec<f64> {
    x.iter().zip(residual).map(|(x, residual)| x + residual).collect()
}
