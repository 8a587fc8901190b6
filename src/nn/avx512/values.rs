//! Values of tensors in `f32` and bfloat16, sixteen at once.

use std::arch::x86_64::{
    __m512, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
    _mm512_loadu_ps, _mm512_slli_epi32,
};

use tch::{Kind, Tensor};

use super::{LANES, can_read, rounded};

/// Values that a thread takes at once.
pub(super) const AT_ONCE: usize = 1 << 16;

pub(super) fn is_here(x: &Tensor, kind: Kind) -> bool {
    can_read(x, kind) && x.is_contiguous() && x.numel() > 0
}

/// What a tensor holds.
///
/// # Safety
/// [`is_here`] holds for it and the kind that `T` is.
pub(super) unsafe fn values<T>(x: &Tensor) -> &[T] {
    // SAFETY: so many values lie together, and nobody writes a tensor that is lent.
    unsafe { std::slice::from_raw_parts(x.data_ptr().cast::<T>(), x.numel()) }
}

/// What a tensor holds, or, where it is new, any bits, which are values too.
///
/// # Safety
/// As [`values`], and nobody else holds the tensor or a part of it.
pub(super) unsafe fn values_mut<T>(x: &mut Tensor) -> &mut [T] {
    // SAFETY: as in `values`.
    unsafe { std::slice::from_raw_parts_mut(x.data_ptr().cast::<T>(), x.numel()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load(x: &[f32; LANES]) -> __m512 {
    // SAFETY: 16 values.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// bfloat16 as `f32`.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn widen(x: &[u16; LANES]) -> __m512 {
    // SAFETY: 16 values.
    let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))
}

/// `f32` as bfloat16.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
pub(super) fn round(x: __m512, to: &mut [u16; LANES]) {
    // SAFETY: 16 values.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), rounded(x)) };
}
