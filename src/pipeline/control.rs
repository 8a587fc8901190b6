//! The control plane of a run: starts the pipelines, watches their buses, keeps the latency true, restarts a lost source,
//! and sees to it that the sink finishes its file.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::sync::oneshot;
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval};

use super::exchange::Exchange;
use super::intake::SampleIntake;
use super::report::Ended;
use super::worker::Worker;
use crate::media::{SinkPipeline, SourcePipeline};
use crate::telemetry::Recorder;

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

/// What ends a run.
pub enum Event {
    /// The sink has everything.
    End,
    /// Somebody stopped it.
    Stop,
    /// The source broke.
    SourceLost(String),
    /// The sink broke.
    SinkLost(String),
}

impl Event {
    /// The same for the report.
    pub fn ended(&self) -> Ended {
        match self {
            Self::End => Ended::EndOfStream,
            Self::Stop => Ended::Interrupted,
            Self::SourceLost(reason) | Self::SinkLost(reason) => Ended::Failed(reason.clone()),
        }
    }
}

/// The control plane's view of a run.
pub struct Control {
    /// Where frames come from.
    pub source: SourcePipeline,
    /// Where they go.
    pub sink: SinkPipeline,
    /// Numbers the frames.
    pub intake: Arc<SampleIntake>,
    /// Watched over.
    pub worker: Option<Arc<Worker>>,
    /// Latency declared for everything between the appsink and the appsrc.
    pub own_latency: Duration,
    /// Pause before a lost source is started again.
    pub reconnect: Option<Duration>,
    /// The counts.
    pub recorder: Arc<Recorder>,
}

impl Control {
    /// Starts both pipelines and waits for whatever ends the run.
    pub async fn go(
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
                        // After an error it only means that the broken stream is over.
                        gst::MessageView::Eos(_) if again.is_none() => self.intake.end(),
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
    pub async fn finish(
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
