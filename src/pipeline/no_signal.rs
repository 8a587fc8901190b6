//! The picture that a silent source shows instead of its last frame, which somebody might take for live.

use std::time::{Duration, Instant};

use gstreamer as gst;

use super::outlet::{Gone, Way};
use crate::frame::Pts;
use crate::overlay::draw_slate;
use crate::telemetry::Recorder;

/// Time between two slates; the seconds they count are then never more than this behind.
const EVERY: Duration = Duration::from_millis(500);
/// So many frames have to be missing at the least.
const MISSED: u32 = 3;
/// How far a slate's time stays behind the clock where the source does not say how long a frame lasts.
const BEHIND: Duration = Duration::from_millis(40);

/// Watches for silence, on the compositor's thread.
#[derive(Debug)]
pub struct NoSignal {
    limit: Duration,
    /// When the last slate was shown.
    shown: Option<Instant>,
    /// The frame before the silence that was last spoken of.
    noted: Option<Instant>,
}

impl NoSignal {
    /// Silence of `limit` is no signal.
    pub fn new(limit: Duration) -> Self {
        Self { limit, shown: None, noted: None }
    }

    /// When the next slate is due, if no frame comes before. `None` before the first frame: there is nothing on the screen
    /// that could be taken for live.
    fn due(&self, way: &Way, recorder: &Recorder) -> Option<Instant> {
        // A source of one frame in two seconds is not silent between them.
        let slow = way.last()?.meta.duration.unwrap_or_default() * MISSED;
        let silent = recorder.last_in()? + self.limit.max(slow);
        Some(self.shown.map_or(silent, |shown| silent.max(shown + EVERY)))
    }

    /// When to look again. The first frame may pass the compositor by without a word (see
    /// [`Outlet::straight`](super::outlet::Outlet::straight)), so that one looks before it, too.
    pub fn look_again(&self, way: &Way, recorder: &Recorder) -> Instant {
        self.due(way, recorder).unwrap_or_else(|| Instant::now() + self.limit)
    }

    /// Shows a slate if one is due. Nothing may be under way.
    pub fn look(&mut self, way: &mut Way, recorder: &Recorder) {
        let now = Instant::now();
        let (Some(due), Some(heard)) = (self.due(way, recorder), recorder.last_in()) else { return };
        if now < due {
            return;
        }
        self.shown = Some(now);
        if self.noted != Some(heard) {
            self.noted = Some(heard);
            tracing::warn!("NO SIGNAL: no frame for {:?}", self.limit);
        }
        let Some(last) = way.last().cloned() else { return };
        let Some(picture) = picture(&last, now, now.saturating_duration_since(heard)) else { return };
        // A sink that refuses has said why on its bus.
        if way.show(picture, &last.format).is_ok() {
            recorder.slate();
        }
    }
}

/// A slate of the format of `last`, with the PTS that a frame captured now would have, less one frame: a frame that
/// comes now must not be before it.
fn picture(last: &Gone, now: Instant, silent: Duration) -> Option<gst::Buffer> {
    let mut buffer = gst::Buffer::with_size(last.format.info.size()).ok()?;
    let picture = buffer.get_mut()?;
    // Formats with a fourth byte want it opaque; all others are drawn over.
    picture.map_writable().ok()?.fill(0xff);
    let behind = last.meta.duration.unwrap_or(BEHIND).min(BEHIND);
    let passed = now.saturating_duration_since(last.meta.capture.mono).saturating_sub(behind);
    if let Some(Pts(pts)) = last.meta.pts {
        let passed = u64::try_from(passed.as_nanos()).ok()?;
        picture.set_pts(gst::ClockTime::from_nseconds(pts.checked_add(passed)?));
    }
    picture.set_duration(gst::ClockTime::try_from(EVERY).ok());
    last.format.with_view_mut(picture, |view| draw_slate(view, silent)).ok()?;
    Some(buffer)
}
