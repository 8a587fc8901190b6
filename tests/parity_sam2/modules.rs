//! The parts on features made by the rule: prompt encoder, mask decoder, its selection, batches and gradients.

use sonomask::nn::{Decoded, MaskSelection, Sam2Features};
use sonomask::weights::Family;
use tch::{Device, Kind, Tensor};

use super::{SCORES, decode, network, points};
use crate::fixture_support::{ENCODER, Fixture};

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
