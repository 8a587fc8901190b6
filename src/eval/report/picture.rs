//! The best, the median and the worst case of a class, drawn: truth and answer as outlines on the picture.

use std::sync::Arc;

use image::ExtendedColorType;

use super::Evaluation;
use crate::eval::{Case, EvalError, Material, answer, places};
use crate::frame::{
    CaptureTime, FrameId, FrameMeta, ImageError, ImageViewMut, PixelFormat, PlaneMut, Rgb, YuvColor,
};
use crate::mask::{ClassMask, Mask, Paired, Segmentation};
use crate::overlay::{ClassStyle, Drawable, Overlay, Style};
use crate::segment::Segmenter;
use crate::stage::StageTimes;
use crate::state::AiState;
use crate::whole;

/// Colours of the truth and of the answer, R, G, B.
pub const COLOURS: [[u8; 3]; 2] = [[60, 205, 255], [255, 205, 50]];

/// One case, drawn.
#[derive(Clone, Debug)]
pub struct Picture {
    /// `best`, `median` or `worst`.
    pub rank: &'static str,
    /// What it shows.
    pub case: Case,
    /// The picture.
    pub png: Vec<u8>,
}

/// The best, the median (the better of the middle two) and the worst case of `class` by Dice among the pictures as they are; of
/// equally good ones the first. Fewer where there are fewer cases.
pub fn ranked(cases: &[Case], class: usize) -> Vec<(&'static str, &Case)> {
    let own = cases.iter().filter(|c| c.class == class && c.view == 0);
    let mut scored: Vec<(f64, &Case)> = own.filter_map(|c| Some((c.dice()?, c))).collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let n = scored.len();
    let places: &[(&'static str, usize)] = match n {
        0 => &[],
        1 => &[("only", 0)],
        2 => &[("best", 0), ("worst", 1)],
        _ => &[("best", 0), ("median", (n - 1) / 2), ("worst", n - 1)],
    };
    places.iter().filter_map(|&(rank, at)| Some((rank, scored.get(at)?.1))).collect()
}

impl Evaluation {
    /// Draws the cases of [`ranked`], for each class. The segmenter is asked again for their pictures: masks of a whole data set
    /// would fill the memory.
    ///
    /// # Errors
    /// Those of [`evaluate`](crate::eval::evaluate), a picture that cannot be drawn.
    pub fn pictures(
        &self,
        model: &mut dyn Segmenter,
        material: &Material<'_>,
    ) -> Result<Vec<Vec<Picture>>, EvalError> {
        let learned = model.info().ppn.as_ref().map_or_else(Vec::new, |ppn| ppn.classes.clone());
        let Material { data, chosen, .. } = *material;
        let places = places(&data.classes, &learned, self.mode)?;
        let mut of_class = |class: usize| {
            let mut pictures = Vec::new();
            for (rank, case) in ranked(&self.cases, class) {
                let Some(sample) = chosen.iter().find(|s| s.name == case.image) else { continue };
                let (image, truth) = (data.image(sample)?, data.masks(sample)?);
                let (answers, _) = answer(model, (&case.image, &image), &truth, self.mode, &places)?;
                let (Some(answer), Some(truth)) = (answers.get(class), truth.get(class)) else { continue };
                let failed =
                    |e: String| EvalError::Picture { reason: e, image: case.image.clone(), mode: self.mode };
                let drawn = outlined(&image, truth, &answer.mask).map_err(|e| failed(e.to_string()))?;
                let png = whole::png(&drawn.data, drawn.width, drawn.height, ExtendedColorType::Rgb8);
                let png = png.map_err(|e| failed(e.to_string()))?;
                pictures.push(Picture { rank, case: case.clone(), png });
            }
            Ok(pictures)
        };
        (0..data.classes.len()).map(&mut of_class).collect()
    }
}

/// `image` with the outlines of the truth and of the answer.
fn outlined(image: &Rgb, truth: &Mask, said: &Mask) -> Result<Rgb, ImageError> {
    let names = ["truth", "answer"];
    let classes =
        names.iter().zip(COLOURS).map(|(name, color)| ClassStyle { name: (*name).to_owned(), color });
    let style = Style { contour: true, mark: true, ..Style::off() };
    let mut overlay = Overlay::new(style, classes.collect());
    let mask = |(class, mask): (usize, &Mask)| ClassMask {
        class,
        mask: mask.clone(),
        score: f32::NAN,
        presence: 1.0,
        logits: None,
    };
    let masks = [truth, said].into_iter().enumerate().map(mask).collect();
    let meta = FrameMeta { id: FrameId::default(), pts: None, duration: None, capture: CaptureTime::now() };
    let segmentation =
        Arc::new(Segmentation { frame: meta, masks, times: StageTimes::default(), remark: None });
    let mut data = image.to_rgba();
    let plane = PlaneMut { data: &mut data, stride: image.width * 4 };
    let mut view =
        ImageViewMut::new(PixelFormat::Rgbx, image.width, image.height, YuvColor::default(), vec![plane])?;
    if let Ok(paired) = Paired::new(&meta, segmentation) {
        // Masks were compared with the truth before, so they have its size.
        overlay.draw(&mut view, Drawable::Paired(&paired), &AiState::Live).ok();
    }
    Ok(Rgb::from(&view.as_view()))
}
