//! What a training run is asked to do.

use std::path::PathBuf;

use super::LossConfig;
use crate::dataset::{Augment, DatasetSpec};
use crate::nn::PpnForm;
use crate::segment::{EncoderLora, ModelSpec};

/// How the mask decoder is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderTuning {
    /// Not at all.
    Frozen,
    /// Low-rank factors beside every query and value projection, and whole: the mask tokens, the upscaling and the mask's
    /// hypernetwork, as in the code of Sam2Rad's authors.
    Lora {
        /// Rank of the factors.
        rank: i64,
    },
    /// Everything that a mask depends on but the transformer's MLPs, which see the tokens alone and are half of the weights.
    Attention,
    /// Everything that a mask depends on.
    Full,
}

impl DecoderTuning {
    /// Name in configurations and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Lora { .. } => "lora",
            Self::Attention => "attention",
            Self::Full => "full",
        }
    }
}

/// Which pictures of a data set are held out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split {
    /// One of several equal parts; see [`crate::dataset::folds`].
    Folds {
        /// Number of parts.
        folds: usize,
        /// The part that is held out, from 0.
        fold: usize,
        /// What ends the patient's part of a file name.
        patient: Option<String>,
        /// Seed of the draw.
        seed: u64,
    },
    /// The pictures that a file names, one a line. With `train` only those are learned from, else all others.
    Lists {
        /// Held out.
        validation: PathBuf,
        /// Learned from.
        train: Option<PathBuf>,
        /// What ends the patient's part of a file name: nobody may then be in both.
        patient: Option<String>,
    },
    /// None: everything is learned from, and nothing measured.
    Nothing,
}

impl Split {
    /// What ends the patient's part of a file name, where patients are known.
    pub fn patient(&self) -> Option<&str> {
        match self {
            Self::Folds { patient, .. } | Self::Lists { patient, .. } => patient.as_deref(),
            Self::Nothing => None,
        }
    }
}

/// A data set and how it is divided.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSpec {
    /// Where it lies.
    pub set: DatasetSpec,
    /// What is held out.
    pub split: Split,
    /// Share of the masks that are learned from that are damaged on purpose, 0 to 1; see [`crate::dataset::Damage`].
    pub noise: f64,
    /// Of those that the split leaves, at most so many pictures are learned from, drawn with the run's seed; `None`: all.
    pub limit: Option<usize>,
}

/// With which prompts the network is trained. Shares are of pictures; they need not sum to one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PromptSampling {
    /// The predictor alone.
    pub autonomous: f64,
    /// The predictor, and a person's prompt for each class that is there.
    pub assisted: f64,
    /// A person's prompts alone.
    pub manual: f64,
    /// Among a person's prompts: boxes ...
    pub boxes: f64,
    /// ... one to three clicks ...
    pub points: f64,
    /// ... and rough masks.
    pub masks: f64,
    /// Each side of a box is off by up to this share of the box's size, and by a pixel at least.
    pub jitter: f64,
}

/// A part of a run with learning rates of its own. 0 leaves a part of the network as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSpec {
    /// Name in the journal.
    pub name: String,
    /// Only the pyramid of a predictor that has one: its first masks are compared with the truth, and nothing else is computed.
    pub pyramid: bool,
    /// Passes over the pictures.
    pub epochs: u64,
    /// Largest learning rate of the predictor.
    pub predictor: f64,
    /// Of the mask decoder.
    pub decoder: f64,
    /// Of the image encoder.
    pub encoder: f64,
    /// Steps over which rates rise from 0, as a share of the stage.
    pub warmup: f64,
    /// Share of the largest rate that the cosine ends at.
    pub floor: f64,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSpec {
    /// The network, and a predictor to go on with if it names one.
    pub model: ModelSpec,
    /// What is learned from; at least one.
    pub datasets: Vec<DataSpec>,
    /// Form of the predictor.
    pub form: PpnForm,
    /// Queries of a class.
    pub tokens: i64,
    /// How the decoder is trained.
    pub decoder: DecoderTuning,
    /// How the encoder is adapted; `None`: not at all.
    pub encoder: Option<EncoderLora>,
    /// The decoder is to tell whether a class is there. SAM 2's do; to others a head is added.
    pub object_score: bool,
    /// What is minimised.
    pub loss: LossConfig,
    /// Prompts.
    pub prompts: PromptSampling,
    /// Views of a picture that are encoded once and kept, beside the picture itself, which is shown once in `views` + 1 times.
    pub views: usize,
    /// From what they are drawn.
    pub augment: Augment,
    /// Once the encoder is adapted, which takes most of the time, a picture is seen in a new view each time instead of one of those
    /// that are kept.
    pub fresh: bool,
    /// One after the other; at least one.
    pub stages: Vec<StageSpec>,
    /// They are the usual ones, which have more epochs where few pictures are learned from: see [`TrainSpec::repeats`].
    pub usual: bool,
    /// Pictures of a step.
    pub batch: usize,
    /// AdamW's.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; 0: any.
    pub clip: f64,
    /// Share of the running mean of weights that a step leaves, 0: no mean is kept. Where it is kept, it is what is measured and
    /// what is written.
    pub average: f64,
    /// Epochs from one measurement to the next.
    pub validate_every: u64,
    /// Measurements without a better one after which the run ends; 0: never.
    pub patience: u64,
    /// Of everything that is drawn.
    pub seed: u64,
    /// Weights are written with 16 bits.
    pub half: bool,
    /// Folder of the encoder's features.
    pub cache: PathBuf,
    /// Folder of what the run leaves.
    pub out: PathBuf,
}

/// Pictures that the usual epochs are meant for.
const USUAL_PICTURES: usize = 160;
/// Fewer pictures are shown more often, up to so many times: a run of few steps learns little.
const MOST_REPEATS: u64 = 8;

/// How often `used` pictures are shown where `meant` ones are shown once, so that both make about as many steps.
fn repeats(meant: usize, used: usize) -> u64 {
    ((meant / used.max(1)) as u64).clamp(1, MOST_REPEATS)
}

impl TrainSpec {
    /// Whether any stage teaches the decoder.
    pub fn teaches_decoder(&self) -> bool {
        self.stages.iter().any(|stage| stage.decoder > 0.0 && !stage.pyramid)
    }

    /// Whether anything teaches the decoder to tell whether a class is there. Where nothing does, a decoder that cannot tell gets no head for
    /// it: what was drawn would empty masks by chance.
    pub fn learns_presence(&self) -> bool {
        self.object_score && self.loss.presence > 0.0 && self.teaches_decoder()
    }

    /// How often its epochs are repeated for `learned` pictures: more than once if they are the usual ones and the pictures few.
    pub fn repeats(&self, learned: usize) -> u64 {
        if self.usual { repeats(USUAL_PICTURES, learned) } else { 1 }
    }

    /// So many times the epochs, with as many measurements.
    pub fn repeated(&self, times: u64) -> Self {
        let mut spec = Self { validate_every: self.validate_every * times, ..self.clone() };
        spec.stages.iter_mut().for_each(|stage| stage.epochs *= times);
        spec
    }

    /// The same run with at most `shot` pictures of each data set (`None`: all), of which there are `learned`. The usual stages get
    /// the epochs that training gives them for so many pictures, as any run does; others as many times the given ones as makes about
    /// the steps of all pictures.
    pub fn few_shot(&self, shot: Option<usize>, learned: &[usize]) -> Self {
        let mut spec = self.clone();
        spec.datasets.iter_mut().for_each(|data| data.limit = shot);
        if spec.usual {
            return spec;
        }
        let all = learned.iter().sum();
        let used = learned.iter().map(|&n| n.min(shot.unwrap_or(usize::MAX))).sum();
        spec.repeated(repeats(all, used))
    }
}
