//! What only GStreamer needs: templates, caps, the appsink and the appsrc, metas.

mod format;
pub mod launch;
mod recording;
mod roi;
mod sink;
mod source;
pub mod template;

use std::path::PathBuf;

pub use format::{FormatError, StreamFormat, accepted_caps, video_format};
pub use recording::{Left, Recording};
pub use roi::{ROI_PARAMS, Regions};
pub use sink::{Feed, SinkPipeline};
pub use source::{Intake, Pace, SourcePipeline};

/// Why a pipeline cannot be built or finished.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// GStreamer itself is broken.
    #[error("GStreamer cannot start: {0}")]
    Init(String),
    /// An element is not installed.
    #[error("the GStreamer element `{element}` is missing; `sonomask doctor` says what to install")]
    Missing {
        /// Factory name.
        element: String,
    },
    /// Two elements do not fit.
    #[error("{what} cannot be linked: {reason}")]
    Link {
        /// Which side.
        what: &'static str,
        /// GStreamer's words.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(String),
    /// An output file cannot be written.
    #[error("cannot write the output: {reason}: {}", path.display())]
    Output {
        /// Why.
        reason: String,
        /// Which file.
        path: PathBuf,
    },
}

/// Starts GStreamer. May be called any number of times.
///
/// # Errors
/// If GStreamer cannot be initialised.
pub fn init() -> Result<(), MediaError> {
    gstreamer::init().map_err(|e| MediaError::Init(e.to_string()))
}
