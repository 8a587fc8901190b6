//! The linear layer.

use tch::{Kind, TchError, Tensor};

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::common::{add_to, like};
use super::lora::Lora;
use crate::weights::{Weights, WeightsError};

/// Rows up to which a layer in bfloat16 is computed here.
#[cfg(target_arch = "x86_64")]
const FEW_ROWS: i64 = 64;
/// Rows from which it is computed as a convolution.
#[cfg(target_arch = "x86_64")]
const MANY_ROWS: i64 = 512;

/// `y = x W^T + b` over the last dimension, in the type of the weights. Keys `weight [out, in]`, `bias [out]`; `w_a.weight [r, in]` and `w_b.weight [out, r]`
/// where the layer is adapted with low rank, then `y` has `w_b (w_a x)` added.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
    lora: Option<Lora>,
}

impl Linear {
    /// Reads the layer.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, inputs: i64, outputs: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            weight: w.matrix("weight", &[outputs, inputs])?,
            bias: w.matrix("bias", &[outputs])?,
            lora: Lora::read(w, inputs, outputs)?,
        })
    }

    /// The type that it computes in.
    pub(super) fn kind(&self) -> Kind {
        self.weight.kind()
    }

    /// `[..., in]` to `[..., out]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = like(x, &self.weight)?;
        #[cfg(target_arch = "x86_64")]
        let faster = self.faster(&x)?;
        #[cfg(not(target_arch = "x86_64"))]
        let faster = None;
        let y = match faster {
            Some(y) => y,
            None => x.f_linear(&self.weight, Some(&self.bias))?,
        };
        match &self.lora {
            Some(lora) => add_to(y, &lora.forward(&x)?),
            None => Ok(y),
        }
    }

    /// The same in bfloat16 on a CPU with AVX-512 for it and without AMX, where rows are few or many; `None` where that gains nothing. With
    /// AMX a convolution gains nothing, and few rows have not been timed.
    #[cfg(target_arch = "x86_64")]
    fn faster(&self, x: &Tensor) -> Result<Option<Tensor>, TchError> {
        let (weight, bias) = (&self.weight, &self.bias);
        let readable = || [x, weight, bias].iter().all(|t| avx512::can_read(t, Kind::BFloat16));
        if !avx512::is_fastest() || !readable() || !x.is_contiguous() {
            return Ok(None);
        }
        let (mut size, (outputs, inputs)) = (x.size(), weight.size2()?);
        let rows = x.numel() as i64 / inputs.max(1);
        if rows <= FEW_ROWS {
            return avx512::few::linear(x, weight, bias);
        }
        if rows < MANY_ROWS {
            return Ok(None);
        }
        // oneDNN adds a convolution's bias as it goes; before a product it is written to all rows.
        let x = x.f_view([1, 1, rows, inputs])?.f_permute([0, 3, 1, 2])?;
        let weight = weight.f_view([outputs, inputs, 1, 1])?;
        let y = x.f_conv2d(&weight, Some(bias), 1, 0, 1, 1)?;
        size.pop();
        size.push(outputs);
        y.f_permute([0, 2, 3, 1])?.f_reshape(size).map(Some)
    }

    /// The weight `[out, in]`, with what low rank adds to it, for products that are taken in another order.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn weight(&self) -> Result<Tensor, TchError> {
        match &self.lora {
            Some(lora) => self.weight.f_add(&lora.product()?),
            None => Ok(self.weight.shallow_clone()),
        }
    }

    /// The bias `[out]`.
    pub(super) fn bias(&self) -> &Tensor {
        &self.bias
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn a_layer_of_few_or_many_rows_is_the_same_product() -> Result<(), TchError> {
        tch::manual_seed(4);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        let layer = Linear { weight: random(&[40, 96]), bias: random(&[40]), lora: None };
        for size in [vec![2, 20, 25, 96], vec![600, 96], vec![100, 96], vec![3, 96]] {
            let x = random(&size);
            let y = layer.forward(&x)?;
            #[cfg(target_arch = "x86_64")]
            {
                let gains = !(FEW_ROWS + 1..MANY_ROWS).contains(&(x.numel() as i64 / 96));
                assert_eq!(layer.faster(&x)?.is_some(), gains && avx512::is_fastest());
            }
            let exact = x
                .to_kind(Kind::Float)
                .f_linear(&layer.weight.to_kind(Kind::Float), Some(&layer.bias.to_kind(Kind::Float)))?;
            assert_eq!((y.size(), y.kind(), y.is_contiguous()), (exact.size(), Kind::BFloat16, true));
            let off = f64::try_from((y.to_kind(Kind::Float) - &exact).norm() / exact.norm())?;
            assert!(off < 3e-3, "{size:?}: {off}");
        }
        assert!(layer.forward(&random(&[1200, 48])).is_err() && layer.forward(&random(&[600, 192])).is_err());
        Ok(())
    }
}
