//! What SAM 2 remembers of a frame, and how it looks at what it remembers.
//!
//! Source: `_encode_new_memory` and `_prepare_memory_conditioned_features` in `modeling/sam2_base.py` of SAM 2.

use tch::{Kind, TchError, Tensor};

use super::common::{Conv2d, Mlp};
use super::linear::Linear;
use super::memory_attention::{MEMORY_DIM, Memories, MemoryAttention};
use super::memory_encoder::MemoryEncoder;
use super::position_encoding::{sine_grid, sine_of_time};
use super::sam2::{DIM, EMBEDDING_STRIDE};
use crate::weights::{Family, Weights, WeightsError};

/// Tokens that an object pointer is split into.
const POINTER_TOKENS: i64 = DIM / MEMORY_DIM;
/// How many frames a memory can lie back that nobody prompted.
pub const RECENT_FRAMES: usize = 6;
/// Ages that a memory can have: frames that somebody prompted have the last, whenever they were.
const AGES: i64 = RECENT_FRAMES as i64 + 1;
/// Mask values that are remembered: probability times the first plus the second.
const MASK_SCALE: (f64, f64) = (20.0, -10.0);

/// One frame that is remembered.
#[derive(Debug)]
pub struct Remembered<'a> {
    /// Of each object, `[B, 64, h, w]`.
    pub features: &'a Tensor,
    /// Frames since then, 1 to 6; `None` for a frame that somebody prompted.
    pub age: Option<usize>,
}

/// An object pointer that is remembered.
#[derive(Debug)]
pub struct RememberedPointer<'a> {
    /// Of each object, `[B, 256]`.
    pub pointer: &'a Tensor,
    /// Frames since then over the longest time that is looked back, see [`Sam2Memory::recall`].
    pub ago: f64,
}

/// The parts of SAM 2 that only videos need, under the checkpoint's own names.
#[derive(Debug)]
pub struct Sam2Memory {
    /// A frame looks at what is remembered.
    pub memory_attention: MemoryAttention,
    /// A frame and a mask to what is remembered.
    pub memory_encoder: MemoryEncoder,
    /// One row an age, `[7, 1, 64]`.
    maskmem_tpos_enc: Tensor,
    /// Pointer of an object that is not there, `[1, 256]`.
    no_obj_ptr: Tensor,
    /// Added to what is remembered where the object is not there, `[1, 64, 1, 1]`; SAM 2.1 alone.
    no_obj_embed_spatial: Option<Tensor>,
    mask_downsample: Conv2d,
    obj_ptr_proj: Mlp,
    /// Time to the width of memories; SAM 2.1 alone.
    obj_ptr_tpos_proj: Option<Linear>,
    /// Position encoding of a remembered frame's cells, `[1, h w, 64]`.
    places: Tensor,
}

impl Sam2Memory {
    /// Reads the network of `family` for square pictures with `input_side` pixels a side, as [`Sam2::new`](super::Sam2::new).
    ///
    /// # Errors
    /// A family that is not SAM 2, keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, family: Family, input_side: i64) -> Result<Self, WeightsError> {
        if !family.is_sam2() {
            return Err(TchError::Shape(format!("{family} is not of SAM 2 and has no memory")).into());
        }
        let grid = [input_side / EMBEDDING_STRIDE; 2];
        let newer = family.is_sam21();
        let no_obj_embed_spatial = || {
            let embed = w.get("no_obj_embed_spatial", &[1, MEMORY_DIM])?;
            Ok::<_, WeightsError>(embed.f_reshape([1, MEMORY_DIM, 1, 1])?)
        };
        let tpos_proj = || Linear::new(&w.pp("obj_ptr_tpos_proj"), DIM, MEMORY_DIM);
        let tpos = w.get("maskmem_tpos_enc", &[AGES, 1, 1, MEMORY_DIM])?;
        Ok(Self {
            memory_attention: MemoryAttention::new(&w.pp("memory_attention"), grid)?,
            memory_encoder: MemoryEncoder::new(&w.pp("memory_encoder"))?,
            maskmem_tpos_enc: tpos.f_reshape([AGES, 1, MEMORY_DIM])?,
            no_obj_ptr: w.get("no_obj_ptr", &[1, DIM])?,
            no_obj_embed_spatial: newer.then(no_obj_embed_spatial).transpose()?,
            mask_downsample: Conv2d::new(
                &w.pp("mask_downsample"),
                [1, 1],
                /* kernel */ 4,
                /* stride */ 4,
                /* padding */ 0,
            )?,
            obj_ptr_proj: Mlp::new(&w.pp("obj_ptr_proj"), &[DIM, DIM, DIM, DIM])?,
            obj_ptr_tpos_proj: newer.then(tpos_proj).transpose()?,
            places: sine_grid(MEMORY_DIM, grid, w.device())?
                .f_flatten(2, -1)?
                .f_transpose(1, 2)?
                .f_contiguous()?,
        })
    }

    /// The decoder's token of the chosen mask `[B, 256]` to the object's pointer. `present` `[B, 1]` says whether there is one.
    ///
    /// # Errors
    /// libtorch's.
    pub fn pointer(&self, token: &Tensor, present: &Tensor) -> Result<Tensor, TchError> {
        let pointer = self.obj_ptr_proj.forward(token)?.f_to_kind(Kind::Float)?;
        self.pointer_if(&pointer, present)
    }

    /// `pointer` `[B, 256]` where there is an object, else the one of there being none.
    ///
    /// # Errors
    /// libtorch's.
    pub fn pointer_if(&self, pointer: &Tensor, present: &Tensor) -> Result<Tensor, TchError> {
        pointer.f_where_self(present, &self.no_obj_ptr)
    }

    /// A mask prompt of the input's size, 0 or 1, `[B, 1, S, S]` to the one that the prompt encoder takes, a quarter of the side.
    ///
    /// # Errors
    /// libtorch's.
    pub fn mask_prompt(&self, mask: &Tensor) -> Result<Tensor, TchError> {
        self.mask_downsample.forward(mask)?.f_to_kind(Kind::Float)
    }

    /// What is remembered of a frame with the neck's level 2 `top` `[1, 256, h, w]` and the logits `[B, 1, 4h, 4w]` of `B` objects, of
    /// which `present` `[B, 1]` are there: `[B, 64, h, w]`. Of a frame that was `prompted` the outlines are remembered, of
    /// others how certain they are.
    ///
    /// # Errors
    /// libtorch's.
    pub fn remember(
        &self,
        top: &Tensor,
        logits: &Tensor,
        present: &Tensor,
        prompted: bool,
    ) -> Result<Tensor, TchError> {
        let (b, _, h, w) = logits.size4()?;
        let logits = logits.f_upsample_bilinear2d([4 * h, 4 * w], false, None, None)?;
        let mask = if prompted { logits.f_gt(0.0)?.f_to_kind(Kind::Float)? } else { logits.f_sigmoid()? };
        let (scale, offset) = MASK_SCALE;
        let features = self.memory_encoder.forward(top, &mask.f_mul_scalar(scale)?.f_add_scalar(offset)?)?;
        let Some(absent) = &self.no_obj_embed_spatial else { return Ok(features) };
        let absent = absent.f_where_scalarother(&present.f_logical_not()?.f_reshape([b, 1, 1, 1])?, 0.0)?;
        features.f_add(&absent)
    }

    /// What is remembered, as the memory attention takes it: frames, then pointers.
    ///
    /// # Errors
    /// Nothing to remember, an age that no memory has, libtorch's.
    pub fn recall(
        &self,
        frames: &[Remembered<'_>],
        pointers: &[RememberedPointer<'_>],
    ) -> Result<Memories, TchError> {
        let mut values = Vec::with_capacity(frames.len() + 1);
        let mut positions = Vec::with_capacity(frames.len() + 1);
        for frame in frames {
            let row = match frame.age {
                None => AGES - 1,
                Some(age) if (1..=RECENT_FRAMES).contains(&age) => age as i64 - 1,
                Some(age) => {
                    return Err(TchError::Shape(format!(
                        "a memory of {age} frames ago: expected 1 to {RECENT_FRAMES}"
                    )));
                }
            };
            let features = frame.features.f_to_kind(Kind::Float)?;
            values.push(features.f_flatten(2, -1)?.f_transpose(1, 2)?);
            positions.push(self.places.f_add(&self.maskmem_tpos_enc.f_narrow(0, row, 1)?)?);
        }
        if !pointers.is_empty() {
            let all: Vec<_> = pointers.iter().map(|p| p.pointer).collect();
            let tokens = Tensor::f_stack(&all, 1)?;
            let (b, n, _) = tokens.size3()?;
            values.push(tokens.f_reshape([b, n * POINTER_TOKENS, MEMORY_DIM])?);
            let ago: Vec<f32> = pointers.iter().map(|p| p.ago as f32).collect();
            let time = self.time(&ago)?.f_repeat_interleave_self_int(POINTER_TOKENS, 0, None)?;
            positions.push(time.f_unsqueeze(0)?);
        }
        Ok(Memories {
            values: Tensor::f_cat(&values, 1)?,
            positions: Tensor::f_cat(&positions, 1)?,
            pointer_tokens: pointers.len() as i64 * POINTER_TOKENS,
        })
    }

    /// Encodings of how long ago pointers are, `[n, 64]`: zeros in SAM 2.0.
    ///
    /// # Errors
    /// libtorch's.
    pub fn time(&self, ago: &[f32]) -> Result<Tensor, TchError> {
        let device = self.places.device();
        match &self.obj_ptr_tpos_proj {
            Some(proj) => proj.forward(&sine_of_time(ago, DIM, device)?)?.f_to_kind(Kind::Float),
            None => Tensor::f_zeros([ago.len() as i64, MEMORY_DIM], (Kind::Float, device)),
        }
    }
}
