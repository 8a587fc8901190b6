//! From a weights file to a segmenter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::{Device, Tensor};

use super::device::Resolved;
use super::graph::{CudaEngine, Engine, Rehearsal};
use super::learned::{self, Learned};
use super::manners::{HANDLINGS, Manners};
use super::network::Network;
use super::sam::{Cleanup, Sam};
use super::video::VideoSam;
use super::{ModelInfo, ModelSpec, PpnInfo, Precision, Segmenter};
use crate::nn::{self, MergedLora, PromptPredictor, Sam2Memory};
use crate::weights::{
    Checkpoint, CheckpointError, Family, FamilyError, Layered, PREPROCESS, Weights, WeightsError, sha256,
};

/// Metadata with the family that a predictor was trained for.
const FAMILY: &str = "family";

/// Metadata with the SHA-256 of the weights that a predictor was trained with.
pub const BASE_SHA256: &str = "base_sha256";

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
    /// The first generation sees every picture for the first time.
    #[error(
        "{family} has no memory: only SAM 2 and 2.1 can follow objects from frame to frame; expected one of them, or memory.enabled = false"
    )]
    NoMemory {
        /// The network's.
        family: Family,
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
    spec.check_on(device)?;
    let files = Files::open(spec)?;
    let family = files.family(spec)?;
    if spec.memory.is_some() && !family.is_sam2() {
        return Err(LoadError::NoMemory { family });
    }
    if spec.threads > 0 {
        tch::set_num_threads(i32::try_from(spec.threads).unwrap_or(i32::MAX));
    }
    let source = files.source();
    let merged = MergedLora::new(&source);
    let view = Weights::new(&merged, device.device).computing_in(spec.precision.kind());
    let unfit = |reason| LoadError::Weights { reason, path: spec.weights.clone() };
    let side = spec.input_size.and_then(|side| i64::try_from(side).ok());
    let net = nn::Sam::new(&view, family, side).map_err(unfit)?;
    let memory = match &spec.memory {
        Some(settings) => Some((Sam2Memory::new(&view, family, net.input_size()).map_err(unfit)?, *settings)),
        None => None,
    };
    let learned = files.learned(spec)?;
    let manners = files.manners(spec, family)?;
    let weights_sha256 = files.sha256(spec)?;
    files.warn_of_another_base(&weights_sha256);
    let mut ppn = None;
    if let Some(learned) = &learned {
        // Its products with the whole picture are sums of many terms: in `f32`, as small as it is.
        let w = view.pp(learned::PREFIX).computing_in(tch::Kind::Float);
        let mut predictor = PromptPredictor::new(&w, &learned.config(&net)).map_err(unfit)?;
        let chosen = learned.select(predictor.learnable_prompts()).map_err(|e| unfit(e.into()))?;
        predictor.set_learnable_prompts(chosen);
        // The queries of the file's other data sets.
        w.skip("learnable_prompts");
        ppn = Some((predictor, learned.form));
    }
    view.finish().map_err(unfit)?;
    let info = ModelInfo {
        family: family.name().into(),
        weights_sha256,
        input_size: usize::try_from(net.input_size()).unwrap_or(0),
        precision: spec.precision.name().into(),
        parameters: view.parameters(),
        weights_bytes: view.bytes(),
        ppn: match learned {
            Some(learned) => Some(PpnInfo {
                form: learned.form.name(),
                classes: learned.names(),
                dataset: learned.dataset,
                sha256: files.ppn_sha256(spec)?,
                changes_features: files.change_features(),
            }),
            None => None,
        },
        device: device.name(),
    };
    let classes = info.ppn.as_ref().map_or(0, |ppn| ppn.classes.len());
    let mut sam = Sam::new(Network::new(net, ppn, manners, device.device), spec.cleanup(), info);
    sam.see_in(spec.views);
    if spec.on_device {
        sam.work_on_device(true);
    }
    let engine = if spec.cuda_graphs { engine(device.device, spec.on_device) } else { None };
    Ok(match memory {
        Some((memory, settings)) => {
            let mut video = VideoSam::new(sam, memory, settings, classes);
            if let Some(engine) = engine {
                video.record_by(engine);
            }
            Box::new(video)
        }
        None => {
            if let Some(engine) = engine {
                sam.record_by(engine);
            }
            Box::new(sam)
        }
    })
}

/// What records graphs on `device`; without it everything is queued kernel by kernel, which is as right.
fn engine(device: Device, on_device: bool) -> Option<Box<dyn Engine>> {
    if on_device && !device.is_cuda() {
        return Some(Box::new(Rehearsal));
    }
    match CudaEngine::new(device) {
        Ok(engine) => Some(Box::new(engine)),
        Err(why) => {
            tracing::warn!("CUDA graphs are off: {why}");
            None
        }
    }
}

impl ModelSpec {
    /// Whether it can be had on `device` at all.
    pub(super) fn check_on(&self, device: &Resolved) -> Result<(), LoadError> {
        if self.precision == Precision::Fp16 && device.device == Device::Cpu {
            return Err(LoadError::Precision);
        }
        self.check().map_err(LoadError::Setting)
    }

    pub(super) fn cleanup(&self) -> Cleanup {
        Cleanup {
            presence_threshold: self.presence_threshold,
            max_hole_area: self.max_hole_area,
            max_sprinkle_area: self.max_sprinkle_area,
        }
    }
}

/// Whether another value of the tensor `name` changes the features of a picture. The predictor and the decoder only read them, but
/// for SAM 2's two convolutions of the finer levels, which lie in its decoder.
fn changes_features(name: &str) -> bool {
    if name.strip_prefix(learned::PREFIX).is_some_and(|rest| rest.starts_with('.')) {
        return false;
    }
    let decoder = name.strip_prefix("sam_").unwrap_or(name).strip_prefix("mask_decoder.");
    decoder.is_none_or(|part| part.starts_with("conv_s"))
}

fn sum(path: &Path) -> Result<String, LoadError> {
    sha256(path).map_err(|reason| LoadError::Io { reason, path: path.to_owned() })
}

/// Names of the classes that the prompt predictor of `spec` looks for, in its order; none without a predictor.
///
/// # Errors
/// A file that cannot be read, a predictor that is not as its file says.
pub fn learned_classes(spec: &ModelSpec) -> Result<Vec<String>, LoadError> {
    let files = Files::open(spec)?;
    files.family(spec)?;
    Ok(files.learned(spec)?.map_or_else(Vec::new, |learned| learned.names()))
}

/// The network's file, and the one laid over it.
pub(super) struct Files {
    base: Checkpoint,
    over: Option<Checkpoint>,
}

impl Files {
    pub(super) fn open(spec: &ModelSpec) -> Result<Self, LoadError> {
        let base = Checkpoint::open(&spec.weights)?;
        Ok(Self { base, over: spec.ppn.as_deref().map(Checkpoint::open).transpose()? })
    }

    pub(super) fn source(&self) -> Layered<'_> {
        Layered { top: self.over.as_ref().unwrap_or(&self.base), base: &self.base }
    }

    /// The family of the network, which the predictor must have been trained for.
    pub(super) fn family(&self, spec: &ModelSpec) -> Result<Family, LoadError> {
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

    /// SHA-256 of the network's file.
    pub(super) fn sha256(&self, spec: &ModelSpec) -> Result<String, LoadError> {
        sum(&spec.weights)
    }

    /// A predictor speaks to the features of the weights that it was trained with; with others of the same family it is worse
    /// without an error.
    fn warn_of_another_base(&self, weights_sha256: &str) {
        let trained_with = self.over.as_ref().and_then(|over| over.metadata().get(BASE_SHA256));
        if let Some(sum) = trained_with.filter(|sum| *sum != weights_sha256) {
            tracing::warn!("the predictor was trained with other weights, SHA-256 {sum}: expect worse masks");
        }
    }

    /// SHA-256 of the file over the network's.
    pub(super) fn ppn_sha256(&self, spec: &ModelSpec) -> Result<Option<String>, LoadError> {
        spec.ppn.as_deref().map(sum).transpose()
    }

    /// Whether the file over the network's changes what the encoder says of a picture.
    pub(super) fn change_features(&self) -> bool {
        self.over.as_ref().is_some_and(|over| over.tensors().any(|(name, _)| changes_features(name)))
    }

    /// What the metadata say of the handling of pictures and, in the file over the network's, of each data set's classes.
    pub(super) fn says(&self) -> BTreeMap<String, String> {
        let mut says = BTreeMap::new();
        for file in [Some(&self.base), self.over.as_ref()].into_iter().flatten() {
            says.extend(file.metadata().get(PREPROCESS).map(|found| (PREPROCESS.to_owned(), found.clone())));
        }
        if let Some(over) = &self.over {
            let classes = over.metadata().iter().filter(|(key, _)| key.starts_with("classes."));
            says.extend(classes.map(|(key, names)| (key.clone(), names.clone())));
            // A file of one data set need not name it.
            if let (Some(names), [(dataset, ..)]) =
                (over.metadata().get("classes"), &crate::nn::learnable_prompts(over, learned::PREFIX)[..])
            {
                says.insert(format!("classes.{dataset}"), names.clone());
            }
        }
        says
    }

    /// The tensors of the file over the network's that `which` chooses by their names.
    pub(super) fn carried(
        &self,
        which: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Tensor>, WeightsError> {
        let Some(over) = &self.over else { return Ok(BTreeMap::new()) };
        let chosen = over.tensors().filter(|(name, _)| which(name));
        chosen
            .filter_map(|(name, _)| Some(over.tensor(name)?.map(|tensor| (name.to_owned(), tensor))))
            .collect::<Result<_, _>>()
            .map_err(WeightsError::from)
    }

    fn learned(&self, spec: &ModelSpec) -> Result<Option<Learned>, LoadError> {
        Learned::find(spec, &self.source(), |key| self.metadata(key))
    }

    fn metadata(&self, key: &str) -> Option<String> {
        self.over.as_ref().unwrap_or(&self.base).metadata().get(key).cloned()
    }

    /// How pictures, prompts and masks are handled: as the family's weights were published, unless the file that was trained last, or
    /// `spec`, says otherwise.
    pub(super) fn manners(&self, spec: &ModelSpec, family: Family) -> Result<Manners, LoadError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_those_of_everything_before_the_decoder() {
        for before in [
            "image_encoder.neck.0.weight",
            "image_encoder.adapters.0.up.weight",
            "sam_mask_decoder.conv_s1.bias",
            "no_mem_embed",
            "ppnx.weight",
        ] {
            assert!(changes_features(before), "{before}");
        }
        for behind in [
            "ppn.pyramid.out.weight",
            "mask_decoder.transformer.layers.0.self_attn.q_proj.w_a.weight",
            "sam_mask_decoder.obj_score_token.weight",
        ] {
            assert!(!changes_features(behind), "{behind}");
        }
    }
}
