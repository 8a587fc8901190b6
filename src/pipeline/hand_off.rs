//! The hand-off by itself, without a source, a model and a sink: for whoever measures what it costs a frame.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::sync::Parker;
use gstreamer as gst;

use super::ai::Ai;
use super::exchange::{Exchange, ExchangeConfig};
use super::ticket::{DisplayItem, Outcome, SourceFrame};
use crate::frame::FrameMeta;
use crate::mask::{Paired, Segmentation};
use crate::media::StreamFormat;
use crate::stage::StageTimes;
use crate::telemetry::Recorder;

/// The ends of the source and of a model that works and finds nothing. Clones are ends of the same hand-off.
#[derive(Clone, Debug)]
pub struct HandOff(Arc<Exchange>);

/// The compositor's end.
#[derive(Debug)]
pub struct Composing {
    exchange: Arc<Exchange>,
    parker: Parker,
}

impl HandOff {
    /// An empty one, and its other end.
    pub fn new(config: ExchangeConfig) -> (Self, Composing) {
        let ai = Arc::new(Ai::new(false));
        ai.live();
        let (exchange, parker) = Exchange::new(config, ai, Arc::new(Recorder::default()));
        (Self(exchange.clone()), Composing { exchange, parker })
    }

    /// What the appsink's callback does with a frame once it is numbered.
    pub fn offer(&self, meta: FrameMeta, buffer: gst::Buffer, format: &Arc<StreamFormat>) {
        let queued = Instant::now();
        self.0.offer(SourceFrame { meta, buffer, format: format.clone(), capture_ns: 0, queued });
    }

    /// What the worker does around its model, for one frame; whether one waited.
    pub fn answer(&self) -> bool {
        let Some(job) = self.0.next_job() else { return false };
        let (frame, times) = (job.frame.meta, StageTimes::default());
        let found = Segmentation { frame, masks: Vec::new(), times, remark: None };
        self.0.publish(job, Arc::new(found));
        true
    }

    /// Answers every frame on the calling thread, which sleeps in between as the worker's does, until [`HandOff::stop`].
    pub fn answer_all(&self) {
        let parker = Parker::new();
        self.0.set_worker(parker.unparker().clone());
        while !self.0.stopping() {
            if !self.answer() {
                parker.park();
            }
        }
    }

    /// Ends [`HandOff::answer_all`], now or when it is called, and every wait for a frame.
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Composing {
    /// Takes the next frame as the compositor does, and waits for its masks where it has to carry its own; whether it has them. `None`
    /// where no frame is queued, or the hand-off was stopped.
    pub fn take(&self) -> Option<bool> {
        let (frame, found) = match self.exchange.next_item()? {
            DisplayItem::Now(frame) => {
                let found = self.exchange.newest_for(frame.meta.id);
                (frame, found)
            }
            DisplayItem::When(ticket) => match self.exchange.wait(&ticket, &self.parker)? {
                Outcome::Segmented(frame, found) => (frame, Some(found)),
                Outcome::Bare(..) | Outcome::Evicted | Outcome::Late => return Some(false),
            },
        };
        Some(found.is_some_and(|found| Paired::new(&frame.meta, found).is_ok()))
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;
    use crate::frame::{CaptureTime, FrameId};
    use crate::pipeline::{DisplayMode, QueueMode};

    fn config(display: DisplayMode) -> ExchangeConfig {
        ExchangeConfig { display, queue: QueueMode::Latest, display_depth: 4, model_depth: 1 }
    }

    /// Offers frame `seq`.
    fn offer(to: &HandOff, seq: u64) {
        gst::init().unwrap();
        let caps = gst::Caps::from_str("video/x-raw,format=GRAY8,width=4,height=4,framerate=30/1").unwrap();
        let format = Arc::new(StreamFormat::from_caps(&caps).unwrap());
        let id = FrameId { epoch: 0, seq };
        let meta = FrameMeta { id, pts: None, duration: None, capture: CaptureTime::now() };
        to.offer(meta, gst::Buffer::with_size(16).unwrap(), &format);
    }

    #[test]
    fn a_frame_that_was_answered_comes_out_with_its_own_masks() {
        for display in [DisplayMode::Paired, DisplayMode::Latest] {
            let (hand_off, composing) = HandOff::new(config(display));
            assert!(!hand_off.answer() && composing.take().is_none(), "nothing is queued");
            // More than any queue has places for.
            for seq in 0..50 {
                offer(&hand_off, seq);
                assert!(hand_off.answer());
                assert_eq!(composing.take(), Some(true), "{display:?}, frame {seq}");
            }
        }
    }

    #[test]
    fn masks_of_another_frame_are_not_taken_for_its_own() {
        let (hand_off, composing) = HandOff::new(config(DisplayMode::Latest));
        offer(&hand_off, 0);
        assert!(hand_off.answer());
        assert_eq!(composing.take(), Some(true));
        offer(&hand_off, 1);
        assert_eq!(composing.take(), Some(false), "it is not answered yet");
    }

    #[test]
    fn a_frame_waits_for_the_thread_that_answers_it_until_all_is_stopped() {
        let (hand_off, composing) = HandOff::new(config(DisplayMode::Paired));
        let worker = std::thread::spawn({
            let hand_off = hand_off.clone();
            move || hand_off.answer_all()
        });
        for seq in 0..50 {
            offer(&hand_off, seq);
            assert_eq!(composing.take(), Some(true), "frame {seq}");
        }
        hand_off.stop();
        worker.join().unwrap();
        offer(&hand_off, 50);
        assert_eq!(composing.take(), None, "nobody answers any more");
    }
}
