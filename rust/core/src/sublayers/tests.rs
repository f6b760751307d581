//! The call beside the formula, in float64.

use proptest::collection::vec;
use proptest::prelude::*;
use pulp::Arch;

use super::*;
use crate::host::{Eager, NewThreads};
use crate::sublayers::formula::{dense, gelu, normed, sum};
use crate::vectors::each;

#[derive(Clone, Debug)]
struct Case {
    from: usize,
    width: usize,
    inner: usize,
    attended: Vec<f32>,
    hidden: Vec<f32>,
    /// Of the three linear layers, with their biases, and the factors and biases of the two norms.
    weights: [Vec<f32>; 3],
    biases: [Vec<f32>; 3],
    norms: [Vec<f32>; 4],
}

const EPSILON: f32 = 1e-7;

impl Case {
    fn sizes(&self) -> [(usize, usize); 3] {
        [(self.from, self.width), (self.width, self.inner), (self.inner, self.width)]
    }

    fn packed(&self) -> [PackedWeights; 3] {
        let sizes = self.sizes();
        [0, 1, 2].map(|at| PackedWeights::pack(&self.weights[at], sizes[at].1, sizes[at].0).unwrap())
    }

    fn sublayers<'a>(&'a self, weights: [Weights<'a>; 3]) -> Sublayers<'a> {
        let dense = |at: usize| Dense { weights: weights[at], bias: Some(&self.biases[at]) };
        Sublayers {
            attention_output: dense(0),
            attention_norm: self.norm(0),
            intermediate: dense(1),
            activation: Activation::Gelu,
            output: dense(2),
            output_norm: self.norm(2),
        }
    }

    fn norm(&self, at: usize) -> Norm<'_> {
        Norm { weight: &self.norms[at], bias: Some(&self.norms[at + 1]), epsilon: EPSILON, is_centred: true }
    }

    fn apply(&self, threads: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.hidden.len()];
        let packed = self.packed();
        let layers = self.sublayers([0, 1, 2].map(|at| Weights::Float32(&packed[at])));
        layers.apply(&self.attended, &self.hidden, &mut out, threads, &Eager).unwrap();
        out
    }

    fn expected(&self) -> Vec<f64> {
        let rows = self.attended.chunks(self.from).zip(self.hidden.chunks(self.width));
        rows.flat_map(|(attended, hidden)| {
            let [attended, hidden] = [attended, hidden].map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            let dense = |at: usize, x: &[f64]| dense(&self.weights[at], Some(&self.biases[at]), x);
            let norm = |at: usize, x: &[f64]| normed(x, &self.norm(at));
            let first = norm(0, &sum(&dense(0, &attended), &hidden));
            let between: Vec<f64> = dense(1, &first).into_iter().map(gelu).collect();
            norm(2, &sum(&dense(2, &between), &first))
        })
        .collect()
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (
        prop_oneof![8 => 0_usize..9, 1 => BLOCK - 1..BLOCK + 3, 1 => 3 * BLOCK..3 * BLOCK + 2],
        1_usize..20,
        6_usize..70,
        1_usize..40,
    );
    sizes.prop_flat_map(|(rows, from, width, inner)| {
        let numbers = |count: usize| vec(-1.0_f32..1.0, count);
        let weights = [numbers(from * width), numbers(width * inner), numbers(inner * width)];
        let biases = [numbers(width), numbers(inner), numbers(width)];
        let norms = [numbers(width), numbers(width), numbers(width), numbers(width)];
        (numbers(rows * from), numbers(rows * width), weights, biases, norms).prop_map(
            move |(attended, hidden, weights, biases, norms)| Case {
                from,
                width,
                inner,
                attended,
                hidden,
                weights,
                biases,
                norms,
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_become_what_the_formula_says(case in cases()) {
        let ours = case.apply(1);
        prop_assert_eq!(ours.len(), case.hidden.len());
        for (&ours, exact) in ours.iter().zip(case.expected()) {
            // Few numbers of a row may be near each other: they are divided by little.
            prop_assert!((f64::from(ours) - exact).abs() <= 2e-3, "{} is not {}", ours, exact);
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
    fn rows_are_normed_alone(case in cases(), is_centred in any::<bool>(), has_bias in any::<bool>()) {
        let norm = Norm { is_centred, bias: has_bias.then_some(&case.norms[1][..]), epsilon: 0.1, ..case.norm(0) };
        let mut out = vec![f32::NAN; case.hidden.len()];
        norm.fill(&case.hidden, &mut out, 3, &Eager).unwrap();
        let rows = case.hidden.chunks(case.width).zip(out.chunks(case.width));
        let bf16: Vec<u16> = case.hidden.iter().map(|&x| Number::round(x)).collect();
        let (mut wide, mut rounded) = (vec![0.0; bf16.len()], vec![0; bf16.len()]);
        norm.fill(&bf16, &mut rounded, 2, &Eager).unwrap();
        norm.fill(&bf16.iter().map(|&x| Number::widen(x)).collect::<Vec<_>>(), &mut wide, 2, &Eager).unwrap();
        prop_assert_eq!(rounded, wide.into_iter().map(u16::round).collect::<Vec<_>>());
        for (row, out) in rows {
            let row: Vec<_> = row.iter().map(|&x| f64::from(x)).collect();
            for (&ours, exact) in out.iter().zip(normed(&row, &norm)) {
                prop_assert!((f64::from(ours) - exact).abs() <= 1e-5, "{} is not {}", ours, exact);
            }
        }
    }

    #[test]
    fn norms_are_near_with_each_kind_of_vectors_and_without(case in cases()) {
        struct By<'a>(Norm<'a>, &'a mut [f32], &'a [f32]);
        impl WithSimd for By<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                let pieces: Pieces<_> = std::iter::once((self.1, self.2)).collect();
                Normer { norm: self.0, pieces: &pieces }.with_simd(simd);
            }
        }
        let norm = Norm { weight: &case.norms[0], bias: Some(&case.norms[1]), epsilon: 0.1, is_centred: true };
        let rows = |vectors: Arch| {
            let mut x = case.hidden.clone();
            x.reverse();
            vectors.dispatch(By(norm, &mut x, &case.hidden));
            x
        };
        let scalar = rows(Arch::Scalar);
        for vectors in each() {
            for (scalar, other) in scalar.iter().zip(&rows(vectors)) {
                prop_assert!((scalar - other).abs() <= 1e-5, "{} is not {}", other, scalar);
            }
        }
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
        attended: numbers(4 * from),
        hidden: numbers(4 * width),
        weights: [numbers(from * width), numbers(width * inner), numbers(inner * width)],
        biases: [numbers(width), numbers(inner), numbers(width)],
        norms: [numbers(width), numbers(width), numbers(width), numbers(width)],
    }
}

#[test]
fn whole_numbers_are_near() {
    let case = small();
    let sizes = case.sizes();
    let int16 = [0, 1, 2].map(|at| Int16Weights::pack(&case.weights[at], sizes[at].1, sizes[at].0).unwrap());
    let mut out = vec![f32::NAN; case.hidden.len()];
    let layers = case.sublayers([0, 1, 2].map(|at| Weights::Int16(&int16[at])));
    layers.apply(&case.attended, &case.hidden, &mut out, 2, &Eager).unwrap();
    for (&ours, exact) in out.iter().zip(case.expected()) {
        assert!((f64::from(ours) - exact).abs() < 5e-3, "{ours} is not {exact}");
    }
}

#[test]
fn nan_stays_with_its_row() {
    let mut case = small();
    case.attended[7] = f32::NAN;
    let out = case.apply(2);
    assert!(out.chunks(case.width).enumerate().all(|(row, out)| out.iter().all(|x| x.is_nan() == (row == 1))));
}

/// Puts numbers in the place of a layer's own.
type Cut = for<'a> fn(&mut Sublayers<'a>, &'a [f32]);

#[test]
fn what_does_not_fit_is_told() {
    let case = small();
    let packed = case.packed();
    let layers = case.sublayers([0, 1, 2].map(|at| Weights::Float32(&packed[at])));
    let told = |layers: &Sublayers<'_>, attended: &[f32], hidden: &[f32], out: usize| {
        layers.apply(attended, hidden, &mut vec![0.0; out], 1, &NewThreads).unwrap_err().to_string()
    };
    assert_eq!(told(&layers, &case.attended[1..], &case.hidden, 32), "x has 23 values: expected rows of 6");
    let rows = "values: expected 4 rows of 8, as many as attended has";
    assert_eq!(told(&layers, &case.attended, &case.hidden[..24], 32), format!("hidden has 24 {rows}"));
    assert_eq!(told(&layers, &case.attended, &case.hidden, 40), format!("out has 40 {rows}"));
    let swapped = Sublayers { intermediate: layers.output, output: layers.intermediate, ..layers };
    let expected = "intermediate's inputs: 10, expected 8 to fit the layer beside it";
    assert_eq!(told(&swapped, &case.attended, &case.hidden, 32), expected);
    let cut = Sublayers { output: layers.intermediate, ..layers };
    let expected = "output's inputs: 8, expected 10 to fit the layer beside it";
    assert_eq!(told(&cut, &case.attended, &case.hidden, 32), expected);
    let seven = PackedWeights::pack(&case.weights[2][..70], 7, 10).unwrap();
    let cut = Sublayers { output: Dense { weights: Weights::Float32(&seven), bias: None }, ..layers };
    let expected = "output's outputs: 7, expected 8 to fit the layer beside it";
    assert_eq!(told(&cut, &case.attended, &case.hidden, 32), expected);
    let cuts: [(&str, Cut); 6] = [
        ("attention_norm's weight", |layers, five| layers.attention_norm.weight = five),
        ("attention_norm's bias", |layers, five| layers.attention_norm.bias = Some(five)),
        ("output_norm's weight", |layers, five| layers.output_norm.weight = five),
        ("output_norm's bias", |layers, five| layers.output_norm.bias = Some(five)),
        ("attention_output's bias", |layers, five| layers.attention_output.bias = Some(five)),
        ("output's bias", |layers, five| layers.output.bias = Some(five)),
    ];
    for (name, cut) in cuts {
        let mut layers = layers;
        cut(&mut layers, &case.norms[0][..5]);
        let expected = format!("{name}: 5, expected 8 to fit the layer beside it");
        assert_eq!(told(&layers, &case.attended, &case.hidden, 32), expected);
    }
    let mut cut = layers;
    cut.intermediate.bias = Some(&case.biases[0][..5]);
    assert_eq!(
        told(&cut, &case.attended, &case.hidden, 32),
        "intermediate's bias: 5, expected 10 to fit the layer beside it"
    );
}

#[test]
fn much_memory_is_not_kept() {
    for (count, kept) in [(3, 3), (KEPT + 1, 0)] {
        drop(Scratch::of(count));
        assert_eq!(SCRATCH.take().len(), kept);
    }
}

#[test]
fn no_rows_become_none() {
    let case = Case { attended: Vec::new(), hidden: Vec::new(), ..small() };
    assert!(case.apply(2).is_empty());
}
