//! Checkpoints: what is in a weights file, and a view of it that a network is built from.
//!
//! [`Checkpoint`] reads PyTorch zip files and safetensors without executing anything; [`Weights`] hands
//! tensors to the constructors in `nn` by the checkpoint's own names; [`Family`] says what a file is.

mod archive;
mod checkpoint;
mod error;
mod family;
mod pickle;
mod published;
mod source;
mod view;

pub use checkpoint::{Checkpoint, Dtype, TensorInfo, sha256};
pub use error::{CheckpointError, Reason};
pub use family::{Family, FamilyError};
pub use published::published;
pub use source::{Blank, DEFAULT_SEED, Generated, Layered, Source};
pub use view::{Weights, WeightsError};
