//! A network of the SAM kind as a [`Segmenter`], with or without a prompt predictor.

mod drawn;

use std::borrow::Cow;

use tch::{Device, Kind, TchError, Tensor};

pub(super) use drawn::{Ahead, Made};

use crate::frame::{ImageView, Rgb};
use crate::mask::ClassMask;
use crate::nn::SamFeatures;
use crate::segment::graph::{Engine, Lane, Step, Tensors};
use crate::segment::marks::Clock;
use crate::segment::network::Network;
use crate::segment::postprocess::Decoded;
use crate::segment::preprocess::{Picture, Placement, Resident};
use crate::segment::prompt::once_a_class;
use crate::segment::said::Said;
use crate::segment::views::{Views, Way};
use crate::segment::{Guidance, Mode, ModelInfo, Prompt, SegmentError, Segmenter};
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
    /// Where classes overlap, a pixel is of the one with the highest logit.
    pub non_overlapping: bool,
}

/// A network of the SAM kind.
///
/// - A frame is encoded once a view, however many classes are asked for.
/// - Classes whose prompts make the same number of tokens are decoded together.
/// - An error leaves it as it was: nothing is kept from frame to frame.
/// - On a GPU a frame is sent as it is and prepared there, its masks are made there, and nothing waits for the GPU but their way back.
#[derive(Debug)]
pub struct Sam {
    network: Network,
    cleanup: Cleanup,
    info: ModelInfo,
    /// In how many views a frame is shown to the network where the predictor alone speaks.
    views: usize,
    /// Frames are prepared, and masks made, where the network is.
    resident: Option<Resident>,
    clock: Clock,
    steps: Steps,
}

/// What is done on every frame, recorded where a GPU can repeat it.
#[derive(Debug, Default)]
struct Steps {
    /// From an input to what the encoder says of it.
    encode: Step<Tensor, SamFeatures>,
    /// From that to what is said of the predictor's classes where it alone speaks.
    answer: Step<SamFeatures, Vec<Said>>,
}

impl Sam {
    /// Wraps a network; `info` is what reports say of it.
    pub fn new(network: Network, cleanup: Cleanup, info: ModelInfo) -> Self {
        let device = network.device();
        let clock = Clock::new(device);
        let mut sam =
            Self { network, cleanup, info, views: 1, resident: None, clock, steps: Steps::default() };
        sam.work_on_device(device.is_cuda());
        sam
    }

    /// Whether frames are prepared, and masks made, where the network is: so on a GPU. On a CPU the answers are the same, and later.
    pub fn work_on_device(&mut self, yes: bool) {
        let how = self.network.manners().preprocess;
        self.resident = yes.then(|| Resident::new(how, self.network.device()));
    }

    /// See [`Sam::work_on_device`].
    pub(super) fn works_on_device(&self) -> bool {
        self.resident.is_some()
    }

    /// Shows each frame to the network in so many views, 1 to [`MAX_VIEWS`](crate::segment::MAX_VIEWS), where the predictor alone speaks, and takes
    /// the mean of its answers: it costs as many times as much.
    pub fn see_in(&mut self, views: usize) {
        self.views = views;
    }

    /// Sends frames by `lane`, where they are prepared on the device.
    pub fn send_by(&mut self, lane: Box<dyn Lane>) {
        if let Some(resident) = &mut self.resident {
            resident.send_by(lane);
        }
    }

    /// Whether everything that can be is recorded.
    #[cfg(test)]
    pub(super) fn repeats(&self) -> bool {
        self.steps.encode.has_recorded() && self.steps.answer.has_recorded()
    }

    /// Lets engines record what is the same work on every frame and repeat it: one each, as each has memory of its own.
    ///
    /// # Errors
    /// Why there is none.
    pub fn record_by(&mut self, engine: impl Fn() -> Result<Box<dyn Engine>, String>) -> Result<(), String> {
        self.steps = Steps { encode: Step::recorded_by(engine()?), answer: Step::recorded_by(engine()?) };
        Ok(())
    }

    /// Puts the queries of another data set in place of the predictor's, see [`Network::set_queries`].
    pub fn set_queries(&mut self, queries: &Tensor) {
        self.network.set_queries(queries);
        self.steps.answer.forget();
    }

    /// The network itself.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// See [`Clock::timed`].
    pub(super) fn timed<T, E: From<TchError>>(
        &self,
        times: &mut StageTimes,
        stage: Stage,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.clock.timed(times, stage, work)
    }

    /// A picture as the network takes it, on its device, and where it lies in that.
    fn input(
        &mut self,
        picture: &Picture<'_>,
        times: &mut StageTimes,
    ) -> Result<(Tensor, Placement), SegmentError> {
        let (network, clock) = (&self.network, &self.clock);
        let side = network.input_size();
        clock.begin();
        if let Picture::View(view) = picture
            && let Some(resident) = &mut self.resident
            && times.time(Stage::Preprocess, || resident.takes(view, side))?
        {
            clock.pass();
            let bytes = clock.timed(times, Stage::Upload, || resident.send(view))?;
            let input = clock.timed(times, Stage::Preprocess, || resident.input(view, &bytes))?;
            return Ok(input);
        }
        let (input, placement) = times.time(Stage::Preprocess, || {
            let picture = match picture {
                Picture::Rgb(rgb) => Cow::Borrowed(*rgb),
                Picture::View(view) => Cow::Owned(Rgb::from(*view)),
            };
            network.manners().preprocess.input(&picture, side)
        })?;
        clock.pass();
        let input = clock.timed(times, Stage::Upload, || input.f_to_device(network.device()))?;
        Ok((input, placement))
    }

    /// What `encode` makes of a picture, and where that lies in the input. `step` repeats what it has recorded; there is one for each
    /// `encode`, whose work depends on nothing else that changes.
    pub(super) fn features<T: Tensors>(
        &mut self,
        picture: &Picture<'_>,
        step: &mut Step<Tensor, T>,
        encode: impl Fn(&Network, &Tensor) -> Result<T, TchError>,
        times: &mut StageTimes,
    ) -> Result<(T, Placement), SegmentError> {
        let (input, placement) = self.input(picture, times)?;
        Ok((self.encoded(&input, step, encode, times)?, placement))
    }

    fn encoded<T: Tensors>(
        &self,
        input: &Tensor,
        step: &mut Step<Tensor, T>,
        encode: impl Fn(&Network, &Tensor) -> Result<T, TchError>,
        times: &mut StageTimes,
    ) -> Result<T, SegmentError> {
        let work = |input: &Tensor| encode(&self.network, input);
        Ok(self.timed(times, Stage::Encode, || step.run(input, &work))?)
    }

    /// A frame is done. Where there are masks, its answer has been read, and so all that it was made of has been used.
    pub(super) fn done(&mut self, masks: &[ClassMask], times: &mut StageTimes) {
        if let Some(resident) = self.resident.as_mut().filter(|_| !masks.is_empty()) {
            resident.settled();
        }
        self.clock.collect(times);
    }

    /// What is done with masks.
    pub(super) fn cleanup(&self) -> &Cleanup {
        &self.cleanup
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
        let answer = Decoded {
            logits: &logits,
            cleaned: None,
            scores: &scores,
            presence: None,
            non_overlapping: None,
        };
        self.network.manners().postprocess.class_masks(&answer, &classes, placement, false)
    }

    /// The masks of a picture that has been encoded, which is its only view. `prompts` are in pixels of the frame.
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
        let answers = self.answers(features, placement, mode, prompts, times)?;
        self.answered(&answers, placement, keep_logits, times)
    }

    /// What the decoder says of all classes that are asked for, as many at once as suit the device.
    fn answers(
        &self,
        features: &SamFeatures,
        placement: &Placement,
        mode: Mode,
        prompts: &[Prompt],
        times: &mut StageTimes,
    ) -> Result<Vec<Said>, SegmentError> {
        let question = self.timed(times, Stage::Prompt, || {
            self.network.ask(features, mode, prompts, placement, /* train */ false)
        })?;
        let mut answers = Vec::new();
        for batch in question.batches(self.network.device()) {
            let decoded = self.timed(times, Stage::Decode, || self.network.answer(features, batch))?;
            answers.extend(Said::of(batch, decoded)?);
        }
        Ok(answers)
    }

    /// What the decoder says where the predictor alone speaks; all of it is charged to the decoder where it is recorded.
    fn answers_alone(
        &self,
        features: &SamFeatures,
        placement: &Placement,
        step: &mut Step<SamFeatures, Vec<Said>>,
        times: &mut StageTimes,
    ) -> Result<Vec<Said>, SegmentError> {
        if !step.is_recorded() {
            return self.answers(features, placement, Mode::Autonomous, &[], times);
        }
        let work = |features: &SamFeatures| {
            let question =
                self.network.ask(features, Mode::Autonomous, &[], placement, /* train */ false);
            let question = question.map_err(SegmentError::into_torch)?;
            let mut answers = Vec::new();
            for batch in question.batches(self.network.device()) {
                answers.extend(Said::of(batch, self.network.answer(features, batch)?)?);
            }
            Ok(answers)
        };
        Ok(self.timed(times, Stage::Decode, || step.run(features, &work))?)
    }

    /// The mean over the views of a picture where nobody but the predictor speaks, in place of what was said of it as it is.
    fn seen_otherwise(
        &self,
        input: &Tensor,
        placement: &Placement,
        steps: &mut Steps,
        answers: Vec<Said>,
        times: &mut StageTimes,
    ) -> Result<Vec<Said>, SegmentError> {
        let mut views = Views::default();
        for way in Way::others(self.views) {
            let view = self.timed(times, Stage::Preprocess, || way.seen(input, placement))?;
            let features = self.encoded(&view, &mut steps.encode, Network::encode, times)?;
            let said = self.answers_alone(&features, placement, &mut steps.answer, times)?;
            self.timed(times, Stage::Postprocess, || match Said::together(&said)? {
                Some(said) => views.add(*way, placement, said),
                None => Ok(()),
            })?;
        }
        let mean = |said: Said| if said.alone { views.mean(said) } else { Ok(said) };
        let mean = || answers.into_iter().map(mean).collect::<Result<_, TchError>>();
        Ok(self.timed(times, Stage::Postprocess, mean)?)
    }

    /// What was said, as masks of the frame.
    fn answered(
        &self,
        answers: &[Said],
        placement: &Placement,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let together = if self.cleanup.non_overlapping { Said::together(answers)? } else { None };
        // Of classes that are made apart none knows what the others claim. By their numbers, so that the first of equal ones is
        // whatever was asked how.
        let all = together.map(|said| said.in_order()).transpose()?;
        let answers = all.as_ref().map_or(answers, std::slice::from_ref);
        let made = answers.iter().map(|said| self.made(said, placement, keep_logits, times));
        let made = made.collect::<Result<_, _>>()?;
        self.masks(made, times)
    }

    /// What is said of a frame, and where that lies in the input.
    fn asked(
        &mut self,
        image: &ImageView<'_>,
        mode: Mode,
        prompts: &[Prompt],
        steps: &mut Steps,
        times: &mut StageTimes,
    ) -> Result<(Vec<Said>, Placement), SegmentError> {
        let (input, placement) = self.input(&Picture::View(image), times)?;
        let features = self.encoded(&input, &mut steps.encode, Network::encode, times)?;
        let mut answers = if prompts.is_empty() {
            self.answers_alone(&features, &placement, &mut steps.answer, times)?
        } else {
            self.answers(&features, &placement, mode, prompts, times)?
        };
        if self.views > 1 && answers.iter().any(|said| said.alone) {
            answers = self.seen_otherwise(&input, &placement, steps, answers, times)?;
        }
        Ok((answers, placement))
    }

    fn run(
        &mut self,
        image: &ImageView<'_>,
        guidance: &Guidance,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let size = (image.width(), image.height());
        let prompts: Vec<Prompt> =
            guidance.standing().iter().map(|p| p.in_pixels(size.0, size.1)).collect::<Result<_, _>>()?;
        once_a_class(&prompts)?;
        if prompts.is_empty() && !guidance.mode.is_learned() {
            return Ok(Vec::new());
        }
        let mut steps = std::mem::take(&mut self.steps);
        let answers = self.asked(image, guidance.mode, &prompts, &mut steps, times);
        self.steps = steps;
        let (answers, placement) = answers?;
        let masks = self.answered(&answers, &placement, keep_logits, times)?;
        self.done(&masks, times);
        Ok(masks)
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
