//! SAM 2 and 2.1 on single pictures against the reference implementation, tensor by tensor.
//!
//! The weights are made by a rule, so no checkpoint is needed. Every test prints the errors it found; run with
//! `--nocapture` to see them. `SONOMASK_FIXTURES` names another set of answers, for instance of another seed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture_support;

use fixture_support::{ENCODER, Fixture, LOGITS, sam2_input, sub_indices};
use sonomask::nn::{Decoded, MaskSelection, Sam2, Sam2Features, sine_grid};
use sonomask::weights::{Blank, Family, Weights};
use tch::{Device, Kind, Tensor};

/// Predicted IoU and scores of objects and of stability are of the order of 1; their error is measured as the logits'.
const SCORES: f64 = LOGITS;

fn network(file: &Fixture, family: Family, side: i64) -> Sam2 {
    network_in(file, family, side, Kind::Float)
}

fn network_in(file: &Fixture, family: Family, side: i64, kind: Kind) -> Sam2 {
    let generated = file.generated();
    let w = Weights::new(&generated, Device::Cpu).computing_in(kind);
    let net = Sam2::new(&w, family, side).unwrap();
    w.finish().unwrap();
    net
}

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

/// Points with labels, of one prompt.
fn points(coords: &[[f64; 2]], labels: &[i64]) -> (Tensor, Tensor) {
    let n = labels.len() as i64;
    let coords: Vec<f32> = coords.iter().flatten().map(|&v| v as f32).collect();
    (Tensor::from_slice(&coords).view([1, n, 2]), Tensor::from_slice(labels).view([1, n]))
}

fn decode(
    net: &Sam2,
    features: &Sam2Features,
    (coords, labels): &(Tensor, Tensor),
    mask: Option<&Tensor>,
    selection: MaskSelection,
) -> Decoded {
    let (sparse, dense) = net.sam_prompt_encoder.forward(Some((coords, labels)), None, mask).unwrap();
    let pe = net.sam_prompt_encoder.get_dense_pe();
    let high_res = Some((&features.high_res.0, &features.high_res.1));
    net.sam_mask_decoder.forward(&features.embedding, pe, &sparse, &dense, high_res, selection).unwrap()
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

/// The synthetic features of the file in the place of an encoder's.
fn synthetic_features(file: &Fixture) -> Sam2Features {
    let embedding = file.input("fx.dec.image_embed", &[1, 256, 64, 64], 2.0);
    let s0 = file.input("fx.dec.s0", &[1, 32, 256, 256], 2.0);
    let s1 = file.input("fx.dec.s1", &[1, 64, 128, 128], 2.0);
    Sam2Features { top: embedding.shallow_clone(), embedding, high_res: (s0, s1) }
}

fn mask_prompt(file: &Fixture) -> Tensor {
    file.input("fx.mask_prompt", &[1, 1, 256, 256], 8.0)
}

#[test]
fn parity_sam21_prompt_encoder() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let encoder = network(&file, Family::Sam21HieraTiny, 1024).sam_prompt_encoder;
    for case in ["pts2", "box", "box_pt", "box2", "mask", "ptpad"] {
        let key = |what: &str| format!("prompt.{case}.{what}");
        let given = |what: &str| file.has(&key(what)).then(|| file.raw(&key(what)));
        let labels = given("in.labels").map(|l| l.to_kind(Kind::Int64));
        let points = given("in.points").zip(labels);
        let boxes = given("in.box");
        let mask = (case == "mask").then(|| mask_prompt(&file));
        let as_points = points.as_ref().map(|(c, l)| (c, l));
        let (sparse, dense) = encoder.forward(as_points, boxes.as_ref(), mask.as_ref()).unwrap();
        if case == "mask" {
            assert_eq!(sparse.size(), [1, 0, 256]);
        } else {
            file.check(&key("native.sparse"), &sparse, ENCODER);
        }
        file.check(&key("native.dense"), &dense, ENCODER);
        if let Some(boxes) = boxes {
            // The predictors' way: corners are points that come first, and padding follows.
            let corners = boxes.view([-1, 2, 2]);
            let labels = Tensor::from_slice(&[2i64, 3]).view([1, 2]).repeat([boxes.size()[0], 1]);
            let (coords, labels) = match &points {
                Some((c, l)) => (Tensor::cat(&[&corners, c], 1), Tensor::cat(&[&labels, l], 1)),
                None => (corners, labels),
            };
            let (sparse, _) = encoder.forward(Some((&coords, &labels)), None, None).unwrap();
            file.check(&key("aspoints.sparse"), &sparse, ENCODER);
        }
    }
    file.check("prompt.dense_pe", encoder.get_dense_pe(), ENCODER);
}

const BOX: [[f64; 2]; 2] = [[120.5, 80.0], [640.0, 700.75]];

#[test]
fn parity_sam21_mask_decoder() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let net = network(&file, Family::Sam21HieraTiny, 1024);
    let features = synthetic_features(&file);
    let two = |corners: [[f64; 2]; 2]| points(&corners, &[2, 3]);
    let second = BOX.map(|p| p.map(|v| v * 0.5 + 100.0));
    let both = (Tensor::cat(&[two(BOX).0, two(second).0], 0), two(BOX).1.repeat([2, 1]));
    let with_points = points(&[BOX[0], BOX[1], [300.0, 333.0], [50.0, 60.0]], &[2, 3, 1, 0]);
    let mask = mask_prompt(&file);
    let cases = [
        ("box", two(BOX), None),
        ("pt1", points(&[[400.0, 410.0]], &[1]), None),
        ("boxpts_mask", with_points, Some(&mask)),
        ("box2rep", both, None),
    ];
    let (coords, labels) = two(BOX);
    let (sparse, dense) = net.sam_prompt_encoder.forward(Some((&coords, &labels)), None, None).unwrap();
    let decoder = &net.sam_mask_decoder;
    let tokens = Tensor::cat(&[decoder.output_tokens().unwrap().unsqueeze(0), sparse], 1);
    file.check_raw("dec.twoway.tokens_in", &tokens, ENCODER);
    let pe = net.sam_prompt_encoder.get_dense_pe();
    let (hs, src) = decoder.transformer().forward(&(&features.embedding + &dense), pe, &tokens).unwrap();
    file.check_raw("dec.twoway.hs", &hs, ENCODER);
    file.check("dec.twoway.src", &src, ENCODER);

    for (case, prompt, mask) in cases {
        let key = |what: &str| format!("dec.{case}.{what}");
        let all = decode(&net, &features, &prompt, mask, MaskSelection::All);
        file.check_logits(&key("masks"), &all.masks);
        file.check_raw(&key("iou"), &all.iou, SCORES);
        file.check_raw(&key("tokens"), &all.mask_tokens, ENCODER);
        file.check_raw(&key("obj"), all.object_score.as_ref().unwrap(), SCORES);
        file.check_raw(&key("stability"), &all.stability().unwrap(), SCORES);
        for (what, selection) in [("mm1", MaskSelection::Multiple), ("mm0", MaskSelection::Stable)] {
            let some = decode(&net, &features, &prompt, mask, selection);
            file.check_logits(&key(&format!("{what}.masks")), &some.masks);
            file.check_raw(&key(&format!("{what}.iou")), &some.iou, SCORES);
            file.check_raw(&key(&format!("{what}.tok")), &some.mask_tokens, ENCODER);
        }
    }
}

/// Object 0 has an unstable mask 0, object 1 a stable one, object 2 one without any pixel.
#[test]
fn parity_sam21_selection_by_stability() {
    let file = Fixture::open("sam21_modules");
    let all = || Decoded {
        masks: file.raw("dyn.in.logits"),
        iou: file.raw("dyn.in.iou"),
        object_score: None,
        mask_tokens: Tensor::zeros([3, 4, 256], (Kind::Float, Device::Cpu)),
    };
    let stability = all().stability().unwrap().narrow(1, 0, 1);
    file.check_raw("dyn.stability", &stability, 1e-6);
    let stable: Vec<f64> = Vec::try_from(stability.to_kind(Kind::Double).view(-1)).unwrap();
    assert!(stable[0] < 0.98 && stable[1] >= 0.98 && stable[2] == 1.0, "{stable:?}");
    let selected = all().select(MaskSelection::Stable).unwrap();
    file.check_raw("dyn.out.logits", &selected.masks, 0.0);
    file.check_raw("dyn.out.iou", &selected.iou, 0.0);
}

/// Batches that were only expanded are computed once; the answers must not tell.
#[test]
fn prompts_decoded_together_answer_as_one_by_one() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let net = network(&file, Family::Sam21HieraTiny, 1024);
    let features = synthetic_features(&file);
    let shift = |by: f64| points(&BOX.map(|p| p.map(|v| v * 0.6 + by)), &[2, 3]);
    let prompts = [shift(0.0), shift(90.0), shift(250.0)];
    let cat =
        |of: fn(&(Tensor, Tensor)) -> &Tensor| Tensor::cat(&prompts.iter().map(of).collect::<Vec<_>>(), 0);
    let together = (cat(|p| &p.0), cat(|p| &p.1));
    let mask = mask_prompt(&file);
    for mask in [None, Some(&mask)] {
        let masks = mask.map(|m| Tensor::cat(&[m, &(m * 0.5), &(m * -1.0)], 0));
        let batch = decode(&net, &features, &together, masks.as_ref(), MaskSelection::All);
        for (i, prompt) in prompts.iter().enumerate() {
            let at = |t: &Tensor| t.narrow(0, i as i64, 1);
            let mask = masks.as_ref().map(at);
            let alone = decode(&net, &features, prompt, mask.as_ref(), MaskSelection::All);
            let largest = f64::try_from(alone.masks.abs().max()).unwrap();
            let error = f64::try_from((at(&batch.masks) - alone.masks).abs().max()).unwrap() / largest;
            assert!(error < 1e-4, "prompt {i}: {error}");
        }
    }
}

#[test]
fn gradients_reach_embedding_prompts_and_high_resolution_features() {
    let file = Fixture::open("sam21_modules");
    let net = network(&file, Family::Sam21HieraTiny, 512);
    let learn = |tag: &str, shape: &[i64]| file.input(tag, shape, 2.0).set_requires_grad(true);
    let embedding = learn("fx.dec.image_embed", &[1, 256, 32, 32]);
    let s0 = learn("fx.dec.s0", &[1, 32, 128, 128]);
    let s1 = learn("fx.dec.s1", &[1, 64, 64, 64]);
    let sparse = learn("sparse", &[2, 3, 256]);
    let dense = learn("dense", &[2, 256, 32, 32]);
    let pe = net.sam_prompt_encoder.get_dense_pe();
    let decode = |selection| {
        net.sam_mask_decoder.forward(&embedding, pe, &sparse, &dense, Some((&s0, &s1)), selection).unwrap()
    };
    let decoded = decode(MaskSelection::Single);
    let loss = decoded.masks.sigmoid().mean(Kind::Float)
        + decoded.iou.mean(Kind::Float)
        + decoded.object_score.as_ref().unwrap().mean(Kind::Float);
    loss.backward();
    for (name, tensor) in
        [("embedding", &embedding), ("s0", &s0), ("s1", &s1), ("sparse", &sparse), ("dense", &dense)]
    {
        let gradient = f64::try_from(tensor.grad().abs().max()).unwrap();
        assert!(gradient.is_finite() && gradient > 0.0, "{name}: {gradient}");
    }
    // In place without a graph, and not with one: the answers are the same.
    let without = tch::no_grad(|| decode(MaskSelection::Single));
    let error = f64::try_from((&decoded.masks - &without.masks).abs().max()).unwrap();
    assert!(error <= 1e-5 * f64::try_from(without.masks.abs().max()).unwrap(), "{error}");
}

#[test]
fn gradients_reach_the_picture_through_the_encoder() {
    let file = Fixture::open("sam21_tiny_512");
    let net = network(&file, Family::Sam21HieraTiny, 64);
    let x = file.input("picture", &[1, 3, 64, 64], 1.0).set_requires_grad(true);
    let features = net.encode_image(&x).unwrap();
    let without = tch::no_grad(|| net.encode_image(&x).unwrap());
    let error = f64::try_from((&features.embedding - &without.embedding).abs().max()).unwrap();
    assert!(error <= 1e-5 * f64::try_from(without.embedding.abs().max()).unwrap(), "{error}");
    (features.embedding.mean(Kind::Float) + features.high_res.0.square().mean(Kind::Float)).backward();
    let gradient = f64::try_from(x.grad().abs().max()).unwrap();
    assert!(gradient.is_finite() && gradient > 0.0, "{gradient}");
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
