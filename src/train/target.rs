//! What is true of a view of a picture, in the forms that the network's answers have.

use tch::{Device, Kind, Tensor};

use super::TrainError;
use crate::mask::{Bounds, Mask};
use crate::segment::preprocess::{Placement, mask_canvas, mask_shares};

/// Share of the fullest cell that a cell of a thin class has. A line that falls between two rows has half of each that it would have
/// of one: a little less than that, so that rounding leaves no gaps.
const MOST: f64 = 0.4;

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
            low.push(cells(mask, placement, side)?.f_to_kind(Kind::Uint8)?);
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

/// Cells of the decoder's answer that are of the class: those of which it has at least half.
///
/// A class that is too thin or too small for that anywhere, a line of a pixel in a large picture, has those of which it has most:
/// [`MOST`] of what it has of its fullest cell. That is asked of the shares and not of a mask at the size of the input, in which such
/// a class leaves dots or nothing at all.
fn cells(mask: &Mask, placement: &Placement, side: i64) -> Result<Tensor, TrainError> {
    let share = mask_canvas(mask, placement)?.f_adaptive_avg_pool2d([side, side])?;
    if f64::try_from(share.f_max()?)? >= 0.5 {
        return Ok(share.f_ge(0.5)?);
    }
    let share = mask_shares(mask, placement)?.f_adaptive_avg_pool2d([side, side])?;
    let most = f64::try_from(share.f_max()?)?;
    // Where nothing is, nothing reaches the half.
    let threshold = if most <= 0.0 || most >= 0.5 { 0.5 } else { MOST * most };
    Ok(share.f_ge(threshold)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(width: usize, height: usize, inside: impl Fn(usize, usize) -> bool) -> Mask {
        let mut mask = Mask::empty(width, height);
        for (x, y) in (0..width).flat_map(|x| (0..height).map(move |y| (x, y))) {
            if inside(x, y) {
                mask.set(x, y, true);
            }
        }
        mask
    }

    /// Columns of the target with a cell, and cells of the fullest column.
    fn columns(mask: Mask, placement: &Placement, side: i64) -> (usize, usize) {
        let target = Target::new(vec![mask], placement, side).unwrap();
        let low = target.low.f_to_kind(Kind::Int64).unwrap();
        let sums = low.f_reshape([side, side]).unwrap().sum_dim_intlist(0, false, Kind::Int64);
        let sums = Vec::<i64>::try_from(sums).unwrap();
        let most = sums.iter().max().copied().unwrap_or(0);
        (sums.iter().filter(|sum| **sum > 0).count(), most as usize)
    }

    #[test]
    fn a_thin_line_in_a_large_picture_is_whole() {
        let placement = Placement::new(2000, 1500, 256);
        // From 100 to 1900 of 2000 pixels: 230 cells of 256.
        for (name, slope) in [("level", 0.0), ("sloping", 0.21), ("steep", 0.7)] {
            for thick in 1..=3 {
                let inside = |x: usize, y: usize| {
                    let top = (100.0 + slope * x as f64) as usize;
                    (100..1900).contains(&x) && (top..top + thick).contains(&y)
                };
                let (seen, most) = columns(drawn(2000, 1500, inside), &placement, 256);
                assert!((226..=234).contains(&seen), "{name}, {thick} px: {seen} columns");
                assert!((1..=4).contains(&most), "{name}, {thick} px: {most} cells in a column");
            }
        }
        assert_eq!(columns(Mask::empty(2000, 1500), &placement, 256), (0, 0));
    }

    #[test]
    fn the_box_of_a_class_holds_all_of_its_regions() {
        let placement = Placement::new(200, 100, 256);
        let left = |x: usize, y: usize| (20..40).contains(&x) && (10..30).contains(&y);
        let right = |x: usize, y: usize| (150..180).contains(&x) && (60..90).contains(&y);
        let both = drawn(200, 100, |x, y| left(x, y) || right(x, y));
        let masks = vec![drawn(200, 100, left), both, Mask::empty(200, 100)];
        let target = Target::new(masks, &placement, 64).unwrap();
        let around = |x1, y1| Some(Bounds { x0: 20, y0: 10, x1, y1 });
        assert_eq!(target.boxes, [around(40, 30), around(180, 90), None]);
        let (low, boxes, present) = target.of(&[0, 1, 2], Device::Cpu).unwrap();
        let flat = |t: &Tensor| Vec::<f64>::try_from(t.to_kind(Kind::Double).view(-1)).unwrap();
        // 200 pixels are the side of the input.
        let expected: [[f64; 4]; 3] = [[0.1, 0.05, 0.2, 0.15], [0.1, 0.05, 0.9, 0.45], [0.0; 4]];
        let (found, expected) = (flat(&boxes), expected.as_flattened());
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        assert_eq!(flat(&present), [1.0, 1.0, 0.0]);
        // Cells of 3.125 pixels: in the middle of each region, and between them.
        let cells =
            |class: i64| [(9, 6), (52, 24), (32, 16)].map(|(x, y)| low.double_value(&[class, 0, y, x]));
        assert_eq!([cells(0), cells(1), cells(2)], [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0; 3]]);
    }

    #[test]
    fn what_fills_half_a_cell_is_as_it_was() {
        for (width, height, side) in [(300, 200, 64), (90, 120, 256)] {
            let placement = Placement::new(width, height, 256);
            let disc = |x: usize, y: usize| x.abs_diff(45).pow(2) + y.abs_diff(50).pow(2) < 30 * 30;
            let mask = drawn(width, height, disc);
            let share = mask_canvas(&mask, &placement).unwrap().adaptive_avg_pool2d([side, side]);
            let expected = share.ge(0.5).to_kind(Kind::Uint8);
            assert_eq!(Target::new(vec![mask], &placement, side).unwrap().low, expected);
        }
    }
}
