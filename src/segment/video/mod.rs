//! SAM 2 with its memory as a [`Segmenter`]: objects are followed from frame to frame, and the prompt predictor, where there
//! is one, is asked when the settings say so.

mod frame;

use std::collections::{BTreeMap, BTreeSet};

use tch::{TchError, Tensor};

use self::frame::{Made, Shot};
use super::graph::{Engine, Step};
use super::memory::{
    Continuity, Course, Following, Found, MemoryCounts, MemorySettings, Scene, Tracker, TrackerSettings,
    Video,
};
use super::network::Network;
use super::preprocess::{Picture, Placement};
use super::prompt::once_a_class;
use super::said::Said;
use super::sam::{self, Sam};
use super::{Guidance, MemoryEvent, Mode, ModelInfo, Prompt, SegmentError, Segmenter};
use crate::frame::{ImageView, Rgb};
use crate::mask::ClassMask;
use crate::nn::{Sam2Features, Sam2Memory, SamFeatures, Tracked};
use crate::stage::{Stage, StageTimes};
use crate::state::{Remark, Reset};

/// Frames for which the screen says that the memory was cleared.
const SAID_FOR: u32 = 30;
/// Events kept until somebody takes them.
const MAX_EVENTS: usize = 64;

/// SAM 2 on a stream.
///
/// - Classes are the objects. A prompt counts on the frame from which it is in force; from then on the object is followed.
/// - A prompt that changes corrects its object, one that is taken back forgets it; the others go on as they were.
/// - A prompt that does not fit leaves the memory as it was, and no error writes into it.
#[derive(Debug)]
pub struct VideoSam {
    sam: Sam,
    step: Step<Tensor, Sam2Features>,
    following: Following,
    memory: Sam2Memory,
    settings: MemorySettings,
    /// Of the predictor.
    classes: usize,
    tracker: Tracker,
    scene: Scene,
    /// Size of the frames.
    size: Option<(usize, usize)>,
    /// Prompts of the last frame that was not autonomous, as they were given.
    said: Vec<Prompt>,
    /// They are out of force: the last frame was autonomous.
    silenced: bool,
    /// Frames were missed on which the prompts now in force were given: they do not count for later ones.
    missed: bool,
    courses: BTreeMap<usize, Course>,
    /// Frames since the last reset.
    frames: u64,
    /// The predictor is to be asked, whatever the settings say: nothing is known, or one of its classes was given up.
    owed: bool,
    /// Why the memory was cleared last, and for how many frames that is said.
    cleared: Option<(Reset, u32)>,
    frozen: bool,
    /// What a person has pointed at on this picture, for as long as it repeats.
    pointed: BTreeSet<usize>,
    counts: MemoryCounts,
    events: Vec<MemoryEvent>,
}

impl VideoSam {
    /// `sam` has to be of SAM 2, and its predictor, where it has one, to look for `classes` classes.
    pub fn new(sam: Sam, memory: Sam2Memory, settings: MemorySettings, classes: usize) -> Self {
        let tracking = TrackerSettings {
            limits: settings.limits,
            corrections_are_prompted: true,
            ..TrackerSettings::SAM2
        };
        Self {
            sam,
            step: Step::default(),
            following: Following::default(),
            memory,
            settings,
            classes,
            tracker: Tracker::new(tracking),
            scene: Scene::new(settings.freeze_after, settings.scene_cut),
            size: None,
            said: Vec::new(),
            silenced: false,
            missed: false,
            courses: BTreeMap::new(),
            frames: 0,
            owed: true,
            cleared: None,
            frozen: false,
            pointed: BTreeSet::new(),
            counts: MemoryCounts::default(),
            events: Vec::new(),
        }
    }

    /// As [`Sam::record_by`].
    ///
    /// # Errors
    /// As there.
    pub fn record_by(&mut self, engine: impl Fn() -> Result<Box<dyn Engine>, String>) -> Result<(), String> {
        let following =
            Following { recall: Step::recorded_by(engine()?), find: Step::recorded_by(engine()?) };
        (self.step, self.following) = (Step::recorded_by(engine()?), following);
        Ok(())
    }

    /// Whether everything that can be is recorded.
    #[cfg(test)]
    pub(super) fn repeats(&self) -> bool {
        let Following { recall, find } = &self.following;
        self.step.has_recorded() && recall.has_recorded() && find.has_recorded()
    }

    /// Whether an object is followed.
    #[cfg(test)]
    pub(super) fn follows(&self, object: usize) -> bool {
        self.tracker.follows(object)
    }

    /// See [`Tracker::spoil`].
    #[cfg(test)]
    pub(super) fn spoil(&mut self, object: usize) {
        self.tracker.spoil(object);
    }

    fn video(&self) -> Result<Video<'_>, SegmentError> {
        video(&self.sam, &self.memory)
    }

    fn happened(&mut self, event: MemoryEvent) {
        self.counts.take_in(&event);
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        }
    }

    /// Forgets everything but the objects `kept`.
    fn clear(&mut self, why: Reset, kept: &BTreeSet<usize>) {
        let gone: Vec<usize> = self.tracker.objects().filter(|object| !kept.contains(object)).collect();
        for object in gone {
            self.tracker.remove(object);
        }
        self.frames = 0;
        self.owed = true;
        self.cleared = Some((why, SAID_FOR));
        self.counts.holds(self.tracker.objects().count(), self.tracker.len());
        self.happened(MemoryEvent::Reset(why));
        // What a person speaks of may count as lost already, which is not said twice.
        let spoken = self.spoken();
        self.courses.retain(|object, _| spoken.contains(object));
    }

    /// The classes of which a person has spoken on the last frame. While the predictor is left alone there are none: what it
    /// follows then is its own.
    fn spoken(&self) -> BTreeSet<usize> {
        let said: &[Prompt] = if self.silenced { &[] } else { &self.said };
        said.iter().map(|p| p.class).collect()
    }

    /// As [`VideoSam::clear`], with prompts in force that count again, as at the beginning of a stream.
    fn begin(&mut self, why: Reset) {
        self.said.clear();
        self.courses.clear();
        self.clear(why, &BTreeSet::new());
    }

    /// A person has pointed at an object of which nothing is known (any more): it counts as lost until it is pointed at, or
    /// found, again.
    fn misses(&mut self, object: usize) {
        let before = self.courses.insert(object, Course::missed());
        if !before.is_some_and(|course| course.lost) {
            self.happened(MemoryEvent::Lost(object));
        }
    }

    /// Clears the memory where the picture does not continue the one before it.
    fn look(&mut self, picture: &Picture<'_>) {
        let size = picture.size();
        if self.size.replace(size).is_some_and(|before| before != size) {
            self.scene.forget();
            self.begin(Reset::Size);
        }
        let frozen = match self.scene.look(picture) {
            Continuity::Live => false,
            Continuity::Frozen => true,
            Continuity::Thawed => {
                // Who freezes the picture to point at something means to go on from there.
                let kept = std::mem::take(&mut self.pointed);
                self.clear(Reset::Freeze, &kept);
                false
            }
            Continuity::Cut => {
                self.clear(Reset::SceneCut, &BTreeSet::new());
                false
            }
        };
        if !self.scene.repeats() {
            self.pointed.clear();
        }
        if frozen && !self.frozen {
            self.happened(MemoryEvent::Frozen);
        }
        self.frozen = frozen;
    }

    /// The classes of which a person says something that was not said of the last frame. Forgets objects of which the person
    /// speaks no more and, without the predictor, those that it has found.
    fn hear(&mut self, guidance: &Guidance) -> BTreeSet<usize> {
        let given = guidance.standing();
        let speaks_of = |class: usize| given.iter().any(|p| p.class == class);
        for class in self.spoken().into_iter().filter(|&c| !speaks_of(c)) {
            self.tracker.remove(class);
            self.courses.remove(&class);
            self.pointed.remove(&class);
            self.owed |= class < self.classes;
        }
        let new: BTreeSet<usize> = given.iter().filter(|p| !self.said.contains(p)).map(|p| p.class).collect();
        if !guidance.mode.is_learned() {
            self.owed = true;
            let found = |o: &usize| self.courses.get(o).is_none_or(|c| !c.by_hand);
            let found: Vec<usize> = self.tracker.objects().filter(found).collect();
            for class in found {
                self.tracker.remove(class);
            }
            let tracker = &self.tracker;
            self.courses.retain(|&class, _| tracker.follows(class) || speaks_of(class));
        }
        // It counted on a frame that is forgotten, or that left nothing to remember.
        for class in given.iter().map(|p| p.class).filter(|c| !new.contains(c)) {
            if !self.tracker.follows(class) {
                self.misses(class);
            }
        }
        new
    }

    /// What was found, on its way to masks of the frame. At least one object.
    fn drawn(
        &self,
        found: &[Found],
        placement: &Placement,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<sam::Made, SegmentError> {
        let all = |of: fn(&Tracked) -> &Tensor| {
            Tensor::f_cat(&found.iter().map(|f| of(&f.tracked)).collect::<Vec<_>>(), 0)
        };
        let (logits, iou, score) = (all(|t| &t.logits)?, all(|t| &t.iou)?, all(|t| &t.object_score)?);
        let classes = found.iter().map(|f| f.object).collect();
        let said = Said { classes, logits, iou, object_score: Some(score), alone: false };
        self.sam.made(&said, placement, keep_logits, times)
    }

    fn masks(
        &self,
        made: &Made,
        shot: &Shot<'_>,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        if let Some(ahead) = &made.ahead {
            return self.sam.masks_ahead(ahead, times);
        }
        if made.found.is_empty() {
            return Ok(Vec::new());
        }
        let drawn = self.drawn(&made.found, shot.placement, shot.keep_logits, times)?;
        self.sam.masks(vec![drawn], times)
    }

    fn run(
        &mut self,
        image: &ImageView<'_>,
        guidance: &Guidance,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let size = (image.width(), image.height());
        let rgb = times.time(Stage::Preprocess, || {
            // A device makes its own of the picture.
            let rgb = (!self.sam.works_on_device()).then(|| Rgb::from(image));
            self.look(&rgb.as_ref().map_or(Picture::View(image), Picture::Rgb));
            rgb
        });
        if std::mem::take(&mut self.missed) {
            self.said.clone_from(&guidance.prompts);
        }
        let given = guidance.standing();
        once_a_class(given)?;
        // All of them, though only what is new counts: a prompt that does not fit stays an error.
        let checked: Vec<Prompt> =
            given.iter().map(|p| p.in_pixels(size.0, size.1)).collect::<Result<_, _>>()?;
        let new = self.hear(guidance);
        let told: Vec<Prompt> = checked.into_iter().filter(|p| new.contains(&p.class)).collect();
        let mut masks = Vec::new();
        if !told.is_empty() || !self.tracker.is_empty() || guidance.mode.is_learned() {
            let encode = |network: &Network, input: &Tensor| match network.sam2() {
                Some(net) => net.encode_image(input),
                None => Err(TchError::Shape("only SAM 2 has a memory".into())),
            };
            let picture = rgb.as_ref().map_or(Picture::View(image), Picture::Rgb);
            let (features, placement) = self.sam.features(&picture, &mut self.step, encode, times)?;
            let shot = Shot {
                picture: SamFeatures::from(&features),
                features: &features,
                placement: &placement,
                mode: guidance.mode,
                told,
                keep_logits,
            };
            let mut following = std::mem::take(&mut self.following);
            let made = self.make(&shot, &mut following, times);
            self.following = following;
            let made = made?;
            masks = self.masks(&made, &shot, times)?;
            self.sam.done(&masks, times);
            self.remember(&features, made, times)?;
            self.pointed.extend(shot.told.iter().map(|p| p.class));
        }
        self.silenced = guidance.mode == Mode::Autonomous;
        if !self.silenced {
            self.said = given.to_vec();
        }
        self.counts.holds(self.tracker.objects().count(), self.tracker.len());
        self.cleared = self.cleared.and_then(|(why, left)| Some((why, left.checked_sub(1)?)));
        Ok(masks)
    }

    /// Everything that a frame changes.
    fn remember(
        &mut self,
        features: &Sam2Features,
        made: Made,
        times: &mut StageTimes,
    ) -> Result<(), SegmentError> {
        let Made { found, courses, anew, kept, gone, turns, asked, ahead: _ } = made;
        let (kept, passed): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|f| kept.contains(&f.object));
        // Not `self.video()`: the tracker is changed meanwhile.
        let video = video(&self.sam, &self.memory)?;
        let tracker = &mut self.tracker;
        // Its word on what is remembered comes with the next frame's.
        let later = self.sam.works_on_device();
        self.sam
            .timed(times, Stage::MemoryEncoder, || tracker.remember(video, features, &kept, &anew, later))?;
        // What was said of a picture that repeats is not always remembered.
        let unknown = (0..self.classes).any(|class| !self.tracker.follows(class));
        self.owed &= !asked || self.scene.repeats() && unknown;
        // One flicker of what is on trial does not leave it alone until the predictor's next turn.
        self.owed |= gone.iter().any(|&object| object < self.classes);
        for object in gone {
            self.tracker.remove(object);
        }
        self.counts.not_written += passed.iter().filter(|f| self.tracker.follows(f.object)).count() as u64;
        self.counts.asked += u64::from(asked);
        // The tracker refuses what is no number.
        self.courses = courses;
        let tracker = &self.tracker;
        self.courses.retain(|&object, course| course.by_hand || course.lost || tracker.follows(object));
        self.frames += 1;
        for turn in turns {
            self.happened(turn);
        }
        Ok(())
    }
}

/// The network with its memory.
fn video<'a>(sam: &'a Sam, memory: &'a Sam2Memory) -> Result<Video<'a>, SegmentError> {
    let net = sam.network().sam2();
    net.map(|net| (net, memory)).ok_or_else(|| SegmentError::Other("only SAM 2 has a memory".into()))
}

impl Segmenter for VideoSam {
    fn info(&self) -> &ModelInfo {
        self.sam.info()
    }

    fn segment(
        &mut self,
        image: &ImageView<'_>,
        guidance: &Guidance,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        tch::no_grad(|| self.run(image, guidance, keep_logits, times))
    }

    fn forget(&mut self, why: Option<Reset>) {
        self.scene.forget();
        self.size = None;
        self.frozen = false;
        self.silenced = false;
        self.missed = why == Some(Reset::Model);
        self.begin(why.unwrap_or(Reset::Stream));
        if why.is_none() {
            self.cleared = None;
            self.counts = MemoryCounts::default();
            self.events.clear();
        }
    }

    fn memory(&self) -> Option<&MemoryCounts> {
        Some(&self.counts)
    }

    fn take_events(&mut self) -> Vec<MemoryEvent> {
        std::mem::take(&mut self.events)
    }

    fn remark(&self) -> Option<Remark> {
        if self.frozen {
            return Some(Remark::Frozen);
        }
        if let Some((why, _)) = self.cleared {
            return Some(Remark::Cleared(why));
        }
        let lost: Vec<usize> =
            self.courses.iter().filter(|(_, c)| c.lost).map(|(&object, _)| object).collect();
        (!lost.is_empty()).then_some(Remark::Lost(lost))
    }
}
