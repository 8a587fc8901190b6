//! The ViT encoder's block: attention over windows or over the whole grid, then an MLP.

use tch::{TchError, Tensor};

use super::attention::Attention;
use crate::nn::common::add_to;
use crate::nn::window::{Padding, Windows};
use crate::nn::{Activation, LayerNorm, MlpBlock};
use crate::weights::{Weights, WeightsError};

const LAYER_NORM_EPS: f64 = 1e-6;

/// One block. Keys `norm1`, `attn`, `norm2`, `mlp`.
#[derive(Debug)]
pub(super) struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: MlpBlock,
    window_size: Option<i64>,
}

impl Block {
    /// Reads a block on a `grid` x `grid` image; without a `window_size` it attends to all of it.
    pub(super) fn new(
        w: &Weights<'_>,
        dim: i64,
        num_heads: i64,
        window_size: Option<i64>,
        grid: i64,
    ) -> Result<Self, WeightsError> {
        Ok(Self {
            norm1: LayerNorm::new(&w.pp("norm1"), dim, LAYER_NORM_EPS)?,
            attn: Attention::new(&w.pp("attn"), dim, num_heads, window_size.unwrap_or(grid))?,
            norm2: LayerNorm::new(&w.pp("norm2"), dim, LAYER_NORM_EPS)?,
            mlp: MlpBlock::new(&w.pp("mlp"), dim, 4 * dim, Activation::Gelu)?,
            window_size,
        })
    }

    /// `[B, H, W, C]` to the same shape. Windows are padded after the layer norm, and padded tokens take part, as the network was trained.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let ((_, h, w, c), kind) = (x.size4()?, self.attn.kind());
        let x = match self.window_size.map(|side| Windows::new(side, [h, w]).of_layers(c, x.device())) {
            Some(windows) => {
                let normed = windows.normed(x, &self.norm1, kind, Padding::After)?;
                windows.add(x, self.attn.forward(&normed, Some(&windows))?)?
            }
            None => {
                let out = self.attn.forward(&self.norm1.forward_as(x, kind)?, None)?;
                add_to(out.f_reshape(x.size())?, x)?
            }
        };
        add_to(self.mlp.forward(&self.norm2.forward_as(&x, self.mlp.kind())?)?, &x)
    }
}
