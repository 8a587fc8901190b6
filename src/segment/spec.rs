//! What is asked of a model before it is loaded.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tch::Kind;

use crate::weights::Family;

/// Arithmetic of the network's matrix products. Normalisation, softmax and sums stay in `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum Precision {
    /// IEEE 32-bit: the reference.
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
    /// Arithmetic.
    pub precision: Precision,
    /// Side of the square input in pixels; `None` takes the family's own.
    pub input_size: Option<usize>,
    /// Certainty below which a class is not there, 0 to 1.
    pub presence_threshold: f32,
    /// Holes of the low-resolution mask up to this area are filled.
    pub max_hole_area: usize,
    /// Islands of the low-resolution mask up to this area are removed.
    pub max_sprinkle_area: usize,
    /// libtorch's CPU threads for the whole process; 0 leaves them as they are.
    pub threads: usize,
}

impl ModelSpec {
    /// These weights, as they are meant to be used.
    pub fn new(weights: impl Into<PathBuf>) -> Self {
        Self {
            family: None,
            weights: weights.into(),
            ppn: None,
            dataset: None,
            precision: Precision::Fp32,
            input_size: None,
            presence_threshold: 0.5,
            max_hole_area: 0,
            max_sprinkle_area: 0,
            threads: 0,
        }
    }
}
