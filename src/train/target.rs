//! What is true of a view of a picture, in the forms that the network's answers have.

use tch::{Device, Kind, Tensor};

use super::TrainError;
use crate::mask::{Bounds, Mask};
use crate::segment::preprocess::{Placement, mask_canvas};

/// The truth of a view: a mask for each class of its data set.
///
/// The box of a class is the smallest one around all of its regions: one answer per class is asked for, and one box has to
/// hold all that the answer shall. A class whose regions lie far apart has a large box, mostly of background.
#[derive(Debug)]
pub struct Target {
    /// 1 inside, 0 outside, at the side of the decoder's answer; padding is outside. `[K, 1, n, n]`, `u8`.
    low: Tensor,
    /// The masks at the size of the frame.
    pub masks: Vec<Mask>,
    /// Boxes in pixels of the frame; none for a class that is not there.
    pub boxes: Vec<Option<Bounds>>,
    /// Boxes in pixels of the input over its side, `[K, 4]`; zeros for a class that is not there.
    fractions: Tensor,
    /// 1 for a class that is there, else 0, `[K]`.
    present: Tensor,
}

impl Target {
    /// Of `masks` of a frame that lies in the input as `placement` says. `side` is that of the decoder's answer.
    ///
    /// # Errors
    /// libtorch's.
    pub fn new(masks: Vec<Mask>, placement: &Placement, side: i64) -> Result<Self, TrainError> {
        let _guard = tch::no_grad_guard();
        let mut low = Vec::with_capacity(masks.len());
        let mut fractions = Vec::with_capacity(masks.len() * 4);
        let boxes: Vec<_> = masks.iter().map(Mask::bounds).collect();
        for (mask, bounds) in masks.iter().zip(&boxes) {
            let canvas = mask_canvas(mask, placement)?;
            // A cell is of the class that has at least half of it; of a class that is too small for that, the cells that have most.
            let share = canvas.f_adaptive_avg_pool2d([side, side])?;
            let most = f64::try_from(share.f_max()?)?;
            let threshold = if most > 0.0 { most.min(0.5) } else { 0.5 };
            low.push(share.f_ge(threshold)?.f_to_kind(Kind::Uint8)?);
            let in_input = bounds.map_or([0.0; 4], |b| placement.box_to_input(b.corners()));
            fractions.extend(in_input.map(|v| v / placement.side as f32));
        }
        let present: Vec<f32> = boxes.iter().map(|b| f32::from(u8::from(b.is_some()))).collect();
        let classes = masks.len() as i64;
        Ok(Self {
            low: Tensor::f_cat(&low, 0)?,
            fractions: Tensor::f_from_slice(&fractions)?.f_reshape([classes, 4])?,
            present: Tensor::f_from_slice(&present)?,
            masks,
            boxes,
        })
    }

    /// Masks `[K, 1, n, n]`, boxes `[K, 4]` and presence `[K]` for the classes `which`, `f32` on `device`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn of(&self, which: &[usize], device: Device) -> Result<(Tensor, Tensor, Tensor), TrainError> {
        let index: Vec<i64> = which.iter().map(|&class| class as i64).collect();
        let index = Tensor::f_from_slice(&index)?;
        let rows = |t: &Tensor| t.f_index_select(0, &index)?.f_to_device(device)?.f_to_kind(Kind::Float);
        Ok((rows(&self.low)?, rows(&self.fractions)?, rows(&self.present)?))
    }
}
