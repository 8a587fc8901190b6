//! The source's and the sink's pipeline on one clock, and the latency that is declared between them.

use std::collections::VecDeque;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::task::block_in_place;

use crate::media::{SinkPipeline, SourcePipeline};

/// Measurements that the declared latency looks back.
const RECENT: usize = 30;
/// Declared latency is rounded up to this, so that it is not redistributed for every hiccup.
const LATENCY_STEP: Duration = Duration::from_millis(10);

/// Both pipelines, with one clock and one base time, so that the source's PTS mean the same in the sink.
pub struct Clocked {
    /// Where frames come from.
    pub source: SourcePipeline,
    /// Where they go.
    pub sink: SinkPipeline,
    /// Declared at least, for everything between the appsink and the appsrc.
    least_latency: Duration,
    declared: Duration,
    recent: VecDeque<Duration>,
}

impl Clocked {
    /// Takes over both; starts nothing. `latency` is declared at least for everything between them.
    pub fn new(source: SourcePipeline, sink: SinkPipeline, latency: Duration) -> Self {
        Self { source, sink, least_latency: latency, declared: latency, recent: VecDeque::new() }
    }

    /// Brings the source to its first frame; `false` if that takes a while (the bus then says when).
    ///
    /// # Errors
    /// If it does not start; the bus has the reason.
    pub fn preroll(&mut self) -> Result<bool, gst::StateChangeError> {
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

    /// Starts both, so that the source's PTS carry across.
    ///
    /// # Errors
    /// If the sink does not start; the bus has the reason.
    pub fn play(&self) -> Result<(), gst::StateChangeError> {
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

    /// A live source begins again, on the same clock and base time. `between` runs while it stands still.
    ///
    /// # Errors
    /// If it cannot be stopped.
    pub fn restart_source(&self, between: impl FnOnce()) -> Result<(), String> {
        let pipeline = self.source.pipeline();
        let base = pipeline.base_time();
        block_in_place(|| pipeline.set_state(gst::State::Null)).map_err(|e| e.to_string())?;
        between();
        if let Some(base) = base {
            pipeline.set_base_time(base);
        }
        // A failure to start is posted on the bus, which asks for the next attempt.
        pipeline.set_state(gst::State::Playing).ok();
        Ok(())
    }

    /// Declares the latency of the source plus our own to the sink pipeline.
    pub fn share_latency(&self) {
        if !self.source.is_live() {
            return;
        }
        self.source.pipeline().recalculate_latency().ok();
        let upstream = self.source.upstream_latency().unwrap_or(gst::ClockTime::ZERO);
        let own = gst::ClockTime::try_from(self.declared).unwrap_or(gst::ClockTime::ZERO);
        self.sink.declare_latency(upstream + own);
    }

    /// Declares what frames have lately been measured to take, `slowest` since the last call, and never less than
    /// configured.
    pub fn follow_latency(&mut self, slowest: Duration) {
        if !self.source.is_live() {
            return;
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(slowest);
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
