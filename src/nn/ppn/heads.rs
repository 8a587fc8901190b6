//! The prompt predictor's two heads.

use tch::{TchError, Tensor};

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

/// Updated image cells to logits of a mask. Keys `layers.{0,1}`, `final_conv`.
#[derive(Debug)]
pub struct MaskClassifier {
    layers: [Conv2d; 2],
    final_conv: Conv2d,
    scale_factor: i64,
}

impl MaskClassifier {
    /// Reads the head for cells of width `dim`; the mask is `scale_factor` times the cells' size.
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
            final_conv: Conv2d::new(&w.pp("final_conv"), [hidden, 1], 1, 1, 0)?,
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
