//! TinyViT as used by MobileSAM and LiteMedSAM: a convolutional stage, three stages of windowed attention, SAM's neck.
//!
//! Inside, activations keep their channels innermost (`[B, H, W, C]` contiguous, or the same memory seen as
//! `[B, C, H, W]`): linear layers, layer norms and convolutions then all run without a copy between them.

mod attention;
mod block;
mod conv;

use tch::{TchError, Tensor};

use super::adapter::Adapters;
use super::encoder_step::{EncoderStep, expect_picture};
use super::neck::Neck;
use crate::weights::{Weights, WeightsError};
use block::TinyVitBlock;
use conv::{Conv2dBn, MbConv, PatchMerging};

/// How the first layers bring the picture to the first stage's grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TinyVitStem {
    /// Two 1x1 convolutions; the grid is the picture's.
    Pointwise,
    /// Two 3x3 convolutions of stride 2; the grid is a quarter of the picture's side.
    Strided,
}

/// Dimensions of a TinyViT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TinyVitConfig {
    /// Side of the square input in pixels.
    pub img_size: i64,
    /// First layers.
    pub stem: TinyVitStem,
    /// Channels per stage.
    pub embed_dims: [i64; 4],
    /// Blocks per stage.
    pub depths: [usize; 4],
    /// Attention heads per stage; the first is not used.
    pub num_heads: [i64; 4],
    /// Side of the attention windows per stage; the first is not used.
    pub window_sizes: [i64; 4],
    /// Stride between stages.
    pub merge_strides: [i64; 3],
    /// Channels of the neck's output.
    pub out_chans: i64,
}

impl TinyVitConfig {
    /// At its own side 256x256 in, 64x64 out: no reduction in the stem and none before the last stage.
    pub fn lite_medsam() -> Self {
        Self {
            img_size: 256,
            stem: TinyVitStem::Pointwise,
            embed_dims: [64, 128, 160, 320],
            depths: [2, 2, 6, 2],
            num_heads: [2, 4, 5, 10],
            window_sizes: [7, 7, 14, 7],
            merge_strides: [2, 2, 1],
            out_chans: 256,
        }
    }

    /// At its own side 1024x1024 in, 64x64 out.
    pub fn mobile_sam() -> Self {
        Self { img_size: 1024, stem: TinyVitStem::Strided, ..Self::lite_medsam() }
    }

    /// Side of the image embedding.
    pub fn embedding_size(&self) -> i64 {
        let stem = match self.stem {
            TinyVitStem::Pointwise => 1,
            TinyVitStem::Strided => 4,
        };
        self.img_size / (stem * self.merge_strides.iter().product::<i64>())
    }
}

/// `[B, 3, S, S]` to `[B, out_chans, grid, grid]`.
#[derive(Debug)]
pub struct TinyVit {
    patch_embed: [Conv2dBn; 2],
    conv_layer: ConvLayer,
    layers: Vec<BasicLayer>,
    /// One for every block with attention, where Sam2Rad tuned the encoder with them.
    adapters: Option<Adapters>,
    neck: Neck,
    img_size: i64,
}

impl TinyVit {
    /// Reads the encoder, folding every batch norm into its convolution.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, config: &TinyVitConfig) -> Result<Self, WeightsError> {
        let TinyVitConfig { stem, embed_dims, depths, num_heads, window_sizes, merge_strides, .. } = config;
        let seq = w.pp("patch_embed").pp("seq");
        let width = embed_dims[0];
        let (kernel, stride) = match stem {
            TinyVitStem::Pointwise => (1, 1),
            TinyVitStem::Strided => (3, 2),
        };
        let patch_embed = [
            Conv2dBn::new(&seq.pp(0), [3, width / 2], kernel, stride)?,
            Conv2dBn::new(&seq.pp(2), [width / 2, width], kernel, stride)?,
        ];
        let layers = w.pp("layers");
        let merge = |stage: usize| -> Result<Option<PatchMerging>, WeightsError> {
            let (Some(&stride), Some(&out)) = (merge_strides.get(stage), embed_dims.get(stage + 1)) else {
                return Ok(None);
            };
            PatchMerging::new(&layers.pp(stage).pp("downsample"), embed_dims[stage], out, stride).map(Some)
        };
        let blocks = layers.pp(0).pp("blocks");
        let conv_layer = ConvLayer {
            blocks: (0..depths[0]).map(|i| MbConv::new(&blocks.pp(i), width)).collect::<Result<_, _>>()?,
            downsample: merge(0)?,
        };
        let basic = |stage: usize| -> Result<BasicLayer, WeightsError> {
            let blocks = layers.pp(stage).pp("blocks");
            let block = |i| {
                TinyVitBlock::new(&blocks.pp(i), embed_dims[stage], num_heads[stage], window_sizes[stage])
            };
            Ok(BasicLayer {
                blocks: (0..depths[stage]).map(block).collect::<Result<_, _>>()?,
                downsample: merge(stage)?,
            })
        };
        let layers = (1..4).map(basic).collect::<Result<_, _>>()?;
        let widths: Vec<i64> =
            (1..4).flat_map(|stage| (0..depths[stage]).map(move |_| embed_dims[stage])).collect();
        // The classification head is in MobileSAM's checkpoint and serves nothing here.
        w.skip("norm_head");
        w.skip("head");
        Ok(Self {
            patch_embed,
            conv_layer,
            layers,
            adapters: Adapters::new(w, &widths)?,
            neck: Neck::new(&w.pp("neck"), embed_dims[3], config.out_chans)?,
            img_size: config.img_size,
        })
    }

    /// A normalised picture `[B, 3, S, S]` to its embedding `[B, out_chans, grid, grid]`.
    ///
    /// # Errors
    /// A picture of another size; else libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.trace(x, |_, _| ())
    }

    /// The same, showing `visit` what each step gives, `[B, C, h, w]`.
    ///
    /// # Errors
    /// As [`TinyVit::forward`].
    pub fn trace(&self, x: &Tensor, mut visit: impl FnMut(EncoderStep, &Tensor)) -> Result<Tensor, TchError> {
        expect_picture(x, self.img_size)?;
        let x = x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?;
        let [first, second] = &self.patch_embed;
        let mut x = second.forward(&first.forward_gelu(&x)?)?;
        visit(EncoderStep::PatchEmbed, &x);
        x = self.conv_layer.forward(x, &mut visit)?;
        self.attend(x, 0, visit)
    }

    /// Blocks with attention.
    pub fn depth(&self) -> usize {
        self.layers.iter().map(|layer| layer.blocks.len()).sum()
    }

    /// From what the block with attention `first` gets, `[B, C, h, w]`, to the embedding; `visit` is shown what each step gives.
    ///
    /// # Errors
    /// libtorch's.
    pub fn finish(
        &self,
        x: &Tensor,
        first: usize,
        visit: impl FnMut(EncoderStep, &Tensor),
    ) -> Result<Tensor, TchError> {
        self.attend(x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?, first, visit)
    }

    /// The blocks with attention from `first` on, and the neck.
    fn attend(
        &self,
        mut x: Tensor,
        first: usize,
        mut visit: impl FnMut(EncoderStep, &Tensor),
    ) -> Result<Tensor, TchError> {
        let mut before = 0;
        for (layer, stage) in (1..).zip(&self.layers) {
            let after = before + stage.blocks.len();
            if first < after {
                let adapters = self.adapters.as_ref().map(|adapters| (adapters, before));
                x = stage.forward(x, layer, first.saturating_sub(before), adapters, &mut visit)?;
            }
            before = after;
        }
        let embedding = self.neck.forward(&x)?;
        visit(EncoderStep::Neck, &embedding);
        Ok(embedding)
    }
}

/// The convolutional stage. Keys `blocks.N`, `downsample`.
#[derive(Debug)]
struct ConvLayer {
    blocks: Vec<MbConv>,
    downsample: Option<PatchMerging>,
}

impl ConvLayer {
    fn forward(
        &self,
        mut x: Tensor,
        visit: &mut impl FnMut(EncoderStep, &Tensor),
    ) -> Result<Tensor, TchError> {
        for (block, weights) in self.blocks.iter().enumerate() {
            x = weights.forward(&x)?;
            visit(EncoderStep::Block { layer: 0, block }, &x);
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(&x)?;
            visit(EncoderStep::Downsample { layer: 0 }, &x);
        }
        Ok(x)
    }
}

/// A stage of windowed attention. Keys `blocks.N`, `downsample`.
#[derive(Debug)]
struct BasicLayer {
    blocks: Vec<TinyVitBlock>,
    downsample: Option<PatchMerging>,
}

impl BasicLayer {
    /// Begins with the block `first`. `adapters` come with the number of blocks before this layer.
    fn forward(
        &self,
        mut x: Tensor,
        layer: usize,
        first: usize,
        adapters: Option<(&Adapters, usize)>,
        visit: &mut impl FnMut(EncoderStep, &Tensor),
    ) -> Result<Tensor, TchError> {
        for (block, weights) in self.blocks.iter().enumerate().skip(first) {
            if let Some((adapters, before)) = adapters {
                let cells = x.f_permute([0, 2, 3, 1])?;
                x = adapters.apply(before + block, &cells)?.f_permute([0, 3, 1, 2])?;
            }
            x = weights.forward(&x)?;
            visit(EncoderStep::Block { layer, block }, &x);
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(&x)?;
            visit(EncoderStep::Downsample { layer }, &x);
        }
        Ok(x)
    }
}
