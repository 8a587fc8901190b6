//! Attention between few tokens and many image cells, without projecting the cells.
//!
//! With `N` tokens of a class, a token's score at a cell is `(W_q t) . (W_k c) = (W_k^T W_q t) . c`: one row of width `C` for
//! each of the `heads N` pairs of a head and a token, and one product of all rows with the cells. The same holds for the
//! values in either direction. Projecting the cells would cost `3 C^2 / 2` a cell and class, this costs `heads N C` a
//! product, and it stays linear in the cells, so that [`Level`] can take a cell apart into what classes share, what is
//! constant on a block of cells, and its position. Equal in real arithmetic to the usual order.

use tch::{TchError, Tensor};

use super::level::{Dense, Level};
use crate::nn::linear::Linear;
use crate::weights::{Weights, WeightsError};

/// Heads of every attention.
pub(super) const HEADS: i64 = 8;

/// Attention at half the width between tokens and image cells. Keys `q_proj`, `k_proj`, `v_proj`, `out_proj`.
#[derive(Debug)]
pub(super) struct CrossAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    /// Width of one head.
    head: i64,
}

impl CrossAttention {
    pub(super) fn new(w: &Weights<'_>, dim: i64) -> Result<Self, WeightsError> {
        let inner = dim / 2;
        Ok(Self {
            q_proj: Linear::new(&w.pp("q_proj"), dim, inner)?,
            k_proj: Linear::new(&w.pp("k_proj"), dim, inner)?,
            v_proj: Linear::new(&w.pp("v_proj"), dim, inner)?,
            out_proj: Linear::new(&w.pp("out_proj"), inner, dim)?,
            head: inner / HEADS,
        })
    }

    /// What the tokens gain from the cells, `[B, N, C]`; `tokens` `[B, N, C]` carry their positions.
    pub(super) fn token_to_image(
        &self,
        tokens: &Tensor,
        level: &Level,
        dense: Option<&Dense>,
    ) -> Result<Tensor, TchError> {
        let (b, n, c) = tokens.size3()?;
        let queries = self.heads(&self.q_proj.forward(tokens)?)?.f_mul_scalar(self.scale())?;
        // The key's bias adds the same to a token's score at every cell, which softmax takes away again.
        let rows = queries.f_matmul(&self.rows_of(&self.k_proj)?)?.f_reshape([b, HEADS * n, c])?;
        let attention = level.scores(&rows, None, dense)?.f_softmax(-1, None)?;
        let seen = level.context(&attention, dense)?.f_reshape([b, HEADS, n, c])?;
        let values = seen.f_matmul(&self.rows_of(&self.v_proj)?.f_transpose(1, 2)?)?;
        // Attention sums to one, so the value's bias may be added after it.
        let values = values.f_transpose(1, 2)?.f_flatten(2, 3)?.f_add(self.v_proj.bias())?;
        self.out_proj.forward(&values)
    }

    /// The cells after they have looked at the tokens, with their residual, `[B, H W, C]`; `tokens` `[B, N, C]`, of which `with_positions`
    /// carry their positions.
    pub(super) fn image_to_token(
        &self,
        tokens: &Tensor,
        with_positions: &Tensor,
        level: &Level,
        dense: Option<&Dense>,
    ) -> Result<Tensor, TchError> {
        let (b, n, c) = tokens.size3()?;
        let keys = self.heads(&self.k_proj.forward(with_positions)?)?.f_mul_scalar(self.scale())?;
        let rows = keys.f_matmul(&self.rows_of(&self.q_proj)?)?.f_reshape([b, HEADS * n, c])?;
        // The query's bias adds to a cell's score as much as the token's key says: it counts.
        let bias = self.q_proj.bias().f_reshape([HEADS, self.head, 1])?;
        let bias = keys.f_matmul(&bias)?.f_reshape([b, HEADS * n])?;
        let scores = level.scores(&rows, Some(&bias), dense)?;
        let cells = scores.size3()?.2;
        let attention = scores.f_reshape([b, HEADS, n, cells])?.f_softmax(2, None)?;

        let values = self.heads(&self.v_proj.forward(tokens)?)?;
        let out = self.out_proj.weight()?.f_reshape([c, HEADS, self.head])?.f_permute([1, 2, 0])?;
        // Every head's attention sums to one, so an eighth of the bias with each head is the bias.
        let bias = self.out_proj.bias().f_div_scalar(HEADS)?;
        let values = values.f_matmul(&out)?.f_reshape([b, HEADS * n, c])?.f_add(&bias)?;
        level.updated(&attention.f_reshape([b, HEADS * n, cells])?, &values, dense)
    }

    fn scale(&self) -> f64 {
        1.0 / (self.head as f64).sqrt()
    }

    /// `[B, N, C / 2]` to `[B, heads, N, head]`.
    fn heads(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (b, n, _) = x.size3()?;
        x.f_reshape([b, n, HEADS, self.head])?.f_transpose(1, 2)
    }

    /// A projection's weight by heads, `[heads, head, C]`.
    fn rows_of(&self, projection: &Linear) -> Result<Tensor, TchError> {
        projection.weight()?.f_reshape([HEADS, self.head, -1])
    }
}
