//! SAM 2 and 2.1 on single pictures against the reference implementation, tensor by tensor.
//!
//! The weights are made by a rule, so no checkpoint is needed. Every test prints the errors it found; run with
//! `--nocapture` to see them. `SONOMASK_FIXTURES` names another set of answers, for instance of another seed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../fixture_support/mod.rs"]
mod fixture_support;

mod modules;
mod pictures;

use fixture_support::{Fixture, LOGITS};
use sonomask::nn::{Decoded, MaskSelection, Sam2, Sam2Features};
use sonomask::weights::{Family, Weights};
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
