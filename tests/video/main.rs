//! SAM 2 with its memory as a `Segmenter`: whole frames in, masks out, against the reference's video predictor, and what a
//! person or a scanner may do in the middle of a stream.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../fixture_support/mod.rs"]
mod fixture_support;

mod following;
mod interventions;

use fixture_support::Fixture;
use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor};
use sonomask::mask::ClassMask;
use sonomask::nn;
use sonomask::segment::memory::MemorySettings;
use sonomask::segment::{
    Cleanup, Guidance, Manners, ModelInfo, Network, Prompt, Sam, SegmentError, Segmenter, VideoSam,
};
use sonomask::stage::StageTimes;
use sonomask::weights::{Family, Weights};
use tch::{Device, Kind};

const SIZE: (usize, usize) = (320, 240);

struct Clip {
    file: Fixture,
    frames: Vec<Vec<u8>>,
}

impl Clip {
    fn open() -> Self {
        let file = Fixture::open("sam21_tiny_512_video");
        let gray = file.raw("frames_gray");
        let frames = (0..gray.size()[0])
            .map(|t| Vec::<u8>::try_from(gray.select(0, t).to_kind(Kind::Uint8).reshape([-1])).unwrap())
            .collect();
        Self { file, frames }
    }

    fn model(&self, side: i64, settings: MemorySettings) -> VideoSam {
        self.model_with(side, settings, /* non_overlapping */ false)
    }

    fn model_with(&self, side: i64, settings: MemorySettings, non_overlapping: bool) -> VideoSam {
        let generated = self.file.generated();
        let w = Weights::new(&generated, Device::Cpu);
        let family = Family::Sam21HieraTiny;
        let net = nn::Sam::new(&w, family, Some(side)).unwrap();
        let memory = nn::Sam2Memory::new(&w, family, side).unwrap();
        let network = Network::new(net, None, Manners::of(family), Device::Cpu);
        let cleanup =
            Cleanup { presence_threshold: 0.5, max_hole_area: 0, max_sprinkle_area: 0, non_overlapping };
        let info = ModelInfo {
            family: family.name().into(),
            weights_sha256: String::new(),
            input_size: side as usize,
            precision: "fp32".into(),
            parameters: 0,
            weights_bytes: 0,
            ppn: None,
            device: "cpu".into(),
        };
        VideoSam::new(Sam::new(network, cleanup, info), memory, settings, 0)
    }

    fn bbox(&self) -> Prompt {
        let corners = self.file.raw("boxes_px").select(0, 0).select(0, 0).to_kind(Kind::Float);
        let corners = Vec::<f32>::try_from(corners).unwrap();
        Prompt { bbox: Some([corners[0], corners[1], corners[2], corners[3]]), ..Prompt::default() }
    }

    /// The class `class`, somewhere else.
    fn other(class: usize) -> Prompt {
        Prompt { class, bbox: Some([180.0, 120.0, 300.0, 220.0]), ..Prompt::default() }
    }

    fn step(
        &self,
        model: &mut VideoSam,
        frame: usize,
        prompts: &[Prompt],
    ) -> Result<Vec<ClassMask>, SegmentError> {
        shown(model, &self.frames[frame], SIZE, prompts)
    }

    /// The logits of every class on the first `frames` frames, with the prompts that `said` has for each.
    fn run(
        &self,
        model: &mut VideoSam,
        frames: usize,
        said: impl Fn(usize) -> Vec<Prompt>,
    ) -> Vec<Vec<(usize, Vec<f32>)>> {
        (0..frames)
            .map(|t| {
                let found = self.step(model, t, &said(t)).unwrap();
                found.into_iter().map(|m| (m.class, m.logits.unwrap().values)).collect()
            })
            .collect()
    }
}

fn shown(
    model: &mut VideoSam,
    gray: &[u8],
    (width, height): (usize, usize),
    prompts: &[Prompt],
) -> Result<Vec<ClassMask>, SegmentError> {
    let plane = Plane { data: gray, stride: width };
    let view = ImageView::new(PixelFormat::Gray8, width, height, YuvColor::default(), vec![plane]).unwrap();
    model.segment(&view, &Guidance::manual(prompts.to_vec()), true, &mut StageTimes::default())
}
