//! Norm, residual sum and rotation of a layer in bfloat16, each in one pass over the memory.

use std::arch::x86_64::{
    _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_or_si512,
    _mm512_permutex2var_ps, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
};

use tch::{Device, Kind, TchError, Tensor};

use super::values::{AT_ONCE, is_here, load, round, values, values_mut, widen};
use super::{LANES, for_each_part, rounded};

/// A norm of rows of `C` values in `f32`.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Norm<'a> {
    /// `[C]`.
    pub(in crate::nn) weight: &'a Tensor,
    /// `[C]`.
    pub(in crate::nn) bias: &'a Tensor,
    pub(in crate::nn) eps: f64,
}

/// What row `i` of the answer is made of, where rows change their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nn) enum Row {
    /// Of this one.
    Of(usize),
    /// Of one of zeros.
    OfZeros,
    /// It is zeros itself.
    Zeros,
}

/// `[..., C]` in `f32` normalised over `C`, as bfloat16.
pub(in crate::nn) fn layer_norm(x: &Tensor, norm: Norm<'_>) -> Result<Option<Tensor>, TchError> {
    layer_norm_rows(x, norm, &x.size(), Row::Of)
}

/// The same in other rows, `size` together, whose last is `C`.
pub(in crate::nn) fn layer_norm_rows(
    x: &Tensor,
    Norm { weight, bias, eps }: Norm<'_>,
    size: &[i64],
    of: impl Fn(usize) -> Row + Sync,
) -> Result<Option<Tensor>, TchError> {
    let channels = weight.numel();
    let fits = channels.is_multiple_of(LANES)
        && bias.numel() == channels
        && [&x.size(), size]
            .iter()
            .all(|size| size.last().is_some_and(|&c| usize::try_from(c) == Ok(channels)));
    if !fits || ![x, weight, bias].iter().all(|x| is_here(x, Kind::Float)) {
        return Ok(None);
    }
    let mut out = Tensor::f_empty(size, (Kind::BFloat16, Device::Cpu))?;
    // SAFETY: these were asked for; the last is new.
    let (x, weight, bias, values) =
        unsafe { (values::<f32>(x), values(weight), values(bias), values_mut::<u16>(&mut out)) };
    let rows = (AT_ONCE / channels).max(1);
    for_each_part(values, rows * channels, |at, part| {
        // SAFETY: the CPU was asked for its features.
        unsafe { normalise_rows(x, weight, bias, eps as f32, part, |row| of(at * rows + row)) };
    });
    Ok(Some(out))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn normalise_rows(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [u16],
    of: impl Fn(usize) -> Row,
) {
    let channels = weight.len();
    let zeros = vec![0.0; channels];
    for (row, out) in out.chunks_exact_mut(channels).enumerate() {
        let x = match of(row) {
            Row::Of(row) => &x[row * channels..][..channels],
            Row::OfZeros => &zeros[..],
            Row::Zeros => {
                out.fill(0);
                continue;
            }
        };
        normalise(x, weight, bias, eps, out);
    }
}

/// One row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn normalise(row: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [u16]) {
    let channels = weight.len() as f32;
    let (weight, bias) = (weight.as_chunks::<LANES>().0, bias.as_chunks::<LANES>().0);
    let row = row.as_chunks::<LANES>().0;
    let mut sum = _mm512_setzero_ps();
    for x in row {
        sum = _mm512_add_ps(sum, load(x));
    }
    let mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / channels);
    let mut squares = _mm512_setzero_ps();
    for x in row {
        let from_mean = _mm512_sub_ps(load(x), mean);
        squares = _mm512_fmadd_ps(from_mean, from_mean, squares);
    }
    let variance = _mm512_reduce_add_ps(squares) / channels;
    let scale = _mm512_set1_ps(1.0 / (variance + eps).sqrt());
    let out = out.as_chunks_mut::<LANES>().0;
    for (((x, weight), bias), out) in row.iter().zip(weight).zip(bias).zip(out) {
        let normal = _mm512_mul_ps(_mm512_sub_ps(load(x), mean), scale);
        round(_mm512_fmadd_ps(normal, load(weight), load(bias)), out);
    }
}

/// `x + y` in `f32` of rows `[rows, C]` of `x` in `f32` and rows of `y` in bfloat16; row `i` of the sum takes row `of(i)` of `y`.
pub(in crate::nn) fn add_rows(
    x: &Tensor,
    y: &Tensor,
    of: impl Fn(usize) -> usize + Sync,
) -> Result<Option<Tensor>, TchError> {
    let channels = x.size().last().map_or(0, |&c| usize::try_from(c).unwrap_or(0));
    let fits = channels > 0 && channels.is_multiple_of(LANES) && x.size().last() == y.size().last();
    if !fits || !is_here(x, Kind::Float) || !is_here(y, Kind::BFloat16) {
        return Ok(None);
    }
    let mut out = Tensor::f_empty(x.size(), (Kind::Float, Device::Cpu))?;
    // SAFETY: these were asked for; the last is new.
    let (x, y, sums) = unsafe { (values::<f32>(x), values::<u16>(y), values_mut::<f32>(&mut out)) };
    let each = (AT_ONCE / channels).max(1) * channels;
    for_each_part(sums, each, |at, part| {
        let rows = part.chunks_exact_mut(channels).zip(x[at * each..].chunks_exact(channels));
        for (row, (out, x)) in rows.enumerate() {
            let y = &y[of(at * each / channels + row) * channels..][..channels];
            // SAFETY: the CPU was asked for its features.
            unsafe { sum(x, y, out) };
        }
    });
    Ok(Some(out))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sum(x: &[f32], y: &[u16], out: &mut [f32]) {
    let (x, y) = (x.as_chunks::<LANES>().0, y.as_chunks::<LANES>().0);
    for ((x, y), out) in x.iter().zip(y).zip(out.as_chunks_mut::<LANES>().0) {
        // SAFETY: 16 values.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(load(x), widen(y))) };
    }
}

/// Pairs of adjacent values of `[B, m, C]` in bfloat16 turned in place by the complex numbers `[cells, C / 2]`, row after row and from the
/// first again, but for the last `unplaced` rows of each `m`. Nobody else holds `x`. Whether it was done.
pub(in crate::nn) fn rotate(x: &mut Tensor, turns: &Tensor, unplaced: i64) -> bool {
    let Ok((_, m, channels)) = x.size3() else { return false };
    let cells = turns.size().first().copied().unwrap_or(0);
    let placed = m - unplaced;
    let fits = is_here(x, Kind::BFloat16)
        && is_here(turns, Kind::ComplexFloat)
        && turns.size() == [cells, channels / 2]
        && channels % (2 * LANES as i64) == 0
        && placed >= 0
        && placed % cells == 0;
    if !fits {
        return false;
    }
    // SAFETY: a complex number is two of `f32`, the rest was asked for.
    let (turns, values) = unsafe {
        let turns = std::slice::from_raw_parts(turns.data_ptr().cast::<f32>(), 2 * turns.numel());
        (turns, values_mut::<u16>(x))
    };
    // None is negative.
    let [m, placed, cells, channels] = [m, placed, cells, channels].map(|n| n as usize);
    let rows = (AT_ONCE / channels).max(1);
    for_each_part(values, rows * channels, |at, part| {
        for (i, row) in part.chunks_exact_mut(channels).enumerate() {
            let place = (at * rows + i) % m;
            if place < placed {
                // SAFETY: the CPU was asked for its features.
                unsafe { turn(row, &turns[place % cells * channels..][..channels]) };
            }
        }
    });
    true
}

/// A row of pairs, and as many complex numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn turn(row: &mut [u16], turns: &[f32]) {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (pairs, turns) in
        row.as_chunks_mut::<{ 2 * LANES }>().0.iter_mut().zip(turns.as_chunks::<{ 2 * LANES }>().0)
    {
        // SAFETY: 32 values of either.
        let (pairs_now, first, second) = unsafe {
            let turns = turns.as_ptr();
            (
                _mm512_loadu_si512(pairs.as_ptr().cast()),
                _mm512_loadu_ps(turns),
                _mm512_loadu_ps(turns.add(LANES)),
            )
        };
        let (cos, sin) =
            (_mm512_permutex2var_ps(first, even, second), _mm512_permutex2var_ps(first, odd, second));
        let a = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs_now));
        let b = _mm512_castsi512_ps(_mm512_and_si512(
            pairs_now,
            _mm512_set1_epi32(0xffff_0000_u32.cast_signed()),
        ));
        let across = _mm512_sub_ps(_mm512_mul_ps(a, cos), _mm512_mul_ps(b, sin));
        let up = _mm512_add_ps(_mm512_mul_ps(a, sin), _mm512_mul_ps(b, cos));
        let both = _mm512_or_si512(
            _mm512_cvtepu16_epi32(rounded(across)),
            _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(rounded(up))),
        );
        // SAFETY: 32 values.
        unsafe { _mm512_storeu_si512(pairs.as_mut_ptr().cast(), both) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::HAS_BF16;
    use super::*;
    use crate::nn::common::roundings;

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    #[test]
    fn a_norm_is_libtorchs_rounded_once() -> Result<(), TchError> {
        tch::manual_seed(1);
        for (rows, channels) in [(1, 16), (700, 96), (5, 768), (1024, 256), (3, 4096)] {
            let x = Tensor::randn([rows, channels], F32) * 3.0 + 40.0;
            let (weight, bias) = (Tensor::randn([channels], F32), Tensor::randn([channels], F32));
            let exact = x.layer_norm([channels], Some(&weight), Some(&bias), 1e-6, false);
            let norm = Norm { weight: &weight, bias: &bias, eps: 1e-6 };
            let ours = layer_norm(&x, norm)?;
            assert_eq!(ours.is_some(), *HAS_BF16);
            let Some(ours) = ours else { return Ok(()) };
            assert_eq!(ours.kind(), Kind::BFloat16);
            let off = roundings(&ours, &exact, 1e-2);
            assert!(off <= 1.02, "{rows} x {channels}: {off}");
            // Backwards, between a row that is made of zeros and one that is zeros.
            let of = |row| match row {
                0 => Row::OfZeros,
                _ if row == rows as usize + 1 => Row::Zeros,
                row => Row::Of(rows as usize - row),
            };
            let other = layer_norm_rows(&x, norm, &[rows + 2, channels], of)?.expect("as above");
            assert!(layer_norm_rows(&x, norm, &[rows, channels + 16], Row::Of)?.is_none());
            let zeros = Tensor::zeros([1, channels], (Kind::BFloat16, Device::Cpu));
            let first = bias.to_kind(Kind::BFloat16).unsqueeze(0);
            assert_eq!(other, Tensor::cat(&[first, ours.flip([0]), zeros], 0));
        }
        Ok(())
    }

    #[test]
    fn what_fits_no_vector_is_elsewhere_or_wants_gradients_is_libtorchs_to_do() -> Result<(), TchError> {
        let ones = |size: &[i64], kind: Kind| Tensor::ones(size, (kind, Device::Cpu));
        let (odd, fits, none) =
            (ones(&[2, 24], Kind::Float), ones(&[16, 16], Kind::Float), ones(&[0, 16], Kind::Float));
        let wants = ones(&[16, 16], Kind::Float).set_requires_grad(true);
        for x in [&odd, &none, &fits.transpose(0, 1).narrow(0, 0, 8), &wants, &fits.to_kind(Kind::Half)] {
            let weight = ones(&x.size()[1..], Kind::Float);
            assert!(layer_norm(x, Norm { weight: &weight, bias: &weight, eps: 1e-6 })?.is_none());
            assert!(add_rows(x, &ones(&x.size(), Kind::BFloat16), |row| row)?.is_none());
        }
        Ok(())
    }

    #[test]
    fn a_sum_takes_the_rows_that_it_is_told() -> Result<(), TchError> {
        tch::manual_seed(2);
        let (rows, channels) = (9000, 48);
        let x = Tensor::randn([rows, channels], F32);
        let y = Tensor::randn([rows, channels], F32).to_kind(Kind::BFloat16);
        let ours = add_rows(&x, &y, |row| 8999 - row)?;
        assert_eq!(ours.is_some(), *HAS_BF16);
        let Some(ours) = ours else { return Ok(()) };
        assert_eq!(ours, &x + y.to_kind(Kind::Float).flip([0]));
        Ok(())
    }
}
