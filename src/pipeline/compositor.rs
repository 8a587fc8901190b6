//! Draws masks on frames and hands them to the sink, in source order.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::sync::Parker;
use parking_lot::MutexGuard;

use super::ai::Phase;
use super::exchange::{DisplayMode, Exchange};
use super::no_signal::NoSignal;
use super::outlet::{Outlet, Way};
use super::sidecar::SidecarHandle;
use super::ticket::{DisplayItem, Outcome, SourceFrame, Why};
use crate::frame::FrameId;
use crate::mask::{Aged, Paired, Segmentation};
use crate::media::Regions;
use crate::overlay::{Drawable, Overlay};
use crate::stage::{Stage, StageTimes};
use crate::state::AiState;

/// What a frame shows. Nothing else can be drawn.
enum Shown {
    Own(Paired),
    Older(Aged),
    Nothing,
}

impl Shown {
    fn segmentation(&self) -> Option<&Segmentation> {
        match self {
            Self::Own(paired) => Some(paired.segmentation()),
            Self::Older(aged) => Some(aged.segmentation()),
            Self::Nothing => None,
        }
    }

    fn age(&self) -> Duration {
        match self {
            Self::Older(aged) => aged.age(),
            Self::Own(_) | Self::Nothing => Duration::ZERO,
        }
    }
}

/// The compositor's thread owns this.
pub struct Compositor {
    /// Where frames and masks come from.
    pub exchange: Arc<Exchange>,
    /// Wakes when there is something new.
    pub parker: Parker,
    /// Draws.
    pub overlay: Overlay,
    /// Names of the classes, for the regions of interest.
    pub classes: Vec<String>,
    /// Takes the composed frames.
    pub outlet: Arc<Outlet>,
    /// Speaks up when a live source is silent.
    pub no_signal: Option<NoSignal>,
    /// Oldest mask that may still be shown.
    pub max_mask_age: Duration,
    /// Takes pictures for the contact sheet.
    pub sidecar: Option<SidecarHandle>,
    /// Lets the source go on when there is room again.
    pub pump: Box<dyn Fn() + Send>,
    /// A mask was refused by the overlay; said once.
    pub refused: bool,
}

impl Compositor {
    /// Works until the source has ended and everything queued has left, or the run is stopped.
    pub fn run(mut self) {
        let outlet = self.outlet.clone();
        let mut regions = None;
        loop {
            // Asked before looking: an item queued before the end is then seen for certain.
            let ended = self.exchange.ended();
            if self.exchange.stopping() {
                break;
            }
            // Held before looking: a frame on the straight way then cannot overtake the one that is found.
            let mut way = outlet.hold();
            match self.exchange.next_item() {
                Some(item) => {
                    (self.pump)();
                    self.handle(item, &mut way, &mut regions);
                }
                None if ended => break,
                None => self.rest(way),
            }
        }
        while self.exchange.next_item().is_some() {
            self.exchange.recorder().drop_stop();
            (self.pump)();
        }
        outlet.hold().end(self.exchange.recorder());
    }

    /// Waits for the next item. With nothing under way a silent source is told from a slow one.
    fn rest(&mut self, mut way: MutexGuard<'_, Way>) {
        let recorder = self.exchange.recorder();
        let due = self.no_signal.as_mut().map(|n| {
            n.look(&mut way, recorder);
            n.look_again(&way, recorder)
        });
        drop(way);
        match due {
            Some(due) => self.parker.park_deadline(due),
            None => self.parker.park(),
        }
    }

    fn handle(&mut self, item: DisplayItem, way: &mut Way, regions: &mut Option<Regions>) {
        let (frame, shown, state) = match item {
            DisplayItem::Now(frame) => {
                let shown = self.newest_for(&frame);
                let state = self.state_of(&shown);
                (frame, shown, state)
            }
            DisplayItem::When(ticket) => match self.exchange.wait(&ticket, &self.parker) {
                None => return self.exchange.recorder().drop_stop(),
                Some(Outcome::Evicted) => return self.exchange.recorder().drop_model(),
                Some(Outcome::Late) => return self.exchange.recorder().drop_display(),
                Some(Outcome::Segmented(frame, segmentation)) => match Paired::new(&frame.meta, segmentation)
                {
                    Ok(paired) => {
                        let shown = Shown::Own(paired);
                        let state = self.live(&shown);
                        (frame, shown, state)
                    }
                    Err(e) => {
                        // A ticket binds the two, so this is a defect; the frame must not carry a foreign mask.
                        tracing::error!("{e}");
                        (frame, Shown::Nothing, AiState::Off(e.to_string()))
                    }
                },
                Some(Outcome::Bare(frame, Why::Starting)) => (frame, Shown::Nothing, AiState::Starting),
                Some(Outcome::Bare(frame, Why::Off(why))) => {
                    (frame, Shown::Nothing, AiState::Off(why.to_string()))
                }
            },
        };
        self.compose(frame, &shown, &state, way, regions);
    }

    fn newest_for(&self, frame: &SourceFrame) -> Shown {
        let Some(newest) = self.exchange.newest_for(frame.meta.id) else { return Shown::Nothing };
        if newest.frame.id == frame.meta.id {
            return Paired::new(&frame.meta, newest).map_or(Shown::Nothing, Shown::Own);
        }
        Aged::new(&frame.meta, newest, self.max_mask_age).map_or(Shown::Nothing, Shown::Older)
    }

    fn state_of(&self, shown: &Shown) -> AiState {
        match (self.exchange.ai().phase(), shown) {
            (Phase::Starting, _) => AiState::Starting,
            (Phase::Off { reason, .. } | Phase::Unfit { reason }, _) => AiState::Off(reason.to_string()),
            (Phase::Live, Shown::Nothing) => AiState::Delayed,
            (Phase::Live, _) => self.live(shown),
        }
    }

    /// What the model has to say of what is shown.
    fn live(&self, shown: &Shown) -> AiState {
        let remark = shown.segmentation().and_then(|s| s.remark.as_ref());
        remark.map_or(AiState::Live, |remark| AiState::Remarked(remark.text(&self.classes)))
    }

    fn compose(
        &mut self,
        frame: Arc<SourceFrame>,
        shown: &Shown,
        state: &AiState,
        way: &mut Way,
        regions: &mut Option<Regions>,
    ) {
        let (meta, format, capture_ns) = (frame.meta, frame.format.clone(), frame.capture_ns);
        // The last holder draws in place; while the model still reads the frame, GStreamer copies it on write.
        let mut buffer = match Arc::try_unwrap(frame) {
            Ok(frame) => frame.buffer,
            Err(shared) => shared.buffer.clone(),
        };
        let mut times = StageTimes::default();
        times.add(Stage::Capture, capture_ns);
        let drawn = times.time(Stage::Overlay, || {
            if matches!(shown, Shown::Nothing) && self.overlay.leaves_bare_frames() {
                return Ok(Ok(()));
            }
            if !buffer.is_writable() || !buffer.is_all_memory_writable() {
                self.exchange.recorder().copy();
            }
            let buffer = buffer.make_mut();
            let drawable = match shown {
                Shown::Own(paired) => Drawable::Paired(paired),
                Shown::Older(aged) => Drawable::Aged(aged),
                Shown::Nothing => Drawable::Nothing,
            };
            format.with_view_mut(buffer, |view| self.overlay.draw(view, drawable, state))
        });
        let segmentation = match drawn {
            Ok(Ok(())) => shown.segmentation(),
            Ok(Err(e)) => {
                if !std::mem::replace(&mut self.refused, true) {
                    tracing::error!("frame {}: {e} (said once)", meta.id);
                }
                None
            }
            Err(e) => {
                tracing::error!("frame {}: {e}", meta.id);
                return self.exchange.recorder().drop_sink();
            }
        };
        if let Some(segmentation) = segmentation {
            let age = shown.age().as_nanos() as u64;
            let of = regions_of(regions, segmentation, &self.classes);
            times.time(Stage::Overlay, || of.attach(buffer.make_mut(), age));
        }
        if let Some(sidecar) = &self.sidecar {
            sidecar.picture(meta, &buffer, &format);
        }
        let mask_age = segmentation.map(|_| shown.age());
        way.leave(meta, buffer, &format, times, mask_age, self.exchange.recorder());
    }
}

fn regions_of<'a>(cache: &'a mut Option<Regions>, of: &Segmentation, classes: &[String]) -> &'a Regions {
    let wanted: FrameId = of.frame.id;
    if cache.as_ref().is_some_and(|r| r.frame() != wanted) {
        *cache = None;
    }
    cache.get_or_insert_with(|| Regions::new(of, classes))
}

/// Starts the compositor's thread. `at_end` runs when it is done, whatever happened.
///
/// # Errors
/// If the thread cannot be started.
pub fn spawn(
    compositor: Compositor,
    at_end: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("compositor".into()).spawn(move || {
        compositor.run();
        at_end();
    })
}

impl DisplayMode {
    /// Name in logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paired => "paired",
            Self::Latest => "latest",
        }
    }
}
