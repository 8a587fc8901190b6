//! The network's answers: stages of the encoder, logits and masks, gradients, and how near bfloat16 comes.

use std::path::PathBuf;
use std::sync::Arc;

use sonomask::frame::{ImageView, PixelFormat, Plane, Rgb, YuvColor};
use sonomask::mask::Mask;
use sonomask::nn::{EncoderStep, Sam, Sam1, Sam1Encoder};
use sonomask::segment::preprocess::Placement;
use sonomask::segment::{DeviceChoice, Guidance, ModelSpec, Prompt, load};
use sonomask::stage::{Stage, StageTimes};
use sonomask::weights::{Checkpoint, Family};
use tch::{Kind, Tensor};

use super::{
    IMAGES, MASK_IOU, OTHER_SIDE, PROMPTS, RELATIVE, box_of, bytes, cut, decode, fixture, get, network,
    network_with, placement, prompt, reference_input, relative_error, resized_input, rgb, weights_path,
};

/// Ends of the stem, of the four stages and of the neck.
const STAGES: [EncoderStep; 6] = [
    EncoderStep::PatchEmbed,
    EncoderStep::Downsample { layer: 0 },
    EncoderStep::Downsample { layer: 1 },
    EncoderStep::Downsample { layer: 2 },
    EncoderStep::Block { layer: 3, block: 1 },
    EncoderStep::Neck,
];

/// The embedding of what the reference resized; every stage is compared with the reference's.
fn encoded(net: &Sam1Encoder, name: &str, file: &Checkpoint, placement: &Placement) -> Tensor {
    let mut stages = Vec::new();
    let embedding = net
        .trace(&resized_input(file, placement), |step, t| {
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
        let ours = stage.get(0).slice(0, None, None, 8).slice(1, None, None, step).slice(2, None, None, step);
        let error = relative_error(&format!("{name} {key}"), &ours, &get(file, &key));
        assert!(error < RELATIVE, "{name} {key}: {error}");
    }
    embedding
}

#[test]
fn parity_lite_medsam_encoder_stages() {
    let _guard = tch::no_grad_guard();
    let net = network();
    for name in IMAGES {
        let file = fixture(name);
        let _ = encoded(&net.image_encoder, name, &file, &placement(&rgb(&file, "image")));
    }
}

/// The official modules put together for an input of 192 pixels a side: the published weights know nothing of a side.
#[test]
fn parity_lite_medsam_at_another_side() {
    let _guard = tch::no_grad_guard();
    let image = rgb(&fixture("echo"), "image");
    let name = format!("echo-{OTHER_SIDE}");
    let file = fixture(&name);
    let placement = Placement::new(image.width, image.height, OTHER_SIDE);
    let net = network_with(Some(OTHER_SIDE), Kind::Float);
    assert_eq!(net.input_size(), OTHER_SIDE);
    let embedding = encoded(&net.image_encoder, &name, &file, &placement);
    for key in PROMPTS {
        agree(&net, &embedding, &name, key, &file, &image, &placement);
    }
    for wrong in [0, -32, 31, 200] {
        let told = Sam::takes(Family::LiteMedSam, wrong).unwrap_err();
        assert!(told.contains("takes a multiple of 32 pixels a side, asked for were"), "{told}");
    }
    assert!(Sam::takes(Family::MedSam, 512).unwrap_err().contains("takes 1024 pixels a side and no other"));
}

/// Whether the decoder's answer to one prompt on this embedding is the reference's.
fn agree(
    net: &Sam1,
    embedding: &Tensor,
    name: &str,
    key: &str,
    file: &Checkpoint,
    image: &Rgb,
    placement: &Placement,
) {
    let (logits, iou) = decode(net, embedding, &prompt(key, box_of(file), image), placement);
    let theirs = get(file, &format!("{key}.logits"));
    let ours = cut(&logits.squeeze());
    let error = relative_error(&format!("{name} {key} logits"), &ours, &theirs);
    assert!(error < RELATIVE, "{name} {key}: {error}");
    let error =
        relative_error(&format!("{name} {key} iou"), &iou.view(-1), &get(file, &format!("{key}.iou")));
    assert!(error < RELATIVE, "{name} {key} iou: {error}");
    let half = placement.side / 2;
    let mask = |t: &Tensor| Mask::new(half, half, bytes(&t.gt(0.0).to_kind(Kind::Uint8))).unwrap();
    let agreement = mask(&ours).iou(&mask(&theirs)).unwrap();
    println!("{name} {key}: IoU of the thresholded logits {agreement:.6}");
    assert!(agreement >= MASK_IOU, "{name} {key}: {agreement}");
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
            agree(&net, &embedding, name, key, &file, &image, &placement(&image));
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

/// Relative L2 of what the first does not share with the second.
fn distance(ours: &Tensor, theirs: &Tensor) -> f64 {
    let norm = |t: Tensor| f64::try_from(t.to_kind(Kind::Double).norm()).unwrap();
    norm(ours - theirs) / norm(theirs.shallow_clone())
}

/// In bfloat16 we are no further from the reference in `f32` than its own autocast to bfloat16 is, over the pictures.
#[test]
fn parity_lite_medsam_in_bf16_is_no_further_than_the_official_autocast() {
    let _guard = tch::no_grad_guard();
    let net = network_with(None, Kind::BFloat16);
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
