//! The tables of a configuration and how each is read.

use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use super::read::{Log, Section};
use super::tree::Node;
use crate::media::template::Params;
use crate::overlay::Style;
use crate::segment::memory::{
    Ask, BankLimits, Blend, MAX_PATIENCE, MAX_POINTERS, MAX_PROMPTED, MAX_STRIDE, MemorySettings,
    RECENT_FRAMES,
};
use crate::segment::{
    DeviceChoice, MAX_CLEANED_AREA, MAX_INPUT_SIZE, MAX_THREADS, MAX_VIEWS, Mode, Precision,
};
use crate::weights::Family;

/// How the frames of a recorded source are paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaceChoice {
    /// Real time for live sources and where the display or the queue is `latest`, else as fast as possible.
    Auto,
    /// By their PTS against the clock.
    Realtime,
    /// As fast as the consumer takes them.
    Fast,
}

/// `[source]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceConfig {
    /// Name of a source template, or `phantom`.
    pub kind: String,
    /// Pacing of sources that are not live.
    pub pace: PaceChoice,
    /// Hand GRAY8 on as it is instead of converting it.
    pub keep_gray: bool,
    /// Wait before reconnecting a live source; `None`: end instead.
    pub reconnect: Option<Duration>,
    /// Values for the template's parameters.
    pub params: Params,
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `false`: the video passes without masks.
    pub enabled: bool,
    /// Family name, one of [`Family::ALL`].
    pub family: String,
    /// Weights file.
    pub weights: Option<PathBuf>,
    /// Prompt predictor, with whatever else was tuned with it.
    pub ppn: Option<PathBuf>,
    /// Which of the predictor's data sets, where it has several.
    pub dataset: Option<String>,
    /// Of the predictor's classes those that are looked for; empty: all.
    pub only: Vec<String>,
    /// Where prompts come from; `None`: assisted by the predictor if there is one, else manual.
    pub mode: Option<Mode>,
    /// Share of certainty, 0 to 1, below which a class is not there.
    pub presence_threshold: f32,
    /// In how many views each frame is shown to the network where the predictor alone speaks.
    pub views: usize,
    /// Arithmetic of the network.
    pub precision: Precision,
    /// Side of the network's input in pixels; `None`: that which the predictor was taught at or its file was published
    /// for, else the family's own.
    pub input_size: Option<usize>,
    /// Holes up to this many pixels of the low-resolution mask are filled.
    pub max_hole_area: usize,
    /// Islands up to this many pixels of the low-resolution mask are removed.
    pub max_sprinkle_area: usize,
    /// Where classes overlap, a pixel is of the one with the highest logit.
    pub non_overlapping: bool,
    /// Where the network runs.
    pub device: DeviceChoice,
    /// CPU threads of the network, 0 = automatic.
    pub threads: usize,
    /// What is the same work on every frame is recorded as CUDA graphs, where there is a GPU and the library for them.
    pub cuda_graphs: bool,
    /// Time without a result after which the worker counts as stuck.
    pub watchdog: Duration,
    /// Wait before the first restart of a failed worker; doubles with each.
    pub restart_backoff: Duration,
    /// Restarts in a row without a result before the AI stays off.
    pub max_restarts: u32,
}

/// `[memory] predictor`; the interval has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AskChoice {
    First,
    Every,
    Interval,
    Lost,
}

/// `[memory]`: whether and how objects are followed from frame to frame.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryConfig {
    /// `None`: every frame is segmented for itself.
    pub settings: Option<MemorySettings>,
}

/// `[stream] display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisplayChoice {
    /// Each frame with its own mask.
    Paired,
    /// Every frame at once, with the newest mask, drawn as aged.
    Latest,
}

/// `[stream] queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueChoice {
    /// Drop the oldest waiting frame and count it.
    Latest,
    /// Make the source wait.
    Lossless,
}

/// `[stream]`.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamConfig {
    /// Which mask a frame shows.
    pub display: DisplayChoice,
    /// What gives way when the model is slower than the source.
    pub queue: QueueChoice,
    /// Age after which a mask is no longer shown.
    pub max_mask_age: Duration,
    /// Frames that may wait for the compositor.
    pub display_depth: usize,
    /// Frames that may wait for the model.
    pub queue_depth: usize,
    /// Silence of a live source after which NO SIGNAL is shown; `None`: the last frame stays.
    pub no_signal: Option<Duration>,
}

/// `[overlay]`.
#[derive(Clone, Debug, PartialEq)]
pub struct OverlayConfig {
    /// `false`: the picture passes bit for bit.
    pub enabled: bool,
    /// What is drawn and how.
    pub style: Style,
}

/// `[sink]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkConfig {
    /// Name of a sink template.
    pub kind: String,
    /// Declared to GStreamer for live sources: time from capture to the sink.
    pub latency: Duration,
    /// Values for the template's parameters.
    pub params: Params,
}

/// `[output] masks_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasksFormat {
    /// One PNG per class and frame.
    Png,
    /// JSON lines with run lengths.
    Rle,
}

/// `[output]`.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputConfig {
    /// Folder for the masks.
    pub masks: Option<PathBuf>,
    /// How masks are written.
    pub masks_format: MasksFormat,
    /// File for the report.
    pub report: Option<PathBuf>,
    /// Time between two printed lines.
    pub report_interval: Duration,
    /// PNG with a choice of frames.
    pub contact_sheet: Option<PathBuf>,
}

/// The names under which `[source]` has settings of its own; everything else belongs to the template.
pub(super) const SOURCE_KEYS: &[&str] = &["kind", "pace", "keep_gray", "reconnect"];
/// The same for `[sink]`.
pub(super) const SINK_KEYS: &[&str] = &["kind", "latency"];

const KIND_EXPECTED: &str = "the name of a template: letters, digits, - and _";
const MILLI: Duration = Duration::from_millis(1);

fn kind_name(text: &str) -> Option<String> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    plain.then(|| text.to_owned())
}

impl SourceConfig {
    pub(super) fn read(node: Option<Node>, log: &mut Log) -> Result<Self, ConfigError> {
        let mut s = Section::new("source", node, log)?;
        let out = Self {
            kind: s.text("kind", KIND_EXPECTED, ("file", "file".to_owned()), kind_name)?,
            pace: s.choice(
                "pace",
                PaceChoice::Auto,
                &[("auto", PaceChoice::Auto), ("realtime", PaceChoice::Realtime), ("fast", PaceChoice::Fast)],
            )?,
            keep_gray: s.bool("keep_gray", false)?,
            reconnect: Some(s.duration("reconnect", Duration::from_secs(2), Duration::ZERO)?)
                .filter(|d| !d.is_zero()),
            params: s.remaining(),
        };
        s.finish()?;
        Ok(out)
    }
}

impl ModelConfig {
    pub(super) fn read(node: Option<Node>, log: &mut Log) -> Result<Self, ConfigError> {
        let mut s = Section::new("model", node, log)?;
        let family = |t: &str| t.parse::<Family>().is_ok().then(|| t.to_owned());
        let out = Self {
            enabled: s.bool("enabled", true)?,
            family: s.text(
                "family",
                &format!("one of {}", Family::ALL.map(Family::name).join(", ")),
                ("lite-medsam", "lite-medsam".to_owned()),
                family,
            )?,
            weights: s.path_opt("weights")?,
            ppn: s.path_opt("ppn")?,
            dataset: s
                .text("dataset", "a name", ("", None), |t| Some((!t.is_empty()).then(|| t.to_owned())))?,
            only: s.names("only", "names of the predictor's classes: [\"nerve\"]")?,
            mode: s.choice(
                "mode",
                None,
                &[
                    ("auto", None),
                    ("autonomous", Some(Mode::Autonomous)),
                    ("assisted", Some(Mode::Assisted)),
                    ("manual", Some(Mode::Manual)),
                ],
            )?,
            presence_threshold: s.float("presence_threshold", 0.5, 0.0, 1.0)?,
            views: s.int("views", 1, 1, MAX_VIEWS as u32)? as usize,
            precision: s.choice("precision", Precision::Fp32, &Precision::ALL.map(|p| (p.name(), p)))?,
            input_size: Some(s.int("input_size", 0, 0, MAX_INPUT_SIZE as u32)? as usize)
                .filter(|&side| side > 0),
            max_hole_area: s.int("max_hole_area", 0, 0, MAX_CLEANED_AREA as u32)? as usize,
            max_sprinkle_area: s.int("max_sprinkle_area", 0, 0, MAX_CLEANED_AREA as u32)? as usize,
            non_overlapping: s.bool("non_overlapping", false)?,
            device: s.text(
                "device",
                "\"auto\", \"cpu\" or \"cuda:N\"",
                ("auto", DeviceChoice::Auto),
                |t| t.parse().ok(),
            )?,
            threads: s.int("threads", 0, 0, MAX_THREADS as u32)? as usize,
            cuda_graphs: s.bool("cuda_graphs", false)?,
            watchdog: s.duration("watchdog", Duration::from_secs(10), 100 * MILLI)?,
            restart_backoff: s.duration("restart_backoff", 250 * MILLI, MILLI)?,
            max_restarts: s.int("max_restarts", 5, 0, 1000)?,
        };
        s.finish()?;
        Ok(out)
    }
}

impl MemoryConfig {
    pub(super) fn read(node: Option<Node>, log: &mut Log) -> Result<Self, ConfigError> {
        let mut s = Section::new("memory", node, log)?;
        let d = MemorySettings::default();
        let enabled = s.bool("enabled", false)?;
        let ask = s.choice(
            "predictor",
            AskChoice::Lost,
            &[
                ("first", AskChoice::First),
                ("every", AskChoice::Every),
                ("interval", AskChoice::Interval),
                ("lost", AskChoice::Lost),
            ],
        )?;
        let interval = u64::from(s.int("interval", 30, 1, MAX_STRIDE as u32)?);
        let settings = MemorySettings {
            ask: match ask {
                AskChoice::First => Ask::First,
                AskChoice::Every => Ask::Every,
                AskChoice::Interval => Ask::Interval(interval),
                AskChoice::Lost => Ask::Lost,
            },
            blend: s.choice(
                "agreed",
                d.blend,
                &[("memory", Blend::Memory), ("predictor", Blend::Predictor), ("mean", Blend::Mean)],
            )?,
            agreement: s.float("agreement", d.agreement, 0.0, 1.0)?,
            patience: s.int("patience", d.patience, 1, MAX_PATIENCE)?,
            trial: s.int("trial", d.trial, 0, MAX_PATIENCE)?,
            limits: BankLimits {
                prompted: s.int("prompted", d.limits.prompted as u32, 1, MAX_PROMPTED as u32)? as usize,
                recent: s.int("recent", d.limits.recent as u32, 0, RECENT_FRAMES as u32)? as usize,
                stride: u64::from(s.int("stride", d.limits.stride as u32, 1, MAX_STRIDE as u32)?),
                pointers: u64::from(s.int("pointers", d.limits.pointers as u32, 1, MAX_POINTERS as u32)?),
            },
            write_every: u64::from(s.int("write_every", d.write_every as u32, 1, MAX_STRIDE as u32)?),
            write_unsure: s.bool("write_unsure", d.write_unsure)?,
            min_score: s.float("min_score", d.min_score, 0.0, 1.0)?,
            min_area: s.float("min_area", d.min_area, 0.0, 1.0)?,
            lost_after: s.int("lost_after", d.lost_after, 1, MAX_PATIENCE)?,
            freeze_after: s.int("freeze_after", d.freeze_after, 0, MAX_PATIENCE)?,
            scene_cut: s.float("scene_cut", d.scene_cut, 0.0, 2.0)?,
        };
        s.finish()?;
        Ok(Self { settings: enabled.then_some(settings) })
    }
}

impl StreamConfig {
    pub(super) fn read(node: Option<Node>, log: &mut Log) -> Result<Self, ConfigError> {
        let mut s = Section::new("stream", node, log)?;
        let out = Self {
            display: s.choice(
                "display",
                DisplayChoice::Paired,
                &[("paired", DisplayChoice::Paired), ("latest", DisplayChoice::Latest)],
            )?,
            queue: s.choice(
                "queue",
                QueueChoice::Lossless,
                &[("latest", QueueChoice::Latest), ("lossless", QueueChoice::Lossless)],
            )?,
            max_mask_age: s.duration("max_mask_age", 200 * MILLI, MILLI)?,
            display_depth: s.int("display_depth", 4, 1, 64)? as usize,
            queue_depth: s.int("queue_depth", 1, 1, 64)? as usize,
            no_signal: Some(s.duration("no_signal", Duration::from_secs(1), Duration::ZERO)?)
                .filter(|d| !d.is_zero()),
        };
        s.finish()?;
        Ok(out)
    }
}

impl OverlayConfig {
    pub(super) fn read(node: Option<Node>, log: &mut Log) -> Result<Self, ConfigError> {
        let mut s = Section::new("overlay", node, log)?;
        let d = Style::default();
        let out = Self {
            enabled: s.bool("enabled", true)?,
            style: Style {
                fill: s.bool("fill", d.fill)?,
                fill_alpha: s.float("fill_alpha", d.fill_alpha, 0.0, 1.0)?,
                contour: s.bool("contour", d.contour)?,
                contour_width: s.float("contour_width", d.contour_width, 0.5, 16.0)?,
                labels: s.bool("labels", d.labels)?,
                legend: s.bool("legend", d.legend)?,
                status: s.bool("status", d.status)?,
                mark: s.bool("mark", d.mark)?,
                text_scale: s.float("text_scale", d.text_scale, 0.5, 4.0)?,
            },
        };
        s.finish()?;
        Ok(out)
    }
}

impl SinkConfig {
    pub(super) fn read(node: Option<Node>, log: &mut Log) -> Result<Self, ConfigError> {
        let mut s = Section::new("sink", node, log)?;
        let out = Self {
            kind: s.text("kind", KIND_EXPECTED, ("null", "null".to_owned()), kind_name)?,
            latency: s.duration("latency", 40 * MILLI, Duration::ZERO)?,
            params: s.remaining(),
        };
        s.finish()?;
        Ok(out)
    }
}

impl OutputConfig {
    pub(super) fn read(node: Option<Node>, log: &mut Log) -> Result<Self, ConfigError> {
        let mut s = Section::new("output", node, log)?;
        let out = Self {
            masks: s.path_opt("masks")?,
            masks_format: s.choice(
                "masks_format",
                MasksFormat::Png,
                &[("png", MasksFormat::Png), ("rle", MasksFormat::Rle)],
            )?,
            report: s.path_opt("report")?,
            report_interval: s.duration("report_interval", Duration::from_secs(1), 10 * MILLI)?,
            contact_sheet: s.path_opt("contact_sheet")?,
        };
        s.finish()?;
        Ok(out)
    }
}
