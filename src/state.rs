//! What the AI is doing, as the person at the screen is told.

use std::fmt;

/// State of the segmenter at the time a frame is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AiState {
    /// The model is being loaded or warmed up; no mask has come out yet.
    Starting,
    /// Masks arrive in time.
    Live,
    /// Masks arrive in time, and the model has something to say.
    Remarked(String),
    /// The model works, but its masks come later than the display wants them.
    Delayed,
    /// No masks will come until the segmenter is restarted; says why.
    Off(String),
}

/// Why what a model remembers of the frames before is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The stream began again: other caps, a source that was lost.
    Stream,
    /// The model was loaded again.
    Model,
    /// Frames are of another size.
    Size,
    /// The picture shows another scene.
    SceneCut,
    /// The scanner was frozen, and moves again.
    Freeze,
}

impl Reset {
    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Model => "model",
            Self::Size => "size",
            Self::SceneCut => "scene_cut",
            Self::Freeze => "freeze",
        }
    }
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "the stream began again",
            Self::Model => "the model was loaded again",
            Self::Size => "other frame size",
            Self::SceneCut => "other scene",
            Self::Freeze => "the scanner was frozen",
        })
    }
}

/// What a model with a memory says of a frame beside its masks. Numbers are those of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The memory was cleared not long ago.
    Cleared(Reset),
    /// The scanner is frozen.
    Frozen,
    /// These are lost.
    Lost(Vec<usize>),
}

impl Remark {
    /// In words for the screen, with the names of `classes`.
    pub fn text(&self, classes: &[String]) -> String {
        match self {
            // On a small picture the end is cut off.
            Self::Cleared(why) => format!("{why}: memory cleared"),
            Self::Frozen => "frozen".into(),
            Self::Lost(objects) => {
                let names = objects.iter().map(|&i| classes.get(i).map_or("?", String::as_str));
                format!("lost {}", names.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl fmt::Display for AiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("AI STARTING"),
            Self::Live => f.write_str("AI LIVE"),
            Self::Remarked(what) => write!(f, "AI LIVE: {what}"),
            Self::Delayed => f.write_str("AI DELAYED"),
            Self::Off(reason) if reason.is_empty() => f.write_str("AI OFF"),
            Self::Off(reason) => write!(f, "AI OFF: {reason}"),
        }
    }
}
