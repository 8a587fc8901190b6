//! What the AI is doing, as the person at the screen is told.

use std::fmt;

/// State of the segmenter at the time a frame is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AiState {
    /// The model is being loaded or warmed up; no mask has come out yet.
    Starting,
    /// Masks arrive in time.
    Live,
    /// The model works, but its masks come later than the display wants them.
    Delayed,
    /// No masks will come until the segmenter is restarted; says why.
    Off(String),
}

impl fmt::Display for AiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("AI STARTING"),
            Self::Live => f.write_str("AI LIVE"),
            Self::Delayed => f.write_str("AI DELAYED"),
            Self::Off(reason) if reason.is_empty() => f.write_str("AI OFF"),
            Self::Off(reason) => write!(f, "AI OFF: {reason}"),
        }
    }
}
