//! TinyViT's block: windowed attention, a local convolution, an MLP.

use tch::{TchError, Tensor};

use super::attention::Attention;
use super::conv::Conv2dBn;
use crate::nn::{Activation, LayerNorm, Linear};
use crate::weights::{Weights, WeightsError};

/// Layer norm and two linear layers. Keys `norm`, `fc1`, `fc2`.
#[derive(Debug)]
struct Mlp {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn new(w: &Weights<'_>, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            norm: LayerNorm::new(&w.pp("norm"), dim, 1e-5)?,
            fc1: Linear::new(&w.pp("fc1"), dim, 4 * dim)?,
            fc2: Linear::new(&w.pp("fc2"), 4 * dim, dim)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = Activation::Gelu.apply(self.fc1.forward(&self.norm.forward(x)?)?)?;
        self.fc2.forward(&x)
    }
}

/// One block. Keys `attn`, `local_conv`, `mlp`.
#[derive(Debug)]
pub(super) struct TinyVitBlock {
    attn: Attention,
    local_conv: Conv2dBn,
    mlp: Mlp,
    window_size: i64,
}

impl TinyVitBlock {
    pub(super) fn new(
        w: &Weights<'_>,
        dim: i64,
        num_heads: i64,
        window_size: i64,
    ) -> Result<Self, WeightsError> {
        Ok(Self {
            attn: Attention::new(&w.pp("attn"), dim, num_heads, window_size)?,
            local_conv: Conv2dBn::depthwise(&w.pp("local_conv"), dim, 1)?,
            mlp: Mlp::new(&w.pp("mlp"), dim)?,
            window_size,
        })
    }

    /// `[B, C, H, W]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = x.f_permute([0, 2, 3, 1])?;
        let x = x.f_add(&self.attend(&x)?)?;
        // The convolution replaces its input, there is no residual around it.
        let x = self.local_conv.forward(&x.f_permute([0, 3, 1, 2])?)?.f_permute([0, 2, 3, 1])?;
        x.f_add(&self.mlp.forward(&x)?)?.f_permute([0, 3, 1, 2])
    }

    /// Attention within windows, on `[B, H, W, C]`. Zero padding comes before the layer norm, and padded tokens take part,
    /// as the network was trained.
    fn attend(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (b, h, w, c) = x.size4()?;
        let s = self.window_size;
        let (rows, cols) = ((h + s - 1) / s, (w + s - 1) / s);
        let (pad_b, pad_r) = (rows * s - h, cols * s - w);
        let padding = pad_b > 0 || pad_r > 0;
        let padded =
            if padding { x.f_constant_pad_nd([0, 0, 0, pad_r, 0, pad_b])? } else { x.shallow_clone() };
        let windows = padded.f_reshape([b, rows, s, cols, s, c])?.f_transpose(2, 3)?.f_reshape([
            b * rows * cols,
            s * s,
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
