//! What has become of one object so far, and whom to believe about it: the memory or the prompt predictor.

use super::settings::{Blend, MemorySettings};

/// Share of a new area in an object's usual one: about the last twenty frames count.
const USUAL: f32 = 0.05;

/// What an answer says of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// Probability that it is there, 0 to 1.
    pub presence: f32,
    /// Predicted IoU of its mask.
    pub score: f32,
    /// Cells of its mask.
    pub area: f32,
}

/// Whose answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nobody knows of the object.
    Nobody,
    /// The memory's. It is remembered if it is `sure`.
    Memory {
        /// See [`Course::is_sure`].
        sure: bool,
    },
    /// Both agree, and neither is the memory's alone to show.
    Both(Blend),
    /// The predictor's, as what somebody says of the object; with `anew` what was remembered of it is forgotten.
    Predictor {
        /// The memory was sure of something else.
        anew: bool,
    },
}

/// One object's way through the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Course {
    /// Mean area of late, in cells; 0 before the first sure frame.
    usual: f32,
    /// Unsure frames in a row.
    unsure: u32,
    /// Times in a row that the predictor contradicted.
    contradicted: u32,
    /// Sure frames since one was remembered.
    unwritten: u64,
    /// A person has said where it is: the predictor cannot say that it is elsewhere while the memory is sure.
    pub by_hand: bool,
    /// It counts as lost.
    pub lost: bool,
}

impl Course {
    /// Whether an answer is to be relied on: the object is there, its mask is said to be good, and has not collapsed. NaN is not.
    pub fn is_sure(&self, sight: &Sight, settings: &MemorySettings, presence: f32) -> bool {
        sight.presence >= presence
            && sight.score >= settings.min_score
            && sight.area > 0.0
            && sight.area >= settings.min_area * self.usual
    }

    /// Whom to believe. `overlap` is the IoU of the two masks where there are both; `presence` the probability from which an
    /// object is there. What follows of it is taken in by [`Course::goes_on`].
    pub fn choose(
        &mut self,
        memory: Option<&Sight>,
        predictor: Option<&Sight>,
        overlap: f32,
        settings: &MemorySettings,
        presence: f32,
    ) -> Choice {
        let said = predictor.filter(|sight| Self::default().is_sure(sight, settings, presence));
        let Some(seen) = memory else {
            return if said.is_some() { Choice::Predictor { anew: false } } else { Choice::Nobody };
        };
        let sure = self.is_sure(seen, settings, presence);
        match said {
            Some(_) if !sure => Choice::Predictor { anew: false },
            Some(said) if overlap < settings.agreement => {
                self.contradicted += 1;
                if self.contradicted < settings.patience || said.score < seen.score || self.by_hand {
                    return Choice::Memory { sure };
                }
                Choice::Predictor { anew: true }
            }
            Some(_) => {
                self.contradicted = 0;
                match settings.blend {
                    Blend::Memory => Choice::Memory { sure },
                    blend => Choice::Both(blend),
                }
            }
            None => Choice::Memory { sure },
        }
    }

    /// Takes a frame in: its mask covers `area` cells, and is `sure` or not. Whether the object has just been lost or found
    /// again.
    pub fn goes_on(&mut self, area: f32, sure: bool, settings: &MemorySettings) -> Option<Turn> {
        if sure {
            self.unsure = 0;
            self.usual = if self.usual > 0.0 { self.usual + USUAL * (area - self.usual) } else { area };
            return std::mem::take(&mut self.lost).then_some(Turn::Found);
        }
        self.unsure = self.unsure.saturating_add(1);
        let lost = self.unsure >= settings.lost_after;
        (!std::mem::replace(&mut self.lost, lost) && lost).then_some(Turn::Lost)
    }

    /// The object's mask comes from the predictor or a person: its area is what is usual from now on.
    pub fn begins(&mut self, by_hand: bool) {
        *self = Self { by_hand, lost: self.lost, ..Self::default() };
    }

    /// Whether a sure frame is one of those that are remembered.
    pub fn is_due(&mut self, settings: &MemorySettings) -> bool {
        self.unwritten += 1;
        let due = self.unwritten >= settings.write_every;
        if due {
            self.unwritten = 0;
        }
        due
    }
}

/// What has just become of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It was unsure for too long.
    Lost,
    /// It was lost, and is there again.
    Found,
}
