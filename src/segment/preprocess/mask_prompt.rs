//! Mask prompts: from a mask at frame resolution to what a prompt encoder takes.

use tch::{Kind, TchError, Tensor};

use super::Placement;
use crate::mask::Mask;
use crate::nn::CERTAIN;
use crate::segment::resize::resize_area;

/// LiteMedSAM: a mask at frame resolution as logits `[1, 1, side, side]`.
///
/// The mask is scaled by area like the frame; a pixel covered by a share `s` becomes `20 s - 10`, and the padding -10: certain
/// inside, certain outside, zero on the border.
///
/// # Errors
/// libtorch's.
pub fn mask_logits(mask: &Mask, placement: &Placement) -> Result<Tensor, TchError> {
    let bytes: Vec<u8> = mask.data().iter().map(|&v| v * 255).collect();
    let scaled = resize_area::<1>(&bytes, placement.frame, placement.scaled);
    let side = placement.side;
    let mut logits = vec![-CERTAIN as f32; side * side];
    for (row, out) in scaled.chunks_exact(placement.scaled.0).zip(logits.chunks_exact_mut(side)) {
        for (&v, out) in row.iter().zip(out) {
            *out = f32::from(v) / 255.0 * 20.0 - 10.0;
        }
    }
    let side = side as i64;
    Tensor::f_from_slice(&logits)?.f_reshape([1, 1, side, side])
}

/// A mask at frame resolution as 0 and 1 at the resolution of the input, `[1, 1, side, side]`; padding is 0.
///
/// Antialiased bilinear and at least a half: what SAM 2's video predictor makes of a mask prompt, and from there its memory.
///
/// # Errors
/// libtorch's.
pub fn mask_canvas(mask: &Mask, placement: &Placement) -> Result<Tensor, TchError> {
    canvas(mask, placement, true)
}

/// The same before it is decided: the share of each pixel of the input that the mask covers, 0 to 1, `[1, 1, side, side]`; padding
/// is 0.
///
/// # Errors
/// libtorch's.
pub fn mask_shares(mask: &Mask, placement: &Placement) -> Result<Tensor, TchError> {
    padded(&scaled(mask, placement, true)?, placement)
}

fn canvas(mask: &Mask, placement: &Placement, antialias: bool) -> Result<Tensor, TchError> {
    let _guard = tch::no_grad_guard();
    padded(&scaled(mask, placement, antialias)?.f_ge(0.5)?.f_to_kind(Kind::Float)?, placement)
}

/// The mask at the size that the frame has in the input.
fn scaled(mask: &Mask, placement: &Placement, antialias: bool) -> Result<Tensor, TchError> {
    let _guard = tch::no_grad_guard();
    let (width, height) = (mask.width() as i64, mask.height() as i64);
    let (scaled_w, scaled_h) = (placement.scaled.0 as i64, placement.scaled.1 as i64);
    let mask = Tensor::f_from_slice(mask.data())?.f_reshape([1, 1, height, width])?.f_to_kind(Kind::Float)?;
    let size = [scaled_h, scaled_w];
    if antialias {
        mask.f_internal_upsample_bilinear2d_aa(size, false, None, None)
    } else {
        mask.f_upsample_bilinear2d(size, false, None, None)
    }
}

fn padded(scaled: &Tensor, placement: &Placement) -> Result<Tensor, TchError> {
    let _guard = tch::no_grad_guard();
    let (side, (width, height)) = (placement.side as i64, placement.scaled);
    scaled.f_constant_pad_nd([0, side - width as i64, 0, side - height as i64])
}

/// Shares 0..=1 of a quarter of the side, bilinear without antialiasing: Sam2Rad was trained with these for mask prompts.
pub(super) fn quarter_shares(mask: &Mask, placement: &Placement) -> Result<Tensor, TchError> {
    let canvas = canvas(mask, placement, false)?;
    let _guard = tch::no_grad_guard();
    let side = placement.side as i64 / 4;
    canvas.f_upsample_bilinear2d([side, side], false, None, None)
}
