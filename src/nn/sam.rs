//! A network of either generation, as whoever segments sees it: a picture to features, prompts to embeddings, both to masks.

use tch::{TchError, Tensor};

use super::mask_decoder::{Decoded, MaskDecoder, MaskSelection};
use super::ppn::{PpnConfig, PpnForm};
use super::prompt_encoder::PromptEncoder;
use super::sam1::{Sam1, Sam1Config, Sam1EncoderConfig, Sam1Features};
use super::sam2::{Sam2, Sam2Features};
#[cfg(doc)]
use super::tail::LastBlocks;
use crate::weights::{Family, Weights, WeightsError};

/// Side of SAM 2's input that its published weights were trained at.
const SAM2_INPUT_SIZE: i64 = 1024;
/// What sides TinyViT and SAM 2's encoder take: multiples of this.
const MULTIPLE: i64 = super::hiera::STRIDE;

/// SAM, MobileSAM, MedSAM, LiteMedSAM or SAM 2.
#[derive(Debug)]
pub enum Sam {
    /// The first generation and its relatives.
    One(Box<Sam1>),
    /// SAM 2 and 2.1, on single pictures.
    Two {
        /// The network.
        net: Box<Sam2>,
        /// Side of its input in pixels.
        input_size: i64,
    },
}

/// What an encoder knows of a picture.
#[derive(Debug)]
pub struct SamFeatures {
    /// The image embedding as the decoder takes it, `[1, 256, h, w]`.
    pub embedding: Tensor,
    /// `[1, 32, 4h, 4w]` and `[1, 64, 2h, 2w]`, of decoders that add them.
    pub high_res: Option<(Tensor, Tensor)>,
    /// Outputs of the last two blocks `[1, C, h, w]`, the last one last; of the first generation, where asked for.
    pub levels: Option<[Tensor; 2]>,
    /// With them, of encoders that have it: features from before most of the attention, `[1, C, h, w]`.
    pub early: Option<Tensor>,
    /// What the encoder's last blocks get, `[1, C, h, w]`, where asked for: [`Sam::finish`] goes on from there.
    pub cut: Option<Tensor>,
}

impl Sam {
    /// Reads the network of `family` for an input of `input_size` pixels a side; `None` is the family's own size. What else
    /// lies in the weights is the caller's to judge, see [`Weights::finish`].
    ///
    /// # Errors
    /// Keys or shapes that do not fit, a size that the family cannot take.
    pub fn new(w: &Weights<'_>, family: Family, input_size: Option<i64>) -> Result<Self, WeightsError> {
        if let Some(asked) = input_size {
            Self::takes(family, asked).map_err(TchError::Shape)?;
        }
        let Some(mut config) = Sam1Config::of(family) else {
            let input_size = input_size.unwrap_or(SAM2_INPUT_SIZE);
            return Ok(Self::Two { net: Box::new(Sam2::new(w, family, input_size)?), input_size });
        };
        if let (Sam1EncoderConfig::TinyVit(encoder), Some(asked)) = (&mut config.encoder, input_size) {
            encoder.img_size = asked;
        }
        // Sam2Rad adds SAM 2's object score to the decoders of the first generation.
        config.mask_decoder.object_score = w.shape("mask_decoder.obj_score_token.weight").is_some();
        Ok(Self::One(Box::new(Sam1::new(w, &config)?)))
    }

    /// Whether the network of `family` can take an input of `side` pixels a side.
    ///
    /// # Errors
    /// What it takes instead.
    pub fn takes(family: Family, side: i64) -> Result<(), String> {
        match Sam1Config::of(family).and_then(|config| config.only_side()) {
            Some(own) if side == own => Ok(()),
            Some(own) => {
                Err(format!("{family} takes {own} pixels a side and no other size, asked for were {side}"))
            }
            None if side > 0 && side % MULTIPLE == 0 => Ok(()),
            None => {
                Err(format!("{family} takes a multiple of {MULTIPLE} pixels a side, asked for were {side}"))
            }
        }
    }

    /// Side of the square input in pixels.
    pub fn input_size(&self) -> i64 {
        match self {
            Self::One(net) => net.input_size() as i64,
            Self::Two { input_size, .. } => *input_size,
        }
    }

    /// Side of the image embedding in cells.
    pub fn grid(&self) -> i64 {
        let [h, w] = self.prompt_encoder().image_embedding_size();
        h.min(w)
    }

    /// SAM 2 itself, for whoever follows objects through a video.
    pub fn sam2(&self) -> Option<&Sam2> {
        match self {
            Self::One(_) => None,
            Self::Two { net, .. } => Some(net),
        }
    }

    /// Prompts to embeddings.
    pub fn prompt_encoder(&self) -> &PromptEncoder {
        match self {
            Self::One(net) => &net.prompt_encoder,
            Self::Two { net, .. } => &net.sam_prompt_encoder,
        }
    }

    fn mask_decoder(&self) -> &MaskDecoder {
        match self {
            Self::One(net) => &net.mask_decoder,
            Self::Two { net, .. } => &net.sam_mask_decoder,
        }
    }

    /// A preprocessed picture `[1, 3, S, S]` to its features; with `levels` also those that only a prompt predictor of the
    /// first generation looks at, with `blocks` also what so many of the encoder's last blocks get, if [`LastBlocks`] allows so many.
    ///
    /// # Errors
    /// libtorch's.
    pub fn encode(&self, x: &Tensor, levels: bool, blocks: Option<usize>) -> Result<SamFeatures, TchError> {
        Ok(match (self, blocks) {
            (Self::One(net), _) if levels || blocks.is_some() => {
                SamFeatures::of_one(net.image_encoder.features(x, blocks)?, levels)
            }
            (Self::One(net), _) => SamFeatures {
                embedding: net.image_encoder.forward(x)?,
                high_res: None,
                levels: None,
                early: None,
                cut: None,
            },
            (Self::Two { net, .. }, None) => SamFeatures::from(&net.encode_image(x)?),
            (Self::Two { net, .. }, Some(blocks)) => {
                let (features, cut) = net.encode_to(x, blocks)?;
                SamFeatures { cut: Some(cut), ..SamFeatures::from(&features) }
            }
        })
    }

    /// Runs the encoder's last `blocks` blocks anew on what they got when `features` were made: what comes before them is as it was.
    ///
    /// # Errors
    /// Features of which that was not kept; else libtorch's.
    pub fn finish(&self, features: &SamFeatures, blocks: usize) -> Result<SamFeatures, TchError> {
        let Some(cut) = &features.cut else {
            return Err(TchError::Shape("what the encoder's last blocks got was not kept".into()));
        };
        let kept = |part: &Option<Tensor>| part.as_ref().map(Tensor::shallow_clone);
        Ok(match self {
            Self::One(net) => {
                let found = net.image_encoder.finish(cut, blocks)?;
                let early = kept(&features.early);
                SamFeatures { early, ..SamFeatures::of_one(found, features.levels.is_some()) }
            }
            Self::Two { net, .. } => SamFeatures {
                embedding: net.finish(cut, blocks)?,
                high_res: features.high_res.as_ref().map(|(a, b)| (a.shallow_clone(), b.shallow_clone())),
                levels: None,
                early: None,
                cut: None,
            },
        })
    }

    /// Masks for `B` prompts on one picture; see [`MaskDecoder::forward`].
    ///
    /// # Errors
    /// libtorch's.
    pub fn decode(
        &self,
        features: &SamFeatures,
        sparse: &Tensor,
        dense: &Tensor,
        selection: MaskSelection,
    ) -> Result<Decoded, TchError> {
        let high_res = features.high_res.as_ref().map(|(s0, s1)| (s0, s1));
        let pe = self.prompt_encoder().get_dense_pe();
        self.mask_decoder().forward(&features.embedding, pe, sparse, dense, high_res, selection)
    }

    /// The prompt predictor of the `form` that Sam2Rad defines for this network.
    pub fn ppn_config(&self, form: PpnForm, dataset: &str, classes: Vec<String>, tokens: i64) -> PpnConfig {
        if form == PpnForm::Pyramid {
            let early = match self {
                Self::One(net) => net.early_channels(),
                Self::Two { .. } => None,
            };
            return PpnConfig::pyramid(self.ppn_config(PpnForm::HighRes, dataset, classes, tokens), early);
        }
        let config = match (form, self) {
            (PpnForm::SingleScale, _) => PpnConfig::single_scale(dataset, classes),
            (_, Self::Two { .. }) => PpnConfig::sam2_high_res(dataset, classes),
            (_, Self::One(net)) => PpnConfig::sam_high_res(dataset, classes, net.level_channels()),
        };
        PpnConfig { tokens, ..config }
    }
}

impl From<&Sam2Features> for SamFeatures {
    /// Of a single picture: without memory. The same tensors, not copies.
    fn from(features: &Sam2Features) -> Self {
        let (s0, s1) = &features.high_res;
        Self {
            embedding: features.embedding.shallow_clone(),
            high_res: Some((s0.shallow_clone(), s1.shallow_clone())),
            levels: None,
            early: None,
            cut: None,
        }
    }
}

impl SamFeatures {
    /// Of the first generation. `levels`: with what only a predictor looks at.
    fn of_one(features: Sam1Features, levels: bool) -> Self {
        Self {
            embedding: features.embedding,
            high_res: None,
            levels: levels.then_some(features.levels),
            early: features.early.filter(|_| levels),
            cut: features.cut,
        }
    }

    /// The levels that a prompt predictor of this `form` looks at, from coarse to fine, the embedding first; a pyramid's early
    /// features are the last.
    ///
    /// # Errors
    /// Levels that were not asked for when the picture was encoded.
    pub fn for_ppn(&self, form: PpnForm) -> Result<Vec<&Tensor>, TchError> {
        match (form, &self.high_res, &self.levels) {
            (PpnForm::SingleScale, ..) => Ok(vec![&self.embedding]),
            (_, Some((s0, s1)), _) => Ok(vec![&self.embedding, s1, s0]),
            (PpnForm::Pyramid, None, Some([before, last])) => {
                Ok([&self.embedding, last, before].into_iter().chain(&self.early).collect())
            }
            (_, None, Some([before, last])) => Ok(vec![&self.embedding, last, before]),
            (_, None, None) => {
                Err(TchError::Shape("the picture was encoded without the blocks' outputs".into()))
            }
        }
    }
}
