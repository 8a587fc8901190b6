//! Why a training run ends before its time.

use std::io;
use std::path::{Path, PathBuf};

use tch::TchError;

use super::journal::JournalError;
use crate::dataset::{DataError, Problem};
use crate::segment::{LoadError, SegmentError};
use crate::weights::said;

/// Why a training run ended.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Settings that cannot be meant together.
    #[error("{0}")]
    Setting(String),
    /// Somebody asked a run to end before it took the place of an earlier one.
    #[error("stopped before it began; the earlier run is as it was: {}", .0.display())]
    Unbegun(PathBuf),
    /// A run is at work in the folder already.
    #[error("another run is at work in this folder: {}", .0.display())]
    Busy(PathBuf),
    /// Mistakes in data sets: all of them.
    #[error("{}", list(.0))]
    Data(Vec<DataError>),
    /// A picture that changed while it was used.
    #[error(transparent)]
    Changed(#[from] Problem),
    /// The network cannot be built.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The network failed.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// libtorch refused.
    #[error("libtorch: {}", said(.0))]
    Torch(TchError),
    /// A stage to come that was tried and failed.
    #[error("the stage {stage:?}, tried before training: {why}")]
    Rehearsal {
        /// Its name.
        stage: String,
        /// What failed.
        why: Box<Self>,
    },
    /// Features on disk that cannot be used.
    #[error("features cannot be used, remove the file and start again: {what}: {}", file.display())]
    Cache {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// What `--resume` goes on from cannot be used.
    #[error("cannot resume: {what}: {}", file.display())]
    Resume {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file that cannot be read.
    #[error("cannot read: {reason}: {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write: {reason}: {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
    /// The record of the run cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The loss is no number any more.
    #[error(
        "the loss is no number at step {step} of epoch {epoch}: expected lower learning rates or precision = \"fp32\""
    )]
    Diverged {
        /// Epoch, from 1.
        epoch: u64,
        /// Step of the run, from 1.
        step: u64,
    },
}

impl TrainError {
    /// What failed when `stage` was tried.
    pub(super) fn rehearsal(stage: &str, why: Self) -> Self {
        Self::Rehearsal { stage: stage.to_owned(), why: Box::new(why) }
    }

    pub(super) fn write(file: &Path, reason: io::Error) -> Self {
        Self::Write { file: file.to_owned(), reason }
    }
}

impl From<TchError> for TrainError {
    // Not as a source: whoever prints the chain would print the C++ frames that `said` leaves out.
    fn from(error: TchError) -> Self {
        Self::Torch(error)
    }
}

fn list(errors: &[DataError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
