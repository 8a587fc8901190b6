//! Frames that arrive on a clock, whether or not anybody is ready for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use parking_lot::Mutex;

use super::footage::Footage;
use super::marker::{Mark, draw_mark};
use super::usage::{CpuClock, CpuSpan};
use crate::media::MediaError;

/// Frames that may wait for the source pipeline; then the clock's thread waits, and the frames behind are late by as much.
const DEPTH: u64 = 2;
/// Between two looks whether the pipeline plays yet.
const LOOK: Duration = Duration::from_millis(2);
/// First frame after the pipeline has begun to play.
const HEAD_START: Duration = Duration::from_millis(50);

/// Which frames are sent, and when.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// From frame to frame.
    pub period: Duration,
    /// Frames that are not counted.
    pub warmup: u64,
    /// All frames.
    pub frames: u64,
}

/// What the clock's thread leaves.
#[derive(Debug, Default)]
pub struct Log {
    /// When frame 0 was due; the others are due a period after each other.
    pub begun: Option<Instant>,
    /// CPU time when the first frame that counts was due.
    pub counted: Option<CpuClock>,
    /// What was used from then until the last frame's time was over.
    pub used: Option<CpuSpan>,
    /// Why it ended early, if it did.
    pub error: Option<String>,
}

/// A source of frames, as a bin with the thread that feeds it.
pub struct ClockSource {
    appsrc: gst_app::AppSrc,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    log: Arc<Mutex<Log>>,
    thread: Option<JoinHandle<()>>,
}

impl ClockSource {
    /// The source, and the bin that it feeds. Each frame carries a [`Mark`] with the time at which it was due, in microseconds
    /// after `zero`. The first is due shortly after the bin has begun to play.
    ///
    /// # Errors
    /// If an element is missing or no thread can be started.
    pub fn start(
        footage: Arc<Footage>,
        schedule: Schedule,
        zero: Instant,
    ) -> Result<(Self, gst::Bin), MediaError> {
        let appsrc = gst_app::AppSrc::builder()
            .name("clock")
            .format(gst::Format::Time)
            .is_live(true)
            .max_buffers(DEPTH)
            .max_bytes(0)
            .block(true)
            .build();
        let bin = gst::Bin::new();
        let convert = gst::ElementFactory::make("videoconvert")
            .build()
            .map_err(|_| MediaError::Missing { element: "videoconvert".into() })?;
        let link = |e: gst::glib::BoolError| MediaError::Link { what: "the clock", reason: e.to_string() };
        bin.add_many([appsrc.upcast_ref(), &convert]).map_err(link)?;
        appsrc.link(&convert).map_err(link)?;
        let pad = convert.static_pad("src").ok_or(MediaError::Missing { element: "videoconvert".into() })?;
        let ghost = gst::GhostPad::with_target(&pad).map_err(link)?;
        bin.add_pad(&ghost).map_err(link)?;
        let (stop, sent, log) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<Mutex<Log>>::default());
        let clock = Clock {
            appsrc: appsrc.clone(),
            footage,
            schedule,
            zero,
            stop: stop.clone(),
            sent: sent.clone(),
            log: log.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("clock".into())
            .spawn(move || clock.run())
            .map_err(|e| MediaError::Thread(e.to_string()))?;
        Ok((Self { appsrc, stop, sent, log, thread: Some(thread) }, bin))
    }

    /// Frames sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it and says what happened.
    pub fn end(mut self) -> Log {
        self.halt();
        std::mem::take(&mut *self.log.lock())
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Release);
        // A push that waits for room is woken by this.
        self.appsrc.set_state(gst::State::Null).ok();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.log.lock().error = Some("the clock's thread panicked".into());
        }
    }
}

impl Drop for ClockSource {
    fn drop(&mut self) {
        self.halt();
    }
}

struct Clock {
    appsrc: gst_app::AppSrc,
    footage: Arc<Footage>,
    schedule: Schedule,
    zero: Instant,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    log: Arc<Mutex<Log>>,
}

impl Clock {
    fn run(self) {
        if let Err(reason) = self.feed() {
            self.log.lock().error = Some(reason);
        }
        // An error means that the pipeline is being stopped, and then nobody waits for the end.
        self.appsrc.end_of_stream().ok();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn feed(&self) -> Result<(), String> {
        self.appsrc.set_caps(Some(&self.footage.format.caps));
        while self.appsrc.current_state() != gst::State::Playing {
            if self.stopped() {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        let begun = Instant::now() + HEAD_START;
        self.log.lock().begun = Some(begun);
        for index in 0..self.schedule.frames {
            let due = begun + due(self.schedule.period, index);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.stopped() {
                return Ok(());
            }
            if index == self.schedule.warmup {
                self.log.lock().counted = CpuClock::now();
            }
            let buffer = self.buffer(index, due)?;
            if self.appsrc.push_buffer(buffer).is_err() {
                // The pipeline is being stopped.
                return Ok(());
            }
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        // To the end of the last frame's time: what the run's end costs is no frame's, and a slow model takes seconds to stop.
        let end = begun + due(self.schedule.period, self.schedule.frames);
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        let mut log = self.log.lock();
        log.used = log.counted.as_ref().and_then(CpuClock::since);
        Ok(())
    }

    fn buffer(&self, index: u64, at: Instant) -> Result<gst::Buffer, String> {
        let format = &self.footage.format;
        let mut buffer = self.footage.picture(index).copy_deep().map_err(|e| e.to_string())?;
        let micros = at.saturating_duration_since(self.zero).as_micros() as u64;
        let mark = Mark { frame: index as u32, micros };
        let drawn = format.with_view_mut(buffer.make_mut(), |image| draw_mark(image, mark));
        drawn.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let meta = buffer.make_mut();
        let pts = due(self.schedule.period, index);
        meta.set_pts(gst::ClockTime::try_from(pts).map_err(|e| e.to_string())?);
        meta.set_duration(gst::ClockTime::try_from(self.schedule.period).map_err(|e| e.to_string())?);
        Ok(buffer)
    }
}

/// When frame `index` is due after frame 0.
pub fn due(period: Duration, index: u64) -> Duration {
    Duration::from_nanos((period.as_nanos() as u64).saturating_mul(index))
}
