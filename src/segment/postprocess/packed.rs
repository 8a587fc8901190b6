//! Answers that leave the device together: masks of eight pixels a byte, and the numbers beside them.

use tch::{Kind, TchError, Tensor};

use super::{Decoded, Insides, Postprocess, certainty, checked, one_each, to_bytes};
use crate::mask::{ClassMask, LowResLogits, Mask};
use crate::segment::SegmentError;
use crate::segment::preprocess::Placement;

/// Numbers of a class: predicted IoU, logit of presence, 1 if its logits are all finite.
const NUMBERS: usize = 3;

/// Answers about some classes on the device, on their way to the CPU.
///
/// Of each class, one after the other: the mask, row by row, eight pixels a byte from the highest bit on; then of all of them the
/// [`NUMBERS`]; then, if they are kept, the logits.
#[derive(Debug)]
pub struct Packed {
    classes: Vec<usize>,
    bytes: Tensor,
    frame: (usize, usize),
    /// Rows and columns of the logits that are kept.
    kept: Option<(usize, usize)>,
}

impl Packed {
    /// Waits for all `answers` at once, and gives their bytes one after the other.
    ///
    /// # Errors
    /// What failed on the device.
    pub fn fetch(answers: &[Self]) -> Result<Vec<u8>, TchError> {
        if answers.is_empty() {
            return Ok(Vec::new());
        }
        together(answers.iter().map(|a| &a.bytes))
    }

    /// The same with `f32` numbers `[n]` of the device, in one copy.
    ///
    /// # Errors
    /// What failed on the device.
    pub fn fetch_beside(numbers: &Tensor, answers: &[Self]) -> Result<(Vec<f32>, Vec<u8>), TchError> {
        let first = as_bytes(numbers)?;
        let mut bytes = together(std::iter::once(&first).chain(answers.iter().map(|a| &a.bytes)))?;
        let rest = bytes.split_off(first.numel());
        Ok((as_numbers(&bytes), rest))
    }
}

impl Postprocess {
    /// What [`Postprocess::class_masks`] makes of the answers, as far as it is made on the device. Nothing waits for the device here.
    ///
    /// # Errors
    /// Another number of answers than of classes, libtorch's.
    pub fn pack(
        self,
        decoded: &Decoded<'_>,
        classes: &[usize],
        placement: &Placement,
        keep_logits: bool,
    ) -> Result<Packed, SegmentError> {
        let _guard = tch::no_grad_guard();
        let (count, rows, columns) = checked(decoded, classes)?;
        let column = |t: &Tensor, what: &str| -> Result<Tensor, SegmentError> {
            one_each(t.numel(), classes, what)?;
            Ok(t.f_to_kind(Kind::Float)?.f_reshape([count, 1])?)
        };
        let score = column(decoded.scores, "score")?;
        let presence = match decoded.presence {
            Some(presence) => column(presence, "presence")?,
            // Certain. As large as it can be without being infinite, which would be an error.
            None => score.f_full_like(f64::from(f32::MAX))?,
        };
        let flat = decoded.logits.f_to_kind(Kind::Float)?.f_reshape([count, -1])?;
        let finite = flat.f_isfinite()?.f_all_dim(1, true)?.f_to_kind(Kind::Float)?;
        let insides = Insides::new(self, decoded, placement)?;
        let mut parts = Vec::with_capacity(classes.len() + 2);
        for i in 0..count {
            parts.push(packed(&insides.of(i)?.f_reshape([-1])?)?);
        }
        parts.push(as_bytes(&Tensor::f_cat(&[score, presence, finite], 1)?)?);
        if keep_logits {
            parts.push(as_bytes(&flat)?);
        }
        Ok(Packed {
            classes: classes.to_vec(),
            bytes: Tensor::f_cat(&parts, 0)?,
            frame: placement.frame,
            kept: keep_logits.then_some((rows, columns)),
        })
    }

    /// The masks of `answers`, in their order, from the `bytes` that [`Packed::fetch`] gave.
    ///
    /// # Errors
    /// NaN or infinity in logits, score or presence; too few bytes.
    pub fn unpack(self, answers: &[Packed], bytes: &[u8]) -> Result<Vec<ClassMask>, SegmentError> {
        let mut rest = bytes;
        let mut masks = Vec::new();
        for answer in answers {
            let (own, after) = rest.split_at_checked(answer.bytes.numel()).unwrap_or((rest, &[]));
            masks.extend(self.unpack_one(answer, own)?);
            rest = after;
        }
        Ok(masks)
    }

    fn unpack_one(self, answer: &Packed, bytes: &[u8]) -> Result<Vec<ClassMask>, SegmentError> {
        let (width, height) = answer.frame;
        let mask_len = (width * height).div_ceil(8);
        let (drawn, rest) = bytes.split_at_checked(mask_len * answer.classes.len()).unwrap_or((bytes, &[]));
        let values = as_numbers(rest);
        let (numbers, logits) =
            values.split_at_checked(NUMBERS * answer.classes.len()).unwrap_or((&values, &[]));
        let short = || SegmentError::Other("an answer that is shorter than it should be".into());
        let mut found = Vec::with_capacity(answer.classes.len());
        for (i, &class) in answer.classes.iter().enumerate() {
            let &[score, presence, finite] = numbers.as_chunks::<NUMBERS>().0.get(i).ok_or_else(short)?;
            for (what, value) in [
                ("logits", if finite > 0.5 { 0.0 } else { f32::NAN }),
                ("score", score),
                ("presence", presence),
            ] {
                if !value.is_finite() {
                    return Err(SegmentError::NonFinite { what, class });
                }
            }
            let bits = drawn.get(i * mask_len..(i + 1) * mask_len).ok_or_else(short)?;
            let logits = match answer.kept {
                Some((rows, columns)) => {
                    let plane = logits.get(i * rows * columns..(i + 1) * rows * columns).ok_or_else(short)?;
                    Some(LowResLogits { width: columns, height: rows, values: self.returned(plane) })
                }
                None => None,
            };
            found.push(ClassMask {
                class,
                mask: Mask::from_bits(width, height, bits).ok_or_else(short)?,
                score,
                presence: certainty(presence),
                logits,
            });
        }
        Ok(found)
    }
}

/// Bytes of the device one after the other, in one copy.
fn together<'a>(parts: impl Iterator<Item = &'a Tensor>) -> Result<Vec<u8>, TchError> {
    to_bytes(&Tensor::f_cat(&parts.collect::<Vec<_>>(), 0)?)
}

/// The memory of `f32`.
fn as_bytes(t: &Tensor) -> Result<Tensor, TchError> {
    t.f_contiguous()?.f_view_dtype(Kind::Uint8)?.f_reshape([-1])
}

/// The `f32` that were there.
fn as_numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|v| f32::from_ne_bytes(*v)).collect()
}

/// `[n]` of 0 and 1 as `[ceil(n / 8)]` bytes, the first in the highest bit.
fn packed(inside: &Tensor) -> Result<Tensor, TchError> {
    let missing = (8 - inside.numel() % 8) % 8;
    let bits = inside.f_to_kind(Kind::Uint8)?.f_constant_pad_nd([0, missing as i64])?.f_reshape([-1, 8])?;
    // Made on the device: a copy of eight numbers to it would wait for everything before.
    let places = Tensor::f_arange_start_step(7, -1, -1, (Kind::Uint8, inside.device()))?;
    bits.f_bitwise_left_shift(&places)?.f_sum_dim_intlist(1, false, Kind::Uint8)
}
