//! What a network is told of where a class lies: the columns of the paper's tables.

use std::fmt;
use std::str::FromStr;

use crate::segment::Mode;

/// Where the prompts of an evaluation come from. Manual ones are made from the truth, see [`Question`](super::Question).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prompting {
    /// The prompt predictor alone (LP in the paper).
    Auto,
    /// One box around all that a class has in the picture (BB).
    Box,
    /// One box around each region of a class, and the answers united.
    BoxRegions,
    /// Predictor and box (BB+LP).
    AutoBox,
    /// One click on the largest region.
    Points,
    /// Predictor and that click.
    AutoPoints,
}

impl Prompting {
    /// Every one, in the order of reports.
    pub const ALL: [Self; 6] =
        [Self::Auto, Self::AutoBox, Self::AutoPoints, Self::Box, Self::BoxRegions, Self::Points];

    /// Name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Box => "box",
            Self::BoxRegions => "box-regions",
            Self::AutoBox => "auto+box",
            Self::Points => "points",
            Self::AutoPoints => "auto+points",
        }
    }

    /// What is told, in words.
    pub fn explained(self) -> &'static str {
        match self {
            Self::Auto => "learned prompts alone (LP)",
            Self::Box => "one box around all regions of a class (BB)",
            Self::BoxRegions => "one box around each region of a class, masks united",
            Self::AutoBox => "learned prompts and one box around all regions of a class (BB+LP)",
            Self::Points => "one click, on the pixel of the largest region that is farthest from its edge",
            Self::AutoPoints => "learned prompts and that click",
        }
    }

    /// The mode of the segmenter.
    pub fn mode(self) -> Mode {
        match self {
            Self::Auto => Mode::Autonomous,
            Self::AutoBox | Self::AutoPoints => Mode::Assisted,
            Self::Box | Self::BoxRegions | Self::Points => Mode::Manual,
        }
    }

    /// Whether the prompt predictor takes part.
    pub fn is_learned(self) -> bool {
        self.mode().is_learned()
    }
}

/// A word that names no way of prompting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown mode {0:?}; expected auto, auto+box, auto+points, box, box-regions or points")]
pub struct PromptingError(String);

impl FromStr for Prompting {
    type Err = PromptingError;

    fn from_str(name: &str) -> Result<Self, PromptingError> {
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| PromptingError(name.to_owned()))
    }
}

impl fmt::Display for Prompting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
