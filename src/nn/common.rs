//! Small layers that several networks share.

use std::cell::Cell;

use tch::{Device, Kind, TchError, Tensor};

#[cfg(target_arch = "x86_64")]
use super::avx512::{gelu, rows};
use super::linear::Linear;
use crate::weights::{Weights, WeightsError};

/// A pointwise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Gaussian error linear unit, with the exact error function.
    Gelu,
    /// Rectified linear unit.
    Relu,
}

impl Activation {
    /// Applies it to a tensor that nobody else holds: in place unless a gradient needs the input.
    ///
    /// # Errors
    /// libtorch's.
    pub fn apply(self, mut x: Tensor) -> Result<Tensor, TchError> {
        match (self, x.requires_grad()) {
            (Self::Gelu, true) => x.f_gelu("none"),
            #[cfg(target_arch = "x86_64")]
            (Self::Gelu, false) if gelu::gelu(&mut x) => Ok(x),
            (Self::Gelu, false) => x.f_gelu_("none"),
            (Self::Relu, true) => x.f_relu(),
            (Self::Relu, false) => x.f_relu_(),
        }
    }
}

/// The Gaussian error linear unit of a `[B, C, H, W]` in `f32` that nobody else holds, whose channels lie innermost, in a network that computes in
/// `kind`: with no more digits than are left of it there.
pub(super) fn gelu_of_convolution(x: Tensor, kind: Kind) -> Result<Tensor, TchError> {
    #[cfg(target_arch = "x86_64")]
    if kind == Kind::BFloat16 && gelu::gelu_near(&mut x.f_permute([0, 2, 3, 1])?) {
        return Ok(x);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = kind;
    Activation::Gelu.apply(x)
}

/// `x` in the type that `weight` computes in; itself where it already is.
pub(super) fn like(x: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
    if x.kind() == weight.kind() { Ok(x.shallow_clone()) } else { x.f_to_kind(weight.kind()) }
}

thread_local! {
    /// This thread's work is being recorded.
    static RECORDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs work that may take nothing from the CPU: what a GPU records would read the bytes again where they lay then.
pub fn unsent<T>(work: impl FnOnce() -> T) -> T {
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            RECORDED.set(self.0);
        }
    }

    let _before = Before(RECORDED.replace(true));
    work()
}

/// A small tensor of the CPU on `device`, without waiting for what is queued there: after a copy that waits, a GPU is idle until the next
/// kernel is queued. CUDA has taken the bytes when this returns, unless they lie in page-locked memory, as none do here. For more than
/// some ten kilobytes it may wait all the same.
///
/// # Errors
/// Within [`unsent`]; libtorch's.
pub fn sent(x: &Tensor, device: Device) -> Result<Tensor, TchError> {
    if RECORDED.get() {
        return Err(TchError::Shape("what is recorded cannot take anything from the CPU".into()));
    }
    if x.device() == device {
        Ok(x.shallow_clone())
    } else {
        x.f_internal_to_copy((x.f_kind()?, device), true)
    }
}

/// `x + y` for an `x` that nobody else holds and that has the sum's shape: in place unless a gradient is wanted or `y` is of
/// a wider type, which then is the sum's.
///
/// # Errors
/// libtorch's.
pub(super) fn add_to(mut x: Tensor, y: &Tensor) -> Result<Tensor, TchError> {
    let widens = x.kind() != Kind::Float && x.kind() != y.kind();
    #[cfg(target_arch = "x86_64")]
    if widens
        && x.size() == y.size()
        && let Some(sum) = rows::add_rows(y, &x, |row| row)?
    {
        return Ok(sum);
    }
    if widens || x.requires_grad() || y.requires_grad() { x.f_add(y) } else { x.f_add_(y) }
}

/// Greatest difference, relative to the most that rounding to bfloat16 changes a value, or one of size `least` where it is smaller.
#[cfg(test)]
pub(super) fn roundings(ours: &Tensor, exact: &Tensor, least: f64) -> f64 {
    let most = exact.abs().clamp_min(least) / 256.0;
    let off = (ours.to_kind(Kind::Float) - exact).abs() / most;
    f64::try_from(off.max()).expect("a number")
}

/// Normalises the last dimension, in `f32` whatever comes in. Keys `weight [dim]`, `bias [dim]`.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    dim: i64,
    eps: f64,
}

impl LayerNorm {
    /// Reads the layer.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, dim: i64, eps: f64) -> Result<Self, WeightsError> {
        Ok(Self { weight: w.get("weight", &[dim])?, bias: w.get("bias", &[dim])?, dim, eps })
    }

    /// `[..., dim]` to the same shape.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        like(x, &self.weight)?.f_layer_norm([self.dim], Some(&self.weight), Some(&self.bias), self.eps, true)
    }

    /// The same in the type that the next layer computes in.
    pub(super) fn forward_as(&self, x: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
        #[cfg(target_arch = "x86_64")]
        if kind == Kind::BFloat16
            && let Some(y) = rows::layer_norm(x, self.norm())?
        {
            return Ok(y);
        }
        self.forward(x)?.f_to_kind(kind)
    }

    /// The same in bfloat16, in other rows, `size` together; `None` where that is not done in one pass.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn rows(
        &self,
        x: &Tensor,
        size: &[i64],
        of: impl Fn(usize) -> rows::Row + Sync,
    ) -> Result<Option<Tensor>, TchError> {
        rows::layer_norm_rows(x, self.norm(), size, of)
    }

    #[cfg(target_arch = "x86_64")]
    fn norm(&self) -> rows::Norm<'_> {
        rows::Norm { weight: &self.weight, bias: &self.bias, eps: self.eps }
    }
}

/// Normalises the channels of `[B, C, H, W]`, eps 1e-6. Keys as [`LayerNorm`].
#[derive(Debug)]
pub struct LayerNorm2d(LayerNorm);

impl LayerNorm2d {
    /// Reads the layer.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, channels: i64) -> Result<Self, WeightsError> {
        Ok(Self(LayerNorm::new(w, channels, 1e-6)?))
    }

    /// `[B, C, H, W]` to the same shape. Free of copies where the channels lie innermost.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.0.forward(&x.f_permute([0, 2, 3, 1])?)?.f_permute([0, 3, 1, 2])
    }
}

/// A square convolution without dilation. Keys `weight [out, in / groups, k, k]` and, with a bias, `bias [out]`.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
    groups: i64,
}

impl Conv2d {
    /// Reads the layer with a bias.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(
        w: &Weights<'_>,
        channels: [i64; 2],
        kernel: i64,
        stride: i64,
        padding: i64,
    ) -> Result<Self, WeightsError> {
        let bias = w.matrix("bias", &[channels[1]])?;
        Ok(Self { bias: Some(bias), ..Self::without_bias(w, channels, kernel, stride, padding)? })
    }

    /// Reads the layer without a bias; `channels` are `[in, out]`.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn without_bias(
        w: &Weights<'_>,
        [inputs, outputs]: [i64; 2],
        kernel: i64,
        stride: i64,
        padding: i64,
    ) -> Result<Self, WeightsError> {
        let weight = w.matrix("weight", &[outputs, inputs, kernel, kernel])?;
        Ok(Self { weight, bias: None, stride, padding, groups: 1 })
    }

    /// Reads the layer with a bias, every channel for itself; the grid keeps its size.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn depthwise(w: &Weights<'_>, channels: i64, kernel: i64) -> Result<Self, WeightsError> {
        let groups = channels;
        let weight = w.matrix("weight", &[channels, 1, kernel, kernel])?;
        let bias = Some(w.matrix("bias", &[channels])?);
        Ok(Self { weight, bias, stride: 1, padding: kernel / 2, groups })
    }

    /// `[B, in, H, W]` to `[B, out, H', W']`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let Self { weight, bias, stride, padding, groups } = self;
        like(x, weight)?.f_conv2d(weight, bias.as_ref(), *stride, *padding, 1, *groups)
    }

    /// A 1 x 1 convolution's weight `[out, in]` and bias, for products that are taken in another order.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn as_linear(&self) -> Result<(Tensor, Option<Tensor>), TchError> {
        Ok((self.weight.f_flatten(1, -1)?, self.bias.as_ref().map(Tensor::shallow_clone)))
    }
}

/// A transposed convolution whose kernel equals its stride. Keys `weight [in, out, k, k]`, `bias [out]`.
#[derive(Debug)]
pub struct ConvTranspose2d {
    weight: Tensor,
    bias: Tensor,
    kernel: i64,
}

impl ConvTranspose2d {
    /// Reads the layer; `channels` are `[in, out]`.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, [inputs, outputs]: [i64; 2], kernel: i64) -> Result<Self, WeightsError> {
        let weight = w.matrix("weight", &[inputs, outputs, kernel, kernel])?;
        Ok(Self { weight, bias: w.matrix("bias", &[outputs])?, kernel })
    }

    /// `[B, in, H, W]` to `[B, out, k H, k W]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        like(x, &self.weight)?.f_conv_transpose2d(&self.weight, Some(&self.bias), self.kernel, 0, 0, 1, 1)
    }
}

/// What the layers of an [`MlpBlock`] are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlpKeys {
    /// `lin1`, `lin2`, as in SAM.
    Lin,
    /// `layers.0`, `layers.1`, as in SAM 2.
    Layers,
}

/// Two linear layers with an activation between them.
#[derive(Debug)]
pub struct MlpBlock {
    lin1: Linear,
    lin2: Linear,
    act: Activation,
}

impl MlpBlock {
    /// Reads the block with SAM's keys.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, dim: i64, hidden: i64, act: Activation) -> Result<Self, WeightsError> {
        Self::with_keys(w, dim, hidden, act, MlpKeys::Lin)
    }

    /// Reads the block.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn with_keys(
        w: &Weights<'_>,
        dim: i64,
        hidden: i64,
        act: Activation,
        keys: MlpKeys,
    ) -> Result<Self, WeightsError> {
        let (first, second) = match keys {
            MlpKeys::Lin => (w.pp("lin1"), w.pp("lin2")),
            MlpKeys::Layers => (w.pp("layers").pp(0), w.pp("layers").pp(1)),
        };
        Ok(Self { lin1: Linear::new(&first, dim, hidden)?, lin2: Linear::new(&second, hidden, dim)?, act })
    }

    /// The type that it computes in.
    pub(super) fn kind(&self) -> Kind {
        self.lin1.kind()
    }

    /// `[..., dim]` to the same shape.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.lin2.forward(&self.act.apply(self.lin1.forward(x)?)?)
    }
}

/// Linear layers with an activation between them. Keys `layers.0`, `layers.1`, ...
#[derive(Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
    act: Activation,
}

impl Mlp {
    /// Reads layers with ReLU between them; `dims` are the widths from input to output.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, dims: &[i64]) -> Result<Self, WeightsError> {
        Self::with_activation(w, dims, Activation::Relu)
    }

    /// The same with `act` between the layers.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn with_activation(w: &Weights<'_>, dims: &[i64], act: Activation) -> Result<Self, WeightsError> {
        let layers = w.pp("layers");
        let layers = dims.windows(2).enumerate().map(|(i, d)| Linear::new(&layers.pp(i), d[0], d[1]));
        Ok(Self { layers: layers.collect::<Result<_, _>>()?, act })
    }

    /// `[..., first]` to `[..., last]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let mut x = x.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x)?;
            if i + 1 < self.layers.len() {
                x = self.act.apply(x)?;
            }
        }
        Ok(x)
    }
}
