//! The ViT encoder's attention with decomposed relative positions.

use tch::{Kind, TchError, Tensor};

use crate::nn::Linear;
use crate::nn::attention::attention_with;
use crate::nn::window::Windows;
use crate::weights::{Weights, WeightsError};

/// Most elements of an attention bias that exist at once, 256 MB. The bias of a global block of ViT-H has four times as
/// many, and several blocks' worth would exist side by side where a graph is kept.
const BIAS_ELEMENTS: i64 = 1 << 26;

/// Multi-head self-attention on a `side` x `side` grid. Keys `qkv`, `proj`, `rel_pos_h`, `rel_pos_w` `[2 side - 1, C / heads]`.
///
/// The logit of a query and a key is `q k / sqrt(C / heads) + q rh + q rw`, with `rh` chosen by the distance of their rows and `rw`
/// by that of their columns (MViTv2, <https://arxiv.org/abs/2112.01526>, equation 4); the query is scaled in the first
/// product only.
#[derive(Debug)]
pub(super) struct Attention {
    qkv: Linear,
    proj: Linear,
    /// `rel_pos_h` by row of the query: `[side, C / heads, row of the key]`.
    rh: Tensor,
    /// `rel_pos_w` by column of the query: `[side, C / heads, column of the key]`.
    rw: Tensor,
    num_heads: i64,
}

impl Attention {
    /// Reads attention over grids of `side` x `side` tokens.
    pub(super) fn new(w: &Weights<'_>, dim: i64, num_heads: i64, side: i64) -> Result<Self, WeightsError> {
        let distances: Vec<i64> = (0..side).flat_map(|q| (0..side).map(move |k| q - k + side - 1)).collect();
        let distances = Tensor::f_from_slice(&distances)?.f_to_device(w.device())?;
        let head_dim = dim / num_heads;
        let by_query = |name| -> Result<Tensor, WeightsError> {
            let table = w.get(name, &[2 * side - 1, head_dim])?.f_index_select(0, &distances)?;
            Ok(table.f_to_kind(w.kind())?.f_reshape([side, side, head_dim])?.f_transpose(1, 2)?)
        };
        Ok(Self {
            qkv: Linear::new(&w.pp("qkv"), dim, 3 * dim)?,
            proj: Linear::new(&w.pp("proj"), dim, dim)?,
            rh: by_query("rel_pos_h")?,
            rw: by_query("rel_pos_w")?,
            num_heads,
        })
    }

    /// The type that it computes in.
    pub(super) fn kind(&self) -> Kind {
        self.qkv.kind()
    }

    /// Grids `[B, side, side, C]` to `[B, side side, C]`; of `windows` what they [make](Windows::of_layers) of a grid.
    pub(super) fn forward(&self, x: &Tensor, windows: Option<&Windows>) -> Result<Tensor, TchError> {
        let qkv = self.qkv.forward(x)?;
        let qkv = match windows {
            Some(windows) => windows.to_windows(qkv)?,
            None => qkv,
        };
        let (b, h, w, three) = qkv.size4()?;
        let (n, heads, c) = (h * w, self.num_heads, three / 3);
        let qkv = qkv.f_reshape([b, n, 3, heads, c / heads])?.f_permute([2, 0, 3, 1, 4])?;
        let (q, k, v) = (qkv.f_select(0, 0)?, qkv.f_select(0, 1)?, qkv.f_select(0, 2)?);
        let at_once = (BIAS_ELEMENTS / (b * n * n)).clamp(1, heads);
        let mut parts = Vec::new();
        for first in (0..heads).step_by(usize::try_from(at_once).unwrap_or(1)) {
            let part = |t: &Tensor| t.f_narrow(1, first, at_once.min(heads - first));
            let (q, k, v) = (part(&q)?, part(&k)?, part(&v)?);
            let bias = self.bias(&q, h, w)?;
            parts.push(attention_with(&q, &k, &v, Some(&bias))?);
        }
        let out = Tensor::f_cat(&parts, 1)?.f_transpose(1, 2)?.f_reshape([b, n, c])?;
        self.proj.forward(&match windows {
            Some(windows) => windows.to_cells(out)?,
            None => out,
        })
    }

    /// What positions add to the logits of queries `[B, heads, h w, C / heads]`: `[B, heads, h w, h w]`.
    fn bias(&self, q: &Tensor, h: i64, w: i64) -> Result<Tensor, TchError> {
        let (b, heads, n, head_dim) = q.size4()?;
        let q = q.f_reshape([b, heads, h, w, head_dim])?;
        // [B, heads, h, w, row of the key]
        let rows = q.f_matmul(&self.rh)?;
        // [B, heads, h, w, column of the key]
        let columns = q.f_transpose(2, 3)?.f_matmul(&self.rw)?.f_transpose(2, 3)?;
        rows.f_unsqueeze(-1)?.f_add(&columns.f_unsqueeze(-2)?)?.f_reshape([b, heads, n, n])
    }
}
