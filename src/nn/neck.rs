//! The neck that ends SAM's image encoders.

use tch::{TchError, Tensor};

use super::common::{Conv2d, LayerNorm2d};
use crate::weights::{Weights, WeightsError};

/// 1x1 and 3x3 convolution, each with a layer norm and without a bias. Keys `0`, `1`, `2`, `3`.
#[derive(Debug)]
pub(super) struct Neck {
    conv0: Conv2d,
    norm1: LayerNorm2d,
    conv2: Conv2d,
    norm3: LayerNorm2d,
}

impl Neck {
    /// Reads a neck from `dim` to `out_chans` channels.
    pub(super) fn new(w: &Weights<'_>, dim: i64, out_chans: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            conv0: Conv2d::without_bias(
                &w.pp(0),
                [dim, out_chans],
                /* kernel */ 1,
                /* stride */ 1,
                /* padding */ 0,
            )?,
            norm1: LayerNorm2d::new(&w.pp(1), out_chans)?,
            conv2: Conv2d::without_bias(&w.pp(2), [out_chans, out_chans], 3, 1, 1)?,
            norm3: LayerNorm2d::new(&w.pp(3), out_chans)?,
        })
    }

    /// `[B, dim, h, w]` to `[B, out_chans, h, w]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = self.norm1.forward(&self.conv0.forward(x)?)?;
        self.norm3.forward(&self.conv2.forward(&x)?)
    }
}
