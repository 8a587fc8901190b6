//! The memory and the prompt predictor together: when the predictor is asked, and what it may and may not take from a person.
//! The weights are made by a rule: their masks mean nothing, and that is enough to tell whose they are. Of the seeds tried, this one's
//! predictor scores its masks higher than the memory scores its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod asking;
mod repeats;
mod trials;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor};
use sonomask::mask::ClassMask;
use sonomask::nn::PpnForm;
use sonomask::phantom::{Phantom, PhantomConfig};
use sonomask::segment::memory::{Ask, MemorySettings};
use sonomask::segment::{
    DeviceChoice, GeneratedPpn, Guidance, MemoryCounts, Mode, ModelSpec, Prompt, Segmenter, generate, load,
};
use sonomask::stage::StageTimes;
use sonomask::weights::Family;

const SIDE: usize = 128;

/// A network with a predictor of the classes 0 and 1.
static WEIGHTS: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| weights(&["nerve", "vessel"]));

/// One of class 0 alone.
static ALONE: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| weights(&["nerve"]));

fn weights(classes: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weights.safetensors");
    let ppn = GeneratedPpn {
        form: PpnForm::SingleScale,
        dataset: "generated".into(),
        classes: classes.iter().map(|&name| name.to_owned()).collect(),
        alone: false,
    };
    generate(Family::Sam21HieraTiny, /* seed */ 4, Some(&ppn), &file).unwrap();
    (dir, file)
}

/// Everything counts as found and as sure, no two masks are the same, and no picture clears the memory.
fn trusting(ask: Ask) -> MemorySettings {
    MemorySettings { ask, agreement: 1.0, ..MemorySettings::sam2() }
}

fn pictures() -> Phantom {
    Phantom::new(PhantomConfig { seed: 41, width: SIDE, height: SIDE, ..PhantomConfig::default() }).unwrap()
}

struct Stream {
    model: Box<dyn Segmenter>,
    pictures: Phantom,
    shown: u64,
}

impl Stream {
    fn new(settings: MemorySettings) -> Self {
        Self::of(&WEIGHTS.1, settings)
    }

    fn of(weights: &Path, settings: MemorySettings) -> Self {
        let spec = ModelSpec {
            input_size: Some(64),
            presence_threshold: 0.0,
            memory: Some(settings),
            ..ModelSpec::new(weights)
        };
        let model = load(&spec, &DeviceChoice::Cpu.resolve().unwrap()).unwrap();
        Self { model, pictures: pictures(), shown: 0 }
    }

    fn show(&mut self, picture: u64, mode: Mode, prompts: &[Prompt]) -> Vec<ClassMask> {
        let gray = self.pictures.image(picture);
        self.show_gray(&gray, mode, prompts)
    }

    fn show_gray(&mut self, gray: &[u8], mode: Mode, prompts: &[Prompt]) -> Vec<ClassMask> {
        let plane = Plane { data: gray, stride: SIDE };
        let color = YuvColor::default();
        let view = ImageView::new(PixelFormat::Gray8, SIDE, SIDE, color, vec![plane]).unwrap();
        let guidance = Guidance { mode, prompts: prompts.to_vec() };
        self.model.segment(&view, &guidance, true, &mut StageTimes::default()).unwrap()
    }

    fn next(&mut self, mode: Mode, prompts: &[Prompt]) -> Vec<ClassMask> {
        self.shown += 1;
        self.show(self.shown, mode, prompts)
    }

    fn counts(&self) -> MemoryCounts {
        self.model.memory().unwrap().clone()
    }

    /// Frames that are remembered, and how often the predictor was asked.
    fn bank_and_asked(&self) -> (usize, u64) {
        let counts = self.counts();
        (counts.bank_frames, counts.asked)
    }
}

/// The picture with a bright square, in one place after the other: too small for another picture.
fn with_squares(gray: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..49).map(|place| {
        let (left, top) = (place % 7 * 16, place / 7 * 16);
        let mut gray = gray.to_vec();
        for row in gray.chunks_exact_mut(SIDE).skip(top).take(16) {
            row[left..left + 16].fill(255);
        }
        gray
    })
}

/// What the predictor of class 0 says of a picture on which nothing is known: the score of its mask.
fn predictors_score(stream: &mut Stream, gray: &[u8]) -> f32 {
    stream.model.forget(None);
    stream.show_gray(gray, Mode::Autonomous, &[])[0].score
}

fn boxed(class: usize) -> Prompt {
    let left = 8.0 + 34.0 * class as f32;
    Prompt { class, bbox: Some([left, 30.0, left + 40.0, 90.0]), ..Prompt::default() }
}

fn classes(found: &[ClassMask]) -> Vec<usize> {
    found.iter().map(|m| m.class).collect()
}

fn logits(found: &[ClassMask], class: usize) -> &[f32] {
    let of = found.iter().find(|m| m.class == class).unwrap();
    &of.logits.as_ref().unwrap().values
}
