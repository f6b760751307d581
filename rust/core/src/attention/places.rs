//! What an attention knows of places in a text, and of their distances.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::Simd;

use crate::number::Number;
use crate::panels::Panels;

/// What a layer knows of distances, scaled as the scores are.
#[derive(Clone, Copy, Debug)]
pub struct Positions<'a> {
    /// (heads, `rows`, d), what queries are multiplied with; none without content-to-position scores.
    pub keys: Option<&'a [f32]>,
    /// (heads, `rows`, d), what keys are multiplied with; none without position-to-content scores.
    pub queries: Option<&'a [f32]>,
    /// Rows of each head in both.
    pub rows: usize,
    /// The row of the distances `-(M - 1)..M`, (2M - 1,); M is at least the longest text.
    pub by_distance: &'a [i32],
    /// (heads, 2M - 1), what is added to the scores at these distances; none for nothing.
    pub biases: Option<&'a [f32]>,
}

impl Positions<'_> {
    /// The row of a table, of vectors of `d` numbers, for the distance `place - (longest - 1)`.
    #[inline(always)]
    fn row<'t>(&self, table: &'t [f32], d: usize, head: usize, longest: usize, place: usize) -> &'t [f32] {
        let at = self.by_distance.len() / 2 + place - (longest - 1);
        let row = usize::try_from(self.by_distance[at]).unwrap_or_default(); // negative ones have been refused
        &table[(head * self.rows + row) * d..][..d]
    }

    /// What is added at the distances from `longest - 1` down to the opposite, as a row of scores meets them.
    fn biases_of(&self, head: usize, longest: usize) -> Vec<f32> {
        let Some(biases) = self.biases else { return Vec::new() };
        let reach = self.by_distance.len() / 2 + 1 - longest; // farther than the longest text
        let own = &biases[head * self.by_distance.len()..][..self.by_distance.len()];
        own[reach..own.len() - reach].iter().rev().copied().collect()
    }
}

/// By which angles queries and keys are turned, for each place in a text (Su et al. 2021): the number at c of a vector's
/// first half and its twin of the second are a point in a plane.
#[derive(Clone, Copy, Debug)]
pub struct Rotations<'a> {
    /// (places, d / 2); as many places as the longest text has subwords, or more.
    pub cosines: &'a [f32],
    /// The same of the sines.
    pub sines: &'a [f32],
}

impl Rotations<'_> {
    /// Turns a vector by the angles of a place.
    #[inline(always)]
    pub(super) fn turn(&self, place: usize, from: &[impl Number], to: &mut [f32]) {
        let half = from.len() / 2;
        let [cosines, sines] = [self.cosines, self.sines].map(|angles| &angles[place * half..][..half]);
        let ((first, second), (to_first, to_second)) = (from.split_at(half), to.split_at_mut(half));
        let (first, second) = (&first[..half], &second[..half]);
        let (to_first, to_second) = (&mut to_first[..half], &mut to_second[..half]);
        for at in 0..half {
            let (x, y) = (first[at].widen(), second[at].widen());
            to_first[at] = x * cosines[at] - y * sines[at];
            to_second[at] = y * cosines[at] + x * sines[at];
        }
    }
}

/// One head's vectors of all distances that the longest text has, M - 1 in both directions.
///
/// Column x is the distance M - 1 - x for the keys, which a row of scores meets from left to right; for the queries x -
/// (M - 1), which a column of scores meets from top to bottom. Biases go with the keys.
#[derive(Default)]
pub(super) struct PositionPanels {
    pub(super) keys: Panels,
    pub(super) queries: Panels,
    pub(super) biases: Vec<f32>,
}

impl PositionPanels {
    #[inline(always)]
    pub(super) fn of<S: Simd>(simd: S, positions: &Positions<'_>, d: usize, head: usize, longest: usize) -> Self {
        let mut made = Self { biases: positions.biases_of(head, longest), ..Self::default() };
        let distances = 2 * longest - 1;
        if let Some(table) = positions.keys {
            let row = |x| positions.row(table, d, head, longest, distances - 1 - x);
            made.keys.fill_columns(simd, d, distances, row);
        }
        if let Some(table) = positions.queries {
            made.queries.fill_columns(simd, d, distances, |x| positions.row(table, d, head, longest, x));
        }
        made
    }
}
