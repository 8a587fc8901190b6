//! The ViT encoder's block: attention over windows or over the whole grid, then an MLP.

use tch::{TchError, Tensor};

use super::attention::Attention;
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

    /// `[B, H, W, C]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let normed = self.norm1.forward(x)?;
        let attended = match self.window_size {
            Some(size) => self.attend_in_windows(&normed, size)?,
            None => self.attn.forward(&normed)?,
        };
        let x = x.f_add(&attended)?;
        x.f_add(&self.mlp.forward(&self.norm2.forward(&x)?)?)
    }

    /// Attention within windows. Zero padding comes after the layer norm, and padded tokens take part, as the network was
    /// trained.
    fn attend_in_windows(&self, x: &Tensor, s: i64) -> Result<Tensor, TchError> {
        let (b, h, w, c) = x.size4()?;
        let (rows, cols) = ((h + s - 1) / s, (w + s - 1) / s);
        let (pad_b, pad_r) = (rows * s - h, cols * s - w);
        let padding = pad_b > 0 || pad_r > 0;
        let padded =
            if padding { x.f_constant_pad_nd([0, 0, 0, pad_r, 0, pad_b])? } else { x.shallow_clone() };
        let windows = padded.f_reshape([b, rows, s, cols, s, c])?.f_transpose(2, 3)?.f_reshape([
            b * rows * cols,
            s,
            s,
            c,
        ])?;
        let out = self.attn.forward(&windows)?;
        let out = out.f_reshape([b, rows, cols, s, s, c])?.f_transpose(2, 3)?.f_reshape([
            b,
            rows * s,
            cols * s,
            c,
        ])?;
        if padding { out.f_narrow(1, 0, h)?.f_narrow(2, 0, w) } else { Ok(out) }
    }
}
