//! The numbers of a run, for a file and for the terminal.

use std::collections::BTreeMap;

use super::ai::OffEvent;
use crate::segment::{MemoryCounts, ModelInfo};
use crate::stage::Stage;
use crate::telemetry::{Distributions, FrameCounts, LatencySummary, peak_rss_bytes, versions};

/// How a run came to its end.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "how", content = "reason", rename_all = "snake_case")]
pub enum Ended {
    /// The source had no more frames.
    EndOfStream,
    /// Somebody stopped it.
    Interrupted,
    /// Something broke.
    Failed(String),
}

/// Everything a run leaves behind in numbers. The field names are a contract.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// Version of this layout.
    pub schema: u32,
    /// What was read.
    pub input: String,
    /// What was written or shown.
    pub output: String,
    /// How the run ended.
    pub ended: Ended,
    /// Seconds from start to end.
    pub seconds: f64,
    /// Counts; `in = out + dropped`.
    pub frames: FrameCounts,
    /// Per stage, in milliseconds.
    pub stages_ms: BTreeMap<&'static str, LatencySummary>,
    /// From the appsink callback to the hand-over to the sink.
    pub capture_to_push_ms: LatencySummary,
    /// Age of the masks that were drawn.
    pub mask_age_ms: LatencySummary,
    /// The model; absent when none was loaded.
    pub model: Option<ModelInfo>,
    /// What the model remembered of the frames before; absent without a memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryCounts>,
    /// Where the model ran.
    pub device: String,
    /// Largest resident set of the process.
    pub peak_rss_bytes: Option<u64>,
    /// Changes of the stream (caps, reconnects) after which older masks were void.
    pub resets: u32,
    /// Failures of the model.
    pub ai_off: Vec<OffEvent>,
    /// Mask files and contact-sheet pictures that the disk could not take in time.
    pub sidecar_dropped: u64,
    /// Mode of the display, `paired` or `latest`.
    pub display: &'static str,
    /// Versions of what made this.
    pub versions: BTreeMap<&'static str, String>,
}

/// What a report is made from.
#[derive(Clone, Debug)]
pub struct ReportInput {
    /// See [`Report::input`].
    pub input: String,
    /// See [`Report::output`].
    pub output: String,
    /// See [`Report::ended`].
    pub ended: Ended,
    /// See [`Report::seconds`].
    pub seconds: f64,
    /// See [`Report::frames`].
    pub frames: FrameCounts,
    /// Source of the summaries.
    pub distributions: Distributions,
    /// See [`Report::model`].
    pub model: Option<ModelInfo>,
    /// See [`Report::memory`].
    pub memory: Option<MemoryCounts>,
    /// See [`Report::resets`].
    pub resets: u32,
    /// See [`Report::ai_off`].
    pub ai_off: Vec<OffEvent>,
    /// See [`Report::sidecar_dropped`].
    pub sidecar_dropped: u64,
    /// See [`Report::display`].
    pub display: &'static str,
}

impl From<ReportInput> for Report {
    fn from(run: ReportInput) -> Self {
        let d = &run.distributions;
        Self {
            schema: 1,
            input: run.input,
            output: run.output,
            ended: run.ended,
            seconds: (run.seconds * 1e3).round() / 1e3,
            frames: run.frames,
            stages_ms: Stage::ALL.into_iter().map(|s| (s.name(), d.stage(s).summary())).collect(),
            capture_to_push_ms: d.capture_to_push.summary(),
            mask_age_ms: d.mask_age.summary(),
            device: run.model.as_ref().map_or_else(|| "none".into(), |m| m.device.clone()),
            model: run.model,
            memory: run.memory,
            peak_rss_bytes: peak_rss_bytes(),
            resets: run.resets,
            ai_off: run.ai_off,
            sidecar_dropped: run.sidecar_dropped,
            display: run.display,
            versions: versions(),
        }
    }
}
