//! The prompt predictor network of Sam2Rad (<https://arxiv.org/abs/2409.06821>, section 3.1.1): learned queries of a class look
//! at the image and become the prompts that SAM's mask decoder gets, without anybody clicking.
//!
//! The arithmetic is the paper's, its order is not: attention projects a handful of tokens into the image's space instead
//! of a whole image into the tokens' (see [`attention`]), and what does not depend on the class is computed once.

mod attention;
mod block;
mod config;
mod heads;
mod level;
mod positions;
mod pyramid;

pub use config::{PpnConfig, PpnForm, learnable_prompts};
pub use heads::{BoxRegressionHead, MaskClassifier};

use tch::{Kind, TchError, Tensor};

use self::attention::HEADS;
use self::block::Block;
use self::heads::boxes_around;
use self::level::{Dense, Level};
use self::positions::Positions;
use self::pyramid::Pyramid;
use super::common::Conv2d;
use super::prompt_encoder::PromptEncoder;
use crate::weights::{Weights, WeightsError};

/// Width of queries and embeddings.
const DIM: i64 = 256;

/// Image cells times classes that are worked on at once; a picture of high resolution and many classes takes turns. Four
/// classes at 256 x 256 cells, which is 256 MiB for each of the few tensors of that size.
const CELLS_AT_ONCE: i64 = 4 * 256 * 256;

/// Prompts for `B` images and `K` classes; the first dimension is `B K`, the class running fastest.
#[derive(Debug)]
pub struct Prediction {
    /// Sparse embeddings `[B K, N, C]`: two corners of the box, then the queries from the third on.
    pub sparse: Tensor,
    /// Dense embeddings `[B K, C, h, w]` of the interim mask.
    pub dense: Tensor,
    /// Logits of a first mask `[B K, 1, 4h, 4w]`, which training compares with the truth.
    pub interim_mask: Tensor,
    /// Boxes `[B K, 4]`: `x0, y0, x1, y1` as fractions of the input. The far corner may lie outside, as in the reference.
    pub boxes: Tensor,
}

/// The prompt predictor. The prompt encoder it speaks through is the network's own and passed in, so that there is one.
#[derive(Debug)]
pub struct PromptPredictor {
    learnable_prompts: Tensor,
    /// Over all levels, where the form has it; then there is one block, on the embedding.
    pyramid: Option<Pyramid>,
    /// Empty for the levels that are as wide as the queries.
    channel_adapters: Vec<Option<Conv2d>>,
    layers: Vec<Block>,
    /// None where boxes are taken from the masks.
    box_regression_head: Option<BoxRegressionHead>,
    mask_classifier: MaskClassifier,
    positions: Positions,
}

impl PromptPredictor {
    /// Reads the network and the queries of the configuration's data set. A stored `pos_encoding1d` is passed over, it is computed.
    ///
    /// All is in `f32`, as its products with the whole picture are sums of many terms, but what a [`MaskClassifier`] has in the view's kind.
    ///
    /// # Errors
    /// Keys or shapes that do not fit, a configuration without levels or with fewer than two queries a class.
    pub fn new(w: &Weights<'_>, config: &PpnConfig) -> Result<Self, WeightsError> {
        config.check()?;
        let masks = w.pp("mask_classifier");
        let w = &w.clone().computing_in(Kind::Float);
        let shape = [config.classes.len() as i64, config.tokens, DIM];
        let learnable_prompts = w.pp("learnable_prompts").get(&config.dataset, &shape)?;
        w.skip("pos_encoding1d");
        let (adapters, layers) = (w.pp("channel_adapters"), w.pp("layers"));
        let adapter = |(i, &width): (usize, &i64)| {
            (width != DIM).then(|| Conv2d::new(&adapters.pp(i), [width, DIM], 1, 1, 0)).transpose()
        };
        let (blocks, pyramid) = match config.form {
            PpnForm::SingleScale | PpnForm::HighRes => (&config.channel_dims[..], None),
            PpnForm::Pyramid => {
                let inputs = config.channel_dims.iter().sum();
                (&config.channel_dims[..1], Some(Pyramid::new(&w.pp("pyramid"), inputs, DIM)?))
            }
        };
        Ok(Self {
            learnable_prompts,
            pyramid,
            channel_adapters: blocks.iter().enumerate().map(adapter).collect::<Result<_, _>>()?,
            layers: (0..blocks.len())
                .map(|i| Block::new(&layers.pp(i), DIM, /* skip pe */ i == 0))
                .collect::<Result<_, _>>()?,
            box_regression_head: match config.form {
                PpnForm::SingleScale | PpnForm::HighRes => {
                    Some(BoxRegressionHead::new(&w.pp("box_regression_head"), DIM)?)
                }
                PpnForm::Pyramid => None,
            },
            mask_classifier: MaskClassifier::new(&masks, DIM, config.mask_scale_factor)?,
            positions: Positions::default(),
        })
    }

    /// The learned queries of every class, `[K, N, C]`, in the order of the configuration's classes.
    pub fn learnable_prompts(&self) -> &Tensor {
        &self.learnable_prompts
    }

    /// Puts other queries `[K, N, C]` in their place.
    pub fn set_learnable_prompts(&mut self, queries: Tensor) {
        self.learnable_prompts = queries;
    }

    /// `features`: one per level from coarse to fine, the image embedding `[B, C, h, w]` first, then `[B, width, H, W]` with sides that are
    /// multiples of the level before. `queries` `[K, N, C]`: those of the classes to look for. `train` turns dropout on.
    ///
    /// # Errors
    /// libtorch's, and features that are not as the configuration says.
    pub fn forward(
        &self,
        features: &[&Tensor],
        queries: &Tensor,
        prompt_encoder: &PromptEncoder,
        train: bool,
    ) -> Result<Prediction, TchError> {
        let (levels, first_masks) = match &self.pyramid {
            Some(pyramid) => {
                let Some(embedding) = features.first() else {
                    return Err(TchError::Shape("a prompt predictor needs an image embedding".into()));
                };
                let seen = pyramid.forward(features, train)?;
                let levels = self.levels(&[&seen.cells.f_add(embedding)?], prompt_encoder)?;
                (levels, Some(pyramid.masks(&seen, queries)?))
            }
            None => (self.levels(features, prompt_encoder)?, None),
        };
        let Some(finest) = levels.last() else {
            return Err(TchError::Shape("a prompt predictor needs an image embedding".into()));
        };
        let images = finest.images();
        let (classes, _, _) = queries.size3()?;
        let at_once = (CELLS_AT_ONCE / finest.cells().max(1)).max(1);
        let (queries, masks) = if images * classes <= at_once {
            self.attend(&levels, queries, train)?
        } else {
            let mut parts = (Vec::new(), Vec::new());
            for image in 0..images {
                let levels = levels.iter().map(|l| l.image(image)).collect::<Result<Vec<_>, _>>()?;
                for first in (0..classes).step_by(usize::try_from(at_once).unwrap_or(1)) {
                    let some = queries.f_narrow(0, first, at_once.min(classes - first))?;
                    let (tokens, masks) = self.attend(&levels, &some, train)?;
                    parts.0.push(tokens);
                    parts.1.push(masks);
                }
            }
            (Tensor::f_cat(&parts.0, 0)?, Tensor::f_cat(&parts.1, 0)?)
        };
        let masks = match first_masks {
            Some(first) => masks.f_add(&first)?,
            None => masks,
        };
        let boxes = match &self.box_regression_head {
            Some(head) => head.forward(&queries)?,
            None => boxes_around(&masks)?,
        };
        let [side, _] = prompt_encoder.input_image_size();
        let in_pixels = boxes.f_mul_scalar(side)?;
        let (corners, dense) = prompt_encoder.forward(None, Some(&in_pixels), Some(&masks))?;
        let tokens = queries.size3()?.1;
        let sparse = Tensor::f_cat(&[&corners, &queries.f_narrow(1, 2, tokens - 2)?], 1)?;
        Ok(Prediction { sparse, dense, interim_mask: masks, boxes })
    }

    /// Logits of the masks that the pyramid alone makes, `[B K, 1, 4h, 4w]`; of the form that has one. Training begins with them,
    /// as they cost a tenth of the whole.
    ///
    /// # Errors
    /// libtorch's, and for another form.
    pub fn first_masks(
        &self,
        features: &[&Tensor],
        queries: &Tensor,
        train: bool,
    ) -> Result<Tensor, TchError> {
        let Some(pyramid) = &self.pyramid else {
            return Err(TchError::Shape("this form of the prompt predictor has no pyramid".into()));
        };
        pyramid.masks(&pyramid.forward(features, train)?, queries)
    }

    /// The image's side of every layer: what all classes share.
    fn levels(&self, features: &[&Tensor], prompt_encoder: &PromptEncoder) -> Result<Vec<Level>, TchError> {
        if features.len() != self.layers.len() {
            let (need, got) = (self.layers.len(), features.len());
            return Err(TchError::Shape(format!("the prompt predictor has {need} levels, got {got}")));
        }
        // The dense prompt of the first layer is "no mask", one value a channel: a bias of the embedding.
        let (_, no_mask) = prompt_encoder.forward(None, None, None)?;
        let no_mask = no_mask.f_select(3, 0)?.f_select(2, 0)?.f_reshape([-1])?;
        let mut levels: Vec<Level> = Vec::with_capacity(features.len());
        for (features, adapter) in features.iter().zip(&self.channel_adapters) {
            let bias = levels.is_empty().then_some(&no_mask);
            levels.push(Level::new(features, adapter.as_ref(), bias, &self.positions)?);
        }
        Ok(levels)
    }

    /// Updated queries `[B K, N, C]` and interim masks.
    fn attend(&self, levels: &[Level], queries: &Tensor, train: bool) -> Result<(Tensor, Tensor), TchError> {
        let (classes, tokens, dim) = queries.size3()?;
        let images = levels.first().map_or(0, Level::images);
        let query_pe = self.positions.tokens(tokens, dim, queries)?;
        let mut queries = queries
            .f_unsqueeze(0)?
            .f_expand([images, classes, tokens, dim], false)?
            .f_reshape([images * classes, tokens, dim])?;
        let mut dense: Option<Dense> = None;
        for (layer, level) in self.layers.iter().zip(levels) {
            let (q, d) = layer.forward(&queries, &query_pe, level, dense.as_ref())?;
            queries = q;
            dense = Some(d);
        }
        let Some(dense) = dense else {
            return Err(TchError::Shape("a prompt predictor needs a layer".into()));
        };
        let masks = self.mask_classifier.forward(&dense.picture()?, train)?;
        Ok((queries, masks))
    }
}
