//! The way that a frame takes on a GPU, taken on a CPU: sent as it is, prepared where the network is, masks packed there. The answers
//! are those of the CPU's own way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;

use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor, YuvMatrix};
use sonomask::mask::ClassMask;
use sonomask::phantom::{Phantom, PhantomConfig};
use sonomask::segment::memory::{Ask, BankLimits, Blend, MemorySettings};
use sonomask::segment::{DeviceChoice, Guidance, Mode, ModelSpec, Prompt, Segmenter, load};
use sonomask::stage::{Stage, StageTimes};

fn weights(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("weights").join(name)
}

/// Weights of `family` from a rule, with a predictor of two classes.
fn generated(dir: &Path, family: &str, form: &str) -> PathBuf {
    let file = dir.join(format!("{family}.{form}.safetensors"));
    let made = Command::new(env!("CARGO_BIN_EXE_sonomask"))
        .args(["weights", "generate", family])
        .arg(&file)
        .args(["--ppn", form, "--classes", "nerve,vessel"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    file
}

/// A phantom's frame as the planes of `format`; its luma everywhere, chroma that is not quite gray.
fn planes(gray: &[u8], (width, height): (usize, usize), format: PixelFormat) -> Vec<(Vec<u8>, usize)> {
    let sizes = format.planes(width, height);
    let plane = |(plane, (row, rows)): (usize, &(usize, usize))| {
        let value = |y: usize, x: usize| match (plane, row / width) {
            (0, per_pixel) if per_pixel > 0 => gray[y * width + x / per_pixel],
            _ => 118 + ((x + y) % 21) as u8,
        };
        // Rows with padding.
        let stride = row + 3;
        let bytes = (0..*rows).flat_map(|y| (0..stride).map(move |x| (y, x)));
        (bytes.map(|(y, x)| if x < *row { value(y, x) } else { 255 }).collect(), stride)
    };
    sizes.iter().enumerate().map(plane).collect()
}

fn asked(
    model: &mut dyn Segmenter,
    gray: &[u8],
    size: (usize, usize),
    format: PixelFormat,
    guidance: &Guidance,
    keep_logits: bool,
) -> (Vec<ClassMask>, StageTimes) {
    let planes = planes(gray, size, format);
    let planes = planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
    let color = YuvColor { matrix: YuvMatrix::Bt709, full_range: false };
    let view = ImageView::new(format, size.0, size.1, color, planes).unwrap();
    let mut times = StageTimes::default();
    let found = model.segment(&view, guidance, keep_logits, &mut times).unwrap();
    (found, times)
}

/// Whether two answers are the same but for the last bits, a pixel in a thousand on the border of a mask, and what lies where logits are
/// no further from zero than those bits.
fn same(what: &str, ours: &[ClassMask], theirs: &[ClassMask]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (a, b) in ours.iter().zip(theirs) {
        assert_eq!(a.class, b.class, "{what}");
        let off = (a.score - b.score).abs().max((a.presence - b.presence).abs());
        assert!(off < 1e-4, "{what}: scores differ by {off}");
        let (pixels, others) = (a.mask.data(), b.mask.data());
        assert_eq!(pixels.len(), others.len(), "{what}");
        assert_eq!(a.logits.is_some(), b.logits.is_some(), "{what}");
        let mut undecided = 0;
        if let (Some(a), Some(b)) = (&a.logits, &b.logits) {
            assert_eq!((a.width, a.height), (b.width, b.height), "{what}");
            let off = a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let range = b.values.iter().fold(1.0f32, |range, v| range.max(v.abs()));
            assert!(off < 2e-3 * range, "{what}: logits differ by {off} of {range}");
            let near = b.values.iter().filter(|v| v.abs() <= off).count();
            undecided = near * (others.len() / b.values.len());
        }
        let differ = pixels.iter().zip(others).filter(|(a, b)| a != b).count();
        let most = a.mask.area().max(b.mask.area()).div_ceil(1000) + undecided;
        assert!(differ <= most, "{what}: {differ} pixels differ, of {}: at most {most}", b.mask.area());
    }
}

fn both(spec: &ModelSpec) -> [Box<dyn Segmenter>; 2] {
    let device = DeviceChoice::Cpu.resolve().unwrap();
    // With what would be a graph on a GPU.
    let spec = |on_device| ModelSpec { on_device, cuda_graphs: on_device, ..spec.clone() };
    [true, false].map(|on_device| load(&spec(on_device), &device).unwrap())
}

fn phantom(width: usize, height: usize) -> Phantom {
    Phantom::new(PhantomConfig { width, height, seed: 77, ..PhantomConfig::default() }).unwrap()
}

fn guidances() -> [Guidance; 3] {
    let bounded = |class| Prompt { class, bbox: Some([40.0, 30.0, 160.0, 130.0]), ..Prompt::default() };
    [
        Guidance { mode: Mode::Autonomous, prompts: Vec::new() },
        Guidance { mode: Mode::Assisted, prompts: vec![bounded(1)] },
        Guidance::manual(vec![bounded(0), bounded(1)]),
    ]
}

#[test]
fn a_trained_predictor_says_the_same_of_every_format() {
    let spec =
        ModelSpec { ppn: Some(weights("phantom.safetensors")), ..ModelSpec::new(weights("lite_medsam.pth")) };
    let [mut on_device, mut plain] = both(&spec);
    // Averaged areas, whole boxes of pixels, and a picture that is smaller than the input, whose resize stays on the CPU.
    for (at, size) in [(640, 480), (512, 512), (200, 150)].into_iter().enumerate() {
        let gray = phantom(size.0, size.1).frame(3).image;
        let formats: &[PixelFormat] = if at == 0 { &PixelFormat::ALL } else { &[PixelFormat::I420] };
        for &format in formats {
            let guidance = &guidances()[at];
            let what = format!("{format:?} {size:?}");
            // What belongs to a size is made for the second frame of it.
            asked(on_device.as_mut(), &gray, size, format, guidance, false);
            let (ours, times) = asked(on_device.as_mut(), &gray, size, format, guidance, at == 1);
            let (theirs, _) = asked(plain.as_mut(), &gray, size, format, guidance, at == 1);
            assert!(theirs.iter().any(|m| m.mask.area() > 100), "{what}: nothing was found");
            same(&what, &ours, &theirs);
            for stage in [Stage::Upload, Stage::Preprocess, Stage::Encode, Stage::Decode, Stage::Postprocess]
            {
                assert!(times.get(stage).is_some(), "{what}: {}", stage.name());
            }
        }
    }
}

#[test]
fn every_way_of_asking_sam2_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for form in ["single-scale", "high-res", "pyramid"] {
        let spec = ModelSpec {
            input_size: Some(128),
            presence_threshold: 0.0,
            // What is recorded is then repeated within a frame.
            views: if form == "pyramid" { 3 } else { 1 },
            max_hole_area: 6,
            non_overlapping: form == "pyramid",
            ..ModelSpec::new(generated(dir.path(), "sam2.1-hiera-tiny", form))
        };
        let [mut on_device, mut plain] = both(&spec);
        let mut phantom = phantom(320, 240);
        for guidance in guidances() {
            // With the pyramid, until what is recorded has been repeated.
            for frame in 0..if form == "pyramid" { 6 } else { 1 } {
                let gray = phantom.frame(frame).image;
                let ask = |model: &mut dyn Segmenter| {
                    asked(model, &gray, (320, 240), PixelFormat::Nv12, &guidance, true).0
                };
                let (ours, theirs) = (ask(on_device.as_mut()), ask(plain.as_mut()));
                same(&format!("{form} {:?} {frame}", guidance.mode), &ours, &theirs);
            }
        }
    }
}

#[test]
fn a_memory_goes_the_same_way() {
    let dir = tempfile::tempdir().unwrap();
    let spec = ModelSpec {
        input_size: Some(128),
        presence_threshold: 0.0,
        memory: Some(MemorySettings::sam2()),
        ..ModelSpec::new(generated(dir.path(), "sam2.1-hiera-tiny", "pyramid"))
    };
    let [mut on_device, mut plain] = both(&spec);
    let mut phantom = phantom(320, 240);
    let guidance = &guidances()[1];
    for frame in 0..7 {
        let gray = phantom.frame(frame).image;
        let ask =
            |model: &mut dyn Segmenter| asked(model, &gray, (320, 240), PixelFormat::Gray8, guidance, true).0;
        let (ours, theirs) = (ask(on_device.as_mut()), ask(plain.as_mut()));
        same(&format!("frame {frame}"), &ours, &theirs);
    }
    let objects = |model: &dyn Segmenter| model.memory().map(|counts| format!("{counts:?}"));
    assert_eq!(objects(on_device.as_ref()), objects(plain.as_ref()));
    assert!(objects(plain.as_ref()).is_some());
}

#[test]
fn a_full_memory_goes_the_same_way_recorded_and_with_whatever_the_predictor_says() {
    let dir = tempfile::tempdir().unwrap();
    let weights = generated(dir.path(), "sam2.1-hiera-tiny", "pyramid");
    // A bank that is full after two frames, so that what is done on it is soon the same.
    let limits = BankLimits { prompted: 1, recent: 2, stride: 1, pointers: 2 };
    let told = Guidance::manual(vec![
        Prompt { class: 0, bbox: Some([16.0, 16.0, 64.0, 70.0]), ..Prompt::default() },
        Prompt { class: 1, bbox: Some([56.0, 48.0, 120.0, 106.0]), ..Prompt::default() },
    ]);
    let alone = Guidance { mode: Mode::Autonomous, prompts: Vec::new() };
    let settings = [
        (MemorySettings { limits, ..MemorySettings::sam2() }, &told),
        // Asked on every frame, mixed with what is followed, and given up where nothing is.
        (MemorySettings { limits, ask: Ask::Every, blend: Blend::Mean, ..MemorySettings::sam2() }, &alone),
        (MemorySettings { limits, patience: 1, ..MemorySettings::default() }, &alone),
    ];
    for (at, (memory, guidance)) in settings.into_iter().enumerate() {
        let spec = ModelSpec {
            input_size: Some(128),
            presence_threshold: 0.0,
            memory: Some(memory),
            ..ModelSpec::new(&weights)
        };
        let device = DeviceChoice::Cpu.resolve().unwrap();
        let [mut recorded, mut queued, mut plain] = [(true, true), (true, false), (false, false)]
            .map(|(on_device, cuda_graphs)| ModelSpec { on_device, cuda_graphs, ..spec.clone() })
            .map(|spec| load(&spec, &device).unwrap());
        let mut phantom = phantom(128, 128);
        for frame in 0..14 {
            let gray = phantom.frame(frame).image;
            let ask = |model: &mut dyn Segmenter| {
                asked(model, &gray, (128, 128), PixelFormat::Gray8, guidance, true).0
            };
            let ours = ask(recorded.as_mut());
            // Recorded or not, it is the same to the last bit.
            assert_eq!(ours, ask(queued.as_mut()), "{at}, frame {frame}");
            // The CPU's own way differs in last bits, of which the memory makes more with every frame.
            if frame < 6 {
                same(&format!("{at}, frame {frame}"), &ours, &ask(plain.as_mut()));
            }
        }
        let told =
            |model: &mut dyn Segmenter| format!("{:?} {:?}", model.memory().cloned(), model.take_events());
        assert_eq!(told(recorded.as_mut()), told(queued.as_mut()), "{at}");
    }
}
