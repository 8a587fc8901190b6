//! The hand-off between the streaming thread, the worker and the compositor.
//!
//! * Both queues are bounded and lock-free; the streaming thread never waits on a lock that another thread holds
//!   for longer than a pointer swap.
//! * Every frame that enters either leaves or is counted as dropped.
//! * A mask reaches a frame only through [`Ticket`] (its own) or `newest` (aged by [`crate::mask::Aged`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use crossbeam::sync::{Parker, Unparker};
use parking_lot::Mutex;

use super::ai::{Ai, Phase};
use super::ticket::{DisplayItem, Job, Outcome, SourceFrame, Ticket, Why};
use crate::frame::FrameId;
use crate::mask::Segmentation;
use crate::telemetry::Recorder;

/// Which mask a frame shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisplayMode {
    /// Its own; it waits for it.
    Paired,
    /// The newest there is, marked as aged; it never waits.
    Latest,
}

/// What happens when the model is slower than the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueMode {
    /// The oldest waiting frame gives way and is counted.
    Latest,
    /// The source waits.
    Lossless,
}

/// Places for tickets while a live source runs ahead of the model. A ticket is a few bytes; its frame's pixels are gone
/// as soon as it is evicted from the model's queue, and finished frames are limited by `display_depth`.
const LIVE_TICKETS: usize = 1024;

/// Sizes and modes of the hand-off.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeConfig {
    /// Which mask a frame shows.
    pub display: DisplayMode,
    /// What gives way.
    pub queue: QueueMode,
    /// Frames that may wait for the compositor.
    pub display_depth: usize,
    /// Frames that may wait for the model in [`QueueMode::Latest`].
    pub model_depth: usize,
}

/// Queues, the newest mask, and the wake-ups between the threads.
#[derive(Debug)]
pub struct Exchange {
    config: ExchangeConfig,
    display: ArrayQueue<DisplayItem>,
    inference: ArrayQueue<Job>,
    /// Latest masks, oldest first: as many as frames may be on their way to the screen, so that a display that lags
    /// behind the model still finds masks that are not of later frames.
    newest: Mutex<VecDeque<Arc<Segmentation>>>,
    /// Finished frames that wait behind their tickets.
    held: AtomicUsize,
    compositor: Unparker,
    worker: ArcSwap<Unparker>,
    ended: AtomicBool,
    discard: AtomicBool,
    ai: Arc<Ai>,
    recorder: Arc<Recorder>,
}

impl Exchange {
    /// An empty exchange, and the parker that the compositor waits on.
    pub fn new(config: ExchangeConfig, ai: Arc<Ai>, recorder: Arc<Recorder>) -> (Arc<Self>, Parker) {
        let parker = Parker::new();
        let (display, inference) = match (config.display, config.queue) {
            (DisplayMode::Paired, QueueMode::Latest) => (LIVE_TICKETS, config.model_depth),
            // Every frame in the model's queue is also in the display queue, or held by the compositor or the worker.
            (_, QueueMode::Lossless) => (config.display_depth, config.display_depth + 2),
            (DisplayMode::Latest, QueueMode::Latest) => (config.display_depth, config.model_depth),
        };
        let exchange = Self {
            config,
            display: ArrayQueue::new(display.max(1)),
            inference: ArrayQueue::new(inference.max(1)),
            newest: Mutex::default(),
            held: AtomicUsize::new(0),
            compositor: parker.unparker().clone(),
            worker: ArcSwap::from_pointee(Parker::new().unparker().clone()),
            ended: AtomicBool::new(false),
            discard: AtomicBool::new(false),
            ai,
            recorder,
        };
        (Arc::new(exchange), parker)
    }

    /// The model's condition.
    pub fn ai(&self) -> &Ai {
        &self.ai
    }

    /// The counters.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    // --- streaming thread ---

    /// Whether another frame can be taken without losing one.
    pub fn has_room(&self) -> bool {
        self.is_live() || !self.display.is_full()
    }

    /// Whether frames do not wait.
    pub fn is_live(&self) -> bool {
        self.config.queue == QueueMode::Latest
    }

    /// Whether every frame that came has been taken by the compositor.
    pub fn nothing_waits(&self) -> bool {
        self.display.is_empty()
    }

    /// Takes a frame from the source.
    pub fn offer(&self, frame: SourceFrame) {
        self.recorder.frame_in(frame.meta.capture.mono);
        let frame = Arc::new(frame);
        let (item, job) = match self.config.display {
            DisplayMode::Latest => (DisplayItem::Now(frame.clone()), Job { frame, ticket: None }),
            DisplayMode::Paired => {
                let ticket = Arc::new(Ticket::default());
                (DisplayItem::When(ticket.clone()), Job { frame, ticket: Some(ticket) })
            }
        };
        // The place in the display order comes first: an answer must find it taken.
        if let Some(evicted) = self.display.force_push(item) {
            // A finished frame that nobody will take any more makes room for the next one.
            if let DisplayItem::When(ticket) = evicted
                && let Some(outcome) = ticket.void()
            {
                self.taken(&outcome);
            }
            self.recorder.drop_display();
        }
        self.queue_for_model(job);
        self.compositor.unpark();
    }

    fn queue_for_model(&self, job: Job) {
        if !self.ai.accepting() {
            self.pass(job);
            return;
        }
        if let Some(evicted) = self.inference.force_push(job) {
            match evicted.ticket {
                Some(ticket) => {
                    ticket.resolve(Outcome::Evicted);
                }
                None => self.recorder.skip_model(),
            }
        }
        self.worker.load().unpark();
        // The model may have gone off between the question and the push; whoever comes second empties the queue.
        if !self.ai.accepting() {
            self.release_waiting();
        }
    }

    /// The source has ended: what is queued still leaves, then the sink is told.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.compositor.unpark();
    }

    /// The run was stopped: what is queued is dropped and counted.
    pub fn stop(&self) {
        self.discard.store(true, Ordering::SeqCst);
        self.end();
        self.worker.load().unpark();
    }

    /// Whether [`Exchange::stop`] was called.
    pub fn stopping(&self) -> bool {
        self.discard.load(Ordering::SeqCst)
    }

    /// Whether the source has ended or the run was stopped.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    // --- worker ---

    /// The thread that waits for jobs from now on.
    pub fn set_worker(&self, unparker: Unparker) {
        self.worker.store(Arc::new(unparker));
    }

    /// Wakes the worker, whatever it waits for.
    pub fn wake_worker(&self) {
        self.worker.load().unpark();
    }

    /// The next frame to segment.
    pub fn next_job(&self) -> Option<Job> {
        self.inference.pop()
    }

    /// Publishes the masks of `job`'s frame.
    pub fn publish(&self, job: Job, segmentation: Arc<Segmentation>) {
        self.recorder.frame_segmented();
        match job.ticket {
            Some(ticket) => self.resolve(&ticket, Outcome::Segmented(job.frame, segmentation)),
            None => {
                let mut newest = self.newest.lock();
                if newest.len() > self.config.display_depth + self.config.model_depth {
                    newest.pop_front();
                }
                newest.push_back(segmentation);
            }
        }
        self.compositor.unpark();
    }

    /// Lets `job`'s frame pass without a mask, for the reason that the model's condition gives.
    pub fn pass(&self, job: Job) {
        if let Some(ticket) = job.ticket {
            let why = match self.ai.phase() {
                Phase::Off { reason, .. } | Phase::Unfit { reason } => Why::Off(reason),
                Phase::Starting | Phase::Live => Why::Starting,
            };
            self.resolve(&ticket, Outcome::Bare(job.frame, why));
            self.compositor.unpark();
        }
    }

    /// Decides a ticket. Where the source does not wait, finished frames that a slow sink has not taken are limited, or the
    /// picture would fall seconds behind.
    fn resolve(&self, ticket: &Ticket, outcome: Outcome) {
        let live = self.is_live();
        let late = live && self.held.fetch_add(1, Ordering::SeqCst) >= self.config.display_depth;
        let decided = ticket.resolve(if late { Outcome::Late } else { outcome });
        if live && (late || !decided) {
            self.held.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Waits until the fate of a ticket is decided, and takes its frame from the queue; `None` once the run is stopped. `parker` is the
    /// compositor's.
    pub fn wait(&self, ticket: &Ticket, parker: &Parker) -> Option<Outcome> {
        loop {
            if let Some(outcome) = ticket.take() {
                self.taken(&outcome);
                return Some(outcome);
            }
            if self.stopping() {
                return None;
            }
            parker.park();
        }
    }

    /// A decided frame has left the queue.
    fn taken(&self, outcome: &Outcome) {
        if self.is_live() && outcome.holds_pixels() {
            self.held.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Lets every frame that waits for the model pass without a mask.
    pub fn release_waiting(&self) {
        while let Some(job) = self.inference.pop() {
            self.pass(job);
        }
    }

    /// Forgets the newest mask: it must not outlive the model that made it.
    pub fn forget_newest(&self) {
        self.newest.lock().clear();
        self.compositor.unpark();
    }

    // --- compositor ---

    /// The next item in source order.
    pub fn next_item(&self) -> Option<DisplayItem> {
        self.display.pop()
    }

    /// The newest masks that are not of a later frame than `frame`, in [`DisplayMode::Latest`].
    pub fn newest_for(&self, frame: FrameId) -> Option<Arc<Segmentation>> {
        self.newest.lock().iter().rev().find(|s| s.frame.id <= frame).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;
    use std::time::{Duration, Instant, SystemTime};

    use gstreamer as gst;

    use super::*;
    use crate::frame::{CaptureTime, FrameMeta, Pts};
    use crate::media::StreamFormat;
    use crate::stage::StageTimes;

    fn frames() -> impl Iterator<Item = SourceFrame> {
        gst::init().unwrap();
        let caps = gst::Caps::from_str("video/x-raw,format=GRAY8,width=4,height=4,framerate=30/1").unwrap();
        let format = Arc::new(StreamFormat::from_caps(&caps).unwrap());
        (0..).map(move |seq| SourceFrame {
            meta: FrameMeta {
                id: FrameId { epoch: 0, seq },
                pts: Some(Pts(seq)),
                duration: Some(Duration::from_millis(33)),
                capture: CaptureTime { mono: Instant::now(), wall: SystemTime::now() },
            },
            buffer: gst::Buffer::with_size(16).unwrap(),
            format: format.clone(),
            capture_ns: 0,
            queued: Instant::now(),
        })
    }

    /// The model has done everything that waits for it.
    fn work(exchange: &Exchange) {
        while let Some(job) = exchange.next_job() {
            let (frame, times) = (job.frame.meta, StageTimes::default());
            let found = Segmentation { frame, masks: Vec::new(), times, remark: None };
            exchange.publish(job, Arc::new(found));
        }
    }

    #[test]
    fn a_picture_goes_on_after_a_sink_that_took_nothing_for_long() {
        let (ai, recorder) = (Arc::new(Ai::new(false)), Arc::new(Recorder::default()));
        ai.live();
        let config = ExchangeConfig {
            display: DisplayMode::Paired,
            queue: QueueMode::Latest,
            display_depth: 2,
            model_depth: 1,
        };
        let (exchange, _parker) = Exchange::new(config, ai, recorder.clone());
        let mut frames = frames();
        // More than there are places for: finished frames are evicted, and open ones with another model.
        for (i, frame) in frames.by_ref().take(LIVE_TICKETS + 50).enumerate() {
            exchange.offer(frame);
            if i % 3 > 0 {
                work(&exchange);
            }
        }
        // The sink is back.
        let mut counted = recorder.counts().dropped;
        let take = || {
            let DisplayItem::When(ticket) = exchange.next_item()? else { panic!("paired") };
            let outcome = ticket.take();
            if let Some(outcome) = &outcome {
                exchange.taken(outcome);
            }
            Some(outcome)
        };
        work(&exchange);
        while let Some(outcome) = take() {
            assert!(outcome.is_some(), "every frame that waits was decided");
            counted += 1;
        }
        assert_eq!(counted, LIVE_TICKETS as u64 + 50, "frames in = frames out + drops");
        for frame in frames.take(5) {
            exchange.offer(frame);
            work(&exchange);
            assert!(matches!(take(), Some(Some(Outcome::Segmented(..)))), "a mask of its own again");
        }
    }
}
