//! What is asked of a model before it is loaded.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use tch::Kind;

use super::{MAX_VIEWS, MemorySettings};
use crate::weights::Family;

/// Arithmetic of the network's matrix products. Normalisation, softmax and residual sums stay in `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum Precision {
    /// 32-bit: the reference. On CUDA libtorch lets cuDNN's convolutions round their factors to TF32, as the official packages
    /// do; the environment variable `NVIDIA_TF32_OVERRIDE=0` forbids it.
    #[default]
    Fp32,
    /// bfloat16.
    Bf16,
    /// IEEE 16-bit; CUDA only.
    Fp16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 3] = [Self::Fp32, Self::Bf16, Self::Fp16];

    /// Name in configurations and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
        }
    }

    /// The same in libtorch.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|p| p.name() == name);
        found.ok_or_else(|| format!("unknown precision {name:?}; expected fp32, bf16 or fp16"))
    }
}

/// Largest side of a network's input in pixels.
pub const MAX_INPUT_SIZE: usize = 4096;
/// Largest area of holes and islands that are cleaned away, in pixels of the low-resolution mask.
pub const MAX_CLEANED_AREA: usize = 1 << 20;
/// Most CPU threads.
pub const MAX_THREADS: usize = 256;

/// Which network, from which files, and how it is to work.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// What the weights must be; `None` takes what the file is.
    pub family: Option<Family>,
    /// Checkpoint of the network.
    pub weights: PathBuf,
    /// A second file over the first: a prompt predictor, with the parts of the decoder that were tuned with it.
    pub ppn: Option<PathBuf>,
    /// Which of the predictor's data sets; needed only where it has several.
    pub dataset: Option<String>,
    /// Of the predictor's classes those that are looked for, by their names; empty: all.
    pub only: Vec<String>,
    /// Arithmetic.
    pub precision: Precision,
    /// Side of the square input in pixels; `None` takes the one that the predictor was trained at, that its file was
    /// published for, or the family's own.
    pub input_size: Option<usize>,
    /// Certainty below which a class is not there, 0 to 1.
    pub presence_threshold: f32,
    /// In how many views each frame is shown to the network where the predictor alone speaks; it costs as many times as much.
    pub views: usize,
    /// Holes of the low-resolution mask up to this area are filled.
    pub max_hole_area: usize,
    /// Islands of the low-resolution mask up to this area are removed.
    pub max_sprinkle_area: usize,
    /// Where classes overlap, a pixel is of the one with the highest logit.
    pub non_overlapping: bool,
    /// libtorch's CPU threads for the whole process; 0 leaves them as they are.
    pub threads: usize,
    /// Objects are followed from frame to frame; SAM 2 alone.
    pub memory: Option<MemorySettings>,
    /// Frames are prepared, and masks made, where the network is. A GPU always works so; on a CPU it takes longer, and shows that the
    /// answers are the same.
    pub on_device: bool,
    /// What is the same work on every frame is recorded as CUDA graphs, where there is a GPU and the library for them.
    pub cuda_graphs: bool,
}

impl ModelSpec {
    /// These weights, as they are meant to be used.
    pub fn new(weights: impl Into<PathBuf>) -> Self {
        Self {
            family: None,
            weights: weights.into(),
            ppn: None,
            dataset: None,
            only: Vec::new(),
            precision: Precision::Fp32,
            input_size: None,
            presence_threshold: 0.5,
            views: 1,
            max_hole_area: 0,
            max_sprinkle_area: 0,
            non_overlapping: false,
            threads: 0,
            memory: None,
            on_device: false,
            cuda_graphs: false,
        }
    }

    /// The file that was trained last: the predictor's, else the network's.
    pub(super) fn trained_file(&self) -> &PathBuf {
        self.ppn.as_ref().unwrap_or(&self.weights)
    }

    /// Whether every number is one that can be meant.
    ///
    /// # Errors
    /// Says which is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let within = |what: &str, value: usize, range: RangeInclusive<usize>| {
            if range.contains(&value) {
                return Ok(());
            }
            Err(format!("{what} of {value}: expected {} to {}", range.start(), range.end()))
        };
        within("an input size", self.input_size.unwrap_or(1), 1..=MAX_INPUT_SIZE)?;
        within("a hole area", self.max_hole_area, 0..=MAX_CLEANED_AREA)?;
        within("a sprinkle area", self.max_sprinkle_area, 0..=MAX_CLEANED_AREA)?;
        within("a number of CPU threads", self.threads, 0..=MAX_THREADS)?;
        within("a number of views", self.views, 1..=MAX_VIEWS)?;
        if self.views > 1 && self.memory.is_some() {
            let views = self.views;
            return Err(format!("{views} views with a memory: expected 1 view, or no memory"));
        }
        if !(0.0..=1.0).contains(&self.presence_threshold) {
            return Err(format!("a presence threshold of {}: expected 0 to 1", self.presence_threshold));
        }
        self.memory.as_ref().map_or(Ok(()), MemorySettings::check)
    }
}
