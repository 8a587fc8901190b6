//! One two-way block between a class's queries and the image.

use tch::{TchError, Tensor};

use super::HEADS;
use super::attention::CrossAttention;
use super::level::{Dense, Level};
use crate::nn::common::{LayerNorm, Mlp};
use crate::nn::transformer::Attention;
use crate::weights::{Weights, WeightsError};

const LAYER_NORM_EPS: f64 = 1e-5;
const MLP_DIM: i64 = 2048;

/// SAM's two-way block: self-attention of the queries, queries to image, MLP on the queries, image to queries. The keys are those of
/// SAM 2's block.
#[derive(Debug)]
pub(super) struct Block {
    self_attn: Attention,
    norm1: LayerNorm,
    cross_attn_token_to_image: CrossAttention,
    norm2: LayerNorm,
    mlp: Mlp,
    norm3: LayerNorm,
    norm4: LayerNorm,
    cross_attn_image_to_token: CrossAttention,
    skip_first_layer_pe: bool,
}

impl Block {
    /// Reads the block. With `skip_first_layer_pe` self-attention replaces the queries, without positions and residual.
    pub(super) fn new(w: &Weights<'_>, dim: i64, skip_first_layer_pe: bool) -> Result<Self, WeightsError> {
        let norm = |name| LayerNorm::new(&w.pp(name), dim, LAYER_NORM_EPS);
        Ok(Self {
            self_attn: Attention::new(&w.pp("self_attn"), dim, HEADS, 1)?,
            norm1: norm("norm1")?,
            cross_attn_token_to_image: CrossAttention::new(&w.pp("cross_attn_token_to_image"), dim)?,
            norm2: norm("norm2")?,
            mlp: Mlp::new(&w.pp("mlp"), &[dim, MLP_DIM, dim])?,
            norm3: norm("norm3")?,
            norm4: norm("norm4")?,
            cross_attn_image_to_token: CrossAttention::new(&w.pp("cross_attn_image_to_token"), dim)?,
            skip_first_layer_pe,
        })
    }

    /// `queries` `[B K, N, C]` and the cells of `level` with those of the layer before added, both updated.
    pub(super) fn forward(
        &self,
        queries: &Tensor,
        query_pe: &Tensor,
        level: &Level,
        dense: Option<&Dense>,
    ) -> Result<(Tensor, Dense), TchError> {
        let queries = if self.skip_first_layer_pe {
            self.self_attn.forward(queries, queries, queries)?
        } else {
            let q = queries.f_add(query_pe)?;
            queries.f_add(&self.self_attn.forward(&q, &q, queries)?)?
        };
        let queries = self.norm1.forward(&queries)?;

        let q = queries.f_add(query_pe)?;
        let queries = queries.f_add(&self.cross_attn_token_to_image.token_to_image(&q, level, dense)?)?;
        let queries = self.norm2.forward(&queries)?;

        let queries = queries.f_add(&self.mlp.forward(&queries)?)?;
        let queries = self.norm3.forward(&queries)?;

        let q = queries.f_add(query_pe)?;
        let cells = self.cross_attn_image_to_token.image_to_token(&queries, &q, level, dense)?;
        Ok((queries, level.dense(self.norm4.forward(&cells)?)))
    }
}
