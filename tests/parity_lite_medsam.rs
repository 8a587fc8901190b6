//! LiteMedSAM against its reference implementation, tensor by tensor, on real ultrasound.
//!
//! The answers are made by `scripts/make_lite_medsam_fixtures.py` and read from `$SONOMASK_FIXTURES/lite_medsam`
//! (default `tests/fixtures`). Every test prints the error it found; run with `--nocapture` to see them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::PathBuf;
use std::sync::Arc;

use sonomask::frame::{ImageView, PixelFormat, Plane, Rgb, YuvColor};
use sonomask::mask::Mask;
use sonomask::nn::{self, EncoderStep};
use sonomask::segment::preprocess::{Placement, input_tensor, mask_logits, scaled_rgb};
use sonomask::segment::resize::resize_area;
use sonomask::segment::{DeviceChoice, Guidance, ModelSpec, Point, Prompt, load};
use sonomask::stage::{Stage, StageTimes};
use sonomask::weights::{Checkpoint, Family, Weights};
use tch::{Device, Kind, Tensor};

const IMAGES: [&str; 3] = ["echo", "nerve", "vessel"];
const PROMPTS: [&str; 5] = ["box", "points", "box_point", "mask", "box_mask"];

/// Largest difference over largest magnitude.
const RELATIVE: f64 = 1e-3;
const MASK_IOU: f64 = 0.999;

/// `$SONOMASK_FIXTURES` if it has answers of LiteMedSAM, else the repository's.
fn folder() -> PathBuf {
    let given =
        std::env::var_os("SONOMASK_FIXTURES").map(PathBuf::from).filter(|f| f.join("lite_medsam").is_dir());
    given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"))
}

fn fixture(name: &str) -> Checkpoint {
    Checkpoint::open(&folder().join("lite_medsam").join(format!("{name}.safetensors"))).unwrap()
}

fn weights_path() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("weights/lite_medsam.pth");
    assert!(path.is_file(), "weights/lite_medsam.pth is missing; `make setup` fetches it");
    path
}

/// Side of the network's input.
const SIDE: usize = 256;

fn network() -> nn::Sam1 {
    network_in(Kind::Float)
}

fn network_in(kind: Kind) -> nn::Sam1 {
    let checkpoint = Checkpoint::open(&weights_path()).unwrap();
    let config = nn::Sam1Config::of(Family::LiteMedSam).unwrap();
    let weights = Weights::new(&checkpoint, Device::Cpu).computing_in(kind);
    let net = nn::Sam1::new(&weights, &config).unwrap();
    weights.finish().unwrap();
    assert_eq!(net.input_size(), SIDE);
    net
}

fn get(file: &Checkpoint, name: &str) -> Tensor {
    file.tensor(name).unwrap_or_else(|| panic!("the fixture lacks {name}")).unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::<u8>::try_from(tensor.contiguous().view(-1)).unwrap()
}

/// A stored picture, gray or RGB, as RGB.
fn rgb(file: &Checkpoint, name: &str) -> Rgb {
    let tensor = get(file, name);
    let (h, w, _) = tensor.size3().unwrap();
    Rgb { width: w as usize, height: h as usize, data: bytes(&tensor.expand([h, w, 3], false)) }
}

fn placement(image: &Rgb) -> Placement {
    Placement::new(image.width, image.height, SIDE)
}

/// The network's input made from the reference's own resized picture, so that only the network is compared.
fn reference_input(file: &Checkpoint) -> Tensor {
    let image = rgb(file, "image");
    input_tensor(&rgb(file, "resized").data, &placement(&image)).unwrap()
}

fn relative_error(what: &str, ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.size(), theirs.size(), "{what}");
    let difference = f64::try_from((ours - theirs).abs().max()).unwrap();
    let error = difference / f64::try_from(theirs.abs().max()).unwrap();
    println!("{what:<28} max abs {difference:.3e}  relative {error:.3e}");
    error
}

/// The same prompts as the script's, in pixels of the image.
fn prompt(name: &str, bbox: [f32; 4], image: &Rgb) -> Prompt {
    let [x0, y0, x1, y1] = bbox;
    let (cx, cy) = ((x0 + x1) / 2.0, (y0 + y1) / 2.0);
    let inner = Point { x: cx, y: cy, positive: true };
    let outer = Point { x: x0 / 2.0, y: y0 / 2.0, positive: false };
    let ellipse = || {
        let mut mask = Mask::empty(image.width, image.height);
        for y in 0..image.height {
            for x in 0..image.width {
                let dx = (x as f64 + 0.5 - f64::from(cx)) / (f64::from(x1 - x0) / 2.0);
                let dy = (y as f64 + 0.5 - f64::from(cy)) / (f64::from(y1 - y0) / 2.0);
                mask.set(x, y, dx * dx + dy * dy <= 1.0);
            }
        }
        Some(Arc::new(mask))
    };
    match name {
        "box" => Prompt { bbox: Some(bbox), ..Prompt::default() },
        "points" => Prompt { points: vec![inner, outer], ..Prompt::default() },
        "box_point" => Prompt { bbox: Some(bbox), points: vec![inner], ..Prompt::default() },
        "mask" => Prompt { mask: ellipse(), ..Prompt::default() },
        _ => Prompt { bbox: Some(bbox), mask: ellipse(), ..Prompt::default() },
    }
}

fn box_of(file: &Checkpoint) -> [f32; 4] {
    Vec::<f32>::try_from(get(file, "prompt_box")).unwrap().try_into().unwrap()
}

/// Every second pixel: what the files keep of `[256, 256]`.
fn cut(logits: &Tensor) -> Tensor {
    logits.slice(0, None, None, 2).slice(1, None, None, 2)
}

/// The decoder's logits and score for one prompt, on the reference's input.
fn decode(net: &nn::Sam1, embedding: &Tensor, prompt: &Prompt, placement: &Placement) -> (Tensor, Tensor) {
    let coords: Vec<f32> = prompt.points.iter().flat_map(|p| placement.to_input([p.x, p.y])).collect();
    let labels: Vec<i64> = prompt.points.iter().map(|p| i64::from(p.positive)).collect();
    let points = (!labels.is_empty()).then(|| {
        let n = labels.len() as i64;
        (Tensor::from_slice(&coords).view([1, n, 2]), Tensor::from_slice(&labels).view([1, n]))
    });
    let bbox = prompt.bbox.map(|b| Tensor::from_slice(&placement.box_to_input(b)).view([1, 4]));
    let mask = prompt.mask.as_ref().map(|m| mask_logits(m, placement).unwrap());
    let points = points.as_ref().map(|(c, l)| (c, l));
    let (sparse, dense) = net.prompt_encoder.forward(points, bbox.as_ref(), mask.as_ref()).unwrap();
    let (pe, single) = (net.prompt_encoder.get_dense_pe(), nn::MaskSelection::Single);
    let decoded = net.mask_decoder.forward(embedding, pe, &sparse, &dense, None, single).unwrap();
    (decoded.masks, decoded.iou)
}

/// Ends of the stem, of the four stages and of the neck.
const STAGES: [EncoderStep; 6] = [
    EncoderStep::PatchEmbed,
    EncoderStep::Downsample { layer: 0 },
    EncoderStep::Downsample { layer: 1 },
    EncoderStep::Downsample { layer: 2 },
    EncoderStep::Block { layer: 3, block: 1 },
    EncoderStep::Neck,
];

#[test]
fn parity_lite_medsam_encoder_stages() {
    let _guard = tch::no_grad_guard();
    let net = network();
    for name in IMAGES {
        let file = fixture(name);
        let mut stages = Vec::new();
        let embedding = net
            .image_encoder
            .trace(&reference_input(&file), |step, t| {
                if STAGES.contains(&step) {
                    stages.push(t.shallow_clone());
                }
            })
            .unwrap();
        assert_eq!(stages.len(), 6);
        assert_eq!(stages.last(), Some(&embedding));
        for (i, stage) in stages.iter().enumerate() {
            let key = format!("stage.{i}");
            let step = stage.size()[3] / 16;
            let ours =
                stage.get(0).slice(0, None, None, 8).slice(1, None, None, step).slice(2, None, None, step);
            let error = relative_error(&format!("{name} {key}"), &ours, &get(&file, &key));
            assert!(error < RELATIVE, "{name} {key}: {error}");
        }
    }
}

#[test]
fn parity_lite_medsam_logits_and_masks() {
    let _guard = tch::no_grad_guard();
    let net = network();
    for name in IMAGES {
        let file = fixture(name);
        let image = rgb(&file, "image");
        let embedding = net.image_encoder.forward(&reference_input(&file)).unwrap();
        for key in PROMPTS {
            let prompt = prompt(key, box_of(&file), &image);
            let (logits, iou) = decode(&net, &embedding, &prompt, &placement(&image));
            let theirs = get(&file, &format!("{key}.logits"));
            let ours = cut(&logits.view([256, 256]));
            let error = relative_error(&format!("{name} {key} logits"), &ours, &theirs);
            assert!(error < RELATIVE, "{name} {key}: {error}");
            let error = relative_error(
                &format!("{name} {key} iou"),
                &iou.view(-1),
                &get(&file, &format!("{key}.iou")),
            );
            assert!(error < RELATIVE, "{name} {key} iou: {error}");
            let mask = |t: &Tensor| Mask::new(128, 128, bytes(&t.gt(0.0).to_kind(Kind::Uint8))).unwrap();
            let agreement = mask(&ours).iou(&mask(&theirs)).unwrap();
            println!("{name} {key}: IoU of the thresholded logits {agreement:.6}");
            assert!(agreement >= MASK_IOU, "{name} {key}: {agreement}");
        }
    }
}

#[test]
fn parity_lite_medsam_from_frame_to_mask() {
    let device = DeviceChoice::Cpu.resolve().unwrap();
    let mut segmenter = load(
        &ModelSpec { family: Some(Family::LiteMedSam), threads: 2, ..ModelSpec::new(weights_path()) },
        &device,
    )
    .unwrap();
    assert_eq!(segmenter.info().parameters, PARAMETERS);
    for name in IMAGES {
        let file = fixture(name);
        let image = rgb(&file, "image");
        let rgba = image.to_rgba();
        let plane = Plane { data: &rgba, stride: 4 * image.width };
        let view =
            ImageView::new(PixelFormat::Rgba, image.width, image.height, YuvColor::default(), vec![plane])
                .unwrap();
        // All at once: prompts of unequal length are decoded in groups and must come back in their order.
        let keys = ["box", "points", "box_point", "box_mask"];
        let prompts: Vec<Prompt> = keys
            .iter()
            .enumerate()
            .map(|(class, key)| Prompt { class, ..prompt(key, box_of(&file), &image) })
            .collect();
        let mut times = StageTimes::default();
        let answers = segmenter.segment(&view, &Guidance::manual(prompts), true, &mut times).unwrap();
        for stage in [
            Stage::Upload,
            Stage::Preprocess,
            Stage::Encode,
            Stage::Prompt,
            Stage::Decode,
            Stage::Postprocess,
        ] {
            assert!(times.get(stage).is_some(), "{stage:?} was charged nothing");
        }
        assert_eq!(answers.len(), keys.len());
        for (class, (key, answer)) in keys.iter().zip(&answers).enumerate() {
            assert_eq!((answer.class, answer.presence), (class, 1.0));
            let logits = answer.logits.as_ref().unwrap();
            let ours =
                cut(&Tensor::from_slice(&logits.values).view([logits.height as i64, logits.width as i64]));
            let error = relative_error(
                &format!("{name} {key} end to end"),
                &ours,
                &get(&file, &format!("{key}.logits")),
            );
            assert!(error < RELATIVE, "{name} {key}: {error}");
            let packed = bytes(&get(&file, &format!("{key}.area")));
            let bits = (0..image.width * image.height).map(|i| packed[i / 8] >> (7 - i % 8) & 1).collect();
            let theirs = Mask::new(image.width, image.height, bits).unwrap();
            let agreement = answer.mask.iou(&theirs).unwrap();
            println!("{name} {key}: IoU at full size {agreement:.6}, {} pixels", theirs.area());
            assert!(theirs.area() > 300 && agreement >= MASK_IOU, "{name} {key}: {agreement}");
        }
    }
}

#[test]
fn gradients_reach_the_input() {
    let net = network();
    let file = fixture("echo");
    let image = rgb(&file, "image");
    let prompt = prompt("box_mask", box_of(&file), &image);
    let input = reference_input(&file).set_requires_grad(true);
    let embedding = net.image_encoder.forward(&input).unwrap();
    let (logits, _) = decode(&net, &embedding, &prompt, &placement(&image));
    let error =
        relative_error("with a graph", &cut(&logits.view([256, 256])), &get(&file, "box_mask.logits"));
    assert!(error < RELATIVE, "{error}");
    logits.mean(Kind::Float).backward();
    let gradient = f64::try_from(input.grad().abs().max()).unwrap();
    assert!(gradient.is_finite() && gradient > 0.0, "{gradient}");
}

#[test]
fn a_mask_alone_is_taken_with_its_bounding_box() {
    let device = DeviceChoice::Cpu.resolve().unwrap();
    let mut segmenter = load(&ModelSpec { threads: 2, ..ModelSpec::new(weights_path()) }, &device).unwrap();
    let file = fixture("echo");
    let image = rgb(&file, "image");
    let rgba = image.to_rgba();
    let plane = Plane { data: &rgba, stride: 4 * image.width };
    let view = ImageView::new(PixelFormat::Rgba, image.width, image.height, YuvColor::default(), vec![plane])
        .unwrap();
    let alone = prompt("mask", box_of(&file), &image);
    let b = alone.mask.as_ref().unwrap().bounds().unwrap();
    let with_box =
        Prompt { class: 1, bbox: Some([b.x0, b.y0, b.x1, b.y1].map(|v| v as f32)), ..alone.clone() };
    // Nothing in it, so there is no box: an answer without pixels, not an error.
    let nothing = Prompt {
        class: 2,
        mask: Some(Arc::new(Mask::empty(image.width, image.height))),
        ..Prompt::default()
    };
    let answers = segmenter
        .segment(&view, &Guidance::manual(vec![alone, with_box, nothing]), false, &mut StageTimes::default())
        .unwrap();
    assert!(answers[0].mask.area() > 300);
    assert_eq!(answers[0].mask, answers[1].mask);
    assert_eq!(answers[2].mask.area(), 0);
    assert!(
        segmenter.segment(&view, &Guidance::default(), false, &mut StageTimes::default()).unwrap().is_empty()
    );
    assert!(
        segmenter
            .segment(&view, &Guidance::manual(vec![Prompt::default()]), false, &mut StageTimes::default())
            .is_err()
    );
}

/// Learned values of the published network, without buffers.
const PARAMETERS: u64 = 9_791_300;

#[test]
fn parity_lite_medsam_preprocess() {
    for name in IMAGES {
        let file = fixture(name);
        let image = rgb(&file, "image");
        let theirs = rgb(&file, "resized");
        let placement = placement(&image);
        assert_eq!(placement.scaled, (theirs.width, theirs.height));
        let ours = scaled_rgb(&image, &placement);
        let wrong = ours.iter().zip(&theirs.data).filter(|(a, b)| a != b).count();
        println!("{name}: {wrong} of {} bytes differ from OpenCV's", ours.len());
        assert_eq!(wrong, 0, "{name}");

        let input = input_tensor(&ours, &placement).unwrap();
        let (h, w) = (theirs.height as i64, theirs.width as i64);
        let low = f64::from(*theirs.data.iter().min().unwrap());
        let high = f64::from(*theirs.data.iter().max().unwrap());
        let pixels =
            Tensor::from_slice(&theirs.data).view([h, w, 3]).permute([2, 0, 1]).to_kind(Kind::Double);
        let expected = ((pixels - low) / (high - low)).to_kind(Kind::Float);
        assert_eq!(
            relative_error(
                &format!("{name} input"),
                &input.get(0).narrow(1, 0, h).narrow(2, 0, w),
                &expected
            ),
            0.0
        );
        let inside = f64::try_from(expected.sum(Kind::Double)).unwrap();
        assert_eq!(
            f64::try_from(input.sum(Kind::Double)).unwrap(),
            inside,
            "{name}: the padding is not zero"
        );
    }
}

#[test]
fn parity_resize_inter_area() {
    let file = fixture("resize");
    let cases =
        ["twice", "five_times", "fraction", "just_smaller", "one_axis", "enlarge", "enlarge_twice", "same"];
    for name in cases {
        for channels in [1, 3] {
            let (src, dst) = (
                get(&file, &format!("{name}.{channels}.src")),
                get(&file, &format!("{name}.{channels}.dst")),
            );
            let size = |t: &Tensor| t.size3().map(|(h, w, _)| (w as usize, h as usize)).unwrap();
            let resize = if channels == 1 { resize_area::<1> } else { resize_area::<3> };
            let (ours, theirs) = (resize(&bytes(&src), size(&src), size(&dst)), bytes(&dst));
            let wrong = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
            let most = ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            println!("{name} x{channels}: {wrong} of {} bytes differ, at most by {most}", theirs.len());
            assert_eq!((ours.len(), wrong), (theirs.len(), 0), "{name} x{channels}");
        }
    }
}

/// Relative L2 of what the first does not share with the second.
fn distance(ours: &Tensor, theirs: &Tensor) -> f64 {
    let norm = |t: Tensor| f64::try_from(t.to_kind(Kind::Double).norm()).unwrap();
    norm(ours - theirs) / norm(theirs.shallow_clone())
}

/// In bfloat16 we are no further from the reference in `f32` than its own autocast to bfloat16 is, over the pictures.
#[test]
fn parity_lite_medsam_in_bf16_is_no_further_than_the_official_autocast() {
    let _guard = tch::no_grad_guard();
    let net = network_in(Kind::BFloat16);
    let official = Checkpoint::open(
        &PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/precision.safetensors"),
    )
    .unwrap();
    let (mut ours, mut theirs) = (0.0, 0.0);
    for name in IMAGES {
        let file = fixture(name);
        let embedding = net.image_encoder.forward(&reference_input(&file)).unwrap();
        let prompt = prompt("box", box_of(&file), &rgb(&file, "image"));
        let (logits, _) = decode(&net, &embedding, &prompt, &placement(&rgb(&file, "image")));
        let of_logits = distance(&cut(&logits.view([256, 256])), &get(&file, "box.logits"));
        let of_reference = Vec::<f64>::try_from(get(&official, &format!("lite_medsam.{name}"))).unwrap();
        println!("{name}: logits {of_logits:.5}, official autocast {:.5}", of_reference[1]);
        assert!(of_logits > 1e-5, "{name}: this was not computed in bfloat16");
        ours += of_logits;
        theirs += of_reference[1];
    }
    assert!(ours <= theirs, "{ours} against {theirs}, sums over the pictures");
}
