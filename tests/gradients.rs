//! One step of training against the official modules: the loss, and the gradient of every kind of parameter; and what the optimiser
//! makes of gradients, against PyTorch's own (`scripts/make_training_fixtures.py`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture_support;

use std::collections::BTreeMap;

use fixture_support::Fixture;
use sonomask::nn::{
    MaskDecoder, MaskDecoderConfig, MaskSelection, PpnConfig, PromptEncoder, PromptPredictor,
};
use sonomask::train::{Answer, Group, LossConfig, Optimizer, Truth, loss};
use sonomask::weights::Weights;
use tch::{Device, Kind, Tensor};

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

/// Gradients that are clipped and that are not, so faint that AdamW's eps counts, and none at all; three learning rates that change
/// from step to step.
#[test]
fn parity_steps_of_adamw() {
    let file = Fixture::own("optimizer");
    let parameters: BTreeMap<String, Tensor> = file
        .names()
        .iter()
        .filter_map(|name| name.strip_prefix("begin."))
        .map(|name| (name.to_owned(), file.raw(&format!("begin.{name}")).set_requires_grad(true)))
        .collect();
    assert_eq!(parameters.len(), 5);
    let mut optimizer = Optimizer::new(&parameters, 0.1, 1.0, 0.0).unwrap();
    let (rates, norms) = (file.raw("rates"), file.values("norms"));
    let mut unreached = 0;
    for (at, theirs) in (0i64..).zip(&norms) {
        optimizer.zero_grad();
        for (name, parameter) in &parameters {
            let gradient = file.raw(&format!("gradients.{name}")).get(at);
            // Zeros stand for none, which is what PyTorch was given.
            if value(&gradient.abs().max()) > 0.0 {
                (parameter * &gradient).sum(Kind::Float).backward();
            } else {
                unreached += 1;
            }
        }
        let rate = |group: Group| {
            let place = Group::ALL.iter().position(|other| *other == group).unwrap();
            rates.double_value(&[at, place as i64])
        };
        let norm = optimizer.step(rate).unwrap();
        assert!((norm - theirs).abs() <= 1e-6 * theirs, "norm of step {at}: {norm} for {theirs}");
        // PyTorch computed in 64 bits. All values are below 1, where `f32` rounds by a quarter of its epsilon at most, and a step
        // rounds twice: the decay and the move. That doubled leaves room for what the moments round.
        let bar = (at + 1) as f64 * f64::from(f32::EPSILON);
        for (name, ours) in optimizer.weights().unwrap() {
            let theirs = file.raw(&format!("after.{name}")).get(at);
            let apart = value(&(ours.to_kind(Kind::Double) - theirs).abs().max());
            println!("{name} after step {at}: off by {apart:.1e}, bar {bar:.1e}");
            assert!(apart <= bar, "{name} after step {at}: off by {apart:e}, bar {bar:e}");
        }
    }
    // Before its first step, which is then later than the others', and between two of them.
    assert_eq!((optimizer.steps(), unreached), (norms.len() as u64, 2));
    assert_eq!(norms.iter().filter(|norm| **norm > 1.0).count(), 3, "some are clipped and some are not");
}
