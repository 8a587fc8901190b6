//! Where frames leave for the sink: one thread at a time, in source order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use parking_lot::{Mutex, MutexGuard};

use super::exchange::Exchange;
use super::ticket::SourceFrame;
use crate::frame::FrameMeta;
use crate::media::{Feed, StreamFormat};
use crate::stage::{Stage, StageTimes};
use crate::telemetry::{Distributions, FrameTimes, Recorder};

/// Frames whose times may wait for the distributions; more than ever wait, because those are held for microseconds.
const UNRECORDED: usize = 64;

/// The way out, and who may take it.
///
/// The compositor holds it from before it takes a frame from the display queue until that frame has left. The streaming
/// thread takes it only where it waits for nothing and overtakes nobody ([`Outlet::straight`]).
#[derive(Debug)]
pub struct Outlet {
    way: Mutex<Way>,
    /// A frame without masks leaves as it came, and nobody else wants to see it.
    bare: bool,
}

/// The way out, held by one thread.
#[derive(Debug)]
pub struct Way {
    feed: Feed,
    last: Option<Gone>,
    /// Times of frames that left while somebody read the distributions.
    unrecorded: Vec<Times>,
}

/// The frame that left last.
#[derive(Clone, Debug)]
pub struct Gone {
    /// Its PTS and capture time.
    pub meta: FrameMeta,
    /// Its size, format and rate.
    pub format: Arc<StreamFormat>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    stages: StageTimes,
    capture_to_push: Duration,
    mask_age: Option<Duration>,
}

impl Outlet {
    /// Frames leave through `feed`. `bare`: nothing is drawn on frames without masks, and nobody but the sink sees them.
    pub fn new(feed: Feed, bare: bool) -> Self {
        Self { way: Mutex::new(Way { feed, last: None, unrecorded: Vec::new() }), bare }
    }

    /// The way out, once nobody else holds it.
    pub fn hold(&self) -> MutexGuard<'_, Way> {
        self.way.lock()
    }

    /// Lets `frame` leave at once, on the streaming thread, which spares two threads a wake-up; gives it back unless no
    /// mask will come any more, nothing is drawn, no frame is before it and the sink has room. Never waits.
    pub fn straight(&self, frame: SourceFrame, exchange: &Exchange) -> Option<SourceFrame> {
        if !self.bare || !exchange.ai().gone() {
            return Some(frame);
        }
        // Whoever holds the way has a frame that is before this one, or is about to look for one.
        let Some(mut way) = self.way.try_lock() else { return Some(frame) };
        if !exchange.nothing_waits() || !way.feed.has_room() {
            return Some(frame);
        }
        let recorder = exchange.recorder();
        recorder.frame_in(frame.meta.capture.mono);
        let mut stages = StageTimes::default();
        stages.add(Stage::Capture, frame.capture_ns);
        way.leave(frame.meta, frame.buffer, &frame.format, stages, None, recorder);
        None
    }
}

impl Way {
    /// Hands a frame to the sink and notes how it went. `mask_age` is that of the mask it carries, if it carries one.
    pub fn leave(
        &mut self,
        meta: FrameMeta,
        buffer: gst::Buffer,
        format: &Arc<StreamFormat>,
        mut stages: StageTimes,
        mask_age: Option<Duration>,
        recorder: &Recorder,
    ) {
        let ready = Instant::now();
        let pushed = stages.time(Stage::Push, || self.feed.push(buffer, format));
        if pushed.is_err() {
            // The sink is flushing or broken; the bus has the reason.
            return recorder.drop_sink();
        }
        let now = Instant::now();
        let capture_to_push = now.saturating_duration_since(meta.capture.mono);
        if let Some(tape) = recorder.tape() {
            tape.left(FrameTimes { meta, stages, pushed: now, mask_age });
        }
        // The latency that is declared follows this. Without the wait for room in the sink: that waits for what was declared, and a
        // single stall would keep itself up.
        recorder.pushed_after(ready.saturating_duration_since(meta.capture.mono));
        if let Some(pts) = meta.pts {
            recorder.reached(pts);
        }
        recorder.frame_out(mask_age.is_some());
        self.last = Some(Gone { meta, format: format.clone() });
        let times = Times { stages, capture_to_push, mask_age };
        if self.unrecorded.len() < UNRECORDED {
            self.unrecorded.push(times);
        }
        // Reading the distributions takes long enough to be felt by a streaming thread that waits for it.
        recorder.try_record(|d| record(&mut self.unrecorded, d));
    }

    /// Hands a picture to the sink that is no frame.
    ///
    /// # Errors
    /// If the sink is stopping or broken.
    pub fn show(&mut self, picture: gst::Buffer, format: &StreamFormat) -> Result<(), gst::FlowError> {
        self.feed.push(picture, format)
    }

    /// The frame that left last, if any has.
    pub fn last(&self) -> Option<&Gone> {
        self.last.as_ref()
    }

    /// No more frames.
    pub fn end(&mut self, recorder: &Recorder) {
        recorder.record(|d| record(&mut self.unrecorded, d));
        self.feed.end();
    }
}

fn record(times: &mut Vec<Times>, d: &mut Distributions) {
    for t in times.drain(..) {
        d.record_stages(&t.stages);
        d.capture_to_push.record(t.capture_to_push);
        if let Some(age) = t.mask_age {
            d.mask_age.record(age);
        }
    }
}
