//! The layer beside the formula, with the vectors of this machine and without.

use proptest::collection::vec;
use proptest::prelude::*;
use pulp::Scalar;

use super::*;
use crate::host::{Eager, NewThreads};

#[derive(Debug)]
struct Case {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

impl Case {
    fn layer(&self) -> Linear<'_> {
        let Self { x, weight, bias, inputs, outputs } = self;
        let bias = bias.as_deref();
        Linear { x, weight, bias, inputs: *inputs, outputs: *outputs, activation: Activation::Identity }
    }

    fn expected(&self) -> Vec<f64> {
        let bias = |at: usize| self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[at]));
        let product = |row: &[f32], at: usize| -> f64 {
            let weights = &self.weight[at * self.inputs..][..self.inputs];
            row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
        };
        let rows = self.x.chunks(self.inputs);
        rows.flat_map(|row| (0..self.outputs).map(move |at| product(row, at) + bias(at))).collect()
    }
}

fn cases() -> impl Strategy<Value = Case> {
    (0_usize..9, prop_oneof![9 => 1_usize..40, 1 => 1000_usize..2200], 0_usize..150, any::<bool>()).prop_flat_map(
        |(rows, inputs, outputs, biased)| {
            let number = prop_oneof![600 => -2.0_f32..2.0, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)];
            let bias = vec(-2.0_f32..2.0, outputs);
            (vec(number, rows * inputs), vec(-2.0_f32..2.0, outputs * inputs), bias)
                .prop_map(move |(x, weight, bias)| Case { x, weight, bias: biased.then_some(bias), inputs, outputs })
        },
    )
}

fn near(found: f64, expected: f64) -> bool {
    if expected.is_finite() { (found - expected).abs() < 1e-3 } else { found.to_string() == expected.to_string() }
}

/// Bits, but for NaN, of which there are many.
fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| if number.is_nan() { f32::NAN.to_bits() } else { number.to_bits() }).collect()
}

proptest! {
    #[test]
    fn numbers_are_those_of_the_formula(case in cases(), threads in 1_usize..5) {
        let found = case.layer().apply(threads, &Eager).unwrap();
        let expected = case.expected();
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.into_iter().zip(expected) {
            let found = f64::from(found);
            prop_assert!(near(found, expected), "{found} for {expected}");
        }
    }

    #[test]
    fn a_row_depends_on_itself_alone(case in cases(), threads in 1_usize..5) {
        let together = case.layer().apply(threads, &Eager).unwrap();
        let alone = case.x.chunks(case.inputs).flat_map(|x| Linear { x, ..case.layer() }.apply(1, &NewThreads).unwrap());
        prop_assert_eq!(bits(&together), bits(&alone.collect::<Vec<_>>()));
    }

    #[test]
    fn sums_are_activated(case in cases(), threads in 1_usize..5) {
        let sums = case.layer().apply(1, &NewThreads).unwrap();
        for activation in [Activation::Gelu, Activation::GeluTanh] {
            let found = Linear { activation, ..case.layer() }.apply(threads, &Eager).unwrap();
            prop_assert_eq!(found.len(), sums.len());
            for (found, &sum) in found.into_iter().zip(&sums) {
                let expected = activation.of(Scalar::new(), sum);
                prop_assert!(near(f64::from(found), f64::from(expected)), "{found} for {expected}");
            }
        }
    }

    #[test]
    fn without_vectors_too(case in cases()) {
        let mut out = Vec::new();
        out.resize_with(case.expected().len(), AtomicU32::default);
        let (layer, next) = (case.layer(), AtomicUsize::new(0));
        Worker { layer: &layer, out: &out, piece: 8, next: &next, host: &NewThreads }.with_simd(Scalar::new());
        for (found, expected) in out.into_iter().zip(case.expected()) {
            let found = f64::from(f32::from_bits(found.into_inner()));
            prop_assert!(near(found, expected), "{found} for {expected}");
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_told() {
    let activation = Activation::Identity;
    let sound = Linear { x: &[1.0; 6], weight: &[1.0; 12], bias: Some(&[0.0; 4]), inputs: 3, outputs: 4, activation };
    assert_eq!(sound.apply(1, &NewThreads).unwrap(), [3.0; 8]);
    for (wrong, told) in [
        (Linear { inputs: 0, ..sound }, "no columns"),
        (Linear { x: &[1.0; 7], ..sound }, "7 values"),
        (Linear { weight: &[1.0; 11], ..sound }, "11 values"),
        (Linear { outputs: usize::MAX, ..sound }, "12 values"),
        (Linear { bias: Some(&[0.0; 3]), ..sound }, "3 values"),
    ] {
        let message = wrong.apply(1, &NewThreads).unwrap_err().to_string();
        assert!(message.contains(told), "{message}");
    }
}
