//! LiteMedSAM as a whole: TinyViT, SAM's prompt encoder, SAM's mask decoder.

use super::mask_decoder::MaskDecoder;
use super::prompt_encoder::PromptEncoder;
use super::tiny_vit::{TinyVit, TinyVitConfig};
use crate::weights::{Weights, WeightsError};

/// The three parts, under the checkpoint's own names.
#[derive(Debug)]
pub struct LiteMedSam {
    /// `[B, 3, 256, 256]` to `[B, 256, 64, 64]`.
    pub image_encoder: TinyVit,
    /// Prompts to embeddings.
    pub prompt_encoder: PromptEncoder,
    /// Embeddings to logits `[B, 1, 256, 256]`.
    pub mask_decoder: MaskDecoder,
}

impl LiteMedSam {
    /// Side of the square input in pixels; also of the logits and of a mask prompt.
    pub const INPUT_SIZE: usize = 256;
    /// Side of the image embedding.
    pub const EMBEDDING_SIZE: usize = 64;

    /// Reads the whole network; a tensor left over is an error.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>) -> Result<Self, WeightsError> {
        let dim = 256;
        let (input, grid) = (Self::INPUT_SIZE as i64, Self::EMBEDDING_SIZE as i64);
        let net = Self {
            image_encoder: TinyVit::new(&w.pp("image_encoder"), &TinyVitConfig::lite_medsam())?,
            prompt_encoder: PromptEncoder::new(
                &w.pp("prompt_encoder"),
                dim,
                [grid; 2],
                [input; 2],
                /* mask_in_chans */ 16,
            )?,
            mask_decoder: MaskDecoder::new(&w.pp("mask_decoder"), dim)?,
        };
        w.finish()?;
        Ok(net)
    }
}
