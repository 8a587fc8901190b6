//! Where answers are inside of the frame, and which of them has a pixel that several claim.

use tch::{Kind, TchError, Tensor};

use super::{Decoded, Postprocess};
use crate::segment::preprocess::Placement;

/// Row of a pixel that no answer has.
const NOBODY: i64 = -1;

/// Where each answer is inside, at the size of the frame.
pub(super) struct Insides<'a> {
    how: Postprocess,
    decoded: &'a Decoded<'a>,
    placement: &'a Placement,
    /// Where they do not overlap: the row of the answer that has the pixel, `[1, 1, height, width]`.
    owners: Option<Tensor>,
}

impl<'a> Insides<'a> {
    /// Of the answers `decoded`. Nothing waits for the device here.
    ///
    /// # Errors
    /// libtorch's.
    pub fn new(
        how: Postprocess,
        decoded: &'a Decoded<'a>,
        placement: &'a Placement,
    ) -> Result<Self, TchError> {
        let mut insides = Self { how, decoded, placement, owners: None };
        if let Some(least) = decoded.non_overlapping {
            insides.owners = Some(insides.shared_out(least)?);
        }
        Ok(insides)
    }

    /// Of the answer `row`, `[1, 1, height, width]` of truth values.
    ///
    /// # Errors
    /// libtorch's.
    pub fn of(&self, row: i64) -> Result<Tensor, TchError> {
        match &self.owners {
            Some(owners) => owners.f_eq(row),
            None => self.claimed(row),
        }
    }

    /// What the answer claims, whether or not another does. One at a time: at full size an answer takes megabytes.
    fn claimed(&self, row: i64) -> Result<Tensor, TchError> {
        let shown = self.decoded.cleaned.unwrap_or(self.decoded.logits);
        let full = self.how.at_frame_size(&shown.f_narrow(0, row, 1)?, self.placement)?;
        full.f_gt(self.how.threshold())
    }

    /// Each pixel to the one of highest logit of those that claim it, the first of equal ones, as in SAM 2
    /// (`_apply_non_overlapping_constraints`). An answer that is less likely to be in the frame than `least` takes nothing from the
    /// others.
    fn shared_out(&self, least: f32) -> Result<Tensor, TchError> {
        // A filled hole is no surer than it was, so what lies in it keeps its pixels. Probabilities near 1 are all the same.
        let logits = self.decoded.logits;
        let resized = if self.how == Postprocess::Probability { Postprocess::Direct } else { self.how };
        let as_claimed = resized == self.how && self.decoded.cleaned.is_none();
        let rows = logits.size4()?.0;
        let there = match self.decoded.presence {
            Some(presence) => Some(presence.f_sigmoid()?.f_ge(f64::from(least))?.f_reshape([rows, 1, 1, 1])?),
            None => None,
        };
        let (width, height) = self.placement.frame;
        let size = [1, 1, height as i64, width as i64];
        let mut owners = Tensor::f_full(size, NOBODY, (Kind::Int16, logits.device()))?;
        let mut highest = Tensor::f_full(size, f64::NEG_INFINITY, (logits.kind(), logits.device()))?;
        for row in 0..rows {
            let full = resized.at_frame_size(&logits.f_narrow(0, row, 1)?, self.placement)?;
            // A plane at full size takes milliseconds: the one that is claimed by serves for both where it is the same.
            let claimed = if as_claimed { full.f_gt(self.how.threshold())? } else { self.claimed(row)? };
            let mut takes = claimed.f_logical_and(&full.f_gt_tensor(&highest)?)?;
            if let Some(there) = &there {
                takes = takes.f_logical_and(&there.f_narrow(0, row, 1)?)?;
            }
            owners = owners.f_masked_fill(&takes, row)?;
            highest = full.f_where_self(&takes, &highest)?;
        }
        Ok(owners)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::segment::postprocess::Packed;

    fn rows(values: &[[f32; 4]]) -> Tensor {
        Tensor::from_slice(&values.concat()).view([values.len() as i64, 1, 1, 4])
    }

    /// Masks as rows of 0 and 1, made here and on the device.
    fn drawn(how: Postprocess, decoded: &Decoded<'_>) -> Vec<Vec<u8>> {
        let classes: Vec<usize> = (0..decoded.logits.size()[0] as usize).collect();
        let placement = Placement::square(4, 1, 4);
        let here = how.class_masks(decoded, &classes, &placement, false).unwrap();
        let packed = [how.pack(decoded, &classes, &placement, false).unwrap()];
        let there = how.unpack(&packed, &Packed::fetch(&packed).unwrap()).unwrap();
        assert!(here == there);
        here.iter().map(|found| found.mask.data().to_vec()).collect()
    }

    fn scores(n: i64) -> Tensor {
        Tensor::zeros([n, 1], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn a_pixel_has_one_owner() {
        let logits = rows(&[[3.0, -3.0, 2.0, 1.0], [1.0, 2.0, 5.0, 1.0], [-1.0, -9.0, 4.0, -1.0]]);
        let both = Decoded {
            logits: &logits,
            cleaned: None,
            scores: &scores(3),
            presence: None,
            non_overlapping: None,
        };
        let apart = Decoded { non_overlapping: Some(0.5), ..both };
        for how in [Postprocess::Direct, Postprocess::Probability] {
            assert_eq!(drawn(how, &both), [[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 0]]);
            assert_eq!(drawn(how, &apart), [[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]]);
        }
        // Where probabilities are all 1 as well.
        let logits = rows(&[[18.0; 4], [25.0; 4]]);
        let apart = Decoded { logits: &logits, scores: &scores(2), ..apart };
        assert_eq!(drawn(Postprocess::Probability, &apart), [[0; 4], [1; 4]]);
    }

    #[test]
    fn who_is_not_there_takes_nothing() {
        let logits = rows(&[[3.0, -3.0, 2.0, -1.0], [1.0, 2.0, 5.0, 1.0]]);
        let presence = Tensor::from_slice(&[4.0f32, 0.0]).view([2, 1]);
        let at_least = |least| {
            let decoded = Decoded {
                logits: &logits,
                cleaned: None,
                scores: &scores(2),
                presence: Some(&presence),
                non_overlapping: Some(least),
            };
            drawn(Postprocess::Direct, &decoded)
        };
        assert_eq!(at_least(0.6), [[1, 0, 1, 0], [0, 0, 0, 0]]);
        assert_eq!(at_least(0.5), [[1, 0, 0, 0], [0, 1, 1, 1]]);
    }

    #[test]
    fn what_lies_in_a_filled_hole_keeps_its_pixels() {
        let logits = rows(&[[3.0, -1.0, -1.0, 3.0], [-2.0, 5.0, -2.0, 1.0]]);
        let cleaned = rows(&[[3.0, 10.0, 10.0, 3.0], [-2.0, 5.0, -2.0, 1.0]]);
        let decoded = Decoded {
            logits: &logits,
            cleaned: Some(&cleaned),
            scores: &scores(2),
            presence: None,
            non_overlapping: Some(0.5),
        };
        assert_eq!(drawn(Postprocess::Direct, &decoded), [[1, 0, 1, 1], [0, 1, 0, 0]]);
    }
}
