//! TinyViT's block: windowed attention, a local convolution, an MLP.

use tch::{TchError, Tensor};

use super::attention::Attention;
use super::conv::Conv2dBn;
use crate::nn::common::add_to;
use crate::nn::window::Windows;
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
        let x = Activation::Gelu.apply(self.fc1.forward(&self.norm.forward_as(x, self.fc1.kind())?)?)?;
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
        let (_, c, h, w) = x.size4()?;
        let windows = Windows::new(self.window_size, [h, w]).of_layers(c, x.device());
        let x = self.attn.forward(&x.f_permute([0, 2, 3, 1])?, &windows)?;
        // The convolution replaces its input, there is no residual around it.
        let x = self.local_conv.forward(&x.f_permute([0, 3, 1, 2])?)?.f_permute([0, 2, 3, 1])?;
        add_to(self.mlp.forward(&x)?, &x)?.f_permute([0, 3, 1, 2])
    }
}
