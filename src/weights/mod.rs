//! Checkpoints: what is in a weights file, and a view of it that a network is built from.
//!
//! [`Checkpoint`] reads PyTorch files and safetensors without executing anything; [`Weights`] hands
//! tensors to the constructors in `nn` by the checkpoint's own names; [`Family`] says what a file is.

mod archive;
mod canonical;
mod checkpoint;
mod convert;
mod download;
mod dtype;
mod error;
mod family;
mod find;
mod inspect;
mod legacy;
mod pickle;
mod published;
mod source;
mod tensor_info;
mod torch;
mod view;

pub use checkpoint::{Checkpoint, Format, PREPROCESS, SOURCE_SHA256, hex, sha256};
pub use convert::{ConvertError, convert};
pub use download::{DownloadError, Wanted, download, part};
pub use dtype::Dtype;
pub use error::{CheckpointError, Reason};
pub use family::{Family, FamilyError};
pub use find::{find_weights, own_weights_dirs, weights_dirs};
pub use inspect::{Comparison, Facts, Misshapen, Outline};
pub use published::{Published, published};
pub use source::{Blank, DEFAULT_SEED, Generated, Layered, Source, fnv1a};
pub use tensor_info::TensorInfo;
pub use view::{Weights, WeightsError, said};
