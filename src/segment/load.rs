//! From a weights file to a segmenter.

use std::path::PathBuf;

use tch::Device;

use super::device::Resolved;
use super::files::Files;
use super::graph::{CudaEngine, CudaLane, Engine, Lane, Rehearsal};
use super::learned;
use super::manners::HANDLINGS;
use super::network::Network;
use super::sam::{Cleanup, Sam};
use super::video::VideoSam;
use super::{ModelInfo, ModelSpec, PpnInfo, Precision, Segmenter};
use crate::nn::{self, MergedLora, PpnForm, PromptPredictor, Sam2Memory};
use crate::weights::{CheckpointError, Family, FamilyError, PREPROCESS, Published, Weights, WeightsError};

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
    Ok(match loaded(spec, device)? {
        Loaded::Sam(sam) => sam,
        Loaded::Video(video) => video,
    })
}

/// A segmenter before it is any.
#[derive(Debug)]
pub(super) enum Loaded {
    Sam(Box<Sam>),
    Video(Box<VideoSam>),
}

pub(super) fn loaded(spec: &ModelSpec, device: &Resolved) -> Result<Loaded, LoadError> {
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
    let unfit = |reason| files.unfit(spec, reason);
    let weights_sha256 = files.sha256(spec)?;
    let published = files.published(&weights_sha256);
    let taught = files.taught_side(spec, family)?;
    let net = nn::Sam::new(&view, family, side(spec, taught, family, published)?).map_err(unfit)?;
    let memory = match &spec.memory {
        Some(settings) => Some((Sam2Memory::new(&view, family, net.input_size()).map_err(unfit)?, *settings)),
        None => None,
    };
    let learned = files.learned(spec)?;
    let manners = files.manners(spec, family, published)?;
    files.warn_of_another_base(&weights_sha256);
    if let Some(taught) = taught.filter(|&taught| taught != net.input_size()) {
        let used = net.input_size();
        tracing::warn!(
            "the predictor was trained with an input of {taught} pixels a side, asked for are {used}: expect worse masks"
        );
    }
    let mut ppn = None;
    if let Some(learned) = &learned {
        let w = view.pp(learned::PREFIX);
        check_cells(&net, learned.form)?;
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
    // Without a memory nothing is left to be done when a frame's answer is there, and so nothing to be passed.
    if spec.cuda_graphs && memory.is_some() {
        match lane(device.device, spec.on_device) {
            Ok(lane) => sam.send_by(lane),
            Err(why) => tracing::warn!("frames have no stream of their own to the device: {why}"),
        }
    }
    let engine = || engine(device.device, spec.on_device);
    let off = |why: String| tracing::warn!("CUDA graphs are off: {why}");
    Ok(match memory {
        Some((memory, settings)) => {
            let mut video = VideoSam::new(sam, memory, settings, classes);
            if spec.cuda_graphs {
                video.record_by(engine).unwrap_or_else(off);
            }
            Loaded::Video(Box::new(video))
        }
        None => {
            if spec.cuda_graphs {
                sam.record_by(engine).unwrap_or_else(off);
            }
            Loaded::Sam(Box::new(sam))
        }
    })
}

/// Side of the input in pixels: as asked for, else as the predictor was trained with (`taught`), else as the file was published for;
/// `None` is the family's own.
///
/// # Errors
/// A side that the family cannot take.
pub(super) fn side(
    spec: &ModelSpec,
    taught: Option<i64>,
    family: Family,
    published: Option<&Published>,
) -> Result<Option<i64>, LoadError> {
    let pixels = |side: usize| i64::try_from(side).ok();
    let Some(asked) = spec.input_size.and_then(pixels) else {
        return Ok(taught.or_else(|| published?.handling().and_then(|(_, side)| pixels(side))));
    };
    nn::Sam::takes(family, asked).map_err(|what| LoadError::Setting(format!("the input size: {what}")))?;
    Ok(Some(asked))
}

/// Whether the embedding of `net` has as many cells as a predictor of this `form` needs, in whatever mode it is used: another mode may
/// be chosen from one frame to the next.
///
/// # Errors
/// What it would need.
pub(super) fn check_cells(net: &nn::Sam, form: PpnForm) -> Result<(), LoadError> {
    let (found, least) = (net.grid(), form.least_cells());
    if found >= least {
        return Ok(());
    }
    let (side, name) = (net.input_size(), form.name());
    Err(LoadError::Setting(format!(
        "the input size: of {side} pixels a side the network makes {found} cells, of which a predictor of the form {name} needs at \
         least {least}: expected at least {} pixels",
        side / found.max(1) * least
    )))
}

/// What records graphs on `device`; without it everything is queued kernel by kernel, which is as right.
fn engine(device: Device, on_device: bool) -> Result<Box<dyn Engine>, String> {
    if on_device && !device.is_cuda() {
        Ok(Box::new(Rehearsal))
    } else {
        Ok(Box::new(CudaEngine::new(device)?))
    }
}

/// What frames are sent to `device` by; without it they are sent in the order of everything else, which is as right.
fn lane(device: Device, on_device: bool) -> Result<Box<dyn Lane>, String> {
    if on_device && !device.is_cuda() {
        Ok(Box::new(Rehearsal))
    } else {
        Ok(Box::new(CudaLane::new(device)?))
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
            non_overlapping: self.non_overlapping,
        }
    }
}

/// What of the mask decoder was trained with the predictor of `spec`, by its name in configurations, where its file says so.
///
/// # Errors
/// A file that cannot be read.
pub fn trained_decoder(spec: &ModelSpec) -> Result<Option<String>, LoadError> {
    Ok(Files::open(spec)?.trained_decoder())
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
