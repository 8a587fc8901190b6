//! LiteMedSAM's preprocessing, as its authors publish it for the CVPR 2024 challenge: longest side to 256 by area, the
//! picture's own minimum and maximum to 0 and 1, then zero padding on the right and at the bottom.

use tch::{Kind, TchError, Tensor};

use super::resize::resize_area;
use crate::frame::Rgb;
use crate::mask::Mask;

/// How a frame lies in the square network input: scaled by one factor, at the upper left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Size of the frame in pixels, width first.
    pub frame: (usize, usize),
    /// Size of the scaled picture in the input, width first.
    pub scaled: (usize, usize),
    /// Side of the input.
    pub side: usize,
}

impl Placement {
    /// Places a frame of `width` x `height` pixels so that its longest side fills `side`.
    pub fn new(width: usize, height: usize, side: usize) -> Self {
        let scale = side as f64 / width.max(height).max(1) as f64;
        let scaled = |len: usize| ((len as f64 * scale + 0.5) as usize).clamp(1, side);
        Self { frame: (width, height), scaled: (scaled(width), scaled(height)), side }
    }

    /// Input pixels per frame pixel, for the coordinates of prompts.
    pub fn scale(&self) -> f32 {
        self.side as f32 / self.frame.0.max(self.frame.1).max(1) as f32
    }
}

/// The frame scaled by area, three bytes a pixel, `placement.scaled` in size.
pub fn scaled_rgb(rgb: &Rgb, placement: &Placement) -> Vec<u8> {
    resize_area::<3>(&rgb.data, placement.frame, placement.scaled)
}

/// A scaled picture as network input `[1, 3, side, side]`, `f32`, on the CPU.
///
/// # Errors
/// libtorch's.
pub fn input_tensor(scaled: &[u8], placement: &Placement) -> Result<Tensor, TchError> {
    let (low, high) = scaled.iter().fold((u8::MAX, 0), |(low, high), &v| (low.min(v), high.max(v)));
    let range = f64::from(high.saturating_sub(low)).max(1e-8);
    // Few values, so the division is done once for each.
    let table: Vec<f32> = (0..=255u8).map(|v| (f64::from(v.saturating_sub(low)) / range) as f32).collect();
    let (side, plane) = (placement.side, placement.side * placement.side);
    let mut input = vec![0f32; 3 * plane];
    for (y, row) in scaled.chunks_exact(placement.scaled.0 * 3).enumerate().take(side) {
        for (x, pixel) in row.chunks_exact(3).enumerate() {
            for (c, &v) in pixel.iter().enumerate() {
                input[c * plane + y * side + x] = table[usize::from(v)];
            }
        }
    }
    let side = side as i64;
    Tensor::f_from_slice(&input)?.f_reshape([1, 3, side, side])
}

/// A mask at frame resolution as the logits `[1, 1, side, side]` that the prompt encoder takes.
///
/// The mask is scaled by area like the frame; a pixel covered by a share `s` becomes `20 s - 10`, and the padding -10: certain
/// inside, certain outside, zero on the border. SAM 2 uses the same values for masks that did not come from a decoder.
///
/// # Errors
/// libtorch's.
pub fn mask_logits(mask: &Mask, placement: &Placement) -> Result<Tensor, TchError> {
    let bytes: Vec<u8> = mask.data().iter().map(|&v| v * 255).collect();
    let scaled = resize_area::<1>(&bytes, placement.frame, placement.scaled);
    let side = placement.side;
    let mut logits = vec![-10f32; side * side];
    for (row, out) in scaled.chunks_exact(placement.scaled.0).zip(logits.chunks_exact_mut(side)) {
        for (&v, out) in row.iter().zip(out) {
            *out = f32::from(v) / 255.0 * 20.0 - 10.0;
        }
    }
    let side = side as i64;
    Tensor::f_from_slice(&logits)?.f_to_kind(Kind::Float)?.f_reshape([1, 1, side, side])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_side_fills_the_input_and_no_side_vanishes() {
        let scaled = |w, h| Placement::new(w, h, 256).scaled;
        assert_eq!(scaled(1280, 720), (256, 144));
        assert_eq!(scaled(534, 512), (256, 245));
        assert_eq!(scaled(100, 50), (256, 128));
        assert_eq!(scaled(4000, 2), (256, 1));
        assert_eq!(scaled(256, 256), (256, 256));
    }

    #[test]
    fn a_flat_picture_is_black_not_infinite() {
        let placement = Placement::new(8, 4, 256);
        let input = input_tensor(&vec![77; 256 * 128 * 3], &placement).unwrap();
        assert_eq!(f64::try_from(input.abs().max()).unwrap(), 0.0);
    }

    #[test]
    fn padding_comes_after_the_scaling_of_values() {
        let placement = Placement::new(512, 256, 256);
        let mut scaled = vec![100; 256 * 128 * 3];
        scaled[0] = 200;
        let input = input_tensor(&scaled, &placement).unwrap();
        assert_eq!(f64::try_from(input.max()).unwrap(), 1.0);
        assert_eq!(input.double_value(&[0, 0, 0, 0]), 1.0);
        assert_eq!(input.double_value(&[0, 1, 0, 0]), 0.0);
        assert_eq!(f64::try_from(input.narrow(2, 128, 128).abs().max()).unwrap(), 0.0);
    }
}
