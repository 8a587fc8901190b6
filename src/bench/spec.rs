//! What is measured: the matrix of a file, and one case of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::frame::PixelFormat;

/// Most cases of one file.
pub const MAX_CASES: usize = 4096;
/// Around the phantom's vessel, in fractions of the picture.
pub const DEFAULT_BOX: [f32; 4] = [0.29, 0.36, 0.47, 0.56];

/// A model of the matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelChoice {
    /// Name in results; unique.
    pub name: String,
    /// Name of the family; what the file is if absent.
    pub family: Option<String>,
    /// Checkpoint; absent until weights made from a rule have been written.
    pub weights: Option<PathBuf>,
    /// The weights are made from a rule.
    pub generated: bool,
    /// Prompt predictor over it; the model is then asked without prompts.
    pub ppn: Option<PathBuf>,
    /// One box for each class, as fractions of the picture, where there is no predictor.
    pub boxes: Vec<[f32; 4]>,
    /// libtorch's CPU threads; 0 leaves them as they are.
    pub threads: usize,
    /// What is the same work on every frame is recorded as CUDA graphs.
    #[serde(default)]
    pub cuda_graphs: bool,
}

/// Where frames come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceChoice {
    /// The simulated scanner, with this seed.
    Phantom(u64),
    /// A recording.
    File(PathBuf),
}

/// What the stream does when the model is slower than the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamMode {
    /// Every frame leaves at once with the newest mask; as at the bedside.
    Latest,
    /// Every frame waits for its own mask; those that the model cannot take are dropped.
    Paired,
    /// Every frame waits for its own mask and none is dropped: the source waits, its clock does not.
    Lossless,
}

impl StreamMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Latest, Self::Paired, Self::Lossless];

    /// Name in configurations and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Paired => "paired",
            Self::Lossless => "lossless",
        }
    }
}

/// What sets the pace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub enum Drive {
    /// The model: the next frame begins when the last is done. Measures throughput.
    Closed,
    /// The clock: frames arrive at a rate, whether or not anybody is ready. Measures latency.
    Open {
        /// Frames per second.
        rate: f64,
        /// What gives way.
        stream: StreamMode,
    },
}

/// The axes of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelAxes {
    /// Which model.
    pub model: ModelChoice,
    /// Sides of the network's input in pixels; `None` is the family's own.
    pub input_sizes: Vec<Option<usize>>,
    /// Names of precisions.
    pub precisions: Vec<String>,
    /// Names of devices.
    pub devices: Vec<String>,
    /// Without and with a memory across frames.
    pub memory: Vec<bool>,
    /// Frames that are not counted, where that is another number than the matrix's.
    pub warmup: Option<u64>,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Name of the benchmark.
    pub name: String,
    /// Frames of each case that are not counted.
    pub warmup: u64,
    /// Frames of each case that are; `None` where time alone ends it.
    pub frames: Option<u64>,
    /// Seconds after which a case ends; `None` where frames alone end it.
    pub seconds: Option<f64>,
    /// Seconds after which a case is given up.
    pub timeout: f64,
    /// Oldest mask that is drawn, milliseconds.
    pub max_mask_age_ms: u64,
    /// Where frames come from.
    pub source: SourceChoice,
    /// Pictures that are kept in memory and shown there and back.
    pub pictures: usize,
    /// Their pixel format; `None` is gray or RGBx, as they are.
    pub format: Option<PixelFormat>,
    /// Sizes of the pictures; `None` is the file's own.
    pub sizes: Vec<Option<(usize, usize)>>,
    /// What sets the pace.
    pub drives: Vec<Drive>,
    /// Models with their axes.
    pub models: Vec<ModelAxes>,
}

/// One case of a matrix: everything that its process has to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseSpec {
    /// Name in results: every axis in words, so that equal names are equal cases.
    pub name: String,
    /// Which model.
    pub model: ModelChoice,
    /// Side of the network's input; `None` is the family's own.
    pub input_size: Option<usize>,
    /// Name of the precision.
    pub precision: String,
    /// Name of the device.
    pub device: String,
    /// With a memory across frames.
    pub memory: bool,
    /// Where frames come from.
    pub source: SourceChoice,
    /// Pictures that are kept in memory.
    pub pictures: usize,
    /// Their pixel format; `None` is gray or RGBx, as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<PixelFormat>,
    /// Size of the pictures.
    pub size: Option<(usize, usize)>,
    /// What sets the pace.
    #[serde(flatten)]
    pub drive: Drive,
    /// Frames that are not counted.
    pub warmup: u64,
    /// Frames that are counted, at most.
    pub frames: Option<u64>,
    /// Seconds after which it ends.
    pub seconds: Option<f64>,
    /// Oldest mask that is drawn, milliseconds.
    pub max_mask_age_ms: u64,
}

impl Matrix {
    /// How many cases there are.
    pub fn count(&self) -> usize {
        let of = |m: &ModelAxes| {
            [m.input_sizes.len(), m.precisions.len(), m.devices.len(), m.memory.len()]
                .into_iter()
                .fold(1, usize::saturating_mul)
        };
        let models = self.models.iter().map(of).fold(0, usize::saturating_add);
        models.saturating_mul(self.sizes.len()).saturating_mul(self.drives.len())
    }

    /// Every case, those of a model one after the other.
    pub fn cases(&self) -> Vec<CaseSpec> {
        let mut cases = Vec::new();
        for axes in &self.models {
            for &input_size in &axes.input_sizes {
                for precision in &axes.precisions {
                    for device in &axes.devices {
                        for &memory in &axes.memory {
                            for &size in &self.sizes {
                                for &drive in &self.drives {
                                    let mut case = CaseSpec {
                                        name: String::new(),
                                        model: axes.model.clone(),
                                        input_size,
                                        precision: precision.clone(),
                                        device: device.clone(),
                                        memory,
                                        source: self.source.clone(),
                                        pictures: self.pictures,
                                        format: self.format,
                                        size,
                                        drive,
                                        warmup: axes.warmup.unwrap_or(self.warmup),
                                        frames: self.frames,
                                        seconds: self.seconds,
                                        max_mask_age_ms: self.max_mask_age_ms,
                                    };
                                    case.name = case.describe();
                                    cases.push(case);
                                }
                            }
                        }
                    }
                }
            }
        }
        cases
    }
}

impl CaseSpec {
    fn describe(&self) -> String {
        let input = self.input_size.map_or_else(String::new, |side| format!(" @{side}"));
        let memory = if self.memory { " memory" } else { "" };
        let size = self.size.map_or_else(|| "own size".to_owned(), |(w, h)| format!("{w}x{h}"));
        let format = self.format.map_or_else(String::new, |format| format!(" {}", format.name()));
        let drive = match self.drive {
            Drive::Closed => "closed".to_owned(),
            Drive::Open { rate, stream } => format!("open {rate}/s {}", stream.name()),
        };
        format!(
            "{}{input} {} {}{memory}, {size}{format}, {drive}",
            self.model.name, self.precision, self.device
        )
    }

    /// Frames that are asked of it beyond those that are not counted; `None` where only time ends it.
    pub fn expected(&self) -> Option<u64> {
        let by_time = match (self.seconds, self.drive) {
            (Some(seconds), Drive::Open { rate, .. }) => Some((seconds * rate).ceil().max(1.0) as u64),
            _ => None,
        };
        match (self.frames, by_time) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
