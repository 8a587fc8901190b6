//! The frame: its identity, its times, and a borrowed view of its pixels.
//!
//! Nothing here knows GStreamer or a network. `pipeline` wraps a GStreamer buffer around a
//! [`FrameMeta`]; `segment` sees an [`ImageView`].

mod image;
mod rgb;
mod yuv;

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

pub use image::{ImageError, ImageView, ImageViewMut, PixelFormat, Plane, PlaneMut, YuvColor, YuvMatrix};
pub use rgb::Rgb;
pub use yuv::Yuv;

/// Which frame this is, for the whole life of a run.
///
/// `epoch` rises with every change of caps, reconnect or scene reset, so a result of an old epoch
/// can never match a frame of a new one. `seq` counts frames over the whole run and never repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameId {
    /// Generation of the stream's geometry.
    pub epoch: u32,
    /// Position in the run, from 0.
    pub seq: u64,
}

impl fmt::Display for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

/// When a frame entered the process: monotonic for intervals, wall clock for the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureTime {
    /// For latency and age; never jumps.
    pub mono: Instant,
    /// For records; may jump with the system clock.
    pub wall: SystemTime,
}

impl CaptureTime {
    /// Both clocks, read now.
    pub fn now() -> Self {
        Self { mono: Instant::now(), wall: SystemTime::now() }
    }

    /// How long before `later` this frame was captured; zero if it was captured after it.
    pub fn age_at(&self, later: &Self) -> Duration {
        later.mono.saturating_duration_since(self.mono)
    }
}

/// A presentation timestamp in nanoseconds, as the source gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pts(pub u64);

impl Pts {
    /// The timestamp as a duration from the stream's zero.
    pub fn as_duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

impl fmt::Display for Pts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.as_duration().as_secs_f64())
    }
}

/// What travels with a frame besides its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    /// Identity.
    pub id: FrameId,
    /// Presentation timestamp, `None` where the source gave none.
    pub pts: Option<Pts>,
    /// Nominal duration, `None` where the source gave none.
    pub duration: Option<Duration>,
    /// When it entered the process.
    pub capture: CaptureTime,
}
