//! SAM and the networks that differ from it in the encoder or in the weights only: MedSAM, MobileSAM, LiteMedSAM.

use tch::{TchError, Tensor};

use super::encoder_step::EncoderStep;
use super::mask_decoder::{MaskDecoder, MaskDecoderConfig};
use super::prompt_encoder::PromptEncoder;
use super::tiny_vit::{TinyVit, TinyVitConfig};
use super::vit::{ImageEncoderVit, VitConfig};
use crate::weights::{Family, Weights, WeightsError};

/// Which image encoder a network has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sam1EncoderConfig {
    /// SAM's own.
    Vit(VitConfig),
    /// The distilled one.
    TinyVit(TinyVitConfig),
}

/// Dimensions of a network of the SAM 1 kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sam1Config {
    /// Image encoder.
    pub encoder: Sam1EncoderConfig,
    /// Mask decoder; Sam2Rad gives SAM's an object score.
    pub mask_decoder: MaskDecoderConfig,
}

impl Sam1Config {
    /// The published network of a family, if it is of this kind.
    pub fn of(family: Family) -> Option<Self> {
        use Sam1EncoderConfig::{TinyVit, Vit};
        let encoder = match family {
            Family::LiteMedSam => TinyVit(TinyVitConfig::lite_medsam()),
            Family::MobileSam => TinyVit(TinyVitConfig::mobile_sam()),
            Family::SamVitB | Family::MedSam => Vit(VitConfig::base()),
            Family::SamVitL => Vit(VitConfig::large()),
            Family::SamVitH => Vit(VitConfig::huge()),
            _ => return None,
        };
        Some(Self { encoder, mask_decoder: MaskDecoderConfig::SAM })
    }

    /// Side of the square input in pixels.
    pub fn input_size(&self) -> i64 {
        match &self.encoder {
            Sam1EncoderConfig::Vit(config) => config.img_size,
            Sam1EncoderConfig::TinyVit(config) => config.img_size,
        }
    }

    /// Side of the only input that the network can take; `None` where there are others than its own.
    pub fn only_side(&self) -> Option<i64> {
        match &self.encoder {
            Sam1EncoderConfig::Vit(config) => Some(config.img_size),
            Sam1EncoderConfig::TinyVit(_) => None,
        }
    }

    /// Side of the image embedding; logits and mask prompts have four times as much.
    pub fn embedding_size(&self) -> i64 {
        match &self.encoder {
            Sam1EncoderConfig::Vit(config) => config.embedding_size(),
            Sam1EncoderConfig::TinyVit(config) => config.embedding_size(),
        }
    }

    /// Channels of the two [`Sam1Features::levels`]: with the embedding's what Sam2Rad calls channel dimensions.
    pub fn level_channels(&self) -> i64 {
        match &self.encoder {
            Sam1EncoderConfig::Vit(config) => config.embed_dim,
            Sam1EncoderConfig::TinyVit(config) => config.embed_dims[3],
        }
    }

    /// Channels of [`Sam1Features::early`], of encoders that have it.
    pub fn early_channels(&self) -> Option<i64> {
        match &self.encoder {
            Sam1EncoderConfig::Vit(_) => None,
            Sam1EncoderConfig::TinyVit(config) => Some(config.embed_dims[2]),
        }
    }
}

/// An image encoder of either kind.
#[derive(Debug)]
pub enum Sam1Encoder {
    /// SAM's own.
    Vit(Box<ImageEncoderVit>),
    /// The distilled one.
    TinyVit(Box<TinyVit>),
}

/// What a prompt predictor gets to see of a picture.
#[derive(Debug)]
pub struct Sam1Features {
    /// The image embedding, `[B, 256, h, w]`: 64 x 64 cells of an input of the network's own side.
    pub embedding: Tensor,
    /// Outputs of the last two blocks, the last one last, `[B, C, h, w]` each.
    pub levels: [Tensor; 2],
    /// What TinyViT's third layer gets, `[B, C, h, w]`: texture that the layers behind it have forgotten.
    pub early: Option<Tensor>,
    /// What the blocks get that [`Sam1Encoder::finish`] is to run, where asked for, `[B, C, h, w]`.
    pub cut: Option<Tensor>,
}

impl Sam1Encoder {
    /// Reads the encoder.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, config: &Sam1EncoderConfig) -> Result<Self, WeightsError> {
        Ok(match config {
            Sam1EncoderConfig::Vit(config) => Self::Vit(Box::new(ImageEncoderVit::new(w, config)?)),
            Sam1EncoderConfig::TinyVit(config) => Self::TinyVit(Box::new(TinyVit::new(w, config)?)),
        })
    }

    /// A normalised picture `[B, 3, S, S]` to its embedding `[B, 256, h, w]`.
    ///
    /// # Errors
    /// A picture of another size; else libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.trace(x, |_, _| ())
    }

    /// The same, showing `visit` what each step gives, `[B, C, h, w]`.
    ///
    /// # Errors
    /// As [`Sam1Encoder::forward`].
    pub fn trace(&self, x: &Tensor, visit: impl FnMut(EncoderStep, &Tensor)) -> Result<Tensor, TchError> {
        match self {
            Self::Vit(encoder) => encoder.trace(x, visit),
            Self::TinyVit(encoder) => encoder.trace(x, visit),
        }
    }

    /// The embedding with outputs of the layers before it; `blocks` are the last blocks whose input is wanted too.
    ///
    /// # Errors
    /// As [`Sam1Encoder::forward`].
    pub fn features(&self, x: &Tensor, blocks: Option<usize>) -> Result<Sam1Features, TchError> {
        let wanted = blocks.map(|blocks| self.depth().saturating_sub(blocks));
        let (mut last, mut early, mut cut) = ([None, None], None, None);
        let mut attended = 0;
        let embedding = self.trace(x, |step, output| {
            match step {
                EncoderStep::Block { layer, .. } => {
                    last = [last[1].take(), Some(output.shallow_clone())];
                    attended += usize::from(self.attends(layer));
                }
                EncoderStep::Downsample { layer: 1 } => early = Some(output.shallow_clone()),
                _ => {}
            }
            // The last that is shown before the block is what it gets.
            if wanted == Some(attended) && !matches!(step, EncoderStep::Neck) {
                cut = Some(output.shallow_clone());
            }
        })?;
        let [Some(first), Some(second)] = last else {
            return Err(TchError::Shape("the encoder has fewer than two blocks".into()));
        };
        Ok(Sam1Features { embedding, levels: [first, second], early, cut })
    }

    /// The last `blocks` blocks with attention and the neck, on what the first of them gets. Early features are not among the
    /// answers: they are those of the layers before.
    ///
    /// # Errors
    /// libtorch's.
    pub fn finish(&self, cut: &Tensor, blocks: usize) -> Result<Sam1Features, TchError> {
        let first = self.depth().saturating_sub(blocks);
        let mut last = [None, Some(cut.shallow_clone())];
        let visit = |step, output: &Tensor| {
            if matches!(step, EncoderStep::Block { .. }) {
                last = [last[1].take(), Some(output.shallow_clone())];
            }
        };
        let embedding = match self {
            Self::Vit(encoder) => encoder.finish(cut, first, visit),
            Self::TinyVit(encoder) => encoder.finish(cut, first, visit),
        }?;
        let [Some(first), Some(second)] = last else {
            return Err(TchError::Shape("no block was to be run".into()));
        };
        Ok(Sam1Features { embedding, levels: [first, second], early: None, cut: None })
    }

    /// Blocks with attention.
    fn depth(&self) -> usize {
        match self {
            Self::Vit(encoder) => encoder.depth(),
            Self::TinyVit(encoder) => encoder.depth(),
        }
    }

    /// TinyViT's first layer is of convolutions.
    fn attends(&self, layer: usize) -> bool {
        matches!(self, Self::Vit(_)) || layer > 0
    }
}

/// The three parts, under the checkpoint's own names.
#[derive(Debug)]
pub struct Sam1 {
    /// Picture to embedding.
    pub image_encoder: Sam1Encoder,
    /// Prompts to embeddings.
    pub prompt_encoder: PromptEncoder,
    /// Embeddings to logits.
    pub mask_decoder: MaskDecoder,
    input_size: usize,
    level_channels: i64,
    early_channels: Option<i64>,
}

impl Sam1 {
    /// Reads the network. What else the weights hold is the caller's to judge, see [`Weights::finish`].
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, config: &Sam1Config) -> Result<Self, WeightsError> {
        let (input, grid) = (config.input_size(), config.embedding_size());
        Ok(Self {
            image_encoder: Sam1Encoder::new(&w.pp("image_encoder"), &config.encoder)?,
            prompt_encoder: PromptEncoder::new(
                &w.pp("prompt_encoder"),
                config.mask_decoder.dim,
                [grid; 2],
                [input; 2],
                /* mask_in_chans */ 16,
            )?,
            mask_decoder: MaskDecoder::new(&w.pp("mask_decoder"), &config.mask_decoder)?,
            input_size: usize::try_from(input).unwrap_or(0),
            level_channels: config.level_channels(),
            early_channels: config.early_channels(),
        })
    }

    /// Channels of the two [`Sam1Features::levels`].
    pub fn level_channels(&self) -> i64 {
        self.level_channels
    }

    /// Channels of [`Sam1Features::early`], of encoders that have it.
    pub fn early_channels(&self) -> Option<i64> {
        self.early_channels
    }

    /// Side of the square input in pixels.
    pub fn input_size(&self) -> usize {
        self.input_size
    }
}
