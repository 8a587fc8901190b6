//! What the model answers when the worker asks it; it may panic in any of it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ticket::Job;
use crate::mask::ClassMask;
use crate::segment::{Guidance, MemoryCounts, MemoryEvent, SegmentError, Segmenter};
use crate::stage::StageTimes;
use crate::state::{Remark, Reset};

/// Why a frame has no masks.
pub(super) enum Failure {
    /// The model is fine, the frame or what is asked of it is not; another model would say the same.
    Unfit(String),
    /// The model may be broken.
    Broken(String),
}

/// What a model says of a frame, and of itself after it.
pub(super) struct Answer {
    pub masks: Result<Vec<ClassMask>, Failure>,
    pub remark: Option<Remark>,
    pub events: Vec<MemoryEvent>,
    pub memory: Option<MemoryCounts>,
}

impl Answer {
    /// Asks `model` for the frame of `job`. Where the stream `begins` again with it, what was said of earlier frames is forgotten.
    pub fn of(
        model: &mut dyn Segmenter,
        job: &Job,
        guidance: &Guidance,
        begins: bool,
        times: &mut StageTimes,
    ) -> Self {
        let frame = &job.frame;
        let broken = |panic: &str| Failure::Broken(format!("panic: {panic}"));
        let segmented = || {
            if begins {
                model.forget(Some(Reset::Stream));
            }
            match frame.format.with_view(&frame.buffer, |view| model.segment(view, guidance, false, times)) {
                Ok(Ok(masks)) => Ok(masks),
                Ok(Err(SegmentError::Prompt(e))) => Err(Failure::Unfit(e.to_string())),
                Ok(Err(e)) => Err(Failure::Broken(e.to_string())),
                // Whatever a frame that cannot be read is, it is not the model's fault.
                Err(e) => Err(Failure::Unfit(e.to_string())),
            }
        };
        let mut masks = caught(segmented, broken);
        // What it has counted up to a panic counts.
        let said = caught(|| Ok((model.remark(), model.take_events(), model.memory().cloned())), broken);
        let (remark, events, memory) = said.unwrap_or_else(|failure| {
            masks = Err(failure);
            (None, Vec::new(), None)
        });
        Self { masks, remark, events, memory }
    }
}

/// Logs what has become of the model's memory of `classes`.
pub(super) fn tell_memory(events: Vec<MemoryEvent>, classes: &[String]) {
    let name = |class: usize| classes.get(class).map_or("?", String::as_str);
    for event in events {
        match event {
            MemoryEvent::Reset(why) => tracing::warn!("memory cleared: {why}"),
            MemoryEvent::Frozen => tracing::info!("the scanner is frozen"),
            MemoryEvent::Lost(class) => tracing::warn!("lost: {}", name(class)),
            MemoryEvent::Found(class) => tracing::info!("found again: {}", name(class)),
            MemoryEvent::TakenOver(class) => tracing::info!("begun anew by the predictor: {}", name(class)),
        }
    }
}

/// What a model answers when it is `asked`; if it panics, the failure that `broken` makes of its words.
pub(super) fn caught<T, E>(
    asked: impl FnOnce() -> Result<T, E>,
    broken: impl FnOnce(&str) -> E,
) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(asked)).unwrap_or_else(|panic| Err(broken(panic_text(&*panic))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
