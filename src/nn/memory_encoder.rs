//! SAM 2's memory encoder: a frame and an object's mask on it become what is remembered of both.
//!
//! Source: `modeling/memory_encoder.py` of SAM 2.

use tch::{TchError, Tensor};

use super::common::{Activation, Conv2d, LayerNorm2d, add_to};
use super::linear::Linear;
use super::memory_attention::MEMORY_DIM;
use super::sam2::DIM;
use crate::weights::{Weights, WeightsError};

/// Channels of the mask as it gets smaller, each step by half.
const STEPS: [i64; 5] = [1, 4, 16, 64, DIM];
/// Side of the fuser's depthwise kernels.
const KERNEL: i64 = 7;
const BLOCKS: usize = 2;

/// A mask at the input's size to the image embedding's: four halvings and a last convolution. Keys `encoder.N`.
#[derive(Debug)]
pub struct MaskDownSampler {
    halvings: Vec<(Conv2d, LayerNorm2d)>,
    last: Conv2d,
}

impl MaskDownSampler {
    fn new(w: &Weights<'_>) -> Result<Self, WeightsError> {
        let w = w.pp("encoder");
        let halving = |(i, channels): (usize, &[i64])| {
            // Each step is a convolution, a norm and an activation.
            let (conv, norm) = (w.pp(3 * i), w.pp(3 * i + 1));
            let conv =
                Conv2d::new(&conv, [channels[0], channels[1]], /* kernel */ 3, /* stride */ 2, 1)?;
            Ok((conv, LayerNorm2d::new(&norm, channels[1])?))
        };
        Ok(Self {
            halvings: STEPS.windows(2).enumerate().map(halving).collect::<Result<_, WeightsError>>()?,
            last: Conv2d::new(
                &w.pp(3 * (STEPS.len() - 1)),
                [DIM, DIM],
                /* kernel */ 1,
                /* stride */ 1,
                0,
            )?,
        })
    }

    /// `[B, 1, 16h, 16w]` to `[B, 256, h, w]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, masks: &Tensor) -> Result<Tensor, TchError> {
        let mut x = masks.shallow_clone();
        for (conv, norm) in &self.halvings {
            x = Activation::Gelu.apply(norm.forward(&conv.forward(&x)?)?)?;
        }
        self.last.forward(&x)
    }
}

/// ConvNeXt's block: a depthwise convolution, then two linear layers on every cell. Keys `dwconv`, `norm`, `pwconv1`, `pwconv2`,
/// `gamma`.
#[derive(Debug)]
struct CxBlock {
    dwconv: Conv2d,
    norm: LayerNorm2d,
    pwconv1: Linear,
    pwconv2: Linear,
    gamma: Tensor,
}

impl CxBlock {
    fn new(w: &Weights<'_>) -> Result<Self, WeightsError> {
        Ok(Self {
            dwconv: Conv2d::depthwise(&w.pp("dwconv"), DIM, KERNEL)?,
            norm: LayerNorm2d::new(&w.pp("norm"), DIM)?,
            pwconv1: Linear::new(&w.pp("pwconv1"), DIM, 4 * DIM)?,
            pwconv2: Linear::new(&w.pp("pwconv2"), 4 * DIM, DIM)?,
            gamma: w.get("gamma", &[DIM])?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor, TchError> {
        let y = self.norm.forward(&self.dwconv.forward(&x)?)?.f_permute([0, 2, 3, 1])?;
        let y = self.pwconv2.forward(&Activation::Gelu.apply(self.pwconv1.forward(&y)?)?)?;
        add_to(x, &y.f_mul(&self.gamma)?.f_permute([0, 3, 1, 2])?)
    }
}

/// Keys `mask_downsampler`, `pix_feat_proj`, `fuser.layers.N`, `out_proj`.
#[derive(Debug)]
pub struct MemoryEncoder {
    mask_downsampler: MaskDownSampler,
    pix_feat_proj: Conv2d,
    fuser: Vec<CxBlock>,
    out_proj: Conv2d,
}

impl MemoryEncoder {
    /// Reads the network.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>) -> Result<Self, WeightsError> {
        let cells =
            |name, channels| Conv2d::new(&w.pp(name), channels, /* kernel */ 1, /* stride */ 1, 0);
        let layers = w.pp("fuser").pp("layers");
        Ok(Self {
            mask_downsampler: MaskDownSampler::new(&w.pp("mask_downsampler"))?,
            pix_feat_proj: cells("pix_feat_proj", [DIM, DIM])?,
            fuser: (0..BLOCKS).map(|i| CxBlock::new(&layers.pp(i))).collect::<Result<_, _>>()?,
            out_proj: cells("out_proj", [DIM, MEMORY_DIM])?,
        })
    }

    /// The mask's part alone.
    pub fn mask_downsampler(&self) -> &MaskDownSampler {
        &self.mask_downsampler
    }

    /// The neck's level 2 of a frame, `[1, 256, h, w]`, and `B` masks on it, `[B, 1, 16h, 16w]` with values from -10 (outside) to 10,
    /// to `[B, 64, h, w]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, top: &Tensor, masks: &Tensor) -> Result<Tensor, TchError> {
        let picture = self.pix_feat_proj.forward(top)?;
        let mut x = add_to(self.mask_downsampler.forward(masks)?, &picture)?;
        for block in &self.fuser {
            x = block.forward(x)?;
        }
        self.out_proj.forward(&x)
    }
}
