//! A network with its prompt predictor: what is asked of it and what it answers, before masks are made.
//!
//! Segmenting and training ask in the same way; only training looks at what the predictor said in between.

use tch::{Device, TchError, Tensor};

use super::click::Clicked;
use super::manners::Manners;
use super::preprocess::Placement;
use super::prompt::once_a_class;
use super::question::{Asked, Question};
use super::within::Within;
use super::{Mode, Prompt, SegmentError};
use crate::mask::Mask;
use crate::nn::{self, MaskSelection, PpnForm, Prediction, PromptPredictor, SamFeatures};

/// Logit of a cell that is certainly outside.
pub(super) const OUTSIDE: f64 = -10.0;

/// IoU of a person's box with the extent of what the predictor has found in it, below which the predictor has found something
/// else and is not listened to (`benches/results/training.md`).
const AGREEMENT: f64 = 0.5;

/// A network of the SAM kind with its weights on one device, and the prompt predictor in front of it if there is one.
#[derive(Debug)]
pub struct Network {
    net: nn::Sam,
    learned: Option<(PromptPredictor, PpnForm)>,
    manners: Manners,
    device: Device,
}

impl Network {
    /// A network whose weights are on `device`. The classes of the predictor are the first, in its order.
    pub fn new(
        net: nn::Sam,
        learned: Option<(PromptPredictor, PpnForm)>,
        manners: Manners,
        device: Device,
    ) -> Self {
        Self { net, learned, manners, device }
    }

    /// How it is asked.
    pub fn manners(&self) -> &Manners {
        &self.manners
    }

    /// SAM 2 itself, for whoever follows objects through a video.
    pub(super) fn sam2(&self) -> Option<&nn::Sam2> {
        self.net.sam2()
    }

    /// Where its weights are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Side of the square input in pixels.
    pub fn input_size(&self) -> usize {
        usize::try_from(self.net.input_size()).unwrap_or(0)
    }

    /// Puts the queries of another data set `[K, N, 256]` in place of the predictor's.
    pub fn set_queries(&mut self, queries: &Tensor) {
        if let Some((ppn, _)) = &mut self.learned {
            ppn.set_learnable_prompts(queries.shallow_clone());
        }
    }

    /// A preprocessed picture `[1, 3, S, S]` to its features, with those that only the predictor looks at if there is one that does.
    ///
    /// # Errors
    /// libtorch's.
    pub fn encode(&self, input: &Tensor) -> Result<SamFeatures, TchError> {
        self.encode_to(input, None)
    }

    /// The same, with what so many of the encoder's last blocks get.
    ///
    /// # Errors
    /// libtorch's.
    pub fn encode_to(&self, input: &Tensor, blocks: Option<usize>) -> Result<SamFeatures, TchError> {
        let levels = self.learned.as_ref().is_some_and(|(_, form)| *form != PpnForm::SingleScale);
        self.net.encode(input, levels, blocks)
    }

    /// Runs the encoder's last `blocks` blocks anew; see [`nn::Sam::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(&self, features: &SamFeatures, blocks: usize) -> Result<SamFeatures, TchError> {
        self.net.finish(features, blocks)
    }

    /// Logits of the masks that the predictor's pyramid alone makes of its classes, `[K, 1, 4h, 4w]`.
    ///
    /// # Errors
    /// A predictor without a pyramid, libtorch's.
    pub fn first_masks(&self, features: &SamFeatures, train: bool) -> Result<Tensor, TchError> {
        let Some((ppn, form)) = &self.learned else {
            return Err(TchError::Shape("there is no prompt predictor".into()));
        };
        ppn.first_masks(&features.for_ppn(*form)?, ppn.learnable_prompts(), train)
    }

    /// What to ask of a picture: with [`Mode::Manual`] the `prompts` alone, else the predictor for all of its classes with the
    /// prompts added (which must be none with [`Mode::Autonomous`]). `prompts` are in pixels of the frame. `train` drops parts
    /// of the predictor at random.
    ///
    /// # Errors
    /// Two prompts of a class, a mode that needs a predictor where there is none, libtorch's.
    pub fn ask(
        &self,
        features: &SamFeatures,
        mode: Mode,
        prompts: &[Prompt],
        placement: &Placement,
        train: bool,
    ) -> Result<Question, SegmentError> {
        once_a_class(prompts)?;
        let (mut asked, prediction) = match mode {
            Mode::Manual => (Vec::new(), None),
            Mode::Autonomous | Mode::Assisted => {
                let (asked, prediction) = self.predicted(features, prompts, placement, train)?;
                (asked, Some(prediction))
            }
        };
        let known = asked.len();
        let own = prompts.iter().filter(|p| p.class >= known);
        asked.extend(own.map(|p| self.manual(p, placement)).collect::<Result<Vec<_>, _>>()?);
        asked.sort_by_key(Asked::group);
        Ok(Question { asked, prediction })
    }

    fn to_device(&self, tensor: Tensor) -> Result<Tensor, TchError> {
        nn::sent(&tensor, self.device)
    }

    /// Points `[1, N, 2]` in pixels of the input, and their labels.
    pub(super) fn points(
        &self,
        coords: &[f32],
        labels: &[i64],
    ) -> Result<Option<(Tensor, Tensor)>, TchError> {
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
        let around = |mask: &Mask| mask.bounds().map(|b| b.corners());
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
        Ok(Asked {
            class: prompt.class,
            sparse,
            dense,
            own_dense: prompt.mask.is_some(),
            interim: None,
            selection,
            alone: false,
        })
    }

    /// The classes of the predictor. Of a pyramid its interim masks are part of what is asked: see [`Network::answer`]. A
    /// person's points and boxes are put behind the learned tokens; a person's mask takes the place of the predicted one, as the
    /// decoder has room for one. Where the predicted box is the one around the predicted mask, a person's box or mask takes its
    /// place, and to a box the predicted mask is cut; if that leaves something that the box is not around, the person's prompt is
    /// used alone. Clicks without a box choose among what was predicted; where nothing was, the click is used alone, or with a
    /// network that knows boxes alone a box around what it makes of the prediction.
    fn predicted(
        &self,
        features: &SamFeatures,
        prompts: &[Prompt],
        placement: &Placement,
        train: bool,
    ) -> Result<(Vec<Asked>, Prediction), SegmentError> {
        let Some((ppn, form)) = &self.learned else {
            return Err(SegmentError::Other(
                "this mode needs a prompt predictor, and the model has none".into(),
            ));
        };
        let queries = ppn.learnable_prompts();
        let levels = features.for_ppn(*form)?;
        let prediction = ppn.forward(&levels, queries, self.net.prompt_encoder(), train)?;
        let mut asked = Vec::new();
        for class in 0..queries.size3()?.0 {
            let mut sparse = prediction.sparse.f_narrow(0, class, 1)?;
            let mut dense = prediction.dense.f_narrow(0, class, 1)?;
            let mut interim = (*form == PpnForm::Pyramid)
                .then(|| prediction.interim_mask.f_narrow(0, class, 1))
                .transpose()?;
            let class = class as usize;
            let told = prompts.iter().find(|p| p.class == class);
            if let Some(prompt) = told {
                let cut = match (prompt.bbox, &interim) {
                    (Some(bbox), Some(interim)) => {
                        Some(Within::new(interim, placement.box_to_input(bbox), self.net.input_size())?)
                    }
                    _ => None,
                };
                if cut.as_ref().is_some_and(|cut| cut.agreement < AGREEMENT) {
                    asked.push(self.manual(prompt, placement)?);
                    continue;
                }
                let clicks = !prompt.points.is_empty() && prompt.bbox.is_none() && prompt.mask.is_none();
                let clicked = match interim.as_ref().filter(|_| clicks) {
                    Some(interim) => {
                        let clicks =
                            prompt.points.iter().map(|p| (placement.to_input([p.x, p.y]), p.positive));
                        Some(Clicked::new(interim, &clicks.collect::<Vec<_>>(), placement)?)
                    }
                    None => None,
                };
                if let Some(clicked) = clicked.as_ref().filter(|clicked| clicked.surprised) {
                    let bbox = Some(placement.box_to_frame(clicked.bbox));
                    let around = Prompt { class, bbox, ..Prompt::default() };
                    let told = if self.manners.candidates_for_a_click { prompt } else { &around };
                    asked.push(self.manual(told, placement)?);
                    continue;
                }
                let (more, mask) = self.encode_prompt(prompt, placement, true)?;
                let replaced = prompt.bbox.is_some() || prompt.mask.is_some();
                if replaced && *form == PpnForm::Pyramid {
                    // The box around the predicted mask would contradict the person's box or mask.
                    sparse = sparse.f_narrow(1, 2, sparse.size3()?.1 - 2)?;
                }
                if let Some(cut) = cut {
                    // So would what lies outside of it.
                    dense = self.net.prompt_encoder().forward(None, None, Some(&cut.logits))?.1;
                    // A box that is a little too small shall not cut what the decoder finds beyond it.
                    interim = None;
                }
                if let Some(clicked) = clicked {
                    let bbox = self.to_device(Tensor::f_from_slice(&clicked.bbox)?.f_reshape([1, 4])?)?;
                    let (around, mask) =
                        self.net.prompt_encoder().forward(None, Some(&bbox), Some(&clicked.logits))?;
                    let queries = sparse.f_narrow(1, 2, sparse.size3()?.1 - 2)?;
                    (sparse, dense) = (Tensor::f_cat(&[around, queries], 1)?, mask);
                    interim = Some(clicked.logits);
                }
                sparse = Tensor::f_cat(&[sparse, more], 1)?;
                if prompt.mask.is_some() {
                    (dense, interim) = (mask, None);
                }
            }
            let alone = told.is_none();
            let selection = MaskSelection::Single;
            asked.push(Asked { class, sparse, dense, own_dense: true, interim, selection, alone });
        }
        Ok((asked, prediction))
    }

    /// One mask for each class of the batch: the decoder's, or the mean of the decoder's and the predictor's own.
    ///
    /// # Errors
    /// libtorch's.
    pub fn answer(&self, features: &SamFeatures, batch: &[Asked]) -> Result<nn::Decoded, TchError> {
        let mut decoded = self.decode(features, batch)?;
        // All of a batch have one, or none has.
        let interim: Vec<&Tensor> = batch.iter().filter_map(|asked| asked.interim.as_ref()).collect();
        if !interim.is_empty() {
            let interim = Tensor::f_cat(&interim, 0)?.f_to_kind(decoded.masks.kind())?;
            decoded.masks = decoded.masks.f_add(&interim)?.f_mul_scalar(0.5)?;
        }
        Ok(decoded)
    }

    /// The decoder's mask for each class of the batch.
    ///
    /// # Errors
    /// libtorch's.
    pub fn decode(&self, features: &SamFeatures, batch: &[Asked]) -> Result<nn::Decoded, TchError> {
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
}
