//! What is done before the clock starts.

use super::case::{CaseError, Prepared};
use crate::frame::ImageView;
use crate::mask::ClassMask;
use crate::segment::{Guidance, MemoryCounts, MemoryEvent, ModelInfo, SegmentError, Segmenter};
use crate::stage::StageTimes;
use crate::state::{Remark, Reset};

/// Frames after which SAM 2's memory is as large as it gets: the first, six of late, and sixteen pointers.
const FILLS: u64 = 18;

/// Calls the model for what is done once (kernels that are chosen, memory that is taken), and until its memory of frames is full, where
/// it has one.
pub(super) fn warm_up(
    prepared: &mut Prepared,
    memory: bool,
    stopped: &dyn Fn() -> bool,
) -> Result<(), CaseError> {
    for frame in 0..if memory { FILLS } else { 1 } {
        if stopped() {
            break;
        }
        let view = prepared.footage.view(frame)?;
        prepared.model.segment(&view, &prepared.guidance, false, &mut StageTimes::default())?;
    }
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
