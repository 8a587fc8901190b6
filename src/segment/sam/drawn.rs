//! What was said, as masks of the frame: drawn here, or where the network is and then fetched.

use tch::Tensor;

use super::{Cleanup, Sam};
use crate::mask::{ClassMask, Mask};
use crate::segment::SegmentError;
use crate::segment::device::read;
use crate::segment::postprocess::{Decoded, Packed, clean};
use crate::segment::preprocess::Placement;
use crate::segment::said::Said;
use crate::stage::{Stage, StageTimes};

/// Answers about some classes as masks: here, or where the network is.
#[derive(Debug)]
pub(in crate::segment) enum Made {
    Here(Vec<ClassMask>),
    OnDevice(Packed),
}

/// An answer that has been fetched from the device and not been looked at.
#[derive(Debug)]
pub(in crate::segment) struct Ahead {
    packed: [Packed; 1],
    bytes: Vec<u8>,
}

impl Sam {
    /// What was said, on its way to masks of the frame.
    pub(in crate::segment) fn made(
        &self,
        said: &Said,
        placement: &Placement,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Made, SegmentError> {
        let Cleanup { presence_threshold, max_hole_area, max_sprinkle_area, non_overlapping } = self.cleanup;
        let how = self.network.manners().postprocess;
        self.timed(times, Stage::Postprocess, || {
            let cleaned = if max_hole_area > 0 || max_sprinkle_area > 0 {
                Some(clean(&said.logits, max_hole_area, max_sprinkle_area, self.resident.is_some())?)
            } else {
                None
            };
            let decoded = Decoded {
                logits: &said.logits,
                cleaned: cleaned.as_ref(),
                scores: &said.iou,
                presence: said.object_score.as_ref(),
                non_overlapping: non_overlapping.then_some(presence_threshold),
            };
            Ok(if self.resident.is_some() {
                Made::OnDevice(how.pack(&decoded, &said.classes, placement, keep_logits)?)
            } else {
                Made::Here(how.class_masks(&decoded, &said.classes, placement, keep_logits)?)
            })
        })
    }

    /// The masks, by their classes. Where they were made on the device this waits for it, for all of them at once.
    pub(in crate::segment) fn masks(
        &self,
        made: Vec<Made>,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let (mut masks, mut packed) = (Vec::new(), Vec::new());
        for made in made {
            match made {
                Made::Here(found) => masks.extend(found),
                Made::OnDevice(answer) => packed.push(answer),
            }
        }
        if !packed.is_empty() {
            let bytes = self.timed(times, Stage::Postprocess, || Packed::fetch(&packed))?;
            masks.extend(self.unpacked(&packed, &bytes, times)?);
        }
        Ok(self.shown(masks))
    }

    /// Masks of what has been fetched from the device.
    fn unpacked(
        &self,
        packed: &[Packed],
        bytes: &[u8],
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let how = self.network.manners().postprocess;
        let masks = times.time(Stage::Postprocess, || how.unpack(packed, bytes))?;
        self.clock.pass();
        Ok(masks)
    }

    /// Masks as they are given out.
    fn shown(&self, mut masks: Vec<ClassMask>) -> Vec<ClassMask> {
        for found in masks.iter_mut().filter(|m| m.presence < self.cleanup.presence_threshold) {
            found.mask = Mask::empty(found.mask.width(), found.mask.height());
        }
        masks.sort_by_key(|m| m.class);
        masks
    }

    /// `f32` numbers `[n]` of the device, and in the same copy what was made there, to be looked at by [`Sam::masks_ahead`]; `None` of what was made
    /// here.
    pub(in crate::segment) fn fetched(
        &self,
        numbers: &Tensor,
        made: Made,
        times: &mut StageTimes,
    ) -> Result<(Vec<f32>, Option<Ahead>), SegmentError> {
        let Made::OnDevice(packed) = made else { return Ok((Vec::<f32>::try_from(&read(numbers)?)?, None)) };
        let packed = [packed];
        let (numbers, bytes) =
            self.timed(times, Stage::Postprocess, || Packed::fetch_beside(numbers, &packed))?;
        Ok((numbers, Some(Ahead { packed, bytes })))
    }

    /// The masks of what was fetched before it was known that they are wanted.
    pub(in crate::segment) fn masks_ahead(
        &self,
        ahead: &Ahead,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        Ok(self.shown(self.unpacked(&ahead.packed, &ahead.bytes, times)?))
    }
}
