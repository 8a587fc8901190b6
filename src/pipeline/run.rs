//! A run from the first frame to the last: starts the threads, watches the buses, finishes the files.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::sync::oneshot;
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval};

use super::ai::{Ai, Phase};
use super::compositor::{self, Compositor};
use super::exchange::{Exchange, ExchangeConfig, QueueMode};
use super::intake::SampleIntake;
use super::report::{Ended, Report, ReportInput};
use super::sidecar::{Sidecar, SidecarConfig, SidecarEnd};
use super::worker::{ModelFactory, Worker, WorkerConfig};
use crate::media::{Left, MediaError, Recording, SinkPipeline, SourcePipeline};
use crate::overlay::Overlay;
use crate::telemetry::{Distributions, FrameCounts, Recorder};

/// How often the watchdog looks.
const WATCH_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for the first frame of a source that is not live.
const PREROLL: Duration = Duration::from_secs(30);
/// Longest wait for a sink to finish its file after the last frame.
const FINISH: Duration = Duration::from_secs(60);
/// Longest wait for the message that explains a failed state change.
const ERROR_FOLLOWS: Duration = Duration::from_millis(500);
/// Declared latency is rounded up to this, so that it is not redistributed for every hiccup.
const LATENCY_STEP: Duration = Duration::from_millis(10);

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
    /// Time between two calls of the observer.
    pub tick: Duration,
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
    /// Distributions so far.
    pub distributions: Distributions,
    /// The model's condition.
    pub phase: Phase,
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

/// Why a run could not start, or could not put its file in place.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// GStreamer or the output file.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A thread, or a folder for masks.
    #[error("{0}")]
    Start(String),
}

enum Event {
    End,
    Stop,
    SourceLost(String),
    SinkLost(String),
}

impl Event {
    fn ended(&self) -> Ended {
        match self {
            Self::End => Ended::EndOfStream,
            Self::Stop => Ended::Interrupted,
            Self::SourceLost(reason) | Self::SinkLost(reason) => Ended::Failed(reason.clone()),
        }
    }
}

/// Runs `plan` until the source ends, something breaks, or `stop` completes. `observe` is called every `plan.tick`.
///
/// # Errors
/// If a thread cannot start or an output file cannot be put in place. What breaks on the way is in the report.
pub async fn run(
    mut plan: Plan,
    mut observe: impl FnMut(&Snapshot),
    stop: impl Future<Output = ()>,
) -> Result<Finished, RunError> {
    let started = Instant::now();
    let live = plan.source.is_live();
    let recorder = Arc::new(Recorder::default());
    let ai = Arc::new(Ai::new(plan.exchange.queue == QueueMode::Lossless));
    let (exchange, parker) = Exchange::new(plan.exchange, ai.clone(), recorder.clone());
    let sidecar = Sidecar::start(plan.sidecar.clone()).map_err(RunError::Start)?;
    let handle = sidecar.as_ref().map(Sidecar::handle);
    let worker = match plan.model.take() {
        Some((config, factory)) => Some(
            Worker::start(config, exchange.clone(), factory, handle.clone())
                .map_err(|e| RunError::Start(format!("cannot start a thread: {e}")))?,
        ),
        None => {
            ai.disabled();
            None
        }
    };
    let intake = SampleIntake::new(exchange.clone());
    plan.source.connect(intake.clone());
    let (done_tx, done) = oneshot::channel::<()>();
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
        feed: plan.sink.feed(),
        max_mask_age: plan.max_mask_age,
        sidecar: handle,
        pump,
    };
    compositor::spawn(compositor, move || {
        // Nobody listens any more if the run was given up.
        done_tx.send(()).ok();
    })
    .map_err(|e| RunError::Start(format!("cannot start a thread: {e}")))?;

    let mut control = Control {
        source: plan.source,
        sink: plan.sink,
        intake: intake.clone(),
        worker: worker.clone(),
        own_latency: plan.latency,
        reconnect: plan.reconnect.filter(|_| live),
        recorder: recorder.clone(),
    };
    let snapshot = |duration| Snapshot {
        elapsed: started.elapsed(),
        frames: recorder.counts(),
        distributions: recorder.distributions(),
        phase: ai.phase(),
        duration,
    };
    let event = control.go(plan.tick, |duration| observe(&snapshot(duration)), stop).await;
    let mut ended = event.ended();
    let sink_ok = match control.finish(&exchange, &event, done).await {
        Ok(()) => true,
        Err(reason) => {
            if !matches!(ended, Ended::Failed(_)) {
                ended = Ended::Failed(reason);
            }
            false
        }
    };
    if let Some(reason) = intake.error() {
        ended = Ended::Failed(reason);
    }
    let frames = recorder.counts();
    // Sinks complain in their own ways when they are closed before the first frame.
    if frames.entered == 0 && !matches!(event, Event::Stop | Event::SourceLost(_)) {
        ended = Ended::Failed("the source gave no frame".into());
    }
    observe(&snapshot(None));
    let sidecar = block_in_place(|| {
        if let Some(worker) = &worker {
            worker.stop(Duration::from_secs(5));
        }
        sidecar.map(Sidecar::end)
    });
    let SidecarEnd { dropped, error: sidecar_error } = sidecar.unwrap_or_default();
    control.sink.shut_down();
    let whole = sink_ok && !matches!(ended, Ended::Failed(_));
    let left = plan
        .recording
        .map_or(Ok(Left::Nothing), |r| if frames.out == 0 { r.discard() } else { r.end(whole) })?;
    let report = Report::from(ReportInput {
        input: plan.input,
        output: plan.output,
        ended,
        seconds: started.elapsed().as_secs_f64(),
        frames: recorder.counts(),
        distributions: recorder.distributions(),
        model: worker.and_then(|w| w.info()),
        resets: intake.resets(),
        ai_off: ai.events(),
        sidecar_dropped: dropped,
        display: plan.exchange.display.name(),
    });
    Ok(Finished { report, left, sidecar_error })
}

/// The control plane's view of a run.
struct Control {
    source: SourcePipeline,
    sink: SinkPipeline,
    intake: Arc<SampleIntake>,
    worker: Option<Arc<Worker>>,
    own_latency: Duration,
    reconnect: Option<Duration>,
    recorder: Arc<Recorder>,
}

impl Control {
    /// Starts both pipelines and waits for whatever ends the run.
    async fn go(
        &mut self,
        tick: Duration,
        mut observe: impl FnMut(Option<Duration>),
        stop: impl Future<Output = ()>,
    ) -> Event {
        tokio::pin!(stop);
        let mut source_bus = bus_of(self.source.pipeline());
        let mut sink_bus = bus_of(self.sink.pipeline());
        let mut watch = interval(WATCH_EVERY);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report = interval(tick.max(WATCH_EVERY));
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        report.reset();
        let mut begun = match block_in_place(|| self.preroll()) {
            Ok(ready) => ready,
            Err(_) => {
                return Event::SourceLost(first_error(&mut source_bus, "the source does not start").await);
            }
        };
        if begun && self.play().is_err() {
            return Event::SinkLost(first_error(&mut sink_bus, "the sink does not start").await);
        }
        let deadline = Instant::now() + PREROLL;
        let mut again: Option<Instant> = None;
        let mut missing: Vec<String> = Vec::new();
        loop {
            tokio::select! {
                () = &mut stop => return Event::Stop,
                Some(message) = source_bus.next() => {
                    match message.view() {
                        gst::MessageView::AsyncDone(_) if !begun => {
                            begun = true;
                            if self.play().is_err() {
                                return Event::SinkLost(first_error(&mut sink_bus, "the sink does not start").await);
                            }
                        }
                        gst::MessageView::Latency(_) => self.share_latency(),
                        gst::MessageView::Error(e) => {
                            let mut reason = error_text(e);
                            if !missing.is_empty() {
                                reason = format!("{reason}; missing: {}; `sonomask doctor` says what to install", missing.join(", "));
                            }
                            let Some(pause) = self.reconnect.filter(|_| begun) else {
                                return Event::SourceLost(reason);
                            };
                            if again.is_none() {
                                tracing::error!("source lost, trying again in {pause:?}: {reason}");
                                again = Some(Instant::now() + pause);
                            }
                        }
                        gst::MessageView::Warning(w) => tracing::warn!("{}", w.error()),
                        gst::MessageView::Element(e) => missing.extend(missing_plugin(e)),
                        _ => {}
                    }
                }
                Some(message) = sink_bus.next() => {
                    match message.view() {
                        gst::MessageView::Eos(_) => return Event::End,
                        gst::MessageView::Latency(_) => {
                            if let Err(e) = self.sink.pipeline().recalculate_latency() {
                                tracing::debug!("{e}");
                            }
                        }
                        gst::MessageView::Error(e) => return Event::SinkLost(error_text(e)),
                        gst::MessageView::Warning(w) => tracing::warn!("{}", w.error()),
                        _ => {}
                    }
                }
                _ = watch.tick() => {
                    if let Some(worker) = &self.worker {
                        worker.watch();
                    }
                    if let Some(reason) = self.intake.error() {
                        return Event::SourceLost(reason);
                    }
                    if !begun && Instant::now() > deadline {
                        return Event::SourceLost(format!("no frame within {} s", PREROLL.as_secs()));
                    }
                    if again.is_some_and(|at| Instant::now() >= at) {
                        again = None;
                        if let Err(reason) = self.restart_source() {
                            return Event::SourceLost(reason);
                        }
                    }
                }
                _ = report.tick() => {
                    self.follow_latency();
                    observe(self.source.duration());
                }
            }
        }
    }

    /// Lets what is under way leave, and the sink finish.
    async fn finish(
        &mut self,
        exchange: &Exchange,
        event: &Event,
        done: oneshot::Receiver<()>,
    ) -> Result<(), String> {
        block_in_place(|| self.source.shut_down());
        match event {
            Event::End => return Ok(()),
            // Frames that came before the source broke are good.
            Event::SourceLost(_) => exchange.end(),
            Event::Stop => exchange.stop(),
            Event::SinkLost(reason) => {
                exchange.stop();
                // Wakes a compositor that waits for room in a sink that will never make any.
                block_in_place(|| self.sink.shut_down());
                done.await.ok();
                return Err(reason.clone());
            }
        }
        let mut sink_bus = bus_of(self.sink.pipeline());
        let watchdog = async {
            let mut watch = interval(WATCH_EVERY);
            loop {
                watch.tick().await;
                if let Some(worker) = &self.worker {
                    worker.watch();
                }
            }
        };
        let eos = async {
            // The sender is dropped with the compositor at the latest.
            done.await.ok();
            if self.recorder.counts().out == 0 {
                return Ok(());
            }
            while let Some(message) = sink_bus.next().await {
                match message.view() {
                    gst::MessageView::Eos(_) => return Ok(()),
                    gst::MessageView::Error(e) => return Err(error_text(e)),
                    _ => {}
                }
            }
            Err("the sink's bus was closed".into())
        };
        tokio::select! {
            finished = eos => finished,
            () = watchdog => Err("the watchdog ended".into()),
            () = tokio::time::sleep(FINISH) => {
                block_in_place(|| self.sink.shut_down());
                Err(format!("the sink did not finish within {} s", FINISH.as_secs()))
            }
        }
    }

    /// Brings the source to its first frame; `false` if that takes a while (the bus then says when).
    fn preroll(&self) -> Result<bool, gst::StateChangeError> {
        let pipeline = self.source.pipeline();
        let clock = gst::SystemClock::obtain();
        for p in [pipeline, self.sink.pipeline()] {
            p.use_clock(Some(&clock));
            p.set_start_time(gst::ClockTime::NONE);
        }
        Ok(pipeline.set_state(gst::State::Paused)? != gst::StateChangeSuccess::Async)
    }

    /// Starts both pipelines on one clock and one base time, so that the source's PTS carry across.
    fn play(&self) -> Result<(), gst::StateChangeError> {
        let (source, sink) = (self.source.pipeline(), self.sink.pipeline());
        self.share_latency();
        let base = gst::SystemClock::obtain().time();
        source.set_base_time(base);
        sink.set_base_time(base);
        sink.set_state(gst::State::Playing)?;
        // A source that got this far and fails now says why on its bus.
        source.set_state(gst::State::Playing).ok();
        Ok(())
    }

    /// A live source begins again, on the same clock and base time, as a new epoch.
    fn restart_source(&self) -> Result<(), String> {
        let pipeline = self.source.pipeline();
        let base = pipeline.base_time();
        block_in_place(|| pipeline.set_state(gst::State::Null)).map_err(|e| e.to_string())?;
        self.intake.new_epoch();
        if let Some(base) = base {
            pipeline.set_base_time(base);
        }
        // A failure to start is posted on the bus, which asks for the next attempt.
        pipeline.set_state(gst::State::Playing).ok();
        Ok(())
    }

    /// Declares the latency of the source plus our own to the sink pipeline.
    fn share_latency(&self) {
        if !self.source.is_live() {
            return;
        }
        self.source.pipeline().recalculate_latency().ok();
        let upstream = self.source.upstream_latency().unwrap_or(gst::ClockTime::ZERO);
        let own = gst::ClockTime::try_from(self.own_latency).unwrap_or(gst::ClockTime::ZERO);
        self.sink.declare_latency(upstream + own);
    }

    /// Raises the declared latency when frames are measured to take longer.
    fn follow_latency(&mut self) {
        if !self.source.is_live() {
            return;
        }
        let measured = self.recorder.slow_push();
        if measured > self.own_latency {
            let steps = measured.as_millis() / LATENCY_STEP.as_millis() + 1;
            self.own_latency = LATENCY_STEP * u32::try_from(steps).unwrap_or(u32::MAX);
            tracing::info!("latency declared to the sink is now {:?}", self.own_latency);
            self.share_latency();
        }
    }
}

fn bus_of(pipeline: &gst::Pipeline) -> impl futures::Stream<Item = gst::Message> + Unpin + use<> {
    // A pipeline always has a bus; without one there would be nothing to wait for.
    match pipeline.bus() {
        Some(bus) => bus.stream().left_stream(),
        None => futures::stream::pending().right_stream(),
    }
}

/// The error behind a state change that failed at once; `otherwise` if the bus has none.
async fn first_error(
    bus: &mut (impl futures::Stream<Item = gst::Message> + Unpin),
    otherwise: &str,
) -> String {
    let search = async {
        while let Some(message) = bus.next().await {
            if let gst::MessageView::Error(e) = message.view() {
                return error_text(e);
            }
        }
        otherwise.to_owned()
    };
    tokio::time::timeout(ERROR_FOLLOWS, search).await.unwrap_or_else(|_| otherwise.to_owned())
}

/// What a `missing-plugin` message of GStreamer's plugin helpers asks for, in words.
fn missing_plugin(message: &gst::message::Element) -> Option<String> {
    let s = message.structure().filter(|s| s.name() == "missing-plugin")?;
    s.get::<String>("name").ok()
}

fn error_text(e: &gst::message::Error) -> String {
    let element = e.src().map(|s| s.name().to_string()).unwrap_or_default();
    tracing::debug!("{element}: {:?}", e.debug());
    format!("{} ({element})", e.error())
}
