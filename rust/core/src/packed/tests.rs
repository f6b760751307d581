//! The kernel beside the formula, with the vectors of this machine and without.

use proptest::collection::vec;
use proptest::prelude::*;
use pulp::Scalar;

use super::*;
use crate::functions::gelu;
use crate::host::{Eager, NewThreads};
use crate::vectors::each;

#[derive(Debug)]
struct Case {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

impl Case {
    fn weights(&self) -> PackedWeights {
        PackedWeights::pack(&self.weight, self.outputs, self.inputs).unwrap()
    }

    fn out(&self) -> Vec<f32> {
        vec![f32::NAN; self.x.len() / self.inputs * self.outputs]
    }

    fn apply(&self, threads: usize) -> Vec<f32> {
        let mut out = self.out();
        let (bias, activation) = (self.bias.as_deref(), Activation::Identity);
        self.weights().apply(&self.x, bias, activation, &mut out, threads, &Eager).unwrap();
        out
    }

    fn apply_by(&self, work: impl FnOnce(Worker<'_, '_, Eager>)) -> Vec<f32> {
        let weights = self.weights();
        let mut out = self.out();
        let pieces = cut(self.outputs, 1).pieces(&mut out).into_iter().collect();
        let bias = self.bias.as_deref().unwrap_or_default();
        let activation = Activation::Identity;
        work(Worker { x: &self.x, weights: &weights, bias, activation, pieces: &pieces, host: &Eager });
        drop(pieces);
        out
    }

    /// By the formula, and how far float32 may be from it.
    fn expected(&self) -> Vec<(f64, f64)> {
        let mut all = Vec::new();
        for x in self.x.chunks(self.inputs) {
            for (output, w) in self.weight.chunks(self.inputs).enumerate() {
                let bias = f64::from(self.bias.as_ref().map_or(0.0, |bias| bias[output]));
                let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), one| (sum + one, size + one.abs()));
                all.push((sum + bias, 1e-6 + 1e-5 * (size + bias.abs())));
            }
        }
        all
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let inputs =
        prop_oneof![4 => 1_usize..40, 1 => 120..140_usize, 1 => BLOCK - 2..BLOCK + 3, 1 => Just(2 * BLOCK + 1)];
    let sizes = prop_oneof![9 => (0_usize..20, inputs), 1 => (MANY - 1..CHUNK + 3, 1_usize..40)];
    (sizes, 0_usize..110, any::<bool>()).prop_flat_map(|((rows, inputs), outputs, has_bias)| {
        let number = prop_oneof![10 => -2.0_f32..2.0, 1 => Just(0.0), 1 => Just(300.0)];
        let bias = if has_bias { vec(-1.0_f32..1.0, outputs).prop_map(Some).boxed() } else { Just(None).boxed() };
        (vec(number.clone(), rows * inputs), vec(number, outputs * inputs), bias)
            .prop_map(move |(x, weight, bias)| Case { x, weight, bias, inputs, outputs })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_those_of_the_formula(case in cases()) {
        let ours = case.apply(1);
        let expected = case.expected();
        prop_assert_eq!(ours.len(), expected.len());
        for (&ours, (exact, far)) in ours.iter().zip(expected) {
            prop_assert!((f64::from(ours) - exact).abs() <= far, "{} is {} and not within {}", ours, exact, far);
        }
    }

    #[test]
    fn threads_change_nothing(case in cases()) {
        prop_assert_eq!(case.apply(1), case.apply(3));
    }

    #[test]
    fn it_is_near_with_each_kind_of_vectors_and_without(case in cases()) {
        for vectors in each() {
            let rows = case.apply_by(|worker| vectors.dispatch(worker));
            for (found, (exact, far)) in rows.into_iter().zip(case.expected()) {
                prop_assert!((f64::from(found) - exact).abs() <= far, "{} is {} and not within {}", found, exact, far);
            }
        }
    }

    #[test]
    fn a_row_s_answer_depends_on_that_row_alone(case in cases()) {
        let all = case.apply(2);
        for (row, x) in case.x.chunks(case.inputs).enumerate() {
            let (weight, bias) = (case.weight.clone(), case.bias.clone());
            let alone = Case { x: x.to_vec(), weight, bias, ..case };
            prop_assert_eq!(&alone.apply(1), &all[row * case.outputs..][..case.outputs]);
        }
    }

    #[test]
    fn the_activation_is_that_of_the_sums(case in cases()) {
        let mut out = case.out();
        case.weights().apply(&case.x, case.bias.as_deref(), Activation::Gelu, &mut out, 1, &NewThreads).unwrap();
        for (sum, activated) in case.apply(1).into_iter().zip(out) {
            prop_assert!((gelu(Scalar::new(), sum) - activated).abs() <= 1e-6 * (1.0 + sum.abs()), "{}", sum);
        }
    }
}

#[test]
fn many_rows_are_cut_and_keep_their_places() {
    let (rows, inputs, outputs) = (3 * CHUNK + 5, 3, 2 * OUTPUTS + 1);
    let number = |at: usize| f32::from(u16::try_from(at % 97).unwrap()) - 48.0;
    let x = (0..rows * inputs).map(number).collect();
    let weight = (0..outputs * inputs).map(|at| number(7 * at)).collect();
    let case = Case { x, weight, bias: None, inputs, outputs };
    for threads in [1, 4] {
        for (found, (exact, far)) in case.apply(threads).into_iter().zip(case.expected()) {
            assert!((f64::from(found) - exact).abs() <= far);
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row_or_column() {
    for number in [f32::NAN, f32::INFINITY] {
        let mut x = vec![1.0; 2 * 3];
        x[4] = number;
        let ones = vec![1.0; 2 * 3];
        let case = Case { x: x.clone(), weight: ones.clone(), bias: None, inputs: 3, outputs: 2 };
        let is_finite = |case: &Case| case.apply(1).into_iter().map(f32::is_finite).collect::<Vec<_>>();
        assert_eq!(is_finite(&case), [true, true, false, false]);
        assert_eq!(is_finite(&Case { x: ones[..3].to_vec(), ..case }), [true, true]);
        let case = Case { x: ones, weight: x, bias: None, inputs: 3, outputs: 2 };
        assert_eq!(is_finite(&case), [true, false, true, false]);
    }
}

#[test]
fn lengths_that_do_not_fit_are_errors() {
    assert_eq!(PackedWeights::pack(&[], 3, 0).unwrap_err(), LinearError::Inputs);
    assert_eq!(
        PackedWeights::pack(&[1.0; 5], 3, 2).unwrap_err(),
        LinearError::Weight { values: 5, outputs: 3, inputs: 2 }
    );
    assert_eq!(
        PackedWeights::pack(&[1.0; 7], 3, 2).unwrap_err(),
        LinearError::Weight { values: 7, outputs: 3, inputs: 2 }
    );
    let (outputs, inputs) = (1 << 40, 1 << 24); // as many as none, for 64 bits
    assert_eq!(
        PackedWeights::pack(&[], outputs, inputs).unwrap_err(),
        LinearError::Weight { values: 0, outputs, inputs }
    );
    let weights = PackedWeights::pack(&[1.0; 6], 3, 2).unwrap();
    let apply =
        |x: &[f32], bias| weights.apply(x, bias, Activation::Identity, &mut [0.0; 5], 1, &NewThreads).unwrap_err();
    assert_eq!(apply(&[1.0; 3], None), LinearError::Rows { values: 3, inputs: 2 });
    assert_eq!(apply(&[1.0; 4], Some(&[1.0; 2])), LinearError::Bias { values: 2, outputs: 3 });
    assert_eq!(apply(&[1.0; 4], Some(&[1.0; 4])), LinearError::Bias { values: 4, outputs: 3 });
    assert_eq!(apply(&[1.0; 4], None), LinearError::Out { values: 5, rows: 2, outputs: 3 });
    assert_eq!(apply(&[1.0; 2], None), LinearError::Out { values: 5, rows: 1, outputs: 3 });
}
