//! The stages a frame passes, and a stopwatch that charges time to them.

use std::time::Instant;

/// Every stage a report speaks of, in the order a frame meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The appsink callback.
    Capture,
    /// From enqueue to the worker's dequeue.
    QueueWait,
    /// Frame bytes to the device.
    Upload,
    /// Resize and normalise.
    Preprocess,
    /// Image encoder.
    Encode,
    /// The frame looks at what is remembered of the ones before it.
    MemoryAttention,
    /// Prompt encoder and prompt predictor.
    Prompt,
    /// Mask decoder.
    Decode,
    /// Upsample, threshold, pack.
    Postprocess,
    /// The frame and its masks to what is remembered of them.
    MemoryEncoder,
    /// Drawing on the frame.
    Overlay,
    /// Handing the frame to the sink pipeline.
    Push,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 12] = [
        Self::Capture,
        Self::QueueWait,
        Self::Upload,
        Self::Preprocess,
        Self::Encode,
        Self::MemoryAttention,
        Self::Prompt,
        Self::Decode,
        Self::Postprocess,
        Self::MemoryEncoder,
        Self::Overlay,
        Self::Push,
    ];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::QueueWait => "queue_wait",
            Self::Upload => "upload",
            Self::Preprocess => "preprocess",
            Self::Encode => "encode",
            Self::MemoryAttention => "memory_attention",
            Self::Prompt => "prompt",
            Self::Decode => "decode",
            Self::Postprocess => "postprocess",
            Self::MemoryEncoder => "memory_encoder",
            Self::Overlay => "overlay",
            Self::Push => "push",
        }
    }
}

/// Nanoseconds per stage; `None` where a frame skipped the stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes([Option<u64>; Stage::ALL.len()]);

impl StageTimes {
    /// Adds `nanos` to `stage`.
    pub fn add(&mut self, stage: Stage, nanos: u64) {
        let slot = &mut self.0[stage as usize];
        *slot = Some(slot.unwrap_or(0).saturating_add(nanos));
    }

    /// Nanoseconds charged to `stage`.
    pub fn get(&self, stage: Stage) -> Option<u64> {
        self.0[stage as usize]
    }

    /// Stages that were passed, with their nanoseconds.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, u64)> + '_ {
        Stage::ALL.into_iter().filter_map(|s| Some((s, self.get(s)?)))
    }

    /// Runs `work` and charges its time to `stage`.
    pub fn time<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let out = work();
        self.add(stage, start.elapsed().as_nanos() as u64);
        out
    }
}
