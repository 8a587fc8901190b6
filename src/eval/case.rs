//! One class in one picture: what was there, what was said, and how far apart they are.

use super::{Answer, Overlap, centroid_error, hd95, regions};
use crate::mask::Mask;

/// How far a mask is from the truth. Only where both have pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distances {
    /// 95th percentile of the distances between the outlines ([`hd95`]).
    pub hd95: f64,
    /// Distance between the centres of gravity ([`centroid_error`]).
    pub centroid: f64,
}

impl Distances {
    /// In the units of `spacing`, the width and height of a pixel.
    pub fn of(mask: &Mask, truth: &Mask, spacing: (f64, f64)) -> Option<Self> {
        Some(Self { hd95: hd95(mask, truth, spacing)?, centroid: centroid_error(mask, truth, spacing)? })
    }
}

/// One class in one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Name of the picture.
    pub image: String,
    /// Which view of it: 0 is the picture as it is.
    pub view: usize,
    /// Index of the class.
    pub class: usize,
    /// Whether the segmenter was asked for the class.
    pub asked: bool,
    /// Pixels of mask and truth.
    pub overlap: Overlap,
    /// Regions that the truth has.
    pub regions: usize,
    /// In pixels.
    pub px: Option<Distances>,
    /// In millimetres, where the size of a pixel is known.
    pub mm: Option<Distances>,
    /// Predicted IoU.
    pub score: f32,
    /// Probability that the class is there.
    pub presence: f32,
    /// Time that the segmenter took for the picture with all its classes, in milliseconds; `None` where it was not asked.
    pub milliseconds: Option<f64>,
}

impl Case {
    /// Measures `answer`. `spacing` is the width and height of a pixel in millimetres. `None` for masks of different sizes.
    pub fn of(
        (image, view): (&str, usize),
        class: usize,
        answer: &Answer,
        truth: &Mask,
        spacing: Option<(f64, f64)>,
        milliseconds: Option<f64>,
    ) -> Option<Self> {
        Some(Self {
            image: image.to_owned(),
            view,
            class,
            asked: answer.asked,
            overlap: Overlap::of(&answer.mask, truth)?,
            regions: regions(truth).len(),
            px: Distances::of(&answer.mask, truth, (1.0, 1.0)),
            mm: spacing.and_then(|spacing| Distances::of(&answer.mask, truth, spacing)),
            score: answer.score,
            presence: answer.presence,
            milliseconds,
        })
    }

    /// Dice coefficient, where the truth has the class: 0 where nothing was said.
    pub fn dice(&self) -> Option<f64> {
        self.overlap.is_present().then(|| self.overlap.dice()).flatten()
    }

    /// Intersection over union, where the truth has the class.
    pub fn iou(&self) -> Option<f64> {
        self.overlap.is_present().then(|| self.overlap.iou()).flatten()
    }
}
