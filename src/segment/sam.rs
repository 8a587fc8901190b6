//! A network of the SAM kind as a [`Segmenter`], with or without a prompt predictor.

use tch::{Device, Kind, TchError, Tensor};

use super::network::Network;
use super::postprocess::{Decoded, clean};
use super::preprocess::Placement;
use super::{Guidance, Mode, ModelInfo, Prompt, SegmentError, Segmenter};
use crate::frame::{ImageView, Rgb};
use crate::mask::{ClassMask, Mask};
use crate::nn::SamFeatures;
use crate::stage::{Stage, StageTimes};

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

/// What a decoder says of `B` classes: logits `[B, 1, h, w]`, predicted IoU `[B, 1]` or `[B]`, logits of presence `[B, 1]`.
pub(super) struct Answer<'a> {
    pub logits: &'a Tensor,
    pub iou: &'a Tensor,
    pub object_score: Option<&'a Tensor>,
}

/// A network of the SAM kind.
///
/// - A frame is encoded once, however many classes are asked for.
/// - Classes whose prompts make the same number of tokens are decoded together.
/// - An error leaves it as it was: nothing is kept from frame to frame.
#[derive(Debug)]
pub struct Sam {
    network: Network,
    cleanup: Cleanup,
    info: ModelInfo,
}

impl Sam {
    /// Wraps a network; `info` is what reports say of it.
    pub fn new(network: Network, cleanup: Cleanup, info: ModelInfo) -> Self {
        Self { network, cleanup, info }
    }

    /// Puts the queries of another data set in place of the predictor's, see [`Network::set_queries`].
    pub fn set_queries(&mut self, queries: &Tensor) {
        self.network.set_queries(queries);
    }

    /// The network itself.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Kernels are queued on a GPU; a stage ends when they have run. A copy waits for them and, other than
    /// `tch::Cuda::synchronize`, gives the error of one that failed instead of a panic.
    fn settle(&self) -> Result<(), TchError> {
        if self.network.device().is_cuda() {
            drop(Tensor::f_zeros([1], (Kind::Float, self.network.device()))?.f_to_device(Device::Cpu)?);
        }
        Ok(())
    }

    /// Runs `work` to its end and charges its time to `stage`.
    pub(super) fn timed<T, E: From<TchError>>(
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

    /// A picture as the network takes it, on its device, and where it lies in that.
    pub(super) fn input(
        &self,
        picture: &Rgb,
        times: &mut StageTimes,
    ) -> Result<(Tensor, Placement), SegmentError> {
        let network = &self.network;
        let (input, placement) = times
            .time(Stage::Preprocess, || network.manners().preprocess.input(picture, network.input_size()))?;
        let input = self.timed(times, Stage::Upload, || input.f_to_device(network.device()))?;
        Ok((input, placement))
    }

    /// What is done with masks.
    pub(super) fn cleanup(&self) -> &Cleanup {
        &self.cleanup
    }

    /// The decoder's answers about `classes` as masks of the frame.
    pub(super) fn masks(
        &self,
        answer: &Answer<'_>,
        classes: &[usize],
        placement: &Placement,
        keep_logits: bool,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let Cleanup { presence_threshold, max_hole_area, max_sprinkle_area } = self.cleanup;
        let cleaned = if max_hole_area > 0 || max_sprinkle_area > 0 {
            Some(clean(answer.logits, max_hole_area, max_sprinkle_area)?)
        } else {
            None
        };
        let decoded = Decoded {
            logits: answer.logits,
            cleaned: cleaned.as_ref(),
            scores: answer.iou,
            presence: answer.object_score,
        };
        let mut masks =
            self.network.manners().postprocess.class_masks(&decoded, classes, placement, keep_logits)?;
        for found in masks.iter_mut().filter(|m| m.presence < presence_threshold) {
            found.mask = Mask::empty(placement.frame.0, placement.frame.1);
        }
        Ok(masks)
    }

    /// The masks that the predictor's pyramid alone makes of a picture that has been encoded; see [`Network::first_masks`].
    ///
    /// # Errors
    /// As [`Segmenter::segment`]; a predictor without a pyramid.
    pub fn first_masks(
        &self,
        features: &SamFeatures,
        placement: &Placement,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let logits = self.network.first_masks(features, /* train */ false)?;
        let classes: Vec<usize> = (0..usize::try_from(logits.size4()?.0).unwrap_or(0)).collect();
        let scores = Tensor::f_zeros([classes.len() as i64, 1], (Kind::Float, Device::Cpu))?;
        let answer = Decoded { logits: &logits, cleaned: None, scores: &scores, presence: None };
        self.network.manners().postprocess.class_masks(&answer, &classes, placement, false)
    }

    /// The masks of a picture that has been encoded. `prompts` are in pixels of the frame.
    ///
    /// # Errors
    /// As [`Segmenter::segment`].
    pub fn segment_features(
        &self,
        features: &SamFeatures,
        placement: &Placement,
        mode: Mode,
        prompts: &[Prompt],
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let question = self.timed(times, Stage::Prompt, || {
            self.network.ask(features, mode, prompts, placement, /* train */ false)
        })?;
        let mut found = Vec::with_capacity(question.asked.len());
        for batch in question.batches(self.network.device()) {
            let decoded = self.timed(times, Stage::Decode, || self.network.decode(features, batch))?;
            let answer = Answer {
                logits: &decoded.masks,
                iou: &decoded.iou,
                object_score: decoded.object_score.as_ref(),
            };
            let classes: Vec<usize> = batch.iter().map(|a| a.class).collect();
            found.extend(
                times.time(Stage::Postprocess, || self.masks(&answer, &classes, placement, keep_logits))?,
            );
        }
        found.sort_by_key(|m| m.class);
        Ok(found)
    }

    fn run(
        &self,
        image: &ImageView<'_>,
        guidance: &Guidance,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let size = (image.width(), image.height());
        let prompts: Vec<Prompt> =
            guidance.standing().iter().map(|p| p.in_pixels(size.0, size.1)).collect::<Result<_, _>>()?;
        if prompts.is_empty() && !guidance.mode.is_learned() {
            return Ok(Vec::new());
        }
        let picture = times.time(Stage::Preprocess, || Rgb::from(image));
        let (input, placement) = self.input(&picture, times)?;
        let learned = guidance.mode.is_learned();
        let features = self.timed(times, Stage::Encode, || self.network.encode(&input, learned))?;
        self.segment_features(&features, &placement, guidance.mode, &prompts, keep_logits, times)
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
