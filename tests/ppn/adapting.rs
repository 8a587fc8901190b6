//! Low rank and adapters: merged or not they answer alike, and they are there as a whole or not at all.

use std::collections::BTreeMap;

use sonomask::nn::{
    Adapters, Linear, MaskDecoder, MaskDecoderConfig, MaskSelection, MergedLora, Sam2, lora_shapes,
};
use sonomask::weights::{Blank, DEFAULT_SEED, Family, Generated, Source, Weights, WeightsError};
use tch::{Device, Kind, Tensor};

use super::{FLOAT, GRID, Trainable, relative};

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
