//! SAM 2 and 2.1 on single pictures: image encoder, prompt encoder, mask decoder.
//!
//! Source: `modeling/sam2_base.py` and `sam2_image_predictor.py` of SAM 2.

use tch::{Device, Kind, TchError, Tensor};

use super::fpn_neck::FpnNeck;
use super::hiera::{Hiera, HieraConfig};
use super::mask_decoder::{MaskDecoder, MaskDecoderConfig};
use super::prompt_encoder::PromptEncoder;
use crate::weights::{Family, Weights, WeightsError};

/// Width of the neck, of the prompts and of the decoder.
pub(super) const DIM: i64 = 256;
/// From pixels to the cells of the image embedding.
pub(super) const EMBEDDING_STRIDE: i64 = 16;

/// What only the memory of a video needs.
const MEMORY_KEYS: [&str; 9] = [
    "memory_attention",
    "memory_encoder",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "mask_downsample",
    "obj_ptr_proj",
    "obj_ptr_tpos_proj",
];

/// Trunk and neck. Keys `trunk`, `neck`; `adapters` where Sam2Rad trained some.
#[derive(Debug)]
pub struct Sam2ImageEncoder {
    /// Four maps from a picture.
    pub trunk: Hiera,
    /// Three levels of one width from the maps.
    pub neck: FpnNeck,
}

/// What the encoder knows of a picture. The side of the grids is that of the input over their stride.
#[derive(Debug)]
pub struct Sam2Features {
    /// The neck's level 2, `[B, 256, h, w]` at stride 16, as the memory of a video takes it.
    pub top: Tensor,
    /// `top` as the decoder takes it when there is no memory: with `no_mem_embed` added.
    pub embedding: Tensor,
    /// Levels 0 and 1 as the decoder adds them: `[B, 32, 4h, 4w]` and `[B, 64, 2h, 2w]`.
    pub high_res: (Tensor, Tensor),
}

/// The parts of SAM 2 that single pictures need, under the checkpoint's own names.
#[derive(Debug)]
pub struct Sam2 {
    /// Trunk and neck.
    pub image_encoder: Sam2ImageEncoder,
    /// Prompts to embeddings.
    pub sam_prompt_encoder: PromptEncoder,
    /// Embeddings to logits, four times the image embedding's side.
    pub sam_mask_decoder: MaskDecoder,
    /// `[1, 256, 1, 1]`.
    no_mem_embed: Tensor,
}

impl Sam2 {
    /// Reads the network for square pictures with `input_side` pixels a side; 1024 is what the published weights were trained
    /// at, 512 what MedSAM2's were. Keys of the video memory are skipped; the caller ends the reading, as other parts may
    /// lie in the same file.
    ///
    /// # Errors
    /// A family that is not SAM 2, a side that is not a multiple of 32, keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, family: Family, input_side: i64) -> Result<Self, WeightsError> {
        let config = HieraConfig::of(family)
            .ok_or_else(|| TchError::Shape(format!("{family} is not of SAM 2 and has no Hiera trunk")))?;
        for key in MEMORY_KEYS {
            w.skip(key);
        }
        let encoder = w.pp("image_encoder");
        // A CPU decodes in `f32`: its products are too small to gain by anything less, and logits then lie closer to the
        // reference's (`benches/results/official.md`).
        let decoder = w.pp("sam_mask_decoder");
        let decoder = if w.device() == Device::Cpu { decoder.computing_in(Kind::Float) } else { decoder };
        let grid = input_side / EMBEDDING_STRIDE;
        Ok(Self {
            image_encoder: Sam2ImageEncoder {
                trunk: Hiera::new(&encoder.pp("trunk"), &config, input_side)?
                    .with_adapters(&encoder, &config)?,
                neck: FpnNeck::new(&encoder.pp("neck"), DIM, config.channels())?,
            },
            sam_prompt_encoder: PromptEncoder::new(
                &w.pp("sam_prompt_encoder"),
                DIM,
                [grid; 2],
                [input_side; 2],
                /* mask_in_chans */ 16,
            )?,
            sam_mask_decoder: MaskDecoder::new(&decoder, &MaskDecoderConfig::SAM2)?,
            no_mem_embed: w.get("no_mem_embed", &[1, 1, DIM])?.f_reshape([1, DIM, 1, 1])?,
        })
    }

    /// A normalised picture `[B, 3, S, S]` to its features.
    ///
    /// # Errors
    /// libtorch's.
    pub fn encode_image(&self, x: &Tensor) -> Result<Sam2Features, TchError> {
        let maps = self.image_encoder.trunk.forward(x)?;
        self.features(self.image_encoder.neck.forward(&maps)?)
    }

    /// The same, and what the last `blocks` blocks of the trunk got, `[B, C, h, w]`; see [`Sam2::finish`].
    ///
    /// # Errors
    /// libtorch's.
    pub fn encode_to(&self, x: &Tensor, blocks: usize) -> Result<(Sam2Features, Tensor), TchError> {
        let trunk = &self.image_encoder.trunk;
        // The patches are shown first, and are no block's output.
        let (mut shown, wanted) = (0, trunk.depth().saturating_sub(blocks));
        let mut cut = None;
        let maps = trunk.forward_traced(x, |output| {
            if shown == wanted && shown > 0 {
                cut = Some(output.shallow_clone());
            }
            shown += 1;
        })?;
        let cut =
            cut.ok_or_else(|| TchError::Shape("a trunk cannot be cut before its first block".into()))?;
        Ok((self.features(self.image_encoder.neck.forward(&maps)?)?, cut.f_permute([0, 3, 1, 2])?))
    }

    /// The last `blocks` blocks on what they get, to the embedding as the decoder takes it, `[B, 256, h, w]`. They must lie in the
    /// last two stages: the finer levels are those of the stages before.
    ///
    /// # Errors
    /// Other blocks; else libtorch's.
    pub fn finish(&self, cut: &Tensor, blocks: usize) -> Result<Tensor, TchError> {
        let Sam2ImageEncoder { trunk, neck } = &self.image_encoder;
        let maps = trunk.finish(cut, trunk.depth().saturating_sub(blocks))?;
        let top = match &maps[..] {
            [map, coarsest] => neck.top(map, coarsest)?,
            // Cut where the last stage begins: its input is the map of the stage before.
            [coarsest] => neck.top(cut, coarsest)?,
            _ => return Err(TchError::Shape("only blocks of the last two stages can be run alone".into())),
        };
        top.f_add(&self.no_mem_embed)
    }

    /// The neck's levels 0 to 2 to what decoder and memory take.
    ///
    /// # Errors
    /// libtorch's.
    pub fn features(&self, [level0, level1, top]: [Tensor; 3]) -> Result<Sam2Features, TchError> {
        Ok(Sam2Features {
            high_res: self.sam_mask_decoder.high_res_features(&level0, &level1)?,
            embedding: top.f_add(&self.no_mem_embed)?,
            top,
        })
    }
}
