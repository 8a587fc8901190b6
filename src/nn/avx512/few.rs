//! A linear layer of few rows in bfloat16. It reads its weights once and as they lie; oneDNN puts all of them into another order first,
//! every time, which for few rows takes longer than the products.

use std::arch::x86_64::{
    __m128, __m128bh, __m128i, __m512, __m512i, _mm_add_ps, _mm_castsi128_ps, _mm_cvtepu16_epi32,
    _mm_cvtneps_pbh, _mm_loadl_epi64, _mm_slli_epi32, _mm_storel_epi64, _mm512_add_ps, _mm512_castpd_ps,
    _mm512_castps_pd, _mm512_dpbf16_ps, _mm512_extractf32x4_ps, _mm512_loadu_si512, _mm512_setzero_ps,
    _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

use tch::{Device, Kind, TchError, Tensor};

use super::values::{is_here, values, values_mut};
use super::{as_pairs, for_each, threads_for};

/// Values of a vector of bfloat16.
const WIDE: usize = 32;
/// Rows and columns of a tile of sums: with a vector of each column's weights and one of a row they need 29 of 32 registers.
const ROWS: usize = 6;
const COLUMNS: usize = 4;
/// Columns that a thread takes at once.
const AT_ONCE: usize = 16 * COLUMNS;
/// Products and sums that a thread makes in a nanosecond, and bytes of weights that it reads.
const FLOP_PER_NS: usize = 100;
const BYTES_PER_NS: usize = 10;

/// Where answers go: rows of `columns` values.
#[derive(Clone, Copy)]
struct Answers {
    start: *mut u16,
    columns: usize,
}

// SAFETY: every thread writes columns of its own; see `linear`.
unsafe impl Sync for Answers {}

/// `x W^T + b` of `x [..., in]`, `weight [out, in]` and `bias [out]`, rounded once.
pub(in crate::nn) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Option<Tensor>, TchError> {
    let Ok((outputs, inputs)) = weight.size2() else { return Ok(None) };
    let mut size = x.size();
    let fits = size.last() == Some(&inputs)
        && bias.size() == [outputs]
        && inputs % WIDE as i64 == 0
        && outputs % COLUMNS as i64 == 0;
    if !fits || ![x, weight, bias].iter().all(|x| is_here(x, Kind::BFloat16)) {
        return Ok(None);
    }
    size.pop();
    size.push(outputs);
    let mut out = Tensor::f_empty(size, (Kind::BFloat16, Device::Cpu))?;
    // SAFETY: these were asked for; the last is new.
    let (x, weight, bias, to) = unsafe {
        (values::<u16>(x), values::<u16>(weight), values::<u16>(bias), values_mut::<u16>(&mut out))
    };
    // None is negative.
    let (inputs, outputs) = (inputs as usize, outputs as usize);
    let rows = x.len() / inputs;
    let work_ns = (2 * rows * weight.len() / FLOP_PER_NS).max(2 * weight.len() / BYTES_PER_NS);
    let to = Answers { start: to.as_mut_ptr(), columns: outputs };
    for_each(
        (0..outputs).step_by(AT_ONCE),
        threads_for(work_ns),
        || (),
        |(), first| {
            let to = &to;
            for column in (first..outputs.min(first + AT_ONCE)).step_by(COLUMNS) {
                let weight: [&[u16]; COLUMNS] =
                    std::array::from_fn(|i| &weight[(column + i) * inputs..][..inputs]);
                let bias = &bias[column..][..COLUMNS];
                for (at, x) in x.chunks(ROWS * inputs).enumerate() {
                    // SAFETY: the CPU was asked for its features; rows and columns lie inside the answers, and nobody else writes these.
                    unsafe {
                        let to = Answers { start: to.start.add(at * ROWS * outputs + column), ..*to };
                        match x.len() / inputs {
                            1 => tile::<1>(x, &weight, bias, to),
                            2 => tile::<2>(x, &weight, bias, to),
                            3 => tile::<3>(x, &weight, bias, to),
                            4 => tile::<4>(x, &weight, bias, to),
                            5 => tile::<5>(x, &weight, bias, to),
                            _ => tile::<ROWS>(x, &weight, bias, to),
                        }
                    }
                }
            }
        },
    );
    Ok(Some(out))
}

/// `R` rows of four columns.
///
/// # Safety
/// They lie where `to` says, and nobody else writes them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn tile<const R: usize>(x: &[u16], weight: &[&[u16]; COLUMNS], bias: &[u16], to: Answers) {
    let inputs = weight[0].len();
    let x: [&[[u16; WIDE]]; R] = std::array::from_fn(|r| x[r * inputs..][..inputs].as_chunks().0);
    let weight: [&[[u16; WIDE]]; COLUMNS] = std::array::from_fn(|c| weight[c].as_chunks().0);
    let mut sums = [[_mm512_setzero_ps(); COLUMNS]; R];
    for p in 0..inputs / WIDE {
        let weight: [_; COLUMNS] = std::array::from_fn(|c| thirty_two(&weight[c][p]));
        for (x, sums) in x.iter().zip(&mut sums) {
            let x = thirty_two(&x[p]);
            for (sum, weight) in sums.iter_mut().zip(weight) {
                *sum = _mm512_dpbf16_ps(*sum, as_pairs(x), as_pairs(weight));
            }
        }
    }
    // SAFETY: four values.
    let bias = unsafe { _mm_loadl_epi64(bias.as_ptr().cast()) };
    // A bfloat16 is the upper half of an `f32`.
    let bias = _mm_castsi128_ps(_mm_slli_epi32::<16>(_mm_cvtepu16_epi32(bias)));
    for (r, sums) in sums.into_iter().enumerate() {
        let four = _mm_add_ps(totals(sums), bias);
        // SAFETY: the row and four of its values are there, see above; a vector of bfloat16 is 16 bytes of any value.
        unsafe {
            let rounded = std::mem::transmute::<__m128bh, __m128i>(_mm_cvtneps_pbh(four));
            _mm_storel_epi64(to.start.add(r * to.columns).cast(), rounded);
        }
    }
}

/// What the lanes of each of four vectors add up to.
#[target_feature(enable = "avx512f")]
#[inline]
fn totals([a, b, c, d]: [__m512; COLUMNS]) -> __m128 {
    // In every quarter: lanes 0 and 2 of both, and 1 and 3.
    let two = |a, b| _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    let (ab, cd) = (two(a, b), two(c, d));
    let four = _mm512_add_ps(
        _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
        _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
    );
    let low = _mm_add_ps(_mm512_extractf32x4_ps::<0>(four), _mm512_extractf32x4_ps::<1>(four));
    _mm_add_ps(low, _mm_add_ps(_mm512_extractf32x4_ps::<2>(four), _mm512_extractf32x4_ps::<3>(four)))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn thirty_two(x: &[u16; WIDE]) -> __m512i {
    // SAFETY: 32 values.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

#[cfg(test)]
mod tests {
    use super::super::HAS_BF16;
    use super::*;
    use crate::nn::common::roundings;

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16)
    }

    #[test]
    fn few_rows_are_libtorchs_rounded_once() -> Result<(), TchError> {
        tch::manual_seed(3);
        for (inputs, outputs) in [(32, 4), (96, 288), (384, 1152), (768, 68)] {
            let (weight, bias) = (random(&[outputs, inputs]), random(&[outputs]));
            for size in
                [vec![inputs], vec![2, inputs], vec![5, inputs], vec![3, 2, 2, inputs], vec![64, inputs]]
            {
                let x = random(&size);
                let ours = linear(&x, &weight, &bias)?;
                assert_eq!(ours.is_some(), *HAS_BF16);
                let Some(ours) = ours else { return Ok(()) };
                let [wide, by, and] = [&x, &weight, &bias].map(|x| x.to_kind(Kind::Double));
                let exact = wide.f_linear(&by, Some(&and))?;
                assert_eq!((ours.kind(), ours.size()), (Kind::BFloat16, exact.size()));
                let off = roundings(&ours, &exact, 1e-1);
                assert!(off <= 1.02, "{size:?} to {outputs}: {off}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_fits_no_vector_wants_gradients_or_lies_otherwise_is_libtorchs_to_do() -> Result<(), TchError> {
        let (x, weight, bias) = (random(&[6, 64]), random(&[8, 64]), random(&[8]));
        assert_eq!(linear(&x, &weight, &bias)?.is_some(), *HAS_BF16);
        let wants = random(&[8, 64]).set_requires_grad(true);
        assert!(linear(&random(&[64, 6]).transpose(0, 1), &weight, &bias)?.is_none());
        assert!(linear(&x, &wants, &bias)?.is_none());
        assert!(linear(&x, &random(&[64, 8]).transpose(0, 1), &bias)?.is_none());
        assert!(linear(&random(&[6, 48]), &random(&[8, 48]), &bias)?.is_none());
        assert!(linear(&x, &random(&[6, 64]), &random(&[6]))?.is_none());
        assert!(linear(&x, &weight, &random(&[12]))?.is_none());
        assert!(linear(&random(&[6, 32]), &weight, &bias)?.is_none());
        assert!(linear(&random(&[0, 64]), &weight, &bias)?.is_none());
        assert!(linear(&x.to_kind(Kind::Float), &weight, &bias)?.is_none());
        Ok(())
    }
}
