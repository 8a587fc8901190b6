//! The prompt predictor in every form: shapes, batches, gradients, and what it refuses.

use sonomask::nn::{PpnConfig, PpnForm, Prediction, PromptEncoder, PromptPredictor, learnable_prompts};
use sonomask::weights::{Blank, DEFAULT_SEED, Generated, Source, Weights};
use tch::{Device, Kind, Tensor};

use super::{FLOAT, GRID, Trainable, relative};

fn classes(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("class {i}")).collect()
}

fn prompt_encoder(source: &dyn Source) -> PromptEncoder {
    let w = Weights::new(source, Device::Cpu);
    PromptEncoder::new(&w.pp("sam_prompt_encoder"), 256, [GRID; 2], [16 * GRID; 2], 16).unwrap()
}

fn predictor(source: &dyn Source, config: &PpnConfig) -> PromptPredictor {
    PromptPredictor::new(&Weights::new(source, Device::Cpu).pp("ppn"), config).unwrap()
}

/// Inputs of every level: for SAM 2 each twice the size of the one before.
fn features(config: &PpnConfig, images: i64) -> Vec<Tensor> {
    let generated = Generated::new(DEFAULT_SEED);
    let level = |(i, &width): (usize, &i64)| {
        let side = if config.mask_scale_factor == 1 { GRID << i } else { GRID };
        let values = generated.unit(&format!("level {i}"), (images * width * side * side) as usize);
        Tensor::from_slice(&values).view([images, width, side, side]) * 2.0
    };
    config.channel_dims.iter().enumerate().map(level).collect()
}

fn forward(
    ppn: &PromptPredictor,
    features: &[Tensor],
    queries: &Tensor,
    prompts: &PromptEncoder,
) -> Prediction {
    let features: Vec<&Tensor> = features.iter().collect();
    ppn.forward(&features, queries, prompts, false).unwrap()
}

fn pyramid() -> PpnConfig {
    PpnConfig::pyramid(PpnConfig::sam_high_res("data", classes(3), 320), Some(160))
}

fn every_form() -> [PpnConfig; 4] {
    [
        PpnConfig::single_scale("data", classes(3)),
        PpnConfig::sam2_high_res("data", classes(3)),
        PpnConfig::sam_high_res("data", classes(3), 320),
        pyramid(),
    ]
}

#[test]
fn the_authors_network_has_as_many_parameters() {
    let w = Weights::new(&Blank, Device::Cpu);
    PromptPredictor::new(&w.pp("ppn"), &PpnConfig::sam2_high_res("data", classes(1))).unwrap();
    // Theirs counts the 128 computed frequencies and not the ten queries of 256.
    assert_eq!(w.parameters() + 128 - 10 * 256, 5_080_645);
}

#[test]
fn shapes_of_every_form() {
    let _guard = tch::no_grad_guard();
    let source = Generated::new(DEFAULT_SEED);
    let prompts = prompt_encoder(&source);
    for config in every_form() {
        let ppn = predictor(&source, &config);
        let p = forward(&ppn, &features(&config, 2), ppn.learnable_prompts(), &prompts);
        assert_eq!(p.sparse.size(), [6, 10, 256]);
        assert_eq!(p.dense.size(), [6, 256, GRID, GRID]);
        assert_eq!(p.interim_mask.size(), [6, 1, 4 * GRID, 4 * GRID]);
        assert_eq!(p.boxes.size(), [6, 4]);
        let ordered = p.boxes.narrow(1, 0, 2).le_tensor(&p.boxes.narrow(1, 2, 2)).all();
        assert!(bool::try_from(ordered).unwrap());
        assert!(bool::try_from(p.sparse.isfinite().all()).unwrap());
    }
}

#[test]
fn classes_and_images_together_equal_one_by_one() {
    let _guard = tch::no_grad_guard();
    let source = Generated::new(DEFAULT_SEED);
    let prompts = prompt_encoder(&source);
    for config in every_form() {
        let ppn = predictor(&source, &config);
        let both = features(&config, 2);
        let together = forward(&ppn, &both, ppn.learnable_prompts(), &prompts);
        for image in 0..2 {
            let one: Vec<Tensor> = both.iter().map(|f| f.narrow(0, image, 1)).collect();
            for class in 0..3 {
                let alone = forward(&ppn, &one, &ppn.learnable_prompts().narrow(0, class, 1), &prompts);
                let row = |t: &Tensor| t.narrow(0, 3 * image + class, 1);
                for (ours, theirs) in [
                    (&together.sparse, &alone.sparse),
                    (&together.dense, &alone.dense),
                    (&together.interim_mask, &alone.interim_mask),
                    (&together.boxes, &alone.boxes),
                ] {
                    let error = relative(&row(ours), theirs);
                    assert!(error < 1e-4, "{:?} image {image} class {class}: {error:.1e}", config.form);
                }
            }
        }
        let rows = |i| together.interim_mask.narrow(0, i, 1);
        assert!(relative(&rows(0), &rows(1)) > 1e-2, "classes differ");
        assert!(relative(&rows(0), &rows(3)) > 1e-2, "images differ");
    }
}

/// More cells than are worked on at once: the classes take turns, and nothing changes but the memory.
#[test]
fn many_classes_take_turns() {
    let _guard = tch::no_grad_guard();
    let source = Generated::new(DEFAULT_SEED);
    let config = PpnConfig::single_scale("data", classes(9));
    let ppn = predictor(&source, &config);
    let w = Weights::new(&source, Device::Cpu);
    let (h, wide) = (128, 256);
    let prompts =
        PromptEncoder::new(&w.pp("sam_prompt_encoder"), 256, [h, wide], [16 * h, 16 * wide], 16).unwrap();
    let embedding = Tensor::from_slice(&source.unit("embedding", (256 * h * wide) as usize));
    let embedding = [embedding.view([1, 256, h, wide])];
    let turns = forward(&ppn, &embedding, ppn.learnable_prompts(), &prompts);
    assert_eq!(turns.interim_mask.size(), [9, 1, 4 * h, 4 * wide]);
    let last = forward(&ppn, &embedding, &ppn.learnable_prompts().narrow(0, 8, 1), &prompts);
    assert!(relative(&turns.sparse.narrow(0, 8, 1), &last.sparse) < 1e-4);
    assert!(relative(&turns.interim_mask.narrow(0, 8, 1), &last.interim_mask) < 1e-4);
}

#[test]
fn gradients_reach_every_parameter() {
    for config in every_form() {
        let source = Trainable::new(Generated::new(DEFAULT_SEED));
        let ppn = predictor(&source, &config);
        let prompts = prompt_encoder(&Generated::new(DEFAULT_SEED));
        let p = forward(&ppn, &features(&config, 2), ppn.learnable_prompts(), &prompts);
        // Squares, because plain sums after a normalisation do not depend on what was normalised.
        let loss = [p.sparse, p.dense, p.interim_mask, p.boxes]
            .iter()
            .fold(Tensor::zeros([1], FLOAT), |loss, t| loss + t.square().mean(Kind::Float));
        loss.backward();
        let mut dead = source.without_gradient();
        // What a key's bias adds is the same for all keys, which softmax takes away again.
        dead.retain(|name| !name.ends_with("k_proj.bias"));
        assert!(dead.is_empty(), "{:?}: {dead:?}", config.form);
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let source = Generated::new(DEFAULT_SEED);
    let prompts = prompt_encoder(&source);
    for config in [PpnConfig::sam2_high_res("data", classes(1)), pyramid()] {
        let ppn = predictor(&source, &config);
        let features = features(&config, 1);
        // A pyramid's boxes are around its masks, and no gradient goes through them.
        let boxes_learn = config.form != PpnForm::Pyramid;
        let loss = |queries: &Tensor| {
            let p = forward(&ppn, &features, queries, &prompts);
            assert_eq!(p.boxes.requires_grad(), boxes_learn);
            let mask = p.interim_mask.mean(Kind::Double);
            if boxes_learn { p.boxes.sum(Kind::Double) + mask } else { mask }
        };
        let queries = ppn.learnable_prompts().copy().set_requires_grad(true);
        loss(&queries).backward();
        let gradient = queries.grad();
        let direction = &gradient / gradient.norm();
        let step = 2e-3;
        let at =
            |step: f64| f64::try_from(loss(&(&queries + &direction * step).detach().set_requires_grad(true)));
        let measured = (at(step).unwrap() - at(-step).unwrap()) / (2.0 * step);
        let expected = f64::try_from(gradient.norm()).unwrap();
        assert!((measured / expected - 1.0).abs() < 0.02, "{:?}: {measured} {expected}", config.form);
    }
}

#[test]
fn dropout_is_for_training_only() {
    let _guard = tch::no_grad_guard();
    let source = Generated::new(DEFAULT_SEED);
    let prompts = prompt_encoder(&source);
    let config = PpnConfig::single_scale("data", classes(2));
    let ppn = predictor(&source, &config);
    let features = features(&config, 1);
    let run = |train| ppn.forward(&[&features[0]], ppn.learnable_prompts(), &prompts, train).unwrap();
    assert_eq!(run(false).interim_mask, run(false).interim_mask);
    assert_ne!(run(true).interim_mask, run(false).interim_mask);
    assert_eq!(run(true).boxes, run(false).boxes);
}

#[test]
fn features_that_do_not_fit_are_refused() {
    let source = Generated::new(DEFAULT_SEED);
    let prompts = prompt_encoder(&source);
    let config = PpnConfig::sam2_high_res("data", classes(1));
    let ppn = predictor(&source, &config);
    let good = features(&config, 1);
    let refused = |features: &[&Tensor]| {
        ppn.forward(features, ppn.learnable_prompts(), &prompts, false).unwrap_err().to_string()
    };
    assert!(refused(&[&good[0]]).contains("3 levels, got 1"));
    assert!(refused(&[]).contains("3 levels, got 0"));
    let odd = Tensor::zeros([1, 64, 2 * GRID + 1, 2 * GRID], FLOAT);
    assert!(refused(&[&good[0], &odd, &good[2]]).contains("cannot follow"));
    let narrow = Tensor::zeros([1, 63, 2 * GRID, 2 * GRID], FLOAT);
    refused(&[&good[0], &narrow, &good[2]]);
    let config = PpnConfig { tokens: 1, ..config };
    let error = PromptPredictor::new(&Weights::new(&source, Device::Cpu), &config).unwrap_err();
    assert!(error.to_string().contains("two queries"), "{error}");
}

#[test]
fn data_sets_of_a_file_are_listed() {
    let source = Generated::new(DEFAULT_SEED).with([
        ("ppn.learnable_prompts.hip".to_owned(), vec![2, 10, 256]),
        ("ppn.learnable_prompts.wrist".to_owned(), vec![1, 12, 256]),
        ("ppn.layers.0.norm1.weight".to_owned(), vec![256]),
    ]);
    assert_eq!(learnable_prompts(&source, "ppn"), [("hip".to_owned(), 2, 10), ("wrist".to_owned(), 1, 12)]);
}
