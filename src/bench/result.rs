//! What came of a benchmark: one file with everything that tables, page, trace and comparisons are made from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::percentiles::percentiles;
use super::spec::{CaseSpec, Drive};
use super::usage::Use;
use crate::stage::Stage;
use crate::telemetry::LatencySummary;
use crate::whole;

/// Version of the file's layout.
pub const SCHEMA: u32 = 1;
/// Largest result that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// How the figures are formed; every result carries it.
pub const RULES: [&str; 9] = [
    "Times are milliseconds. Percentiles are nearest ranks of the raw values of the frames that count, which are those after the warm-up.",
    "Open loop: frames arrive on a clock. Latency counts from the moment at which a frame was due, not from when somebody had time for it, so a stall is in every frame that it held up.",
    "end_to_end, open loop: from the due time to the hand-over to the sink, of frames that were shown. Frames that were dropped have no latency: they are counted as lost.",
    "glass_to_glass: from the due time that is written into the picture of the source to the moment at which the sink gets the rendered picture from which it is read. Camera and screen are not in it.",
    "mask_ready: from the due time of a frame to its masks, of frames that the model took.",
    "mask_age: at the hand-over, age of the masks that a frame carries, from capture to capture; 0 for its own. Frames without a mask have none: see masked. Masks older than the limit are not drawn.",
    "Closed loop: the model is called back to back on pictures in memory; end_to_end is one call.",
    "Each case runs in a process of its own. CPU use is user and system time of that process over the time of the frames that count (open loop: until the last frame's time is over); peak memory is its largest resident set, with the pictures that are kept in memory, whose size is given.",
    "A memory across frames follows SAM 2's own policy (every frame is remembered), so that it is never cheaper than in use. Before the first frame the model is called 18 times, which fills what a box began; the memory's own counts include them. Weights made from a rule are as fast as trained ones and segment nothing.",
];

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseStatus {
    /// Everything was measured.
    Done,
    /// It was interrupted: what was measured until then is there.
    Partial,
    /// It failed, and why is in the reason.
    Failed,
    /// It was not begun, because the benchmark was interrupted.
    NotRun,
}

impl CaseStatus {
    /// Name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::NotRun => "not_run",
        }
    }
}

/// One frame; times are milliseconds on the case's own clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameRow {
    /// Its number, from 0.
    pub frame: u64,
    /// It came after the warm-up.
    pub counted: bool,
    /// When it was due; in closed loop when the model was called.
    pub due_ms: f64,
    /// When it entered the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captured_ms: Option<f64>,
    /// When the model was given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<f64>,
    /// When its masks were there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<f64>,
    /// When the sink had taken it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed_ms: Option<f64>,
    /// When it reached the glass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glass_ms: Option<f64>,
    /// The due time that was read off it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark_ms: Option<f64>,
    /// Age of the masks on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_age_ms: Option<f64>,
    /// Time in each stage that it passed.
    pub stages_ms: BTreeMap<String, f64>,
}

/// What is measured of a frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// See [`RULES`].
    EndToEnd,
    /// See [`RULES`].
    GlassToGlass,
    /// See [`RULES`].
    MaskReady,
    /// See [`RULES`].
    MaskAge,
    /// A stage.
    Stage(Stage),
}

impl Metric {
    /// Every metric, in the order of tables.
    pub fn all() -> Vec<Self> {
        let whole = [Self::EndToEnd, Self::GlassToGlass, Self::MaskReady, Self::MaskAge];
        whole.into_iter().chain(Stage::ALL.into_iter().map(Self::Stage)).collect()
    }

    /// Name in results.
    pub fn name(&self) -> &'static str {
        match self {
            Self::EndToEnd => "end_to_end",
            Self::GlassToGlass => "glass_to_glass",
            Self::MaskReady => "mask_ready",
            Self::MaskAge => "mask_age",
            Self::Stage(stage) => stage.name(),
        }
    }

    /// Its value for one frame, milliseconds; `None` where the frame has none.
    pub fn of(&self, row: &FrameRow, drive: Drive) -> Option<f64> {
        let open = drive != Drive::Closed;
        match self {
            Self::EndToEnd if open => Some(row.pushed_ms? - row.due_ms),
            Self::EndToEnd => Some(row.ended_ms? - row.due_ms),
            Self::GlassToGlass => Some(row.glass_ms? - row.mark_ms?),
            Self::MaskReady if open => Some(row.ended_ms? - row.due_ms),
            Self::MaskReady => None,
            Self::MaskAge => row.mask_age_ms,
            Self::Stage(stage) => row.stages_ms.get(stage.name()).copied(),
        }
    }
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// What was measured.
    pub case: CaseSpec,
    /// How it ended.
    pub status: CaseStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where the model ran.
    pub device: Option<String>,
    /// What is known of the model.
    pub model: Option<serde_json::Value>,
    /// What the model remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<serde_json::Value>,
    /// The pictures, in a few words.
    pub source: String,
    /// Counts of the whole case, warm-up included: `in = out + dropped`, and the reasons.
    pub frames: BTreeMap<String, u64>,
    /// Counts of the frames that count: sent = shown + lost; of those shown, masked and unread (whose mark could not be read);
    /// segmented.
    pub counted: BTreeMap<String, u64>,
    /// Seconds from the first frame that counts, when it was due, to the last: when it was shown or when the next would be due.
    pub seconds: f64,
    /// Frames that were shown (closed loop: segmented) in a second.
    pub per_second: f64,
    /// Masks that were finished in a second.
    pub segmented_per_second: f64,
    /// Milliseconds, by the name of the metric.
    pub metrics: BTreeMap<String, LatencySummary>,
    /// What it used.
    #[serde(rename = "use")]
    pub used: Use,
    /// Every frame.
    pub rows: Vec<FrameRow>,
}

impl CaseResult {
    /// A case without figures.
    pub fn without(case: &CaseSpec, status: CaseStatus, reason: Option<String>) -> Self {
        Self {
            case: case.clone(),
            status,
            reason,
            device: None,
            model: None,
            memory: None,
            source: String::new(),
            frames: BTreeMap::new(),
            counted: BTreeMap::new(),
            seconds: 0.0,
            per_second: 0.0,
            segmented_per_second: 0.0,
            metrics: BTreeMap::new(),
            used: Use::default(),
            rows: Vec::new(),
        }
    }

    /// Whether there is anything to show.
    pub fn measured(&self) -> bool {
        !self.metrics.is_empty()
    }

    /// Values of `metric`, of the frames that count, in the order of the frames.
    pub fn values(&self, metric: &Metric) -> Vec<f64> {
        let counted = self.rows.iter().filter(|row| row.counted);
        counted.filter_map(|row| metric.of(row, self.case.drive)).collect()
    }

    /// From the first frame that counts, when it was due, to the last: when it was shown or when the next would be due. Milliseconds.
    fn span(&self) -> (f64, f64) {
        let mut counted = self.rows.iter().filter(|row| row.counted).peekable();
        let first = counted.peek().map_or(0.0, |row| row.due_ms);
        let end = |row: &FrameRow| match self.case.drive {
            // The last frame of a clock lasts until the next would be due; what the model still does then is not waited for.
            Drive::Open { rate, .. } => row.pushed_ms.unwrap_or(0.0).max(row.due_ms + 1e3 / rate),
            Drive::Closed => row.ended_ms.unwrap_or(0.0),
        };
        (first, counted.map(end).fold(first, f64::max))
    }

    /// Milliseconds from each frame that was shown (closed loop: segmented) to the next. With what comes before the first and after the
    /// last, so that their number over their sum is [`Self::per_second`].
    pub(super) fn between_frames(&self) -> Vec<f64> {
        let open = self.case.drive != Drive::Closed;
        let counted = self.rows.iter().filter(|row| row.counted);
        self.between(counted.filter_map(|row| if open { row.pushed_ms } else { row.ended_ms }))
    }

    /// The same of masks that were finished, [`Self::segmented_per_second`].
    pub(super) fn between_masks(&self) -> Vec<f64> {
        self.between(self.rows.iter().filter_map(|row| row.ended_ms))
    }

    fn between(&self, moments: impl Iterator<Item = f64>) -> Vec<f64> {
        let (first, last) = self.span();
        let mut moments: Vec<f64> = moments.filter(|ms| (first..=last).contains(ms)).collect();
        moments.sort_by(f64::total_cmp);
        if let Some(end) = moments.last_mut() {
            *end = last;
        }
        let before = std::iter::once(first).chain(moments.iter().copied());
        moments.iter().zip(before).map(|(ms, before)| ms - before).collect()
    }

    /// Forms every figure that follows from the rows.
    pub fn summarise(&mut self) {
        let of = |m: Metric| Some((m.name().to_owned(), percentiles(&self.values(&m))?));
        self.metrics = Metric::all().into_iter().filter_map(of).collect();
        let open = self.case.drive != Drive::Closed;
        let counted: Vec<&FrameRow> = self.rows.iter().filter(|row| row.counted).collect();
        let number =
            |which: &dyn Fn(&FrameRow) -> bool| counted.iter().filter(|row| which(row)).count() as u64;
        let sent = counted.len() as u64;
        let segmented = number(&|row| row.ended_ms.is_some());
        let shown = if open { number(&|row| row.pushed_ms.is_some()) } else { segmented };
        let (first, last) = self.span();
        self.seconds = (last - first) / 1e3;
        let rate = |n: u64| if self.seconds > 0.0 { n as f64 / self.seconds } else { 0.0 };
        let finished = |row: &&FrameRow| row.ended_ms.is_some_and(|ms| (first..=last).contains(&ms));
        let in_time = self.rows.iter().filter(finished).count() as u64;
        (self.per_second, self.segmented_per_second) = (rate(shown), rate(in_time));
        let mut counts = BTreeMap::from([
            ("sent".to_owned(), sent),
            ("shown".to_owned(), shown),
            ("lost".to_owned(), sent - shown),
            ("segmented".to_owned(), segmented),
        ]);
        if open {
            counts.insert("masked".to_owned(), number(&|row| row.mask_age_ms.is_some()));
            counts
                .insert("unread".to_owned(), number(&|row| row.glass_ms.is_some() && row.mark_ms.is_none()));
        }
        self.counted = counts;
    }
}

/// A whole benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchResult {
    /// Version of this layout, [`SCHEMA`].
    pub schema: u32,
    /// Name of the benchmark.
    pub name: String,
    /// When it began, UTC.
    pub began: String,
    /// Seconds that it took.
    pub seconds: f64,
    /// It was stopped before the last case.
    pub interrupted: bool,
    /// The machine.
    pub machine: Machine,
    /// Versions of what it ran on.
    pub versions: BTreeMap<String, String>,
    /// Commit of the program, `unknown` where nobody knows; with `+changes` where files differ from it.
    pub commit: String,
    /// SHA-256 of the program's file: tells builds of one commit apart.
    pub program_sha256: Option<String>,
    /// `release`, or `dev` where it was built with checks and little optimisation.
    pub build: String,
    /// The effective configuration.
    pub config: String,
    /// How figures are formed.
    pub rules: Vec<String>,
    /// The cases, in the order of the matrix.
    pub cases: Vec<CaseResult>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// The file cannot be read or written.
    #[error("{reason}: {}", path.display())]
    Io {
        /// The system's words.
        reason: std::io::Error,
        /// The file.
        path: PathBuf,
    },
    /// Not a result of a benchmark.
    #[error("not a result of `sonomask bench`: {reason}: {}", path.display())]
    Format {
        /// What is wrong with it.
        reason: String,
        /// The file.
        path: PathBuf,
    },
}

impl BenchResult {
    /// The case of that name, if anything was measured of it.
    pub fn measured(&self, name: &str) -> Option<&CaseResult> {
        self.cases.iter().find(|case| case.measured() && case.case.name == name)
    }

    /// Reads a result.
    ///
    /// # Errors
    /// A file that cannot be read, is too large, or is no result of this version.
    pub fn read(path: &Path) -> Result<Self, ResultError> {
        let io = |reason| ResultError::Io { reason, path: path.to_owned() };
        let format = |reason: String| ResultError::Format { reason, path: path.to_owned() };
        let length = std::fs::metadata(path).map_err(io)?.len();
        if length > MAX_FILE {
            return Err(format(format!("{length} bytes, expected at most {MAX_FILE}")));
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| format(e.to_string()))?;
        let schema = value.get("schema").and_then(serde_json::Value::as_u64);
        if schema != Some(u64::from(SCHEMA)) {
            let found = schema.map_or_else(|| "none".to_owned(), |s| s.to_string());
            return Err(format(format!("schema {found}, expected {SCHEMA}")));
        }
        serde_json::from_value(value).map_err(|e| format(e.to_string()))
    }

    /// Writes it; a reader never sees a part of it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ResultError> {
        let io = |reason| ResultError::Io { reason, path: path.to_owned() };
        let mut text = serde_json::to_string(self).map_err(|e| io(std::io::Error::other(e)))?;
        text.push('\n');
        whole::write(path, text.as_bytes()).map_err(io)
    }
}
