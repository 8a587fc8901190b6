//! SAM's mask decoder, as in SAM, SAM 2 and the mixtures of them that Sam2Rad trains.

use tch::{Kind, TchError, Tensor};

use super::common::{Activation, Conv2d, ConvTranspose2d, LayerNorm2d, Mlp, MlpKeys, add_to};
use super::transformer::TwoWayTransformer;
use crate::weights::{Weights, WeightsError};

/// Mask tokens: one for a single answer, three for alternatives.
const MASK_TOKENS: i64 = 4;
/// A mask is stable if few pixels lie between these two thresholds around zero ...
const STABILITY_DELTA: f64 = 0.05;
/// ... which is when the areas above them agree at least so well. Both are what the official builder of SAM 2 sets.
const STABILITY_THRESHOLD: f64 = 0.98;

/// The name of a tensor within the mask decoder of the network that it belongs to. SAM 2's lies in `sam_mask_decoder`.
pub fn in_mask_decoder(name: &str) -> Option<&str> {
    name.strip_prefix("sam_").unwrap_or(name).strip_prefix("mask_decoder.")
}

/// Whether the tensor `name` of a network is of what says whether there is an object.
pub fn scores_presence(name: &str) -> bool {
    in_mask_decoder(name)
        .is_some_and(|part| part.starts_with("obj_score_token.") || part.starts_with("pred_obj_score_head."))
}

/// What a mask decoder consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskDecoderConfig {
    /// Width of embeddings and tokens.
    pub dim: i64,
    /// A token and a head that say whether there is an object at all.
    pub object_score: bool,
    /// Features of stride 4 and 8 are added while upscaling.
    pub high_res: bool,
    /// Predicted IoU goes through a sigmoid.
    pub iou_sigmoid: bool,
    /// What the layers in the transformer's MLPs are called.
    pub mlp_keys: MlpKeys,
}

impl MaskDecoderConfig {
    /// SAM, MobileSAM, MedSAM, LiteMedSAM.
    pub const SAM: Self =
        Self { dim: 256, object_score: false, high_res: false, iou_sigmoid: false, mlp_keys: MlpKeys::Lin };
    /// SAM 2 and SAM 2.1.
    pub const SAM2: Self =
        Self { dim: 256, object_score: true, high_res: true, iou_sigmoid: true, mlp_keys: MlpKeys::Layers };
}

/// Which of the four masks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskSelection {
    /// All four.
    All,
    /// The single answer, mask 0; what the others need is not computed.
    Single,
    /// The three alternatives, masks 1 to 3.
    Multiple,
    /// Mask 0 where it is stable, else the alternative with the highest predicted IoU: "dynamic multimask via stability" in
    /// SAM 2, and what its image predictor does for a single answer.
    Stable,
}

/// What a decoder answers for `B` prompts with `M` masks each.
#[derive(Debug)]
pub struct Decoded {
    /// Logits, `[B, M, 4h, 4w]`.
    pub masks: Tensor,
    /// Predicted IoU, `[B, M]`.
    pub iou: Tensor,
    /// Logit of there being an object, `[B, 1]`, of decoders that tell it.
    pub object_score: Option<Tensor>,
    /// Output tokens of the masks, `[B, M, C]`. With [`MaskSelection::Stable`] always mask 0's, as in the reference.
    pub mask_tokens: Tensor,
}

impl Decoded {
    /// The share of pixels above 0.05 among those above -0.05, per mask, `[B, M]`; 1 where there are none.
    ///
    /// # Errors
    /// libtorch's.
    pub fn stability(&self) -> Result<Tensor, TchError> {
        let logits = self.masks.f_flatten(2, -1)?;
        let area = |threshold: f64| logits.f_gt(threshold)?.f_sum_dim_intlist(-1, false, Kind::Float);
        let union = area(-STABILITY_DELTA)?;
        let ratio = area(STABILITY_DELTA)?.f_div(&union.f_clamp_min(1.0)?)?;
        ratio.f_where_scalarother(&union.f_gt(0.0)?, 1.0)
    }

    /// Reduces an answer with all four masks to the selected ones.
    ///
    /// # Errors
    /// libtorch's, as when there are not four masks.
    pub fn select(self, selection: MaskSelection) -> Result<Self, TchError> {
        let narrow = |first: i64, n: i64| -> Result<Self, TchError> {
            Ok(Self {
                masks: self.masks.f_narrow(1, first, n)?,
                iou: self.iou.f_narrow(1, first, n)?,
                object_score: self.object_score.as_ref().map(Tensor::shallow_clone),
                mask_tokens: self.mask_tokens.f_narrow(1, first, n)?,
            })
        };
        match selection {
            MaskSelection::All => Ok(self),
            MaskSelection::Single => narrow(0, 1),
            MaskSelection::Multiple => narrow(1, MASK_TOKENS - 1),
            MaskSelection::Stable => {
                let (single, others) = (narrow(0, 1)?, narrow(1, MASK_TOKENS - 1)?);
                let best = others.iou.f_argmax(1, true)?;
                let (b, _, h, w) = others.masks.size4()?;
                let best_pixels = best.f_reshape([b, 1, 1, 1])?.f_expand([b, 1, h, w], false)?;
                let stable = single.stability()?.f_ge(STABILITY_THRESHOLD)?;
                Ok(Self {
                    masks: single.masks.f_where_self(
                        &stable.f_reshape([b, 1, 1, 1])?,
                        &others.masks.f_gather(1, &best_pixels, false)?,
                    )?,
                    iou: single.iou.f_where_self(&stable, &others.iou.f_gather(1, &best, false)?)?,
                    ..single
                })
            }
        }
    }
}

/// The embedding to four times its size and an eighth of its width. Keys `0`, `1`, `3`.
#[derive(Debug)]
pub struct OutputUpscaling {
    dc1: ConvTranspose2d,
    ln1: LayerNorm2d,
    dc2: ConvTranspose2d,
}

impl OutputUpscaling {
    /// Reads the layers.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            dc1: ConvTranspose2d::new(&w.pp(0), [dim, dim / 4], 2)?,
            ln1: LayerNorm2d::new(&w.pp(1), dim / 4)?,
            dc2: ConvTranspose2d::new(&w.pp(3), [dim / 4, dim / 8], 2)?,
        })
    }

    /// `[B, C, h, w]` to `[B, C / 8, 4h, 4w]`. `high_res` is added after the two enlargements: `[1 or B, C / 8, 4h, 4w]` and
    /// `[1 or B, C / 4, 2h, 2w]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor, high_res: Option<(&Tensor, &Tensor)>) -> Result<Tensor, TchError> {
        let mut x = self.dc1.forward(x)?;
        if let Some((_, s1)) = high_res {
            x = add_to(x, s1)?;
        }
        let mut x = self.dc2.forward(&Activation::Gelu.apply(self.ln1.forward(&x)?)?)?;
        if let Some((s0, _)) = high_res {
            x = add_to(x, s0)?;
        }
        Activation::Gelu.apply(x)
    }
}

/// The layers that bring the neck's levels 0 and 1 to the widths that upscaling adds them at.
#[derive(Debug)]
struct HighRes {
    conv_s0: Conv2d,
    conv_s1: Conv2d,
}

/// The token and the head of the object score.
#[derive(Debug)]
struct ObjectScore {
    obj_score_token: Tensor,
    pred_obj_score_head: Mlp,
}

/// Image and prompt embeddings to mask logits and predicted IoU.
#[derive(Debug)]
pub struct MaskDecoder {
    transformer: TwoWayTransformer,
    iou_token: Tensor,
    mask_tokens: Tensor,
    output_upscaling: OutputUpscaling,
    output_hypernetworks_mlps: Vec<Mlp>,
    iou_prediction_head: Mlp,
    object_score: Option<ObjectScore>,
    high_res: Option<HighRes>,
    iou_sigmoid: bool,
}

impl MaskDecoder {
    /// Reads a decoder: two transformer blocks, eight heads, 2048 hidden, heads of three layers.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, config: &MaskDecoderConfig) -> Result<Self, WeightsError> {
        let dim = config.dim;
        let mlps = w.pp("output_hypernetworks_mlps");
        let object_score = || {
            Ok::<_, WeightsError>(ObjectScore {
                obj_score_token: w.pp("obj_score_token").get("weight", &[1, dim])?,
                pred_obj_score_head: Mlp::new(&w.pp("pred_obj_score_head"), &[dim, dim, dim, 1])?,
            })
        };
        let high_res = || {
            let conv = |name, out| {
                Conv2d::new(
                    &w.pp(name),
                    [dim, out],
                    /* kernel */ 1,
                    /* stride */ 1,
                    /* padding */ 0,
                )
            };
            Ok::<_, WeightsError>(HighRes {
                conv_s0: conv("conv_s0", dim / 8)?,
                conv_s1: conv("conv_s1", dim / 4)?,
            })
        };
        Ok(Self {
            transformer: TwoWayTransformer::new(
                &w.pp("transformer"),
                /* depth */ 2,
                dim,
                /* heads */ 8,
                2048,
                config.mlp_keys,
            )?,
            iou_token: w.pp("iou_token").get("weight", &[1, dim])?,
            mask_tokens: w.pp("mask_tokens").get("weight", &[MASK_TOKENS, dim])?,
            output_upscaling: OutputUpscaling::new(&w.pp("output_upscaling"), dim)?,
            output_hypernetworks_mlps: (0..MASK_TOKENS)
                .map(|i| Mlp::new(&mlps.pp(i), &[dim, dim, dim, dim / 8]))
                .collect::<Result<_, _>>()?,
            iou_prediction_head: Mlp::new(&w.pp("iou_prediction_head"), &[dim, dim, dim, MASK_TOKENS])?,
            object_score: config.object_score.then(object_score).transpose()?,
            high_res: config.high_res.then(high_res).transpose()?,
            iou_sigmoid: config.iou_sigmoid,
        })
    }

    /// The two-way transformer alone.
    pub fn transformer(&self) -> &TwoWayTransformer {
        &self.transformer
    }

    /// The tokens put before the prompts', `[T, C]`: object score (of decoders that tell it), IoU, masks 0 to 3.
    ///
    /// # Errors
    /// libtorch's.
    pub fn output_tokens(&self) -> Result<Tensor, TchError> {
        match &self.object_score {
            Some(o) => Tensor::f_cat(&[&o.obj_score_token, &self.iou_token, &self.mask_tokens], 0),
            None => Tensor::f_cat(&[&self.iou_token, &self.mask_tokens], 0),
        }
    }

    /// The neck's levels 0 `[B, C, 4h, 4w]` and 1 `[B, C, 2h, 2w]` to what [`MaskDecoder::forward`] takes as `high_res`. Done once
    /// a picture, however many prompts there are.
    ///
    /// # Errors
    /// libtorch's, and for a decoder without such features.
    pub fn high_res_features(&self, level0: &Tensor, level1: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        let Some(layers) = &self.high_res else {
            return Err(TchError::Shape("this mask decoder takes no high-resolution features".into()));
        };
        Ok((layers.conv_s0.forward(level0)?, layers.conv_s1.forward(level1)?))
    }

    /// `image_embeddings` and `dense` `[1 or B, C, h, w]`, `image_pe` `[1, C, h, w]`, `sparse` `[B, N, C]`; `high_res` as
    /// [`MaskDecoder::high_res_features`] gives it, for decoders that have it and no others.
    ///
    /// What is equal for all prompts (batch 1, or a batch that was only expanded) is not repeated: the first layer's
    /// projections of the image are then computed once.
    ///
    /// # Errors
    /// libtorch's, and high-resolution features that are missing or not wanted.
    pub fn forward(
        &self,
        image_embeddings: &Tensor,
        image_pe: &Tensor,
        sparse: &Tensor,
        dense: &Tensor,
        high_res: Option<(&Tensor, &Tensor)>,
        selection: MaskSelection,
    ) -> Result<Decoded, TchError> {
        if high_res.is_some() != self.high_res.is_some() {
            let need = if self.high_res.is_some() { "needs" } else { "takes no" };
            return Err(TchError::Shape(format!("this mask decoder {need} high-resolution features")));
        }
        let b = sparse.size3()?.0;
        let output_tokens = self.output_tokens()?.f_unsqueeze(0)?.f_expand([b, -1, -1], false)?;
        let tokens = Tensor::f_cat(&[&output_tokens, sparse], 1)?;
        let src = once(image_embeddings)?.f_add(&once(dense)?)?;
        let (_, c, h, w) = src.size4()?;

        let (hs, src) = self.transformer.forward(&src, image_pe, &tokens)?;
        let src = src.f_transpose(1, 2)?.f_reshape([b, c, h, w])?;
        let upscaled = self.output_upscaling.forward(&src, high_res)?;

        let token = |i: i64| hs.f_select(1, i);
        let iou_at = i64::from(self.object_score.is_some());
        // Mask 0 needs no other's; everything else chooses among all four.
        let (count, rest) = match selection {
            MaskSelection::Single => (1, MaskSelection::All),
            other => (MASK_TOKENS, other),
        };
        let mut hyper_in = Vec::new();
        for (mlp, i) in self.output_hypernetworks_mlps.iter().zip(0..count) {
            hyper_in.push(mlp.forward(&token(iou_at + 1 + i)?)?);
        }
        // Logits and scores are sums of small differences: in `f32`, whatever the layers compute in.
        let hyper_in = Tensor::f_stack(&hyper_in, 1)?.f_to_kind(Kind::Float)?;
        let upscaled = upscaled.f_to_kind(Kind::Float)?;
        let (b, c, h, w) = upscaled.size4()?;
        let iou = self
            .iou_prediction_head
            .forward(&token(iou_at)?)?
            .f_narrow(1, 0, count)?
            .f_to_kind(Kind::Float)?;
        let score = |o: &ObjectScore| o.pred_obj_score_head.forward(&token(0)?)?.f_to_kind(Kind::Float);
        Decoded {
            masks: hyper_in.f_bmm(&upscaled.f_reshape([b, c, h * w])?)?.f_reshape([b, count, h, w])?,
            iou: if self.iou_sigmoid { iou.f_sigmoid()? } else { iou },
            object_score: self.object_score.as_ref().map(score).transpose()?,
            mask_tokens: hs.f_narrow(1, iou_at + 1, count)?,
        }
        .select(rest)
    }
}

/// The first of a batch that was only expanded, else the batch itself.
fn once(x: &Tensor) -> Result<Tensor, TchError> {
    match (x.size().first(), x.stride().first()) {
        (Some(2..), Some(0)) => x.f_narrow(0, 0, 1),
        _ => Ok(x.shallow_clone()),
    }
}
