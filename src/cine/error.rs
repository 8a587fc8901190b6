//! Why a cine-loop cannot be read.

use std::io;
use std::path::{Path, PathBuf};

/// Why a cine-loop cannot be opened or a frame of it not be read.
///
/// The text of an outer error contains that of its cause, so that printing the outermost says it all.
#[derive(Debug, thiserror::Error)]
pub enum CineError {
    /// The operating system refused.
    #[error("cannot {action}: {cause}")]
    Io {
        /// What was tried: `open the file`.
        action: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
    /// The file contradicts its own format.
    #[error("not a valid {format} file: {problem}")]
    Malformed {
        /// Name of the format.
        format: &'static str,
        /// What was found, and what was expected.
        problem: String,
    },
    /// The file may be valid; this reader does not do it.
    #[error("{format}: {problem}")]
    Unsupported {
        /// Name of the format.
        format: &'static str,
        /// What is not supported, and what is.
        problem: String,
    },
    /// A picture without pixels, or so large that it cannot be ultrasound.
    #[error(
        "pictures of {width}x{height} pixels are refused: expected 1 to {} a side and at most {} in all",
        super::MAX_SIDE,
        super::MAX_PIXELS
    )]
    Size {
        /// Pixels per row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// A decoder gave up on the data.
    #[error("the {codec} data cannot be decoded: {problem}")]
    Decode {
        /// Name of the compression.
        codec: &'static str,
        /// What the decoder said.
        problem: String,
    },
    /// The input is none of ours; GStreamer may know it.
    #[error("neither DICOM, MetaImage, a supported image, nor a folder of images")]
    NotCine,
    /// An option of the caller makes no sense.
    #[error("a rate of {fps} frames a second is refused: expected more than 0 and at most 1000")]
    Rate {
        /// Given rate.
        fps: f64,
    },
    /// One frame cannot be read; counted from 0.
    #[error("frame {frame}: {cause}")]
    Frame {
        /// Index of the frame in the file, from 0.
        frame: usize,
        /// Why.
        cause: Box<CineError>,
    },
    /// Names the file that the cause speaks of.
    #[error("{cause}: {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: Box<CineError>,
    },
}

impl CineError {
    /// Adds the file, once: a cause that names a file already keeps it.
    pub(super) fn at(self, path: &Path) -> Self {
        if self.names_a_file() {
            return self;
        }
        Self::File { path: path.to_owned(), cause: Box::new(self) }
    }

    fn names_a_file(&self) -> bool {
        match self {
            Self::File { .. } => true,
            Self::Frame { cause, .. } => cause.names_a_file(),
            _ => false,
        }
    }

    /// Adds the frame's index.
    pub(super) fn in_frame(self, frame: usize) -> Self {
        Self::Frame { frame, cause: Box::new(self) }
    }

    /// For `map_err` on reads and seeks.
    pub(super) fn io(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Io { action, cause }
    }
}

/// Runs a decoder of another crate and turns its panic into an error.
///
/// Image decoders index and assert on what the file says; a damaged recording must fail as a message, not take
/// the program with it. The closures own or only read what they work on, so nothing half-changed survives.
pub(super) fn guarded<T>(
    codec: &'static str,
    decode: impl FnOnce() -> Result<T, CineError>,
) -> Result<T, CineError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(CineError::Decode {
            codec,
            problem: "the decoder failed an internal check; the data is damaged".into(),
        })
    })
}
