//! What a wide view of the picture adds to the cells that a class's queries look at.
//!
//! Which of several alike structures is the nerve is told by what lies around it. The encoders' windows see little of that, and
//! the predictor's one block adds no more than what a few queries remember; a small pyramid over the same features sees the
//! whole picture. It is computed once for all classes. An addition of sonomask's to Sam2Rad's predictor; what it gains is in
//! `benches/results/training.md`.

use tch::{Kind, TchError, Tensor};

use crate::nn::common::{Activation, Conv2d};
use crate::nn::linear::Linear;
use crate::weights::{Weights, WeightsError};

/// Channels at the finest level; coarser ones have up to twice as many.
const WIDTH: i64 = 64;
/// Halvings of the grid.
const DEPTH: usize = 3;
/// Side in cells of the smallest grid that can be halved so often.
pub(super) const LEAST_CELLS: i64 = 1 << DEPTH;
/// Groups of a norm, and the constant that keeps it finite: PyTorch's default.
const GROUPS: i64 = 8;
const EPS: f64 = 1e-5;
/// Share of channels that training drops.
const DROPOUT: f64 = 0.1;

/// Convolution without a bias, group norm, ReLU. Keys `conv`, `norm`.
#[derive(Debug)]
struct ConvBlock {
    conv: Conv2d,
    weight: Tensor,
    bias: Tensor,
}

impl ConvBlock {
    fn new(w: &Weights<'_>, channels: [i64; 2], kernel: i64) -> Result<Self, WeightsError> {
        let norm = w.pp("norm");
        Ok(Self {
            conv: Conv2d::without_bias(&w.pp("conv"), channels, kernel, /* stride */ 1, kernel / 2)?,
            weight: norm.get("weight", &[channels[1]])?,
            bias: norm.get("bias", &[channels[1]])?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = self.conv.forward(x)?;
        Activation::Relu.apply(x.f_group_norm(GROUPS, Some(&self.weight), Some(&self.bias), EPS, true)?)
    }
}

/// What a pyramid makes of a picture.
#[derive(Debug)]
pub(super) struct Seen {
    /// Added to the image embedding before queries look at it, `[B, dim, h, w]`.
    pub(super) cells: Tensor,
    /// From which each class's first mask is made, `[B, 64, h, w]`.
    features: Tensor,
}

/// A pyramid over the encoder's features. Keys `stem`, `down.N`, `deepen.N`, `up.N`, `out`, `class`.
#[derive(Debug)]
pub(super) struct Pyramid {
    stem: ConvBlock,
    down: Vec<ConvBlock>,
    deepen: Vec<ConvBlock>,
    up: Vec<ConvBlock>,
    out: Conv2d,
    /// A class's first query to the filter and the bias of its first mask.
    class: Linear,
}

impl Pyramid {
    /// Reads a pyramid over `inputs` channels of features, for cells of width `dim`.
    pub(super) fn new(w: &Weights<'_>, inputs: i64, dim: i64) -> Result<Self, WeightsError> {
        let widths: [i64; DEPTH + 1] = [WIDTH, WIDTH, WIDTH * 3 / 2, WIDTH * 2];
        let part = |name: &str, i: usize, channels| ConvBlock::new(&w.pp(name).pp(i), channels, 3);
        let levels = 0..=DEPTH;
        Ok(Self {
            // Two more for where a cell is.
            stem: ConvBlock::new(&w.pp("stem"), [inputs + 2, WIDTH], 1)?,
            down: levels
                .clone()
                .map(|i| part("down", i, [widths[i.saturating_sub(1)], widths[i]]))
                .collect::<Result<_, _>>()?,
            deepen: levels.map(|i| part("deepen", i, [widths[i]; 2])).collect::<Result<_, _>>()?,
            up: (0..DEPTH)
                .map(|i| part("up", i, [widths[i] + widths[i + 1], widths[i]]))
                .collect::<Result<_, _>>()?,
            out: Conv2d::new(&w.pp("out"), [WIDTH, dim], 1, 1, 0)?,
            class: Linear::new(&w.pp("class"), dim, WIDTH + 1)?,
        })
    }

    /// `features` `[B, c, H, W]`, the image embedding first. Finer ones are averaged to the embedding's cells. `train` drops
    /// channels at random.
    pub(super) fn forward(&self, features: &[&Tensor], train: bool) -> Result<Seen, TchError> {
        let Some(embedding) = features.first() else {
            return Err(TchError::Shape("a pyramid needs an image embedding".into()));
        };
        let (b, _, h, w) = embedding.size4()?;
        if h.min(w) < LEAST_CELLS {
            return Err(TchError::Shape(format!(
                "a pyramid needs at least {LEAST_CELLS} cells a side, not {w} x {h}"
            )));
        }
        let mut parts = Vec::with_capacity(features.len() + 1);
        for part in features {
            let part = part.f_to_kind(Kind::Float)?;
            parts.push(if part.size4()?.2 == h { part } else { part.f_adaptive_avg_pool2d([h, w])? });
        }
        parts.push(places(b, h, w, embedding)?);
        let mut x = self.stem.forward(&Tensor::f_cat(&parts, 1)?)?;
        let mut seen = Vec::with_capacity(DEPTH + 1);
        for (i, (down, deepen)) in self.down.iter().zip(&self.deepen).enumerate() {
            if i > 0 {
                x = x.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)?;
            }
            x = deepen.forward(&down.forward(&x)?)?;
            seen.push(x.shallow_clone());
        }
        let dropped = |x: Tensor| if train { x.f_feature_dropout(DROPOUT, true) } else { Ok(x) };
        x = dropped(x)?;
        for (up, beside) in self.up.iter().zip(&seen).rev() {
            let (_, _, h, w) = beside.size4()?;
            let wide = x.f_upsample_bilinear2d([h, w], false, None, None)?;
            x = up.forward(&Tensor::f_cat(&[beside, &wide], 1)?)?;
        }
        let features = dropped(x)?;
        Ok(Seen { cells: self.out.forward(&features)?, features })
    }

    /// Logits of the first masks of the classes with `queries` `[K, N, dim]`, `[B K, 1, 4h, 4w]`.
    pub(super) fn masks(&self, seen: &Seen, queries: &Tensor) -> Result<Tensor, TchError> {
        let class = self.class.forward(&queries.f_select(1, 0)?)?;
        let (filters, bias) = (class.f_narrow(1, 0, WIDTH)?, class.f_select(1, WIDTH)?);
        let k = filters.size2()?.0;
        let filters = filters.f_reshape([k, WIDTH, 1, 1])?;
        let masks = seen.features.f_conv2d(&filters, Some(&bias), 1, 0, 1, 1)?;
        let (b, k, h, w) = masks.size4()?;
        let masks = masks.f_reshape([b * k, 1, h, w])?;
        masks.f_upsample_bilinear2d([4 * h, 4 * w], false, None, None)
    }
}

/// Column and row of every cell, -1 to 1, `[b, 2, h, w]`, the two innermost in memory, as the features' channels are: what is joined of
/// tensors that lie differently lies like none of the encoders'. libtorch looks at the first dimension's stride for that as well.
fn places(b: i64, h: i64, w: i64, like: &Tensor) -> Result<Tensor, TchError> {
    let along = |n: i64| Tensor::f_linspace(-1.0, 1.0, n, (Kind::Float, like.device()));
    let x = along(w)?.f_reshape([1, 1, w])?.f_expand([b, h, w], false)?;
    let y = along(h)?.f_reshape([1, h, 1])?.f_expand([b, h, w], false)?;
    Tensor::f_stack(&[x, y], -1)?.f_permute([0, 3, 1, 2])
}
