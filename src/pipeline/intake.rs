//! The appsink callback: stamp, number, hand on.

use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use gstreamer_app as gst_app;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::exchange::Exchange;
use super::outlet::Outlet;
use super::ticket::SourceFrame;
use crate::frame::{CaptureTime, FrameId, FrameMeta, Pts};
use crate::media::{self, StreamFormat};

/// Turns samples into [`SourceFrame`]s.
///
/// Under back-pressure (`lossless`) a full exchange leaves the sample in the appsink, which makes upstream wait by
/// GStreamer's own means; the compositor calls [`SampleIntake::pump`] when it has made room.
#[derive(Debug)]
pub struct SampleIntake {
    exchange: Arc<Exchange>,
    outlet: Arc<Outlet>,
    state: Mutex<State>,
    on_error: Mutex<Option<String>>,
    failed: Notify,
    /// A source that breaks also says that it has ended; if it is to be started again that is not the end.
    restarts: bool,
}

#[derive(Debug, Default)]
struct State {
    format: Option<Arc<StreamFormat>>,
    next: FrameId,
}

impl SampleIntake {
    /// Feeds `exchange`, or `outlet` at once where there is nothing to wait for. With `restarts` the end of the source is
    /// not the end of the stream.
    pub fn new(exchange: Arc<Exchange>, outlet: Arc<Outlet>, restarts: bool) -> Arc<Self> {
        Arc::new(Self {
            exchange,
            outlet,
            state: Mutex::default(),
            on_error: Mutex::default(),
            failed: Notify::new(),
            restarts,
        })
    }

    /// Moves every waiting sample for which there is room. Never waits for a sample or for room.
    pub fn pump(&self, appsink: &gst_app::AppSink) {
        // One at a time, so that samples keep their order. Held for the time of a few pointer moves.
        let mut state = self.state.lock();
        while self.exchange.has_room() {
            let entered = Instant::now();
            let Some(sample) = appsink.try_pull_sample(gst::ClockTime::ZERO) else { return };
            if let Err(reason) = self.accept(&mut state, sample, entered) {
                self.on_error.lock().get_or_insert(reason);
                self.failed.notify_one();
            }
        }
    }

    /// The stream is a new one (a reconnect): masks of the old one must not be drawn on it.
    pub fn new_epoch(&self) {
        let mut state = self.state.lock();
        state.next.epoch += 1;
        state.format = None;
        self.exchange.forget_newest();
    }

    /// How many times the stream has become a new one.
    pub fn resets(&self) -> u32 {
        self.state.lock().next.epoch
    }

    /// Why frames cannot be used, if that has happened.
    pub fn error(&self) -> Option<String> {
        self.on_error.lock().clone()
    }

    /// Waits until frames cannot be used; why not.
    pub async fn failure(&self) -> String {
        loop {
            if let Some(reason) = self.error() {
                return reason;
            }
            self.failed.notified().await;
        }
    }

    fn accept(&self, state: &mut State, sample: gst::Sample, entered: Instant) -> Result<(), String> {
        let caps = sample.caps().ok_or("a sample without caps")?;
        let mut buffer = sample.buffer_owned().ok_or("a sample without a buffer")?;
        let time = buffer.pts().map(|pts| running_time(&sample, pts));
        let format = match &state.format {
            Some(format) if format.caps.as_ref() == caps => format.clone(),
            previous => {
                let format = Arc::new(StreamFormat::from_caps(caps).map_err(|e| e.to_string())?);
                if previous.is_some() {
                    state.next.epoch += 1;
                    tracing::info!(epoch = state.next.epoch, "the stream changed to {}", format.caps);
                }
                state.format = Some(format.clone());
                format
            }
        };
        let meta = FrameMeta {
            id: state.next,
            pts: time.map(|t| Pts(t.nseconds())),
            duration: buffer.duration().map(Into::into),
            capture: CaptureTime { mono: entered, ..CaptureTime::now() },
        };
        state.next.seq += 1;
        // The sample holds the buffer, too, and the compositor can draw in place only what nobody else holds.
        drop(sample);
        if buffer.pts() != time {
            buffer.make_mut().set_pts(time);
        }
        let queued = Instant::now();
        let capture_ns = (queued - entered).as_nanos() as u64;
        let frame = SourceFrame { meta, buffer, format, capture_ns, queued };
        if let Some(frame) = self.outlet.straight(frame, &self.exchange) {
            self.exchange.offer(frame);
        }
        Ok(())
    }
}

/// When a frame of `sample` with this PTS is shown, from the start of the stream: a PTS counts from wherever the source's segment
/// says, which is not 0 in edited files and in transport streams, and the sink knows nothing of that segment.
///
/// The appsink gives out what lies in the segment at least in part. A frame that begins before it begins with it; what else has
/// no such time, and what is of no segment of times, keeps its PTS.
fn running_time(sample: &gst::Sample, pts: gst::ClockTime) -> gst::ClockTime {
    let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::ClockTime>());
    let time = segment.and_then(|s| s.to_running_time(s.start().map_or(pts, |start| pts.max(start))));
    time.unwrap_or(pts)
}

impl media::Intake for SampleIntake {
    fn on_sample(&self, appsink: &gst_app::AppSink) {
        self.pump(appsink);
    }

    fn on_eos(&self) {
        if !self.restarts {
            self.exchange.end();
        }
    }
}
