//! What is asked of a picture in training and in measuring, and how wrong the answer is.

use std::collections::BTreeMap;
use std::rc::Rc;

use rand::Rng;
use tch::Tensor;

use super::features::{self, FeatureCache};
use super::journal::Validation;
use super::material::{Look, Material};
use super::prompting;
use super::random::generator;
use super::target::Target;
use super::tuning;
use super::{Answer, DecoderTuning, Terms, TrainError, TrainSpec, Truth, interim_loss, loss};
use crate::dataset::{Dataset, View};
use crate::eval::Overlap;
use crate::nn::{PpnForm, SamFeatures};
use crate::segment::preprocess::Placement;
use crate::segment::{Additions, Beginning, Mode, PredictorPlan, Resolved, Trainable, load_trainable};
use crate::stage::StageTimes;

/// What measuring came to.
#[derive(Debug)]
pub enum Measured {
    /// Somebody asked to end before the last picture.
    Stopped,
    /// No held-out picture has any class.
    Nothing,
    /// These.
    Found(Validation),
}

/// The network and the pictures that it learns from.
#[derive(Debug)]
pub struct Lesson<'a> {
    spec: &'a TrainSpec,
    /// The network.
    pub net: Trainable,
    /// The pictures.
    pub material: Material,
    /// The encoder's adapted blocks no longer answer as they did when the features were kept, and are run anew.
    pub moved: bool,
    cache: FeatureCache,
}

/// A picture with all that is needed to ask and to judge.
struct Case {
    features: SamFeatures,
    target: Rc<Target>,
    placement: Placement,
}

impl<'a> Lesson<'a> {
    /// Opens the pictures, builds the network. `checked` hears how many of how many pictures were looked at.
    ///
    /// # Errors
    /// Every mistake of every data set at once; weights that do not fit.
    pub fn new(
        spec: &'a TrainSpec,
        device: &Resolved,
        checked: impl FnMut(usize, usize),
    ) -> Result<Self, TrainError> {
        if let Some(stage) = spec.stages.iter().find(|s| s.pyramid && spec.form != PpnForm::Pyramid) {
            let (stage, form) = (&stage.name, spec.form.name());
            let what = format!("the stage {stage:?} trains a pyramid, and the form {form} has no pyramid");
            return Err(TrainError::Setting(what));
        }
        let material = Material::open(spec, checked)?;
        let classes = |set: &Dataset| set.classes.iter().map(|class| class.name.clone()).collect();
        let datasets = material.datasets.iter().map(|set| (set.name.clone(), classes(set)));
        let trained = |name: &str| tuning::is_trained(name, spec.decoder, spec.learns_presence());
        let beginning = Beginning {
            predictor: PredictorPlan { form: spec.form, tokens: spec.tokens, datasets: datasets.collect() },
            additions: Additions {
                lora: if let DecoderTuning::Lora { rank } = spec.decoder { Some(rank) } else { None },
                object_score: spec.learns_presence(),
            },
            encoder: spec.encoder,
            seed: spec.seed,
            trained: &trained,
        };
        let net = load_trainable(&spec.model, device, &beginning)?;
        let cache = FeatureCache::new(&spec.cache, &net.sam, net.adapted_blocks);
        Ok(Self { spec, net, material, moved: false, cache })
    }

    /// Encodes what the cache lacks; `false` if `progress` said to end.
    ///
    /// # Errors
    /// As [`Material::encode`].
    pub fn encode(&mut self, progress: impl FnMut(usize, usize) -> bool) -> Result<bool, TrainError> {
        // Where the encoder is adapted from the first step on, no kept view is looked at.
        let unseen = self.spec.fresh && self.spec.stages.first().is_some_and(|stage| stage.encoder > 0.0);
        let views = if unseen { 0 } else { self.spec.views };
        self.material.encode(&self.cache, &self.net.sam, views, progress)
    }

    /// A view of a picture, held out or learned from; the network is given the queries of its data set.
    fn case(&mut self, held_out: bool, at: usize, look: Look) -> Result<Case, TrainError> {
        let lost = || TrainError::Setting(format!("{look} of picture {at} was not encoded"));
        let network = self.net.sam.network();
        let item = self.material.item(held_out, at).ok_or_else(lost)?;
        let features = match look {
            Look::Fresh(view) => features::encode(&self.net.sam, &self.material.picture(item)?, &view, None)?,
            Look::Kept(k) => {
                let kept = self.cache.read(item.features(k).ok_or_else(lost)?, network.device())?;
                match self.net.adapted_blocks.filter(|_| self.moved) {
                    Some(blocks) => network.finish(&kept, blocks)?,
                    None => kept,
                }
            }
        };
        let placement =
            network.manners().preprocess.place(item.size().0, item.size().1, network.input_size());
        let queries = self.net.queries.get(item.dataset).ok_or_else(lost)?;
        self.net.sam.set_queries(queries);
        // The decoder's answer has four times the embedding's side.
        let side = 4 * features.embedding.size().last().copied().unwrap_or(0);
        let target = self.material.target((held_out, at), look, &placement, side)?;
        Ok(Case { features, target, placement })
    }

    /// The loss of one picture, in a view and with prompts drawn for `place`, the step and the picture's place in it.
    ///
    /// # Errors
    /// A failure of the network; files that changed since the run began.
    pub fn terms(&mut self, at: usize, place: [u64; 2], pyramid: bool) -> Result<Terms, TrainError> {
        let mut rng = generator(self.spec.seed, "picture", place);
        let look = match rng.random_range(0..=self.spec.views as u64) as usize {
            // The picture itself is drawn as often as it would be.
            k if k > 0 && self.spec.fresh && self.moved => {
                Look::Fresh(View::draw(&self.spec.augment, &mut generator(self.spec.seed, "view", place)))
            }
            k => Look::Kept(k),
        };
        let Case { features, target, placement } = self.case(false, at, look)?;
        let network = self.net.sam.network();
        let (mode, prompts) = prompting::draw(&self.spec.prompts, &target, &mut rng);
        // What the predictor drops at random.
        tch::manual_seed(rng.random::<i64>());
        if pyramid {
            let masks = network.first_masks(&features, /* train */ true)?;
            let every: Vec<usize> = (0..target.masks.len()).collect();
            let (truth, _, present) = target.of(&every, network.device())?;
            return Ok(interim_loss(&self.spec.loss, &masks, &truth, &present)?);
        }
        let question = network.ask(&features, mode, &prompts, &placement, /* train */ true)?;
        let mut classes = Vec::new();
        let (mut masks, mut scores) = (Vec::new(), Vec::new());
        for batch in question.batches(network.device()) {
            let decoded = network.decode(&features, batch)?;
            classes.extend(batch.iter().map(|asked| asked.class));
            masks.push(decoded.masks);
            // SAM 2's decoder says it whether or not it is to learn it.
            scores.extend(decoded.object_score.filter(|_| self.spec.learns_presence()));
        }
        let masks = Tensor::f_cat(&masks, 0)?;
        let scores = if scores.is_empty() { None } else { Some(Tensor::f_cat(&scores, 0)?) };
        let index: Vec<i64> = classes.iter().map(|&class| class as i64).collect();
        let index = Tensor::f_from_slice(&index)?.f_to_device(network.device())?;
        let predicted = match &question.prediction {
            Some(p) => Some((p.interim_mask.f_index_select(0, &index)?, p.boxes.f_index_select(0, &index)?)),
            None => None,
        };
        let (truth, boxes, present) = target.of(&classes, network.device())?;
        let answer = Answer {
            mask: &masks,
            interim: predicted.as_ref().map(|(interim, _)| interim),
            // Boxes around masks teach nothing: the masks are taught themselves.
            boxes: predicted.as_ref().map(|(_, boxes)| boxes).filter(|_| self.spec.form != PpnForm::Pyramid),
            presence: scores.as_ref(),
        };
        let truth = Truth { mask: &truth, interim: &truth, boxes: &boxes, present: &present };
        Ok(loss(&self.spec.loss, &answer, &truth)?)
    }

    /// Masks of the held-out pictures without any prompt, against the truth, at the size of the picture. A class that is there
    /// and has an empty mask counts 0; where it is not there it is not looked at. `progress` says whether to go on.
    ///
    /// # Errors
    /// As [`Lesson::terms`].
    pub fn measure(
        &mut self,
        pyramid: bool,
        mut progress: impl FnMut(usize, usize) -> bool,
    ) -> Result<Measured, TrainError> {
        let mut scores: BTreeMap<String, (f64, f64, f64)> = BTreeMap::new();
        let total = self.material.validation.len();
        for at in 0..total {
            let Case { features, target, placement } = self.case(true, at, Look::Kept(0))?;
            let lost = || TrainError::Setting(format!("there is no picture {at}"));
            let item = self.material.item(true, at).ok_or_else(lost)?;
            let set = self.material.datasets.get(item.dataset).ok_or_else(lost)?;
            let sam = &self.net.sam;
            let found = if pyramid {
                sam.first_masks(&features, &placement)?
            } else {
                let mut times = StageTimes::default();
                sam.segment_features(&features, &placement, Mode::Autonomous, &[], false, &mut times)?
            };
            for mask in &found {
                let (Some(truth), Some(class)) = (target.masks.get(mask.class), set.classes.get(mask.class))
                else {
                    continue;
                };
                let Some(overlap) = Overlap::of(&mask.mask, truth).filter(Overlap::is_present) else {
                    continue;
                };
                let name = if self.material.datasets.len() == 1 {
                    class.name.clone()
                } else {
                    format!("{}/{}", set.name, class.name)
                };
                let sum = scores.entry(name).or_default();
                *sum = (
                    sum.0 + overlap.dice().unwrap_or(0.0),
                    sum.1 + overlap.iou().unwrap_or(0.0),
                    sum.2 + 1.0,
                );
            }
            if !progress(at + 1, total) && at + 1 < total {
                return Ok(Measured::Stopped);
            }
        }
        let dice: BTreeMap<String, f64> = scores.iter().map(|(k, s)| (k.clone(), s.0 / s.2)).collect();
        let iou = scores.iter().map(|(k, s)| (k.clone(), s.1 / s.2)).collect();
        if dice.is_empty() {
            return Ok(Measured::Nothing);
        }
        let mean_dice = dice.values().sum::<f64>() / dice.len() as f64;
        Ok(Measured::Found(Validation { dice, iou, mean_dice }))
    }
}
