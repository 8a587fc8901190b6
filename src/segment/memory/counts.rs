//! What a report says of the memory of a stream.

use std::collections::BTreeMap;

use crate::state::Reset;

/// What happened to the memory on a frame. Numbers are those of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryEvent {
    /// It was cleared.
    Reset(Reset),
    /// The scanner is frozen: nothing is written until it moves.
    Frozen,
    /// An object is lost.
    Lost(usize),
    /// A lost object was found again.
    Found(usize),
    /// The prompt predictor was believed against the memory, which begins anew with what it said.
    TakenOver(usize),
}

/// Counts since the stream began. The field names are a contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryCounts {
    /// Most objects that were followed at once.
    pub objects: usize,
    /// Frames of all objects that are remembered at the end, and the most that ever were.
    pub bank_frames: usize,
    /// See `bank_frames`.
    pub bank_frames_most: usize,
    /// Object pointers that are remembered beside them.
    pub bank_pointers: usize,
    /// How often the memory was cleared, by the reason.
    pub resets: BTreeMap<&'static str, u64>,
    /// Freezes of the scanner.
    pub freezes: u64,
    /// How often an object was lost.
    pub losses: u64,
    /// How often a lost object was found again.
    pub recoveries: u64,
    /// How often the predictor was believed against the memory.
    pub taken_over: u64,
    /// Frames on which the predictor was asked.
    pub asked: u64,
    /// Frames of followed objects that were not remembered.
    pub not_written: u64,
}

impl MemoryCounts {
    /// Counts an event.
    pub fn take_in(&mut self, event: &MemoryEvent) {
        match event {
            MemoryEvent::Reset(why) => *self.resets.entry(why.name()).or_default() += 1,
            MemoryEvent::Frozen => self.freezes += 1,
            MemoryEvent::Lost(_) => self.losses += 1,
            MemoryEvent::Found(_) => self.recoveries += 1,
            MemoryEvent::TakenOver(_) => self.taken_over += 1,
        }
    }

    /// The memory holds this much now: objects, and frames and pointers of all of them.
    pub fn holds(&mut self, objects: usize, (frames, pointers): (usize, usize)) {
        self.objects = self.objects.max(objects);
        self.bank_frames = frames;
        self.bank_frames_most = self.bank_frames_most.max(frames);
        self.bank_pointers = pointers;
    }

    /// The counts of a model that was loaded anew, after those of the one before.
    pub fn after(&self, before: &Self) -> Self {
        let mut all = self.clone();
        for (why, n) in &before.resets {
            *all.resets.entry(why).or_default() += n;
        }
        all.objects = all.objects.max(before.objects);
        all.bank_frames_most = all.bank_frames_most.max(before.bank_frames_most);
        all.freezes += before.freezes;
        all.losses += before.losses;
        all.recoveries += before.recoveries;
        all.taken_over += before.taken_over;
        all.asked += before.asked;
        all.not_written += before.not_written;
        all
    }
}
