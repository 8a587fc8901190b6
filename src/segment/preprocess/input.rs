//! Pixels into tensors.

use tch::{Device, Kind, TchError, Tensor};

use super::Placement;
use crate::segment::resize::{Affine, Plane3};

/// ImageNet's mean of each channel of RGB, 0..=1.
pub const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// ImageNet's deviation of each channel of RGB, 0..=1.
pub const DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

/// The mean and deviation of SAM v1, which are written for values of 0..=255.
pub(super) const SAM1_MEAN: [f32; 3] = [123.675, 116.28, 103.53];
pub(super) const SAM1_DEVIATION: [f32; 3] = [58.395, 57.12, 57.375];

/// What becomes of each byte of each channel. There are few values, so each is computed once.
pub(super) type Tables = [[f32; 256]; 3];

/// ImageNet's normalisation of bytes divided by 255.
pub(super) fn imagenet_tables() -> Tables {
    std::array::from_fn(|c| {
        std::array::from_fn(|v| ((v as f64 / 255.0) as f32 - MEAN[c] as f32) / DEVIATION[c] as f32)
    })
}

/// The same as one step for values that are no bytes any more.
pub(super) fn imagenet_affine() -> Affine {
    Affine {
        scale: std::array::from_fn(|c| (1.0 / (255.0 * DEVIATION[c])) as f32),
        offset: std::array::from_fn(|c| (-MEAN[c] / DEVIATION[c]) as f32),
    }
}

/// SAM v1's normalisation.
pub(super) fn sam1_tables() -> Tables {
    std::array::from_fn(|c| std::array::from_fn(|v| (v as f32 - SAM1_MEAN[c]) / SAM1_DEVIATION[c]))
}

/// The smallest byte of the picture to 0, the largest to 1.
pub(super) fn range_tables(picture: &[u8]) -> Tables {
    let (low, high) = picture.iter().fold((u8::MAX, 0), |(low, high), &v| (low.min(v), high.max(v)));
    let range = f64::from(high.saturating_sub(low)).max(1e-8);
    [std::array::from_fn(|v| (f64::from((v as u8).saturating_sub(low)) / range) as f32); 3]
}

/// A scaled RGB picture as input `[1, 3, side, side]`; the padding is zero.
pub(super) fn from_bytes(scaled: &[u8], placement: &Placement, tables: &Tables) -> Result<Tensor, TchError> {
    let (width, side) = (placement.scaled.0, placement.side);
    filled(side, placement.is_padded(), |values| {
        let plane = side * side;
        for (y, row) in scaled.chunks_exact(width * 3).enumerate().take(side) {
            for (c, table) in tables.iter().enumerate() {
                let out = &mut values[c * plane + y * side..][..width];
                for (out, rgb) in out.iter_mut().zip(row.as_chunks::<3>().0) {
                    *out = table[usize::from(rgb[c])];
                }
            }
        }
    })
}

/// An input that a resize in floating point writes itself; the padding is zero.
pub(super) fn from_planes(placement: &Placement, write: impl FnOnce(Plane3<'_>)) -> Result<Tensor, TchError> {
    let side = placement.side;
    filled(side, placement.is_padded(), |values| write(Plane3 { side, values }))
}

/// A tensor `[1, 3, side, side]` on the CPU whose values `write` fills; with `zeroed` they are zero before.
fn filled(side: usize, zeroed: bool, write: impl FnOnce(&mut [f32])) -> Result<Tensor, TchError> {
    let (shape, options) = ([1, 3, side as i64, side as i64], (Kind::Float, Device::Cpu));
    let tensor = if zeroed { Tensor::f_zeros(shape, options)? } else { Tensor::f_empty(shape, options)? };
    // SAFETY: the tensor has just been made, is contiguous `f32` on the CPU and of this many elements, and nobody else holds it
    // or its storage; any bits are an `f32`. The slice ends before the tensor is handed on.
    let values = unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) };
    write(values);
    Ok(tensor)
}
