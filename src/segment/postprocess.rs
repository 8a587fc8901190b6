//! From the decoder's logits to masks at frame resolution.

use tch::{Device, Kind, TchError, Tensor};

use super::SegmentError;
use super::preprocess::Placement;
use crate::mask::{ClassMask, LowResLogits, Mask};

/// Masks of the classes `classes` from logits `[B, 1, side, side]` and scores `[B, 1]`: padding cut off, bilinear to the frame
/// (`align_corners = false`), above zero is inside.
///
/// # Errors
/// NaN or infinity in logits or score, a failure of libtorch.
pub fn class_masks(
    logits: &Tensor,
    scores: &Tensor,
    classes: &[usize],
    placement: &Placement,
    keep_logits: bool,
) -> Result<Vec<ClassMask>, SegmentError> {
    let (width, height) = placement.frame;
    let (scaled_w, scaled_h) = placement.scaled;
    let (batch, _, rows, cols) = logits.size4()?;
    if batch != classes.len() as i64 {
        return Err(SegmentError::Other(format!("{batch} answers for {} classes", classes.len())));
    }
    let values = to_vec(logits)?;
    let scores = to_vec(scores)?;
    let planes = values.chunks_exact((rows * cols) as usize);
    for ((plane, score), &class) in planes.clone().zip(&scores).zip(classes) {
        if plane.iter().any(|v| !v.is_finite()) {
            return Err(SegmentError::NonFinite { what: "logits", class });
        }
        if !score.is_finite() {
            return Err(SegmentError::NonFinite { what: "score", class });
        }
    }
    let cut = logits.f_narrow(2, 0, scaled_h as i64)?.f_narrow(3, 0, scaled_w as i64)?;
    let full = cut.f_upsample_bilinear2d([height as i64, width as i64], false, None, None)?;
    let inside = full.f_gt(0.0)?.f_to_kind(Kind::Uint8)?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0u8; classes.len() * width * height];
    inside.f_copy_data_u8(&mut bytes, classes.len() * width * height)?;
    let masks = bytes.chunks_exact(width * height);
    let answers = masks.zip(planes).zip(&scores).zip(classes).map(|(((mask, plane), &score), &class)| {
        let mask = Mask::new(width, height, mask.to_vec())
            .ok_or_else(|| SegmentError::Other(format!("a mask that is not {width}x{height}")))?;
        let logits = keep_logits.then(|| LowResLogits {
            width: cols as usize,
            height: rows as usize,
            values: plane.to_vec(),
        });
        Ok(ClassMask { class, mask, score, presence: 1.0, logits })
    });
    answers.collect()
}

fn to_vec(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut values = vec![0f32; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(logits: &Tensor, score: f32) -> Result<Vec<ClassMask>, SegmentError> {
        let placement = Placement::new(32, 16, 8);
        class_masks(logits, &Tensor::from_slice(&[score]).reshape([1, 1]), &[7], &placement, true)
    }

    #[test]
    fn padding_does_not_reach_the_mask() {
        // Positive only in the padding below the scaled picture of 8x4.
        let logits = Tensor::full([1, 1, 8, 8], -1.0, (Kind::Float, Device::Cpu));
        let _ = logits.narrow(2, 4, 4).fill_(5.0);
        let answer = masks(&logits, 0.5).unwrap().remove(0);
        assert_eq!(
            (answer.class, answer.mask.width(), answer.mask.height(), answer.mask.area()),
            (7, 32, 16, 0)
        );
        let kept = answer.logits.unwrap();
        assert_eq!((kept.width, kept.height, kept.values[63]), (8, 8, 5.0));
    }

    #[test]
    fn values_that_are_no_numbers_are_errors() {
        let good = Tensor::zeros([1, 1, 8, 8], (Kind::Float, Device::Cpu));
        assert!(masks(&good, 1.0).is_ok());
        assert!(matches!(masks(&good, f32::NAN), Err(SegmentError::NonFinite { what: "score", class: 7 })));
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let logits = good.copy();
            let _ = logits.narrow(3, 7, 1).narrow(2, 7, 1).fill_(bad);
            assert!(matches!(masks(&logits, 1.0), Err(SegmentError::NonFinite { what: "logits", class: 7 })));
        }
    }
}
