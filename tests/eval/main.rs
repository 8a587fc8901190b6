//! An evaluation from the question to the report, with stand-ins for the model and figures by hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod figures;
mod questions;
mod reports;

use std::path::Path;

use sonomask::dataset::{ClassLabel, Dataset, DatasetSpec, MaskLayout, Sample};
use sonomask::eval::{Case, Material, Overlap};
use sonomask::frame::ImageView;
use sonomask::mask::{ClassMask, Mask};
use sonomask::segment::{Guidance, Mode, ModelInfo, PpnInfo, SegmentError, Segmenter};
use sonomask::stage::StageTimes;

/// Two regions of `a` that touch at a corner with a third apart, and one of `b`.
const SCENE: [&str; 6] = ["aa......", "aa......", "..a...aa", "......aa", "bbb.....", "bbb....."];

/// Fills the box of a prompt, or the pixel of a click; a predictor's class that nobody prompts gets the upper left pixel.
struct Filler {
    info: ModelInfo,
    asked: Vec<Guidance>,
}

fn filler(learned: &[&str]) -> Filler {
    let classes: Vec<String> = learned.iter().map(|&name| name.to_owned()).collect();
    let ppn =
        PpnInfo { form: "single-scale", dataset: "d".into(), classes, sha256: None, changes_features: false };
    let info = ModelInfo {
        family: "filler <1>".into(),
        weights_sha256: "00ff".into(),
        input_size: 8,
        precision: "fp32".into(),
        parameters: 0,
        weights_bytes: 0,
        ppn: (!learned.is_empty()).then_some(ppn),
        device: "cpu".into(),
    };
    Filler { info, asked: Vec::new() }
}

impl Segmenter for Filler {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn segment(
        &mut self,
        image: &ImageView<'_>,
        guidance: &Guidance,
        _keep_logits: bool,
        _times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        self.asked.push(guidance.clone());
        let learned = match guidance.mode {
            Mode::Manual => 0,
            _ => self.info.ppn.as_ref().map_or(0, |ppn| ppn.classes.len()),
        };
        let mut classes: Vec<usize> = (0..learned).collect();
        classes.extend(guidance.prompts.iter().map(|p| p.class).filter(|class| *class >= learned));
        let fill = |class: usize| {
            let mut mask = Mask::empty(image.width(), image.height());
            let prompt = guidance.prompts.iter().find(|p| p.class == class);
            match (prompt.and_then(|p| p.bbox), prompt.and_then(|p| p.points.first())) {
                (Some([x0, y0, x1, y1]), _) => {
                    for (x, y) in (x0 as usize..x1 as usize)
                        .flat_map(|x| (y0 as usize..y1 as usize).map(move |y| (x, y)))
                    {
                        mask.set(x, y, true);
                    }
                }
                (None, Some(point)) => mask.set(point.x as usize, point.y as usize, true),
                (None, None) => mask.set(0, 0, true),
            }
            ClassMask { class, mask, score: 0.5, presence: 1.0, logits: None }
        };
        Ok(classes.into_iter().map(fill).collect())
    }
}

/// Writes pictures with masks in letters, `a` is 1 and `b` is 2, and opens them.
fn dataset(dir: &Path, scenes: &[(&str, &[&str])]) -> Dataset {
    for folder in ["imgs", "gts"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    for (name, rows) in scenes {
        let (w, h) = (rows[0].len() as u32, rows.len() as u32);
        let labels: Vec<u8> = rows
            .concat()
            .bytes()
            .map(|b| b"ab".iter().position(|c| *c == b).map_or(0, |i| i as u8 + 1))
            .collect();
        let gray = image::ExtendedColorType::L8;
        image::save_buffer(dir.join(format!("gts/{name}.png")), &labels, w, h, gray).unwrap();
        image::save_buffer(dir.join(format!("imgs/{name}.png")), &vec![90; labels.len()], w, h, gray)
            .unwrap();
    }
    let class = |name: &str, label| ClassLabel { name: name.into(), label };
    let spec = DatasetSpec {
        name: "scenes & sons".into(),
        root: dir.to_owned(),
        images: None,
        masks: None,
        classes: vec![class("a", 1), class("b", 2)],
        layout: MaskLayout::Index,
        bits: 16,
    };
    Dataset::open(&spec, |_, _| {}).unwrap()
}

fn all(data: &Dataset) -> Vec<&Sample> {
    data.samples.iter().collect()
}

fn material<'a>(data: &'a Dataset, chosen: &'a [&'a Sample]) -> Material<'a> {
    Material { data, chosen, spacing: Some((0.5, 0.5)), augmented: 0 }
}

/// `one` has both classes, `two` a alone, in the whole picture; `three` neither.
fn three(dir: &Path) -> Dataset {
    dataset(dir, &[("one", &SCENE), ("two", &["aaaa", "aaaa"]), ("three", &["....", "...."])])
}

fn case(image: &str, class: usize, both: u64, extra: u64, missed: u64) -> Case {
    Case {
        image: image.into(),
        view: 0,
        class,
        asked: true,
        overlap: Overlap { both, extra, missed },
        regions: 1,
        px: None,
        mm: None,
        score: 1.0,
        presence: 1.0,
        milliseconds: None,
    }
}
