//! How the memory of a stream is kept, and how it and the prompt predictor work together.

use super::bank::BankLimits;

/// On which frames the prompt predictor is asked. It is asked on the first frame after a reset in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// On no other frame.
    First,
    /// On every frame.
    Every,
    /// On every so many-th frame, at least 1.
    Interval(u64),
    /// When the memory is unsure of one of the predictor's classes, or knows nothing of it.
    Lost,
}

/// Which mask is shown where the memory and the predictor agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blend {
    /// The memory's.
    Memory,
    /// The predictor's.
    Predictor,
    /// The mean of both one's logits.
    Mean,
}

/// How the memory of a stream is kept. The measurements behind the values are in `benches/results/memory.md`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemorySettings {
    /// When the predictor is asked.
    pub ask: Ask,
    /// What is shown where both agree.
    pub blend: Blend,
    /// IoU of the two masks from which they agree, 0 to 1.
    pub agreement: f32,
    /// Times in a row, of those that it is asked, that the predictor has to contradict the memory with a better score until it is
    /// believed. At least 1.
    pub patience: u32,
    /// Times in a row that the predictor, asked on every frame, has to agree with the memory on what it has begun itself: until then
    /// it is the predictor that is believed, and what was lost stays lost. 0: none. It has no meaning with [`Ask::First`].
    pub trial: u32,
    /// How much is remembered of each object.
    pub limits: BankLimits,
    /// Of the frames that are sure every so many-th is remembered. At least 1.
    pub write_every: u64,
    /// Frames are remembered on which the memory is not sure, too, as SAM 2 does.
    pub write_unsure: bool,
    /// Predicted IoU below which a mask is not sure, 0 to 1.
    pub min_score: f32,
    /// Share of an object's usual area below which its mask is not sure, 0 to 1.
    pub min_area: f32,
    /// Unsure frames in a row after which an object counts as lost. At least 1.
    pub lost_after: u32,
    /// Equal pictures in a row after which the scanner counts as frozen; 0: never.
    pub freeze_after: u32,
    /// Change from one picture to the next, see [`Scene`](super::Scene), that is a cut; 0: there are no cuts.
    pub scene_cut: f32,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            ask: Ask::Lost,
            blend: Blend::Memory,
            agreement: 0.5,
            patience: 5,
            trial: 5,
            limits: BankLimits::SAM2,
            write_every: 1,
            write_unsure: false,
            min_score: 0.3,
            min_area: 0.2,
            lost_after: 5,
            freeze_after: 10,
            scene_cut: 0.72,
        }
    }
}

impl MemorySettings {
    /// As SAM 2's predictor: every frame is remembered, whatever is said of it, nothing is on trial, and no picture clears the memory.
    pub fn sam2() -> Self {
        Self {
            trial: 0,
            write_unsure: true,
            min_score: 0.0,
            min_area: 0.0,
            freeze_after: 0,
            scene_cut: 0.0,
            ..Self::default()
        }
    }

    /// Whether every number is one that can be meant.
    ///
    /// # Errors
    /// Says which is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let limits = &self.limits;
        let counts = [
            ("prompted frames", limits.prompted as u64, 1, MAX_PROMPTED),
            ("recent frames", limits.recent as u64, 0, crate::nn::RECENT_FRAMES as u64),
            ("a stride", limits.stride, 1, MAX_STRIDE),
            ("pointers", limits.pointers, 1, MAX_POINTERS),
            ("frames from writing to writing", self.write_every, 1, MAX_STRIDE),
            ("frames of patience", u64::from(self.patience), 1, u64::from(MAX_PATIENCE)),
            ("frames of trial", u64::from(self.trial), 0, u64::from(MAX_PATIENCE)),
            ("frames to a loss", u64::from(self.lost_after), 1, u64::from(MAX_PATIENCE)),
            ("frames to a freeze", u64::from(self.freeze_after), 0, u64::from(MAX_PATIENCE)),
        ];
        for (what, value, low, high) in counts {
            if !(low..=high).contains(&value) {
                return Err(format!("memory: {what}: {value}, expected {low} to {high}"));
            }
        }
        let shares = [
            ("agreement", self.agreement, 1.0),
            ("a score", self.min_score, 1.0),
            ("a share of the area", self.min_area, 1.0),
            ("a change of scene", self.scene_cut, 2.0),
        ];
        for (what, value, high) in shares {
            if !(0.0..=high).contains(&value) {
                return Err(format!("memory: {what}: {value}, expected 0 to {high}"));
            }
        }
        Ok(())
    }
}

/// Most prompted frames of an object that are remembered.
pub const MAX_PROMPTED: u64 = 32;
/// Longest stride.
pub const MAX_STRIDE: u64 = 1000;
/// Most pointers of an object.
pub const MAX_POINTERS: u64 = 64;
/// Longest wait of frames in a row.
pub const MAX_PATIENCE: u32 = 100_000;
