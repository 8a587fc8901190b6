//! One head's attention in bfloat16, with AVX-512's products of bfloat16 pairs.
//!
//! Keys are taken in blocks: of all scores only those of some queries with one block are ever held, and when a greater score is met
//! what was summed before is scaled down. Products are those of bfloat16 values, sums are `f32`; shares are rounded to bfloat16 before
//! they weigh the values, as libtorch does it.
//!
//! Source: FlashAttention (<https://arxiv.org/abs/2205.14135>), algorithm 1, with a range of queries inside and keys outside.

use std::arch::x86_64::{
    __m256i, __m512, __m512bh, __m512i, _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16, _mm512_add_ps,
    _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_mask_max_ps, _mm512_maskz_mov_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_sub_ps,
};
use std::f32::consts::LOG2_E;

use crate::nn::avx512::{LANES, as_pairs, exp2, rounded};

/// Rows and vectors of a tile of sums: with four vectors of factors and a broadcast they need 29 of 32 registers.
const ROWS: usize = 6;
const VECTORS: usize = 4;
/// Queries whose scores are held at once.
pub(super) const QUERIES: usize = 4 * ROWS;
/// Keys of a tile.
const TILE: usize = VECTORS * LANES;
/// Bytes of a block's keys, and of its values: both lie in a second-level cache, beside the sums.
const BLOCK_BYTES: usize = 128 << 10;
/// Bytes of the sums of a range of queries.
const SUM_BYTES: usize = 384 << 10;

/// Rows of bfloat16 values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [u16],
    /// From a row to the next.
    pub(super) stride: usize,
    pub(super) count: usize,
}

impl<'a> Rows<'a> {
    fn row(&self, at: usize, dim: usize) -> &'a [u16] {
        &self.values[at * self.stride..][..dim]
    }
}

/// One head of one picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) q: Rows<'a>,
    pub(super) k: Rows<'a>,
    pub(super) v: Rows<'a>,
    /// What each query's scores have added, for all keys.
    pub(super) bias: Option<Rows<'a>>,
}

/// Where a head's answers go: rows of bfloat16 values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    start: *mut u16,
    /// From a row to the next.
    stride: usize,
}

impl Answers {
    /// # Safety
    /// For as long as this is used a row of a query's width lies there for every query.
    pub(super) unsafe fn new(start: *mut u16, stride: usize) -> Self {
        Self { start, stride }
    }

    /// The first `count` values, or 16, from `column` on.
    ///
    /// # Safety
    /// The row has so many, and nobody else writes them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    #[inline]
    unsafe fn write(&self, row: usize, column: usize, count: usize, values: __m256i) {
        // SAFETY: lanes past `count` are not written.
        unsafe {
            let to = self.start.add(row * self.stride + column);
            _mm256_mask_storeu_epi16(to.cast(), first_lanes(count), values);
        }
    }
}

/// Sizes that follow of a head's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Values of a row, even.
    dim: usize,
    /// Vectors of a row of sums.
    width: usize,
    /// Keys of a block, a multiple of `TILE`.
    block: usize,
    /// Queries of a range, at most.
    pub(super) range: usize,
}

impl Plan {
    /// For `queries` and `keys` with rows of `dim` values, an even number.
    pub(super) fn new(dim: usize, queries: usize, keys: usize) -> Self {
        let width = dim.div_ceil(LANES);
        let most = (BLOCK_BYTES / (2 * dim) / TILE).clamp(1, 8) * TILE;
        let block = most.min(keys.next_multiple_of(TILE));
        let most = (SUM_BYTES / (4 * LANES * width) / QUERIES).max(1) * QUERIES;
        let range = most.min(queries.next_multiple_of(QUERIES));
        Self { dim, width, block, range }
    }
}

/// What one thread works in.
pub(super) struct Scratch {
    plan: Plan,
    /// Of a few queries: values in pairs.
    queries: Vec<u32>,
    /// Of a block: tiles of 64 keys, in each for every pair of values those of all keys.
    keys: Vec<__m512i>,
    /// Of a block: for every pair of keys its values side by side.
    values: Vec<__m512i>,
    /// Of a few queries with a block.
    scores: Vec<__m512>,
    /// The same as bfloat16, in pairs of keys.
    shares: Vec<u32>,
    /// Of a range of queries.
    sums: Vec<__m512>,
    /// Of a range of queries: the greatest score, scaled, and the sum of all shares.
    state: Vec<(f32, f32)>,
}

impl Scratch {
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(plan: Plan) -> Self {
        let Plan { dim, width, block, range } = plan;
        Self {
            plan,
            queries: vec![0; QUERIES * dim / 2],
            keys: vec![_mm512_setzero_si512(); block / LANES * dim / 2],
            values: vec![_mm512_setzero_si512(); block / 2 * width],
            scores: vec![_mm512_setzero_ps(); QUERIES * block / LANES],
            shares: vec![0; QUERIES * block / 2],
            sums: vec![_mm512_setzero_ps(); range * width],
            state: vec![(0.0, 0.0); range],
        }
    }
}

/// Attention of `count` queries from `first` on, at most [`Plan::range`].
///
/// # Safety
/// Nobody else writes the answers of these queries.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn attend(
    head: &Head<'_>,
    first: usize,
    count: usize,
    scratch: &mut Scratch,
    out: &Answers,
) {
    let Scratch { plan, queries, keys, values, scores, shares, sums, state } = scratch;
    let Plan { dim, width, block, .. } = *plan;
    let root = (dim as f32).sqrt();
    let (pairs, row, scale) = (dim / 2, block / LANES, LOG2_E / root);
    sums[..count * width].fill(_mm512_setzero_ps());
    state[..count].fill((f32::NEG_INFINITY, 0.0));
    for from in (0..head.k.count).step_by(block) {
        let here = block.min(head.k.count - from);
        pack_keys(&head.k, from, here, dim, keys);
        pack_values(&head.v, from, here, plan, values);
        let (vectors, of_keys) = (here.div_ceil(LANES), here.div_ceil(2));
        for at in (0..count).step_by(QUERIES) {
            let asking = QUERIES.min(count - at);
            copy_queries(&head.q, first + at, asking, dim, queries);
            for r in (0..asking).step_by(ROWS) {
                let a = std::array::from_fn(|i| &queries[(r + i) * pairs..][..pairs]);
                let scores = &mut scores[r * row..];
                for (tile, b) in
                    keys.chunks_exact(VECTORS * pairs).enumerate().take(vectors.div_ceil(VECTORS))
                {
                    products(
                        &a,
                        b,
                        VECTORS,
                        vectors - tile * VECTORS,
                        &mut scores[tile * VECTORS..],
                        row,
                        false,
                    );
                }
            }
            for r in 0..asking {
                let scores = &mut scores[r * row..][..vectors];
                if let Some(bias) = &head.bias {
                    // Scores are multiplied by the scale after it.
                    add_bias(scores, &bias.row(first + at + r, head.k.count)[from..][..here], root);
                }
                let shares = &mut shares[r * block / 2..][..block / 2];
                soften(
                    scores,
                    here,
                    scale,
                    &mut state[at + r],
                    &mut sums[(at + r) * width..][..width],
                    shares,
                );
            }
            for r in (0..asking).step_by(ROWS) {
                let a = std::array::from_fn(|i| &shares[(r + i) * block / 2..][..of_keys]);
                let sums = &mut sums[(at + r) * width..];
                for column in (0..width).step_by(VECTORS) {
                    products(&a, &values[column..], width, width - column, &mut sums[column..], width, true);
                }
            }
        }
    }
    for (r, (_, total)) in state.iter().enumerate().take(count) {
        let share = _mm512_set1_ps(1.0 / total);
        for (column, sum) in sums[r * width..][..width].iter().enumerate() {
            let values = rounded(_mm512_mul_ps(*sum, share));
            // SAFETY: this is one of the queries, and the row goes on to `dim`.
            unsafe { out.write(first + r, column * LANES, dim - column * LANES, values) };
        }
    }
}

/// `c [6, 16 vectors] = a [6, pairs] b [pairs, 16 vectors]`, or added to `c`; of four vectors at most. A product of pairs is the sum of
/// two. Rows of `b` and `c` are `ldb` and `ldc` vectors apart.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn products(
    a: &[&[u32]; ROWS],
    b: &[__m512i],
    ldb: usize,
    vectors: usize,
    c: &mut [__m512],
    ldc: usize,
    add: bool,
) {
    match vectors {
        1 => tile::<1>(a, b, ldb, c, ldc, add),
        2 => tile::<2>(a, b, ldb, c, ldc, add),
        3 => tile::<3>(a, b, ldb, c, ldc, add),
        _ => tile::<VECTORS>(a, b, ldb, c, ldc, add),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn tile<const N: usize>(
    a: &[&[u32]; ROWS],
    b: &[__m512i],
    ldb: usize,
    c: &mut [__m512],
    ldc: usize,
    add: bool,
) {
    let mut sums = [[_mm512_setzero_ps(); N]; ROWS];
    if add {
        for (r, sums) in sums.iter_mut().enumerate() {
            sums.copy_from_slice(&c[r * ldc..][..N]);
        }
    }
    let pairs = a[0].len();
    assert!(a.iter().all(|row| row.len() == pairs) && (pairs == 0 || b.len() >= (pairs - 1) * ldb + N));
    for p in 0..pairs {
        // SAFETY: `p` lies inside, see above; if that is asked for every pair, a tile takes a tenth longer.
        let b = unsafe { &*b.as_ptr().add(p * ldb).cast::<[__m512i; N]>() };
        for (row, sums) in a.iter().zip(&mut sums) {
            // SAFETY: as above.
            let pair = unsafe { *row.get_unchecked(p) };
            let pair = as_pairs(_mm512_set1_epi32(pair.cast_signed()));
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = _mm512_dpbf16_ps(*sum, pair, as_pairs(*b));
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        c[r * ldc..][..N].copy_from_slice(sums);
    }
}

/// Adds `times` the bias of each key to its score.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn add_bias(scores: &mut [__m512], bias: &[u16], times: f32) {
    let times = _mm512_set1_ps(times);
    for (scores, bias) in scores.iter_mut().zip(bias.chunks(LANES)) {
        // A bfloat16 is the upper half of an `f32`.
        let bias = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(sixteen(bias)));
        *scores = _mm512_fmadd_ps(bias, times, *scores);
    }
}

/// Scores of a query with a block's `count` keys to shares, in powers of two: none is greater than one. They still have to be divided by
/// their sum.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn soften(
    scores: &[__m512],
    count: usize,
    scale: f32,
    (greatest, total): &mut (f32, f32),
    sums: &mut [__m512],
    shares: &mut [u32],
) {
    let of = |at: usize| first_lanes(count - at * LANES);
    let mut most = _mm512_set1_ps(f32::NEG_INFINITY);
    for (at, s) in scores.iter().enumerate() {
        most = _mm512_mask_max_ps(most, of(at), most, *s);
    }
    let before = *greatest;
    let now = before.max(_mm512_reduce_max_ps(most) * scale);
    if now > before {
        *greatest = now;
        let shrink = (before - now).exp2();
        *total *= shrink;
        let shrink = _mm512_set1_ps(shrink);
        for sum in sums {
            *sum = _mm512_mul_ps(*sum, shrink);
        }
    }
    // Where all scores are minus infinity their shares are zero.
    let (scale, now) =
        (_mm512_set1_ps(scale), _mm512_set1_ps(if now > f32::NEG_INFINITY { now } else { 0.0 }));
    let mut sum = _mm512_setzero_ps();
    let (shares, _) = shares.as_chunks_mut::<LANES>();
    for (both, shares) in
        shares.iter_mut().enumerate().take(scores.len().div_ceil(2)).map(|(at, s)| (2 * at, s))
    {
        let share = [both, both + 1].map(|at| match scores.get(at) {
            Some(s) => _mm512_maskz_mov_ps(of(at), exp2(_mm512_sub_ps(_mm512_mul_ps(*s, scale), now))),
            None => _mm512_setzero_ps(),
        });
        sum = _mm512_add_ps(sum, _mm512_add_ps(share[0], share[1]));
        // SAFETY: 64 bytes of any value on either side.
        *shares =
            unsafe { std::mem::transmute::<__m512bh, [u32; LANES]>(_mm512_cvtne2ps_pbh(share[1], share[0])) };
    }
    *total += _mm512_reduce_add_ps(sum);
}

/// The first of 16 lanes, as many as there are.
fn first_lanes(count: usize) -> u16 {
    if count >= LANES { !0 } else { (1 << count) - 1 }
}

fn pair([even, odd]: [u16; 2]) -> u32 {
    u32::from(even) | u32::from(odd) << 16
}

/// Rows of pairs; the last few are zero where there are no more queries.
fn copy_queries(q: &Rows<'_>, first: usize, count: usize, dim: usize, to: &mut [u32]) {
    for (r, to) in to.chunks_exact_mut(dim / 2).enumerate().take(count.next_multiple_of(ROWS)) {
        if r < count {
            for (to, from) in to.iter_mut().zip(q.row(first + r, dim).as_chunks::<2>().0) {
                *to = pair(*from);
            }
        } else {
            to.fill(0);
        }
    }
}

/// Tiles of keys. What the last has beside them stays what it was: its scores are not looked at.
fn pack_keys(k: &Rows<'_>, first: usize, count: usize, dim: usize, to: &mut [__m512i]) {
    // SAFETY: a vector is 16 such numbers.
    let to = unsafe { std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<u32>(), to.len() * LANES) };
    for (tile, to) in to.chunks_exact_mut(TILE * dim / 2).enumerate().take(count.div_ceil(TILE)) {
        for column in 0..TILE.min(count - tile * TILE) {
            let row = k.row(first + tile * TILE + column, dim);
            for (to, from) in to[column..].iter_mut().step_by(TILE).zip(row.as_chunks::<2>().0) {
                *to = pair(*from);
            }
        }
    }
}

/// Pairs of values; the last is one with zero where the number of keys is odd.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pack_values(v: &Rows<'_>, first: usize, count: usize, plan: &Plan, to: &mut [__m512i]) {
    for (pair, to) in to.chunks_exact_mut(plan.width).enumerate().take(count.div_ceil(2)) {
        let even = v.row(first + 2 * pair, plan.dim);
        let odd = if 2 * pair + 1 < count { v.row(first + 2 * pair + 1, plan.dim) } else { &[][..] };
        for (vector, to) in to.iter_mut().enumerate() {
            let low = sixteen(even.get(vector * LANES..).unwrap_or_default());
            let high = sixteen(odd.get(vector * LANES..).unwrap_or_default());
            *to = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
        }
    }
}

/// The first 16 values, or as many as there are and zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn sixteen(values: &[u16]) -> __m512i {
    // SAFETY: lanes past the end are not read.
    let values = unsafe { _mm256_maskz_loadu_epi16(first_lanes(values.len()), values.as_ptr().cast()) };
    _mm512_cvtepu16_epi32(values)
}
