//! TinyViT's convolutions.

use tch::{Kind, TchError, Tensor};

use crate::nn::common::{add_to, gelu_of_convolution, like};
use crate::weights::{Weights, WeightsError};

/// A convolution with its batch norm folded in. Keys `c.weight`, `bn.*`; batch norm eps 1e-5.
#[derive(Debug)]
pub(super) struct Conv2dBn {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
    groups: i64,
    /// What the network around it computes in.
    kind: Kind,
}

const BATCH_NORM_EPS: f64 = 1e-5;

impl Conv2dBn {
    /// A dense convolution, `channels` being `[in, out]`, padded to keep the size at stride 1.
    pub(super) fn new(
        w: &Weights<'_>,
        [inputs, outputs]: [i64; 2],
        kernel: i64,
        stride: i64,
    ) -> Result<Self, WeightsError> {
        Self::grouped(w, [inputs, outputs], kernel, stride, 1)
    }

    /// One 3x3 filter per channel.
    pub(super) fn depthwise(w: &Weights<'_>, channels: i64, stride: i64) -> Result<Self, WeightsError> {
        Self::grouped(w, [channels; 2], 3, stride, channels)
    }

    fn grouped(
        w: &Weights<'_>,
        [inputs, outputs]: [i64; 2],
        kernel: i64,
        stride: i64,
        groups: i64,
    ) -> Result<Self, WeightsError> {
        // Always `f32`: these layers are a small part of the products, and rounding weights that a norm was folded into was
        // found to cost most of the accuracy that bfloat16 loses.
        let c =
            w.pp("c").get("weight", &[outputs, inputs / groups, kernel, kernel])?.f_to_kind(Kind::Double)?;
        let bn = w.pp("bn");
        let scale = bn.get("weight", &[outputs])?.f_to_kind(Kind::Double)?;
        let shift = bn.get("bias", &[outputs])?;
        let mean = bn.buffer("running_mean", &[outputs])?;
        let var = bn.buffer("running_var", &[outputs])?.f_to_kind(Kind::Double)?;
        bn.skip("num_batches_tracked");
        // In double precision, so that folding costs no accuracy.
        let scale = scale.f_div(&var.f_add_scalar(BATCH_NORM_EPS)?.f_sqrt()?)?;
        let bias = shift.f_sub(&mean.f_mul(&scale)?)?.f_to_kind(Kind::Float)?;
        let weight = c.f_mul(&scale.f_reshape([-1, 1, 1, 1])?)?.f_to_kind(Kind::Float)?;
        // Channels innermost, like the activations.
        let weight = weight.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?;
        Ok(Self { weight, bias, stride, padding: kernel / 2, groups, kind: w.kind() })
    }

    /// `[B, in, H, W]` to `[B, out, H', W']`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        like(x, &self.weight)?.f_conv2d(
            &self.weight,
            Some(&self.bias),
            self.stride,
            self.padding,
            1,
            self.groups,
        )
    }

    /// The same, and the Gaussian error linear unit of it.
    pub(super) fn forward_gelu(&self, x: &Tensor) -> Result<Tensor, TchError> {
        gelu_of_convolution(self.forward(x)?, self.kind)
    }

    /// The same with a residual sum before the unit.
    fn forward_add_gelu(&self, x: &Tensor, shortcut: &Tensor) -> Result<Tensor, TchError> {
        gelu_of_convolution(add_to(self.forward(x)?, shortcut)?, self.kind)
    }
}

/// Widen, filter each channel, narrow, add. Keys `conv1`, `conv2`, `conv3`.
#[derive(Debug)]
pub(super) struct MbConv {
    conv1: Conv2dBn,
    conv2: Conv2dBn,
    conv3: Conv2dBn,
}

impl MbConv {
    /// Widens four times.
    pub(super) fn new(w: &Weights<'_>, channels: i64) -> Result<Self, WeightsError> {
        let hidden = 4 * channels;
        Ok(Self {
            conv1: Conv2dBn::new(&w.pp("conv1"), [channels, hidden], 1, 1)?,
            conv2: Conv2dBn::depthwise(&w.pp("conv2"), hidden, 1)?,
            conv3: Conv2dBn::new(&w.pp("conv3"), [hidden, channels], 1, 1)?,
        })
    }

    /// `[B, C, H, W]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let y = self.conv2.forward_gelu(&self.conv1.forward_gelu(x)?)?;
        self.conv3.forward_add_gelu(&y, x)
    }
}

/// From one stage to the next. Keys `conv1`, `conv2`, `conv3`.
#[derive(Debug)]
pub(super) struct PatchMerging {
    conv1: Conv2dBn,
    conv2: Conv2dBn,
    conv3: Conv2dBn,
}

impl PatchMerging {
    pub(super) fn new(w: &Weights<'_>, dim: i64, out_dim: i64, stride: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            conv1: Conv2dBn::new(&w.pp("conv1"), [dim, out_dim], 1, 1)?,
            conv2: Conv2dBn::depthwise(&w.pp("conv2"), out_dim, stride)?,
            conv3: Conv2dBn::new(&w.pp("conv3"), [out_dim, out_dim], 1, 1)?,
        })
    }

    /// `[B, dim, H, W]` to `[B, out_dim, H / stride, W / stride]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.conv3.forward(&self.conv2.forward_gelu(&self.conv1.forward_gelu(x)?)?)
    }
}
