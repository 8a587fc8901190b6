//! The neck of SAM 2's image encoder: every stage of the trunk to one width.
//!
//! Source: `modeling/backbones/image_encoder.py` of SAM 2.

use tch::{Kind, TchError, Tensor};

use super::common::{Conv2d, add_to};
use crate::weights::{Weights, WeightsError};

/// One 1x1 convolution a level. Keys `convs.N.conv`, the coarsest level first.
#[derive(Debug)]
pub struct FpnNeck {
    /// From fine to coarse.
    convs: [Conv2d; 4],
}

impl FpnNeck {
    /// Reads the neck; `channels` are the trunk's, from fine to coarse, `d_model` is the width of all outputs.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, d_model: i64, channels: [i64; 4]) -> Result<Self, WeightsError> {
        let conv = |level: usize| {
            let w = w.pp("convs").pp(3 - level).pp("conv");
            Conv2d::new(
                &w,
                [channels[level], d_model],
                /* kernel */ 1,
                /* stride */ 1,
                /* padding */ 0,
            )
        };
        Ok(Self { convs: [conv(0)?, conv(1)?, conv(2)?, conv(3)?] })
    }

    /// The trunk's four maps to levels 0, 1 and 2, `[B, d_model, H, W]` at strides 4, 8 and 16. Level 2 has taken in the coarsest
    /// map, which is no output of its own; levels 0 and 1 take in nothing.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, maps: &[Tensor; 4]) -> Result<[Tensor; 3], TchError> {
        let [fine0, fine1, fine2, coarsest] = maps;
        let top = self.top(fine2, coarsest)?;
        Ok([self.convs[0].forward(fine0)?, self.convs[1].forward(fine1)?, top])
    }

    /// Level 2 alone, from the trunk's maps of strides 16 and 32.
    ///
    /// # Errors
    /// libtorch's.
    pub fn top(&self, map: &Tensor, coarsest: &Tensor) -> Result<Tensor, TchError> {
        // A sum stays in `f32`, whatever the layers compute in.
        let level2 = self.convs[2].forward(map)?.f_to_kind(Kind::Float)?;
        let (_, _, h, w) = level2.size4()?;
        let coarsest = self.convs[3].forward(coarsest)?.f_upsample_nearest2d([h, w], None, None)?;
        add_to(level2, &coarsest)
    }
}
