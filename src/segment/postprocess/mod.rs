//! From the decoder's logits to masks at frame resolution.

mod components;
mod overlap;
mod packed;
mod spread;

use tch::{Kind, TchError, Tensor};

use super::SegmentError;
use super::device::read;
use super::preprocess::Placement;
use crate::mask::{ClassMask, LowResLogits, Mask};
use crate::weights::Family;

use overlap::Insides;

pub use components::clean;
pub use packed::Packed;

/// Logits that SAM 2 gives back, to be fed in again, go no further from zero than this.
const RETURNED: f32 = 32.0;

/// How low-resolution logits become a mask of the frame. All resizes are bilinear with `align_corners = false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Postprocess {
    /// The padding is cut off the low-resolution logits, the rest resized to the frame (LiteMedSAM).
    Crop,
    /// Resized to the frame in one step; returned logits are clamped to +-32 (SAM 2).
    Direct,
    /// Resized to the input, the padding cut off, the rest resized to the frame (SAM v1, MobileSAM, Sam2Rad).
    ThroughInput,
    /// Made probabilities first, then resized to the frame in one step; above a half is inside (MedSAM).
    Probability,
}

/// What a decoder says of `B` classes.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    /// `[B, 1, h, w]`, above zero is inside.
    pub logits: &'a Tensor,
    /// The same with holes and islands removed, from which masks are made if it is there.
    pub cleaned: Option<&'a Tensor>,
    /// Predicted IoU, `[B, 1]`.
    pub scores: &'a Tensor,
    /// Logits of the class being in the frame, `[B, 1]`, for families that have a head for it.
    pub presence: Option<&'a Tensor>,
    /// Masks do not overlap: a pixel is of the answer with the highest logit, of those that are in the frame with at least this
    /// certainty, 0 to 1.
    pub non_overlapping: Option<f32>,
}

impl Postprocess {
    /// What the weights of `family` were published with.
    pub fn of(family: Family) -> Self {
        match family {
            Family::LiteMedSam => Self::Crop,
            Family::MobileSam | Family::SamVitB | Family::SamVitL | Family::SamVitH => Self::ThroughInput,
            Family::MedSam => Self::Probability,
            Family::Sam2HieraTiny
            | Family::Sam2HieraSmall
            | Family::Sam2HieraBasePlus
            | Family::Sam2HieraLarge
            | Family::Sam21HieraTiny
            | Family::Sam21HieraSmall
            | Family::Sam21HieraBasePlus
            | Family::Sam21HieraLarge => Self::Direct,
        }
    }

    /// Logits `[B, C, h, w]` (of the whole input, padding included) at the size of the frame, `[B, C, height, width]`; for
    /// [`Postprocess::Probability`] probabilities. See [`Postprocess::threshold`].
    ///
    /// # Errors
    /// libtorch's.
    pub fn at_frame_size(self, logits: &Tensor, placement: &Placement) -> Result<Tensor, TchError> {
        let size = |(width, height): (usize, usize)| [height as i64, width as i64];
        let resize = |t: &Tensor, to: [i64; 2]| t.f_upsample_bilinear2d(to, false, None, None);
        let cut = |t: &Tensor| {
            let [rows, columns] = size(placement.scaled);
            t.f_narrow(2, 0, rows)?.f_narrow(3, 0, columns)
        };
        let frame = size(placement.frame);
        match self {
            Self::Crop => resize(&cut(logits)?, frame),
            Self::Direct => resize(logits, frame),
            Self::ThroughInput => {
                resize(&cut(&resize(logits, size((placement.side, placement.side)))?)?, frame)
            }
            Self::Probability => resize(&logits.f_sigmoid()?, frame),
        }
    }

    /// Values of [`Postprocess::at_frame_size`] above this are inside.
    pub fn threshold(self) -> f64 {
        match self {
            Self::Probability => 0.5,
            Self::Crop | Self::Direct | Self::ThroughInput => 0.0,
        }
    }

    /// Masks of the classes `classes`, one for each answer, in their order. With `keep_logits` each has the logits as
    /// they are in `decoded` (SAM 2's within +-32), not cleaned.
    ///
    /// # Errors
    /// NaN or infinity in logits, score or presence, another number of answers than of classes, a failure of libtorch.
    pub fn class_masks(
        self,
        decoded: &Decoded<'_>,
        classes: &[usize],
        placement: &Placement,
        keep_logits: bool,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let _guard = tch::no_grad_guard();
        let (_, rows, cols) = checked(decoded, classes)?;
        let logits = to_vec(decoded.logits)?;
        let scores = per_class(decoded.scores, classes, "score")?;
        let presence = match decoded.presence {
            Some(presence) => per_class(presence, classes, "presence")?,
            None => vec![f32::INFINITY; classes.len()],
        };
        let insides = Insides::new(self, decoded, placement)?;
        let planes = logits.chunks_exact(rows * cols);
        let mut answers = Vec::with_capacity(classes.len());
        for (i, (plane, &class)) in planes.zip(classes).enumerate() {
            if plane.iter().any(|v| !v.is_finite()) {
                return Err(SegmentError::NonFinite { what: "logits", class });
            }
            answers.push(ClassMask {
                class,
                mask: to_mask(&insides.of(i as i64)?, placement.frame)?,
                score: scores[i],
                presence: certainty(presence[i]),
                logits: keep_logits.then(|| LowResLogits {
                    width: cols,
                    height: rows,
                    values: self.returned(plane),
                }),
            });
        }
        Ok(answers)
    }

    fn returned(self, plane: &[f32]) -> Vec<f32> {
        match self {
            Self::Direct => plane.iter().map(|v| v.clamp(-RETURNED, RETURNED)).collect(),
            Self::Crop | Self::ThroughInput | Self::Probability => plane.to_vec(),
        }
    }
}

/// The number of answers, and the rows and columns of their logits.
fn checked(decoded: &Decoded<'_>, classes: &[usize]) -> Result<(i64, usize, usize), SegmentError> {
    let (batch, channels, rows, cols) = decoded.logits.size4()?;
    if (batch, channels) != (classes.len() as i64, 1) {
        let classes = classes.len();
        return Err(SegmentError::Other(format!(
            "{batch} answers of {channels} masks for {classes} classes"
        )));
    }
    if rows < 1 || cols < 1 {
        return Err(SegmentError::Other(format!("logits of {cols}x{rows}; expected at least one pixel")));
    }
    Ok((batch, rows as usize, cols as usize))
}

/// The probability of a logit of presence.
fn certainty(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Whether as many values of something were `found` as there are classes.
fn one_each(found: usize, classes: &[usize], what: &str) -> Result<(), SegmentError> {
    let expected = classes.len();
    if found == expected {
        return Ok(());
    }
    Err(SegmentError::Other(format!("{found} values of {what} for {expected} classes")))
}

/// One number for each class.
fn per_class(tensor: &Tensor, classes: &[usize], what: &'static str) -> Result<Vec<f32>, SegmentError> {
    let values = to_vec(tensor)?;
    one_each(values.len(), classes, what)?;
    match values.iter().zip(classes).find(|(v, _)| !v.is_finite()) {
        Some((_, &class)) => Err(SegmentError::NonFinite { what, class }),
        None => Ok(values),
    }
}

fn to_mask(inside: &Tensor, (width, height): (usize, usize)) -> Result<Mask, SegmentError> {
    Mask::new(width, height, to_bytes(&inside.f_to_kind(Kind::Uint8)?)?)
        .ok_or_else(|| SegmentError::Other(format!("a mask that is not {width}x{height}")))
}

/// The values of a tensor of bytes.
fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>, TchError> {
    let tensor = read(tensor)?.f_contiguous()?;
    let mut bytes = vec![0u8; tensor.numel()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

fn to_vec(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let tensor = read(tensor)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut values = vec![0f32; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const EVERY: [Postprocess; 4] =
        [Postprocess::Crop, Postprocess::Direct, Postprocess::ThroughInput, Postprocess::Probability];

    fn masks(how: Postprocess, logits: &Tensor, score: f32) -> Result<Vec<ClassMask>, SegmentError> {
        let place = if matches!(how, Postprocess::Crop | Postprocess::ThroughInput) {
            Placement::new
        } else {
            Placement::square
        };
        let scores = Tensor::from_slice(&[score]).reshape([1, 1]);
        let decoded =
            Decoded { logits, scores: &scores, cleaned: None, presence: None, non_overlapping: None };
        how.class_masks(&decoded, &[7], &place(32, 16, 8), true)
    }

    #[test]
    fn padding_does_not_reach_the_mask() {
        // Positive only in the padding below the scaled picture of 8x4.
        let logits = Tensor::full([1, 1, 8, 8], -1.0, (Kind::Float, Device::Cpu));
        let _ = logits.narrow(2, 4, 4).fill_(5.0);
        for how in [Postprocess::Crop, Postprocess::ThroughInput] {
            let answer = masks(how, &logits, 0.5).unwrap().remove(0);
            assert_eq!(
                (answer.class, answer.mask.width(), answer.mask.height(), answer.mask.area()),
                (7, 32, 16, 0)
            );
            assert_eq!((answer.score, answer.presence), (0.5, 1.0));
            let kept = answer.logits.unwrap();
            assert_eq!((kept.width, kept.height, kept.values[63]), (8, 8, 5.0));
        }
        for how in [Postprocess::Direct, Postprocess::Probability] {
            assert!(masks(how, &logits, 0.5).unwrap()[0].mask.area() > 32 * 7, "{how:?}");
        }
    }

    #[test]
    fn values_that_are_no_numbers_are_errors() {
        let good = Tensor::zeros([1, 1, 8, 8], (Kind::Float, Device::Cpu));
        for how in EVERY {
            assert!(masks(how, &good, 1.0).is_ok());
            let nan = masks(how, &good, f32::NAN);
            assert!(matches!(nan, Err(SegmentError::NonFinite { what: "score", class: 7 })));
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let logits = good.copy();
                let _ = logits.narrow(3, 7, 1).narrow(2, 7, 1).fill_(bad);
                let answer = masks(how, &logits, 1.0);
                assert!(matches!(answer, Err(SegmentError::NonFinite { what: "logits", class: 7 })));
            }
        }
    }

    #[test]
    fn classes_keep_their_order_and_carry_their_presence() {
        let logits = Tensor::from_slice(&[50f32, -50.0]).view([2, 1, 1, 1]).expand([2, 1, 8, 8], false);
        let scores = Tensor::from_slice(&[0.25f32, 0.75]).view([2, 1]);
        let presence = Tensor::from_slice(&[0f32, -40.0]).view([2, 1]);
        let placement = Placement::square(12, 6, 32);
        let presence = Some(&presence);
        let decoded =
            Decoded { logits: &logits, cleaned: None, scores: &scores, presence, non_overlapping: None };
        let answers = Postprocess::Direct.class_masks(&decoded, &[4, 2], &placement, true).unwrap();
        let seen: Vec<_> = answers.iter().map(|a| (a.class, a.mask.area(), a.score, a.presence)).collect();
        assert_eq!(seen[0], (4, 72, 0.25, 0.5));
        assert_eq!((seen[1].0, seen[1].1, seen[1].2), (2, 0, 0.75));
        assert!(seen[1].3 < 1e-6);
        // Returned logits are clamped.
        assert_eq!(answers[0].logits.as_ref().unwrap().values[0], 32.0);
        // Another number of answers, of masks, of scores.
        for classes in [&[1usize][..], &[1, 2, 3]] {
            assert!(Postprocess::Direct.class_masks(&decoded, classes, &placement, false).is_err());
        }
        let one = scores.narrow(0, 0, 1);
        let decoded = Decoded { scores: &one, ..decoded };
        assert!(Postprocess::Direct.class_masks(&decoded, &[4, 2], &placement, false).is_err());
    }

    #[test]
    fn packed_answers_are_the_same_answers() {
        tch::manual_seed(5);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)) * 20.0;
        let (logits, cleaned) = (random(&[3, 1, 8, 8]), random(&[3, 1, 8, 8]));
        let (scores, presence) = (random(&[3, 1]), random(&[3, 1]));
        for how in EVERY {
            for placement in
                [Placement::new(32, 16, 8), Placement::square(13, 5, 8), Placement::square(1, 1, 8)]
            {
                for keep_logits in [false, true] {
                    for (cleaned, presence, non_overlapping) in [
                        (None, None, None),
                        (Some(&cleaned), Some(&presence), None),
                        (Some(&cleaned), Some(&presence), Some(0.5)),
                    ] {
                        let decoded =
                            Decoded { logits: &logits, scores: &scores, cleaned, presence, non_overlapping };
                        let classes = [4, 2, 9];
                        let expected = how.class_masks(&decoded, &classes, &placement, keep_logits).unwrap();
                        let one = how.pack(&decoded, &classes, &placement, keep_logits).unwrap();
                        // Two at once, of another number of classes and another size.
                        let small = Placement::square(3, 3, 8);
                        let part = logits.narrow(0, 1, 1);
                        let (logits, scores) = (&part, &scores.narrow(0, 1, 1));
                        let decoded =
                            Decoded { logits, scores, cleaned: None, presence: None, non_overlapping: None };
                        let other = how.pack(&decoded, &[7], &small, keep_logits).unwrap();
                        let both = [other, one];
                        let bytes = Packed::fetch(&both).unwrap();
                        let mut found = how.unpack(&both, &bytes).unwrap();
                        assert!(how.unpack(&both, &bytes[..bytes.len() - 1]).is_err());
                        let first = how.class_masks(&decoded, &[7], &small, keep_logits).unwrap();
                        assert_eq!(found.remove(0), first[0], "{how:?}");
                        assert!(found == expected, "{how:?} {placement:?}");
                    }
                }
            }
        }
        assert!(Packed::fetch(&[]).unwrap().is_empty());
    }

    #[test]
    fn packed_values_that_are_no_numbers_are_errors() {
        let placement = Placement::square(32, 16, 8);
        let good = Tensor::zeros([2, 1, 8, 8], (Kind::Float, Device::Cpu));
        let ones = Tensor::ones([2, 1], (Kind::Float, Device::Cpu));
        let ask = |logits: &Tensor, scores: &Tensor, presence: &Tensor| {
            let presence = Some(presence);
            let decoded = Decoded { logits, scores, cleaned: None, presence, non_overlapping: None };
            let answer = Postprocess::Direct.pack(&decoded, &[3, 7], &placement, false)?;
            let answer = [answer];
            Postprocess::Direct.unpack(&answer, &Packed::fetch(&answer)?)
        };
        let what = |answer: Result<Vec<ClassMask>, SegmentError>| match answer {
            Err(SegmentError::NonFinite { what, class }) => (what, class),
            other => panic!("{other:?}"),
        };
        assert_eq!(ask(&good, &ones, &ones).unwrap().len(), 2);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let spoilt = |of: &Tensor| {
                let of = of.copy();
                let _ = of.view([2, -1]).narrow(0, 1, 1).narrow(1, -1, 1).fill_(bad);
                of
            };
            assert_eq!(what(ask(&spoilt(&good), &ones, &ones)), ("logits", 7));
            assert_eq!(what(ask(&good, &spoilt(&ones), &ones)), ("score", 7));
            assert_eq!(what(ask(&good, &ones, &spoilt(&ones))), ("presence", 7));
        }
        assert!(matches!(ask(&good, &ones.narrow(0, 0, 1), &ones), Err(SegmentError::Other(_))));
        assert!(matches!(ask(&good.narrow(0, 0, 1), &ones, &ones), Err(SegmentError::Other(_))));
    }
}
