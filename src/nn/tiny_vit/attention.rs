//! TinyViT's attention inside a window.

use tch::{TchError, Tensor};

use crate::nn::attention::attention_with;
use crate::nn::window::{Padding, Windows};
use crate::nn::{LayerNorm, Linear};
use crate::weights::{Weights, WeightsError};

/// Multi-head attention with a learned bias per distance. Keys `norm`, `qkv`, `proj`, `attention_biases`.
#[derive(Debug)]
pub(super) struct Attention {
    norm: LayerNorm,
    qkv: Linear,
    proj: Linear,
    /// `[1, heads, N, N]`, gathered from `attention_biases`.
    ab: Tensor,
    num_heads: i64,
}

impl Attention {
    /// Reads attention over windows of `window` x `window` tokens.
    pub(super) fn new(w: &Weights<'_>, dim: i64, num_heads: i64, window: i64) -> Result<Self, WeightsError> {
        // Biases are numbered by (|dy|, |dx|), row-major.
        let biases = w.get("attention_biases", &[num_heads, window * window])?;
        let tokens = window * window;
        let at = |p: i64| (p / window, p % window);
        let index: Vec<i64> = (0..tokens)
            .flat_map(|p| (0..tokens).map(move |q| (p, q)))
            .map(|(p, q)| {
                let ((py, px), (qy, qx)) = (at(p), at(q));
                (py - qy).abs() * window + (px - qx).abs()
            })
            .collect();
        let index = Tensor::f_from_slice(&index)?.f_to_device(w.device())?;
        Ok(Self {
            norm: LayerNorm::new(&w.pp("norm"), dim, 1e-5)?,
            qkv: Linear::new(&w.pp("qkv"), dim, 3 * dim)?,
            proj: Linear::new(&w.pp("proj"), dim, dim)?,
            ab: biases
                .f_index_select(1, &index)?
                .f_reshape([1, num_heads, tokens, tokens])?
                .f_to_kind(w.kind())?,
            num_heads,
        })
    }

    /// The residual sum of a grid `[B, H, W, C]` in `f32` and attention within its windows. Zero padding comes before the layer norm, and
    /// padded tokens take part, as the network was trained.
    pub(super) fn forward(&self, grid: &Tensor, windows: &Windows) -> Result<Tensor, TchError> {
        let x = windows.normed(grid, &self.norm, self.qkv.kind(), Padding::Before)?;
        let qkv = windows.to_windows(self.qkv.forward(&x)?)?;
        let (b, h, w, three) = qkv.size4()?;
        let (n, c) = (h * w, three / 3);
        // Per head: query, key, value.
        let qkv = qkv.f_reshape([b, n, self.num_heads, 3, c / self.num_heads])?.f_permute([3, 0, 2, 1, 4])?;
        let (q, k, v) = (qkv.f_select(0, 0)?, qkv.f_select(0, 1)?, qkv.f_select(0, 2)?);
        let out = attention_with(&q, &k, &v, Some(&self.ab))?;
        let out = windows.to_cells(out.f_transpose(1, 2)?.f_reshape([b, n, c])?)?;
        windows.add(grid, self.proj.forward(&out)?)
    }
}
