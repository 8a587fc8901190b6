//! Open loop: the live pipeline, with frames that arrive on a clock and are read at the glass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::case::{CaseError, Prepared, ms, stages_of};
use super::closed::Measured;
use super::glass::Glass;
use super::result::FrameRow;
use super::source::{ClockSource, Log, Schedule, due};
use super::spec::{CaseSpec, StreamMode};
use super::usage::{CpuClock, GpuWatch};
use crate::media::{Pace, SourcePipeline};
use crate::overlay::{ClassStyle, Overlay, Style};
use crate::pipeline::{
    self, DisplayMode, Ended, ExchangeConfig, Guide, ModelFactory, Plan, QueueMode, Report, SidecarConfig,
    WorkerConfig,
};
use crate::segment::Segmenter;
use crate::telemetry::Tape;

/// A frame that takes the model longer counts as stuck; on a slow CPU large networks take half a minute.
const WATCHDOG: Duration = Duration::from_secs(120);
/// Between two looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);

/// A model that is loaded already, given out once: after a failure there is no other, because a benchmark of restarts is none.
struct Ready(Mutex<Option<Box<dyn Segmenter>>>);

impl ModelFactory for Ready {
    fn make(&self) -> Result<Box<dyn Segmenter>, String> {
        self.0.lock().take().ok_or_else(|| "the model has failed".into())
    }
}

/// What the stream leaves beside what is measured.
pub(super) struct Streamed {
    pub measured: Measured,
    pub report: Report,
}

/// Streams all frames of the case, or those until `stopped`.
pub(super) fn open(
    spec: &CaseSpec,
    (rate, stream): (f64, StreamMode),
    prepared: Prepared,
    runtime: &Runtime,
    progress: &mut dyn FnMut(u64),
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Streamed, CaseError> {
    let frames = spec.warmup + spec.expected().unwrap_or(1);
    let schedule = Schedule { period: Duration::from_secs_f64(1.0 / rate), warmup: spec.warmup, frames };
    let room = usize::try_from(frames).unwrap_or(usize::MAX);
    let Prepared { footage, model, guidance, classes, .. } = prepared;
    let watch = GpuWatch::start(&model.info().device);
    let zero = Instant::now();
    let live = stream != StreamMode::Lossless;
    let (clock, bin) = ClockSource::start(Arc::new(footage), schedule, zero)?;
    let (sink, glass) = Glass::new(live, room)?;
    let tape = Arc::new(Tape::new(room));
    let plan = Plan {
        source: SourcePipeline::from_bin(bin, live, Pace::Fast, false)?,
        sink,
        recording: None,
        exchange: exchange(stream),
        model: Some((
            WorkerConfig {
                guide: Arc::new(Guide::constant(guidance)),
                classes: classes.clone(),
                watchdog: WATCHDOG,
                backoff: Duration::from_millis(250),
                max_restarts: 0,
            },
            Arc::new(Ready(Mutex::new(Some(model)))),
        )),
        overlay: Overlay::new(
            Style::default(),
            classes.iter().enumerate().map(|(i, name)| ClassStyle::new(name, i)).collect(),
        ),
        classes,
        max_mask_age: Duration::from_millis(spec.max_mask_age_ms),
        sidecar: SidecarConfig::default(),
        latency: Duration::from_millis(40),
        reconnect: None,
        no_signal: None,
        tick: Duration::from_millis(500),
        tape: Some(tape.clone()),
        input: spec.name.clone(),
        output: "the glass".into(),
    };
    let stop = async {
        while !stopped() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let mut counting = false;
    let observe = |_: &pipeline::Snapshot| {
        let sent = clock.sent();
        if !counting && sent > spec.warmup {
            counting = true;
            watch.iter().for_each(GpuWatch::restart);
        }
        progress(sent);
    };
    let finished = runtime.block_on(pipeline::run(plan, observe, stop))?;
    let sent = clock.sent();
    let log = clock.end();
    let mut measured = Measured {
        // What was interrupted has no end of its own.
        cpu: log.used.or_else(|| log.counted.as_ref().and_then(CpuClock::since)),
        gpu: watch.and_then(GpuWatch::end),
        interrupted: finished.report.ended == Ended::Interrupted,
        ..Measured::default()
    };
    if let Some(reason) = log.error {
        return Err(CaseError::Stream(reason));
    }
    measured.rows = rows(&schedule, zero, &log, sent, &tape, &glass);
    Ok(Streamed { measured, report: finished.report })
}

fn exchange(stream: StreamMode) -> ExchangeConfig {
    let (display, queue) = match stream {
        StreamMode::Latest => (DisplayMode::Latest, QueueMode::Latest),
        StreamMode::Paired => (DisplayMode::Paired, QueueMode::Latest),
        StreamMode::Lossless => (DisplayMode::Paired, QueueMode::Lossless),
    };
    ExchangeConfig { display, queue, display_depth: 4, model_depth: 1 }
}

/// One row for each frame that was sent, from what the clock, the stream and the glass say of it.
fn rows(
    schedule: &Schedule,
    zero: Instant,
    log: &Log,
    sent: u64,
    tape: &Tape,
    glass: &Glass,
) -> Vec<FrameRow> {
    let Some(begun) = log.begun else { return Vec::new() };
    let at = |moment: Instant| ms(moment.saturating_duration_since(zero));
    let mut rows: BTreeMap<u64, FrameRow> = (0..sent)
        .map(|frame| {
            let due_ms = at(begun + due(schedule.period, frame));
            (frame, FrameRow { frame, counted: frame >= schedule.warmup, due_ms, ..FrameRow::default() })
        })
        .collect();
    let period = schedule.period.as_nanos().max(1) as u64;
    let number = |pts: u64| (pts + period / 2) / period;
    for left in tape.take_frames() {
        let row = left.meta.pts.and_then(|pts| rows.get_mut(&number(pts.0)));
        if let Some(row) = row {
            row.captured_ms = Some(at(left.meta.capture.mono));
            row.pushed_ms = Some(at(left.pushed));
            row.mask_age_ms = left.mask_age.map(ms);
            row.stages_ms.extend(stages_of(&left.stages));
        }
    }
    for done in tape.take_segmented() {
        let row = done.meta.pts.and_then(|pts| rows.get_mut(&number(pts.0)));
        if let Some(row) = row {
            row.captured_ms.get_or_insert(at(done.meta.capture.mono));
            row.began_ms = Some(at(done.began));
            row.ended_ms = Some(at(done.ended));
            row.stages_ms.extend(stages_of(&done.stages));
        }
    }
    for seen in glass.take() {
        let row = seen.pts.and_then(|pts| rows.get_mut(&number(pts)));
        if let Some(row) = row {
            row.glass_ms = Some(at(seen.at));
            // A mark of another frame would be a defect of the stream; it is then not taken for this one's.
            let own = seen.mark.filter(|mark| u64::from(mark.frame) == row.frame & 0xff_ffff);
            row.mark_ms = own.map(|mark| mark.micros as f64 / 1e3);
        }
    }
    rows.into_values().collect()
}
