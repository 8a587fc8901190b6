//! SAM's ViT image encoder (ViTDet with absolute and decomposed relative positions, then the neck).

mod attention;
mod block;

use tch::{TchError, Tensor};

use super::adapter::Adapters;
use super::common::Conv2d;
use super::encoder_step::{EncoderStep, expect_picture};
use super::neck::Neck;
use crate::weights::{Weights, WeightsError};
use block::Block;

/// Dimensions of a ViT encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VitConfig {
    /// Side of the square input in pixels.
    pub img_size: i64,
    /// Side of a patch in pixels.
    pub patch_size: i64,
    /// Channels of a token.
    pub embed_dim: i64,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: i64,
    /// Side of the attention windows in tokens.
    pub window_size: i64,
    /// Blocks that attend to the whole grid.
    pub global_attn_indexes: [usize; 4],
    /// Channels of the neck's output.
    pub out_chans: i64,
}

impl VitConfig {
    /// ViT-B.
    pub fn base() -> Self {
        Self {
            img_size: 1024,
            patch_size: 16,
            embed_dim: 768,
            depth: 12,
            num_heads: 12,
            window_size: 14,
            global_attn_indexes: [2, 5, 8, 11],
            out_chans: 256,
        }
    }

    /// ViT-L.
    pub fn large() -> Self {
        Self {
            embed_dim: 1024,
            depth: 24,
            num_heads: 16,
            global_attn_indexes: [5, 11, 17, 23],
            ..Self::base()
        }
    }

    /// ViT-H.
    pub fn huge() -> Self {
        Self {
            embed_dim: 1280,
            depth: 32,
            num_heads: 16,
            global_attn_indexes: [7, 15, 23, 31],
            ..Self::base()
        }
    }

    /// Side of the image embedding.
    pub fn embedding_size(&self) -> i64 {
        self.img_size / self.patch_size
    }
}

/// `[B, 3, S, S]` to `[B, out_chans, S / 16, S / 16]`. Keys `pos_embed`, `patch_embed.proj`, `blocks.N`, `neck`, and `adapters` where
/// Sam2Rad tuned the encoder with them.
#[derive(Debug)]
pub struct ImageEncoderVit {
    patch_embed: Conv2d,
    pos_embed: Tensor,
    blocks: Vec<Block>,
    adapters: Option<Adapters>,
    neck: Neck,
    img_size: i64,
}

impl ImageEncoderVit {
    /// Reads the encoder.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, config: &VitConfig) -> Result<Self, WeightsError> {
        let (grid, dim, patch) = (config.embedding_size(), config.embed_dim, config.patch_size);
        let blocks = w.pp("blocks");
        let block = |i| {
            let global = config.global_attn_indexes.contains(&i);
            let window = (!global).then_some(config.window_size);
            Block::new(&blocks.pp(i), dim, config.num_heads, window, grid)
        };
        Ok(Self {
            patch_embed: Conv2d::new(&w.pp("patch_embed").pp("proj"), [3, dim], patch, patch, 0)?,
            pos_embed: w.get("pos_embed", &[1, grid, grid, dim])?,
            blocks: (0..config.depth).map(block).collect::<Result<_, _>>()?,
            adapters: Adapters::new(w, &vec![dim; config.depth])?,
            neck: Neck::new(&w.pp("neck"), dim, config.out_chans)?,
            img_size: config.img_size,
        })
    }

    /// A normalised picture `[B, 3, S, S]` to its embedding `[B, out_chans, grid, grid]`.
    ///
    /// # Errors
    /// A picture of another size, for which there are no positions; else libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.trace(x, |_, _| ())
    }

    /// The same, showing `visit` what each step gives, `[B, C, h, w]`. Blocks count in layer 0; the patches are shown without
    /// their positions.
    ///
    /// # Errors
    /// As [`ImageEncoderVit::forward`].
    pub fn trace(&self, x: &Tensor, mut visit: impl FnMut(EncoderStep, &Tensor)) -> Result<Tensor, TchError> {
        expect_picture(x, self.img_size)?;
        let patches = self.patch_embed.forward(x)?;
        visit(EncoderStep::PatchEmbed, &patches);
        self.attend(patches.f_permute([0, 2, 3, 1])?.f_add(&self.pos_embed)?, 0, visit)
    }

    /// Blocks.
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// From what the block `first` gets, `[B, C, h, w]`, to the embedding; `visit` is shown what each step gives.
    ///
    /// # Errors
    /// libtorch's.
    pub fn finish(
        &self,
        x: &Tensor,
        first: usize,
        visit: impl FnMut(EncoderStep, &Tensor),
    ) -> Result<Tensor, TchError> {
        self.attend(x.f_permute([0, 2, 3, 1])?.f_contiguous()?, first, visit)
    }

    /// The blocks from `first` on, and the neck; `x` is `[B, h, w, C]`.
    fn attend(
        &self,
        mut x: Tensor,
        first: usize,
        mut visit: impl FnMut(EncoderStep, &Tensor),
    ) -> Result<Tensor, TchError> {
        for (block, layer) in self.blocks.iter().enumerate().skip(first) {
            if let Some(adapters) = &self.adapters {
                x = adapters.apply(block, &x)?;
            }
            x = layer.forward(&x)?;
            visit(EncoderStep::Block { layer: 0, block }, &x.f_permute([0, 3, 1, 2])?);
        }
        let embedding = self.neck.forward(&x.f_permute([0, 3, 1, 2])?)?;
        visit(EncoderStep::Neck, &embedding);
        Ok(embedding)
    }
}
