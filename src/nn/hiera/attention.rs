//! Hiera's attention, which may pool its queries.

use tch::{Kind, TchError, Tensor};

use crate::nn::Linear;
use crate::nn::attention::attention;
use crate::weights::{Weights, WeightsError};

/// Multi-head attention over the cells of a grid or of a window. Keys `qkv`, `proj`.
#[derive(Debug)]
pub(super) struct MultiScaleAttention {
    qkv: Linear,
    proj: Linear,
    dim_out: i64,
    num_heads: i64,
    /// Queries are the maxima of 2x2 cells, so the answer has half the height and width.
    q_pool: bool,
}

impl MultiScaleAttention {
    pub(super) fn new(
        w: &Weights<'_>,
        dim: i64,
        dim_out: i64,
        num_heads: i64,
        q_pool: bool,
    ) -> Result<Self, WeightsError> {
        Ok(Self {
            qkv: Linear::new(&w.pp("qkv"), dim, 3 * dim_out)?,
            proj: Linear::new(&w.pp("proj"), dim_out, dim_out)?,
            dim_out,
            num_heads,
            q_pool,
        })
    }

    /// The type that it computes in.
    pub(super) fn kind(&self) -> Kind {
        self.qkv.kind()
    }

    /// `[B, H, W, dim]` to `[B, H W, dim_out]`, or a quarter of the cells with pooled queries.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (b, h, w, _) = x.size4()?;
        let qkv = self.qkv.forward(x)?;
        let part = |i: i64| qkv.f_narrow(-1, i * self.dim_out, self.dim_out);
        let heads = |x: &Tensor| {
            x.f_reshape([b, -1, self.num_heads, self.dim_out / self.num_heads])?.f_transpose(1, 2)
        };
        let q = if self.q_pool { max_pool(&part(0)?)? } else { part(0)? };
        let (q, k, v) = (heads(&q)?, heads(&part(1)?)?, heads(&part(2)?)?);
        let out = attention(&q, &k, &v)?;
        let cells = if self.q_pool { (h / 2) * (w / 2) } else { h * w };
        self.proj.forward(&out.f_transpose(1, 2)?.f_reshape([b, cells, self.dim_out])?)
    }
}

/// Maxima of 2x2 cells: `[B, H, W, C]` to `[B, H / 2, W / 2, C]`.
pub(super) fn max_pool(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_permute([0, 3, 1, 2])?.f_max_pool2d(2, 2, 0, 1, false)?.f_permute([0, 2, 3, 1])
}
