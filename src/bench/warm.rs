//! What is done before the clock starts.

use super::case::{CaseError, Prepared};
use crate::frame::ImageView;
use crate::mask::ClassMask;
use crate::segment::{Guidance, MemoryCounts, MemoryEvent, ModelInfo, SegmentError, Segmenter};
use crate::stage::StageTimes;
use crate::state::{Remark, Reset};

/// Frames after which SAM 2's memory of an object that a box began is full: that one, the fifteen whose pointers are kept after it, and
/// two to spare.
pub(super) const FILLS: u64 = 18;

/// Calls the model so often, at least once: for what is done once (kernels that are chosen, memory that is taken), and, where it has a
/// memory of frames, until that is full.
pub(super) fn warm_up(
    prepared: &mut Prepared,
    calls: u64,
    stopped: &dyn Fn() -> bool,
) -> Result<(), CaseError> {
    // Backwards, so that the first picture of what is measured goes on from the last.
    for frame in (1..=calls).rev() {
        if stopped() {
            break;
        }
        let Prepared { footage, model, guidance, .. } = &mut *prepared;
        footage.view(frame, |view| model.segment(view, guidance, false, &mut StageTimes::default()))??;
    }
    // They are no news of the stream.
    prepared.model.take_events();
    Ok(())
}

/// A model that begins its first stream with what it remembers of the warm-up.
pub(super) struct Warm {
    model: Box<dyn Segmenter>,
    streams: bool,
}

impl Warm {
    pub(super) fn new(model: Box<dyn Segmenter>) -> Self {
        Self { model, streams: false }
    }
}

impl Segmenter for Warm {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn segment(
        &mut self,
        image: &ImageView<'_>,
        guidance: &Guidance,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        self.model.segment(image, guidance, keep_logits, times)
    }

    fn forget(&mut self, why: Option<Reset>) {
        if why.is_some() || std::mem::replace(&mut self.streams, true) {
            self.model.forget(why);
        }
    }

    fn memory(&self) -> Option<&MemoryCounts> {
        self.model.memory()
    }

    fn take_events(&mut self) -> Vec<MemoryEvent> {
        self.model.take_events()
    }

    fn remark(&self) -> Option<Remark> {
        self.model.remark()
    }
}
