//! Adapters of an image encoder, as Sam2Rad trains them beside a frozen trunk.

use tch::{TchError, Tensor};

use super::common::Activation;
use super::linear::Linear;
use crate::weights::{Weights, WeightsError};

/// Width of an adapter's bottleneck.
const HIDDEN: i64 = 64;

/// One adapter: `GELU(Linear(GELU(Linear(x))))`. Keys `adapters.0`, `adapters.2`.
#[derive(Debug)]
struct Adapter {
    down: Linear,
    up: Linear,
}

/// An adapter for every block of a trunk, which is added to the block's input. Keys `adapters.{block}.adapters.{0,2}`.
#[derive(Debug)]
pub struct Adapters(Vec<Adapter>);

impl Adapters {
    /// Reads the adapters beside an image encoder if it has any; `widths` are the blocks' input widths, from the first block.
    ///
    /// # Errors
    /// Keys or shapes that do not fit, also when only some blocks have an adapter.
    pub fn new(w: &Weights<'_>, widths: &[i64]) -> Result<Option<Self>, WeightsError> {
        if w.shape("adapters.0.adapters.0.weight").is_none() {
            return Ok(None);
        }
        let adapter = |(i, &width): (usize, &i64)| {
            let w = w.pp("adapters").pp(i).pp("adapters");
            Ok(Adapter {
                down: Linear::new(&w.pp(0), width, HIDDEN)?,
                up: Linear::new(&w.pp(2), HIDDEN, width)?,
            })
        };
        let adapters = widths.iter().enumerate().map(adapter).collect::<Result<_, WeightsError>>()?;
        Ok(Some(Self(adapters)))
    }

    /// What block `i` gets instead of its input `x` `[..., width]`: the input and its adaptation, `[..., width]`.
    ///
    /// # Errors
    /// libtorch's, and for a block without an adapter.
    pub fn apply(&self, i: usize, x: &Tensor) -> Result<Tensor, TchError> {
        let Some(Adapter { down, up }) = self.0.get(i) else {
            return Err(TchError::Shape(format!("block {i} has no adapter, there are {}", self.0.len())));
        };
        let hidden = Activation::Gelu.apply(down.forward(x)?)?;
        x.f_add(&Activation::Gelu.apply(up.forward(&hidden)?)?)
    }
}
