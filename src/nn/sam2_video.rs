//! SAM 2 on the frames of a video: one step for objects whose memories are alike.
//!
//! Source: `_forward_sam_heads` and `_use_mask_as_output` in `modeling/sam2_base.py` of SAM 2.

use tch::{Kind, TchError, Tensor};

use super::mask_decoder::{Decoded, MaskSelection};
use super::sam2::Sam2;
use super::sam2_memory::Sam2Memory;

/// Logit of every cell of an object that is not there.
const NO_OBJECT: f64 = -1024.0;
/// Logit of a pixel that is certainly inside; its negative is certainly outside. SAM 2 takes these for masks that did not come
/// from a decoder (`_use_mask_as_output`), and for their objects' scores.
pub const CERTAIN: f64 = 10.0;

/// What is said of `B` objects, as embeddings or as what makes them.
#[derive(Debug, Default)]
pub struct VideoPrompt {
    /// Coordinates `[B, N, 2]` in pixels of the input and labels `[B, N]`, boxes as two points with labels 2 and 3; `None`: nothing
    /// is said of where they are.
    pub points: Option<(Tensor, Tensor)>,
    /// Logits `[B, 1, 4h, 4w]`.
    pub mask: Option<Tensor>,
}

/// What is known of `B` objects on a frame.
#[derive(Debug)]
pub struct Tracked {
    /// Logits `[B, 1, 4h, 4w]`, -1024 everywhere where there is no object.
    pub logits: Tensor,
    /// Predicted IoU of the masks, `[B]`; of a mask that somebody drew 1.
    pub iou: Tensor,
    /// Logit of the object being there, `[B, 1]`.
    pub object_score: Tensor,
    /// For the frames to come, `[B, 256]`.
    pub pointer: Tensor,
}

impl Tracked {
    /// Object `i` alone.
    ///
    /// # Errors
    /// libtorch's, as where there are fewer objects.
    pub fn object(&self, i: usize) -> Result<Self, TchError> {
        let one = |t: &Tensor| t.f_narrow(0, i as i64, 1);
        Ok(Self {
            logits: one(&self.logits)?,
            iou: one(&self.iou)?,
            object_score: one(&self.object_score)?,
            pointer: one(&self.pointer)?,
        })
    }
}

/// Finds objects on a frame. `embedding` `[1 or B, 256, h, w]` is the picture's, with or without what is remembered; `prompt` is of
/// `B` objects. Of at most one point the network makes three masks, and the one that it thinks best is taken.
///
/// # Errors
/// libtorch's.
pub fn find(
    nets: (&Sam2, &Sam2Memory),
    embedding: &Tensor,
    high_res: &(Tensor, Tensor),
    prompt: &VideoPrompt,
) -> Result<Tracked, TchError> {
    let points = prompt.points.as_ref().map_or(Ok(0), |(_, labels)| labels.size2().map(|(_, n)| n))?;
    let selection = if points <= 1 { MaskSelection::Multiple } else { MaskSelection::Stable };
    answer(nets, embedding, high_res, prompt, selection)
}

fn answer(
    (net, memory): (&Sam2, &Sam2Memory),
    embedding: &Tensor,
    high_res: &(Tensor, Tensor),
    prompt: &VideoPrompt,
    selection: MaskSelection,
) -> Result<Tracked, TchError> {
    let encoder = &net.sam_prompt_encoder;
    let said = match (&prompt.points, &prompt.mask) {
        (Some((coords, _)), _) => coords.size3()?.0,
        (None, Some(mask)) => mask.size4()?.0,
        (None, None) => embedding.size4()?.0,
    };
    let (coords, labels) = match &prompt.points {
        Some((coords, labels)) => (coords.shallow_clone(), labels.shallow_clone()),
        // Nothing said is one point of padding, to which the encoder adds another.
        None => (
            Tensor::f_zeros([said, 1, 2], (Kind::Float, encoder.device()))?,
            Tensor::f_full([said, 1], -1, (Kind::Int64, encoder.device()))?,
        ),
    };
    let (sparse, dense) = encoder.forward(Some((&coords, &labels)), None, prompt.mask.as_ref())?;
    let decoded = net.sam_mask_decoder.forward(
        embedding,
        encoder.get_dense_pe(),
        &sparse,
        &dense,
        Some((&high_res.0, &high_res.1)),
        selection,
    )?;
    tracked(memory, &decoded)
}

/// The decoder's answer about `B` objects: of its masks the one that it thinks best.
///
/// # Errors
/// A decoder without an object score, libtorch's.
pub fn tracked(memory: &Sam2Memory, decoded: &Decoded) -> Result<Tracked, TchError> {
    let Some(object_score) = &decoded.object_score else {
        return Err(TchError::Shape("a decoder without an object score cannot follow objects".into()));
    };
    let present = object_score.f_gt(0.0)?;
    let (b, _, h, w) = decoded.masks.size4()?;
    let channels = decoded.mask_tokens.size3()?.2;
    let best = decoded.iou.f_argmax(1, true)?;
    let of_pixel = best.f_reshape([b, 1, 1, 1])?.f_expand([b, 1, h, w], false)?;
    let of_channel = best.f_reshape([b, 1, 1])?.f_expand([b, 1, channels], false)?;
    let logits = decoded.masks.f_gather(1, &of_pixel, false)?;
    let token = decoded.mask_tokens.f_gather(1, &of_channel, false)?.f_squeeze_dim(1)?;
    Ok(Tracked {
        logits: logits.f_where_scalarother(&present.f_reshape([b, 1, 1, 1])?, NO_OBJECT)?,
        iou: decoded.iou.f_gather(1, &best, false)?.f_squeeze_dim(1)?,
        pointer: memory.pointer(&token, &present)?,
        object_score: object_score.shallow_clone(),
    })
}

/// Shares 0 to 1 to logits.
fn certain(shares: &Tensor) -> Result<Tensor, TchError> {
    shares.f_mul_scalar(2.0 * CERTAIN)?.f_sub_scalar(CERTAIN)
}

/// Logits of a quarter of the side from masks that somebody drew, 0 or 1 at the input's size, `[B, 1, S, S]`.
///
/// # Errors
/// libtorch's.
pub fn drawn_logits(masks: &Tensor) -> Result<Tensor, TchError> {
    let quarter = masks.size4()?.3 / 4;
    certain(masks)?.f_internal_upsample_bilinear2d_aa([quarter, quarter], false, None, None)
}

/// Takes masks that somebody drew, 0 or 1 at the input's size, `[B, 1, S, S]`, for the answer; the network only makes the
/// pointers. `top` is the neck's level 2, without anything added.
///
/// # Errors
/// libtorch's.
pub fn given(
    (net, memory): (&Sam2, &Sam2Memory),
    top: &Tensor,
    high_res: &(Tensor, Tensor),
    masks: &Tensor,
) -> Result<Tracked, TchError> {
    let prompt = VideoPrompt { points: None, mask: Some(memory.mask_prompt(masks)?) };
    let found = answer((net, memory), top, high_res, &prompt, MaskSelection::Stable)?;
    let present = masks.f_flatten(1, -1)?.f_gt(0.0)?.f_any_dim(1, true)?;
    Ok(Tracked {
        logits: drawn_logits(masks)?,
        iou: Tensor::f_ones([masks.size4()?.0], (Kind::Float, masks.device()))?,
        pointer: memory.pointer_if(&found.pointer, &present)?,
        object_score: certain(&present.f_to_kind(Kind::Float)?)?,
    })
}
