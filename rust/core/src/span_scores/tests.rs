//! The kernel beside the formula, with the vectors of this machine and without.

use proptest::collection::vec;
use proptest::prelude::*;
use pulp::Scalar;

use super::*;
use crate::host::NewThreads;

#[derive(Debug)]
struct Case {
    words: Vec<usize>,
    classes: Vec<usize>,
    max_width: usize,
    hidden: usize,
    rows: [Vec<f32>; 4],
}

impl Case {
    fn factors(&self) -> Factors<'_> {
        let [u, v, g, c] = &self.rows;
        Factors { u, v, g, c, hidden: self.hidden }
    }

    fn find(&self, bounds: &[f32], threads: usize) -> ScoredSpans {
        let (words, classes) = (self.words.clone(), self.classes.clone());
        let shape = Shape { words, classes, width: self.max_width };
        find_reaching(self.factors(), &shape, bounds, threads, &NewThreads)
    }

    /// Text, start, end, class and logit of every span, by the formula.
    fn all(&self) -> Vec<(usize, usize, usize, usize, f64)> {
        let [u, v, g, c] = &self.rows;
        let row = |of: &[f32], row: usize| {
            of[row * self.hidden..(row + 1) * self.hidden].iter().map(|&x| f64::from(x)).collect::<Vec<_>>()
        };
        let mut all = Vec::new();
        let (mut word, mut type_) = (0, 0);
        for (text, (&words, &classes)) in self.words.iter().zip(&self.classes).enumerate() {
            for start in 0..words {
                for end in start + 1..=words.min(start + self.max_width) {
                    let (u, v) = (row(u, word + start), row(v, word + end - 1));
                    for class in 0..classes {
                        let g = row(g, type_ + class);
                        let products = u.iter().zip(&v).zip(&g).map(|((u, v), g)| {
                            let sum = u + v;
                            if sum < 0.0 { 0.0 * g } else { sum * g } // NaN stays NaN
                        });
                        let logit = products.sum::<f64>() + f64::from(c[type_ + class]);
                        all.push((text, start, end, class, logit));
                    }
                }
            }
            word += words;
            type_ += classes;
        }
        all
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let classes = prop_oneof![40 => 0_usize..8, 1 => TYPES - 1..TYPES + 2, 1 => 2 * TYPES..2 * TYPES + 2];
    (vec((0_usize..STARTS + 4, classes), 0..4), 1_usize..14, 1_usize..20).prop_flat_map(|(texts, max_width, hidden)| {
        let (words, classes): (Vec<_>, Vec<_>) = texts.into_iter().unzip();
        let (all_words, all_classes) = (words.iter().sum::<usize>(), classes.iter().sum::<usize>());
        let number = prop_oneof![30 => -2.0_f32..2.0, 1 => Just(f32::NAN)];
        let rows = move |rows: usize| vec(number.clone(), rows * hidden);
        let c = vec(-2.0_f32..2.0, all_classes);
        (rows.clone()(all_words), rows.clone()(all_words), rows(all_classes), c).prop_map(move |(u, v, g, c)| Case {
            words: words.clone(),
            classes: classes.clone(),
            max_width,
            hidden,
            rows: [u, v, g, c],
        })
    })
}

proptest! {
    #[test]
    fn logits_are_those_of_the_formula(case in cases()) {
        let bounds = vec![f32::NEG_INFINITY; case.rows[3].len()];
        let found = case.find(&bounds, 1);
        let expected: Vec<_> = case.all().into_iter().filter(|span| !span.4.is_nan()).collect();
        prop_assert_eq!(found.starts.len(), expected.len());
        let texts = (0..case.words.len()).flat_map(|text| vec![text; found.text_offsets.range(text).len()]);
        for (at, (text, (own, start, end, class, logit))) in texts.zip(expected).enumerate() {
            prop_assert_eq!((text, found.starts[at], found.ends[at], found.classes[at]), (own, start, end, class));
            prop_assert!((f64::from(found.scores[at]) - logit).abs() < 1e-3);
        }
    }

    #[test]
    fn without_vectors_the_same_is_found(case in cases()) {
        let bounds = vec![f32::NEG_INFINITY; case.rows[3].len()];
        let batch = Batch { factors: case.factors(), bounds: &bounds, max_width: case.max_width };
        let pieces = cut(&case.words, &case.classes, case.max_width);
        let next = AtomicUsize::new(0);
        let scalar = Worker { batch: &batch, pieces: &pieces, next: &next }.with_simd(Scalar);
        let scalar: Vec<_> = scalar.into_iter().flat_map(|own| own.hits).collect();
        let found = case.find(&bounds, 1);
        prop_assert_eq!(scalar.len(), found.scores.len());
        for (at, hit) in scalar.into_iter().enumerate() {
            prop_assert_eq!((hit.start, hit.end, hit.class), (found.starts[at], found.ends[at], found.classes[at]));
            prop_assert!((hit.logit - found.scores[at]).abs() < 1e-3);
        }
    }

    #[test]
    fn a_bound_is_reached_by_what_is_not_below_it(case in cases(), bound in -3.0_f32..3.0, exactly in any::<bool>()) {
        let all = case.find(&vec![f32::NEG_INFINITY; case.rows[3].len()], 1);
        let bound = if exactly { all.scores.first().copied().unwrap_or(bound) } else { bound };
        let found = case.find(&vec![bound; case.rows[3].len()], 1);
        let expected: Vec<_> = all.scores.into_iter().filter(|&logit| logit >= bound).collect();
        prop_assert_eq!(found.scores, expected);
        prop_assert!(case.find(&vec![f32::NAN; case.rows[3].len()], 1).scores.is_empty());
    }
}

#[test]
fn a_type_scores_the_same_whatever_types_are_beside_it() {
    let (words, types, hidden) = (20, 2 * TYPES + 7, 300);
    let value = |at: usize| (f32::from(u16::try_from(at % 10_007).unwrap()) * 0.7).sin();
    let rows = |rows: usize| (0..rows * hidden).map(value).collect::<Vec<_>>();
    let (u, g, c) = (rows(words), rows(types), rows(types)[..types].to_vec());
    let of = |types: Range<usize>| {
        let rows =
            [u.clone(), u.clone(), g[types.start * hidden..types.end * hidden].to_vec(), c[types.clone()].to_vec()];
        let case = Case { words: vec![words], classes: vec![types.len()], max_width: 12, hidden, rows };
        case.find(&vec![f32::NEG_INFINITY; types.len()], 1)
    };
    let all = of(0..types);
    for type_ in [0, 1, TYPES - 1, TYPES, TYPES + 1, types - 1] {
        let alone = of(type_..type_ + 1);
        let beside = all.classes.iter().zip(&all.scores).filter(|&(&class, _)| class == type_);
        assert_eq!(alone.scores, beside.map(|(_, &score)| score).collect::<Vec<_>>());
    }
    for all in [all, of(0..TYPES + 1)] {
        let places = || all.starts.iter().zip(&all.ends).zip(&all.classes);
        assert!(places().zip(places().skip(1)).all(|(one, next)| one < next));
    }
}

#[test]
fn lengths_that_do_not_fit_are_errors() {
    let numbers = [1.0; 5];
    let sound = Factors { u: &numbers[..4], v: &numbers[..4], g: &numbers[..2], c: &numbers[..1], hidden: 2 };
    let find = |factors| find_spans(factors, &[2], &[1], 3, &[0.5], 1, &NewThreads);
    assert!(find(sound).is_ok());
    assert_eq!(find(Factors { hidden: 0, ..sound }), Err(CandidateError::Hidden));
    for values in [3, 5] {
        let own = &numbers[..values];
        for (factors, name, expected) in [
            (Factors { u: own, ..sound }, "u", 4),
            (Factors { v: own, ..sound }, "v", 4),
            (Factors { g: own, ..sound }, "g", 2),
            (Factors { c: own, ..sound }, "c", 1),
        ] {
            assert_eq!(find(factors), Err(CandidateError::Factor { name, values, expected }));
        }
    }
}

#[test]
fn threads_change_nothing() {
    let (words, classes, hidden) = (vec![260, 0, 1, 300], vec![60, 3, 2, 7], 512); // work for three threads
    let value = |at: usize| (f32::from(u16::try_from(at % 10_007).unwrap()) * 0.7).sin();
    let rows = |rows: usize| (0..rows * hidden).map(value).collect::<Vec<_>>();
    let case = Case { rows: [rows(561), rows(561), rows(72), vec![0.0; 72]], words, classes, max_width: 12, hidden };
    let one = case.find(&[0.5; 72], 1);
    assert!(one.scores.len() > 1000);
    assert_eq!(one, case.find(&[0.5; 72], 3));
}
