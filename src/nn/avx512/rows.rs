//! Norm, non-linearity and residual sum of a layer in bfloat16, each in one pass over the memory.

use std::arch::x86_64::{
    __m512, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps,
    _mm512_and_si512, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_permutex2var_ps,
    _mm512_rcp14_ps, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
};

use tch::{Device, Kind, TchError, Tensor};

use super::{LANES, can_read, exp2, for_each_part, rounded};

/// Values that a thread takes at once.
const AT_ONCE: usize = 1 << 16;

fn is_here(x: &Tensor, kind: Kind) -> bool {
    can_read(x, kind) && x.is_contiguous() && x.numel() > 0
}

/// What a tensor holds.
///
/// # Safety
/// [`is_here`] holds for it and the kind that `T` is.
unsafe fn values<T>(x: &Tensor) -> &[T] {
    // SAFETY: so many values lie together, and nobody writes a tensor that is lent.
    unsafe { std::slice::from_raw_parts(x.data_ptr().cast::<T>(), x.numel()) }
}

/// What a tensor holds, or, where it is new, any bits, which are values too.
///
/// # Safety
/// As [`values`], and nobody else holds the tensor or a part of it.
unsafe fn values_mut<T>(x: &mut Tensor) -> &mut [T] {
    // SAFETY: as in `values`.
    unsafe { std::slice::from_raw_parts_mut(x.data_ptr().cast::<T>(), x.numel()) }
}

/// `[..., C]` in `f32` normalised over `C`, as bfloat16.
pub(in crate::nn) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Option<Tensor>, TchError> {
    let channels = weight.numel();
    let fits = channels.is_multiple_of(LANES)
        && bias.numel() == channels
        && x.size().last().is_some_and(|&c| usize::try_from(c) == Ok(channels));
    if !fits || ![x, weight, bias].iter().all(|x| is_here(x, Kind::Float)) {
        return Ok(None);
    }
    let mut out = Tensor::f_empty(x.size(), (Kind::BFloat16, Device::Cpu))?;
    // SAFETY: these were asked for; the last is new.
    let (x, weight, bias, values) =
        unsafe { (values::<f32>(x), values(weight), values(bias), values_mut::<u16>(&mut out)) };
    let each = (AT_ONCE / channels).max(1) * channels;
    for_each_part(values, each, |at, part| {
        // SAFETY: the CPU was asked for its features.
        unsafe { normalise(&x[at * each..], weight, bias, eps as f32, part) };
    });
    Ok(Some(out))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn normalise(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [u16]) {
    let channels = weight.len();
    let (weight, bias) = (weight.as_chunks::<LANES>().0, bias.as_chunks::<LANES>().0);
    for (row, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        let row = row.as_chunks::<LANES>().0;
        let mut sum = _mm512_setzero_ps();
        for x in row {
            sum = _mm512_add_ps(sum, load(x));
        }
        let mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / channels as f32);
        let mut squares = _mm512_setzero_ps();
        for x in row {
            let from_mean = _mm512_sub_ps(load(x), mean);
            squares = _mm512_fmadd_ps(from_mean, from_mean, squares);
        }
        let variance = _mm512_reduce_add_ps(squares) / channels as f32;
        let scale = _mm512_set1_ps(1.0 / (variance + eps).sqrt());
        let out = out.as_chunks_mut::<LANES>().0;
        for (((x, weight), bias), out) in row.iter().zip(weight).zip(bias).zip(out) {
            let normal = _mm512_mul_ps(_mm512_sub_ps(load(x), mean), scale);
            round(_mm512_fmadd_ps(normal, load(weight), load(bias)), out);
        }
    }
}

/// The Gaussian error linear unit in place, on a tensor in bfloat16 that nobody else holds. Whether it was done.
pub(in crate::nn) fn gelu(x: &mut Tensor) -> bool {
    if !is_here(x, Kind::BFloat16) || !x.numel().is_multiple_of(LANES) {
        return false;
    }
    // SAFETY: this was asked for, and nobody else holds it. The CPU was asked for its features.
    for_each_part(unsafe { values_mut::<u16>(x) }, AT_ONCE, |_, part| unsafe { bend(part) });
    true
}

/// `max(x, 0) - |x| erfc(|x| / sqrt(2)) / 2`, whose small values are not differences of large ones. The complementary error function is
/// that of Abramowitz and Stegun, 7.1.26.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn bend(values: &mut [u16]) {
    const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    const TERMS: [f32; 4] = [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    let one = _mm512_set1_ps(1.0);
    for x in values.as_chunks_mut::<LANES>().0 {
        let value = widen(x);
        // What is far out has no tail, and infinity times none would be no number.
        let size = _mm512_min_ps(_mm512_set1_ps(1e4), _mm512_abs_ps(value));
        let t = _mm512_rcp14_ps(_mm512_fmadd_ps(size, _mm512_set1_ps(P), one));
        let mut series = _mm512_set1_ps(1.061_405_4);
        for term in TERMS {
            series = _mm512_fmadd_ps(series, t, _mm512_set1_ps(term));
        }
        let square = _mm512_mul_ps(size, size);
        let tail = exp2(_mm512_mul_ps(square, _mm512_set1_ps(-0.5 * std::f32::consts::LOG2_E)));
        let erfc = _mm512_mul_ps(_mm512_mul_ps(series, t), tail);
        let beyond = _mm512_mul_ps(_mm512_mul_ps(size, erfc), _mm512_set1_ps(0.5));
        round(_mm512_sub_ps(_mm512_max_ps(_mm512_setzero_ps(), value), beyond), x);
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

#[target_feature(enable = "avx512f")]
#[inline]
fn load(x: &[f32; LANES]) -> __m512 {
    // SAFETY: 16 values.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// bfloat16 as `f32`.
#[target_feature(enable = "avx512f")]
#[inline]
fn widen(x: &[u16; LANES]) -> __m512 {
    // SAFETY: 16 values.
    let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))
}

/// `f32` as bfloat16.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn round(x: __m512, to: &mut [u16; LANES]) {
    // SAFETY: 16 values.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), rounded(x)) };
}

#[cfg(test)]
mod tests {
    use super::super::HAS_BF16;
    use super::*;

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Greatest difference, relative to the most that rounding to bfloat16 changes a value, or one of size `least` where it is smaller.
    fn roundings(ours: &Tensor, exact: &Tensor, least: f64) -> f64 {
        let most = exact.abs().clamp_min(least) / 256.0;
        let off = (ours.to_kind(Kind::Float) - exact).abs() / most;
        f64::try_from(off.max()).expect("a number")
    }

    #[test]
    fn a_norm_is_libtorchs_rounded_once() -> Result<(), TchError> {
        tch::manual_seed(1);
        for (rows, channels) in [(1, 16), (700, 96), (5, 768), (1024, 256), (3, 4096)] {
            let x = Tensor::randn([rows, channels], F32) * 3.0 + 40.0;
            let (weight, bias) = (Tensor::randn([channels], F32), Tensor::randn([channels], F32));
            let exact = x.layer_norm([channels], Some(&weight), Some(&bias), 1e-6, false);
            let ours = layer_norm(&x, &weight, &bias, 1e-6)?;
            assert_eq!(ours.is_some(), *HAS_BF16);
            let Some(ours) = ours else { return Ok(()) };
            assert_eq!(ours.kind(), Kind::BFloat16);
            let off = roundings(&ours, &exact, 1e-2);
            assert!(off <= 1.02, "{rows} x {channels}: {off}");
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
            assert!(layer_norm(x, &weight, &weight, 1e-6)?.is_none());
            assert!(add_rows(x, &ones(&x.size(), Kind::BFloat16), |row| row)?.is_none());
        }
        let mut others = [ones(&[3], Kind::BFloat16), ones(&[0], Kind::BFloat16), ones(&[16], Kind::Float)];
        assert!(others.iter_mut().all(|x| !gelu(x)));
        Ok(())
    }

    #[test]
    fn the_error_unit_is_exact_for_every_bfloat16() -> Result<(), TchError> {
        // All that are numbers, of either sign, four times over, for more than one thread.
        let all: Vec<f32> = (0..=u16::MAX)
            .map(|bits| f32::from_bits(u32::from(bits) << 16))
            .filter(|v| v.is_finite())
            .collect();
        let x = Tensor::from_slice(&all).repeat([4]);
        let mut ours = x.to_kind(Kind::BFloat16);
        let done = gelu(&mut ours);
        assert_eq!(done, *HAS_BF16);
        if !done {
            return Ok(());
        }
        let exact = x.to_kind(Kind::Double).gelu("none").to_kind(Kind::Float);
        let off = roundings(&ours, &exact, 1e-6);
        assert!(off <= 1.02, "{off}");
        let mut infinite = Tensor::full([16], f64::INFINITY, (Kind::BFloat16, Device::Cpu));
        assert!(gelu(&mut infinite));
        assert_eq!(i64::try_from(infinite.isinf().sum(Kind::Int64))?, 16);
        let mut no_number = Tensor::full([16], f64::NAN, (Kind::BFloat16, Device::Cpu));
        assert!(gelu(&mut no_number));
        assert_eq!(i64::try_from(no_number.isnan().sum(Kind::Int64))?, 16);
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
