//! The LSTM beside the formula, with the vectors of this machine and without.

use proptest::collection::vec;
use proptest::prelude::*;
use pulp::Scalar;

use super::*;
use crate::host::{Eager, NewThreads};

/// Inputs, weight and bias.
type Parts = (Vec<f32>, Vec<f32>, Vec<f32>);

#[derive(Clone, Debug)]
struct Case {
    lengths: Vec<usize>,
    width: usize,
    directions: [Parts; 2],
}

impl Case {
    fn layer(&self) -> Lstm<'_> {
        let directions = self.directions.each_ref().map(|(inputs, weight, bias)| Direction { inputs, weight, bias });
        Lstm { directions, width: self.width }
    }

    fn lengths(&self) -> Vec<i64> {
        self.lengths.iter().map(|&length| i64::try_from(length).unwrap()).collect()
    }

    /// (N, 2 width), by the formula.
    fn expected(&self) -> Vec<f64> {
        let width = self.width;
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut out = vec![0.0; 2 * width * self.lengths.iter().sum::<usize>()];
        for (side, (inputs, weight, bias)) in self.directions.iter().enumerate() {
            let mut first = 0;
            for &length in &self.lengths {
                let (mut cell, mut state) = (vec![0.0; width], vec![0.0; width]);
                for step in 0..length {
                    let word = first + if side == 0 { step } else { length - 1 - step };
                    let gate = |kind: usize, unit: usize| {
                        let at = kind * width + unit;
                        let before: f64 = state.iter().zip(&weight[at * width..]).map(|(h, w)| h * f64::from(*w)).sum();
                        before + f64::from(inputs[word * 4 * width + at]) + f64::from(bias[at])
                    };
                    let new: Vec<(f64, f64)> = (0..width)
                        .map(|unit| {
                            let new =
                                sigmoid(gate(1, unit)) * cell[unit] + sigmoid(gate(0, unit)) * gate(2, unit).tanh();
                            (new, sigmoid(gate(3, unit)) * new.tanh())
                        })
                        .collect();
                    (cell, state) = new.into_iter().unzip();
                    out[(2 * word + side) * width..][..width].copy_from_slice(&state);
                }
                first += length;
            }
        }
        out
    }
}

fn cases() -> impl Strategy<Value = Case> {
    (vec(0_usize..12, 0..9), 1_usize..20).prop_flat_map(|(lengths, width)| {
        let words = lengths.iter().sum::<usize>();
        let number = || -1.5_f32..1.5;
        let parts =
            move || (vec(number(), words * 4 * width), vec(number(), 4 * width * width), vec(number(), 4 * width));
        (parts(), parts()).prop_map(move |(forwards, backwards)| {
            let lengths = lengths.clone();
            Case { lengths, width, directions: [forwards, backwards] }
        })
    })
}

fn assert_near(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} for {expected} at {at}");
    }
}

proptest! {
    #[test]
    fn numbers_are_those_of_the_formula(case in cases(), threads in 1_usize..7) {
        assert_near(&case.layer().apply(&case.lengths(), threads, &Eager).unwrap(), &case.expected());
    }

    #[test]
    fn a_text_depends_on_itself_alone(case in cases(), threads in 1_usize..7) {
        let together = case.layer().apply(&case.lengths(), threads, &Eager).unwrap();
        let (row, mut first) = (4 * case.width, 0);
        for (length, &count) in case.lengths().into_iter().zip(&case.lengths) {
            let directions = case.layer().directions.map(|own| {
                Direction { inputs: &own.inputs[first * row..(first + count) * row], ..own }
            });
            let alone = Lstm { directions, ..case.layer() }.apply(&[length], 1, &NewThreads).unwrap();
            prop_assert_eq!(&together[first * 2 * case.width..(first + count) * 2 * case.width], alone);
            first += count;
        }
    }

    #[test]
    fn without_vectors_too(case in cases()) {
        let (texts, words) = case.layer().check(&case.lengths()).unwrap();
        let expected = case.expected();
        let longest_first = { let mut texts = texts; texts.sort_by_key(|text| Reverse(text.length)); texts };
        for (side, direction) in case.layer().directions.into_iter().enumerate() {
            let texts = longest_first.clone();
            let pieces = Pieces::from_iter([Piece { direction, backwards: side == 1, texts, states: Vec::new() }]);
            Worker { pieces: &pieces, width: case.width }.with_simd(Scalar::new());
            let states = pieces.into_inner().next().unwrap().states;
            prop_assert_eq!(states.len(), words * case.width);
            let rows = longest_first.iter().flat_map(|text| text.first..text.first + text.length);
            for (row, state) in rows.zip(states.chunks(case.width)) {
                assert_near(state, &expected[(2 * row + side) * case.width..][..case.width]);
            }
        }
    }
}

#[test]
fn a_nan_stays_in_its_text() {
    let (mut inputs, weight, bias) = (vec![0.5; 7 * 8], [0.25; 16], [0.0; 8]);
    inputs[3 * 8] = f32::NAN; // of the fourth word, the second text's second one
    let direction = Direction { inputs: &inputs, weight: &weight, bias: &bias };
    let out = Lstm { directions: [direction; 2], width: 2 }.apply(&[2, 3, 2], 2, &Eager).unwrap();
    for (row, states) in out.chunks(4).enumerate() {
        assert_eq!(states[..2].iter().any(|number| number.is_nan()), (3..5).contains(&row), "{row}, forwards");
        assert_eq!(states[2..].iter().any(|number| number.is_nan()), (2..4).contains(&row), "{row}, backwards");
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let (inputs, weight, bias) = ([1.0; 24], [1.0; 16], [1.0; 8]);
    let direction = Direction { inputs: &inputs, weight: &weight, bias: &bias };
    let sound = Lstm { directions: [direction; 2], width: 2 };
    assert_eq!(sound.apply(&[2, 0, 1], 1, &NewThreads).unwrap().len(), 12);
    let second = |changed| Lstm { directions: [direction, changed], ..sound };
    for (wrong, lengths, told) in [
        (sound, [3, -1], "lengths[1] is -1"),
        (Lstm { width: 0, ..sound }, [2, 1], "no width"),
        (sound, [2, 2], "inputs of the forward direction has 24 values: expected 32"),
        (sound, [i64::MAX, i64::MAX], "inputs of the forward direction has 24 values"),
        (second(Direction { inputs: &inputs[1..], ..direction }), [2, 1], "inputs of the backward direction has 23"),
        (sound, [1, 1], "inputs of the forward direction has 24 values: expected 16"),
        (second(Direction { weight: &weight[1..], ..direction }), [2, 1], "weight of the backward direction has 15"),
        (second(Direction { bias: &bias[1..], ..direction }), [2, 1], "bias of the backward direction has 7"),
    ] {
        let message = wrong.apply(&lengths, 1, &NewThreads).unwrap_err().to_string();
        assert!(message.contains(told), "{message}");
    }
}
