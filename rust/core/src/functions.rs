//! Functions of numbers, a vector at a time, as good as float32 is.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::Simd;

use crate::vectors::at_least;

/// e^x for x <= 0, to within 1.2e-7 of itself; what would be below 1e-37 is about that.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: added to a small number, it leaves the whole part in the lowest bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const FACTORIALS: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let splat = |number: f32| simd.splat_f32s(number);
    let x = at_least(simd, splat(-86.0), x);
    let shifted = simd.mul_add_f32s(x, splat(std::f32::consts::LOG2_E), splat(MAGIC));
    let whole = simd.sub_f32s(shifted, splat(MAGIC));
    let part = simd.mul_add_f32s(whole, splat(-LN2_HIGH), x);
    let part = simd.mul_add_f32s(whole, splat(-LN2_LOW), part);
    let mut power = splat(FACTORIALS[0]);
    for factor in &FACTORIALS[1..] {
        power = simd.mul_add_f32s(power, part, splat(*factor));
    }
    let bits = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let two_to_whole = simd.transmute_f32s_u32s(simd.add_u32s(bits, simd.splat_u32s(1.0_f32.to_bits())));
    simd.mul_f32s(power, two_to_whole)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
    let power = exp(simd, simd.neg_f32s(simd.abs_f32s(x)));
    let above = simd.select_f32s(simd.less_than_f32s(x, zero), power, one);
    simd.div_f32s(above, simd.add_f32s(one, power))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// Of (tanh(x) / x - 1) / x^2 by x^2, fitted up to `NEAR`; beyond it, 1 - tanh is large enough to be subtracted.
    const SERIES: [f32; 5] = [-0.006_104_919, 0.021_003_615, -0.053_852_49, 0.133_327_83, -0.333_333_28];
    const NEAR: f32 = 0.625;
    let one = simd.splat_f32s(1.0);
    let size = simd.abs_f32s(x);
    let square = simd.mul_f32s(x, x);
    let near = simd.mul_add_f32s(simd.mul_f32s(polynomial(simd, &SERIES, square), square), x, x);
    let power = exp(simd, simd.mul_f32s(simd.splat_f32s(-2.0), size));
    let far = simd.div_f32s(simd.sub_f32s(one, power), simd.add_f32s(one, power));
    let far = simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(0.0)), simd.neg_f32s(far), far);
    simd.select_f32s(simd.less_than_f32s(size, simd.splat_f32s(NEAR)), near, far)
}

/// x times the share of a normal distribution that is below x (Hendrycks & Gimpel 2016), to within 3e-7.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// Of the logarithm of the share that is above x >= 0, fitted so that x times the share is right up to `FARTHEST`;
    /// what is taken off beyond it is below 1e-8.
    const TAIL: [f32; 10] = [
        2.644_433_4e-7,
        -5.277_243e-6,
        4.374_953_6e-5,
        -1.704_018e-4,
        -3.981_01e-5,
        4.859_823e-3,
        -3.638_006_7e-2,
        -3.182_964_6e-1,
        -7.978_863e-1,
        -std::f32::consts::LN_2,
    ];
    const FARTHEST: f32 = 6.0;
    let size = simd.neg_f32s(at_least(simd, simd.splat_f32s(-FARTHEST), simd.neg_f32s(simd.abs_f32s(x))));
    let above = exp(simd, polynomial(simd, &TAIL, size));
    let zero = simd.splat_f32s(0.0);
    let (positive, negative) = (at_least(simd, zero, x), at_least(simd, zero, simd.neg_f32s(x)));
    let found = simd.sub_f32s(positive, simd.mul_f32s(size, above));
    simd.mul_add_f32s(negative, zero, found) // NaN at minus infinity, as torch has it
}

/// `gelu` as the tanh of a cubic has it (Hendrycks & Gimpel 2016), to within 2e-7 of itself and 1e-37.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const ROOT: f32 = 1.595_769; // 2 sqrt(2 / pi): half of 1 + tanh(y) is the sigmoid of 2 y
    const LOWEST: f32 = -86.0; // of `exp`
    let square = simd.mul_f32s(x, x);
    let factor = simd.mul_add_f32s(square, simd.splat_f32s(0.044_715 * ROOT), simd.splat_f32s(ROOT));
    let twice = simd.mul_f32s(x, factor);
    let is_below = simd.less_than_f32s(twice, simd.splat_f32s(LOWEST));
    let share = simd.select_f32s(is_below, simd.splat_f32s(0.0), sigmoid(simd, twice));
    simd.mul_f32s(x, share) // NaN at minus infinity, as torch has it
}

/// The first coefficient belongs to the highest power.
#[inline(always)]
fn polynomial<S: Simd>(simd: S, coefficients: &[f32], x: S::f32s) -> S::f32s {
    let mut sum = simd.splat_f32s(coefficients[0]);
    for coefficient in &coefficients[1..] {
        sum = simd.mul_add_f32s(sum, x, simd.splat_f32s(*coefficient));
    }
    sum
}

#[cfg(test)]
mod tests {
    use pulp::{Scalar, WithSimd};

    use super::*;
    use crate::vectors::widest;

    enum Function {
        Sigmoid,
        Tanh,
        Gelu,
        GeluTanh,
    }

    struct All<'a>(Function, &'a mut [f32]);

    impl WithSimd for All<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for part in self.1.chunks_mut(S::F32_LANES) {
                let x = simd.partial_load_f32s(part);
                let y = match self.0 {
                    Function::Sigmoid => sigmoid(simd, x),
                    Function::Tanh => tanh(simd, x),
                    Function::Gelu => gelu(simd, x),
                    Function::GeluTanh => gelu_tanh(simd, x),
                };
                simd.partial_store_f32s(part, y);
            }
        }
    }

    fn values(function: Function, mut numbers: Vec<f32>, with_vectors: bool) -> Vec<f32> {
        let all = All(function, &mut numbers);
        if with_vectors {
            widest().dispatch(all);
        } else {
            all.with_simd(Scalar::new());
        }
        numbers
    }

    /// From -30 to 30, close together near 0.
    fn numbers() -> Vec<f32> {
        (-3000_i16..=3000).map(|step| (f32::from(step) / 3000.0).powi(3) * 30.0).collect()
    }

    /// The share of a normal distribution below x, by Simpson's rule.
    fn normal_below(x: f64) -> f64 {
        const STEPS: u32 = 4000;
        let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (from, width) = (-40.0_f64, x + 40.0);
        let step = width / f64::from(2 * STEPS);
        let at = |index: u32| density(from + step * f64::from(index));
        let inner: f64 = (1..2 * STEPS).map(|index| if index % 2 == 1 { 4.0 } else { 2.0 } * at(index)).sum();
        step / 3.0 * (at(0) + inner + at(2 * STEPS))
    }

    #[test]
    fn values_are_as_good_as_their_type() {
        for with_vectors in [false, true] {
            for (x, found) in numbers().into_iter().zip(values(Function::Sigmoid, numbers(), with_vectors)) {
                let expected = 1.0 / (1.0 + (-f64::from(x)).exp());
                assert!((f64::from(found) - expected).abs() < 3e-7 * expected, "sigmoid({x}) is {found}");
            }
            for (x, found) in numbers().into_iter().zip(values(Function::Tanh, numbers(), with_vectors)) {
                let expected = f64::from(x).tanh();
                assert!((f64::from(found) - expected).abs() <= 4e-7 * expected.abs(), "tanh({x}) is {found}");
            }
            for (x, found) in numbers().into_iter().zip(values(Function::Gelu, numbers(), with_vectors)).step_by(7) {
                let expected = f64::from(x) * normal_below(f64::from(x));
                let allowed = 3e-7_f64.max(2e-7 * expected.abs());
                assert!((f64::from(found) - expected).abs() < allowed, "gelu({x}) is {found} for {expected}");
            }
            for (x, found) in numbers().into_iter().zip(values(Function::GeluTanh, numbers(), with_vectors)) {
                let wide = f64::from(x);
                let cubic = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
                let expected = wide / (1.0 + (-2.0 * cubic).exp());
                // Far below 0 the rounding of the exponent counts, which is as large as the exponent.
                let allowed = (4e-7 + 3e-7 * cubic.abs()) * expected.abs() + 1e-35;
                assert!((f64::from(found) - expected).abs() <= allowed, "gelu_tanh({x}) is {found} for {expected}");
            }
        }
    }

    #[test]
    fn numbers_that_are_none() {
        let hostile = || vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30];
        for with_vectors in [false, true] {
            let of = |function| values(function, hostile(), with_vectors);
            for (found, expected) in
                [(of(Function::Sigmoid), [1.0, 0.0, 1.0, 0.0]), (of(Function::Tanh), [1.0, -1.0, 1.0, -1.0])]
            {
                assert!(found[0].is_nan());
                for (found, expected) in found[1..].iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-30, "{found} for {expected}");
                }
            }
            for function in [Function::Gelu, Function::GeluTanh] {
                let found = of(function);
                assert!(found[0].is_nan());
                assert!(found[1] == f32::INFINITY && found[2].is_nan() && found[3] >= 1e29 && found[4].abs() < 1e-8);
            }
        }
    }
}
