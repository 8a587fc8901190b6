//! The control plane of a run: starts the pipelines, listens to their buses, watches over the worker, restarts a lost
//! source, and sees to it that the sink finishes its file. It sleeps until something happens or is due.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use super::bus::{Bus, bus_of, end_of_stream, error_text, first_error, missing_plugin};
use super::clocked::Clocked;
use super::exchange::Exchange;
use super::intake::SampleIntake;
use super::report::Ended;
use super::worker::Worker;
use crate::media::{SinkPipeline, SourcePipeline};
use crate::telemetry::Recorder;

/// Shortest and longest time between two looks at what nothing announces.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(10));
/// Time between two looks while a broken source is drained.
const LOOK_WHILE_BROKEN: Duration = Duration::from_millis(100);
/// Longest wait for the first frame of a source that is not live.
const PREROLL: Duration = Duration::from_secs(30);
/// Longest wait for a sink to finish its file after the last frame.
const FINISH: Duration = Duration::from_secs(60);
/// Longest wait, after a stop, for a sink that does not record to take the frame that is being given to it.
const LAST_FRAME: Duration = Duration::from_secs(5);
/// Longest wait for the end of a stream that broke, when nothing is under way any more.
const BROKEN_GRACE: Duration = Duration::from_secs(2);
/// A live source that gives no frame for this long is lost.
const SILENCE: Duration = Duration::from_secs(10);

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
    pipelines: Clocked,
    source_bus: Bus,
    sink_bus: Bus,
    intake: Arc<SampleIntake>,
    worker: Option<Arc<Worker>>,
    recorder: Arc<Recorder>,
    /// `true` when the compositor is done; closed before that, it panicked.
    composed: watch::Receiver<bool>,
    reconnect: Option<Duration>,
    /// Both pipelines play.
    begun: bool,
    /// When a lost source is started again.
    again: Option<Instant>,
    /// What broke a recorded source; the frames before are still under way.
    broken: Option<String>,
    missing: Vec<String>,
    records: bool,
    /// Frames out and dropped when they last changed, and when that was seen.
    progress: (u64, Instant),
    /// When a live source was last taken for lost.
    given_up: Instant,
    /// When [`Control::look`] was last called.
    looked: Instant,
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
    /// The sink writes a file, for which a stop waits longer.
    pub records: bool,
}

impl Control {
    /// Takes over both pipelines; starts nothing.
    pub fn new(source: SourcePipeline, sink: SinkPipeline, with: Supervised) -> Self {
        let Supervised { intake, worker, recorder, composed, latency, reconnect, records } = with;
        Self {
            source_bus: bus_of(source.pipeline()),
            sink_bus: bus_of(sink.pipeline()),
            pipelines: Clocked::new(source, sink, latency),
            intake,
            worker,
            recorder,
            composed,
            reconnect,
            begun: false,
            again: None,
            broken: None,
            missing: Vec::new(),
            records,
            progress: (0, Instant::now()),
            given_up: Instant::now(),
            looked: Instant::now(),
        }
    }

    /// Starts both pipelines and waits for whatever ends the run.
    pub async fn go(
        &mut self,
        tick: Duration,
        mut observe: impl FnMut(Option<Duration>),
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Event {
        let mut report = interval(tick.max(LOOK_AGAIN.0));
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        report.reset();
        let deadline = Instant::now() + PREROLL;
        match block_in_place(|| self.pipelines.preroll()) {
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
        let mut composing = true;
        loop {
            let look = sleep_until(self.next_look(deadline).into());
            // In this order: an error of the source explains what follows from it.
            let event = tokio::select! {
                biased;
                () = &mut stop => Some(Event::Stop),
                Some(message) = self.source_bus.next() => self.on_source(&message).await,
                Some(message) = self.sink_bus.next() => self.on_sink(&message),
                reason = self.intake.failure() => Some(Event::SourceLost(reason)),
                panicked = is_closed(&mut self.composed), if composing => {
                    composing = false;
                    panicked.then(|| Event::SinkLost("the compositor panicked".into()))
                }
                () = look => self.look(deadline),
                _ = report.tick() => {
                    self.pipelines.follow_latency(self.recorder.take_slowest_push());
                    observe(self.pipelines.source.duration());
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
        self.broken.clone().or_else(|| self.pipelines.source.reader_error())
    }

    async fn begin(&mut self) -> Result<(), Event> {
        self.begun = true;
        if self.pipelines.play().is_err() {
            return Err(Event::SinkLost(first_error(&mut self.sink_bus, "the sink does not start").await));
        }
        Ok(())
    }

    async fn on_source(&mut self, message: &gst::MessageRef) -> Option<Event> {
        match message.view() {
            gst::MessageView::AsyncDone(_) if !self.begun => return self.begin().await.err(),
            gst::MessageView::Latency(_) => self.pipelines.share_latency(),
            gst::MessageView::Eos(_) if self.reconnect.is_some() => self.lost("it ended"),
            gst::MessageView::Error(e) => {
                let mut reason = error_text(e);
                if !self.missing.is_empty() {
                    let missing = std::mem::take(&mut self.missing).join(", ");
                    reason = format!("{reason}; missing: {missing}; `sonomask doctor` says what to install");
                }
                if !self.begun || (self.pipelines.source.is_live() && self.reconnect.is_none()) {
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
                if let Err(e) = self.pipelines.sink.pipeline().recalculate_latency() {
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

    /// When to look again at what nothing announces.
    fn next_look(&self, deadline: Instant) -> Instant {
        let mut next = self.looked + LOOK_AGAIN.1;
        if let Some(worker) = &self.worker {
            next = next.min(self.looked + worker.watch_every());
        }
        if !self.begun {
            next = next.min(deadline);
        } else if self.pipelines.source.is_live() {
            next = next.min(self.heard() + SILENCE);
        }
        if self.broken.is_some() {
            next = next.min(self.looked + LOOK_WHILE_BROKEN);
        }
        if let Some(again) = self.again {
            next = next.min(again);
        }
        // Whatever is overdue needs no busy loop.
        next.max(self.looked + LOOK_AGAIN.0)
    }

    /// When the source last gave a frame, or was last given up.
    fn heard(&self) -> Instant {
        self.recorder.last_in().map_or(self.given_up, |at| at.max(self.given_up))
    }

    /// Looks at everything that may be due.
    fn look(&mut self, deadline: Instant) -> Option<Event> {
        let now = Instant::now();
        self.looked = now;
        if let Some(worker) = &self.worker {
            worker.watch();
        }
        if !self.begun {
            return (now > deadline)
                .then(|| Event::SourceLost(format!("no frame within {} s", PREROLL.as_secs())));
        }
        let counts = self.recorder.counts();
        let gone = counts.out + counts.dropped;
        let idle = counts.entered == gone;
        if let Some(reason) = &self.broken {
            let left = counts.entered + gone;
            if left != self.progress.0 {
                self.progress = (left, now);
            } else if idle && now - self.progress.1 > BROKEN_GRACE {
                return Some(Event::SourceLost(reason.clone()));
            }
        }
        let silent = now.saturating_duration_since(self.heard()) >= SILENCE;
        if silent && self.again.is_none() && self.pipelines.source.is_live() && idle {
            self.given_up = now;
            match self.reconnect {
                Some(_) => self.lost(&format!("no frame for {} s", SILENCE.as_secs())),
                None => tracing::warn!("no frame from the source for {} s", SILENCE.as_secs()),
            }
        }
        if self.again.is_some_and(|at| now >= at) {
            self.again = None;
            self.given_up = now;
            if let Err(reason) = self.pipelines.restart_source(|| self.intake.new_epoch()) {
                return Some(Event::SourceLost(reason));
            }
        }
        None
    }

    /// Lets what is under way leave, and the sink finish. `stop` is asked unless it was the event.
    ///
    /// # Errors
    /// What keeps the sink from finishing.
    pub async fn finish(
        &mut self,
        exchange: &Exchange,
        event: &Event,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), String> {
        block_in_place(|| self.pipelines.source.shut_down());
        match event {
            // Frames that came before the source broke are good.
            Event::SourceLost(_) => exchange.end(),
            Event::Stop => exchange.stop(),
            Event::End | Event::SinkLost(_) => {
                // The sink takes nothing more, finished or not.
                self.give_up_sink(exchange).await;
                return match event {
                    Event::SinkLost(reason) => Err(reason.clone()),
                    _ => Ok(()),
                };
            }
        }
        let patience = if self.records { FINISH } else { LAST_FRAME };
        let Self { composed, sink_bus, worker, .. } = self;
        let watchdog = async {
            let Some(worker) = worker else { return std::future::pending().await };
            loop {
                worker.watch();
                sleep(worker.watch_every()).await;
            }
        };
        let stuck = async {
            // What the source gave before it broke may take its time.
            if !matches!(event, Event::Stop) {
                stop.await;
                exchange.stop();
            }
            sleep(patience).await;
        };
        let early = tokio::select! {
            biased;
            // A closed channel means that the compositor is gone, too.
            _ = composed.wait_for(|done| *done) => None,
            said = end_of_stream(sink_bus) => Some(said),
            () = stuck => Some(Err(format!("the last frame did not leave within {} s of the stop", patience.as_secs()))),
            () = watchdog => None,
        };
        if let Some(said) = early {
            self.give_up_sink(exchange).await;
            return said;
        }
        if self.recorder.counts().out == 0 {
            return Ok(());
        }
        let limit = if matches!(event, Event::Stop) { patience } else { FINISH };
        let finished = tokio::time::timeout(limit, end_of_stream(&mut self.sink_bus)).await;
        block_in_place(|| self.pipelines.sink.shut_down());
        finished.unwrap_or_else(|_| Err(format!("the sink did not finish within {} s", limit.as_secs())))
    }

    /// Gives the sink nothing more and closes it: a compositor that waits for room in it wakes, and ends.
    async fn give_up_sink(&mut self, exchange: &Exchange) {
        exchange.stop();
        block_in_place(|| self.pipelines.sink.shut_down());
        self.composed.wait_for(|done| *done).await.ok();
    }
}

/// Waits for the compositor to be done or gone; `true` if it went without being done.
async fn is_closed(composed: &mut watch::Receiver<bool>) -> bool {
    composed.wait_for(|done| *done).await.is_err()
}
