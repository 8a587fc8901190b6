//! Hiera, the image trunk of SAM 2: four stages of attention in windows, some blocks over all, each stage at half the
//! resolution and twice the width of the one before.
//!
//! Inside, activations are `[B, H, W, C]`; what leaves is the same memory seen as `[B, C, H, W]`.
//!
//! Sources: Hiera (<https://arxiv.org/abs/2306.00989>), SAM 2 (<https://arxiv.org/abs/2408.00714>) and its
//! `modeling/backbones/hieradet.py`.

mod attention;
mod block;

use tch::{TchError, Tensor};

use super::adapter::Adapters;
use super::common::{Conv2d, add_to};
use crate::weights::{Family, Weights, WeightsError};
use block::{BlockConfig, MultiScaleBlock};

/// Side of the learned positions inside a window, which are repeated over the picture.
const WINDOW_POSITIONS: i64 = 8;
/// From pixels to the first stage's cells.
const PATCH_STRIDE: i64 = 4;
/// The deepest stage's stride; windows of positions fit the same sides.
pub(super) const STRIDE: i64 = 32;

/// Dimensions of a Hiera trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HieraConfig {
    /// Channels of the first stage; each next one has twice as many.
    pub embed_dim: i64,
    /// Heads of the first stage; each next one has twice as many.
    pub num_heads: i64,
    /// Blocks per stage.
    pub stages: [usize; 4],
    /// Blocks that attend over all, counted through the trunk.
    pub global_att_blocks: [usize; 3],
    /// Side of the attention windows per stage. A stage's first block still has the stage's before.
    pub window_spec: [i64; 4],
    /// Side of the learned positions that are enlarged to the picture.
    pub window_pos_embed_bkg_spatial_size: i64,
}

impl HieraConfig {
    /// The trunk of a family, if it is one of SAM 2 or 2.1; the two versions have the same trunks.
    pub fn of(family: Family) -> Option<Self> {
        let tiny = Self {
            embed_dim: 96,
            num_heads: 1,
            stages: [1, 2, 7, 2],
            global_att_blocks: [5, 7, 9],
            window_spec: [8, 4, 14, 7],
            window_pos_embed_bkg_spatial_size: 7,
        };
        match family {
            Family::Sam2HieraTiny | Family::Sam21HieraTiny => Some(tiny),
            Family::Sam2HieraSmall | Family::Sam21HieraSmall => {
                Some(Self { stages: [1, 2, 11, 2], global_att_blocks: [7, 10, 13], ..tiny })
            }
            Family::Sam2HieraBasePlus | Family::Sam21HieraBasePlus => Some(Self {
                embed_dim: 112,
                num_heads: 2,
                stages: [2, 3, 16, 3],
                global_att_blocks: [12, 16, 20],
                window_pos_embed_bkg_spatial_size: 14,
                ..tiny
            }),
            Family::Sam2HieraLarge | Family::Sam21HieraLarge => Some(Self {
                embed_dim: 144,
                num_heads: 2,
                stages: [2, 6, 36, 4],
                global_att_blocks: [23, 33, 43],
                window_spec: [8, 4, 16, 8],
                ..tiny
            }),
            _ => None,
        }
    }

    /// Channels of each stage's output.
    pub fn channels(&self) -> [i64; 4] {
        [0, 1, 2, 3].map(|stage| self.embed_dim << stage)
    }

    /// Every block, with the stage that it belongs to.
    fn blocks(&self) -> Vec<(usize, BlockConfig)> {
        let channels = self.channels();
        let stages = (0..4usize).flat_map(|stage| (0..self.stages[stage]).map(move |i| (stage, i == 0)));
        let block = |(at, (stage, first)): (usize, (usize, bool))| {
            let enters = first && stage > 0;
            let before = if enters { stage - 1 } else { stage };
            let config = BlockConfig {
                dim: channels[before],
                dim_out: channels[stage],
                num_heads: self.num_heads << stage,
                q_pool: enters,
                window: (!self.global_att_blocks.contains(&at)).then_some(self.window_spec[before]),
            };
            (stage, config)
        };
        stages.enumerate().map(block).collect()
    }
}

/// One block and whether its output is the stage's.
#[derive(Debug)]
struct Step {
    block: MultiScaleBlock,
    ends_stage: bool,
}

/// `[B, 3, S, S]` to four maps of strides 4, 8, 16 and 32. Keys `patch_embed.proj`, `pos_embed`, `pos_embed_window`, `blocks.N`.
#[derive(Debug)]
pub struct Hiera {
    patch_embed: Conv2d,
    /// `[1, S / 4, S / 4, C]`.
    positions: Tensor,
    steps: Vec<Step>,
    adapters: Option<Adapters>,
}

impl Hiera {
    /// Reads the trunk for square pictures with `input_side` pixels a side, for which its positions are made.
    ///
    /// # Errors
    /// A side that is not a multiple of 32; keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, config: &HieraConfig, input_side: i64) -> Result<Self, WeightsError> {
        if input_side <= 0 || input_side % STRIDE != 0 {
            let error = format!("the input side of SAM 2 must be a multiple of {STRIDE}, not {input_side}");
            return Err(TchError::Shape(error).into());
        }
        let dim = config.embed_dim;
        let blocks = config.blocks();
        let ends = |at: usize| blocks.get(at + 1).is_none_or(|next| next.0 != blocks[at].0);
        let steps = blocks.iter().enumerate().map(|(at, (_, block))| {
            let block = MultiScaleBlock::new(&w.pp("blocks").pp(at), block)?;
            Ok(Step { block, ends_stage: ends(at) })
        });
        Ok(Self {
            patch_embed: Conv2d::new(
                &w.pp("patch_embed").pp("proj"),
                [3, dim],
                /* kernel */ 7,
                PATCH_STRIDE,
                /* padding */ 3,
            )?,
            positions: positions(w, config, input_side / PATCH_STRIDE)?,
            steps: steps.collect::<Result<_, WeightsError>>()?,
            adapters: None,
        })
    }

    /// The trunk with the adapters that lie beside it in `w`, the image encoder, if it has any; see [`Adapters`].
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn with_adapters(self, w: &Weights<'_>, config: &HieraConfig) -> Result<Self, WeightsError> {
        let widths: Vec<i64> = config.blocks().iter().map(|(_, block)| block.dim).collect();
        Ok(Self { adapters: Adapters::new(w, &widths)?, ..self })
    }

    /// Positions added to the patches, `[1, S / 4, S / 4, C]`.
    pub fn positions(&self) -> &Tensor {
        &self.positions
    }

    /// A normalised picture `[B, 3, S, S]` to the output of each stage, `[B, C, H, W]` from fine to coarse.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<[Tensor; 4], TchError> {
        self.forward_traced(x, |_| ())
    }

    /// The same, showing `visit` the patches before their positions and then the output of every block, all `[B, H, W, C]`.
    /// The patches may change when `visit` has returned.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward_traced(
        &self,
        x: &Tensor,
        mut visit: impl FnMut(&Tensor),
    ) -> Result<[Tensor; 4], TchError> {
        // The large kernel runs more than twice as fast on channels that lie innermost, and so do linear layers.
        let x = x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?;
        let patches = self.patch_embed.forward(&x)?.f_permute([0, 2, 3, 1])?.f_contiguous()?;
        visit(&patches);
        let outputs = self.attend(add_to(patches, &self.positions)?, 0, visit)?;
        outputs.try_into().map_err(|_| TchError::Shape("a Hiera trunk has four stages".into()))
    }

    /// Blocks.
    pub fn depth(&self) -> usize {
        self.steps.len()
    }

    /// From what the block `first` gets, `[B, C, h, w]`, to the outputs of the stages that end behind it, as [`Hiera::forward`] gives them.
    ///
    /// # Errors
    /// libtorch's.
    pub fn finish(&self, x: &Tensor, first: usize) -> Result<Vec<Tensor>, TchError> {
        self.attend(x.f_permute([0, 2, 3, 1])?.f_contiguous()?, first, |_| ())
    }

    /// The blocks from `first` on, `x` is `[B, h, w, C]`: outputs of the stages that they end.
    fn attend(
        &self,
        mut x: Tensor,
        first: usize,
        mut visit: impl FnMut(&Tensor),
    ) -> Result<Vec<Tensor>, TchError> {
        let mut outputs = Vec::with_capacity(4);
        for (at, step) in self.steps.iter().enumerate().skip(first) {
            if let Some(adapters) = &self.adapters {
                x = adapters.apply(at, &x)?;
            }
            x = step.block.forward(&x)?;
            visit(&x);
            if step.ends_stage {
                outputs.push(x.f_permute([0, 3, 1, 2])?);
            }
        }
        Ok(outputs)
    }
}

/// Coarse positions enlarged to `side` cells, and a window's positions repeated: `[1, side, side, C]`.
fn positions(w: &Weights<'_>, config: &HieraConfig, side: i64) -> Result<Tensor, WeightsError> {
    let (dim, coarse) = (config.embed_dim, config.window_pos_embed_bkg_spatial_size);
    let pos_embed = w.get("pos_embed", &[1, dim, coarse, coarse])?;
    let window = w.get("pos_embed_window", &[1, dim, WINDOW_POSITIONS, WINDOW_POSITIONS])?;
    let times = side / WINDOW_POSITIONS;
    let sum = pos_embed
        .f_upsample_bicubic2d([side, side], /* align corners */ false, None, None)?
        .f_add(&window.f_repeat([1, 1, times, times])?)?;
    Ok(sum.f_permute([0, 2, 3, 1])?.f_contiguous()?)
}
