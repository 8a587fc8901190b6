//! From a weights file to a segmenter.

use std::path::PathBuf;

use super::device::Resolved;
use super::{LiteMedSam, ModelInfo, ModelSpec, Segmenter};
use crate::nn;
use crate::weights::{Checkpoint, CheckpointError, Family, FamilyError, Weights, WeightsError, sha256};

/// Why there is no segmenter.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read as a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The family is unknown, or not the one asked for.
    #[error("{reason}: {}", path.display())]
    Family {
        /// What is wrong.
        reason: FamilyError,
        /// The file.
        path: PathBuf,
    },
    /// The family is known and cannot be run.
    #[error("the weights are {family}, which this version cannot run; it runs lite-medsam: {}", path.display())]
    Unsupported {
        /// What the file is.
        family: Family,
        /// The file.
        path: PathBuf,
    },
    /// Keys or shapes do not fit the network.
    #[error("{reason}: {}", path.display())]
    Weights {
        /// What is wrong.
        reason: WeightsError,
        /// The file.
        path: PathBuf,
    },
    /// The file changed or vanished while it was read.
    #[error("cannot read the weights: {reason}: {}", path.display())]
    Io {
        /// The system's words.
        reason: std::io::Error,
        /// The file.
        path: PathBuf,
    },
}

/// Builds the segmenter that `spec` asks for, on `device`.
///
/// # Errors
/// An unreadable or hostile file, another family than asked for, a family that cannot be run, tensors that do not fit.
pub fn load(spec: &ModelSpec, device: &Resolved) -> Result<Box<dyn Segmenter>, LoadError> {
    let weights = &spec.weights;
    let path = || weights.to_owned();
    let unfit = |reason| LoadError::Family { reason, path: path() };
    let checkpoint = Checkpoint::open(weights)?;
    let family = Family::expect(spec.family, &checkpoint).map_err(unfit)?;
    if family != Family::LiteMedSam {
        return Err(LoadError::Unsupported { family, path: path() });
    }
    if spec.threads > 0 {
        tch::set_num_threads(i32::try_from(spec.threads).unwrap_or(i32::MAX));
    }
    let weights_sha256 = sha256(weights).map_err(|reason| LoadError::Io { reason, path: path() })?;
    let view = Weights::new(&checkpoint, device.device);
    let net = nn::LiteMedSam::new(&view).map_err(|reason| LoadError::Weights { reason, path: path() })?;
    let info = ModelInfo {
        family: family.name().into(),
        weights_sha256,
        input_size: nn::LiteMedSam::INPUT_SIZE,
        precision: "fp32".into(),
        parameters: view.parameters(),
        device: device.name(),
    };
    Ok(Box::new(LiteMedSam::new(net, device.device, info)))
}

/// Names of the classes that the prompt predictor of `spec` knows, in its order; none without a predictor.
///
/// # Errors
/// A file that cannot be read.
pub fn learned_classes(spec: &ModelSpec) -> Result<Vec<String>, LoadError> {
    let _ = Checkpoint::open(&spec.weights)?;
    Ok(Vec::new())
}
