//! What is made of one frame: what the memory says of it, what the predictor and a person say, and whom to believe.

use std::collections::{BTreeMap, BTreeSet};

use tch::{TchError, Tensor};

use super::VideoSam;
use crate::nn::{self, Sam2Features, SamFeatures};
use crate::segment::memory::{
    Ask, Blend, Choice, Course, Following, Found, Overlaps, Said, Sight, Tracker, Turn, Whose, compared,
    sights, table, tabled,
};
use crate::segment::preprocess::{Placement, mask_canvas};
use crate::segment::sam::Ahead;
use crate::segment::{MemoryEvent, Mode, Prompt, PromptError, SegmentError};
use crate::stage::{Stage, StageTimes};

/// One frame, as far as it is known.
pub(super) struct Shot<'a> {
    pub features: &'a Sam2Features,
    /// The same as the predictor takes it.
    pub picture: SamFeatures,
    pub placement: &'a Placement,
    pub mode: Mode,
    /// What a person says of this frame, in pixels.
    pub told: Vec<Prompt>,
    pub keep_logits: bool,
}

/// What is made of a frame, before any of it counts.
pub(super) struct Made {
    pub found: Vec<Found>,
    pub courses: BTreeMap<usize, Course>,
    /// Objects of which the frame is remembered.
    pub kept: BTreeSet<usize>,
    /// Those of them whose memories of before are forgotten.
    pub anew: BTreeSet<usize>,
    /// Objects that are not followed any more.
    pub gone: BTreeSet<usize>,
    pub turns: Vec<MemoryEvent>,
    pub asked: bool,
    /// All of it as the memory has it, drawn on the device and fetched together with what it says.
    pub ahead: Option<Ahead>,
}

/// What the memory says of a frame.
struct Recalled {
    found: BTreeMap<usize, Found>,
    sights: BTreeMap<usize, Sight>,
    ahead: Option<Ahead>,
    /// Objects of which it is known by now that what is remembered of the frame before is no number: they are not among the others.
    spoilt: BTreeSet<usize>,
}

impl VideoSam {
    /// A person's prompt as SAM 2's predictor takes it: the mask first, then clicks and box as a correction of it.
    fn told(
        &self,
        shot: &Shot<'_>,
        prompt: &Prompt,
        followed: Option<&Found>,
    ) -> Result<Found, SegmentError> {
        let video = self.video()?;
        let device = self.sam.network().device();
        let mut found = None;
        if let Some(mask) = &prompt.mask {
            let drawn = mask_canvas(mask, shot.placement)?.f_to_device(device)?;
            found = Some(Tracker::told(video, shot.features, prompt.class, &Said::Mask(drawn), followed)?);
        }
        let mut coords = Vec::new();
        let mut labels = Vec::new();
        if let Some(bbox) = prompt.bbox {
            coords.extend(shot.placement.box_to_input(bbox));
            labels.extend([2, 3]);
        }
        coords.extend(prompt.points.iter().flat_map(|p| shot.placement.to_input([p.x, p.y])));
        labels.extend(prompt.points.iter().map(|p| i64::from(p.positive)));
        if let Some((coords, labels)) = self.sam.network().points(&coords, &labels)? {
            let said = Said::Points(coords, labels);
            let before = found.as_ref().or(followed);
            found = Some(Tracker::told(video, shot.features, prompt.class, &said, before)?);
        }
        found.ok_or_else(|| PromptError::Empty { class: prompt.class }.into())
    }

    /// A prompt of one of the predictor's classes that is not followed: it is answered together with the predictor.
    fn is_answered_together(&self, prompt: &Prompt) -> bool {
        prompt.class < self.classes && !self.tracker.follows(prompt.class)
    }

    fn course(&self, object: usize) -> Course {
        self.courses.get(&object).copied().unwrap_or_default()
    }

    /// Whether the memory has `seen` an object and is sure of it.
    fn is_sure_of(&self, object: usize, seen: &BTreeMap<usize, Sight>, presence: f32) -> bool {
        seen.get(&object).is_some_and(|sight| self.course(object).is_sure(sight, &self.settings, presence))
    }

    /// Whether the predictor is to be asked, after the memory was.
    fn is_due(&self, shot: &Shot<'_>, seen: &BTreeMap<usize, Sight>, presence: f32) -> bool {
        let owed = self.owed || shot.told.iter().any(|p| self.is_answered_together(p));
        let unknown = (0..self.classes).any(|class| !seen.contains_key(&class));
        if !shot.mode.is_learned() || self.frozen && !(owed && unknown) {
            return false;
        }
        // The same picture again is no further evidence.
        let tried = || {
            let mut courses = self.courses.range(..self.classes);
            !self.scene.repeats() && courses.any(|(_, course)| course.is_on_trial(&self.settings))
        };
        owed || match self.settings.ask {
            Ask::First => false,
            Ask::Every => true,
            Ask::Interval(every) => self.frames.is_multiple_of(every.max(1)) || tried(),
            Ask::Lost => tried() || (0..self.classes).any(|class| !self.is_sure_of(class, seen, presence)),
        }
    }

    /// What the predictor says of its classes, with what a person says of those that are not followed.
    fn proposed(
        &self,
        shot: &Shot<'_>,
        times: &mut StageTimes,
    ) -> Result<BTreeMap<usize, Found>, SegmentError> {
        let network = self.sam.network();
        let beside: Vec<Prompt> =
            shot.told.iter().filter(|p| self.is_answered_together(p)).cloned().collect();
        let question = self.sam.timed(times, Stage::Prompt, || {
            network.ask(&shot.picture, shot.mode, &beside, shot.placement, /* train */ false)
        })?;
        let mut proposed = BTreeMap::new();
        for batch in question.batches(network.device()) {
            let tracked = self.sam.timed(times, Stage::Decode, || {
                let decoded = network.answer(&shot.picture, batch)?;
                nn::tracked(&self.memory, &decoded)
            })?;
            for (i, asked) in batch.iter().enumerate() {
                let found = Found::proposed(asked.class, tracked.object(i)?, &shot.features.embedding);
                proposed.insert(asked.class, found);
            }
        }
        Ok(proposed)
    }

    /// What is made of everything that a person says of this frame.
    fn answered(
        &self,
        shot: &Shot<'_>,
        followed: &BTreeMap<usize, Found>,
        proposed: &mut BTreeMap<usize, Found>,
        times: &mut StageTimes,
    ) -> Result<BTreeMap<usize, Found>, SegmentError> {
        let mut answered = BTreeMap::new();
        for prompt in &shot.told {
            let before = followed.get(&prompt.class);
            let found = match proposed.remove(&prompt.class) {
                // With the prompt in mind already.
                Some(found) if before.is_none() => found,
                _ => self.sam.timed(times, Stage::Decode, || self.told(shot, prompt, before))?,
            };
            answered.insert(prompt.class, found);
        }
        Ok(answered)
    }

    /// Classes for which the predictor has found what is another: nothing is begun, or found again, as a second class. What a person
    /// says of this frame comes first, then what the memory is sure of and is not on trial (on a picture that repeats, all that is
    /// followed), then what the predictor scores best of what would be believed.
    fn others(
        &self,
        answered: &BTreeMap<usize, Found>,
        followed: &BTreeMap<usize, Found>,
        seen: &BTreeMap<usize, Sight>,
        proposed: &BTreeMap<usize, Found>,
        (said, overlaps): (&BTreeMap<usize, Sight>, &Overlaps),
        presence: f32,
    ) -> BTreeSet<usize> {
        let repeats = self.scene.repeats();
        let known = |object: usize| {
            let stands = || {
                self.is_sure_of(object, seen, presence) && !self.course(object).is_on_trial(&self.settings)
            };
            followed.contains_key(&object) && (repeats || stands())
        };
        let untold = followed.keys().filter(|object| !answered.contains_key(object) && known(**object));
        let told = answered.keys().map(|object| (Whose::Person, *object));
        let mut taken: Vec<_> = told.chain(untold.map(|object| (Whose::Memory, *object))).collect();
        let mut open: Vec<(bool, f32, usize)> = Vec::new();
        // Of what is known it is another question, and what is said to be absent is in nobody's way.
        for &object in proposed.keys().filter(|object| !known(**object)) {
            if let Some(sight) = said.get(&object).filter(|sight| sight.presence >= presence) {
                let follows = followed.contains_key(&object);
                let believed = self.course(object).believes(sight, follows, &self.settings, presence);
                open.push((believed, sight.score, object));
            }
        }
        open.sort_by(|(x, a, _), (y, b, _)| y.cmp(x).then(b.total_cmp(a)));
        let mut others = BTreeSet::new();
        for (believed, _, object) in open {
            let own = (Whose::Predictor, object);
            if taken.iter().any(|other| overlaps.of(*other, own) >= self.settings.agreement) {
                others.insert(object);
            } else if believed {
                taken.push(own);
            }
        }
        others
    }

    /// What the memory says. On a GPU it is drawn before it is known whether it will be shown, so that one wait brings both.
    fn recalled(
        &self,
        shot: &Shot<'_>,
        following: &mut Following,
        times: &mut StageTimes,
    ) -> Result<Recalled, SegmentError> {
        let (video, features) = (self.video()?, shot.features);
        let recalled = self
            .sam
            .timed(times, Stage::MemoryAttention, || self.tracker.recall(video, features, following))?;
        let followed = self
            .sam
            .timed(times, Stage::Decode, || Tracker::follow(video, features, &recalled, following))?;
        let (sights, mut ahead, mut spoilt) = if followed.is_empty() || !self.sam.works_on_device() {
            (sights(&followed)?, None, BTreeSet::new())
        } else {
            let mut numbers = vec![table(&followed)?.f_reshape([-1])?];
            let doubt = self.tracker.doubt();
            numbers.extend(doubt.map(|(_, numbers)| numbers.shallow_clone()));
            let numbers = Tensor::f_cat(&numbers, 0)?;
            let drawn = self.drawn(&followed, shot.placement, shot.keep_logits, times)?;
            let (numbers, fetched) = self.sam.fetched(&numbers, drawn, times)?;
            let (seen, whole) = numbers.split_at_checked(3 * followed.len()).unwrap_or((&numbers, &[]));
            let doubted = doubt.into_iter().flat_map(|(objects, _)| objects).zip(whole);
            let spoilt = doubted.filter(|(_, whole)| **whole != 1.0).map(|(object, _)| *object);
            (tabled(&followed, seen), fetched, spoilt.collect())
        };
        let mut found: BTreeMap<usize, Found> = followed.into_iter().map(|f| (f.object, f)).collect();
        spoilt.retain(|object| found.remove(object).is_some());
        if !spoilt.is_empty() {
            // It is a drawing of all.
            ahead = None;
        }
        let sights = sights.into_iter().filter(|(object, _)| found.contains_key(object)).collect();
        Ok(Recalled { found, sights, ahead, spoilt })
    }

    pub(super) fn make(
        &self,
        shot: &Shot<'_>,
        following: &mut Following,
        times: &mut StageTimes,
    ) -> Result<Made, SegmentError> {
        let presence = self.sam.cleanup().presence_threshold;
        let Recalled { found: mut memory, sights: seen, ahead, spoilt } =
            self.recalled(shot, following, times)?;
        let followed = memory.len();
        let asked = self.is_due(shot, &seen, presence);
        let mut proposed = if asked { self.proposed(shot, times)? } else { BTreeMap::new() };
        let mut answered = self.answered(shot, &memory, &mut proposed, times)?;
        let (mut said, overlaps) = compared(&memory, &answered, &proposed)?;
        for class in self.others(&answered, &memory, &seen, &proposed, (&said, &overlaps), presence) {
            // It was asked of this class and has not found it: no cell of that mask is this class's.
            proposed.remove(&class);
            said.entry(class).and_modify(|sight| sight.area = 0.0);
        }
        // A picture is not remembered again and again, and what it shows is no further evidence.
        let moves = !self.scene.repeats();
        let mut made = Made {
            found: Vec::new(),
            courses: self.courses.clone(),
            // Whatever is remembered of these takes the place of all that was.
            anew: spoilt.clone(),
            kept: BTreeSet::new(),
            gone: spoilt,
            turns: Vec::new(),
            asked,
            ahead: None,
        };
        // What is known of what is shown, and how much of that is the memory's as it is.
        let (mut shown, mut as_followed) = (BTreeMap::new(), 0);
        let objects: BTreeSet<usize> =
            memory.keys().chain(proposed.keys()).chain(answered.keys()).copied().collect();
        for object in objects {
            let mut followed = memory.remove(&object);
            let proposal = proposed.remove(&object);
            let mut course = self.course(object);
            if let Some(found) = answered.remove(&object) {
                course.begins(/* by_hand */ true);
                made.courses.insert(object, course);
                made.kept.insert(object);
                made.found.push(found);
                continue;
            }
            let both = followed.is_some() && proposal.is_some();
            let overlap =
                if both { overlaps.of((Whose::Memory, object), (Whose::Predictor, object)) } else { 0.0 };
            let (sight, proposal_sight) = (seen.get(&object), said.get(&object));
            let tried = course.is_on_trial(&self.settings);
            match course.choose(sight, proposal_sight, overlap, &self.settings, presence) {
                Choice::Nobody if !moves && followed.is_some() => {
                    as_followed += 1;
                    shown.extend(sight.map(|sight| (object, *sight)));
                    made.found.extend(followed.take());
                }
                Choice::Nobody => {
                    // Said to be absent, or too poor to be followed: shown as it would be without a memory.
                    made.courses.remove(&object);
                    made.courses.extend(course.ended().map(|course| (object, course)));
                    made.gone.extend(followed.map(|f| f.object));
                    shown.extend(proposal_sight.map(|sight| (object, *sight)));
                    made.found.extend(proposal);
                    continue;
                }
                // Time stands still: what the predictor says is shown where nothing else is known.
                Choice::Predictor { .. } if self.frozen || !moves && followed.is_some() => {
                    as_followed += usize::from(followed.is_some());
                    shown.extend(sight.or(proposal_sight).map(|sight| (object, *sight)));
                    made.found.extend(followed.take().or(proposal));
                }
                Choice::Predictor { anew } => {
                    course.begins(/* by_hand */ false);
                    if anew {
                        made.anew.insert(object);
                        if !tried {
                            made.turns.push(MemoryEvent::TakenOver(object));
                        }
                    }
                    made.kept.insert(object);
                    // Of an object that goes on it counts as tracked: it does not crowd out what a person has said.
                    let prompted = followed.is_none() || anew;
                    shown.extend(proposal_sight.map(|sight| (object, *sight)));
                    made.found.extend(proposal.map(|found| found.counts_as(prompted)));
                }
                Choice::Memory { sure } => {
                    if moves && (sure && course.is_due(&self.settings) || !sure && self.settings.write_unsure)
                    {
                        made.kept.insert(object);
                    }
                    as_followed += 1;
                    shown.extend(sight.map(|sight| (object, *sight)));
                    made.found.extend(followed.take());
                }
                Choice::Both(blend) => {
                    if moves && course.is_due(&self.settings) {
                        made.kept.insert(object);
                    }
                    let both = followed.take().zip(proposal);
                    made.found.extend(both.map(|(ours, other)| blended(ours, &other, blend)).transpose()?);
                }
            }
            if moves || made.kept.contains(&object) {
                made.courses.insert(object, course);
            }
        }
        let kept = &made.kept;
        made.gone.retain(|object| !kept.contains(object));
        shown.retain(|object, _| made.found.iter().any(|f| f.object == *object));
        if as_followed == followed && made.found.len() == followed {
            made.ahead = ahead;
        }
        // What a person has said, and what was mixed, has not been looked at yet.
        shown.extend(sights(made.found.iter().filter(|f| !shown.contains_key(&f.object)))?);
        for (object, course) in &mut made.courses {
            let Some(sight) = shown.get(object).filter(|_| moves || made.kept.contains(object)) else {
                continue;
            };
            let sure = course.is_sure(sight, &self.settings, presence);
            match course.goes_on(sight, sure, &self.settings) {
                Some(Turn::Lost) => made.turns.push(MemoryEvent::Lost(*object)),
                Some(Turn::Found) => made.turns.push(MemoryEvent::Found(*object)),
                None => {}
            }
        }
        Ok(made)
    }
}

/// Where both agree: the predictor's mask, or the mean of both one's logits.
fn blended(mut ours: Found, other: &Found, blend: Blend) -> Result<Found, TchError> {
    let logits = match blend {
        Blend::Memory => return Ok(ours),
        Blend::Predictor => other.tracked.logits.shallow_clone(),
        Blend::Mean => ours.tracked.logits.f_add(&other.tracked.logits)?.f_mul_scalar(0.5)?,
    };
    ours.tracked.logits = logits;
    Ok(ours)
}
