//! The Gaussian error linear unit of a tensor, in one pass over the memory.

use std::arch::x86_64::{
    __m512, _mm512_abs_ps, _mm512_fmadd_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_rcp14_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use tch::{Kind, Tensor};

use super::values::{AT_ONCE, is_here, load, round, values_mut, widen};
use super::{LANES, exp2, for_each_part};

/// The Gaussian error linear unit in place, on a tensor in bfloat16 that nobody else holds. Whether it was done.
pub(in crate::nn) fn gelu(x: &mut Tensor) -> bool {
    if !is_here(x, Kind::BFloat16) || !x.numel().is_multiple_of(LANES) {
        return false;
    }
    // SAFETY: this was asked for, and nobody else holds it. The CPU was asked for its features.
    for_each_part(unsafe { values_mut::<u16>(x) }, AT_ONCE, |_, part| unsafe { bend(part) });
    true
}

/// The same on one in `f32`, for networks that compute in bfloat16: values of 1e-4 and more to less than a quarter of what rounding to that
/// changes, smaller ones to less than 1e-7. Nobody but the caller holds what it is a view of.
pub(in crate::nn) fn gelu_near(x: &mut Tensor) -> bool {
    if !is_here(x, Kind::Float) || !x.numel().is_multiple_of(LANES) {
        return false;
    }
    // SAFETY: as in `gelu`.
    for_each_part(unsafe { values_mut::<f32>(x) }, AT_ONCE, |_, part| unsafe { bend_wide(part) });
    true
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn bend(values: &mut [u16]) {
    for x in values.as_chunks_mut::<LANES>().0 {
        round(bent(widen(x)), x);
    }
}

#[target_feature(enable = "avx512f")]
fn bend_wide(values: &mut [f32]) {
    for x in values.as_chunks_mut::<LANES>().0 {
        let y = bent(load(x));
        // SAFETY: 16 values.
        unsafe { _mm512_storeu_ps(x.as_mut_ptr(), y) };
    }
}

/// `max(x, 0) - |x| erfc(|x| / sqrt(2)) / 2`, whose small values are not differences of large ones. The complementary error function is
/// that of Abramowitz and Stegun, 7.1.26.
#[target_feature(enable = "avx512f")]
#[inline]
fn bent(value: __m512) -> __m512 {
    const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    const TERMS: [f32; 4] = [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    // What is further out has no tail to speak of (1e-31). Infinity times none would be no number, and a CPU takes a hundred times as long
    // for what is almost none, a denormal number.
    let size = _mm512_min_ps(_mm512_set1_ps(12.0), _mm512_abs_ps(value));
    let t = _mm512_rcp14_ps(_mm512_fmadd_ps(size, _mm512_set1_ps(P), _mm512_set1_ps(1.0)));
    let mut series = _mm512_set1_ps(1.061_405_4);
    for term in TERMS {
        series = _mm512_fmadd_ps(series, t, _mm512_set1_ps(term));
    }
    let square = _mm512_mul_ps(size, size);
    let tail = exp2(_mm512_mul_ps(square, _mm512_set1_ps(-0.5 * std::f32::consts::LOG2_E)));
    let erfc = _mm512_mul_ps(_mm512_mul_ps(series, t), tail);
    let beyond = _mm512_mul_ps(_mm512_mul_ps(size, erfc), _mm512_set1_ps(0.5));
    _mm512_sub_ps(_mm512_max_ps(_mm512_setzero_ps(), value), beyond)
}

#[cfg(test)]
mod tests {
    use tch::{Device, TchError};

    use super::super::HAS_BF16;
    use super::*;
    use crate::nn::common::roundings;

    /// All bfloat16 that are numbers, of either sign, four times over, for more than one thread; and what the unit makes of them.
    fn all() -> (Tensor, Tensor) {
        let all = (0..=u16::MAX).map(|bits| f32::from_bits(u32::from(bits) << 16));
        let all: Vec<f32> = all.filter(|v| v.is_finite()).collect();
        let x = Tensor::from_slice(&all).repeat([4]);
        let exact = x.to_kind(Kind::Double).gelu("none").to_kind(Kind::Float);
        (x, exact)
    }

    #[test]
    fn the_unit_is_exact_for_every_bfloat16() {
        let (x, exact) = all();
        let mut ours = x.to_kind(Kind::BFloat16);
        assert_eq!(gelu(&mut ours), *HAS_BF16);
        if *HAS_BF16 {
            let off = roundings(&ours, &exact, 1e-6);
            assert!(off <= 1.02, "{off}");
        }
    }

    #[test]
    fn near_is_nearer_than_rounding() -> Result<(), TchError> {
        let (x, exact) = all();
        let mut ours = x.copy();
        assert_eq!(gelu_near(&mut ours), *HAS_BF16);
        if *HAS_BF16 {
            let off = roundings(&ours, &exact, 1e-4);
            assert!(off < 0.25, "{off}");
            let small = exact.abs().lt(1e-4).to_kind(Kind::Float);
            let off = f64::try_from(((&ours - &exact).abs() * small).max())?;
            assert!(off < 1e-7, "{off}");
            let none = ours.abs().lt(f64::from(f32::MIN_POSITIVE)).logical_and(&ours.ne(0.0));
            let denormal = none.logical_and(&x.abs().ge(1.0));
            assert_eq!(i64::try_from(denormal.sum(Kind::Int64))?, 0, "they take a CPU long");
        }
        Ok(())
    }

    #[test]
    fn infinity_stays_and_what_is_no_number_stays_none() -> Result<(), TchError> {
        for (kind, unit) in [(Kind::BFloat16, gelu as fn(&mut Tensor) -> bool), (Kind::Float, gelu_near)] {
            let of = |value: f64| {
                let mut x = Tensor::full([16], value, (kind, Device::Cpu));
                assert_eq!(unit(&mut x), *HAS_BF16);
                x
            };
            assert_eq!(i64::try_from(of(f64::INFINITY).isinf().sum(Kind::Int64))?, 16);
            assert_eq!(i64::try_from(of(f64::NAN).isnan().sum(Kind::Int64))?, 16);
            let other = if kind == Kind::Float { Kind::BFloat16 } else { Kind::Float };
            for (n, kind) in [(3, kind), (0, kind), (16, other)] {
                assert!(!unit(&mut Tensor::ones([n], (kind, Device::Cpu))));
            }
            assert!(!unit(&mut Tensor::ones([16], (kind, Device::Cpu)).set_requires_grad(true)));
        }
        Ok(())
    }
}
