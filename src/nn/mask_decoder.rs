//! SAM's mask decoder.

use tch::{TchError, Tensor};

use super::common::{Activation, ConvTranspose2d, LayerNorm2d, Mlp};
use super::transformer::TwoWayTransformer;
use crate::weights::{Weights, WeightsError};

/// The embedding to four times its size and an eighth of its width. Keys `0`, `1`, `3`.
#[derive(Debug)]
pub struct OutputUpscaling {
    dc1: ConvTranspose2d,
    ln1: LayerNorm2d,
    dc2: ConvTranspose2d,
}

impl OutputUpscaling {
    /// Reads the layers.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            dc1: ConvTranspose2d::new(&w.pp(0), [dim, dim / 4], 2)?,
            ln1: LayerNorm2d::new(&w.pp(1), dim / 4)?,
            dc2: ConvTranspose2d::new(&w.pp(3), [dim / 4, dim / 8], 2)?,
        })
    }

    /// `[B, C, h, w]` to `[B, C / 8, 4h, 4w]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = Activation::Gelu.apply(self.ln1.forward(&self.dc1.forward(x)?)?)?;
        Activation::Gelu.apply(self.dc2.forward(&x)?)
    }
}

/// Image and prompt embeddings to mask logits and predicted IoU.
#[derive(Debug)]
pub struct MaskDecoder {
    transformer: TwoWayTransformer,
    iou_token: Tensor,
    mask_tokens: Tensor,
    output_upscaling: OutputUpscaling,
    output_hypernetworks_mlps: Vec<Mlp>,
    iou_prediction_head: Mlp,
}

/// Mask tokens: one for a single answer, three for alternatives.
const MASK_TOKENS: usize = 4;

impl MaskDecoder {
    /// Reads a decoder of width `dim`: two transformer blocks, eight heads, 2048 hidden, heads of three layers.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, dim: i64) -> Result<Self, WeightsError> {
        let mlps = w.pp("output_hypernetworks_mlps");
        let tokens = MASK_TOKENS as i64;
        Ok(Self {
            transformer: TwoWayTransformer::new(
                &w.pp("transformer"),
                /* depth */ 2,
                dim,
                /* heads */ 8,
                2048,
            )?,
            iou_token: w.pp("iou_token").get("weight", &[1, dim])?,
            mask_tokens: w.pp("mask_tokens").get("weight", &[tokens, dim])?,
            output_upscaling: OutputUpscaling::new(&w.pp("output_upscaling"), dim)?,
            output_hypernetworks_mlps: (0..MASK_TOKENS)
                .map(|i| Mlp::new(&mlps.pp(i), &[dim, dim, dim, dim / 8]))
                .collect::<Result<_, _>>()?,
            iou_prediction_head: Mlp::new(&w.pp("iou_prediction_head"), &[dim, dim, dim, tokens])?,
        })
    }

    /// `image_embeddings` `[1 or B, C, h, w]`, `image_pe` `[1, C, h, w]`, `sparse` `[B, N, C]`, `dense` `[B, C, h, w]`.
    /// Returns logits `[B, M, 4h, 4w]` and predicted IoU `[B, M]`: one mask, or the three alternatives with `multimask_output`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(
        &self,
        image_embeddings: &Tensor,
        image_pe: &Tensor,
        sparse: &Tensor,
        dense: &Tensor,
        multimask_output: bool,
    ) -> Result<(Tensor, Tensor), TchError> {
        let output_tokens = Tensor::f_cat(&[&self.iou_token, &self.mask_tokens], 0)?;
        let output_tokens = output_tokens.f_unsqueeze(0)?.f_expand([sparse.size3()?.0, -1, -1], false)?;
        let tokens = Tensor::f_cat(&[&output_tokens, sparse], 1)?;
        let src = image_embeddings.f_add(dense)?;
        let (b, c, h, w) = src.size4()?;

        let (hs, src) = self.transformer.forward(&src, image_pe, &tokens)?;
        let src = src.f_transpose(1, 2)?.f_reshape([b, c, h, w])?;
        let upscaled = self.output_upscaling.forward(&src)?;

        let wanted = if multimask_output { 1..MASK_TOKENS } else { 0..1 };
        let first = wanted.start as i64;
        let mut hyper_in = Vec::with_capacity(wanted.len());
        for (mlp, i) in self.output_hypernetworks_mlps[wanted].iter().zip(first..) {
            // Token 0 is the IoU's.
            hyper_in.push(mlp.forward(&hs.f_select(1, 1 + i)?)?);
        }
        let hyper_in = Tensor::f_stack(&hyper_in, 1)?;
        let (b, c, h, w) = upscaled.size4()?;
        let masks = hyper_in.f_bmm(&upscaled.f_reshape([b, c, h * w])?)?.f_reshape([b, -1, h, w])?;
        let iou = self.iou_prediction_head.forward(&hs.f_select(1, 0)?)?;
        Ok((masks, iou.f_narrow(1, first, hyper_in.size3()?.1)?))
    }
}
