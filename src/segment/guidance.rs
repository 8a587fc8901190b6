//! What a frame is asked: which prompts count, the learned ones, a human's, or both.

use std::fmt;
use std::str::FromStr;

use super::Prompt;

/// Where the prompts of a frame come from (paper, section 3: autonomous, semi-automatic and manual use).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The prompt predictor alone; manual prompts are not looked at.
    Autonomous,
    /// The prompt predictor for each of its classes, with the class's manual prompts added to the learned ones.
    Assisted,
    /// Manual prompts alone.
    #[default]
    Manual,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Autonomous, Self::Assisted, Self::Manual];

    /// Name in configurations and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Autonomous => "autonomous",
            Self::Assisted => "assisted",
            Self::Manual => "manual",
        }
    }

    /// Whether the prompt predictor takes part.
    pub fn is_learned(self) -> bool {
        self != Self::Manual
    }
}

/// A word that is no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown mode {0:?}; expected autonomous, assisted or manual")]
pub struct ModeError(String);

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(name: &str) -> Result<Self, ModeError> {
        Self::ALL.into_iter().find(|m| m.name() == name).ok_or_else(|| ModeError(name.to_owned()))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one frame is asked. May differ from frame to frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guidance {
    /// Which prompts count.
    pub mode: Mode,
    /// A human's prompts, at most one for each class.
    pub prompts: Vec<Prompt>,
}

impl Guidance {
    /// The human's prompts that count in this mode.
    pub fn standing(&self) -> &[Prompt] {
        if self.mode == Mode::Autonomous { &[] } else { &self.prompts }
    }

    /// Manual prompts alone.
    pub fn manual(prompts: Vec<Prompt>) -> Self {
        Self { mode: Mode::Manual, prompts }
    }
}
