//! Where the threads of a run leave their counts and times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Latency, Tape};
use crate::frame::Pts;
use crate::stage::{Stage, StageTimes};

/// Counts of a run. `in = out + dropped` once the run has ended; until then the rest is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FrameCounts {
    /// Frames the source delivered.
    #[serde(rename = "in")]
    pub entered: u64,
    /// Frames handed to the sink.
    pub out: u64,
    /// Frames that entered and never left: the sum of the four reasons below.
    pub dropped: u64,
    /// Frames the model finished.
    pub segmented: u64,
    /// Frames that left without a mask of their own or an aged one.
    pub passed_through: u64,
    /// Dropped because the sink was slower than the source.
    pub dropped_display: u64,
    /// Dropped because the model was slower than the source and each frame had to carry its own mask.
    pub dropped_model: u64,
    /// Dropped because the run was stopped while they were under way.
    pub dropped_stop: u64,
    /// Dropped because the sink refused them or they could not be mapped.
    pub dropped_sink: u64,
    /// Frames shown that the model never saw, because a newer one took their place in its queue.
    pub not_segmented: u64,
    /// Frames whose pixels were copied before drawing, because the model, or an element upstream, still read them.
    pub copied: u64,
    /// Pictures that say NO SIGNAL, shown while a live source was silent. They are no frames: neither in nor out.
    pub slates: u64,
}

/// Distributions of a run.
#[derive(Clone, Debug, Default)]
pub struct Distributions {
    stages: [Latency; Stage::ALL.len()],
    /// From the appsink callback to the hand-over to the sink.
    pub capture_to_push: Latency,
    /// Age of the masks that were drawn, 0 for a frame's own mask.
    pub mask_age: Latency,
}

impl Distributions {
    /// The distribution of one stage.
    pub fn stage(&self, stage: Stage) -> &Latency {
        &self.stages[stage as usize]
    }

    /// Adds the stage times of one frame.
    pub fn record_stages(&mut self, times: &StageTimes) {
        for (stage, nanos) in times.iter() {
            self.stages[stage as usize].record_nanos(nanos);
        }
    }
}

/// The few figures that are shown while a run goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Glance {
    /// Median of capture to push.
    pub push_p50: Duration,
    /// 99th percentile of capture to push.
    pub push_p99: Duration,
    /// 95th percentile of the age of drawn masks.
    pub age_p95: Duration,
}

/// Shared by the threads of one run. Counting is lock-free; the distributions are written by the worker and the
/// compositor only; a streaming thread does not wait for them.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    /// When the last frame came in, nanoseconds after `begun`; 0 before the first.
    last_in: AtomicU64,
    entered: AtomicU64,
    out: AtomicU64,
    segmented: AtomicU64,
    passed_through: AtomicU64,
    dropped_display: AtomicU64,
    dropped_model: AtomicU64,
    dropped_stop: AtomicU64,
    dropped_sink: AtomicU64,
    not_segmented: AtomicU64,
    copied: AtomicU64,
    slates: AtomicU64,
    slowest_push: AtomicU64,
    position: AtomicU64,
    distributions: Mutex<Distributions>,
    tape: Option<Arc<Tape>>,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident => $field:ident;)*) => {
        $($(#[$doc])* pub fn $name(&self) {
            self.$field.fetch_add(1, Ordering::Relaxed);
        })*
    };
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            last_in: AtomicU64::default(),
            entered: AtomicU64::default(),
            out: AtomicU64::default(),
            segmented: AtomicU64::default(),
            passed_through: AtomicU64::default(),
            dropped_display: AtomicU64::default(),
            dropped_model: AtomicU64::default(),
            dropped_stop: AtomicU64::default(),
            dropped_sink: AtomicU64::default(),
            not_segmented: AtomicU64::default(),
            copied: AtomicU64::default(),
            slates: AtomicU64::default(),
            slowest_push: AtomicU64::default(),
            position: AtomicU64::default(),
            distributions: Mutex::default(),
            tape: None,
        }
    }
}

impl Recorder {
    /// One that also writes every frame's times to `tape`, if there is one.
    pub fn with_tape(tape: Option<Arc<Tape>>) -> Self {
        Self { tape, ..Self::default() }
    }

    /// Where every frame's times go, if anybody wants them.
    pub fn tape(&self) -> Option<&Tape> {
        self.tape.as_deref()
    }

    counters! {
        /// The model finished a frame.
        frame_segmented => segmented;
        /// A frame was evicted before it could be shown.
        drop_display => dropped_display;
        /// A frame that needs its own mask was overtaken in the model's queue.
        drop_model => dropped_model;
        /// A frame was under way when the run was stopped.
        drop_stop => dropped_stop;
        /// The sink refused a frame.
        drop_sink => dropped_sink;
        /// A frame that is shown all the same was overtaken in the model's queue.
        skip_model => not_segmented;
        /// A frame's pixels were copied for drawing.
        copy => copied;
        /// A picture that says NO SIGNAL was handed to the sink.
        slate => slates;
    }

    /// A frame came in, captured at `at`.
    pub fn frame_in(&self, at: Instant) {
        let since = at.saturating_duration_since(self.begun).as_nanos() as u64;
        self.last_in.store(since.max(1), Ordering::Relaxed);
        self.entered.fetch_add(1, Ordering::Relaxed);
    }

    /// When the last frame came in; `None` before the first.
    pub fn last_in(&self) -> Option<Instant> {
        let since = self.last_in.load(Ordering::Relaxed);
        (since > 0).then(|| self.begun + Duration::from_nanos(since))
    }

    /// A frame left, with or without a mask.
    pub fn frame_out(&self, with_mask: bool) {
        self.out.fetch_add(1, Ordering::Relaxed);
        if !with_mask {
            self.passed_through.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds to the distributions.
    pub fn record(&self, add: impl FnOnce(&mut Distributions)) {
        add(&mut self.distributions.lock());
    }

    /// Adds to the distributions if nobody else is at it; whether it did.
    pub fn try_record(&self, add: impl FnOnce(&mut Distributions)) -> bool {
        self.distributions.try_lock().map(|mut d| add(&mut d)).is_some()
    }

    /// The frame with this PTS has left.
    pub fn reached(&self, pts: Pts) {
        self.position.store(pts.0, Ordering::Relaxed);
    }

    /// PTS of the frame that left last.
    pub fn position(&self) -> Duration {
        Duration::from_nanos(self.position.load(Ordering::Relaxed))
    }

    /// A frame took this long from capture to push.
    pub fn pushed_after(&self, time: Duration) {
        self.slowest_push.fetch_max(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The longest capture-to-push since the last call.
    pub fn take_slowest_push(&self) -> Duration {
        Duration::from_nanos(self.slowest_push.swap(0, Ordering::Relaxed))
    }

    /// A few quantiles, without copying the distributions under their lock.
    pub fn glance(&self) -> Glance {
        let d = self.distributions.lock();
        Glance {
            push_p50: d.capture_to_push.quantile(0.5),
            push_p99: d.capture_to_push.quantile(0.99),
            age_p95: d.mask_age.quantile(0.95),
        }
    }

    /// A copy of the distributions.
    pub fn distributions(&self) -> Distributions {
        self.distributions.lock().clone()
    }

    /// A copy of the counts.
    pub fn counts(&self) -> FrameCounts {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let mut c = FrameCounts {
            out: get(&self.out),
            segmented: get(&self.segmented),
            passed_through: get(&self.passed_through),
            dropped_display: get(&self.dropped_display),
            dropped_model: get(&self.dropped_model),
            dropped_stop: get(&self.dropped_stop),
            dropped_sink: get(&self.dropped_sink),
            not_segmented: get(&self.not_segmented),
            copied: get(&self.copied),
            slates: get(&self.slates),
            entered: get(&self.entered),
            dropped: 0,
        };
        c.dropped = c.dropped_display + c.dropped_model + c.dropped_stop + c.dropped_sink;
        c
    }
}
