//! What has become of one object so far, and whom to believe about it: the memory or the prompt predictor.

use super::settings::{Ask, Blend, MemorySettings};

/// Share of a new area in an object's usual one: about the last twenty frames count.
const USUAL: f32 = 0.05;
/// Share of the usual score that what the predictor finds of a lost object has to have. Measured in `benches/results/memory.md`.
const AS_GOOD: f32 = 0.8;
/// What is left of what is usual with every unsure frame: half after 140, so that a structure that comes back smaller, or in a
/// worse picture, is not refused for ever.
const FADES: f32 = 0.995;

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
    /// Nobody knows of the object, or who began it on trial says that it is not there.
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
    /// Mean score of late, likewise.
    usual_score: f32,
    /// Unsure frames in a row.
    unsure: u32,
    /// Times in a row that the predictor was asked and contradicted with a better score.
    contradicted: u32,
    /// Times in a row that the predictor was asked of what it has begun itself, and agreed.
    agreed: u32,
    /// Sure frames since one was remembered.
    unwritten: u64,
    /// A person has said where it is, and nobody else since: until it is lost, the predictor cannot say that it is elsewhere.
    pub by_hand: bool,
    /// It counts as lost.
    pub lost: bool,
}

impl Course {
    /// A person has pointed at it, in a scene that is no more. Whoever finds it again is not that person: it is on trial then.
    pub fn missed() -> Self {
        Self { by_hand: true, lost: true, ..Self::default() }
    }

    /// Whether an answer is to be relied on: the object is there, its mask is said to be good, and has not collapsed. NaN is not.
    pub fn is_sure(&self, sight: &Sight, settings: &MemorySettings, presence: f32) -> bool {
        sight.presence >= presence
            && sight.score >= settings.min_score
            && sight.area > 0.0
            && sight.area >= settings.min_area * self.usual
    }

    /// Whether the predictor has begun it and not yet agreed often enough with what the memory made of that. Never, where it is
    /// not asked again.
    pub fn is_on_trial(&self, settings: &MemorySettings) -> bool {
        settings.ask != Ask::First && !self.by_hand && self.agreed < settings.trial
    }

    /// What is left when its trial fails, or it is not found: that it is missed, if it was lost.
    pub fn ended(&self) -> Option<Self> {
        self.lost.then(Self::missed)
    }

    /// Whether what the predictor has `said` of it is believed where the memory is not sure: of what is `followed` a sliver, or half
    /// a likeness, is not what was lost, as the predictor finds something on most pictures.
    pub fn believes(&self, said: &Sight, followed: bool, settings: &MemorySettings, presence: f32) -> bool {
        if !followed || self.is_on_trial(settings) {
            return Self::default().is_sure(said, settings, presence);
        }
        let alike = self.is_sure(said, settings, presence) && said.score >= AS_GOOD * self.usual_score;
        (self.lost || !self.by_hand) && alike
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
        if predictor.is_some() && self.is_on_trial(settings) {
            // A likeness that comes and goes is no structure: nothing is lost if it is not followed.
            if said.is_none() {
                return Choice::Nobody;
            }
            if !sure || overlap < settings.agreement {
                self.agreed = 0;
                return Choice::Predictor { anew: true };
            }
            self.agreed += 1;
        }
        let Some(said) = said else {
            if predictor.is_some() {
                self.contradicted = 0;
            }
            return Choice::Memory { sure };
        };
        if !sure {
            let believed = self.believes(said, /* followed */ true, settings, presence);
            return if believed { Choice::Predictor { anew: false } } else { Choice::Memory { sure } };
        }
        if overlap >= settings.agreement {
            self.contradicted = 0;
            return match settings.blend {
                Blend::Memory => Choice::Memory { sure },
                blend => Choice::Both(blend),
            };
        }
        self.contradicted = if said.score > seen.score { self.contradicted.saturating_add(1) } else { 0 };
        if self.contradicted < settings.patience || self.by_hand {
            return Choice::Memory { sure };
        }
        Choice::Predictor { anew: true }
    }

    /// Takes a frame in with what it says of the object, which is `sure` or not. Whether the object has just been lost or found
    /// again, which what is on trial is not yet.
    pub fn goes_on(&mut self, sight: &Sight, sure: bool, settings: &MemorySettings) -> Option<Turn> {
        if sure {
            self.unsure = 0;
            let late =
                |usual: &mut f32, now: f32| *usual += if *usual > 0.0 { USUAL * (now - *usual) } else { now };
            late(&mut self.usual, sight.area);
            late(&mut self.usual_score, sight.score);
            let found = self.lost && !self.is_on_trial(settings);
            self.lost &= !found;
            return found.then_some(Turn::Found);
        }
        self.unsure = self.unsure.saturating_add(1);
        self.usual *= FADES;
        self.usual_score *= FADES;
        let lost = self.lost || self.unsure >= settings.lost_after;
        (!std::mem::replace(&mut self.lost, lost) && lost).then_some(Turn::Lost)
    }

    /// The object's mask comes from the predictor or a person: its area is what is usual from now on.
    /// What a person has said is not on trial, nor what has stood its trial before.
    pub fn begins(&mut self, by_hand: bool) {
        let agreed = if by_hand { u32::MAX } else { self.agreed };
        *self = Self { by_hand, lost: self.lost, agreed, ..Self::default() };
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Sight = Sight { presence: 0.9, score: 0.8, area: 100.0 };
    const GONE: Sight = Sight { presence: 0.1, ..GOOD };
    const SURE: Choice = Choice::Memory { sure: true };

    fn settings() -> MemorySettings {
        MemorySettings { patience: 3, lost_after: 2, trial: 0, ..MemorySettings::default() }
    }

    fn choose(course: &mut Course, memory: Option<Sight>, predictor: Option<Sight>, overlap: f32) -> Choice {
        course.choose(memory.as_ref(), predictor.as_ref(), overlap, &settings(), 0.5)
    }

    #[test]
    fn the_predictor_begins_what_nobody_knows_and_what_is_lost() {
        let mut course = Course::default();
        assert_eq!(choose(&mut course, None, None, 0.0), Choice::Nobody);
        assert_eq!(choose(&mut course, None, Some(GONE), 0.0), Choice::Nobody);
        assert_eq!(choose(&mut course, None, Some(GOOD), 0.0), Choice::Predictor { anew: false });
        assert_eq!(choose(&mut course, Some(GONE), Some(GOOD), 0.9), Choice::Predictor { anew: false });
        assert_eq!(choose(&mut course, Some(GONE), Some(GONE), 0.9), Choice::Memory { sure: false });
    }

    #[test]
    fn the_predictor_has_to_contradict_for_long_and_with_a_better_score() {
        let better = Some(Sight { score: 0.9, ..GOOD });
        let mut course = Course::default();
        for choice in [SURE, SURE, Choice::Predictor { anew: true }] {
            assert_eq!(choose(&mut course, Some(GOOD), better, 0.1), choice);
        }
        // Once of one mind, it begins to count again.
        let mut course = Course::default();
        for overlap in [0.1, 0.1, 0.9, 0.1, 0.1] {
            assert_eq!(choose(&mut course, Some(GOOD), better, overlap), SURE);
        }
        // So it does when it was asked and said nothing, or nothing better; not being asked is no answer.
        let worse = Some(Sight { score: 0.7, ..GOOD });
        for (between, last) in [(Some(GONE), SURE), (worse, SURE), (None, Choice::Predictor { anew: true })] {
            let mut course = Course::default();
            for said in [better, better, between] {
                assert_eq!(choose(&mut course, Some(GOOD), said, 0.1), SURE);
            }
            assert_eq!(choose(&mut course, Some(GOOD), better, 0.1), last, "{between:?}");
        }
        let (mut doubted, mut by_hand) = (Course::default(), Course { by_hand: true, ..Course::default() });
        for _ in 0..9 {
            assert_eq!(choose(&mut doubted, Some(GOOD), worse, 0.1), SURE);
            assert_eq!(choose(&mut by_hand, Some(GOOD), better, 0.1), SURE);
        }
    }

    #[test]
    fn what_the_predictor_began_is_on_trial_until_it_has_agreed_in_a_row() {
        let settings = MemorySettings { trial: 2, ..settings() };
        let choose = |course: &mut Course, memory: Sight, predictor: Option<Sight>, overlap: f32| {
            course.choose(Some(&memory), predictor.as_ref(), overlap, &settings, 0.5)
        };
        let (anew, worse) = (Choice::Predictor { anew: true }, Some(Sight { score: 0.4, ..GOOD }));
        let mut course = Course::default();
        course.begins(/* by_hand */ false);
        // The memory is not believed against it, sure or not; once contradicted it begins to count again.
        assert_eq!(choose(&mut course, GOOD, Some(GOOD), 0.9), SURE);
        assert_eq!(choose(&mut course, GOOD, worse, 0.1), anew);
        course.begins(/* by_hand */ false);
        assert_eq!(choose(&mut course, GOOD, Some(GOOD), 0.9), SURE);
        assert_eq!(choose(&mut course, GONE, worse, 0.9), anew);
        course.begins(/* by_hand */ false);
        assert_eq!(choose(&mut course, GOOD, Some(GONE), 0.9), Choice::Nobody);
        // Not to be asked is neither.
        for (said, on_trial) in [(Some(GOOD), true), (None, true), (Some(GOOD), false)] {
            assert_eq!(choose(&mut course, GOOD, said, 0.9), SURE);
            assert_eq!(course.is_on_trial(&settings), on_trial);
        }
        // What has stood it is not tried again when it is found again, nor is what a person says.
        course.begins(/* by_hand */ false);
        let mut told = Course::default();
        told.begins(/* by_hand */ true);
        for mut course in [course, told] {
            assert_eq!(choose(&mut course, GOOD, Some(GONE), 0.0), SURE);
            assert_eq!(choose(&mut course, GOOD, worse, 0.1), SURE);
        }
    }

    #[test]
    fn nothing_is_on_trial_where_the_predictor_is_not_asked_again() {
        let settings = MemorySettings { ask: Ask::First, trial: 2, ..settings() };
        let mut course = Course::default();
        course.begins(/* by_hand */ false);
        assert!(!course.is_on_trial(&settings));
        for said in [GONE, GOOD] {
            assert_eq!(course.choose(Some(&GOOD), Some(&said), 0.1, &settings, 0.5), SURE);
        }
    }

    #[test]
    fn what_was_lost_is_found_when_it_has_stood_its_trial_and_else_stays_lost() {
        let settings = MemorySettings { trial: 2, ..settings() };
        let choose = |course: &mut Course, memory: Option<Sight>, said: Sight| {
            course.choose(memory.as_ref(), Some(&said), 0.9, &settings, 0.5)
        };
        let mut course = Course::missed();
        assert_eq!(choose(&mut course, None, GOOD), Choice::Predictor { anew: false });
        course.begins(/* by_hand */ false);
        assert_eq!(course.goes_on(&GOOD, true, &settings), None);
        assert_eq!(choose(&mut { course }, Some(GOOD), GONE), Choice::Nobody);
        assert_eq!(course.ended(), Some(Course::missed()));
        for turn in [None, Some(Turn::Found), None] {
            assert_eq!(choose(&mut course, Some(GOOD), GOOD), SURE);
            assert_eq!(course.goes_on(&GOOD, true, &settings), turn);
        }
        assert_eq!(course.ended(), None);
    }

    #[test]
    fn what_a_person_has_pointed_at_is_taken_over_when_it_is_lost() {
        let mut course = Course { by_hand: true, ..Course::default() };
        let unsure = Choice::Memory { sure: false };
        for _ in 0..2 {
            assert_eq!(choose(&mut course, Some(GONE), Some(GOOD), 0.1), unsure);
            course.goes_on(&GONE, false, &settings());
        }
        assert!(course.lost);
        assert_eq!(choose(&mut course, Some(GONE), Some(GOOD), 0.1), Choice::Predictor { anew: false });
    }

    #[test]
    fn a_sliver_and_half_a_likeness_are_not_what_was_lost_and_after_a_long_while_it_may_be() {
        let (settings, mut course) = (settings(), Course::default());
        course.goes_on(&GOOD, true, &settings);
        let sliver = Some(Sight { area: 15.0, ..GOOD });
        let large = Some(Sight { area: 25.0, score: 0.7, ..GOOD });
        let poor = Some(Sight { score: 0.5, ..GOOD });
        let (unsure, taken) = (Choice::Memory { sure: false }, Choice::Predictor { anew: false });
        for other in [sliver, poor] {
            assert_eq!(choose(&mut course, Some(GONE), other, 0.0), unsure);
        }
        assert_eq!(choose(&mut course, Some(GONE), large, 0.0), taken);
        for _ in 0..100 {
            course.goes_on(&GONE, false, &settings);
        }
        for other in [sliver, poor] {
            assert_eq!(choose(&mut course, Some(GONE), other, 0.0), taken);
        }
        // Where nothing is remembered there is nothing to compare with.
        assert_eq!(choose(&mut Course::default(), None, sliver, 0.0), taken);
    }

    #[test]
    fn a_loss_ends_with_a_sure_frame_and_not_with_a_beginning() {
        let mut course = Course::missed();
        course.begins(/* by_hand */ true);
        assert_eq!(course.goes_on(&GONE, false, &settings()), None);
        assert!(course.lost);
        assert_eq!(course.goes_on(&GOOD, true, &settings()), Some(Turn::Found));
    }

    #[test]
    fn a_collapsed_mask_a_low_score_and_no_number_are_not_sure() {
        let (settings, mut course) = (settings(), Course::default());
        assert_eq!(course.goes_on(&GOOD, true, &settings), None);
        let sure = |sight: Sight| course.is_sure(&sight, &settings, 0.5);
        assert!(sure(GOOD) && sure(Sight { area: 20.0, ..GOOD }));
        for bad in [
            GONE,
            Sight { area: 19.0, ..GOOD },
            Sight { score: 0.2, ..GOOD },
            Sight { score: f32::NAN, ..GOOD },
            Sight { presence: f32::NAN, ..GOOD },
        ] {
            assert!(!sure(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_loss_is_said_once_and_so_is_its_end() {
        let (settings, mut course) = (settings(), Course::default());
        let turns: Vec<_> = [true, false, false, false, true, true, false]
            .map(|sure| course.goes_on(&GOOD, sure, &settings))
            .into_iter()
            .collect();
        assert_eq!(turns, [None, None, Some(Turn::Lost), None, Some(Turn::Found), None, None]);
    }
}
