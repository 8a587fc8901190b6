//! One step of training against the official modules: the loss, and the gradient of every kind of parameter
//! (`scripts/make_training_fixtures.py`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture_support;

use fixture_support::Fixture;
use sonomask::nn::{
    MaskDecoder, MaskDecoderConfig, MaskSelection, PpnConfig, PromptEncoder, PromptPredictor,
};
use sonomask::train::{Answer, LossConfig, Truth, loss};
use sonomask::weights::Weights;
use tch::{Device, Tensor};

/// Largest error of a gradient relative to the largest of its tensor. Sums over thousands of cells in `f32`, taken in another
/// order; what is wrong in kind is off by tens of percent.
const GRADIENT: f64 = 5e-3;
/// Of a term of the loss, relative to it.
const LOSS: f64 = 1e-4;

fn value(tensor: &Tensor) -> f64 {
    f64::try_from(tensor).unwrap()
}

#[track_caller]
fn step(name: &str, config: &LossConfig) {
    let file = Fixture::own("training");
    let (grid, classes) = (16, ["there", "absent"].map(str::to_owned));
    let generated = file.generated();
    let every = |name: &str| name.starts_with("ppn.") || name.starts_with("sam_mask_decoder.");
    let w = Weights::new(&generated, Device::Cpu).training(&every);
    let prompt_encoder =
        PromptEncoder::new(&w.pp("sam_prompt_encoder"), 256, [grid; 2], [16 * grid; 2], 16).unwrap();
    let decoder = MaskDecoder::new(&w.pp("sam_mask_decoder"), &MaskDecoderConfig::SAM2).unwrap();
    let ppn = PromptPredictor::new(&w.pp("ppn"), &PpnConfig::single_scale("x", classes.into())).unwrap();
    let given = |tag: &str, shape: &[i64]| file.input(&format!("fx.training.{tag}"), shape, 2.0);
    let queries = given("queries", &[2, 10, 256]).set_requires_grad(true);
    let embedding = given("embedding", &[1, 256, grid, grid]);
    let (s0, s1) = (given("s0", &[1, 32, 4 * grid, 4 * grid]), given("s1", &[1, 64, 2 * grid, 2 * grid]));

    // Without dropout, which no two programs draw alike.
    let predicted = ppn.forward(&[&embedding], &queries, &prompt_encoder, false).unwrap();
    let pe = prompt_encoder.get_dense_pe();
    let (sparse, dense) = (&predicted.sparse, &predicted.dense);
    let single = MaskSelection::Single;
    let decoded = decoder.forward(&embedding, pe, sparse, dense, Some((&s0, &s1)), single).unwrap();
    let answer = Answer {
        mask: &decoded.masks,
        interim: Some(&predicted.interim_mask),
        boxes: Some(&predicted.boxes),
        presence: decoded.object_score.as_ref(),
    };
    let [mask, boxes, present] = ["mask", "boxes", "present"].map(|part| file.raw(&format!("truth.{part}")));
    let truth = Truth { mask: &mask, interim: &mask, boxes: &boxes, present: &present };
    let terms = loss(config, &answer, &truth).unwrap();
    for (term, ours) in [
        ("mask", &terms.mask),
        ("interim", &terms.interim),
        ("bbox", &terms.bbox),
        ("presence", &terms.presence),
    ] {
        let (ours, theirs) = (value(ours), value(&file.raw(&format!("{name}.{term}"))));
        println!("{name} {term}: {ours} for {theirs}");
        assert!((ours - theirs).abs() <= LOSS * theirs.abs(), "{name} {term}: {ours} for {theirs}");
    }
    terms.total.backward();
    file.check(&format!("{name}.grad.queries"), &queries.grad(), GRADIENT);
    let trained = w.trained();
    let prefix = format!("{name}.grad.");
    let mut checked = 0;
    for key in file.names() {
        let parameter = key.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".stats"));
        if let Some(parameter) = parameter.filter(|&parameter| parameter != "queries") {
            file.check(&format!("{prefix}{parameter}"), &trained[parameter].grad(), GRADIENT);
            checked += 1;
        }
    }
    assert_eq!(checked, 18, "every listed parameter is compared");
}

#[test]
fn parity_gradients_of_the_papers_loss() {
    step("paper", &LossConfig::PAPER);
}

#[test]
fn parity_gradients_of_the_authors_loss() {
    step("authors", &LossConfig::CODED);
}
