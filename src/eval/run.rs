//! A segmenter goes through a data set.

use std::time::Instant;

use super::{Answer, Case, Prompting, Question, views};
use crate::dataset::{ClassLabel, Dataset, Problem, Sample};
use crate::frame::{ImageError, ImageView, PixelFormat, Plane, Rgb, YuvColor};
use crate::mask::Mask;
use crate::segment::{SegmentError, Segmenter};
use crate::stage::StageTimes;

/// Why there is no evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Learned prompts of a model that has none.
    #[error(
        "the mode {mode} needs a prompt predictor, and the model has none; the modes without are box, box-regions and points"
    )]
    NoPredictor {
        /// The mode.
        mode: Prompting,
    },
    /// A class that the predictor did not learn.
    #[error("the mode {mode} needs a predictor of the class {class:?}; this one knows {}", known.join(", "))]
    UnknownClass {
        /// The mode.
        mode: Prompting,
        /// The class.
        class: String,
        /// Those of the predictor.
        known: Vec<String>,
    },
    /// A file that changed.
    #[error(transparent)]
    Data(#[from] Problem),
    /// A picture that is none.
    #[error("{reason}: {image}")]
    Image {
        /// What is wrong.
        reason: ImageError,
        /// Name of the picture.
        image: String,
    },
    /// The segmenter gave no answer.
    #[error("{reason}: {image} ({mode})")]
    Segment {
        /// Why.
        reason: SegmentError,
        /// Name of the picture.
        image: String,
        /// What was asked.
        mode: Prompting,
    },
    /// A case that cannot be drawn.
    #[error("the case cannot be drawn: {reason}: {image} ({mode})")]
    Picture {
        /// Why.
        reason: String,
        /// Name of the picture.
        image: String,
        /// What was asked.
        mode: Prompting,
    },
    /// The segmenter answered with a mask of another size.
    #[error("the mask is not of the picture's size: {image} ({mode})")]
    MaskSize {
        /// Name of the picture.
        image: String,
        /// What was asked.
        mode: Prompting,
    },
}

/// The place of each of `classes` among `learned`, those of the predictor in its order.
///
/// # Errors
/// A learned mode and no predictor, or one that does not know a class.
pub fn places(
    classes: &[ClassLabel],
    learned: &[String],
    mode: Prompting,
) -> Result<Vec<Option<usize>>, EvalError> {
    if mode.is_learned() && learned.is_empty() {
        return Err(EvalError::NoPredictor { mode });
    }
    let place = |class: &ClassLabel| {
        let found = learned.iter().position(|name| *name == class.name);
        if mode.is_learned() && found.is_none() {
            let (class, known) = (class.name.clone(), learned.to_vec());
            return Err(EvalError::UnknownClass { mode, class, known });
        }
        Ok(found)
    };
    classes.iter().map(place).collect()
}

/// What a segmenter says of a picture whose truth is known, and how many milliseconds it took; `None` where there was nothing
/// to ask.
///
/// # Errors
/// The segmenter's.
pub fn answer(
    model: &mut dyn Segmenter,
    (name, image): (&str, &Rgb),
    truth: &[Mask],
    mode: Prompting,
    places: &[Option<usize>],
) -> Result<(Vec<Answer>, Option<f64>), EvalError> {
    let question = Question::new(mode, truth, places);
    let (width, height) = (image.width, image.height);
    if question.guidance.prompts.is_empty() && !mode.is_learned() {
        return Ok((question.gather(Vec::new(), (width, height)), None));
    }
    let data = image.to_rgba();
    let plane = Plane { data: &data, stride: width * 4 };
    let view = ImageView::new(PixelFormat::Rgbx, width, height, YuvColor::default(), vec![plane])
        .map_err(|reason| EvalError::Image { reason, image: name.to_owned() })?;
    let begun = Instant::now();
    let found = model
        .segment(&view, &question.guidance, false, &mut StageTimes::default())
        .map_err(|reason| EvalError::Segment { reason, image: name.to_owned(), mode })?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    if found.iter().any(|m| (m.mask.width(), m.mask.height()) != (width, height)) {
        return Err(EvalError::MaskSize { image: name.to_owned(), mode });
    }
    Ok((question.gather(found, (width, height)), Some(milliseconds)))
}

/// What is evaluated, whatever the model is told.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// The data set.
    pub data: &'a Dataset,
    /// Those of its pictures that are looked at.
    pub chosen: &'a [&'a Sample],
    /// Width and height of a pixel in millimetres, where known.
    pub spacing: Option<(f64, f64)>,
    /// Views of each picture besides itself; see [`views`].
    pub augmented: usize,
}

/// Segments all of `material` and measures every class. `progress` hears how many pictures are done. A view's pixels are as large
/// as its picture's, although a cut enlarges.
///
/// # Errors
/// The first picture that could not be read or segmented, or a class that the predictor does not know.
pub fn evaluate(
    model: &mut dyn Segmenter,
    material: &Material<'_>,
    mode: Prompting,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Case>, EvalError> {
    let Material { data, chosen, spacing, augmented } = *material;
    let learned = model.info().ppn.as_ref().map_or_else(Vec::new, |ppn| ppn.classes.clone());
    let places = places(&data.classes, &learned, mode)?;
    let mut cases = Vec::with_capacity(chosen.len() * data.classes.len() * (augmented + 1));
    for (at, sample) in chosen.iter().enumerate() {
        progress(at);
        let (image, truth) = (data.image(sample)?, data.masks(sample)?);
        for (number, view) in views(&sample.name, augmented).enumerate() {
            let (image, truth) = (view.image(&image), truth.iter().map(|m| view.mask(m)).collect::<Vec<_>>());
            let (answers, milliseconds) = answer(model, (&sample.name, &image), &truth, mode, &places)?;
            for (class, (answer, truth)) in answers.iter().zip(&truth).enumerate() {
                let case = Case::of((&sample.name, number), class, answer, truth, spacing, milliseconds);
                cases.push(case.ok_or_else(|| EvalError::MaskSize { image: sample.name.clone(), mode })?);
            }
        }
    }
    progress(chosen.len());
    Ok(cases)
}
