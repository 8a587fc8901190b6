//! TinyViT as used by MobileSAM and LiteMedSAM: a convolutional stage, three stages of windowed attention, SAM's neck.
//!
//! Inside, activations keep their channels innermost (`[B, H, W, C]` contiguous, or the same memory seen as
//! `[B, C, H, W]`): linear layers, layer norms and convolutions then all run without a copy between them.

mod attention;
mod block;
mod conv;

use tch::{TchError, Tensor};

use super::common::{Conv2d, LayerNorm2d};
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
    /// 256x256 in, 64x64 out: no reduction in the stem and none before the last stage.
    pub fn lite_medsam() -> Self {
        Self {
            stem: TinyVitStem::Pointwise,
            embed_dims: [64, 128, 160, 320],
            depths: [2, 2, 6, 2],
            num_heads: [2, 4, 5, 10],
            window_sizes: [7, 7, 14, 7],
            merge_strides: [2, 2, 1],
            out_chans: 256,
        }
    }

    /// 1024x1024 in, 64x64 out.
    pub fn mobile_sam() -> Self {
        Self { stem: TinyVitStem::Strided, ..Self::lite_medsam() }
    }
}

/// `[B, 3, S, S]` to `[B, out_chans, grid, grid]`.
#[derive(Debug)]
pub struct TinyVit {
    patch_embed: [Conv2dBn; 2],
    conv_layer: ConvLayer,
    layers: Vec<BasicLayer>,
    neck: Neck,
}

impl TinyVit {
    /// Reads the encoder, folding every batch norm into its convolution.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, config: &TinyVitConfig) -> Result<Self, WeightsError> {
        let TinyVitConfig { stem, embed_dims, depths, num_heads, window_sizes, merge_strides, out_chans } =
            config;
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
        // The classification head is in MobileSAM's checkpoint and serves nothing here.
        w.skip("norm_head");
        w.skip("head");
        Ok(Self {
            patch_embed,
            conv_layer,
            layers,
            neck: Neck::new(&w.pp("neck"), embed_dims[3], *out_chans)?,
        })
    }

    /// A normalised picture `[B, 3, S, S]` to its embedding `[B, out_chans, grid, grid]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let mut output = None;
        self.forward_stages(x, |stage| output = Some(stage.shallow_clone()))?;
        output.ok_or_else(|| TchError::Shape("the encoder has no stages".into()))
    }

    /// The same, showing `visit` each stage's output `[B, C, H, W]` in turn: stem, four stages, neck.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward_stages(&self, x: &Tensor, mut visit: impl FnMut(&Tensor)) -> Result<(), TchError> {
        let x = x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?;
        let [first, second] = &self.patch_embed;
        let mut x = second.forward(&super::Activation::Gelu.apply(first.forward(&x)?)?)?;
        visit(&x);
        x = self.conv_layer.forward(x)?;
        visit(&x);
        for layer in &self.layers {
            x = layer.forward(x)?;
            visit(&x);
        }
        visit(&self.neck.forward(&x)?);
        Ok(())
    }
}

/// The convolutional stage. Keys `blocks.N`, `downsample`.
#[derive(Debug)]
struct ConvLayer {
    blocks: Vec<MbConv>,
    downsample: Option<PatchMerging>,
}

impl ConvLayer {
    fn forward(&self, mut x: Tensor) -> Result<Tensor, TchError> {
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.downsample.as_ref().map_or(Ok(x.shallow_clone()), |d| d.forward(&x))
    }
}

/// A stage of windowed attention. Keys `blocks.N`, `downsample`.
#[derive(Debug)]
struct BasicLayer {
    blocks: Vec<TinyVitBlock>,
    downsample: Option<PatchMerging>,
}

impl BasicLayer {
    fn forward(&self, mut x: Tensor) -> Result<Tensor, TchError> {
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.downsample.as_ref().map_or(Ok(x.shallow_clone()), |d| d.forward(&x))
    }
}

/// SAM's neck. Keys `0`, `1`, `2`, `3`.
#[derive(Debug)]
struct Neck {
    conv0: Conv2d,
    norm1: LayerNorm2d,
    conv2: Conv2d,
    norm3: LayerNorm2d,
}

impl Neck {
    fn new(w: &Weights<'_>, dim: i64, out_chans: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            conv0: Conv2d::without_bias(
                &w.pp(0),
                [dim, out_chans],
                /* kernel */ 1,
                /* stride */ 1,
                /* padding */ 0,
            )?,
            norm1: LayerNorm2d::new(&w.pp(1), out_chans)?,
            conv2: Conv2d::without_bias(&w.pp(2), [out_chans, out_chans], 3, 1, 1)?,
            norm3: LayerNorm2d::new(&w.pp(3), out_chans)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = self.norm1.forward(&self.conv0.forward(x)?)?;
        self.norm3.forward(&self.conv2.forward(&x)?)
    }
}
