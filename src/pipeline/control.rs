//! The control plane of a run: starts the pipelines, watches their buses, keeps the latency true, restarts a lost source,
//! and sees to it that the sink finishes its file.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval};

use super::exchange::Exchange;
use super::intake::SampleIntake;
use super::report::Ended;
use super::worker::Worker;
use crate::media::{SinkPipeline, SourcePipeline};
use crate::telemetry::{FrameCounts, Recorder};

/// How often the watchdog looks.
const WATCH_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for the first frame of a source that is not live.
const PREROLL: Duration = Duration::from_secs(30);
/// Longest wait for a sink to finish its file after the last frame.
const FINISH: Duration = Duration::from_secs(60);
/// Longest wait for the message that explains a failed state change.
const ERROR_FOLLOWS: Duration = Duration::from_millis(500);
/// Longest wait for the end of a stream that broke, when nothing is under way any more.
const BROKEN_GRACE: Duration = Duration::from_secs(2);
/// A live source that gives no frame for this long is lost.
const SILENCE: Duration = Duration::from_secs(10);
/// Ticks that the declared latency looks back.
const RECENT: usize = 30;
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

type Bus = Pin<Box<dyn Stream<Item = gst::Message> + Send>>;

/// The control plane's view of a run.
pub struct Control {
    source: SourcePipeline,
    sink: SinkPipeline,
    // One stream each for the whole run: a stream takes messages off the bus before they are asked for.
    source_bus: Bus,
    sink_bus: Bus,
    intake: Arc<SampleIntake>,
    worker: Option<Arc<Worker>>,
    recorder: Arc<Recorder>,
    /// `true` when the compositor is done; closed before that, it panicked.
    composed: watch::Receiver<bool>,
    /// Declared at least, for everything between the appsink and the appsrc.
    least_latency: Duration,
    declared: Duration,
    recent: VecDeque<Duration>,
    reconnect: Option<Duration>,
    /// Both pipelines play.
    begun: bool,
    /// When a lost source is started again.
    again: Option<Instant>,
    /// What broke a recorded source; the frames before are still under way.
    broken: Option<String>,
    missing: Vec<String>,
    progress: (FrameCounts, Instant),
}

/// What a control plane needs besides the pipelines.
pub struct Supervised {
    /// Numbers the frames.
    pub intake: Arc<SampleIntake>,
    /// Watched over.
    pub worker: Option<Arc<Worker>>,
    /// The counts.
    pub recorder: Arc<Recorder>,
    /// `true` when the compositor is done; closed before that, it panicked.
    pub composed: watch::Receiver<bool>,
    /// Least latency to declare for everything between the appsink and the appsrc.
    pub latency: Duration,
    /// Pause before a lost source is started again; `None` ends the run instead.
    pub reconnect: Option<Duration>,
}

impl Control {
    /// Takes over both pipelines; starts nothing.
    pub fn new(source: SourcePipeline, sink: SinkPipeline, with: Supervised) -> Self {
        let Supervised { intake, worker, recorder, composed, latency, reconnect } = with;
        Self {
            source_bus: bus_of(source.pipeline()),
            sink_bus: bus_of(sink.pipeline()),
            source,
            sink,
            intake,
            worker,
            recorder,
            composed,
            least_latency: latency,
            declared: latency,
            recent: VecDeque::new(),
            reconnect,
            begun: false,
            again: None,
            broken: None,
            missing: Vec::new(),
            progress: (FrameCounts::default(), Instant::now()),
        }
    }

    /// Starts both pipelines and waits for whatever ends the run.
    pub async fn go(
        &mut self,
        tick: Duration,
        mut observe: impl FnMut(Option<Duration>),
        stop: impl Future<Output = ()>,
    ) -> Event {
        tokio::pin!(stop);
        let mut look = interval(WATCH_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report = interval(tick.max(WATCH_EVERY));
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        report.reset();
        let deadline = Instant::now() + PREROLL;
        match block_in_place(|| self.preroll()) {
            Ok(true) => {
                if let Err(event) = self.begin().await {
                    return event;
                }
            }
            Ok(false) => {}
            Err(_) => {
                return Event::SourceLost(
                    first_error(&mut self.source_bus, "the source does not start").await,
                );
            }
        }
        loop {
            // In this order: an error of the source explains what follows from it.
            let event = tokio::select! {
                biased;
                () = &mut stop => Some(Event::Stop),
                Some(message) = self.source_bus.next() => self.on_source(&message).await,
                Some(message) = self.sink_bus.next() => self.on_sink(&message),
                _ = look.tick() => self.look(deadline),
                _ = report.tick() => {
                    self.follow_latency();
                    observe(self.source.duration());
                    None
                }
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// What broke the source of a run that went on to its end, if anything did.
    pub fn broken(&self) -> Option<String> {
        self.broken.clone().or_else(|| self.source.reader_error())
    }

    async fn begin(&mut self) -> Result<(), Event> {
        self.begun = true;
        if self.play().is_err() {
            return Err(Event::SinkLost(first_error(&mut self.sink_bus, "the sink does not start").await));
        }
        Ok(())
    }

    async fn on_source(&mut self, message: &gst::MessageRef) -> Option<Event> {
        match message.view() {
            gst::MessageView::AsyncDone(_) if !self.begun => return self.begin().await.err(),
            gst::MessageView::Latency(_) => self.share_latency(),
            gst::MessageView::Eos(_) if self.reconnect.is_some() => self.lost("it ended"),
            gst::MessageView::Error(e) => {
                let mut reason = error_text(e);
                if !self.missing.is_empty() {
                    let missing = self.missing.join(", ");
                    reason = format!("{reason}; missing: {missing}; `sonomask doctor` says what to install");
                }
                if !self.begun || (self.source.is_live() && self.reconnect.is_none()) {
                    return Some(Event::SourceLost(reason));
                }
                if self.reconnect.is_some() {
                    self.lost(&reason);
                } else {
                    // The frames before it are good, and most elements still send the end of the stream.
                    self.broken.get_or_insert(reason);
                }
            }
            gst::MessageView::Warning(w) => tracing::warn!("{}", w.error()),
            gst::MessageView::Element(e) => self.missing.extend(missing_plugin(e)),
            _ => {}
        }
        None
    }

    fn on_sink(&self, message: &gst::MessageRef) -> Option<Event> {
        match message.view() {
            gst::MessageView::Eos(_) => return Some(Event::End),
            gst::MessageView::Error(e) => return Some(Event::SinkLost(error_text(e))),
            gst::MessageView::Latency(_) => {
                if let Err(e) = self.sink.pipeline().recalculate_latency() {
                    tracing::debug!("{e}");
                }
            }
            gst::MessageView::Warning(w) => tracing::warn!("{}", w.error()),
            _ => {}
        }
        None
    }

    /// A live source is gone: it is started again after a pause.
    fn lost(&mut self, reason: &str) {
        let Some(pause) = self.reconnect.filter(|_| self.again.is_none()) else { return };
        tracing::error!("source lost, trying again in {pause:?}: {reason}");
        self.again = Some(Instant::now() + pause);
    }

    /// What has to be looked at many times a second.
    fn look(&mut self, deadline: Instant) -> Option<Event> {
        let now = Instant::now();
        if let Some(worker) = &self.worker {
            worker.watch();
        }
        if self.composed.has_changed().is_err() && !*self.composed.borrow() {
            return Some(Event::SinkLost("the compositor panicked".into()));
        }
        if let Some(reason) = self.intake.error() {
            return Some(Event::SourceLost(reason));
        }
        if !self.begun {
            return (now > deadline)
                .then(|| Event::SourceLost(format!("no frame within {} s", PREROLL.as_secs())));
        }
        let counts = self.recorder.counts();
        if counts != self.progress.0 {
            self.progress = (counts, now);
        }
        let quiet = now.duration_since(self.progress.1);
        let idle = counts.entered == counts.out + counts.dropped;
        if let Some(reason) = self.broken.clone()
            && idle
            && quiet > BROKEN_GRACE
        {
            return Some(Event::SourceLost(reason));
        }
        if quiet > SILENCE && self.again.is_none() && self.source.is_live() && idle {
            self.progress.1 = now;
            match self.reconnect {
                Some(_) => self.lost(&format!("no frame for {} s", SILENCE.as_secs())),
                None => tracing::warn!("no frame from the source for {} s", SILENCE.as_secs()),
            }
        }
        if self.again.is_some_and(|at| now >= at) {
            self.again = None;
            if let Err(reason) = self.restart_source() {
                return Some(Event::SourceLost(reason));
            }
        }
        None
    }

    /// Lets what is under way leave, and the sink finish.
    ///
    /// # Errors
    /// What keeps the sink from finishing.
    pub async fn finish(&mut self, exchange: &Exchange, event: &Event) -> Result<(), String> {
        block_in_place(|| self.source.shut_down());
        match event {
            // Frames that came before the source broke are good.
            Event::SourceLost(_) => exchange.end(),
            Event::Stop => exchange.stop(),
            Event::End | Event::SinkLost(_) => {
                // The sink takes nothing more, finished or not; a compositor that waits for room in it wakes.
                exchange.stop();
                block_in_place(|| self.sink.shut_down());
                self.composed.wait_for(|done| *done).await.ok();
                return match event {
                    Event::SinkLost(reason) => Err(reason.clone()),
                    _ => Ok(()),
                };
            }
        }
        let Self { composed, sink_bus, worker, recorder, sink, .. } = self;
        let watchdog = async {
            let mut watch = interval(WATCH_EVERY);
            loop {
                watch.tick().await;
                if let Some(worker) = worker {
                    worker.watch();
                }
            }
        };
        tokio::select! {
            // A closed channel means that the compositor is gone, too.
            _ = composed.wait_for(|done| *done) => {}
            () = watchdog => {}
        }
        if recorder.counts().out == 0 {
            return Ok(());
        }
        let eos = async {
            while let Some(message) = sink_bus.next().await {
                match message.view() {
                    gst::MessageView::Eos(_) => return Ok(()),
                    gst::MessageView::Error(e) => return Err(error_text(e)),
                    _ => {}
                }
            }
            Err("the sink's bus was closed".into())
        };
        let finished = tokio::time::timeout(FINISH, eos).await;
        block_in_place(|| sink.shut_down());
        finished.unwrap_or_else(|_| Err(format!("the sink did not finish within {} s", FINISH.as_secs())))
    }

    /// Brings the source to its first frame; `false` if that takes a while (the bus then says when).
    fn preroll(&mut self) -> Result<bool, gst::StateChangeError> {
        let pipeline = self.source.pipeline();
        let clock = gst::SystemClock::obtain();
        for p in [pipeline, self.sink.pipeline()] {
            p.use_clock(Some(&clock));
            p.set_start_time(gst::ClockTime::NONE);
        }
        let change = pipeline.set_state(gst::State::Paused)?;
        self.source.start_reader();
        Ok(change != gst::StateChangeSuccess::Async)
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
        let own = gst::ClockTime::try_from(self.declared).unwrap_or(gst::ClockTime::ZERO);
        self.sink.declare_latency(upstream + own);
    }

    /// Declares what frames have lately been measured to take, and never less than configured.
    fn follow_latency(&mut self) {
        if !self.source.is_live() {
            return;
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(self.recorder.take_slowest_push());
        let slowest = self.recent.iter().max().copied().unwrap_or_default();
        let steps = slowest.as_millis() / LATENCY_STEP.as_millis() + 1;
        let measured = LATENCY_STEP * u32::try_from(steps).unwrap_or(u32::MAX);
        let latency = if slowest > self.least_latency { measured } else { self.least_latency };
        if latency != self.declared {
            self.declared = latency;
            tracing::info!("latency declared to the sink is now {latency:?}");
            self.share_latency();
        }
    }
}

fn bus_of(pipeline: &gst::Pipeline) -> Bus {
    match pipeline.bus() {
        Some(bus) => Box::pin(bus.stream()),
        // A pipeline always has a bus; without one there would be nothing to wait for.
        None => Box::pin(futures::stream::pending()),
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
