//! Why a file is not a checkpoint that can be used.

use std::path::PathBuf;

/// A checkpoint that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {}", path.display())]
pub struct CheckpointError {
    /// What is wrong.
    pub reason: Reason,
    /// The file.
    pub path: PathBuf,
}

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The file cannot be opened or read.
    #[error("cannot read the weights: {0}")]
    Io(#[from] std::io::Error),
    /// Neither a PyTorch file nor safetensors.
    #[error("not a checkpoint: expected a PyTorch file (.pt, .pth, .ckpt) or safetensors")]
    Unknown,
    /// The zip container is damaged, or holds something unexpected.
    #[error("damaged PyTorch file: {0}")]
    Archive(String),
    /// A zip entry is compressed; PyTorch never does that.
    #[error("damaged PyTorch file: entry {0} is compressed or encrypted, PyTorch stores entries as they are")]
    NotStored(String),
    /// The safetensors header is damaged.
    #[error("damaged safetensors file: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// The pickle is damaged, or does what a checkpoint has no need of.
    #[error("refused pickle at byte {at}: {what}")]
    Pickle {
        /// Offset in the pickle.
        at: usize,
        /// What was found.
        what: String,
    },
    /// The pickle asks for a Python object that is not on the list of harmless ones.
    #[error(
        "refused pickle at byte {at}: it names {name}, which is none of the objects a state dict is made of"
    )]
    ForeignGlobal {
        /// Offset in the pickle.
        at: usize,
        /// `module.name`.
        name: String,
    },
    /// An object contains itself.
    #[error("refused pickle: an object contains itself")]
    Cycle,
    /// Objects are nested too deep.
    #[error("refused pickle: objects are nested more than {0} deep")]
    TooDeep(usize),
    /// The shape or strides of a tensor do not fit its storage.
    #[error("tensor {name}: {what}")]
    Tensor {
        /// Key of the tensor.
        name: String,
        /// What does not fit.
        what: String,
    },
    /// Two tensors of one name.
    #[error("tensor {0} occurs twice")]
    Duplicate(String),
    /// Two tensors that are one in the network hold different values.
    #[error("tensors {first} and {second} are copies of one tensor, {name}, but their values differ")]
    Differ {
        /// Name in the network.
        name: String,
        /// One name in the file.
        first: String,
        /// Another name in the file.
        second: String,
    },
    /// Neither the root nor its `model` or `state_dict` holds tensors.
    #[error("no tensors: expected a state dict, or one under the key `model` or `state_dict`")]
    NoTensors,
}
