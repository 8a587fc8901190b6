//! What training minimises (Sam2Rad, section 3.2), and the variant that its authors' code has.

use tch::{Reduction, TchError, Tensor};

/// Keeps quotients of areas finite, as in torchvision's `generalized_box_iou_loss`.
const GIOU_EPS: f64 = 1e-7;
/// Keeps Dice finite, and makes an empty answer to an empty truth a perfect one.
const DICE_SMOOTH: f64 = 1e-5;

/// What alpha weighs in the focal loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Background by alpha, the object by 1: the paper's equation 2.
    Background,
    /// The object by alpha, background by 1 - alpha: RetinaNet's, as torchvision's `sigmoid_focal_loss`.
    Both,
}

/// How logits are compared with a mask: weighted sum of a focal loss and of 1 - Dice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskLoss {
    /// Weight of the focal loss.
    pub focal: f64,
    /// Weight of 1 - Dice of the probabilities.
    pub dice: f64,
    /// See [`Balance`].
    pub alpha: f64,
    /// Power that takes weight from pixels that are right already.
    pub gamma: f64,
    /// What alpha weighs.
    pub balance: Balance,
}

/// Weights of all terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossConfig {
    /// The decoder's mask.
    pub mask: MaskLoss,
    /// The predictor's interim mask, from which the mask prompt is made.
    pub interim: MaskLoss,
    /// Mean absolute difference of box coordinates.
    pub l1: f64,
    /// 1 - generalised IoU of boxes.
    pub giou: f64,
    /// Binary cross-entropy of the object score.
    pub presence: f64,
    /// Taken from a certain truth and shared between both answers, 0 to 1.
    pub presence_smoothing: f64,
    /// Object scores count no further from zero than this; a wrong score beyond it is not corrected.
    pub presence_clip: Option<f64>,
    /// Masks of classes that are not in the picture are compared with an empty one.
    pub absent_masks: bool,
}

impl LossConfig {
    /// The paper: 10 times both focal losses (gamma 3, alpha 0.7), L1 and GIoU of the box, cross-entropy of the presence. It
    /// gives no weights within the box's term: both are 1.
    pub const PAPER: Self = {
        let mask = MaskLoss { focal: 10.0, dice: 0.0, alpha: 0.7, gamma: 3.0, balance: Balance::Background };
        Self {
            mask,
            interim: mask,
            l1: 1.0,
            giou: 1.0,
            presence: 1.0,
            presence_smoothing: 0.0,
            presence_clip: None,
            absent_masks: true,
        }
    };

    /// What works best with few pictures here: see `benches/results/training.md`.
    pub const SONOMASK: Self = {
        let mask = MaskLoss { focal: 4.0, dice: 1.0, alpha: 1.0, gamma: 0.0, balance: Balance::Background };
        Self { mask, interim: mask, l1: 1.0, giou: 1.0, absent_masks: true, ..Self::PAPER }
    };

    /// What the authors' code computes: Dice beside the focal loss, the interim mask weighted 100, GIoU alone, a smoothed and
    /// clipped presence, masks of present classes only. Source: `train.py` of `aswahd/SamRadiology` at ccf881d, lines 247 to 292 and 428 to 434.
    pub const CODED: Self = Self {
        mask: MaskLoss { focal: 5.0, dice: 0.5, alpha: 0.7, gamma: 3.0, balance: Balance::Both },
        interim: MaskLoss { focal: 100.0, dice: 0.0, alpha: 0.6, gamma: 3.0, balance: Balance::Both },
        l1: 0.0,
        giou: 1.0,
        presence: 1.0,
        presence_smoothing: 0.1,
        presence_clip: Some(10.0),
        absent_masks: false,
    };
}

/// What the network says of `N` pairs of a picture and a class.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Logits of the decoder's mask, `[N, 1, h, w]`.
    pub mask: &'a Tensor,
    /// Logits of the interim mask, `[N, 1, h, w]`; none where prompts came from a person alone.
    pub interim: Option<&'a Tensor>,
    /// Boxes `[N, 4]`, `x0, y0, x1, y1` as fractions of the input; none with the interim mask.
    pub boxes: Option<&'a Tensor>,
    /// Object scores `[N, 1]`, of decoders that tell it.
    pub presence: Option<&'a Tensor>,
}

/// What is true of the same pairs. Floating-point, on the answer's device.
#[derive(Clone, Copy, Debug)]
pub struct Truth<'a> {
    /// 1 inside, 0 outside, `[N, 1, h, w]`.
    pub mask: &'a Tensor,
    /// The same at the size of the interim mask.
    pub interim: &'a Tensor,
    /// Boxes `[N, 4]`; not looked at where the class is absent.
    pub boxes: &'a Tensor,
    /// 1 where the class is in the picture, else 0, `[N]`.
    pub present: &'a Tensor,
}

/// The terms, each weighted, and their sum. Scalars.
#[derive(Debug)]
pub struct Terms {
    /// The decoder's mask.
    pub mask: Tensor,
    /// The interim mask.
    pub interim: Tensor,
    /// L1 and GIoU of the box.
    pub bbox: Tensor,
    /// The object score.
    pub presence: Tensor,
    /// What is minimised.
    pub total: Tensor,
}

/// The loss of `answer`, averaged over pairs: masks over all, or over those with the class in the picture (see
/// [`LossConfig::absent_masks`]), boxes over the latter, presence over all. A term without pairs or without an answer is 0.
///
/// # Errors
/// libtorch's, as for shapes that do not go together.
pub fn loss(config: &LossConfig, answer: &Answer<'_>, truth: &Truth<'_>) -> Result<Terms, TchError> {
    let present = truth.present.f_reshape([-1])?;
    let everything = present.f_ones_like()?;
    let counted = if config.absent_masks { &everything } else { &present };
    let nothing = || answer.mask.f_sum(answer.mask.kind())?.f_mul_scalar(0.0);
    let mask = mean_over(&mask_loss(&config.mask, answer.mask, truth.mask)?, counted)?;
    let interim = match answer.interim {
        Some(logits) => mean_over(&mask_loss(&config.interim, logits, truth.interim)?, counted)?,
        None => nothing()?,
    };
    let bbox = match answer.boxes {
        Some(boxes) => mean_over(&box_loss(config, boxes, truth.boxes, &present)?, &present)?,
        None => nothing()?,
    };
    let presence = match answer.presence {
        Some(score) => presence_loss(config, &score.f_reshape([-1])?, &present)?,
        None => nothing()?,
    };
    let total = mask.f_add(&interim)?.f_add(&bbox)?.f_add(&presence)?;
    Ok(Terms { mask, interim, bbox, presence, total })
}

/// The loss of interim masks alone, `[N, 1, h, w]`; see [`loss`].
///
/// # Errors
/// libtorch's, as for shapes that do not go together.
pub fn interim_loss(
    config: &LossConfig,
    logits: &Tensor,
    truth: &Tensor,
    present: &Tensor,
) -> Result<Terms, TchError> {
    let everything = present.f_ones_like()?;
    let counted = if config.absent_masks { &everything } else { present };
    let interim = mean_over(&mask_loss(&config.interim, logits, truth)?, counted)?;
    let none = || Tensor::f_zeros_like(&interim);
    Ok(Terms { mask: none()?, bbox: none()?, presence: none()?, total: interim.shallow_clone(), interim })
}

/// Mean of `values` `[N]` where `weight` `[N]` is 1; 0 if it is nowhere.
fn mean_over(values: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
    let kind = values.kind();
    values.f_mul(weight)?.f_sum(kind)?.f_div(&weight.f_sum(kind)?.f_clamp_min(1.0)?)
}

/// `[N, 1, h, w]` logits and truth to `[N]`.
fn mask_loss(config: &MaskLoss, logits: &Tensor, truth: &Tensor) -> Result<Tensor, TchError> {
    let (logits, truth) = (logits.f_flatten(1, -1)?, truth.f_flatten(1, -1)?);
    let inside = logits.f_sigmoid()?;
    let focal = focal_loss(config, &logits, &inside, &truth)?.f_mul_scalar(config.focal)?;
    if config.dice == 0.0 {
        return Ok(focal);
    }
    focal.f_add(&dice_loss(&inside, &truth)?.f_mul_scalar(config.dice)?)
}

/// Focal loss, mean over pixels. Logarithms are taken of the logits, so that a pixel that is far off has a gradient.
fn focal_loss(
    config: &MaskLoss,
    logits: &Tensor,
    inside: &Tensor,
    truth: &Tensor,
) -> Result<Tensor, TchError> {
    let outside = logits.f_neg()?.f_sigmoid()?;
    let object = outside.f_pow_tensor_scalar(config.gamma)?.f_mul(&logits.f_log_sigmoid()?)?.f_mul(truth)?;
    let ground = inside.f_pow_tensor_scalar(config.gamma)?.f_mul(&logits.f_neg()?.f_log_sigmoid()?)?;
    let ground = ground.f_mul(&truth.f_rsub_scalar(1.0)?)?;
    let (of_object, of_ground) = match config.balance {
        Balance::Background => (1.0, config.alpha),
        Balance::Both => (config.alpha, 1.0 - config.alpha),
    };
    let sum = object.f_mul_scalar(-of_object)?.f_sub(&ground.f_mul_scalar(of_ground)?)?;
    sum.f_mean_dim(&[-1i64][..], false, sum.kind())
}

/// 1 - Dice of probabilities, `[N, pixels]` to `[N]`.
fn dice_loss(inside: &Tensor, truth: &Tensor) -> Result<Tensor, TchError> {
    let sum = |t: Tensor| t.f_sum_dim_intlist(&[-1i64][..], false, inside.kind());
    let both = sum(inside.f_mul(truth)?)?.f_mul_scalar(2.0)?.f_add_scalar(DICE_SMOOTH)?;
    let all = sum(inside.f_add(truth)?)?.f_add_scalar(DICE_SMOOTH)?;
    both.f_div(&all)?.f_rsub_scalar(1.0)
}

/// Boxes `[N, 4]` to `[N]`. An absent class has the answer itself for its truth, so that nothing it has enters a gradient as NaN.
fn box_loss(
    config: &LossConfig,
    boxes: &Tensor,
    truth: &Tensor,
    present: &Tensor,
) -> Result<Tensor, TchError> {
    let there = present.f_gt(0.0)?.f_unsqueeze(1)?;
    let truth = truth.f_where_self(&there, &boxes.f_detach()?)?;
    let l1 = boxes.f_sub(&truth)?.f_abs()?.f_mean_dim(&[-1i64][..], false, boxes.kind())?;
    let giou = giou_loss(boxes, &truth)?;
    l1.f_mul_scalar(config.l1)?.f_add(&giou.f_mul_scalar(config.giou)?)
}

/// 1 - generalised IoU of boxes `[N, 4]`, `[N]` (<https://arxiv.org/abs/1902.09630>).
fn giou_loss(a: &Tensor, b: &Tensor) -> Result<Tensor, TchError> {
    let near = |t: &Tensor| t.f_narrow(1, 0, 2);
    let far = |t: &Tensor| t.f_narrow(1, 2, 2);
    let area = |near: &Tensor, far: &Tensor| {
        let sides = far.f_sub(near)?;
        sides.f_select(1, 0)?.f_mul(&sides.f_select(1, 1)?)
    };
    let (a0, a1, b0, b1) = (near(a)?, far(a)?, near(b)?, far(b)?);
    let (low, high) = (a0.f_maximum(&b0)?, a1.f_minimum(&b1)?);
    // Apart in either direction is no overlap, and has no gradient through it.
    let overlap = high.f_sub(&low)?.f_clamp_min(0.0)?;
    let overlap = overlap.f_select(1, 0)?.f_mul(&overlap.f_select(1, 1)?)?;
    let union = area(&a0, &a1)?.f_add(&area(&b0, &b1)?)?.f_sub(&overlap)?;
    let hull = area(&a0.f_minimum(&b0)?, &a1.f_maximum(&b1)?)?;
    let iou = overlap.f_div(&union.f_add_scalar(GIOU_EPS)?)?;
    let gap = hull.f_sub(&union)?.f_div(&hull.f_add_scalar(GIOU_EPS)?)?;
    iou.f_sub(&gap)?.f_rsub_scalar(1.0)
}

fn presence_loss(config: &LossConfig, score: &Tensor, present: &Tensor) -> Result<Tensor, TchError> {
    let smoothing = config.presence_smoothing;
    let target = present.f_mul_scalar(1.0 - smoothing)?.f_add_scalar(0.5 * smoothing)?;
    let score = match config.presence_clip {
        Some(limit) => score.f_clamp(-limit, limit)?,
        None => score.shallow_clone(),
    };
    let entropy = score.f_binary_cross_entropy_with_logits(
        &target.f_to_kind(score.kind())?,
        None::<Tensor>,
        None::<Tensor>,
        Reduction::Mean,
    )?;
    entropy.f_mul_scalar(config.presence)
}
