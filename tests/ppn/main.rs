//! What has to hold for the prompt predictor, low rank and adapters whatever the weights are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod adapting;
mod predicting;

use std::cell::RefCell;
use std::collections::BTreeMap;

use sonomask::weights::{Generated, Source, WeightsError};
use tch::{Device, Kind, Tensor};

const GRID: i64 = 8;

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a - b).abs().max() / b.abs().max()).unwrap()
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
