//! How often a frame waits for the device, counted on the way that it takes on a GPU. (What no test here can see is an operation of libtorch
//! that waits by itself.)

use tempfile::TempDir;

use super::device::READS;
use super::load::{Loaded, loaded};
use super::memory::{Ask, MemorySettings};
use super::{DeviceChoice, GeneratedPpn, Guidance, Mode, ModelSpec, Prompt, Segmenter, VideoSam, generate};
use crate::frame::{ImageView, PixelFormat, Plane, YuvColor};
use crate::nn::PpnForm;
use crate::phantom::{Phantom, PhantomConfig};
use crate::stage::StageTimes;
use crate::weights::Family;

const SIZE: (usize, usize) = (320, 240);

/// Weights by rule with a predictor of two classes.
fn generated(dir: &TempDir) -> ModelSpec {
    let file = dir.path().join("tiny.safetensors");
    let classes = vec!["nerve".to_owned(), "vessel".to_owned()];
    let ppn = GeneratedPpn { form: PpnForm::Pyramid, dataset: "usgra".into(), classes, alone: false };
    generate(Family::Sam21HieraTiny, 1, Some(&ppn), &file).unwrap();
    ModelSpec {
        input_size: Some(128),
        presence_threshold: 0.0,
        max_hole_area: 9,
        max_sprinkle_area: 12,
        on_device: true,
        cuda_graphs: true,
        ..ModelSpec::new(file)
    }
}

/// Waits, and masks, of frame after frame.
fn waits(
    model: &mut dyn Segmenter,
    guidance: &Guidance,
    frames: std::ops::Range<u64>,
) -> Vec<(usize, usize)> {
    let config = PhantomConfig { width: SIZE.0, height: SIZE.1, seed: 77, ..PhantomConfig::default() };
    let mut phantom = Phantom::new(config).unwrap();
    let one = |frame| {
        let gray = phantom.frame(frame).image;
        let plane = vec![Plane { data: &gray, stride: SIZE.0 }];
        let view = ImageView::new(PixelFormat::Gray8, SIZE.0, SIZE.1, YuvColor::default(), plane).unwrap();
        READS.set(0);
        let masks = model.segment(&view, guidance, false, &mut StageTimes::default()).unwrap();
        (READS.get(), masks.len())
    };
    frames.map(one).collect()
}

fn video(spec: &ModelSpec, settings: MemorySettings) -> VideoSam {
    let spec = ModelSpec { memory: Some(settings), ..spec.clone() };
    match loaded(&spec, &DeviceChoice::Cpu.resolve().unwrap()).unwrap() {
        Loaded::Video(video) => *video,
        Loaded::Sam(_) => panic!("it has a memory"),
    }
}

const ALONE: Guidance = Guidance { mode: Mode::Autonomous, prompts: Vec::new() };

fn boxed(class: usize, bbox: [f32; 4]) -> Prompt {
    Prompt { class, bbox: Some(bbox), ..Prompt::default() }
}

#[test]
fn a_frame_waits_once_and_what_repeats_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let spec = generated(&dir);
    let told =
        Guidance::manual(vec![boxed(0, [40.0, 30.0, 160.0, 130.0]), boxed(1, [140.0, 30.0, 260.0, 130.0])]);
    for guidance in [&ALONE, &told] {
        let cpu = DeviceChoice::Cpu.resolve().unwrap();
        let Loaded::Sam(mut sam) = loaded(&spec, &cpu).unwrap() else { panic!("it has no memory") };
        assert_eq!(waits(sam.as_mut(), guidance, 0..7), [(1, 2); 7], "{:?}", guidance.mode);
        assert_eq!(sam.repeats(), guidance.mode == Mode::Autonomous);
    }
    // Everything is remembered, until banks are full and what is done on them is repeated.
    let settings = MemorySettings { ask: Ask::First, ..MemorySettings::sam2() };
    let mut model = video(&spec, settings);
    waits(&mut model, &told, 0..1);
    assert_eq!(waits(&mut model, &told, 1..24), [(1, 2); 23]);
    assert_eq!(model.memory().unwrap().objects, 2);
    assert!(model.repeats());
    // Whoever asks on every frame waits for what the memory says, for what the predictor says beside it, and for the masks.
    let mut model = video(&spec, MemorySettings { ask: Ask::Every, ..MemorySettings::sam2() });
    assert!((2..=3).contains(&waits(&mut model, &ALONE, 0..3)[2].0));
    assert_eq!(model.memory().unwrap().objects, 2, "each pair of whose masks is compared");
    a_spoilt_memory_is_forgotten(&spec, settings);
}

/// What is no number is known with the next frame, and given up; the predictor is asked on the one behind that.
fn a_spoilt_memory_is_forgotten(spec: &ModelSpec, settings: MemorySettings) {
    let mut model = video(spec, settings);
    let followed = |model: &VideoSam| (0..2).filter(|&o| model.follows(o)).collect::<Vec<_>>();
    waits(&mut model, &ALONE, 0..3);
    let before = followed(&model);
    let &[.., object] = &before[..] else { panic!("nothing is followed") };
    model.spoil(object);
    let (_, masks) = waits(&mut model, &ALONE, 3..4)[0];
    assert_eq!(masks, before.len() - 1);
    assert!(!followed(&model).contains(&object));
    let (_, masks) = waits(&mut model, &ALONE, 4..5)[0];
    assert_eq!(masks, before.len());
    assert_eq!(followed(&model), before);
}
