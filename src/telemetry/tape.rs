//! What happened to each frame of a run, one by one, for whoever needs more than distributions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use crate::frame::FrameMeta;
use crate::stage::StageTimes;

/// A frame that left for the sink.
#[derive(Clone, Copy, Debug)]
pub struct FrameTimes {
    /// Which frame, and when it was captured.
    pub meta: FrameMeta,
    /// Capture, overlay and push.
    pub stages: StageTimes,
    /// When the sink had taken it.
    pub pushed: Instant,
    /// Age of the mask that it carries, if it carries one.
    pub mask_age: Option<Duration>,
}

/// A frame that the model has finished.
#[derive(Clone, Copy, Debug)]
pub struct SegmentTimes {
    /// Which frame, and when it was captured.
    pub meta: FrameMeta,
    /// When the model was given it.
    pub began: Instant,
    /// When its masks were there.
    pub ended: Instant,
    /// From the wait in the queue to the memory.
    pub stages: StageTimes,
}

/// Takes every frame's times, up to a number; further ones are counted alone. Writing is lock-free: no thread of the stream waits.
#[derive(Debug)]
pub struct Tape {
    frames: ArrayQueue<FrameTimes>,
    segmented: ArrayQueue<SegmentTimes>,
    lost: AtomicU64,
}

impl Tape {
    /// Room for `frames` frames.
    pub fn new(frames: usize) -> Self {
        let room = frames.max(1);
        Self { frames: ArrayQueue::new(room), segmented: ArrayQueue::new(room), lost: AtomicU64::new(0) }
    }

    /// A frame has left.
    pub fn left(&self, frame: FrameTimes) {
        if self.frames.push(frame).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The model has finished a frame.
    pub fn segmented(&self, frame: SegmentTimes) {
        if self.segmented.push(frame).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes out what left so far, in the order in which it left.
    pub fn take_frames(&self) -> Vec<FrameTimes> {
        std::iter::from_fn(|| self.frames.pop()).collect()
    }

    /// Takes out what the model has finished so far, in order.
    pub fn take_segmented(&self) -> Vec<SegmentTimes> {
        std::iter::from_fn(|| self.segmented.pop()).collect()
    }

    /// Entries for which there was no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
