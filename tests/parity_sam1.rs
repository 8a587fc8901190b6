//! SAM ViT-B, ViT-L and ViT-H, MedSAM and MobileSAM against Meta's and MobileSAM's packages, tensor by tensor.
//!
//! Weights are made from a rule, so no checkpoint is needed. The answers for ViT-L, ViT-H, MedSAM and MobileSAM at 128 pixels are made by
//! `scripts/make_sam1_fixtures.py`. Every test prints the errors it found; run with `--nocapture` to see them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture_support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use fixture_support::{ENCODER, Fixture, LOGITS};
use sonomask::nn::{
    Decoded, EncoderStep, ImageEncoderVit, MaskSelection, Sam, Sam1, Sam1Config, Sam1Encoder, VitConfig,
};
use sonomask::weights::{DEFAULT_SEED, Family, Generated, Weights};
use tch::{Device, Kind, Tensor};

const DEVICE: Device = Device::Cpu;

/// One network at a time: ViT-H alone takes 4 GB.
fn alone() -> MutexGuard<'static, ()> {
    static LARGE: Mutex<()> = Mutex::new(());
    LARGE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn network(file: &Fixture, family: Family) -> Sam1 {
    network_at(file, family, None)
}

/// `side`: of the input, in pixels, if not the family's own.
fn network_at(file: &Fixture, family: Family, side: Option<i64>) -> Sam1 {
    match Sam::new(&Weights::new(&file.generated(), DEVICE), family, side).unwrap() {
        Sam::One(net) => *net,
        Sam::Two { .. } => panic!("{family} is of the first generation"),
    }
}

/// The stored picture as `[1, 3, h, w]`, `u8`.
fn picture(file: &Fixture) -> Tensor {
    file.beside("preprocess").raw("img.640x480").permute([2, 0, 1]).unsqueeze(0)
}

/// The picture as SAM's input: longest side to 1024, normalised, then padded with zeros.
fn input(file: &Fixture) -> Tensor {
    normalised(&picture(file).internal_upsample_bilinear2d_aa([768, 1024], false, None, None))
}

/// A resized picture `[1, 3, h, w]` of which the width is the input's side.
fn normalised(resized: &Tensor) -> Tensor {
    let (.., height, side) = resized.size4().unwrap();
    let channel = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
    let x = (resized.to_kind(Kind::Float) - channel([123.675, 116.28, 103.53]))
        / channel([58.395, 57.12, 57.375]);
    x.constant_pad_nd([0, 0, 0, side - height])
}

/// Name and layout of a step in the fixture of a ViT.
fn vit_step(step: EncoderStep, x: &Tensor) -> Option<(String, Tensor)> {
    let x = x.permute([0, 2, 3, 1]);
    match step {
        EncoderStep::PatchEmbed => Some(("enc.patch_embed".into(), x)),
        EncoderStep::Block { layer: 0, block } => Some((format!("enc.block{block}"), x)),
        _ => None,
    }
}

/// Name and layout of a step in the fixture of the TinyViT: all but the convolutional part are sequences of tokens.
fn tiny_vit_step(step: EncoderStep, x: &Tensor) -> Option<(String, Tensor)> {
    let tokens = || x.flatten(2, 3).transpose(1, 2);
    match step {
        EncoderStep::PatchEmbed => Some(("enc.patch_embed".into(), x.shallow_clone())),
        EncoderStep::Block { layer: 0, block } => {
            Some((format!("enc.layer0.block{block}"), x.shallow_clone()))
        }
        EncoderStep::Block { layer, block } => Some((format!("enc.layer{layer}.block{block}"), tokens())),
        EncoderStep::Downsample { layer } => Some((format!("enc.layer{layer}.downsample"), tokens())),
        EncoderStep::Neck => None,
    }
}

/// Encodes and compares the input, every step that is stored and the embedding, which is returned.
fn check_encoder(
    file: &Fixture,
    encoder: &Sam1Encoder,
    x: &Tensor,
    name: fn(EncoderStep, &Tensor) -> Option<(String, Tensor)>,
) -> Tensor {
    file.check("input", x, ENCODER);
    let mut seen = Vec::new();
    let embedding = encoder
        .trace(x, |step, output| {
            if let Some((key, output)) = name(step, output) {
                file.check(&key, &output, ENCODER);
                seen.push(key);
            }
        })
        .unwrap();
    let stored = file.names().into_iter().filter_map(|n| n.strip_suffix(".stats").map(str::to_owned));
    for key in stored.filter(|key| key.starts_with("enc.")) {
        assert!(seen.contains(&key), "{} has {key}, which was not shown", file.name);
    }
    file.check("image_embed", &embedding, ENCODER);
    embedding
}

/// A prompt in input pixels.
#[derive(Default)]
struct Prompt {
    points: Option<(Tensor, Tensor)>,
    boxes: Option<Tensor>,
    mask: Option<Tensor>,
}

impl Prompt {
    fn encode(&self, net: &Sam1) -> (Tensor, Tensor) {
        let points = self.points.as_ref().map(|(coords, labels)| (coords, labels));
        net.prompt_encoder.forward(points, self.boxes.as_ref(), self.mask.as_ref()).unwrap()
    }

    fn decode(&self, net: &Sam1, embedding: &Tensor, selection: MaskSelection) -> Decoded {
        let (sparse, dense) = self.encode(net);
        let pe = net.prompt_encoder.get_dense_pe();
        net.mask_decoder.forward(embedding, pe, &sparse, &dense, None, selection).unwrap()
    }
}

fn mask_prompt(file: &Fixture) -> Tensor {
    file.input("fx.mask_prompt", &[1, 1, 256, 256], 8.0)
}

/// The prompt encoder alone.
fn check_prompts(file: &Fixture, net: &Sam1) {
    file.check("prompt.dense_pe", net.prompt_encoder.get_dense_pe(), ENCODER);
    for case in ["pts2", "box", "box_pt", "box2", "mask", "ptpad"] {
        let of = |part: &str| {
            let name = format!("prompt.{case}.in.{part}");
            file.has(&name).then(|| file.raw(&name))
        };
        let prompt = Prompt {
            points: of("points").map(|p| (p, of("labels").unwrap().to_kind(Kind::Int64))),
            boxes: of("box"),
            mask: (case == "mask").then(|| mask_prompt(file)),
        };
        let (sparse, dense) = prompt.encode(net);
        let (sparse_key, dense_key) =
            (format!("prompt.{case}.native.sparse"), format!("prompt.{case}.native.dense"));
        file.check(&dense_key, &dense, ENCODER);
        if file.answers(&sparse_key) {
            file.check(&sparse_key, &sparse, ENCODER);
        } else {
            assert_eq!(sparse.size(), file.shape(&sparse_key));
        }
    }
}

/// The masks of `cases`, small and at the size of the picture.
fn check_masks(file: &Fixture, net: &Sam1, embedding: &Tensor, cases: &[&str]) {
    let boxes = file.raw(if file.has("e2e.boxes_model") { "e2e.boxes_model" } else { "e2e.box_model" });
    let first = || Some(boxes.narrow(0, 0, 1));
    let point = || Some((file.raw("e2e.point_model"), Tensor::from_slice(&[1i64]).view([1, 1])));
    for case in cases {
        let prompt = match *case {
            "box0" => Prompt { boxes: first(), ..Prompt::default() },
            "boxes" => Prompt { boxes: Some(boxes.shallow_clone()), ..Prompt::default() },
            "pt" => Prompt { points: point(), ..Prompt::default() },
            "box0pt" => Prompt { points: point(), boxes: first(), ..Prompt::default() },
            _ => Prompt { boxes: first(), mask: Some(mask_prompt(file)), ..Prompt::default() },
        };
        let all = prompt.decode(net, embedding, MaskSelection::All);
        file.check_logits(&format!("e2e.{case}.masks"), &all.masks);
        file.check_raw(&format!("e2e.{case}.iou"), &all.iou, LOGITS);
        // To the input's size, without the padding, to the picture's size.
        let side = net.input_size() as i64;
        let large = all.masks.upsample_bilinear2d([side, side], false, None, None).narrow(2, 0, side * 3 / 4);
        let up = large.upsample_bilinear2d([480, 640], false, None, None);
        file.check_logits(&format!("e2e.{case}.up"), &up);
        // Fewer masks are the same masks.
        let same = |part: &Tensor, whole: &Tensor| {
            let difference = f64::try_from((part - whole).abs().max()).unwrap();
            assert!(difference <= 1e-4, "{case}: {difference}");
        };
        same(&prompt.decode(net, embedding, MaskSelection::Single).masks, &all.masks.narrow(1, 0, 1));
        same(&prompt.decode(net, embedding, MaskSelection::Multiple).masks, &all.masks.narrow(1, 1, 3));
    }
}

const CASES: [&str; 5] = ["box0", "boxes", "pt", "box0pt", "box0mask"];

/// MedSAM's probability at the size of the picture, and its mask.
fn check_medsam(file: &Fixture, logits: &Tensor, probability: &str, mask: &str) {
    let ours = logits.sigmoid().upsample_bilinear2d([480, 640], false, None, None);
    file.check(probability, &ours, ENCODER);
    let bits = Vec::<u8>::try_from(file.raw(mask)).unwrap();
    let ours = Vec::<f32>::try_from(ours.view(-1)).unwrap();
    assert_eq!(ours.len(), 8 * bits.len());
    let (mut wrong, mut inside) = (0, 0);
    for (i, p) in ours.iter().enumerate() {
        let theirs = bits[i / 8] >> (i % 8) & 1 == 1;
        inside += usize::from(theirs);
        // A quarter of the margin of logits, which is the slope of the sigmoid at zero.
        wrong += usize::from((*p > 0.5) != theirs && (p - 0.5).abs() > 0.0025);
    }
    println!("{} {mask}: {wrong} wrong, {inside} inside", file.name);
    assert_eq!(wrong, 0);
}

#[test]
fn parity_sam1_vit_b() {
    let (_alone, _guard) = (alone(), tch::no_grad_guard());
    let file = Fixture::open("sam1_vit_b");
    let net = network(&file, Family::SamVitB);
    let embedding = check_encoder(&file, &net.image_encoder, &input(&file), vit_step);
    check_prompts(&file, &net);
    check_masks(&file, &net, &embedding, &CASES);
    let prompt = Prompt { boxes: Some(file.raw("e2e.boxes_model").narrow(0, 0, 1)), ..Prompt::default() };
    let single = prompt.decode(&net, &embedding, MaskSelection::Single);
    check_medsam(&file, &single.masks, "medsam.prob", "medsam.bits");
}

#[test]
fn parity_mobile_sam() {
    let (_alone, _guard) = (alone(), tch::no_grad_guard());
    let file = Fixture::open("sam1_vit_t");
    let net = network(&file, Family::MobileSam);
    let embedding = check_encoder(&file, &net.image_encoder, &input(&file), tiny_vit_step);
    check_prompts(&file, &net);
    check_masks(&file, &net, &embedding, &CASES);
}

/// At a side where all windows of a stage are padded: the published weights know nothing of a side.
#[test]
fn parity_mobile_sam_at_another_side() {
    let (_alone, _guard) = (alone(), tch::no_grad_guard());
    let file = Fixture::open("sam1_vit_t_128");
    let net = network_at(&file, Family::MobileSam, Some(128));
    assert_eq!(net.input_size(), 128);
    let input = normalised(&file.raw("resized").permute([2, 0, 1]).unsqueeze(0));
    let embedding = check_encoder(&file, &net.image_encoder, &input, tiny_vit_step);
    check_masks(&file, &net, &embedding, &["box0", "pt"]);
}

#[test]
fn parity_sam1_vit_l() {
    let (_alone, _guard) = (alone(), tch::no_grad_guard());
    let file = Fixture::open("sam1_vit_l");
    let net = network(&file, Family::SamVitL);
    let embedding = check_encoder(&file, &net.image_encoder, &input(&file), vit_step);
    check_masks(&file, &net, &embedding, &["box0", "pt"]);
}

#[test]
fn parity_sam1_vit_h() {
    let (_alone, _guard) = (alone(), tch::no_grad_guard());
    let file = Fixture::open("sam1_vit_h");
    let net = network(&file, Family::SamVitH);
    let embedding = check_encoder(&file, &net.image_encoder, &input(&file), vit_step);
    check_masks(&file, &net, &embedding, &["box0", "pt"]);
}

/// Two windowed and two global blocks on a grid that windows do not divide.
fn small() -> VitConfig {
    VitConfig {
        img_size: 96,
        embed_dim: 32,
        depth: 4,
        num_heads: 4,
        window_size: 4,
        global_attn_indexes: [1, 3, 3, 3],
        ..VitConfig::base()
    }
}

fn small_encoder() -> ImageEncoderVit {
    let source = Generated::new(DEFAULT_SEED);
    ImageEncoderVit::new(&Weights::new(&source, DEVICE).pp("image_encoder"), &small()).unwrap()
}

#[test]
fn levels_are_the_last_two_blocks() {
    let _guard = tch::no_grad_guard();
    let encoder = Sam1Encoder::Vit(Box::new(small_encoder()));
    let x = Tensor::from_slice(&Generated::new(1).unit("x", 3 * 96 * 96)).view([1, 3, 96, 96]);
    let mut blocks = Vec::new();
    let traced = encoder
        .trace(&x, |step, output| {
            if let EncoderStep::Block { .. } = step {
                blocks.push(output.copy());
            }
        })
        .unwrap();
    let features = encoder.features(&x, None).unwrap();
    assert_eq!(features.embedding, traced);
    assert_eq!(features.embedding, encoder.forward(&x).unwrap());
    assert_eq!(features.embedding.size(), [1, 256, 6, 6]);
    assert_eq!(blocks.len(), 4);
    assert_eq!(features.levels[0].size(), [1, 32, 6, 6]);
    assert_eq!(features.levels[0], blocks[2]);
    assert_eq!(features.levels[1], blocks[3]);
}

#[test]
fn a_vit_goes_on_from_any_block_but_the_first() {
    let _guard = tch::no_grad_guard();
    let encoder = Sam1Encoder::Vit(Box::new(small_encoder()));
    let x = Tensor::from_slice(&Generated::new(4).unit("x", 3 * 96 * 96)).view([1, 3, 96, 96]);
    for blocks in 1..4 {
        let whole = encoder.features(&x, Some(blocks)).unwrap();
        let rest = encoder.finish(whole.cut.as_ref().unwrap(), blocks).unwrap();
        assert_eq!((rest.embedding, rest.levels), (whole.embedding, whole.levels), "{blocks} blocks");
    }
}

#[test]
fn a_batch_is_its_pictures_one_by_one() {
    let _guard = tch::no_grad_guard();
    let encoder = small_encoder();
    let x = Tensor::from_slice(&Generated::new(2).unit("x", 2 * 3 * 96 * 96)).view([2, 3, 96, 96]);
    let both = encoder.forward(&x).unwrap();
    for i in 0..2 {
        let one = encoder.forward(&x.narrow(0, i, 1)).unwrap();
        let difference = f64::try_from((both.narrow(0, i, 1) - one).abs().max()).unwrap();
        assert!(difference <= 1e-4, "{difference}");
    }
}

#[test]
fn gradients_reach_the_picture_and_change_nothing() {
    let encoder = small_encoder();
    let x = Tensor::from_slice(&Generated::new(3).unit("x", 3 * 96 * 96)).view([1, 3, 96, 96]);
    let without = tch::no_grad(|| encoder.forward(&x)).unwrap();
    let x = x.set_requires_grad(true);
    let with = encoder.forward(&x).unwrap();
    let difference = f64::try_from((&with - without).abs().max()).unwrap();
    assert!(difference <= 1e-4, "{difference}");
    with.square().mean(Kind::Float).backward();
    let gradient = f64::try_from(x.grad().abs().max()).unwrap();
    assert!(gradient.is_finite() && gradient > 0.0, "{gradient}");
}

#[test]
fn a_picture_of_another_size_is_refused_with_both_sizes() {
    let refused = |size: [i64; 4]| {
        let x = Tensor::zeros(size, (Kind::Float, DEVICE));
        small_encoder().forward(&x).unwrap_err().to_string()
    };
    let message = refused([1, 3, 64, 96]);
    assert!(message.contains("96 x 96") && message.contains("96 x 64"), "{message}");
    assert!(refused([1, 1, 96, 96]).contains("3 channels"));

    let source = Generated::new(DEFAULT_SEED);
    let config = Sam1Config::of(Family::MobileSam).unwrap();
    let net = Sam1::new(&Weights::new(&source, DEVICE), &config).unwrap();
    let x = Tensor::zeros([1, 3, 512, 512], (Kind::Float, DEVICE));
    let message = net.image_encoder.forward(&x).unwrap_err().to_string();
    assert!(message.contains("1024 x 1024") && message.contains("512 x 512"), "{message}");
}

#[test]
fn sizes_are_the_published_ones() {
    let of = |family| Sam1Config::of(family).unwrap();
    for (family, input, levels) in [
        (Family::LiteMedSam, 256, 320),
        (Family::MobileSam, 1024, 320),
        (Family::SamVitB, 1024, 768),
        (Family::MedSam, 1024, 768),
        (Family::SamVitL, 1024, 1024),
        (Family::SamVitH, 1024, 1280),
    ] {
        let config = of(family);
        assert_eq!((config.input_size(), config.embedding_size()), (input, 64), "{family}");
        assert_eq!(config.level_channels(), levels, "{family}");
    }
    assert!(Sam1Config::of(Family::Sam2HieraTiny).is_none());
}
