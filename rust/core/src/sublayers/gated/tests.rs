//! The call beside the formula, in float64.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use pulp::Scalar;

use super::*;
use crate::host::{Eager, NewThreads};
use crate::packed::PackedWeights;
use crate::sublayers::formula::{dense, gelu, gelu_tanh, normed, sum};
use crate::sublayers::{BLOCK, Weights};

#[derive(Clone, Debug)]
struct Case {
    from: usize,
    width: usize,
    inner: usize,
    activation: Activation,
    attended: Vec<f32>,
    hidden: Vec<f32>,
    /// Whether what numbers are multiplied with has a layer of its own, of the second half of the second's weights.
    is_parted: bool,
    is_centred: bool,
    /// Of the three linear layers, with their biases, and the factors and biases of the norm.
    weights: [Vec<f32>; 3],
    biases: [Option<Vec<f32>>; 3],
    norm: (Vec<f32>, Option<Vec<f32>>),
}

const EPSILON: f32 = 1e-5;

impl Case {
    fn sizes(&self) -> [(usize, usize); 3] {
        [(self.from, self.width), (self.width, 2 * self.inner), (self.inner, self.width)]
    }

    /// The three, and both halves of the second.
    fn packed(&self) -> Vec<PackedWeights> {
        let sizes = self.sizes();
        let halves = self.weights[1].split_at(self.width * self.inner);
        [0, 1, 2]
            .map(|at| PackedWeights::pack(&self.weights[at], sizes[at].1, sizes[at].0).unwrap())
            .into_iter()
            .chain([halves.0, halves.1].map(|half| PackedWeights::pack(half, self.inner, self.width).unwrap()))
            .collect()
    }

    fn norm(&self) -> Norm<'_> {
        let Self { norm: (weight, bias), is_centred, .. } = self;
        Norm { weight, bias: bias.as_deref(), epsilon: EPSILON, is_centred: *is_centred }
    }

    fn sublayers<'a>(&'a self, packed: &'a [PackedWeights]) -> GatedSublayers<'a> {
        let with = |at: usize, bias| Dense { weights: Weights::Float32(&packed[at]), bias };
        let dense = |at: usize| with(at, self.biases[at].as_deref());
        let halves = self.biases[1].as_deref().map(|biases| biases.split_at(self.inner));
        let parted = (with(3, halves.map(|halves| halves.0)), Some(with(4, halves.map(|halves| halves.1))));
        let (intermediate, gates) = if self.is_parted { parted } else { (dense(1), None) };
        GatedSublayers {
            attention_output: dense(0),
            norm: self.norm(),
            intermediate,
            gates,
            activation: self.activation,
            output: dense(2),
        }
    }

    fn apply(&self, threads: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.hidden.len()];
        let packed = self.packed();
        self.sublayers(&packed).apply(&self.attended, &self.hidden, &mut out, threads, &Eager).unwrap();
        out
    }

    fn expected(&self) -> Vec<f64> {
        let rows = self.attended.chunks(self.from).zip(self.hidden.chunks(self.width));
        rows.flat_map(|(attended, hidden)| {
            let [attended, hidden] = [attended, hidden].map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            let dense = |at: usize, x: &[f64]| dense(&self.weights[at], self.biases[at].as_deref(), x);
            let hidden = sum(&dense(0, &attended), &hidden);
            let between = dense(1, &normed(&hidden, &self.norm()));
            let (first, second) = between.split_at(self.inner);
            let gated: Vec<f64> =
                first.iter().zip(second).map(|(&x, gate)| activated(self.activation, x) * gate).collect();
            sum(&dense(2, &gated), &hidden)
        })
        .collect()
    }
}

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => gelu_tanh(x),
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (
        prop_oneof![8 => 0_usize..9, 1 => BLOCK - 1..BLOCK + 3, 1 => 3 * BLOCK..3 * BLOCK + 2],
        1_usize..20,
        6_usize..70,
        1_usize..40,
    );
    let activation = prop_oneof![Just(Activation::Gelu), Just(Activation::GeluTanh), Just(Activation::Identity)];
    (sizes, activation, any::<bool>(), any::<bool>()).prop_flat_map(
        |((rows, from, width, inner), activation, is_parted, is_centred)| {
            let numbers = |count: usize| vec(-1.0_f32..1.0, count);
            let weights = [numbers(from * width), numbers(width * 2 * inner), numbers(inner * width)];
            let biases = [width, 2 * inner, width].map(|count| option::of(numbers(count)));
            let norm = (numbers(width), option::of(numbers(width)));
            (numbers(rows * from), numbers(rows * width), weights, biases, norm).prop_map(
                move |(attended, hidden, weights, biases, norm)| Case {
                    from,
                    width,
                    inner,
                    activation,
                    attended,
                    hidden,
                    is_parted,
                    is_centred,
                    weights,
                    biases,
                    norm,
                },
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_become_what_the_formula_says(case in cases()) {
        let ours = case.apply(1);
        prop_assert_eq!(ours.len(), case.hidden.len());
        for (&ours, exact) in ours.iter().zip(case.expected()) {
            // Few numbers of a row may be near each other: they are divided by little, and multiplied with as much.
            prop_assert!((f64::from(ours) - exact).abs() <= 5e-3 * exact.abs().max(1.0), "{} is not {}", ours, exact);
        }
    }

    #[test]
    fn neither_threads_nor_the_other_rows_change_anything(case in cases()) {
        let all = case.apply(3);
        prop_assert_eq!(&case.apply(1), &all);
        let rows = case.attended.chunks(case.from).zip(case.hidden.chunks(case.width));
        for ((attended, hidden), of_all) in rows.zip(all.chunks(case.width)).take(5) {
            let alone = Case { attended: attended.to_vec(), hidden: hidden.to_vec(), ..case.clone() };
            prop_assert_eq!(alone.apply(1), of_all);
        }
    }

    #[test]
    fn gates_are_near_with_each_kind_of_vectors_and_without(between in vec(-4.0_f32..4.0, 2 * 37)) {
        struct By<'a>(&'a [f32], &'a mut [f32]);
        impl WithSimd for By<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                gate_row(simd, Activation::Gelu, &self.0[..37], &self.0[37..], self.1);
            }
        }
        let exact: Vec<f64> =
            between[..37].iter().zip(&between[37..]).map(|(&x, &y)| gelu(f64::from(x)) * f64::from(y)).collect();
        let (mut scalar, mut others) = (vec![0.0; 37], vec![0.0; 37]);
        By(&between, &mut scalar).with_simd(Scalar::new());
        widest().dispatch(By(&between, &mut others));
        for (found, exact) in scalar.iter().chain(&others).zip(exact.iter().chain(&exact)) {
            prop_assert!((f64::from(*found) - exact).abs() <= 5e-6, "{} is not {}", found, exact);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gates_have_numbers_of_their_own(
        numbers in prop_oneof![0_usize..50, GATED - 2..GATED + 40]
            .prop_flat_map(|count| vec((-4.0_f32..4.0, -4.0_f32..4.0), count)),
        activation in prop_oneof![Just(Activation::Gelu), Just(Activation::GeluTanh), Just(Activation::Identity)],
    ) {
        let (x, gates): (Vec<_>, Vec<_>) = numbers.into_iter().unzip();
        let mut out = vec![f32::NAN; x.len()];
        gate(&x, &gates, activation, &mut out, 2, &Eager).unwrap();
        for ((&x, &gate), found) in x.iter().zip(&gates).zip(out) {
            let exact = activated(activation, f64::from(x)) * f64::from(gate);
            prop_assert!((f64::from(found) - exact).abs() <= 5e-6, "{} is not {}", found, exact);
        }
        let [x, gates] = [x, gates].map(|numbers| numbers.into_iter().map(u16::round).collect::<Vec<_>>());
        let (mut rounded, mut wide) = (vec![0; x.len()], vec![0.0; x.len()]);
        gate(&x, &gates, activation, &mut rounded, 2, &Eager).unwrap();
        let [x, gates] = [x, gates].map(|numbers| numbers.into_iter().map(Number::widen).collect::<Vec<_>>());
        gate(&x, &gates, activation, &mut wide, 1, &Eager).unwrap();
        prop_assert_eq!(rounded, wide.into_iter().map(u16::round).collect::<Vec<_>>());
    }
}

fn small() -> Case {
    let numbers =
        |count: usize| (0..count).map(|at| f32::from(u8::try_from(at * 37 % 101).unwrap()) / 50.0 - 1.0).collect();
    let (from, width, inner) = (6, 8, 10);
    Case {
        from,
        width,
        inner,
        activation: Activation::Gelu,
        is_parted: false,
        is_centred: true,
        attended: numbers(4 * from),
        hidden: numbers(4 * width),
        weights: [numbers(from * width), numbers(width * 2 * inner), numbers(inner * width)],
        biases: [Some(numbers(width)), Some(numbers(2 * inner)), None],
        norm: (numbers(width), Some(numbers(width))),
    }
}

#[test]
fn nan_stays_with_its_row() {
    let mut case = small();
    case.attended[7] = f32::NAN;
    let out = case.apply(2);
    assert!(out.chunks(case.width).enumerate().all(|(row, out)| out.iter().all(|x| x.is_nan() == (row == 1))));
}

#[test]
fn what_does_not_fit_is_told() {
    let case = small();
    let packed = case.packed();
    let layers = case.sublayers(&packed);
    let told = |layers: &GatedSublayers<'_>, attended: &[f32], hidden: &[f32], out: usize| {
        layers.apply(attended, hidden, &mut vec![0.0; out], 1, &NewThreads).unwrap_err().to_string()
    };
    assert_eq!(told(&layers, &case.attended[1..], &case.hidden, 32), "x has 23 values: expected rows of 6");
    let rows = "values: expected 4 rows of 8, as many as attended has";
    assert_eq!(told(&layers, &case.attended, &case.hidden[..24], 32), format!("hidden has 24 {rows}"));
    assert_eq!(told(&layers, &case.attended, &case.hidden, 40), format!("out has 40 {rows}"));
    let swapped = GatedSublayers { intermediate: layers.output, output: layers.intermediate, ..layers };
    let expected = "intermediate's inputs: 10, expected 8 to fit the layer beside it";
    assert_eq!(told(&swapped, &case.attended, &case.hidden, 32), expected);
    let alone = PackedWeights::pack(&case.weights[1][..80], 10, 8).unwrap();
    let cut = GatedSublayers { intermediate: Dense { weights: Weights::Float32(&alone), bias: None }, ..layers };
    let expected = "intermediate's outputs: 10, expected 20 to fit the layer beside it";
    assert_eq!(told(&cut, &case.attended, &case.hidden, 32), expected);
    let mut cut = layers;
    cut.norm.bias = Some(&case.norm.0[..5]);
    assert_eq!(told(&cut, &case.attended, &case.hidden, 32), "norm's bias: 5, expected 8 to fit the layer beside it");
    let mut cut = layers;
    cut.norm.weight = &case.norm.0[..5];
    assert_eq!(told(&cut, &case.attended, &case.hidden, 32), "norm's weight: 5, expected 8 to fit the layer beside it");
    let mut cut = layers;
    cut.intermediate.bias = Some(&case.norm.0[..5]);
    let expected = "intermediate's bias: 5, expected 20 to fit the layer beside it";
    assert_eq!(told(&cut, &case.attended, &case.hidden, 32), expected);
    let of_another = layers.attention_output.weights;
    let gates = Some(Dense { weights: of_another, bias: None });
    let parted =
        GatedSublayers { intermediate: Dense { weights: Weights::Float32(&alone), bias: None }, gates, ..layers };
    assert_eq!(
        told(&parted, &case.attended, &case.hidden, 32),
        "gates' inputs: 6, expected 8 to fit the layer beside it"
    );
    let wide = GatedSublayers { gates: Some(layers.intermediate), ..parted };
    assert_eq!(
        told(&wide, &case.attended, &case.hidden, 32),
        "gates' outputs: 20, expected 10 to fit the layer beside it"
    );
    let gates = Some(Dense { weights: Weights::Float32(&alone), bias: Some(&case.norm.0[..5]) });
    let cut = GatedSublayers { gates, ..parted };
    assert_eq!(told(&cut, &case.attended, &case.hidden, 32), "gates' bias: 5, expected 10 to fit the layer beside it");
    let mut cut = layers;
    cut.output.bias = Some(&case.norm.0[..5]);
    assert_eq!(told(&cut, &case.attended, &case.hidden, 32), "output's bias: 5, expected 8 to fit the layer beside it");
}

#[test]
fn no_rows_become_none() {
    let case = Case { attended: Vec::new(), hidden: Vec::new(), ..small() };
    assert!(case.apply(2).is_empty());
}

#[test]
fn what_does_not_fit_numbers_is_told() {
    let told = |found: Result<(), SublayersError>| found.unwrap_err().to_string();
    let gate = |gates: usize, out: usize| {
        gate(&[1.0; 3], &vec![1.0; gates], Activation::Gelu, &mut vec![0.0; out], 1, &NewThreads)
    };
    assert_eq!(told(gate(2, 3)), "gates: 2, expected 3 to fit the layer beside it");
    assert_eq!(told(gate(3, 4)), "out: 4, expected 3 to fit the layer beside it");
    let fill = |weight: usize, out: usize| {
        let weight = &vec![1.0; weight];
        let norm = Norm { weight, bias: None, epsilon: EPSILON, is_centred: false };
        norm.fill(&[1.0; 6], &mut vec![0.0; out], 1, &NewThreads)
    };
    assert!(fill(3, 6).is_ok());
    assert_eq!(told(fill(4, 6)), "x has 6 values: expected rows of 4");
    assert_eq!(told(fill(0, 6)), "x has 6 values: expected rows of 0");
    assert_eq!(told(fill(3, 5)), "out: 5, expected 6 to fit the layer beside it");
    let nothing = Norm { weight: &[], bias: None, epsilon: EPSILON, is_centred: false };
    assert_eq!(told(nothing.fill::<f32>(&[], &mut [], 1, &NewThreads)), "x has 0 values: expected rows of 0");
    let cut = Norm { weight: &[1.0; 3], bias: Some(&[1.0; 2]), ..nothing };
    let expected = "norm's bias: 2, expected 3 to fit the layer beside it";
    assert_eq!(told(cut.fill(&[1.0; 6], &mut [0.0; 6], 1, &NewThreads)), expected);
}
