//! What the segmenter is asked of one picture, made from the truth, and its answers put back to the classes.

use super::Prompting;
use super::region::regions;
use crate::mask::{Bounds, ClassMask, Mask};
use crate::segment::{Guidance, Point, Prompt};

/// Most regions of a class that get a box of their own, the largest first. Labels that fall to dust would cost a pass of the
/// decoder for every speck.
pub const MAX_REGIONS: usize = 64;

/// What a segmenter is asked of one picture.
///
/// - A box is the smallest rectangle around the pixels, its right and lower edge behind the last of them, with nothing added.
/// - A click is the centre of the pixel that [`Region::deepest`](super::Region::deepest) names.
/// - A class that the truth does not have is not asked for in the manual modes: there is nothing to point at. With a predictor
///   every class is asked for, and one that is absent gets no box.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// For the segmenter.
    pub guidance: Guidance,
    /// For each index that an answer may have, the class it belongs to; `None` for a class of the predictor that is not evaluated.
    of: Vec<Option<usize>>,
    /// For each class, whether it is asked for.
    asked: Vec<bool>,
}

/// The answer for one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Whether the class was asked for.
    pub asked: bool,
    /// All that the segmenter gave it; empty where it was not asked for.
    pub mask: Mask,
    /// Predicted IoU, of several regions the mean; NaN where nothing was answered.
    pub score: f32,
    /// Probability that the class is in the picture, of several regions the highest; NaN where nothing was answered.
    pub presence: f32,
}

impl Question {
    /// Asks for what `truth` has, one mask a class. `learned` is the place of each class among the predictor's, which
    /// learned modes need.
    pub fn new(prompting: Prompting, truth: &[Mask], learned: &[Option<usize>]) -> Self {
        let mut prompts = Vec::new();
        let mut of: Vec<Option<usize>> = Vec::new();
        let mut asked = vec![prompting.is_learned(); truth.len()];
        if prompting.is_learned() {
            for (class, place) in learned.iter().enumerate() {
                let Some(place) = *place else { continue };
                of.resize(of.len().max(place + 1), None);
                of[place] = Some(class);
            }
        }
        for (class, mask) in truth.iter().enumerate() {
            let own = of_class(prompting, mask);
            asked[class] |= !own.is_empty();
            for prompt in own {
                // In the manual modes an index is but a name: each prompt has its own.
                let index = match learned.get(class).copied().flatten() {
                    Some(place) if prompting.is_learned() => place,
                    _ => {
                        of.push(Some(class));
                        of.len() - 1
                    }
                };
                prompts.push(Prompt { class: index, ..prompt });
            }
        }
        Self { guidance: Guidance { mode: prompting.mode(), prompts }, of, asked }
    }

    /// One answer a class, of pictures of `size`. Masks of one class are united; answers to what was not asked are left out.
    pub fn gather(&self, found: Vec<ClassMask>, size: (usize, usize)) -> Vec<Answer> {
        let none = |&asked: &bool| Answer {
            asked,
            mask: Mask::empty(size.0, size.1),
            score: f32::NAN,
            presence: f32::NAN,
        };
        let mut answers: Vec<Answer> = self.asked.iter().map(none).collect();
        let mut counts = vec![0u16; answers.len()];
        for one in found {
            let Some(class) = self.of.get(one.class).copied().flatten() else { continue };
            let (Some(answer), Some(count)) = (answers.get_mut(class), counts.get_mut(class)) else {
                continue;
            };
            *count += 1;
            if *count == 1 {
                (answer.mask, answer.score, answer.presence) = (one.mask, one.score, one.presence);
                continue;
            }
            answer.mask = united(&answer.mask, &one.mask);
            answer.score += (one.score - answer.score) / f32::from(*count);
            answer.presence = answer.presence.max(one.presence);
        }
        answers
    }
}

fn united(a: &Mask, b: &Mask) -> Mask {
    let data = a.data().iter().zip(b.data()).map(|(a, b)| a | b).collect();
    Mask::new(a.width(), a.height(), data).unwrap_or_else(|| a.clone())
}

fn of_class(prompting: Prompting, mask: &Mask) -> Vec<Prompt> {
    let boxed = |b: Bounds| Prompt { bbox: Some(b.corners()), ..Prompt::default() };
    match prompting {
        Prompting::Auto => Vec::new(),
        Prompting::Box | Prompting::AutoBox => mask.bounds().map(boxed).into_iter().collect(),
        Prompting::BoxRegions => {
            regions(mask).into_iter().take(MAX_REGIONS).map(|region| boxed(region.bounds)).collect()
        }
        Prompting::Points | Prompting::AutoPoints => {
            let click = |(x, y): (usize, usize)| Prompt {
                points: vec![Point { x: x as f32 + 0.5, y: y as f32 + 0.5, positive: true }],
                ..Prompt::default()
            };
            regions(mask).first().map(|region| click(region.deepest())).into_iter().collect()
        }
    }
}
