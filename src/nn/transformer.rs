//! SAM's two-way transformer: tokens and image attend to each other.

use tch::{TchError, Tensor};

use super::attention::attention;
use super::common::{Activation, LayerNorm, MlpBlock, MlpKeys};
use super::linear::Linear;
use crate::weights::{Weights, WeightsError};

/// Tokens and image after a block or after the transformer: `[B, N, C]` and `[B, H W, C]`.
pub type TokensAndImage = (Tensor, Tensor);

const LAYER_NORM_EPS: f64 = 1e-5;

/// Multi-head attention whose inner width may be smaller than its outer one.
#[derive(Debug)]
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    num_heads: i64,
}

impl Attention {
    /// Reads the layer; the inner width is `dim / downsample_rate`.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(
        w: &Weights<'_>,
        dim: i64,
        num_heads: i64,
        downsample_rate: i64,
    ) -> Result<Self, WeightsError> {
        let inner = dim / downsample_rate;
        Ok(Self {
            q_proj: Linear::new(&w.pp("q_proj"), dim, inner)?,
            k_proj: Linear::new(&w.pp("k_proj"), dim, inner)?,
            v_proj: Linear::new(&w.pp("v_proj"), dim, inner)?,
            out_proj: Linear::new(&w.pp("out_proj"), inner, dim)?,
            num_heads,
        })
    }

    /// `q [1 or B, N, C]`, `k` and `v` `[1 or B, M, C]` to `[B, N, C]`. A side of batch 1 is projected once.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, TchError> {
        let heads = |x: Tensor| {
            let (b, n, c) = x.size3()?;
            x.f_reshape([b, n, self.num_heads, c / self.num_heads])?.f_transpose(1, 2)
        };
        let q = heads(self.q_proj.forward(q)?)?;
        let k = heads(self.k_proj.forward(k)?)?;
        let v = heads(self.v_proj.forward(v)?)?;
        // The fused kernels do not broadcast; expanding copies nothing.
        let b = q.size4()?.0.max(k.size4()?.0);
        let batch = |x: Tensor| x.f_expand([b, -1, -1, -1], false);
        let (q, k, v) = (batch(q)?, batch(k)?, batch(v)?);
        let out = attention(&q, &k, &v)?;
        self.out_proj.forward(&out.f_transpose(1, 2)?.f_flatten(2, 3)?)
    }
}

/// Self-attention of the tokens, tokens to image, MLP on the tokens, image to tokens.
#[derive(Debug)]
pub struct TwoWayAttentionBlock {
    self_attn: Attention,
    norm1: LayerNorm,
    cross_attn_token_to_image: Attention,
    norm2: LayerNorm,
    mlp: MlpBlock,
    norm3: LayerNorm,
    norm4: LayerNorm,
    cross_attn_image_to_token: Attention,
    skip_first_layer_pe: bool,
}

impl TwoWayAttentionBlock {
    /// Reads the block. With `skip_first_layer_pe` self-attention replaces the tokens, without positions and residual.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(
        w: &Weights<'_>,
        dim: i64,
        num_heads: i64,
        mlp_dim: i64,
        downsample_rate: i64,
        mlp_keys: MlpKeys,
        skip_first_layer_pe: bool,
    ) -> Result<Self, WeightsError> {
        let norm = |name| LayerNorm::new(&w.pp(name), dim, LAYER_NORM_EPS);
        let cross = |name| Attention::new(&w.pp(name), dim, num_heads, downsample_rate);
        Ok(Self {
            self_attn: Attention::new(&w.pp("self_attn"), dim, num_heads, 1)?,
            norm1: norm("norm1")?,
            cross_attn_token_to_image: cross("cross_attn_token_to_image")?,
            norm2: norm("norm2")?,
            mlp: MlpBlock::with_keys(&w.pp("mlp"), dim, mlp_dim, Activation::Relu, mlp_keys)?,
            norm3: norm("norm3")?,
            norm4: norm("norm4")?,
            cross_attn_image_to_token: cross("cross_attn_image_to_token")?,
            skip_first_layer_pe,
        })
    }

    /// `queries`, `query_pe` `[B, N, C]`; `keys` and `key_pe` `[1 or B, M, C]`. The keys returned have batch B.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        query_pe: &Tensor,
        key_pe: &Tensor,
    ) -> Result<TokensAndImage, TchError> {
        let queries = if self.skip_first_layer_pe {
            self.self_attn.forward(queries, queries, queries)?
        } else {
            let q = queries.f_add(query_pe)?;
            queries.f_add(&self.self_attn.forward(&q, &q, queries)?)?
        };
        let queries = self.norm1.forward(&queries)?;

        let q = queries.f_add(query_pe)?;
        let k = keys.f_add(key_pe)?;
        let queries = queries.f_add(&self.cross_attn_token_to_image.forward(&q, &k, keys)?)?;
        let queries = self.norm2.forward(&queries)?;

        let queries = queries.f_add(&self.mlp.forward(&queries)?)?;
        let queries = self.norm3.forward(&queries)?;

        let q = queries.f_add(query_pe)?;
        let keys = keys.f_add(&self.cross_attn_image_to_token.forward(&k, &q, &queries)?)?;
        Ok((queries, self.norm4.forward(&keys)?))
    }
}

/// A stack of [`TwoWayAttentionBlock`]s and a last attention from the tokens to the image.
#[derive(Debug)]
pub struct TwoWayTransformer {
    layers: Vec<TwoWayAttentionBlock>,
    final_attn_token_to_image: Attention,
    norm_final_attn: LayerNorm,
}

impl TwoWayTransformer {
    /// Reads the transformer; cross-attention works at half the width.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(
        w: &Weights<'_>,
        depth: usize,
        dim: i64,
        num_heads: i64,
        mlp_dim: i64,
        mlp_keys: MlpKeys,
    ) -> Result<Self, WeightsError> {
        let layers = w.pp("layers");
        let block = |i| {
            TwoWayAttentionBlock::new(
                &layers.pp(i),
                dim,
                num_heads,
                mlp_dim,
                2,
                mlp_keys,
                /* skip pe */ i == 0,
            )
        };
        Ok(Self {
            layers: (0..depth).map(block).collect::<Result<_, _>>()?,
            final_attn_token_to_image: Attention::new(&w.pp("final_attn_token_to_image"), dim, num_heads, 2)?,
            norm_final_attn: LayerNorm::new(&w.pp("norm_final_attn"), dim, LAYER_NORM_EPS)?,
        })
    }

    /// `image` and `image_pe` `[1 or B, C, H, W]`, `tokens` `[B, N, C]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(
        &self,
        image: &Tensor,
        image_pe: &Tensor,
        tokens: &Tensor,
    ) -> Result<TokensAndImage, TchError> {
        let mut keys = image.f_flatten(2, -1)?.f_transpose(1, 2)?;
        let key_pe = image_pe.f_flatten(2, -1)?.f_transpose(1, 2)?;
        let mut queries = tokens.shallow_clone();
        for layer in &self.layers {
            (queries, keys) = layer.forward(&queries, &keys, tokens, &key_pe)?;
        }
        let q = queries.f_add(tokens)?;
        let k = keys.f_add(&key_pe)?;
        let queries = queries.f_add(&self.final_attn_token_to_image.forward(&q, &k, &keys)?)?;
        Ok((self.norm_final_attn.forward(&queries)?, keys))
    }
}
