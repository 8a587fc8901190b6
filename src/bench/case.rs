//! One case, in a process of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::closed::{Measured, closed};
use super::footage::{Footage, FootageError};
use super::machine::torch_threads;
use super::open::{Streamed, open};
use super::result::{CaseResult, CaseStatus};
use super::spec::{CaseSpec, Drive};
use super::usage::Use;
use super::warm::{FILLS, Warm, warm_up};
use crate::media::{FormatError, MediaError};
use crate::pipeline::{Ended, RunError};
use crate::segment::{
    self, DeviceChoice, DeviceError, Guidance, LoadError, MemorySettings, Mode, ModelSpec, Precision, Prompt,
    SegmentError, Segmenter, Units, learned_classes,
};
use crate::stage::StageTimes;
use crate::telemetry::peak_rss_bytes;
use crate::weights::{Family, FamilyError};

/// Why a case has no figures.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The pictures.
    #[error(transparent)]
    Footage(#[from] FootageError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The family's name.
    #[error(transparent)]
    Family(#[from] FamilyError),
    /// The model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A picture that cannot be seen.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The model, on a frame.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// GStreamer.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The stream could not start.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The stream broke.
    #[error("{0}")]
    Stream(String),
}

/// What a loop works with.
pub(super) struct Prepared {
    pub footage: Footage,
    pub model: Box<dyn Segmenter>,
    pub guidance: Guidance,
    /// Names of the classes.
    pub classes: Vec<String>,
}

/// Milliseconds to the tenth of a microsecond.
pub(super) fn ms(time: Duration) -> f64 {
    (time.as_nanos() as f64 / 1e2).round() / 1e4
}

/// Milliseconds by the name of the stage.
pub(super) fn stages_of(times: &StageTimes) -> BTreeMap<String, f64> {
    times.iter().map(|(stage, nanos)| (stage.name().to_owned(), ms(Duration::from_nanos(nanos)))).collect()
}

/// Measures one case in this process. `progress` gets the frames that were sent so far; `stopped` says that it shall end early.
/// What fails is in the result.
pub fn run_case(
    spec: &CaseSpec,
    runtime: &Runtime,
    progress: &mut dyn FnMut(u64),
    stopped: &(dyn Fn() -> bool + Sync),
) -> CaseResult {
    let mut result = CaseResult::without(spec, CaseStatus::Failed, None);
    if let Err(e) = measure(spec, runtime, &mut result, progress, stopped) {
        (result.status, result.reason) = (CaseStatus::Failed, Some(e.to_string()));
    }
    result.used.peak_rss_bytes = peak_rss_bytes();
    result
}

fn measure(
    spec: &CaseSpec,
    runtime: &Runtime,
    result: &mut CaseResult,
    progress: &mut dyn FnMut(u64),
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<(), CaseError> {
    let mut prepared = prepare(spec)?;
    let info = prepared.model.info().clone();
    result.device = Some(info.device.clone());
    result.model = serde_json::to_value(&info).ok();
    result.source = prepared.footage.name.clone();
    result.used.pictures_bytes = prepared.footage.bytes();
    result.used.threads = torch_threads();
    let measured = match spec.drive {
        Drive::Closed => {
            if spec.memory {
                warm_up(&mut prepared, FILLS, stopped)?;
            }
            let measured = closed(spec, &mut prepared, progress, stopped)?;
            let n = measured.rows.len() as u64;
            let counts = [("in", n), ("out", n), ("dropped", 0), ("segmented", n)];
            result.frames = counts.map(|(name, n)| (name.to_owned(), n)).into();
            result.memory = prepared.model.memory().and_then(|m| serde_json::to_value(m).ok());
            measured
        }
        Drive::Open { rate, stream } => {
            warm_up(&mut prepared, if spec.memory { FILLS } else { 1 }, stopped)?;
            prepared.model = Box::new(Warm::new(prepared.model));
            let Streamed { measured, report } =
                open(spec, (rate, stream), prepared, runtime, progress, stopped)?;
            let counts = serde_json::to_value(report.frames).ok();
            result.frames = counts.and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
            result.memory = report.memory.as_ref().and_then(|m| serde_json::to_value(m).ok());
            if let Ended::Failed(reason) = &report.ended {
                result.reason = Some(reason.clone());
            }
            if let Some(off) = report.ai_off.first() {
                result.reason.get_or_insert_with(|| format!("the model failed: {}", off.reason));
            }
            measured
        }
    };
    take_in(result, measured);
    Ok(())
}

fn take_in(result: &mut CaseResult, measured: Measured) {
    let Measured { rows, cpu, gpu, interrupted } = measured;
    result.rows = rows;
    result.summarise();
    result.used = Use {
        cpu_seconds: cpu.map(|cpu| cpu.own),
        cpu_cores: cpu.filter(|cpu| cpu.wall > 0.0).map(|cpu| cpu.own / cpu.wall),
        others_cpu_cores: cpu.filter(|cpu| cpu.wall > 0.0).and_then(|cpu| Some(cpu.others? / cpu.wall)),
        gpu,
        ..result.used.clone()
    };
    result.status = match (&result.reason, interrupted) {
        (Some(_), _) => CaseStatus::Failed,
        (None, true) => CaseStatus::Partial,
        (None, false) => CaseStatus::Done,
    };
}

fn prepare(spec: &CaseSpec) -> Result<Prepared, CaseError> {
    let device = spec.device.parse::<DeviceChoice>()?.resolve()?;
    let setting = |e: String| CaseError::Load(LoadError::Setting(e));
    let weights: PathBuf =
        spec.model.weights.clone().ok_or_else(|| setting("the case has no weights".to_owned()))?;
    let model_spec = ModelSpec {
        family: spec.model.family.as_deref().map(str::parse::<Family>).transpose()?,
        ppn: spec.model.ppn.clone(),
        precision: spec.precision.parse::<Precision>().map_err(setting)?,
        input_size: spec.input_size,
        threads: spec.model.threads,
        cuda_graphs: spec.model.cuda_graphs,
        memory: spec.memory.then(MemorySettings::sam2),
        ..ModelSpec::new(weights)
    };
    let learned = learned_classes(&model_spec)?;
    let model = segment::load(&model_spec, &device)?;
    let (guidance, classes) = if learned.is_empty() {
        let boxes = spec.model.boxes.iter().enumerate();
        let prompt = |(class, bbox): (usize, &[f32; 4])| Prompt {
            class,
            units: Units::Fraction,
            bbox: Some(*bbox),
            ..Prompt::default()
        };
        let names = (1..=spec.model.boxes.len()).map(|n| format!("class {n}")).collect();
        (Guidance::manual(boxes.map(prompt).collect()), names)
    } else {
        (Guidance { mode: Mode::Autonomous, prompts: Vec::new() }, learned)
    };
    let footage = Footage::load(&spec.source, spec.pictures, spec.size, spec.format)?;
    Ok(Prepared { footage, model, guidance, classes })
}
