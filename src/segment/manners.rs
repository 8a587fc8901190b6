//! How a network is asked and its answers read, as its weights were trained.

use super::postprocess::Postprocess;
use super::preprocess::Preprocess;
use crate::nn::MaskSelection;
use crate::weights::Family;

/// The handlings of pictures that metadata may name.
pub(super) const HANDLINGS: &str = "sam2rad, sam2rad-square or sam2-video";

/// How a family is asked, which its weights were trained with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Manners {
    /// Frame to input.
    pub preprocess: Preprocess,
    /// Logits to masks.
    pub postprocess: Postprocess,
    /// A box is given as two points before the others (SAM 2's predictors), else as a box (SAM's).
    pub boxes_as_points: bool,
    /// What a single answer is.
    pub single: MaskSelection,
    /// A click alone can mean a part or the whole: the best of three candidates is taken.
    pub candidates_for_a_click: bool,
    /// To a mask alone the network answers with nothing, as it was trained with boxes: it is given the mask's box too.
    pub box_around_a_mask: bool,
}

impl Manners {
    /// What the weights of `family` were published with.
    pub fn of(family: Family) -> Self {
        let sam2 = family.is_sam2();
        let boxes_only = matches!(family, Family::LiteMedSam | Family::MedSam);
        Self {
            preprocess: Preprocess::of(family),
            postprocess: Postprocess::of(family),
            boxes_as_points: sam2,
            single: if sam2 { MaskSelection::Stable } else { MaskSelection::Single },
            candidates_for_a_click: !boxes_only,
            box_around_a_mask: boxes_only,
        }
    }

    /// The same for weights that were trained with another handling of pictures, by its name in the metadata, one of
    /// [`HANDLINGS`]: the data set of Sam2Rad's authors (`sam2rad`) and their validation (`sam2rad-square`), SAM 2's loader of
    /// video frames, which MedSAM2 uses too (`sam2-video`). `None` for any other name. The authors of Sam2Rad never had
    /// LiteMedSAM, whose mask prompts are of another size than theirs: it keeps its own.
    pub fn trained_with(self, name: &str) -> Option<Self> {
        let sam2rad = |preprocess, postprocess| match self.preprocess {
            Preprocess::LiteMedSam => self,
            _ => Self { preprocess, postprocess, ..self },
        };
        match name {
            "sam2rad" => Some(sam2rad(Preprocess::Sam2Rad, Postprocess::ThroughInput)),
            "sam2rad-square" => Some(sam2rad(Preprocess::Sam2RadSquare, Postprocess::Direct)),
            "sam2-video" => (self.preprocess == Preprocess::Sam2)
                .then_some(Self { preprocess: Preprocess::Sam2Video, ..self }),
            _ => None,
        }
    }
}
