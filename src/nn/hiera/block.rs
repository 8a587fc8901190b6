//! Hiera's block: attention in windows or over all, and an MLP.

use tch::{Kind, TchError, Tensor};

use super::attention::{MultiScaleAttention, max_pool};
use crate::nn::common::add_to;
use crate::nn::window::{Padding, Windows};
use crate::nn::{Activation, LayerNorm, Linear, MlpBlock, MlpKeys};
use crate::weights::{Weights, WeightsError};

const LAYER_NORM_EPS: f64 = 1e-6;

/// What a block does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockConfig {
    pub(super) dim: i64,
    pub(super) dim_out: i64,
    pub(super) num_heads: i64,
    /// Halves height and width.
    pub(super) q_pool: bool,
    /// Side of the attention windows; everywhere if there is none.
    pub(super) window: Option<i64>,
}

/// One block. Keys `norm1`, `attn`, `norm2`, `mlp` and, where the width changes, `proj`.
#[derive(Debug)]
pub(super) struct MultiScaleBlock {
    norm1: LayerNorm,
    attn: MultiScaleAttention,
    norm2: LayerNorm,
    mlp: MlpBlock,
    proj: Option<Linear>,
    q_pool: bool,
    window: Option<i64>,
}

impl MultiScaleBlock {
    pub(super) fn new(w: &Weights<'_>, config: &BlockConfig) -> Result<Self, WeightsError> {
        let BlockConfig { dim, dim_out, num_heads, q_pool, window } = *config;
        let changes = dim != dim_out;
        Ok(Self {
            norm1: LayerNorm::new(&w.pp("norm1"), dim, LAYER_NORM_EPS)?,
            attn: MultiScaleAttention::new(&w.pp("attn"), dim, dim_out, num_heads, q_pool)?,
            norm2: LayerNorm::new(&w.pp("norm2"), dim_out, LAYER_NORM_EPS)?,
            mlp: MlpBlock::with_keys(&w.pp("mlp"), dim_out, 4 * dim_out, Activation::Gelu, MlpKeys::Layers)?,
            proj: changes.then(|| Linear::new(&w.pp("proj"), dim, dim_out)).transpose()?,
            q_pool,
            window,
        })
    }

    /// `[B, H, W, dim]` to `[B, H or H / 2, W or W / 2, dim_out]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (_, h, w, c) = x.size4()?;
        let kind = self.attn.kind();
        let windows = self.window.map(|side| Windows::new(side, [h, w]).of_layers(c, x.device()));
        let (shortcut, normed) = match (&self.proj, &windows) {
            (None, Some(windows)) => {
                (x.shallow_clone(), windows.normed(x, &self.norm1, kind, Padding::After)?)
            }
            (None, None) => (x.shallow_clone(), self.norm1.forward_as(x, kind)?),
            // Where the width changes the shortcut leaves after the norm; it is pooled after the projection.
            (Some(proj), windows) => {
                let normed = self.norm1.forward_as(x, kind)?;
                let shortcut = proj.forward(&normed)?;
                let shortcut = if self.q_pool { max_pool(&shortcut)? } else { shortcut };
                let normed = match windows {
                    Some(windows) => windows.partition(&normed)?,
                    None => normed,
                };
                // The residual sum stays in `f32`, whatever the layers compute in.
                (shortcut.f_to_kind(Kind::Float)?, normed)
            }
        };
        let out = self.attn.forward(&normed, windows.as_ref())?;
        let x = match windows {
            None => add_to(out.f_reshape(shortcut.size())?, &shortcut)?,
            Some(windows) if self.q_pool => windows.pooled().add(&shortcut, out)?,
            Some(windows) => windows.add(&shortcut, out)?,
        };
        add_to(self.mlp.forward(&self.norm2.forward_as(&x, self.mlp.kind())?)?, &x)
    }
}
