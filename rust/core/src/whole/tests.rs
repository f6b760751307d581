//! The kernels beside the formula, with the vectors of this machine and without.

use proptest::collection::vec;
use proptest::prelude::*;
use pulp::Scalar;

use super::*;
use crate::functions::gelu;
use crate::host::{Eager, NewThreads};

#[derive(Debug)]
struct Case {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

trait Rounds: Kind {
    /// How far from the greatest of so many neighbours a number is at most, in whole numbers.
    const MOST: f32;
    const NEIGHBOURS: usize;

    /// How much each number of a row may be rounded by.
    fn rounding(row: &[f32]) -> Vec<f64> {
        let of = |numbers: &[f32]| {
            let most = numbers.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            vec![0.5001 * f64::from(most / Self::MOST); numbers.len()]
        };
        row.chunks(Self::NEIGHBOURS.min(row.len())).flat_map(of).collect()
    }
}

impl Rounds for Int16 {
    const MOST: f32 = 8191.0;
    const NEIGHBOURS: usize = usize::MAX;
}

impl Rounds for Int8 {
    const MOST: f32 = 127.0;
    const NEIGHBOURS: usize = 64;
}

impl Case {
    fn weights<K: Kind>(&self) -> WholeWeights<K> {
        WholeWeights::pack(&self.weight, self.outputs, self.inputs).unwrap()
    }

    fn apply<K: Kind>(&self, threads: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.x.len() / self.inputs * self.outputs];
        let (bias, activation) = (self.bias.as_deref(), Activation::Identity);
        self.weights::<K>().apply(&self.x, bias, activation, &mut out, threads, &Eager).unwrap();
        out
    }

    fn apply_by<K: Kind>(&self, work: impl FnOnce(Worker<'_, '_, K, Eager>)) -> Vec<f32> {
        let (weights, x) = (self.weights::<K>(), Measured::new(&self.x, self.inputs, 1, &NewThreads));
        let mut out = vec![f32::NAN; self.x.len() / self.inputs * self.outputs];
        let bias = self.bias.clone().unwrap_or_default();
        let panels: Vec<_> = (0..self.outputs.div_ceil(OUTPUTS)).map(|panel| weights.panel(panel, &bias)).collect();
        let pieces = cut(self.outputs, self.inputs, 1).pieces(&mut out).into_iter().collect();
        work(Worker { x: &x, panels: &panels, activation: Activation::Identity, pieces: &pieces, host: &Eager });
        drop(pieces);
        out
    }

    /// By the formula, and how far whole numbers may be from it.
    fn expected<K: Rounds>(&self) -> Vec<(f64, f64)> {
        let mut all = Vec::new();
        let weights: Vec<_> = self.weight.chunks(self.inputs).map(|w| (w, K::rounding(w))).collect();
        for x in self.x.chunks(self.inputs) {
            let dx = K::rounding(x);
            for (output, (w, dw)) in weights.iter().enumerate() {
                let (mut sum, mut far) = (0.0, 1e-6);
                for (((&x, &w), dx), dw) in x.iter().zip(*w).zip(&dx).zip(dw) {
                    let (x, w) = (f64::from(x), f64::from(w));
                    sum += x * w;
                    far += x.abs() * dw + w.abs() * dx + dx * dw + 1e-6 * (x * w).abs();
                }
                all.push((sum + f64::from(self.bias.as_ref().map_or(0.0, |bias| bias[output])), far));
            }
        }
        all
    }
}

fn cases() -> impl Strategy<Value = Case> {
    (0_usize..20, prop_oneof![1_usize..40, 120..140_usize, 380..390_usize], 0_usize..80, any::<bool>()).prop_flat_map(
        |(rows, inputs, outputs, has_bias)| {
            let number = prop_oneof![10 => -2.0_f32..2.0, 1 => Just(0.0), 1 => Just(300.0)];
            let bias = if has_bias { vec(-1.0_f32..1.0, outputs).prop_map(Some).boxed() } else { Just(None).boxed() };
            (vec(number.clone(), rows * inputs), vec(number, outputs * inputs), bias)
                .prop_map(move |(x, weight, bias)| Case { x, weight, bias, inputs, outputs })
        },
    )
}

/// All tests of a kind of whole numbers.
macro_rules! tests_of {
    ($name:ident, $kind:ident) => {
        mod $name {
            use super::*;

            type K = $kind;

            proptest! {
                #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn sums_are_as_near_to_the_formula_as_the_rounding_of_rows_allows(case in cases()) {
                    let ours = case.apply::<K>(1);
                    let expected = case.expected::<K>();
                    prop_assert_eq!(ours.len(), expected.len());
                    for (&ours, (exact, far)) in ours.iter().zip(expected) {
                        prop_assert!((f64::from(ours) - exact).abs() <= far, "{} is {} and not within {}", ours, exact, far);
                    }
                }

                #[test]
                fn without_vectors_and_with_threads_it_is_the_same_to_the_last_bit(case in cases()) {
                    let ours = case.apply::<K>(1);
                    prop_assert_eq!(&ours, &case.apply::<K>(3));
                    prop_assert_eq!(&ours, &case.apply_by::<K>(|worker| worker.with_simd(Scalar::new())));
                }

                #[test]
                #[cfg(target_arch = "x86_64")]
                fn it_is_the_same_with_each_kind_of_vectors_that_is_here(case in cases()) {
                    use pulp::x86::{V3, V4};

                    let ours = case.apply::<K>(1);
                    if let Some(avx2) = V3::try_new() {
                        prop_assert_eq!(&ours, &case.apply_by::<K>(|worker| avx2.vectorize(|| worker.with_simd(avx2))));
                    }
                    if let Some(avx512) = V4::try_new() {
                        prop_assert_eq!(&ours, &case.apply_by::<K>(|worker| avx512.vectorize(|| worker.multiply(avx512, None))));
                    }
                }

                #[test]
                fn a_row_s_answer_depends_on_that_row_alone(case in cases()) {
                    let all = case.apply::<K>(2);
                    for (row, x) in case.x.chunks(case.inputs).enumerate() {
                        let alone = Case { x: x.to_vec(), weight: case.weight.clone(), bias: case.bias.clone(), ..case };
                        prop_assert_eq!(&alone.apply::<K>(1), &all[row * case.outputs..][..case.outputs]);
                    }
                }

                #[test]
                fn the_activation_is_that_of_the_sums(case in cases()) {
                    let mut out = vec![f32::NAN; case.x.len() / case.inputs * case.outputs];
                    case.weights::<K>().apply(&case.x, case.bias.as_deref(), Activation::Gelu, &mut out, 1, &NewThreads).unwrap();
                    for (sum, activated) in case.apply::<K>(1).into_iter().zip(out) {
                        prop_assert!((gelu(Scalar::new(), sum) - activated).abs() <= 1e-6 * (1.0 + sum.abs()), "{}", sum);
                    }
                }
            }

            #[test]
            fn the_greatest_sums_fit() {
                for sign in [1.0, -1.0] {
                    let case = Case { x: vec![7.0; 3000], weight: vec![sign; 3000], bias: None, inputs: 3000, outputs: 1 };
                    let sum = case.apply::<K>(1)[0];
                    assert!((sum - sign * 21_000.0).abs() < 0.01, "{sum}");
                }
            }

            #[test]
            fn what_is_not_finite_stays_in_its_row_or_column() {
                let are_nan = |case: &Case| case.apply::<K>(1).into_iter().map(f32::is_nan).collect::<Vec<_>>();
                for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    for inputs in [3, 40] {
                        let mut x = vec![1.0; 2 * inputs];
                        x[inputs + 1] = number;
                        let ones = vec![1.0; 2 * inputs];
                        let case = Case { x: x.clone(), weight: ones.clone(), bias: None, inputs, outputs: 2 };
                        assert_eq!(are_nan(&case), [false, false, true, true]);
                        let case = Case { x: ones, weight: x, bias: None, inputs, outputs: 2 };
                        assert_eq!(are_nan(&case), [false, true, false, true]);
                    }
                }
            }

            #[test]
            fn great_rows_times_small_ones_fit() {
                let case =
                    Case { x: vec![1e36; 3000], weight: vec![1e-20; 3000], bias: None, inputs: 3000, outputs: 1 };
                let sum = case.apply::<K>(1)[0];
                assert!((sum / 3e19 - 1.0).abs() < 1e-5, "{sum}");
            }

            #[test]
            fn tiny_rows_are_zero() {
                let case = Case { x: vec![1e-38; 4], weight: vec![1.0; 4], bias: Some(vec![0.5]), inputs: 4, outputs: 1 };
                assert_eq!(case.apply::<K>(1), [0.5]);
            }

            #[test]
            fn lengths_that_do_not_fit_are_errors() {
                assert_eq!(WholeWeights::<K>::pack(&[], 3, 0).unwrap_err(), LinearError::Inputs);
                assert_eq!(
                    WholeWeights::<K>::pack(&[1.0; 5], 3, 2).unwrap_err(),
                    LinearError::Weight { values: 5, outputs: 3, inputs: 2 }
                );
                let weights = WholeWeights::<K>::pack(&[1.0; 6], 3, 2).unwrap();
                let apply =
                    |x: &[f32], bias| weights.apply(x, bias, Activation::Identity, &mut [0.0; 5], 1, &NewThreads).unwrap_err();
                assert_eq!(apply(&[1.0; 3], None), LinearError::Rows { values: 3, inputs: 2 });
                assert_eq!(apply(&[1.0; 4], Some(&[1.0; 2])), LinearError::Bias { values: 2, outputs: 3 });
                assert_eq!(apply(&[1.0; 4], None), LinearError::Out { values: 5, rows: 2, outputs: 3 });
            }
        }
    };
}

tests_of!(int16, Int16);
tests_of!(int8, Int8);
