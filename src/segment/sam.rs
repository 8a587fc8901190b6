//! A network of the SAM kind as a [`Segmenter`], with or without a prompt predictor.

use std::collections::BTreeSet;

use tch::{Device, Kind, TchError, Tensor};

use super::postprocess::{Decoded, Postprocess, clean};
use super::preprocess::{Placement, Preprocess};
use super::{Guidance, Mode, ModelInfo, Prompt, PromptError, SegmentError, Segmenter};
use crate::frame::{ImageView, Rgb};
use crate::mask::{ClassMask, Mask};
use crate::nn::{self, MaskSelection, PpnForm, PromptPredictor, SamFeatures};
use crate::stage::{Stage, StageTimes};
use crate::weights::Family;

/// Classes decoded at once on a GPU; bounds the decoder's memory.
const MAX_BATCH: usize = 8;
/// The same on a CPU, where larger batches only leave the caches: eight classes take a fifth longer at once than in pairs
/// (`benches/results/classes.md`).
const MAX_BATCH_CPU: usize = 2;

/// The handlings of pictures that metadata may name.
pub(super) const HANDLINGS: &str = "sam2rad, sam2rad-square or sam2-video";

/// How a family is asked, which its weights were trained with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Manners {
    /// Frame to input.
    pub preprocess: Preprocess,
    /// Logits to masks.
    pub postprocess: Postprocess,
    /// A box is given as two points before the others (SAM 2's predictors), else as a box (SAM's).
    pub boxes_as_points: bool,
    /// What a single answer is.
    pub single: MaskSelection,
    /// A click alone can mean a part or the whole: the best of three candidates is taken.
    pub candidates_for_a_click: bool,
    /// To a mask alone the network answers with nothing, as it was trained with boxes: it is given the mask's box too.
    pub box_around_a_mask: bool,
}

impl Manners {
    /// What the weights of `family` were published with.
    pub fn of(family: Family) -> Self {
        let sam2 = family.is_sam2();
        let boxes_only = matches!(family, Family::LiteMedSam | Family::MedSam);
        Self {
            preprocess: Preprocess::of(family),
            postprocess: Postprocess::of(family),
            boxes_as_points: sam2,
            single: if sam2 { MaskSelection::Stable } else { MaskSelection::Single },
            candidates_for_a_click: !boxes_only,
            box_around_a_mask: boxes_only,
        }
    }

    /// The same for weights that were trained with another handling of pictures, by its name in the metadata, one of
    /// [`HANDLINGS`]: the data set of Sam2Rad's authors (`sam2rad`) and their validation (`sam2rad-square`), SAM 2's loader of
    /// video frames, which MedSAM2 uses too (`sam2-video`). `None` for any other name. The authors of Sam2Rad never had
    /// LiteMedSAM, whose mask prompts are of another size than theirs: it keeps its own.
    pub fn trained_with(self, name: &str) -> Option<Self> {
        let sam2rad = |preprocess, postprocess| match self.preprocess {
            Preprocess::LiteMedSam => self,
            _ => Self { preprocess, postprocess, ..self },
        };
        match name {
            "sam2rad" => Some(sam2rad(Preprocess::Sam2Rad, Postprocess::ThroughInput)),
            "sam2rad-square" => Some(sam2rad(Preprocess::Sam2RadSquare, Postprocess::Direct)),
            "sam2-video" => (self.preprocess == Preprocess::Sam2)
                .then_some(Self { preprocess: Preprocess::Sam2Video, ..self }),
            _ => None,
        }
    }
}

/// What is done with masks that a person may not want to see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cleanup {
    /// Certainty, 0 to 1, below which a class is not there.
    pub presence_threshold: f32,
    /// Holes of the low-resolution mask up to this area are filled.
    pub max_hole_area: usize,
    /// Islands of the low-resolution mask up to this area are removed.
    pub max_sprinkle_area: usize,
}

/// A network of the SAM kind with its weights on one device.
///
/// - A frame is encoded once, however many classes are asked for.
/// - Classes whose prompts make the same number of tokens are decoded together.
/// - An error leaves it as it was: nothing is kept from frame to frame.
#[derive(Debug)]
pub struct Sam {
    net: nn::Sam,
    learned: Option<(PromptPredictor, PpnForm)>,
    manners: Manners,
    cleanup: Cleanup,
    device: Device,
    info: ModelInfo,
}

/// One class as the decoder takes it.
struct Asked {
    class: usize,
    sparse: Tensor,
    dense: Tensor,
    /// `dense` says something of this class, and is not the embedding of there being no mask.
    own_dense: bool,
    selection: MaskSelection,
}

impl Asked {
    /// Classes that can be decoded together are equal in it.
    fn group(&self) -> (i64, u8, bool) {
        (self.sparse.size().get(1).copied().unwrap_or(0), self.selection as u8, self.own_dense)
    }
}

impl Sam {
    /// Wraps a network whose weights are on `device`; `info` is what reports say of it. The classes of the predictor are the
    /// run's first, in its order.
    pub fn new(
        net: nn::Sam,
        learned: Option<(PromptPredictor, PpnForm)>,
        manners: Manners,
        cleanup: Cleanup,
        device: Device,
        info: ModelInfo,
    ) -> Self {
        Self { net, learned, manners, cleanup, device, info }
    }

    /// Kernels are queued on a GPU; a stage ends when they have run. A copy waits for them and, other than
    /// `tch::Cuda::synchronize`, gives the error of one that failed instead of a panic.
    fn settle(&self) -> Result<(), TchError> {
        if self.device.is_cuda() {
            drop(Tensor::f_zeros([1], (Kind::Float, self.device))?.f_to_device(Device::Cpu)?);
        }
        Ok(())
    }

    fn timed<T, E: From<TchError>>(
        &self,
        times: &mut StageTimes,
        stage: Stage,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        times.time(stage, || {
            let done = work()?;
            self.settle()?;
            Ok(done)
        })
    }

    fn to_device(&self, tensor: Tensor) -> Result<Tensor, TchError> {
        tensor.f_to_device(self.device)
    }

    /// Points `[1, N, 2]` in pixels of the input, and their labels.
    fn points(&self, coords: &[f32], labels: &[i64]) -> Result<Option<(Tensor, Tensor)>, TchError> {
        if labels.is_empty() {
            return Ok(None);
        }
        let n = labels.len() as i64;
        let coords = self.to_device(Tensor::f_from_slice(coords)?.f_reshape([1, n, 2])?)?;
        Ok(Some((coords, self.to_device(Tensor::f_from_slice(labels)?.f_reshape([1, n])?)?)))
    }

    /// A person's prompt as embeddings. `beside_learned`: as an addition to learned ones, where padding has no meaning and
    /// no mask means no dense embedding.
    fn encode_prompt(
        &self,
        prompt: &Prompt,
        placement: &Placement,
        beside_learned: bool,
    ) -> Result<(Tensor, Tensor), SegmentError> {
        let mut coords = Vec::with_capacity(2 * prompt.points.len() + 4);
        let mut labels = Vec::with_capacity(prompt.points.len() + 2);
        let around = |mask: &Mask| mask.bounds().map(|b| [b.x0, b.y0, b.x1, b.y1].map(|v| v as f32));
        let alone = prompt.bbox.is_none() && prompt.points.is_empty() && !beside_learned;
        let bbox = if alone && self.manners.box_around_a_mask {
            prompt.mask.as_deref().and_then(around)
        } else {
            prompt.bbox
        };
        let mut bbox = bbox.map(|b| placement.box_to_input(b));
        if self.manners.boxes_as_points
            && !beside_learned
            && let Some(corners) = bbox.take()
        {
            coords.extend(corners);
            labels.extend([2, 3]);
        }
        coords.extend(prompt.points.iter().flat_map(|p| placement.to_input([p.x, p.y])));
        labels.extend(prompt.points.iter().map(|p| i64::from(p.positive)));
        let points = self.points(&coords, &labels)?;
        let padded = points.is_some() && bbox.is_none();
        let bbox = bbox.map(|b| self.to_device(Tensor::f_from_slice(&b)?.f_reshape([1, 4])?)).transpose()?;
        let mask = match &prompt.mask {
            Some(mask) => Some(self.to_device(self.manners.preprocess.mask_prompt(mask, placement)?)?),
            None => None,
        };
        let points = points.as_ref().map(|(coords, labels)| (coords, labels));
        let (sparse, dense) = self.net.prompt_encoder().forward(points, bbox.as_ref(), mask.as_ref())?;
        let sparse = if beside_learned && padded {
            let tokens = sparse.size3()?.1;
            sparse.f_narrow(1, 0, tokens - 1)?
        } else {
            sparse
        };
        Ok((sparse, dense))
    }

    /// A class that only a person speaks of.
    fn manual(&self, prompt: &Prompt, placement: &Placement) -> Result<Asked, SegmentError> {
        let (sparse, dense) = self.encode_prompt(prompt, placement, false)?;
        let click = prompt.points.len() == 1 && prompt.bbox.is_none() && prompt.mask.is_none();
        let selection = if click && self.manners.candidates_for_a_click {
            MaskSelection::Multiple
        } else {
            self.manners.single
        };
        Ok(Asked { class: prompt.class, sparse, dense, own_dense: prompt.mask.is_some(), selection })
    }

    /// The classes of the predictor. A person's points and boxes are put behind the learned tokens; a person's mask takes
    /// the place of the predicted one, as the decoder has room for one.
    fn predicted(
        &self,
        features: &SamFeatures,
        prompts: &[Prompt],
        placement: &Placement,
    ) -> Result<Vec<Asked>, SegmentError> {
        let Some((ppn, form)) = &self.learned else {
            return Err(SegmentError::Other(
                "this mode needs a prompt predictor, and the model has none".into(),
            ));
        };
        let queries = ppn.learnable_prompts();
        let levels = features.for_ppn(*form)?;
        let prediction = ppn.forward(&levels, queries, self.net.prompt_encoder(), false)?;
        let mut asked = Vec::new();
        for class in 0..queries.size3()?.0 {
            let mut sparse = prediction.sparse.f_narrow(0, class, 1)?;
            let mut dense = prediction.dense.f_narrow(0, class, 1)?;
            let class = class as usize;
            if let Some(prompt) = prompts.iter().find(|p| p.class == class) {
                let (more, mask) = self.encode_prompt(prompt, placement, true)?;
                sparse = Tensor::f_cat(&[sparse, more], 1)?;
                if prompt.mask.is_some() {
                    dense = mask;
                }
            }
            asked.push(Asked { class, sparse, dense, own_dense: true, selection: MaskSelection::Single });
        }
        Ok(asked)
    }

    /// One mask for each class of the batch.
    fn decode(&self, features: &SamFeatures, batch: &[Asked]) -> Result<nn::Decoded, TchError> {
        let cat = |of: fn(&Asked) -> &Tensor| Tensor::f_cat(&batch.iter().map(of).collect::<Vec<_>>(), 0);
        let selection = batch.first().map_or(MaskSelection::Single, |a| a.selection);
        let dense = match batch.first() {
            // The same for all: the decoder then works on the picture once.
            Some(first) if !first.own_dense => first.dense.shallow_clone(),
            _ => cat(|a| &a.dense)?,
        };
        let mut decoded = self.net.decode(features, &cat(|a| &a.sparse)?, &dense, selection)?;
        if selection == MaskSelection::Multiple {
            let best = decoded.iou.f_argmax(1, true)?;
            let (b, _, h, w) = decoded.masks.size4()?;
            let index = best.f_reshape([b, 1, 1, 1])?.f_expand([b, 1, h, w], false)?;
            decoded.masks = decoded.masks.f_gather(1, &index, false)?;
            decoded.iou = decoded.iou.f_gather(1, &best, false)?;
        }
        Ok(decoded)
    }

    fn masks(
        &self,
        decoded: &nn::Decoded,
        batch: &[Asked],
        placement: &Placement,
        keep_logits: bool,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let Cleanup { presence_threshold, max_hole_area, max_sprinkle_area } = self.cleanup;
        let cleaned = if max_hole_area > 0 || max_sprinkle_area > 0 {
            Some(clean(&decoded.masks, max_hole_area, max_sprinkle_area)?)
        } else {
            None
        };
        let answer = Decoded {
            logits: &decoded.masks,
            cleaned: cleaned.as_ref(),
            scores: &decoded.iou,
            presence: decoded.object_score.as_ref(),
        };
        let classes: Vec<usize> = batch.iter().map(|a| a.class).collect();
        let mut masks = self.manners.postprocess.class_masks(&answer, &classes, placement, keep_logits)?;
        for found in masks.iter_mut().filter(|m| m.presence < presence_threshold) {
            found.mask = Mask::empty(placement.frame.0, placement.frame.1);
        }
        Ok(masks)
    }

    fn run(
        &self,
        image: &ImageView<'_>,
        guidance: &Guidance,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let size = (image.width(), image.height());
        let prompts: &[Prompt] = if guidance.mode == Mode::Autonomous { &[] } else { &guidance.prompts };
        let prompts: Vec<Prompt> =
            prompts.iter().map(|p| p.in_pixels(size.0, size.1)).collect::<Result<_, _>>()?;
        let mut classes = BTreeSet::new();
        if let Some(again) = prompts.iter().find(|p| !classes.insert(p.class)) {
            return Err(PromptError::Twice { class: again.class }.into());
        }
        if prompts.is_empty() && !guidance.mode.is_learned() {
            return Ok(Vec::new());
        }
        let (input, placement) = times.time(Stage::Preprocess, || {
            let side = usize::try_from(self.net.input_size()).unwrap_or(0);
            self.manners.preprocess.input(&Rgb::from(image), side)
        })?;
        let input = self.timed(times, Stage::Upload, || self.to_device(input))?;
        let levels = guidance.mode.is_learned()
            && self.learned.as_ref().is_some_and(|(_, form)| *form == PpnForm::HighRes);
        let features = self.timed(times, Stage::Encode, || self.net.encode(&input, levels))?;
        let mut asked = self.timed(times, Stage::Prompt, || {
            let mut asked = match guidance.mode {
                Mode::Manual => Vec::new(),
                Mode::Autonomous | Mode::Assisted => self.predicted(&features, &prompts, &placement)?,
            };
            let known = asked.len();
            let own = prompts.iter().filter(|p| p.class >= known);
            asked.extend(own.map(|p| self.manual(p, &placement)).collect::<Result<Vec<_>, _>>()?);
            Ok::<_, SegmentError>(asked)
        })?;
        asked.sort_by_key(Asked::group);
        let at_once = if self.device.is_cuda() { MAX_BATCH } else { MAX_BATCH_CPU };
        let mut found = Vec::with_capacity(asked.len());
        for batch in asked.chunk_by(|a, b| a.group() == b.group()).flat_map(|group| group.chunks(at_once)) {
            let decoded = self.timed(times, Stage::Decode, || self.decode(&features, batch))?;
            found.extend(
                times.time(Stage::Postprocess, || self.masks(&decoded, batch, &placement, keep_logits))?,
            );
        }
        found.sort_by_key(|m| m.class);
        Ok(found)
    }
}

impl Segmenter for Sam {
    fn info(&self) -> &ModelInfo {
        &self.info
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
}
