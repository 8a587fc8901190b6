//! Objects that are followed from frame to frame, each with memories of its own.

use std::collections::{BTreeMap, BTreeSet};

use tch::{Kind, TchError, Tensor};

use super::bank::{Bank, BankLimits, Entry};
use crate::nn::{
    Memories, Remembered, RememberedPointer, Sam2, Sam2Features, Sam2Memory, Tracked, VideoPrompt, find,
    given,
};
use crate::segment::device::read;
use crate::segment::graph::Step;
use crate::segment::question::at_once;

/// Logits of an earlier answer are fed back no larger than this, as in the reference.
const FED_BACK: f64 = 32.0;

/// SAM 2 with what videos need.
pub type Video<'a> = (&'a Sam2, &'a Sam2Memory);

/// How objects are followed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackerSettings {
    /// How much is remembered of each.
    pub limits: BankLimits,
    /// What memories are stored in. `BFloat16` is what the reference does, even where it computes in `f32`.
    pub storage: Kind,
    /// A frame on which a person corrects an object counts as prompted, and is remembered as long as the limits allow.
    pub corrections_are_prompted: bool,
    /// Frames that times of pointers are given in parts of: one less than the reference's `max_obj_ptrs_in_encoder`, where it does
    /// not know a shorter video. At least 1.
    pub longest: u64,
}

impl TrackerSettings {
    /// As SAM 2's predictor on a long video.
    pub const SAM2: Self = Self {
        limits: BankLimits::SAM2,
        storage: Kind::BFloat16,
        corrections_are_prompted: false,
        longest: 15,
    };
}

/// What a person says of one object.
#[derive(Debug)]
pub enum Said {
    /// Coordinates `[1, N, 2]` in pixels of the input and labels `[1, N]`; a box is two points with labels 2 and 3 before the others.
    Points(Tensor, Tensor),
    /// The mask, 0 or 1 at the input's size, `[1, 1, S, S]`.
    Mask(Tensor),
}

/// One object on the frame that is looked at.
#[derive(Debug)]
pub struct Found {
    /// The object.
    pub object: usize,
    /// What is known of it.
    pub tracked: Tracked,
    /// Somebody said something of it on this frame.
    pub prompted: bool,
    /// Of an object that was followed: the picture as the decoder took it, `[1, 256, h, w]`, in case that somebody corrects it.
    conditioned: Option<Tensor>,
}

/// The picture as the decoder takes it, with what is remembered of some objects.
#[derive(Debug)]
pub struct Conditioned {
    objects: Vec<usize>,
    /// `[B, 256, h, w]`.
    embedding: Tensor,
}

/// One object's memories and its clock, which stands still on frames that are not remembered.
#[derive(Debug)]
struct Followed {
    bank: Bank,
    /// Frames that were remembered.
    frame: u64,
}

impl Found {
    /// An answer that was not formed here, of a picture with that `embedding` `[1, 256, h, w]`: as if somebody had said it.
    pub fn proposed(object: usize, tracked: Tracked, embedding: &Tensor) -> Self {
        Self { object, tracked, prompted: true, conditioned: Some(embedding.shallow_clone()) }
    }

    /// The same as something that was `prompted`, or not.
    pub fn counts_as(self, prompted: bool) -> Self {
        Self { prompted, ..self }
    }
}

/// What is remembered of every object, as of the frame that comes next.
#[derive(Debug)]
pub struct Tracker {
    settings: TrackerSettings,
    objects: BTreeMap<usize, Followed>,
    /// Objects of which the last frame was remembered before it was known whether that is all numbers, and `f32` `[n]` where the network
    /// is: 1 if so.
    doubt: Option<(Vec<usize>, Tensor)>,
}

/// What is done on every frame that follows objects, recorded where a GPU can repeat it.
#[derive(Debug, Default)]
pub struct Following {
    /// A picture and memories to the picture as the decoder takes it.
    pub recall: Step<(Tensor, Memories), Tensor>,
    /// That and the finer features to what is found.
    pub find: Step<[Tensor; 3], Tracked>,
}

impl Tracker {
    /// Knows of nothing.
    pub fn new(settings: TrackerSettings) -> Self {
        Self { settings, objects: BTreeMap::new(), doubt: None }
    }

    /// Objects that are followed, from small to large numbers.
    pub fn objects(&self) -> impl Iterator<Item = usize> {
        self.objects.keys().copied()
    }

    /// Whether an object is followed.
    pub fn follows(&self, object: usize) -> bool {
        self.objects.contains_key(&object)
    }

    /// Memories of frames, and pointers beside them, of all objects.
    pub fn len(&self) -> (usize, usize) {
        let sizes = self.objects.values().map(|followed| followed.bank.len());
        sizes.fold((0, 0), |(frames, pointers), (f, p)| (frames + f, pointers + p))
    }

    /// The objects of which the last frame was remembered before it was known whether that is all numbers, and `f32` `[n]` where the
    /// network is: 1 if so, else they must be forgotten.
    pub fn doubt(&self) -> Option<(&[usize], &Tensor)> {
        self.doubt.as_ref().map(|(objects, numbers)| (&objects[..], numbers))
    }

    /// As if what was remembered last of `object` had been no number.
    #[cfg(test)]
    pub fn spoil(&mut self, object: usize) {
        self.doubt = Some((vec![object], Tensor::zeros([1], (Kind::Float, tch::Device::Cpu))));
    }

    /// Whether nothing is followed.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Forgets an object; the others are as they were.
    pub fn remove(&mut self, object: usize) {
        self.objects.remove(&object);
    }

    fn memories(&self, memory: &Sam2Memory, of: &Followed) -> Result<Memories, TchError> {
        let Followed { bank, frame } = of;
        let looked = bank.frames(*frame);
        let frames: Vec<_> = looked.iter().map(|&(features, age)| Remembered { features, age }).collect();
        let longest = self.settings.longest.max(1) as f64;
        let pointers: Vec<_> = bank
            .pointers(*frame)
            .into_iter()
            .map(|(pointer, ago)| RememberedPointer { pointer, ago: ago as f64 / longest })
            .collect();
        memory.recall(&frames, &pointers)
    }

    /// The picture with what is remembered of each object; together those whose memories are alike. Changes nothing.
    ///
    /// # Errors
    /// libtorch's.
    pub fn recall(
        &self,
        (_, memory): Video<'_>,
        features: &Sam2Features,
        following: &mut Following,
    ) -> Result<Vec<Conditioned>, TchError> {
        let at_once = at_once(features.top.device());
        // Alike are those with as many frames and as many pointers.
        let mut alike: BTreeMap<(i64, i64), Vec<(usize, Memories)>> = BTreeMap::new();
        for (&object, followed) in &self.objects {
            let memories = self.memories(memory, followed)?;
            let key = (memories.values.size3()?.1, memories.pointer_tokens);
            alike.entry(key).or_default().push((object, memories));
        }
        // Of batches in turn none would be recorded.
        let one = alike.len() == 1 && self.objects.len() <= at_once;
        let mut found = Vec::new();
        for ((_, pointer_tokens), group) in alike {
            for batch in group.chunks(at_once) {
                let all = |of: fn(&Memories) -> &Tensor| {
                    Tensor::f_cat(&batch.iter().map(|(_, m)| of(m)).collect::<Vec<_>>(), 0)
                };
                let memories = Memories {
                    values: all(|m| &m.values)?,
                    positions: all(|m| &m.positions)?,
                    pointer_tokens,
                };
                let attend = |(top, m): &(Tensor, Memories)| memory.memory_attention.forward(top, m);
                let seen = (features.top.shallow_clone(), memories);
                let embedding = if one { following.recall.run(&seen, &attend) } else { attend(&seen) }?;
                found.push(Conditioned {
                    objects: batch.iter().map(|(object, _)| *object).collect(),
                    embedding,
                });
            }
        }
        Ok(found)
    }

    /// Where the objects are of which something is remembered, on a frame of which nobody said anything.
    ///
    /// # Errors
    /// libtorch's.
    pub fn follow(
        video: Video<'_>,
        features: &Sam2Features,
        recalled: &[Conditioned],
        following: &mut Following,
    ) -> Result<Vec<Found>, TchError> {
        let mut found = Vec::new();
        for Conditioned { objects, embedding } in recalled {
            let (s0, s1) = &features.high_res;
            let seen = [embedding, s0, s1].map(Tensor::shallow_clone);
            let look = |[embedding, s0, s1]: &[Tensor; 3]| {
                let fine = (s0.shallow_clone(), s1.shallow_clone());
                find(video, embedding, &fine, &VideoPrompt::default())
            };
            let tracked = if recalled.len() == 1 { following.find.run(&seen, &look) } else { look(&seen) }?;
            for (i, &object) in objects.iter().enumerate() {
                let conditioned = Some(embedding.f_narrow(0, i as i64, 1)?);
                found.push(Found { object, tracked: tracked.object(i)?, prompted: false, conditioned });
            }
        }
        found.sort_by_key(|f| f.object);
        Ok(found)
    }

    /// Where an object is of which somebody says something: a new one, or one that was `followed` to this frame and is corrected.
    /// Changes nothing.
    ///
    /// # Errors
    /// libtorch's.
    pub fn told(
        video: Video<'_>,
        features: &Sam2Features,
        object: usize,
        said: &Said,
        followed: Option<&Found>,
    ) -> Result<Found, TchError> {
        let before = followed.and_then(|f| Some((&f.tracked, f.conditioned.as_ref()?)));
        let embedding = before.map_or(&features.embedding, |(_, conditioned)| conditioned);
        let tracked = match said {
            Said::Mask(mask) => given(video, &features.top, &features.high_res, mask)?,
            Said::Points(coords, labels) => {
                let points = Some((coords.shallow_clone(), labels.shallow_clone()));
                let mask = before.map(|(tracked, _)| tracked.logits.f_clamp(-FED_BACK, FED_BACK));
                let prompt = VideoPrompt { points, mask: mask.transpose()? };
                find(video, embedding, &features.high_res, &prompt)?
            }
        };
        Ok(Found { object, tracked, prompted: true, conditioned: Some(embedding.shallow_clone()) })
    }

    /// Remembers what was found on this frame, where all of it is a number; of objects in `anew`, in place of what was
    /// remembered. For objects that are not among `found` the frame did not happen: their memories grow no older. An error leaves
    /// everything as it was. With `later` nothing waits for the device: all of it is remembered, and whether it is numbers is in
    /// [`Tracker::doubt`].
    ///
    /// # Errors
    /// libtorch's.
    pub fn remember(
        &mut self,
        (_, memory): Video<'_>,
        features: &Sam2Features,
        found: &[Found],
        anew: &BTreeSet<usize>,
        later: bool,
    ) -> Result<(), TchError> {
        let at_once = at_once(features.top.device());
        let mut entries = Vec::with_capacity(found.len());
        let mut doubts = Vec::new();
        for prompted in [true, false] {
            let alike: Vec<&Found> = found.iter().filter(|f| f.prompted == prompted).collect();
            for batch in alike.chunks(at_once) {
                let all = |of: fn(&Tracked) -> &Tensor| {
                    Tensor::f_cat(&batch.iter().map(|f| of(&f.tracked)).collect::<Vec<_>>(), 0)
                };
                let present = all(|t| &t.object_score)?.f_gt(0.0)?;
                let kept = memory.remember(&features.top, &all(|t| &t.logits)?, &present, prompted)?;
                let kept = kept.f_to_kind(self.settings.storage)?;
                // A memory that is no number would make every later frame none.
                let numbers = finite(&kept)?.f_logical_and(&finite(&all(|t| &t.pointer)?)?)?;
                let known = if later {
                    doubts.push(numbers.f_to_kind(Kind::Float)?);
                    vec![true; batch.len()]
                } else {
                    Vec::<bool>::try_from(&read(&numbers)?)?
                };
                for (i, f) in batch.iter().enumerate().filter(|&(i, _)| known.get(i) == Some(&true)) {
                    // A copy of its own: a part of a batch would keep the whole batch in memory.
                    let features = kept.f_narrow(0, i as i64, 1)?.f_detach_copy()?;
                    let before = self.objects.get(&f.object).filter(|_| !anew.contains(&f.object));
                    let entry = Entry {
                        frame: before.map_or(0, |followed| followed.frame),
                        features: Some(features),
                        pointer: f.tracked.pointer.f_detach_copy()?,
                    };
                    entries.push((f.object, prompted, entry));
                }
            }
        }
        // As many as entries, and in their order.
        self.doubt = match doubts.is_empty() {
            true => None,
            false => Some((entries.iter().map(|(object, ..)| *object).collect(), Tensor::f_cat(&doubts, 0)?)),
        };
        for (object, prompted, entry) in entries {
            if anew.contains(&object) {
                self.objects.remove(&object);
            }
            let followed = self
                .objects
                .entry(object)
                .or_insert_with(|| Followed { bank: Bank::new(self.settings.limits), frame: 0 });
            if prompted && (followed.frame == 0 || self.settings.corrections_are_prompted) {
                followed.bank.prompt(entry);
            } else {
                followed.bank.track(entry);
            }
            followed.frame += 1;
            followed.bank.forget_before(followed.frame);
        }
        Ok(())
    }
}

/// Of each of a batch whether all its values are finite, `[B]`.
fn finite(values: &Tensor) -> Result<Tensor, TchError> {
    values.f_isfinite()?.f_flatten(1, -1)?.f_all_dim(1, false)
}
