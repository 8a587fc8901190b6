//! Frame in, masks out.
//!
//! [`Segmenter`] is all that `pipeline` knows of a model. A family brings its own preprocessing,
//! encoder, prompts, decoder and postprocessing; see [`Sam`].

mod click;
pub mod device;
mod expected;
mod files;
mod fresh;
mod generate;
mod graph;
mod guidance;
mod learned;
mod library;
mod load;
mod manners;
mod marks;
pub mod memory;
mod network;
pub mod postprocess;
pub mod preprocess;
mod prompt;
mod question;
pub mod resize;
mod said;
mod sam;
mod spec;
mod trainable;
mod video;
mod views;
#[cfg(test)]
mod waits;
mod within;

use crate::frame::ImageView;
use crate::mask::ClassMask;
use crate::stage::StageTimes;
use crate::state::{Remark, Reset};
use crate::weights::said;

pub use device::{DeviceChoice, DeviceError, Resolved, load_cuda};
pub use expected::compare;
pub use files::{BASE_SHA256, DECODER, INPUT_SIZE};
pub use fresh::Additions;
pub use generate::{GenerateError, GeneratedPpn, expected_tensors, generate};
pub use guidance::{Guidance, Mode, ModeError};
pub use load::{LoadError, learned_classes, load, trained_decoder};
pub use manners::Manners;
pub use memory::{MemoryCounts, MemoryEvent, MemorySettings};
pub use network::Network;
pub use prompt::{Point, Prompt, PromptError, Units};
pub use question::{Asked, Question};
pub use sam::{Cleanup, Sam};
pub use spec::{MAX_CLEANED_AREA, MAX_INPUT_SIZE, MAX_THREADS, ModelSpec, Precision};
pub use trainable::{Beginning, EncoderLora, PredictorPlan, Trainable, load_trainable};
pub use video::VideoSam;
pub use views::MAX_VIEWS;

/// What a report says of a model.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ModelInfo {
    /// Family name, `lite-medsam` and so on.
    pub family: String,
    /// SHA-256 of the weights file, lower-case hex.
    pub weights_sha256: String,
    /// Side of the square network input in pixels.
    pub input_size: usize,
    /// Arithmetic, `fp32`.
    pub precision: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes that the weights take on the device.
    pub weights_bytes: u64,
    /// The prompt predictor, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppn: Option<PpnInfo>,
    /// Device the network runs on, `cpu` or `cuda:N`.
    #[serde(skip)]
    pub device: String,
}

/// What a report says of a prompt predictor.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PpnInfo {
    /// `single-scale`, `high-res` or `pyramid`.
    pub form: &'static str,
    /// Name of the data set that it learned.
    pub dataset: String,
    /// Its classes, in the order of its queries.
    pub classes: Vec<String>,
    /// SHA-256 of the file it came from, if that is not the network's own; lower-case hex.
    pub sha256: Option<String>,
    /// Whether that file changes what the encoder says of a picture.
    pub changes_features: bool,
}

/// Why a frame has no masks.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The prompts do not fit the frame.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The network gave NaN or infinity.
    #[error("non-finite {what} for class {class}")]
    NonFinite {
        /// Which output.
        what: &'static str,
        /// Index of the class.
        class: usize,
    },
    /// libtorch refused: out of memory, a wrong shape, a lost device.
    #[error("libtorch: {}", said(.0))]
    Torch(tch::TchError),
    /// Anything else a model may fail of.
    #[error("{0}")]
    Other(String),
}

impl SegmentError {
    /// As libtorch would say it, where nothing else can be said.
    fn into_torch(self) -> tch::TchError {
        match self {
            Self::Torch(error) => error,
            other => tch::TchError::Shape(other.to_string()),
        }
    }
}

impl From<tch::TchError> for SegmentError {
    // Not as a source: whoever prints the chain would print the frames that `said` leaves out.
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error)
    }
}

/// A model that turns one frame and its prompts into masks. Owned by one thread.
pub trait Segmenter: Send {
    /// What the report says of it.
    fn info(&self) -> &ModelInfo;

    /// Segments `image`; one [`ClassMask`] per class that `guidance` asks for, at the image's
    /// resolution.
    /// Time is charged to the stages from upload to postprocess. With `keep_logits` every class carries its logits.
    ///
    /// # Errors
    /// A prompt that does not fit, a non-finite output, a failure of libtorch. The segmenter can be used again.
    fn segment(
        &mut self,
        image: &ImageView<'_>,
        guidance: &Guidance,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError>;

    /// Forgets whatever is remembered of the frames so far, because the next one does not continue them; `None`: because a new
    /// run begins, with counts from zero.
    fn forget(&mut self, _why: Option<Reset>) {}

    /// What a memory of the frames before has come to, if there is one.
    fn memory(&self) -> Option<&MemoryCounts> {
        None
    }

    /// What happened to it since the last call.
    fn take_events(&mut self) -> Vec<MemoryEvent> {
        Vec::new()
    }

    /// What is to be said of the last frame beside its masks.
    fn remark(&self) -> Option<Remark> {
        None
    }
}
