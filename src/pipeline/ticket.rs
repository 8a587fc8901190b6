//! A frame on its way to the model and back.

use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use parking_lot::Mutex;

use crate::frame::FrameMeta;
use crate::mask::Segmentation;
use crate::media::StreamFormat;

/// A source frame: GStreamer's buffer, untouched and uncopied, with its identity and times.
#[derive(Debug)]
pub struct SourceFrame {
    /// Identity, PTS, capture time.
    pub meta: FrameMeta,
    /// The pixels and every meta the source attached.
    pub buffer: gst::Buffer,
    /// How to read them.
    pub format: Arc<StreamFormat>,
    /// Nanoseconds the appsink callback spent on it.
    pub capture_ns: u64,
    /// When it was queued.
    pub queued: Instant,
}

/// What became of a frame that has to carry its own mask.
#[derive(Debug)]
pub enum Outcome {
    /// The model finished it.
    Segmented(Arc<SourceFrame>, Arc<Segmentation>),
    /// It passes through without a mask, and this is why.
    Bare(Arc<SourceFrame>, Why),
    /// It was dropped: a newer frame took its place in the model's queue.
    Evicted,
    /// It was dropped: too many finished frames wait for the sink.
    Late,
}

/// Why a frame has no mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The model is not loaded yet.
    Starting,
    /// The model is off.
    Off(Arc<str>),
}

impl Outcome {
    /// Whether it keeps a frame's pixels in memory.
    pub fn holds_pixels(&self) -> bool {
        matches!(self, Self::Segmented(..) | Self::Bare(..))
    }
}

/// The place in the display order that a frame keeps while the model works on it.
#[derive(Debug, Default)]
pub struct Ticket(Mutex<Slot>);

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Open,
    Ready(Outcome),
    Taken,
}

impl Ticket {
    /// Decides the frame's fate. Only the first decision counts; whether this was it is returned.
    pub fn resolve(&self, outcome: Outcome) -> bool {
        let mut slot = self.0.lock();
        if matches!(*slot, Slot::Open) {
            *slot = Slot::Ready(outcome);
            return true;
        }
        false
    }

    /// The fate, once decided; given out once.
    pub fn take(&self) -> Option<Outcome> {
        let mut slot = self.0.lock();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Ready(outcome) => Some(outcome),
            Slot::Open => {
                *slot = Slot::Open;
                None
            }
            Slot::Taken => None,
        }
    }

    /// Gives the place up: what is decided later comes too late. The fate, if it was decided before.
    pub fn void(&self) -> Option<Outcome> {
        match std::mem::replace(&mut *self.0.lock(), Slot::Taken) {
            Slot::Ready(outcome) => Some(outcome),
            Slot::Open | Slot::Taken => None,
        }
    }
}

/// One entry of the model's queue. Without a ticket the frame is on the screen already and only its mask is wanted.
#[derive(Clone, Debug)]
pub struct Job {
    /// The frame to segment.
    pub frame: Arc<SourceFrame>,
    /// Where to answer.
    pub ticket: Option<Arc<Ticket>>,
}

/// One entry of the display queue, in source order.
#[derive(Debug)]
pub enum DisplayItem {
    /// Leaves now, with whatever mask there is (`latest`).
    Now(Arc<SourceFrame>),
    /// Leaves when its own mask is there (`paired`).
    When(Arc<Ticket>),
}
