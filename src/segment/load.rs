//! From a weights file to a segmenter.

use std::path::PathBuf;

use tch::Device;

use super::device::Resolved;
use super::learned::{self, Learned};
use super::sam::{Cleanup, HANDLINGS, Manners, Sam};
use super::{ModelInfo, ModelSpec, PpnInfo, Precision, Segmenter};
use crate::nn::{self, MergedLora, PromptPredictor};
use crate::weights::{
    Checkpoint, CheckpointError, Family, FamilyError, Layered, PREPROCESS, Weights, WeightsError, sha256,
};

/// Metadata with the family that a predictor was trained for.
const FAMILY: &str = "family";

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
    /// The prompt predictor is not as its file says.
    #[error("the prompt predictor cannot be used: {what}: {}", path.display())]
    Predictor {
        /// What is wrong.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// A setting that cannot be meant.
    #[error("{0}")]
    Setting(String),
    /// How pictures are to be handled is not known.
    #[error("{PREPROCESS} = {found:?} in the metadata; expected {HANDLINGS} (the last for SAM 2 alone): {}", path.display())]
    Handling {
        /// What the file says.
        found: String,
        /// The file.
        path: PathBuf,
    },
    /// Half precision where there are no kernels for it.
    #[error("fp16 needs a CUDA device: expected fp32 or bf16 on the CPU")]
    Precision,
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

/// Builds the segmenter that `spec` asks for, on `device`. LoRA is merged into the weights.
///
/// # Errors
/// An unreadable or hostile file, another family than asked for, a size or a precision that cannot be had, tensors that do
/// not fit or are left over, a prompt predictor that is not as its file says.
pub fn load(spec: &ModelSpec, device: &Resolved) -> Result<Box<dyn Segmenter>, LoadError> {
    if spec.precision == Precision::Fp16 && device.device == Device::Cpu {
        return Err(LoadError::Precision);
    }
    spec.check().map_err(LoadError::Setting)?;
    let files = Files::open(spec)?;
    let family = files.family(spec)?;
    if spec.threads > 0 {
        tch::set_num_threads(i32::try_from(spec.threads).unwrap_or(i32::MAX));
    }
    let source = files.source();
    let merged = MergedLora::new(&source);
    let view = Weights::new(&merged, device.device).computing_in(spec.precision.kind());
    let unfit = |reason| LoadError::Weights { reason, path: spec.weights.clone() };
    let side = spec.input_size.and_then(|side| i64::try_from(side).ok());
    let net = nn::Sam::new(&view, family, side).map_err(unfit)?;
    let learned = files.learned(spec)?;
    let manners = files.manners(spec, family)?;
    let mut ppn = None;
    if let Some(learned) = &learned {
        // Its products with the whole picture are sums of many terms: in `f32`, as small as it is.
        let w = view.pp(learned::PREFIX).computing_in(tch::Kind::Float);
        let predictor = PromptPredictor::new(&w, &learned.config(&net));
        // The queries of the file's other data sets.
        w.skip("learnable_prompts");
        ppn = Some((predictor.map_err(unfit)?, learned.form));
    }
    view.finish().map_err(unfit)?;
    let sum = |path: &PathBuf| sha256(path).map_err(|reason| LoadError::Io { reason, path: path.clone() });
    let info = ModelInfo {
        family: family.name().into(),
        weights_sha256: sum(&spec.weights)?,
        input_size: usize::try_from(net.input_size()).unwrap_or(0),
        precision: spec.precision.name().into(),
        parameters: view.parameters(),
        weights_bytes: view.bytes(),
        ppn: match learned {
            Some(learned) => Some(PpnInfo {
                form: learned.form.name(),
                dataset: learned.dataset,
                classes: learned.classes,
                sha256: spec.ppn.as_ref().map(sum).transpose()?,
            }),
            None => None,
        },
        device: device.name(),
    };
    let cleanup = Cleanup {
        presence_threshold: spec.presence_threshold,
        max_hole_area: spec.max_hole_area,
        max_sprinkle_area: spec.max_sprinkle_area,
    };
    Ok(Box::new(Sam::new(net, ppn, manners, cleanup, device.device, info)))
}

/// Names of the classes that the prompt predictor of `spec` knows, in its order; none without a predictor.
///
/// # Errors
/// A file that cannot be read, a predictor that is not as its file says.
pub fn learned_classes(spec: &ModelSpec) -> Result<Vec<String>, LoadError> {
    let files = Files::open(spec)?;
    files.family(spec)?;
    Ok(files.learned(spec)?.map_or_else(Vec::new, |learned| learned.classes))
}

/// The network's file, and the one laid over it.
struct Files {
    base: Checkpoint,
    over: Option<Checkpoint>,
}

impl Files {
    fn open(spec: &ModelSpec) -> Result<Self, LoadError> {
        let base = Checkpoint::open(&spec.weights)?;
        Ok(Self { base, over: spec.ppn.as_deref().map(Checkpoint::open).transpose()? })
    }

    fn source(&self) -> Layered<'_> {
        Layered { top: self.over.as_ref().unwrap_or(&self.base), base: &self.base }
    }

    /// The family of the network, which the predictor must have been trained for.
    fn family(&self, spec: &ModelSpec) -> Result<Family, LoadError> {
        let unfit = |path: &PathBuf| {
            let path = path.clone();
            move |reason| LoadError::Family { reason, path }
        };
        let family = Family::expect(spec.family, &self.base).map_err(unfit(&spec.weights))?;
        let trained_for = self.over.as_ref().and_then(|over| over.metadata().get(FAMILY));
        if let (Some(name), Some(path)) = (trained_for, &spec.ppn) {
            let found = name.parse::<Family>().map_err(unfit(path))?;
            if found != family {
                return Err(unfit(path)(FamilyError::Mismatch { asked: family, found }));
            }
        }
        Ok(family)
    }

    fn learned(&self, spec: &ModelSpec) -> Result<Option<Learned>, LoadError> {
        Learned::find(spec, &self.source(), |key| self.metadata(key))
    }

    fn metadata(&self, key: &str) -> Option<String> {
        self.over.as_ref().unwrap_or(&self.base).metadata().get(key).cloned()
    }

    /// How pictures and prompts are handled: as the family's weights were published, unless the file that was trained last says
    /// otherwise.
    fn manners(&self, spec: &ModelSpec, family: Family) -> Result<Manners, LoadError> {
        let own = Manners::of(family);
        let says = |file: &Checkpoint| file.metadata().get(PREPROCESS).cloned();
        let (found, path) = match (self.over.as_ref().and_then(says), says(&self.base)) {
            (Some(found), _) => (found, spec.ppn.as_ref().unwrap_or(&spec.weights)),
            (None, Some(found)) => (found, &spec.weights),
            (None, None) => return Ok(own),
        };
        own.trained_with(&found).ok_or_else(|| LoadError::Handling { found, path: path.clone() })
    }
}
