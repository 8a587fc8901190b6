//! A run from the first frame to the last: starts the threads, watches the buses, finishes the files.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::block_in_place;

use super::ai::{Ai, Phase};
use super::compositor::{self, Compositor};
use super::control::{Control, Event, Supervised};
use super::exchange::{Exchange, ExchangeConfig, QueueMode};
use super::intake::SampleIntake;
use super::no_signal::NoSignal;
use super::outlet::Outlet;
use super::report::{Ended, Report, ReportInput};
use super::sidecar::{Sidecar, SidecarConfig, SidecarEnd};
use super::worker::{ModelFactory, Worker, WorkerConfig};
use crate::media::{Left, Recording, SinkPipeline, SourcePipeline};
use crate::overlay::Overlay;
use crate::telemetry::{FrameCounts, Glance, Recorder, Tape};

/// Everything a run needs.
pub struct Plan {
    /// Where frames come from.
    pub source: SourcePipeline,
    /// Where they go.
    pub sink: SinkPipeline,
    /// The file the sink writes, if it does.
    pub recording: Option<Recording>,
    /// Modes and queue sizes.
    pub exchange: ExchangeConfig,
    /// The model; `None` lets every frame pass, with a banner that says so.
    pub model: Option<(WorkerConfig, Arc<dyn ModelFactory>)>,
    /// What draws.
    pub overlay: Overlay,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Oldest mask that may be shown.
    pub max_mask_age: Duration,
    /// Masks and pictures beside the video.
    pub sidecar: SidecarConfig,
    /// Latency declared for everything between the appsink and the appsrc, for live sources.
    pub latency: Duration,
    /// Pause before a live source that failed is started again; `None` ends the run instead.
    pub reconnect: Option<Duration>,
    /// Silence of a live source after which the sink is told that there is no signal, unless it records; `None` leaves the
    /// last frame.
    pub no_signal: Option<Duration>,
    /// Time between two calls of the observer.
    pub tick: Duration,
    /// Takes the times of every single frame, for measurements.
    pub tape: Option<Arc<Tape>>,
    /// For the report.
    pub input: String,
    /// For the report.
    pub output: String,
}

/// What an observer sees while the run goes on.
#[derive(Debug)]
pub struct Snapshot {
    /// Since the start.
    pub elapsed: Duration,
    /// Counts so far.
    pub frames: FrameCounts,
    /// Latencies so far.
    pub latency: Glance,
    /// The model's condition.
    pub phase: Phase,
    /// PTS of the frame that left last.
    pub position: Duration,
    /// Total length of the source, where known.
    pub duration: Option<Duration>,
}

/// What is left when a run has ended.
#[derive(Debug)]
pub struct Finished {
    /// The numbers.
    pub report: Report,
    /// The recording.
    pub left: Left,
    /// What went wrong beside the video.
    pub sidecar_error: Option<String>,
}

/// Why a run could not start: a thread, or a folder for masks.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(String);

/// Runs `plan` until the source ends, something breaks, or `stop` completes. `observe` is called every `plan.tick`.
///
/// # Errors
/// If a thread cannot start or a folder for masks cannot be made. What breaks on the way is in the report.
pub async fn run(
    mut plan: Plan,
    mut observe: impl FnMut(&Snapshot),
    stop: impl Future<Output = ()>,
) -> Result<Finished, RunError> {
    let started = Instant::now();
    let live = plan.source.is_live();
    let recorder = Arc::new(Recorder::with_tape(plan.tape.take()));
    let ai = Arc::new(Ai::new(plan.exchange.queue == QueueMode::Lossless));
    let (exchange, parker) = Exchange::new(plan.exchange, ai.clone(), recorder.clone());
    let sidecar = Sidecar::start(plan.sidecar.clone()).map_err(RunError)?;
    let handle = sidecar.as_ref().map(Sidecar::handle);
    let worker = match plan.model.take() {
        Some((config, factory)) => Some(
            Worker::start(config, exchange.clone(), factory, handle.clone())
                .map_err(|e| RunError(format!("cannot start a thread: {e}")))?,
        ),
        None => {
            ai.disabled();
            None
        }
    };
    let reconnect = plan.reconnect.filter(|_| live);
    let bare = plan.overlay.leaves_bare_frames() && handle.is_none();
    let outlet = Arc::new(Outlet::new(plan.sink.feed(), bare));
    let intake = SampleIntake::new(exchange.clone(), outlet.clone(), reconnect.is_some());
    plan.source.connect(intake.clone());
    let (composing, composed) = watch::channel(false);
    let pump = {
        let (intake, appsink) = (intake.clone(), plan.source.appsink().clone());
        let lossless = plan.exchange.queue == QueueMode::Lossless;
        Box::new(move || {
            if lossless {
                intake.pump(&appsink);
            }
        })
    };
    let compositor = Compositor {
        exchange: exchange.clone(),
        parker,
        overlay: plan.overlay,
        classes: plan.classes,
        outlet,
        // A recording shows what there was; a gap in it is a gap.
        no_signal: plan.no_signal.filter(|_| live && plan.recording.is_none()).map(NoSignal::new),
        max_mask_age: plan.max_mask_age,
        sidecar: handle,
        pump,
        refused: false,
    };
    compositor::spawn(compositor, move || {
        // Nobody listens any more if the run was given up.
        composing.send(true).ok();
    })
    .map_err(|e| RunError(format!("cannot start a thread: {e}")))?;

    let supervised = Supervised {
        intake: intake.clone(),
        worker: worker.clone(),
        recorder: recorder.clone(),
        composed,
        latency: plan.latency,
        reconnect,
        records: plan.recording.is_some(),
    };
    let mut control = Control::new(plan.source, plan.sink, supervised);
    let snapshot = |duration| Snapshot {
        elapsed: started.elapsed(),
        frames: recorder.counts(),
        latency: recorder.glance(),
        phase: ai.phase(),
        position: recorder.position(),
        duration,
    };
    tokio::pin!(stop);
    let event = control.go(plan.tick, |duration| observe(&snapshot(duration)), stop.as_mut()).await;
    let mut ended = event.ended();
    let source_ended = exchange.ended();
    let sink_ok = match control.finish(&exchange, &event, stop).await {
        Ok(()) => true,
        Err(reason) => {
            fail(&mut ended, reason);
            false
        }
    };
    let frames = recorder.counts();
    // Sinks complain in their own ways when they are closed before the first frame; what broke the source says more.
    let empty = frames.entered == 0 && source_ended && matches!(event, Event::End | Event::SinkLost(_));
    let broken = intake.error().or_else(|| control.broken());
    if let Some(reason) = broken.or_else(|| empty.then(|| "the source gave no frame".into())) {
        ended = Ended::Failed(reason);
    }
    observe(&snapshot(None));
    let whole = match ended {
        Ended::EndOfStream => sink_ok,
        Ended::Interrupted => sink_ok && plan.recording.as_ref().is_none_or(Recording::may_be_stopped),
        Ended::Failed(_) => false,
    };
    let sidecar = block_in_place(|| {
        if let Some(worker) = &worker {
            worker.stop(Duration::from_secs(5));
        }
        sidecar.map(|sidecar| sidecar.end(whole))
    });
    let SidecarEnd { dropped, error: sidecar_error } = sidecar.unwrap_or_default();
    let left = match plan.recording {
        Some(recording) if frames.out > 0 => recording.end(whole).unwrap_or_else(|e| {
            fail(&mut ended, e.to_string());
            Left::Nothing
        }),
        _ => Left::Nothing,
    };
    let report = Report::from(ReportInput {
        input: plan.input,
        output: plan.output,
        ended,
        seconds: started.elapsed().as_secs_f64(),
        frames: recorder.counts(),
        distributions: recorder.distributions(),
        memory: worker.as_ref().and_then(|w| w.memory()),
        model: worker.and_then(|w| w.info()),
        resets: intake.resets(),
        ai_off: ai.events(),
        sidecar_dropped: dropped,
        display: plan.exchange.display.name(),
    });
    Ok(Finished { report, left, sidecar_error })
}

/// A run has failed for `reason`, unless it had before: the report has room for the first reason alone, others are logged.
fn fail(ended: &mut Ended, reason: String) {
    match ended {
        Ended::Failed(first) if *first == reason => {}
        Ended::Failed(_) => tracing::error!("{reason}"),
        _ => *ended = Ended::Failed(reason),
    }
}
