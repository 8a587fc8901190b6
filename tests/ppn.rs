//! What has to hold for the prompt predictor, low rank and adapters whatever the weights are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::cell::RefCell;
use std::collections::BTreeMap;

use sonomask::nn::{
    Adapters, Linear, MaskDecoder, MaskDecoderConfig, MaskSelection, MergedLora, PromptEncoder, Sam2,
    lora_shapes,
};
use sonomask::nn::{PpnConfig, Prediction, PromptPredictor, learnable_prompts};
use sonomask::weights::{Blank, DEFAULT_SEED, Family, Generated, Source, Weights, WeightsError};
use tch::{Device, Kind, Tensor};

const GRID: i64 = 8;
const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

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

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a - b).abs().max() / b.abs().max()).unwrap()
}

fn every_form() -> [PpnConfig; 3] {
    [
        PpnConfig::single_scale("data", classes(3)),
        PpnConfig::sam2_high_res("data", classes(3)),
        PpnConfig::sam_high_res("data", classes(3), 320),
    ]
}

/// Tensors that are leaves of the graph, as a trainer holds them.
#[derive(Debug)]
struct Trainable {
    source: Generated,
    leaves: RefCell<BTreeMap<String, Tensor>>,
}

impl Trainable {
    fn new(source: Generated) -> Self {
        Self { source, leaves: RefCell::default() }
    }

    fn without_gradient(&self) -> Vec<String> {
        let flows = |t: &Tensor| t.grad().defined() && f64::try_from(t.grad().abs().max()).unwrap() > 0.0;
        self.leaves.borrow().iter().filter(|(_, t)| !flows(t)).map(|(name, _)| name.clone()).collect()
    }
}

impl Source for Trainable {
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let leaf = self.source.read(name, shape)?.set_requires_grad(true);
        self.leaves.borrow_mut().insert(name.to_owned(), leaf.shallow_clone());
        Ok(leaf)
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.source.shape(name)
    }

    fn names(&self) -> Vec<String> {
        self.source.names()
    }
}

/// Exactly the tensors of a file.
#[derive(Debug)]
struct Stored(BTreeMap<String, Tensor>);

impl Source for Stored {
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let expected = shape.to_vec();
        let Some(tensor) = self.0.get(name) else {
            return Err(WeightsError::Missing { name: name.to_owned(), expected });
        };
        let found = tensor.size();
        if found != shape {
            let found = found.into_iter().map(|d| d as usize).collect();
            return Err(WeightsError::Shape { name: name.to_owned(), expected, found });
        }
        Ok(tensor.shallow_clone())
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.0.get(name).map(Tensor::size)
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
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
    let config = PpnConfig::sam2_high_res("data", classes(1));
    let ppn = predictor(&source, &config);
    let features = features(&config, 1);
    let loss = |queries: &Tensor| {
        let p = forward(&ppn, &features, queries, &prompts);
        p.boxes.sum(Kind::Double) + p.interim_mask.mean(Kind::Double)
    };
    let queries = ppn.learnable_prompts().copy().set_requires_grad(true);
    loss(&queries).backward();
    let gradient = queries.grad();
    let direction = &gradient / gradient.norm();
    let _guard = tch::no_grad_guard();
    let step = 2e-3;
    let ahead = loss(&(&queries + &direction * step));
    let behind = loss(&(&queries - &direction * step));
    let measured = f64::try_from(ahead - behind).unwrap() / (2.0 * step);
    let expected = f64::try_from(gradient.norm()).unwrap();
    assert!((measured / expected - 1.0).abs() < 0.02, "{measured} {expected}");
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

fn decoder(source: &dyn Source) -> (MaskDecoder, BTreeMap<String, Vec<i64>>) {
    let w = Weights::new(source, Device::Cpu);
    let config = MaskDecoderConfig { object_score: true, ..MaskDecoderConfig::SAM };
    (MaskDecoder::new(&w.pp("mask_decoder"), &config).unwrap(), w.read())
}

fn decode(decoder: &MaskDecoder) -> Tensor {
    let generated = Generated::new(DEFAULT_SEED);
    let input = |name: &str, shape: &[i64]| {
        Tensor::from_slice(&generated.unit(name, shape.iter().product::<i64>() as usize)).view(shape)
    };
    let (image, position) = (input("image", &[1, 256, GRID, GRID]), input("position", &[1, 256, GRID, GRID]));
    let dense = input("dense", &[2, 256, GRID, GRID]);
    let sparse = input("sparse", &[2, 10, 256]);
    decoder.forward(&image, &position, &sparse, &dense, None, MaskSelection::Single).unwrap().masks
}

fn adapted() -> Generated {
    let shapes = lora_shapes(&decoder(&Blank).1, 8);
    assert_eq!(shapes.len(), 28, "two factors of two projections of seven attentions");
    Generated::new(DEFAULT_SEED).with(shapes)
}

#[test]
fn low_rank_merged_equals_unmerged_and_differs_from_none() {
    let _guard = tch::no_grad_guard();
    let adapted = adapted();
    let unmerged = decode(&decoder(&adapted).0);
    let merged = decode(&decoder(&MergedLora::new(&adapted)).0);
    let none = decode(&decoder(&Generated::new(DEFAULT_SEED)).0);
    let error = relative(&merged, &unmerged);
    assert!(error < 1e-4, "{error:.1e}");
    let effect = relative(&unmerged, &none);
    assert!(effect > 1e-2, "{effect:.1e}");
}

#[test]
fn low_rank_is_trained_unmerged() {
    let source = Trainable::new(adapted());
    decode(&decoder(&source).0).square().mean(Kind::Float).backward();
    let dead: Vec<_> = source.without_gradient().into_iter().filter(|name| name.contains(".w_")).collect();
    assert!(dead.is_empty(), "{dead:?}");
}

#[test]
fn an_absurd_rank_is_refused_merged_and_unmerged() {
    let layer = |rank: i64| {
        Stored(BTreeMap::from([
            ("q_proj.weight".to_owned(), Tensor::zeros([4, 6], FLOAT)),
            ("q_proj.bias".to_owned(), Tensor::zeros([4], FLOAT)),
            ("q_proj.w_a.weight".to_owned(), Tensor::ones([rank, 6], FLOAT)),
            ("q_proj.w_b.weight".to_owned(), Tensor::ones([4, rank], FLOAT)),
        ]))
    };
    let build = |source: &dyn Source| {
        let w = Weights::new(source, Device::Cpu);
        let linear = Linear::new(&w.pp("q_proj"), 6, 4)?;
        w.finish().map(|()| linear)
    };
    let x = Tensor::ones([1, 6], FLOAT);
    for rank in [1, 4] {
        let stored = layer(rank);
        for source in [&stored as &dyn Source, &MergedLora::new(&stored)] {
            let y = build(source).unwrap().forward(&x).unwrap();
            assert_eq!(y, Tensor::ones([1, 4], FLOAT) * (6 * rank));
        }
    }
    for rank in [0, 5, 1000] {
        let stored = layer(rank);
        for source in [&stored as &dyn Source, &MergedLora::new(&stored)] {
            let error = build(source).unwrap_err();
            assert!(matches!(error, WeightsError::Shape { .. }), "rank {rank}: {error}");
        }
    }
    // Factors of a layer that is not there are not swallowed.
    let mut orphan = layer(2);
    orphan.0.insert("other.w_a.weight".to_owned(), Tensor::zeros([2, 6], FLOAT));
    assert!(matches!(build(&MergedLora::new(&orphan)), Err(WeightsError::Unused { .. })));
}

#[test]
fn adapters_change_the_output_and_are_all_or_none() {
    let widths = [96, 192];
    let name = |i: i64| format!("adapters.{i}.adapters.0.weight");
    let none = Generated::new(DEFAULT_SEED);
    assert!(Adapters::new(&Weights::new(&none, Device::Cpu), &widths).unwrap().is_none());

    let source = Trainable::new(none.with([(name(0), vec![64, 96])]));
    let adapters = Adapters::new(&Weights::new(&source, Device::Cpu), &widths).unwrap().unwrap();
    let x = Tensor::ones([1, 2, 2, 96], FLOAT);
    let y = adapters.apply(0, &x).unwrap();
    assert!(relative(&y, &x) > 1e-2);
    assert!(adapters.apply(2, &x).is_err());
    let y = y.square().mean(Kind::Float)
        + adapters.apply(1, &Tensor::ones([1, 4, 192], FLOAT)).unwrap().mean(Kind::Float);
    y.backward();
    assert_eq!(source.without_gradient(), Vec::<String>::new());

    let partial = Stored(
        [("weight", vec![64, 96]), ("bias", vec![64])]
            .into_iter()
            .map(|(part, shape)| (format!("adapters.0.adapters.0.{part}"), Tensor::zeros(shape, FLOAT)))
            .collect(),
    );
    assert!(matches!(
        Adapters::new(&Weights::new(&partial, Device::Cpu), &widths),
        Err(WeightsError::Missing { .. })
    ));
}

/// Before every block of SAM 2's trunk, as Sam2Rad's code has them.
#[test]
fn adapters_reach_the_trunk_of_sam2() {
    let _guard = tch::no_grad_guard();
    let widths = [&[96, 192, 192][..], &[384; 7], &[768; 2]].concat();
    let shapes = widths.iter().enumerate().flat_map(|(i, &width)| {
        [("0", 64, width), ("2", width, 64)].into_iter().flat_map(move |(part, out, into)| {
            let stem = format!("image_encoder.adapters.{i}.adapters.{part}");
            [(format!("{stem}.weight"), vec![out, into]), (format!("{stem}.bias"), vec![out])]
        })
    });
    let adapted = Generated::new(DEFAULT_SEED).with(shapes);
    let embedding = |source: &Generated| {
        let w = Weights::new(source, Device::Cpu);
        let net = Sam2::new(&w, Family::Sam2HieraTiny, 64).unwrap();
        let adapters = w.read().keys().filter(|name| name.contains(".adapters.")).count();
        (net.encode_image(&Tensor::ones([1, 3, 64, 64], FLOAT)).unwrap().embedding, adapters)
    };
    let (plain, none) = embedding(&Generated::new(DEFAULT_SEED));
    let (changed, all) = embedding(&adapted);
    assert_eq!((none, all), (0, 4 * 12));
    let effect = relative(&changed, &plain);
    assert!(effect > 1e-2, "{effect:.1e}");
}
