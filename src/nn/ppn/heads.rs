//! The prompt predictor's two heads.

use tch::{Kind, TchError, Tensor};

use crate::nn::common::{Activation, Conv2d, Mlp};
use crate::weights::{Weights, WeightsError};

/// Share of channels that training drops in the mask head.
const DROPOUT: f64 = 0.1;

/// The first two queries to a box. Keys `mlp.layers.{0,1}`.
#[derive(Debug)]
pub struct BoxRegressionHead {
    mlp: Mlp,
}

impl BoxRegressionHead {
    /// Reads the head for queries of width `dim`.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, dim: i64) -> Result<Self, WeightsError> {
        Ok(Self { mlp: Mlp::new(&w.pp("mlp"), &[2 * dim, dim, 4])? })
    }

    /// Queries `[B, N, C]` to boxes `[B, 4]`: `x0, y0, x1, y1` as fractions, the far corner up to 2.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, queries: &Tensor) -> Result<Tensor, TchError> {
        let corner_and_size = self.mlp.forward(&queries.f_narrow(1, 0, 2)?.f_flatten(1, 2)?)?.f_sigmoid()?;
        let (near, size) = (corner_and_size.f_narrow(1, 0, 2)?, corner_and_size.f_narrow(1, 2, 2)?);
        Tensor::f_cat(&[&near, &near.f_add(&size)?], 1)
    }
}

/// The smallest boxes around the logits above zero, `[B, 1, H, W]` to `[B, 4]`: `x0, y0, x1, y1` as fractions. Of a mask with nothing in
/// it the whole picture. No gradient goes through them.
///
/// # Errors
/// libtorch's.
pub(super) fn boxes_around(logits: &Tensor) -> Result<Tensor, TchError> {
    let inside = logits.f_detach()?.f_gt(0.0)?;
    let along = |over: i64| -> Result<[Tensor; 2], TchError> {
        // Which columns (over rows) or rows (over columns) have anything, `[B, n]`.
        let any = inside.f_any_dim(over, false)?.f_squeeze_dim(1)?.f_to_kind(Kind::Float)?;
        let n = any.size2()?.1;
        let places = Tensor::f_arange(n, (Kind::Float, any.device()))?;
        // The largest of `n - i` over occupied `i` is at the first, of `i + 1` at the last; nothing gives the whole length.
        let nothing = any.f_amax([1i64], true)?.f_eq(0.0)?.f_to_kind(Kind::Float)?;
        let any = any.f_add(&nothing)?;
        let first = any.f_mul(&places.f_neg()?.f_add_scalar(n as f64)?)?.f_amax([1i64], false)?;
        let last = any.f_mul(&places.f_add_scalar(1.0)?)?.f_amax([1i64], false)?;
        let n = n as f64;
        Ok([first.f_neg()?.f_add_scalar(n)?.f_div_scalar(n)?, last.f_div_scalar(n)?])
    };
    let ([x0, x1], [y0, y1]) = (along(2)?, along(3)?);
    Tensor::f_stack(&[x0, y0, x1, y1], 1)
}

/// Updated image cells to logits of a mask. Keys `layers.{0,1}`, `final_conv`.
#[derive(Debug)]
pub struct MaskClassifier {
    layers: [Conv2d; 2],
    final_conv: Conv2d,
    scale_factor: i64,
}

impl MaskClassifier {
    /// Reads the head for cells of width `dim`; the mask is `scale_factor` times the cells' size. The two convolutions with neighbours are
    /// computed in the view's kind, as a third of the predictor is in them, and what they see is normalised; logits are `f32`.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, dim: i64, scale_factor: i64) -> Result<Self, WeightsError> {
        let hidden = dim / 4;
        let conv = |i: i64, inputs| {
            Conv2d::new(
                &w.pp("layers").pp(i),
                [inputs, hidden],
                /* kernel */ 3,
                /* stride */ 1,
                /* padding */ 1,
            )
        };
        Ok(Self {
            layers: [conv(0, dim)?, conv(1, hidden)?],
            final_conv: Conv2d::new(&w.pp("final_conv").computing_in(Kind::Float), [hidden, 1], 1, 1, 0)?,
            scale_factor,
        })
    }

    /// `[B, C, H, W]` to logits `[B, 1, s H, s W]`. `train` drops channels at random.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, cells: &Tensor, train: bool) -> Result<Tensor, TchError> {
        let mut x = cells.shallow_clone();
        for layer in &self.layers {
            x = Activation::Relu.apply(layer.forward(&x)?)?;
            if train {
                x = x.f_feature_dropout(DROPOUT, true)?;
            }
        }
        let logits = self.final_conv.forward(&x)?;
        if self.scale_factor == 1 {
            return Ok(logits);
        }
        let (_, _, h, w) = logits.size4()?;
        logits.f_upsample_bilinear2d([h * self.scale_factor, w * self.scale_factor], false, None, None)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn boxes_lie_around_everything_inside() {
        let mut logits = Tensor::full([3, 1, 8, 10], -1.0, (Kind::Float, Device::Cpu));
        let _ = logits.get(0).get(0).narrow(0, 2, 3).narrow(1, 4, 2).fill_(1.0);
        let _ = logits.get(1).get(0).get(7).get(9).fill_(0.5);
        let _ = logits.get(1).get(0).get(0).get(3).fill_(0.5);
        logits = logits.set_requires_grad(true);
        let boxes = boxes_around(&logits).unwrap();
        assert!(!boxes.requires_grad());
        let found = Vec::<Vec<f32>>::try_from(boxes).unwrap();
        let expected = [[0.4, 0.25, 0.6, 0.625], [0.3, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]];
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
        }
    }
}
