//! An encoder's last blocks run alone: what training an adapted encoder rests on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use sonomask::nn::{LastBlocks, MergedLora, Sam, SamFeatures};
use sonomask::weights::{DEFAULT_SEED, Family, Generated, Source, Weights, WeightsError};
use tch::{Device, Tensor};

const DEVICE: Device = Device::Cpu;

fn picture(side: i64) -> Tensor {
    let values = Generated::new(4).unit("x", usize::try_from(3 * side * side).unwrap());
    Tensor::from_slice(&values).view([1, 3, side, side])
}

/// Everything that the predictor and the decoder look at.
fn parts(features: &SamFeatures) -> Vec<&Tensor> {
    let mut all = vec![&features.embedding];
    all.extend(features.high_res.iter().flat_map(|(s0, s1)| [s0, s1]));
    all.extend(features.levels.iter().flatten());
    all.extend(&features.early);
    all
}

#[track_caller]
fn the_rest_is_the_same(net: &Sam, side: i64, blocks: usize) {
    let whole = net.encode(&picture(side), true, Some(blocks)).unwrap();
    let plain = net.encode(&picture(side), true, None).unwrap();
    assert!(whole.cut.is_some() && plain.cut.is_none());
    let rest = net.finish(&whole, blocks).unwrap();
    let [whole, plain, rest] = [&whole, &plain, &rest].map(parts);
    assert_eq!((whole.len(), rest.len()), (plain.len(), plain.len()));
    for ((whole, plain), rest) in whole.iter().zip(plain).zip(rest) {
        assert_eq!(*whole, plain);
        assert_eq!(rest, plain, "{blocks} blocks");
    }
}

#[test]
fn blocks_run_alone_answer_as_in_the_whole_encoder() {
    let _guard = tch::no_grad_guard();
    let source = Generated::new(DEFAULT_SEED);
    for (family, side, blocks) in
        [(Family::LiteMedSam, 256, &[1, 2, 3, 8][..]), (Family::Sam21HieraTiny, 128, &[2, 4, 9])]
    {
        let asked = family.is_sam2().then_some(side);
        let net = Sam::new(&Weights::new(&source, DEVICE), family, asked).unwrap();
        for &blocks in blocks {
            assert!(LastBlocks::of(family).last(blocks).is_ok());
            the_rest_is_the_same(&net, side, blocks);
        }
        assert!(net.finish(&net.encode(&picture(side), true, None).unwrap(), 2).is_err());
    }
}

/// Weights with factors of rank 2 beside every linear layer of the blocks.
#[derive(Debug)]
struct Adapted {
    weights: Generated,
    blocks: Vec<String>,
}

impl Source for Adapted {
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        self.weights.read(name, shape)
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        let adapted = self.blocks.iter().any(|block| name.starts_with(block));
        (adapted && name.ends_with(".w_a.weight")).then(|| vec![2, 1])
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn factors_learn_apart_and_are_merged_to_be_used() {
    for (family, side) in [(Family::LiteMedSam, 256), (Family::Sam21HieraTiny, 128)] {
        let blocks = LastBlocks::of(family).last(2).unwrap().to_vec();
        let source = Adapted { weights: Generated::new(DEFAULT_SEED), blocks };
        let asked = family.is_sam2().then_some(side);
        let factor = |name: &str| name.ends_with(".w_a.weight") || name.ends_with(".w_b.weight");
        let view = Weights::new(&source, DEVICE).training(&factor);
        let net = Sam::new(&view, family, asked).unwrap();
        let factors = view.trained();
        assert!(factors.len() >= 16 && factors.keys().all(|name| name.starts_with("image_encoder.")));

        // What comes before the blocks does not depend on them.
        let plain = Generated::new(DEFAULT_SEED);
        let bare = Sam::new(&Weights::new(&plain, DEVICE), family, asked).unwrap();
        let kept = tch::no_grad(|| bare.encode(&picture(side), true, Some(2))).unwrap();
        let apart = net.finish(&kept, 2).unwrap();
        apart.embedding.square().mean(tch::Kind::Float).backward();
        for (name, factor) in &factors {
            let largest = f64::try_from(factor.grad().abs().max()).unwrap();
            assert!(largest.is_finite() && largest > 0.0, "{name}: {largest}");
        }
        let merged = MergedLora::new(&source);
        let merged = Sam::new(&Weights::new(&merged, DEVICE), family, asked).unwrap();
        let merged = tch::no_grad(|| merged.encode(&picture(side), true, None)).unwrap();
        let off = |a: &Tensor, b: &Tensor| f64::try_from((a - b).norm() / b.norm()).unwrap();
        for (apart, merged) in parts(&apart).into_iter().zip(parts(&merged)) {
            assert!(off(&apart.detach(), merged) < 1e-4, "{family}");
        }
        assert!(off(&apart.embedding.detach(), &kept.embedding) > 1e-3, "the factors change nothing");
    }
}
