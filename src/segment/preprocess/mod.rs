//! From a frame to a network's input, as each family's authors publish it.
//!
//! [`Preprocess`] is a value that goes with the weights; the segmenter does not know which one it has. What they do
//! differs in the resize, the normalisation and in whether the frame's proportions are kept, and a network that is fed
//! another one's input answers visibly worse.

mod input;
mod mask_prompt;
mod picture;
mod placement;
mod resident;

use tch::{TchError, Tensor};

use super::resize::{Kernel, resize_area, resize_float, resize_pil, resize_spline};
use super::{MAX_INPUT_SIZE, SegmentError};
use crate::frame::Rgb;
use crate::mask::Mask;
use crate::nn::drawn_logits;
use crate::weights::Family;

pub use input::{DEVIATION, MEAN};
pub use mask_prompt::{mask_canvas, mask_logits, mask_shares};
pub use picture::Picture;
pub use placement::Placement;
pub use resident::{Resident, settle};

/// How a frame becomes the input `[1, 3, side, side]` of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preprocess {
    /// Longest side by area, the picture's own range to 0..=1, then zero padding (CVPR 2024 challenge).
    LiteMedSam,
    /// Pillow's bilinear resize of the longest side, mean and deviation, then zero padding: SAM v1 and MobileSAM
    /// (`ResizeLongestSide`, `Sam.preprocess`).
    Sam1,
    /// scikit-image's cubic spline to a square, the picture's own range to 0..=1 (MedSAM's inference script).
    MedSam,
    /// torch's antialiased bilinear resize to a square in floating point, mean and deviation (`SAM2Transforms`).
    Sam2,
    /// Pillow's bicubic resize to a square, mean and deviation: SAM 2's loader of video frames, and MedSAM2.
    Sam2Video,
    /// torch's bilinear resize of the longest side without antialiasing, mean and deviation, then zero padding: Sam2Rad's
    /// data set and predictor.
    Sam2Rad,
    /// The same to a square: Sam2Rad's validation.
    Sam2RadSquare,
}

impl Preprocess {
    /// What the weights of `family` were published with, for single pictures.
    pub fn of(family: Family) -> Self {
        match family {
            Family::LiteMedSam => Self::LiteMedSam,
            Family::MobileSam | Family::SamVitB | Family::SamVitL | Family::SamVitH => Self::Sam1,
            Family::MedSam => Self::MedSam,
            Family::Sam2HieraTiny
            | Family::Sam2HieraSmall
            | Family::Sam2HieraBasePlus
            | Family::Sam2HieraLarge
            | Family::Sam21HieraTiny
            | Family::Sam21HieraSmall
            | Family::Sam21HieraBasePlus
            | Family::Sam21HieraLarge => Self::Sam2,
        }
    }

    /// Where a frame of `width` x `height` pixels lies in an input of `side`.
    pub fn place(self, width: usize, height: usize, side: usize) -> Placement {
        match self {
            Self::LiteMedSam => Placement::new(width, height, side),
            Self::Sam1 | Self::Sam2Rad => Placement::rounded(width, height, side),
            Self::MedSam | Self::Sam2 | Self::Sam2Video | Self::Sam2RadSquare => {
                Placement::square(width, height, side)
            }
        }
    }

    /// The frame as input `[1, 3, side, side]`, `f32` on the CPU, and where the frame lies in it.
    ///
    /// # Errors
    /// A picture without pixels or whose bytes do not fill it, a side that is not 1..=[`MAX_INPUT_SIZE`], libtorch's.
    pub fn input(self, rgb: &Rgb, side: usize) -> Result<(Tensor, Placement), SegmentError> {
        let size = (rgb.width, rgb.height);
        let bytes = rgb.width.checked_mul(rgb.height).and_then(|n| n.checked_mul(3));
        if bytes != Some(rgb.data.len()) || rgb.data.is_empty() {
            let found = rgb.data.len();
            return Err(SegmentError::Other(format!(
                "a picture of {}x{} with {found} bytes; expected three a pixel, and pixels",
                rgb.width, rgb.height
            )));
        }
        if !(1..=MAX_INPUT_SIZE).contains(&side) {
            return Err(SegmentError::Other(format!(
                "a network input of side {side}; expected 1 to {MAX_INPUT_SIZE}"
            )));
        }
        let placement = self.place(rgb.width, rgb.height, side);
        let (src, scaled) = (&rgb.data, placement.scaled);
        let float = |antialias| {
            input::from_planes(&placement, |out| {
                resize_float(src, size, scaled, antialias, &input::imagenet_affine(), out);
            })
        };
        let input = match self {
            Self::LiteMedSam => input_tensor(&scaled_rgb(rgb, &placement), &placement),
            Self::Sam1 => {
                let scaled = resize_pil::<3>(src, size, scaled, Kernel::Bilinear);
                input::from_bytes(&scaled, &placement, &input::sam1_tables())
            }
            Self::MedSam => input_tensor(&resize_spline(src, size, scaled), &placement),
            Self::Sam2 => float(true),
            Self::Sam2Video => {
                let scaled = resize_pil::<3>(src, size, scaled, Kernel::Bicubic);
                input::from_bytes(&scaled, &placement, &input::imagenet_tables())
            }
            Self::Sam2Rad | Self::Sam2RadSquare => float(false),
        };
        Ok((input?, placement))
    }

    /// A mask of the frame as the prompt `[1, 1, n, n]` that this family's prompt encoder takes, on the CPU.
    ///
    /// `n` is the side of the input for LiteMedSAM and a quarter of it for all others. See [`mask_logits`] and [`mask_canvas`].
    ///
    /// # Errors
    /// A mask of another size than the frame, libtorch's.
    pub fn mask_prompt(self, mask: &Mask, placement: &Placement) -> Result<Tensor, SegmentError> {
        let size = (mask.width(), mask.height());
        if size != placement.frame {
            return Err(SegmentError::Other(format!(
                "a mask prompt of {}x{} for a frame of {}x{}",
                size.0, size.1, placement.frame.0, placement.frame.1
            )));
        }
        Ok(match self {
            Self::LiteMedSam => mask_logits(mask, placement)?,
            Self::Sam2Rad | Self::Sam2RadSquare => mask_prompt::quarter_shares(mask, placement)?,
            Self::Sam1 | Self::MedSam | Self::Sam2 | Self::Sam2Video => {
                drawn_logits(&mask_canvas(mask, placement)?)?
            }
        })
    }
}

/// LiteMedSAM: the frame scaled by area, three bytes a pixel, `placement.scaled` in size.
pub fn scaled_rgb(rgb: &Rgb, placement: &Placement) -> Vec<u8> {
    resize_area::<3>(&rgb.data, placement.frame, placement.scaled)
}

/// LiteMedSAM and MedSAM: a scaled picture as network input `[1, 3, side, side]`, its smallest byte 0, its largest 1.
///
/// # Errors
/// libtorch's.
pub fn input_tensor(scaled: &[u8], placement: &Placement) -> Result<Tensor, TchError> {
    input::from_bytes(scaled, placement, &input::range_tables(scaled))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: [Preprocess; 7] = [
        Preprocess::LiteMedSam,
        Preprocess::Sam1,
        Preprocess::MedSam,
        Preprocess::Sam2,
        Preprocess::Sam2Video,
        Preprocess::Sam2Rad,
        Preprocess::Sam2RadSquare,
    ];

    fn flat(width: usize, height: usize, v: u8) -> Rgb {
        Rgb { width, height, data: vec![v; width * height * 3] }
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

    #[test]
    fn every_family_fills_its_input_and_pads_with_zero() {
        for preprocess in EVERY {
            for (w, h) in [(40, 20), (20, 40), (300, 7), (1, 1), (64, 64)] {
                let (input, placement) = preprocess.input(&flat(w, h, 255), 64).unwrap();
                assert_eq!(input.size(), [1, 3, 64, 64], "{preprocess:?}");
                let (scaled_w, scaled_h) = (placement.scaled.0 as i64, placement.scaled.1 as i64);
                let (right, below) =
                    (input.narrow(3, scaled_w, 64 - scaled_w), input.narrow(2, scaled_h, 64 - scaled_h));
                for padding in [right, below] {
                    assert_eq!(
                        f64::try_from(padding.abs().sum(tch::Kind::Float)).unwrap(),
                        0.0,
                        "{preprocess:?}"
                    );
                }
                let inside = input.narrow(2, 0, scaled_h).narrow(3, 0, scaled_w);
                let (low, high) = (inside.get(0).get(0).min(), inside.get(0).get(0).max());
                let white = match preprocess {
                    Preprocess::LiteMedSam | Preprocess::MedSam => 0.0,
                    _ => (1.0 - MEAN[0]) / DEVIATION[0],
                };
                for v in [low, high] {
                    let v = f64::try_from(v).unwrap();
                    assert!((v - white).abs() < 1e-5, "{preprocess:?} {w}x{h}: {v} for {white}");
                }
            }
        }
    }

    #[test]
    fn pictures_and_sides_that_make_no_sense_are_errors() {
        for preprocess in EVERY {
            assert!(preprocess.input(&Rgb { width: 2, height: 2, data: vec![0; 11] }, 64).is_err());
            assert!(preprocess.input(&flat(0, 5, 0), 64).is_err());
            assert!(preprocess.input(&flat(2, 2, 0), 0).is_err());
            assert!(preprocess.input(&flat(2, 2, 0), MAX_INPUT_SIZE + 1).is_err());
            let placement = preprocess.place(8, 4, 64);
            assert!(preprocess.mask_prompt(&Mask::empty(4, 8), &placement).is_err());
        }
    }

    #[test]
    fn a_mask_prompt_is_sure_inside_and_sure_outside() {
        // The right half; the frame is twice as wide as high.
        let mut mask = Mask::empty(128, 64);
        for (x, y) in (64..128).flat_map(|x| (0..64).map(move |y| (x, y))) {
            mask.set(x, y, true);
        }
        for preprocess in EVERY {
            let placement = preprocess.place(128, 64, 256);
            let prompt = preprocess.mask_prompt(&mask, &placement).unwrap();
            let n = if preprocess == Preprocess::LiteMedSam { 256 } else { 64 };
            assert_eq!(prompt.size(), [1, 1, n, n], "{preprocess:?}");
            let (outside, inside) = match preprocess {
                Preprocess::Sam2Rad | Preprocess::Sam2RadSquare => (0.0, 1.0),
                _ => (-10.0, 10.0),
            };
            let at = |x: i64, y: i64| prompt.double_value(&[0, 0, y, x]);
            let below = if placement.is_padded() { outside } else { inside };
            for (x, y, expected) in
                [(n / 4, n / 4, outside), (3 * n / 4, n / 4, inside), (3 * n / 4, n - 1, below)]
            {
                assert_eq!(at(x, y), expected, "{preprocess:?} at {x},{y}");
            }
        }
    }
}
