//! SAM 2.1's memory against the reference implementation: block by block, then frame by frame against its video predictor.
//!
//! The weights are made by a rule, so no checkpoint is needed. `SONOMASK_FIXTURES` names another set of answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../fixture_support/mod.rs"]
mod fixture_support;

mod blocks;
mod videos;

use sonomask::nn::{Sam2, Sam2Memory};
use sonomask::weights::{Family, Source, Weights};
use tch::Device;

fn networks(source: &dyn Source, family: Family, side: i64) -> (Sam2, Sam2Memory) {
    let w = Weights::new(source, Device::Cpu);
    let nets = (Sam2::new(&w, family, side).unwrap(), Sam2Memory::new(&w, family, side).unwrap());
    w.finish().unwrap();
    nets
}
