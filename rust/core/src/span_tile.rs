//! The innermost sums of the span scores: a few spans with one start, a few entity types, some numbers of their rows.

#![expect(clippy::inline_always, reason = "vector instructions are there only in what is inlined into pulp's dispatch")]

use pulp::Simd;

use crate::vectors::at_least;

/// The rows that a tile reads, all of one length.
pub(crate) struct Tile<'a, V, G> {
    /// The start word's.
    pub(crate) u: &'a [f32],
    /// By span: the end word's.
    pub(crate) v: V,
    /// By entity type: the type's.
    pub(crate) g: G,
    /// From a span's sums to the next span's.
    pub(crate) stride: usize,
}

/// Most types of a tile.
const TYPES: usize = 5;

/// Types of the tile that begins at a type: as many in each tile of a text as in the others, or one more.
pub(crate) fn types_of_tile(types: usize, first: usize) -> usize {
    let left = types - first;
    left.div_ceil(left.div_ceil(TYPES))
}

/// Most spans of a tile: 6 to 10 sums, enough to hide how long an addition takes, few enough for 16 registers.
pub(crate) fn spans_of_tile(types: usize) -> usize {
    match types {
        1 => 6,
        2 => 4,
        3 => 3,
        _ => 2,
    }
}

/// Adds the products of a tile to `sums`, (spans, types), spans `tile.stride` apart.
#[inline(always)]
pub(crate) fn add_tile<'a, S, V, G>(simd: S, tile: &Tile<'a, V, G>, spans: usize, types: usize, sums: &mut [S::f32s])
where
    S: Simd,
    V: Fn(usize) -> &'a [f32],
    G: Fn(usize) -> &'a [f32],
{
    macro_rules! shapes {
        ($(($spans:literal, $types:literal)),*) => {
            match (spans, types) {
                $(($spans, $types) => add_shape::<S, V, G, $spans, $types>(simd, tile, sums),)*
                _ => unreachable!("spans_of_tile and types_of_tile give no other shape"),
            }
        };
    }
    shapes!(
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 1),
        (5, 1),
        (6, 1), //
        (1, 2),
        (2, 2),
        (3, 2),
        (4, 2), //
        (1, 3),
        (2, 3),
        (3, 3), //
        (1, 4),
        (2, 4), //
        (1, 5),
        (2, 5)
    );
}

#[inline(always)]
fn add_shape<'a, S, V, G, const SPANS: usize, const TYPES: usize>(simd: S, tile: &Tile<'a, V, G>, sums: &mut [S::f32s])
where
    S: Simd,
    V: Fn(usize) -> &'a [f32],
    G: Fn(usize) -> &'a [f32],
{
    let (u, u_rest) = S::as_simd_f32s(tile.u);
    let (steps, zero) = (u.len(), simd.splat_f32s(0.0));
    let v = std::array::from_fn::<_, SPANS, _>(|span| S::as_simd_f32s((tile.v)(span)));
    let g = std::array::from_fn::<_, TYPES, _>(|own| S::as_simd_f32s((tile.g)(own)));
    // Slices of one known length each: no index below needs a check.
    let (v, v_rest) = (v.map(|(whole, _)| &whole[..steps]), v.map(|(_, rest)| rest));
    let (g, g_rest) = (g.map(|(whole, _)| &whole[..steps]), g.map(|(_, rest)| rest));
    let mut own: [[S::f32s; TYPES]; SPANS] =
        std::array::from_fn(|span| std::array::from_fn(|type_| sums[span * tile.stride + type_]));
    for at in 0..steps {
        let spans = v.map(|v| at_least(simd, zero, simd.add_f32s(u[at], v[at])));
        for type_ in 0..TYPES {
            let g = g[type_][at];
            for span in 0..SPANS {
                own[span][type_] = simd.mul_add_e_f32s(spans[span], g, own[span][type_]);
            }
        }
    }
    if !u_rest.is_empty() {
        let u = simd.partial_load_f32s(u_rest);
        let spans = v_rest.map(|v| at_least(simd, zero, simd.add_f32s(u, simd.partial_load_f32s(v))));
        for type_ in 0..TYPES {
            let g = simd.partial_load_f32s(g_rest[type_]);
            for span in 0..SPANS {
                own[span][type_] = simd.mul_add_e_f32s(spans[span], g, own[span][type_]);
            }
        }
    }
    for (span, own) in own.into_iter().enumerate() {
        sums[span * tile.stride..span * tile.stride + TYPES].copy_from_slice(&own);
    }
}
