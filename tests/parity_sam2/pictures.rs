//! Whole networks on a picture: every size against the reference, in bfloat16, at other sides, and counted.

use sonomask::nn::{MaskSelection, Sam2, Sam2Features, sine_grid};
use sonomask::weights::{Blank, Family, Weights};
use tch::{Device, Kind, Tensor};

use super::{SCORES, decode, network, network_in, points};
use crate::fixture_support::{ENCODER, Fixture, sam2_input, sub_indices};

/// The picture of the answers, prepared.
fn input(file: &Fixture, side: i64) -> Tensor {
    let pixels = file.beside("preprocess").raw("img.640x480");
    sam2_input(&(pixels.to_kind(Kind::Float) / 255.0).permute([2, 0, 1]).unsqueeze(0), side)
}

/// The encoder, every tensor of the file compared.
fn encode(file: &Fixture, net: &Sam2, side: i64) -> Sam2Features {
    let x = input(file, side);
    file.check("input", &x, ENCODER);
    let trunk = &net.image_encoder.trunk;
    file.check("pos_embed", trunk.positions(), ENCODER);
    let mut shown = 0;
    let maps = trunk
        .forward_traced(&x, |x| {
            let key = if shown == 0 { "patch_embed".to_owned() } else { format!("block{}", shown - 1) };
            file.check(&format!("trunk.{key}"), x, ENCODER);
            shown += 1;
        })
        .unwrap();
    assert!(!file.answers(&format!("trunk.block{}", shown - 1)), "a block of the reference was not run");
    let levels = net.image_encoder.neck.forward(&maps).unwrap();
    for (i, level) in levels.iter().enumerate() {
        file.check(&format!("fpn{i}"), level, ENCODER);
        let (_, c, h, w) = level.size4().unwrap();
        file.check(&format!("pos{i}"), &sine_grid(c, [h, w], Device::Cpu).unwrap(), ENCODER);
    }
    let features = net.features(levels).unwrap();
    file.check("conv_s0", &features.high_res.0, ENCODER);
    file.check("conv_s1", &features.high_res.1, ENCODER);
    file.check("image_embed", &features.embedding, ENCODER);
    features
}

/// Low-resolution logits at the size of the picture, in one step.
fn at_size_of_picture(masks: &Tensor) -> Tensor {
    masks.upsample_bilinear2d([480, 640], false, None, None)
}

fn end_to_end(name: &str, family: Family, side: i64) {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open(name);
    let net = network(&file, family, side);
    let features = encode(&file, &net, side);
    let boxes = file.values("e2e.boxes_model");
    let corners = |i: usize| [[boxes[4 * i], boxes[4 * i + 1]], [boxes[4 * i + 2], boxes[4 * i + 3]]];
    let px = file.values("e2e.point_px");
    let scale = side as f64;
    let point = [px[0] / 640.0 * scale, px[1] / 480.0 * scale];
    let [first, second] = corners(0);
    let cases = [
        ("box0", points(&corners(0), &[2, 3])),
        ("box1", points(&corners(1), &[2, 3])),
        ("pt", points(&[point], &[1])),
        ("box0pt", points(&[first, second, point], &[2, 3, 1])),
    ];
    for (case, prompt) in cases {
        let key = |what: &str| format!("e2e.{case}.{what}");
        let all = decode(&net, &features, &prompt, None, MaskSelection::All);
        file.check_logits(&key("masks"), &all.masks);
        file.check_raw(&key("iou"), &all.iou, SCORES);
        file.check_raw(&key("obj"), all.object_score.as_ref().unwrap(), SCORES);
        file.check_raw(&key("stability"), &all.stability().unwrap(), SCORES);
        for (what, selection) in [("mm1", MaskSelection::Multiple), ("mm0", MaskSelection::Stable)] {
            let some = decode(&net, &features, &prompt, None, selection);
            file.check_raw(&key(&format!("{what}.iou")), &some.iou, SCORES);
            file.check_logits(&key(&format!("{what}.up")), &at_size_of_picture(&some.masks));
        }
        let single = decode(&net, &features, &prompt, None, MaskSelection::Single);
        assert_eq!(single.masks.size(), [1, 1, side / 4, side / 4]);
        let largest = f64::try_from(all.masks.abs().max()).unwrap();
        let error = f64::try_from((single.masks - all.masks.narrow(1, 0, 1)).abs().max()).unwrap();
        assert!(error <= 1e-5 * largest, "{case}: a single mask differs by {error}");
    }
}

#[test]
fn parity_sam21_tiny_1024() {
    end_to_end("sam21_tiny_1024", Family::Sam21HieraTiny, 1024);
}

#[test]
fn parity_sam21_small_1024() {
    end_to_end("sam21_small_1024", Family::Sam21HieraSmall, 1024);
}

#[test]
fn parity_sam21_base_plus_1024() {
    end_to_end("sam21_base_plus_1024", Family::Sam21HieraBasePlus, 1024);
}

#[test]
fn parity_sam21_large_1024() {
    end_to_end("sam21_large_1024", Family::Sam21HieraLarge, 1024);
}

#[test]
fn parity_sam21_tiny_512() {
    end_to_end("sam21_tiny_512", Family::Sam21HieraTiny, 512);
}

#[test]
fn parity_sam21_base_plus_512() {
    end_to_end("sam21_base_plus_512", Family::Sam21HieraBasePlus, 512);
}

/// SAM 2.0 has the same image path, and the side may be any multiple of 32, with windows that need padding.
#[test]
fn sam20_and_other_sides_run() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_tiny_512");
    for side in [640, 352] {
        let [old, new] = [Family::Sam2HieraTiny, Family::Sam21HieraTiny].map(|family| {
            let net = network(&file, family, side);
            let features = net.encode_image(&input(&file, side)).unwrap();
            let c = side as f64;
            let prompt = points(&[[0.25 * c, 0.3 * c], [0.6 * c, 0.6 * c]], &[2, 3]);
            let decoded = decode(&net, &features, &prompt, None, MaskSelection::Multiple);
            assert_eq!(features.embedding.size(), [1, 256, side / 16, side / 16]);
            assert_eq!(features.high_res.0.size(), [1, 32, side / 4, side / 4]);
            assert_eq!(features.high_res.1.size(), [1, 64, side / 8, side / 8]);
            assert_eq!(decoded.masks.size(), [1, 3, side / 4, side / 4]);
            decoded.masks
        });
        assert_eq!(old, new);
        assert!(f64::try_from(new.std(true)).unwrap() > 0.0);
    }
    let w = Weights::new(&Blank, Device::Cpu);
    for side in [0, -32, 500, 1000] {
        let error = Sam2::new(&w, Family::Sam21HieraTiny, side).unwrap_err().to_string();
        assert!(error.contains("multiple of 32"), "{error}");
    }
    let error = Sam2::new(&w, Family::SamVitB, 1024).unwrap_err().to_string();
    assert!(error.contains("sam-vit-b"), "{error}");
}

/// Learned values of the published networks less those of the memory: 7,522,259 (2.0) and 7,538,771 (2.1).
#[test]
fn the_networks_have_as_many_parameters_as_the_published_ones() {
    // The image encoder, prompt encoder, mask decoder and `no_mem_embed`.
    let rest = 6_220 + 4_215_109 + 256;
    let families = [
        (Family::Sam2HieraTiny, 27_219_136),
        (Family::Sam2HieraSmall, 34_316_992),
        (Family::Sam2HieraBasePlus, 69_106_816),
        (Family::Sam2HieraLarge, 212_703_280),
        (Family::Sam21HieraTiny, 27_219_136),
        (Family::Sam21HieraSmall, 34_316_992),
        (Family::Sam21HieraBasePlus, 69_106_816),
        (Family::Sam21HieraLarge, 212_703_280),
    ];
    for (family, encoder) in families {
        let w = Weights::new(&Blank, Device::Cpu);
        Sam2::new(&w, family, 1024).unwrap();
        assert_eq!(w.parameters(), encoder + rest, "{family}");
    }
}

/// In bfloat16 every level of the encoder is no further from the reference in `f32` than its own autocast is, as far as some of its places
/// can tell: a distance from `n` of them is off by a share of `1 / sqrt(2 n)`. Kernels for AMX round otherwise than those for AVX-512.
#[test]
fn parity_sam21_tiny_in_bf16_is_no_further_than_the_official_autocast() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::own("sam21_tiny_512");
    let net = network_in(&file, Family::Sam21HieraTiny, 512, Kind::BFloat16);
    let maps = net.image_encoder.trunk.forward(&input(&file, 512)).unwrap();
    let levels = net.image_encoder.neck.forward(&maps).unwrap();
    let official = Fixture::own("precision").values("sam21_tiny_512");
    assert_eq!(levels.len(), official.len());
    for (i, (level, official)) in levels.iter().zip(official).enumerate() {
        let theirs = file.raw(&format!("fpn{i}.sub"));
        let at: Vec<i64> = sub_indices(level.numel(), theirs.numel()).into_iter().map(|i| i as i64).collect();
        let ours = level.to_kind(Kind::Float).flatten(0, -1).index_select(0, &Tensor::from_slice(&at));
        let ours = f64::try_from((ours - &theirs).norm() / theirs.norm()).unwrap();
        println!("level {i}: {ours:.5}, official autocast {official:.5}");
        assert!(ours > 1e-5, "level {i}: this was not computed in bfloat16");
        // Two such shares of a difference.
        let unsure = 1.0 + 2.0 / (theirs.numel() as f64).sqrt();
        assert!(ours <= unsure * official, "level {i}: {ours} against {official} x {unsure}");
    }
}
