//! The attention beside the formula, with the vectors of this machine and without.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use pulp::Scalar;

use super::*;
use crate::host::{Eager, NewThreads};

#[derive(Clone, Debug)]
struct Case {
    lengths: Vec<usize>,
    heads: usize,
    head_dim: usize,
    qkv: Vec<f32>,
    keys: Option<Vec<f32>>,
    queries: Option<Vec<f32>>,
    rows: usize,
    by_distance: Vec<i32>,
    /// Of each head and distance.
    biases: Option<Vec<f32>>,
    /// Of each place, half as many as a head has numbers.
    angles: Option<[Vec<f32>; 2]>,
    window: Option<usize>,
}

impl Case {
    fn layer(&self) -> Attention<'_, f32> {
        let &Self { ref qkv, heads, head_dim, rows, window, .. } = self;
        let (keys, queries) = (self.keys.as_deref(), self.queries.as_deref());
        let biases = self.biases.as_deref();
        let positions = Positions { keys, queries, rows, by_distance: &self.by_distance, biases };
        let rotations = self.angles.as_ref().map(|[cosines, sines]| Rotations { cosines, sines });
        Attention { qkv, heads, head_dim, positions, rotations, window, scale: 0.3 }
    }

    fn lengths(&self) -> Vec<i64> {
        self.lengths.iter().map(|&length| i64::try_from(length).unwrap()).collect()
    }

    /// (N, heads, d), by the kernel.
    fn found(&self, threads: usize, host: &impl Host) -> Vec<f32> {
        found(self.layer(), &self.lengths(), threads, host)
    }

    /// (N, heads, d), by the formula.
    fn expected(&self) -> Vec<f64> {
        let (heads, d) = (self.heads, self.head_dim);
        let vector = |at: usize, kind: usize, head: usize| &self.qkv[((at * 3 + kind) * heads + head) * d..][..d];
        let turned = |place: usize, vector: &[f32]| -> Vec<f32> {
            let Some([cosines, sines]) = &self.angles else { return vector.to_vec() };
            let (half, at) = (d / 2, |c: usize| place * (d / 2) + c % (d / 2));
            let twin = |c: usize| if c < half { -vector[c + half] } else { vector[c - half] };
            (0..d).map(|c| vector[c] * cosines[at(c)] + twin(c) * sines[at(c)]).collect()
        };
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let mut out = Vec::new();
        let mut first = 0;
        for &length in &self.lengths {
            for (i, head) in (0..length).flat_map(|i| (0..heads).map(move |head| (i, head))) {
                let row = |table: &'_ Option<Vec<f32>>, of: &[f32], j: usize| {
                    let at = self.by_distance[self.by_distance.len() / 2 + i - j];
                    let first = (head * self.rows + usize::try_from(at).unwrap()) * d;
                    table.as_ref().map_or(0.0, |table| dot(of, &table[first..first + d]))
                };
                let q = turned(i, vector(first + i, 0, head));
                let scores: Vec<f64> = (0..length)
                    .map(|j| {
                        let k = turned(j, vector(first + j, 1, head));
                        let is_seen = self.window.is_none_or(|window| i.abs_diff(j) <= window);
                        let distance = head * self.by_distance.len() + self.by_distance.len() / 2 + i - j;
                        let bias = self.biases.as_ref().map_or(0.0, |biases| f64::from(biases[distance]));
                        let score = 0.3 * dot(&q, &k) + row(&self.keys, &q, j) + row(&self.queries, &k, j) + bias;
                        if is_seen { score } else { f64::NEG_INFINITY }
                    })
                    .collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let sum: f64 = powers.iter().sum();
                out.extend((0..d).map(|at| {
                    let of = |(j, power): (usize, &f64)| power * f64::from(vector(first + j, 2, head)[at]);
                    powers.iter().enumerate().map(of).sum::<f64>() / sum
                }));
            }
            first += length;
        }
        out
    }
}

/// What a layer makes of texts, (N, heads, d).
fn found<N: Number>(layer: Attention<'_, N>, lengths: &[i64], threads: usize, host: &impl Host) -> Vec<N> {
    let subwords: usize = lengths.iter().map(|&length| usize::try_from(length).unwrap()).sum();
    let mut out = vec![N::round(f32::NAN); subwords * layer.heads * layer.head_dim];
    layer.apply(lengths, &mut out, threads, host).unwrap();
    out
}

fn cases() -> impl Strategy<Value = Case> {
    let lengths = vec(prop_oneof![4 => 0_usize..9, 2 => 40_usize..60, 1 => 90_usize..110], 0..4);
    // Heads in whole groups and others, widths that one panel holds and others.
    let heads = prop_oneof![4 => 1_usize..4, 1 => 4_usize..8];
    let head_dim = prop_oneof![4 => 1_usize..18, 1 => 33_usize..40];
    let window = option::of(prop_oneof![0_usize..4, 5_usize..120, Just(usize::MAX)]);
    (lengths, heads, head_dim, 1_usize..9, window).prop_flat_map(|(lengths, heads, head_dim, rows, window)| {
        let number = -2.0_f32..2.0;
        let subwords = lengths.iter().sum::<usize>();
        let farthest = lengths.iter().max().copied().unwrap_or_default() + 2;
        let table = || option::of(vec(-1.0_f32..1.0, heads * rows * head_dim));
        let by_distance = vec(0..i32::try_from(rows).unwrap(), 2 * farthest - 1);
        let biases = option::of(vec(-2.0_f32..2.0, heads * (2 * farthest - 1)));
        // Of the places of the longest text and two more; not where a head has no halves.
        let angles = option::of(vec(0.0_f32..6.0, farthest * (head_dim / 2)));
        (vec(number, subwords * 3 * heads * head_dim), table(), table(), by_distance, biases, angles).prop_map(
            move |(qkv, keys, queries, by_distance, biases, angles)| {
                let lengths = lengths.clone();
                let angles = angles.filter(|_| head_dim % 2 == 0);
                let angles =
                    angles.map(|angles| [f32::cos, f32::sin].map(|of| angles.iter().copied().map(of).collect()));
                Case { lengths, heads, head_dim, qkv, keys, queries, rows, by_distance, biases, angles, window }
            },
        )
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
    fn numbers_are_those_of_the_formula(case in cases(), threads in 1_usize..5) {
        assert_near(&case.found(threads, &Eager), &case.expected());
    }

    #[test]
    fn a_text_depends_on_itself_alone(case in cases(), threads in 1_usize..5) {
        let together = case.found(threads, &Eager);
        let width = case.heads * case.head_dim;
        let mut first = 0;
        for length in case.lengths() {
            let end = first + usize::try_from(length).unwrap();
            let layer = Attention { qkv: &case.qkv[first * 3 * width..end * 3 * width], ..case.layer() };
            let alone = found(layer, &[length], 1, &NewThreads);
            prop_assert_eq!(&together[first * width..end * width], alone);
            first = end;
        }
    }

    #[test]
    fn bf16_is_computed_in_float32_and_rounded(case in cases(), threads in 1_usize..5) {
        let bits: Vec<_> = case.qkv.iter().copied().map(u16::round).collect();
        let Attention { heads, head_dim, positions, rotations, window, scale, .. } = case.layer();
        let layer = Attention { qkv: &bits, heads, head_dim, positions, rotations, window, scale };
        let bf16 = found(layer, &case.lengths(), threads, &Eager);
        let case = Case { qkv: bits.into_iter().map(Number::widen).collect(), ..case };
        let rounded: Vec<_> = case.found(threads, &Eager).into_iter().map(u16::round).collect();
        prop_assert_eq!(bf16, rounded);
    }

    #[test]
    fn without_vectors_too(case in cases()) {
        let width = case.heads * case.head_dim;
        let length = case.lengths.first().copied().unwrap_or_default();
        let case = Case { qkv: case.qkv[..length * 3 * width].to_vec(), lengths: vec![length], ..case };
        let (layer, expected) = (case.layer(), case.expected());
        let mut out = vec![0.0; length * width];
        let positions: Vec<_> = (0..case.heads).map(|_| OnceLock::new()).collect();
        if length > 0 {
            let rows = out.chunks_mut(width).collect();
            let piece = Piece { heads: 0..case.heads, first: 0, length, queries: 0..length, out: rows };
            let pieces = Pieces::from_iter([piece]);
            Worker { layer: &layer, pieces: &pieces, positions: &positions, longest: length }.with_simd(Scalar::new());
        }
        assert_near(&out, &expected);
    }
}

#[test]
fn a_nan_stays_in_its_text_and_head() {
    let mut qkv = vec![0.5; 5 * 3 * 2 * 4];
    qkv[0] = f32::NAN; // of the first query of the first head
    let positions = Positions { keys: None, queries: None, rows: 0, by_distance: &[], biases: None };
    let layer = Attention { qkv: &qkv, heads: 2, head_dim: 4, positions, rotations: None, window: None, scale: 1.0 };
    for (at, number) in found(layer, &[3, 2], 1, &NewThreads).into_iter().enumerate() {
        assert_eq!(number.is_nan(), at < 4, "{at}");
    }
}

#[test]
fn a_long_text_is_shared_by_many_threads() {
    let number = |at: usize| f32::from(u16::try_from(at * 7 % 101).unwrap()) * 0.02 - 1.0;
    let (qkv, table): (Vec<_>, Vec<_>) =
        ((0..500 * 3 * 2 * 8).map(number).collect(), (0..2 * 9 * 8).map(number).collect());
    let by_distance: Vec<_> = (0..999).map(|at| at % 9).collect();
    let positions =
        Positions { keys: Some(&table), queries: Some(&table), rows: 9, by_distance: &by_distance, biases: None };
    for window in [None, Some(70)] {
        let layer = Attention { qkv: &qkv, heads: 2, head_dim: 8, positions, rotations: None, window, scale: 0.3 };
        let alone = found(layer, &[500], 1, &NewThreads);
        for threads in [2, 3, 40] {
            assert_eq!(found(layer, &[500], threads, &Eager), alone);
        }
    }
}

#[test]
fn more_values_than_are_summed_at_once_are_summed() {
    let length = 2 * VALUES + 9;
    let number = |at: usize| f32::from(u16::try_from(at * 37 % 1_009).unwrap()) * 0.002 - 1.0;
    for window in [None, Some(VALUES - 7), Some(VALUES + 20)] {
        let case = Case {
            lengths: vec![length],
            heads: 2,
            head_dim: 5,
            qkv: (0..length * 3 * 2 * 5).map(number).collect(),
            keys: None,
            queries: None,
            rows: 0,
            by_distance: vec![0; 2 * length - 1],
            biases: None,
            angles: None,
            window,
        };
        assert_near(&case.found(1, &NewThreads), &case.expected());
    }
}

#[test]
fn thousands_of_values_that_are_alike_keep_their_digits() {
    let (length, value) = (4_000, 0.1_f32);
    let qkv: Vec<_> = (0..length).flat_map(|_| [0.0, 0.0, value]).collect();
    let positions = Positions { keys: None, queries: None, rows: 0, by_distance: &[], biases: None };
    let layer = Attention { qkv: &qkv, heads: 1, head_dim: 1, positions, rotations: None, window: None, scale: 1.0 };
    for number in found(layer, &[4_000], 1, &NewThreads) {
        assert!((number - value).abs() < 5e-6 * value, "{number}");
    }
}

#[test]
fn nothing_of_any_shape_is_nothing() {
    let positions = Positions { keys: None, queries: None, rows: 0, by_distance: &[], biases: None };
    let (heads, head_dim) = (usize::MAX, usize::MAX);
    let layer = Attention::<f32> {
        qkv: &[],
        heads,
        head_dim,
        positions,
        rotations: None,
        window: Some(usize::MAX),
        scale: 1.0,
    };
    assert!(layer.apply(&[0, 0], &mut [], 2, &Eager).is_ok());
    assert!(layer.apply(&[1], &mut [], 2, &Eager).is_err());
}

#[test]
fn what_does_not_fit_is_told() {
    let (qkv, table, by_distance) = ([1.0; 24], [1.0; 12], [0, 1, 2]);
    let positions = Positions {
        keys: Some(&table),
        queries: Some(&table),
        rows: 3,
        by_distance: &by_distance,
        biases: Some(&table[..6]),
    };
    let rotations = Some(Rotations { cosines: &[1.0; 2], sines: &[0.0; 2] });
    let sound = Attention { qkv: &qkv, heads: 2, head_dim: 2, positions, rotations, window: None, scale: 1.0 };
    let mut out = [0.0; 8];
    assert!(sound.apply(&[2, 0], &mut out, 1, &NewThreads).is_ok());
    let message = sound.apply(&[2, 0], &mut out[1..], 1, &NewThreads).unwrap_err().to_string();
    assert!(message.contains("out has 7 values: expected 8"), "{message}");
    let with = |positions| Attention { positions, ..sound };
    let turned = |cosines, sines| Attention { rotations: Some(Rotations { cosines, sines }), ..sound };
    for (wrong, lengths, told) in [
        (sound, [-1, 3], "lengths[0] is -1"),
        (sound, [1, 2], "qkv has 24 values: expected 36"),
        (sound, [1, 0], "qkv has 24 values: expected 12"),
        (Attention { heads: 0, ..sound }, [1, 1], "no heads"),
        (with(Positions { keys: Some(&table[1..]), ..positions }), [2, 0], "keys has 11 values: expected 12"),
        (with(Positions { queries: Some(&table[1..]), ..positions }), [2, 0], "queries has 11 values: expected 12"),
        (with(Positions { rows: 2, ..positions }), [2, 0], "keys has 12 values: expected 8"),
        (with(Positions { keys: None, rows: 2, ..positions }), [2, 0], "queries has 12 values: expected 8"),
        (with(Positions { by_distance: &[0], biases: None, ..positions }), [2, 0], "at least 3 for a text of 2"),
        (with(Positions { by_distance: &[0; 4], biases: None, ..positions }), [2, 0], "an odd number"),
        (with(Positions { biases: Some(&table[..5]), ..positions }), [2, 0], "biases has 5 values: expected 6"),
        (with(Positions { biases: Some(&table[..7]), ..positions }), [2, 0], "biases has 7 values: expected 6"),
        (
            with(Positions { keys: None, by_distance: &[0], biases: None, ..positions }),
            [2, 0],
            "at least 3 for a text of 2",
        ),
        (
            with(Positions { keys: None, queries: None, rows: 0, by_distance: &[0], biases: Some(&table[..2]) }),
            [2, 0],
            "at least 3 for a text of 2",
        ),
        (with(Positions { queries: None, by_distance: &[0, 3, 0], ..positions }), [2, 0], "by_distance[1] is 3"),
        (with(Positions { keys: None, by_distance: &[0, 3, 0], ..positions }), [2, 0], "by_distance[1] is 3"),
        (with(Positions { by_distance: &[0, 0, -1], ..positions }), [2, 0], "by_distance[2] is -1"),
        (turned(&[1.0], &[1.0]), [2, 0], "cosines has 1 values: expected 1 for each place, at least 2 places"),
        (turned(&[1.0; 2], &[1.0; 3]), [2, 0], "sines has 3 values: expected 1 for each place, at least 2 places"),
        (
            Attention {
                heads: 1,
                head_dim: 4,
                positions: Positions { keys: None, queries: None, biases: None, ..positions },
                rotations: Some(Rotations { cosines: &[1.0; 5], sines: &[0.0; 5] }),
                ..sound
            },
            [2, 0],
            "cosines has 5 values: expected 2 for each place, at least 2 places",
        ),
        (
            Attention {
                heads: 4,
                head_dim: 1,
                positions: Positions { keys: None, queries: None, biases: None, ..positions },
                ..sound
            },
            [2, 0],
            "heads of 1 numbers cannot be turned",
        ),
    ] {
        let message = wrong.apply(&lengths, &mut out, 1, &NewThreads).unwrap_err().to_string();
        assert!(message.contains(told), "{message}");
    }
}
