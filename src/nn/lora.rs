//! Low-rank adaptation of linear layers (<https://arxiv.org/abs/2106.09685>), as Sam2Rad tunes its mask decoder.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use tch::{TchError, Tensor};

use crate::weights::{Source, Weights, WeightsError};

/// Names of the two factors below a linear layer.
const FACTORS: [&str; 2] = ["w_a.weight", "w_b.weight"];

/// Whether the tensor `name` is a low-rank factor.
pub fn is_factor(name: &str) -> bool {
    FACTORS.iter().any(|factor| name.ends_with(factor))
}

/// What low rank adds to a linear layer: `w_b (w_a x)`, without a scale. Keys `w_a.weight [r, in]`, `w_b.weight [out, r]`.
#[derive(Debug)]
pub(super) struct Lora {
    w_a: Tensor,
    w_b: Tensor,
}

impl Lora {
    /// Reads the factors if the layer has them.
    pub(super) fn read(w: &Weights<'_>, inputs: i64, outputs: i64) -> Result<Option<Self>, WeightsError> {
        let Some(found) = w.shape(FACTORS[0]) else { return Ok(None) };
        let rank = plausible_rank(&found, inputs, outputs);
        let (w_a, w_b) = (w.matrix(FACTORS[0], &[rank, inputs])?, w.matrix(FACTORS[1], &[outputs, rank])?);
        Ok(Some(Self { w_a, w_b }))
    }

    /// `[..., in]` to what is added to the layer's `[..., out]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = x.f_linear(&self.w_a, None::<&Tensor>)?;
        x.f_linear(&self.w_b, None::<&Tensor>)
    }

    /// What is added to the layer's weight, `[out, in]`.
    pub(super) fn product(&self) -> Result<Tensor, TchError> {
        self.w_b.f_matmul(&self.w_a)
    }
}

/// The rank that a factor `[r, in]` tells. More than the layer's own rank is never needed; asking the source for
/// the largest useful rank makes it refuse the file with both shapes in the message.
fn plausible_rank(w_a: &[i64], inputs: i64, outputs: i64) -> i64 {
    w_a.first().copied().unwrap_or(1).clamp(1, inputs.min(outputs).max(1))
}

/// A source whose low-rank factors are added into the weights as they are read: the network then costs what it costs
/// without them. For inference; training reads the factors themselves.
#[derive(Debug)]
pub struct MergedLora<'a> {
    source: &'a dyn Source,
    merged: RefCell<BTreeSet<String>>,
}

impl<'a> MergedLora<'a> {
    /// The tensors of `source`, merged.
    pub fn new(source: &'a dyn Source) -> Self {
        Self { source, merged: RefCell::default() }
    }
}

impl Source for MergedLora<'_> {
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let weight = self.source.read(name, shape)?;
        let (Some(layer), &[outputs, inputs]) = (name.strip_suffix("weight"), shape) else {
            return Ok(weight);
        };
        let [w_a, w_b] = FACTORS.map(|factor| format!("{layer}{factor}"));
        let Some(found) = self.source.shape(&w_a) else { return Ok(weight) };
        let rank = plausible_rank(&found, inputs, outputs);
        let lora = Lora {
            w_a: self.source.read(&w_a, &[rank, inputs])?,
            w_b: self.source.read(&w_b, &[outputs, rank])?,
        };
        self.merged.borrow_mut().extend([w_a, w_b]);
        Ok(weight.f_add(&lora.product()?)?)
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        if is_factor(name) { None } else { self.source.shape(name) }
    }

    /// All but the factors merged so far: those of a layer that nothing read stay in the list, to be noticed as unused.
    fn names(&self) -> Vec<String> {
        let merged = self.merged.borrow();
        let mut names = self.source.names();
        names.retain(|name| !merged.contains(name));
        names
    }
}

/// Names and shapes of the factors of rank `rank` that Sam2Rad puts beside every query and value projection in `read`,
/// the names and shapes of a decoder without them (see [`Weights::read`]).
pub fn lora_shapes(read: &BTreeMap<String, Vec<i64>>, rank: i64) -> BTreeMap<String, Vec<i64>> {
    let mut shapes = BTreeMap::new();
    for (name, shape) in read {
        let projection = ["q_proj.weight", "v_proj.weight"].iter().any(|p| name.ends_with(p));
        if let (true, Some(layer), &[outputs, inputs]) = (projection, name.strip_suffix("weight"), &shape[..])
        {
            let [w_a, w_b] = FACTORS.map(|factor| format!("{layer}{factor}"));
            shapes.extend([(w_a, vec![rank, inputs]), (w_b, vec![outputs, rank])]);
        }
    }
    shapes
}
