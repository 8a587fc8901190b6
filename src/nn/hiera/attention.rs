//! Hiera's attention, which may pool its queries.

use tch::{Kind, TchError, Tensor};

use crate::nn::Linear;
use crate::nn::attention::attention;
use crate::nn::window::Windows;
use crate::weights::{Weights, WeightsError};

/// Multi-head attention over the cells of a grid or of a window. Keys `qkv`, `proj`.
#[derive(Debug)]
pub(super) struct MultiScaleAttention {
    qkv: Linear,
    proj: Linear,
    dim_out: i64,
    num_heads: i64,
    /// Queries are the maxima of 2x2 cells, so the answer has half the height and width.
    q_pool: bool,
}

impl MultiScaleAttention {
    pub(super) fn new(
        w: &Weights<'_>,
        dim: i64,
        dim_out: i64,
        num_heads: i64,
        q_pool: bool,
    ) -> Result<Self, WeightsError> {
        Ok(Self {
            qkv: Linear::new(&w.pp("qkv"), dim, 3 * dim_out)?,
            proj: Linear::new(&w.pp("proj"), dim_out, dim_out)?,
            dim_out,
            num_heads,
            q_pool,
        })
    }

    /// The type that it computes in.
    pub(super) fn kind(&self) -> Kind {
        self.qkv.kind()
    }

    /// `[B, H, W, dim]` to `[B, H W, dim_out]`, or a quarter of the cells with pooled queries; of `windows` what they
    /// [make](Windows::of_layers) of a grid.
    pub(super) fn forward(&self, x: &Tensor, windows: Option<&Windows>) -> Result<Tensor, TchError> {
        let qkv = self.qkv.forward(x)?;
        let qkv = match windows {
            Some(windows) => windows.to_windows(qkv)?,
            None => qkv,
        };
        let (b, h, w, _) = qkv.size4()?;
        let part = |i: i64| qkv.f_narrow(-1, i * self.dim_out, self.dim_out);
        let heads = |x: &Tensor| {
            x.f_reshape([b, -1, self.num_heads, self.dim_out / self.num_heads])?.f_transpose(1, 2)
        };
        let q = if self.q_pool { max_pool(&part(0)?)? } else { part(0)? };
        let (q, k, v) = (heads(&q)?, heads(&part(1)?)?, heads(&part(2)?)?);
        let out = attention(&q, &k, &v)?;
        let cells = if self.q_pool { (h / 2) * (w / 2) } else { h * w };
        let out = out.f_transpose(1, 2)?.f_reshape([b, cells, self.dim_out])?;
        self.proj.forward(&match windows {
            Some(windows) if self.q_pool => windows.pooled().to_cells(out)?,
            Some(windows) => windows.to_cells(out)?,
            None => out,
        })
    }
}

/// Maxima of 2x2 cells: `[B, H, W, C]` to `[B, H / 2, W / 2, C]`.
pub(super) fn max_pool(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_permute([0, 3, 1, 2])?.f_max_pool2d(2, 2, 0, 1, false)?.f_permute([0, 2, 3, 1])
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::nn::LayerNorm;
    use crate::nn::window::Padding;
    use crate::weights::Generated;

    #[test]
    fn windows_of_a_grid_say_and_teach_what_padded_windows_do() -> Result<(), WeightsError> {
        tch::manual_seed(9);
        let (generated, cpu) = (Generated::new(21), (Kind::Float, Device::Cpu));
        let w = Weights::new(&generated, Device::Cpu);
        let norm = LayerNorm::new(&w.pp("norm1"), 32, 1e-6)?;
        for (q_pool, padding) in [
            (false, Padding::After),
            (true, Padding::After),
            (false, Padding::Before),
            (true, Padding::Before),
        ] {
            let attention = MultiScaleAttention::new(&w.pp("attn"), 32, 64, 2, q_pool)?;
            let whole = Windows::new(14, [20, 16]);
            let (pooled, [h, w]) = if q_pool { (whole.pooled(), [10, 8]) } else { (whole, [20, 16]) };
            let grid = Tensor::randn([2, 20, 16, 32], cpu);
            let (shortcut, asked) = (Tensor::randn([2, h, w, 64], cpu), Tensor::randn([2, h, w, 64], cpu));
            let of = |windows: Windows, pooled: Windows| -> Result<[Tensor; 2], TchError> {
                let x = grid.copy().set_requires_grad(true);
                let normed = windows.normed(&x, &norm, Kind::Float, padding)?;
                let sum = pooled.add(&shortcut, attention.forward(&normed, Some(&windows))?)?;
                (&sum * &asked).sum(Kind::Float).backward();
                Ok([sum.detach(), x.grad()])
            };
            let enough = |windows: Windows| windows.of_layers(1 << 20, Device::Cpu);
            assert_ne!(enough(whole), whole);
            let (one, other) = (of(whole, pooled)?, of(enough(whole), enough(pooled))?);
            for (one, other) in one.iter().zip(&other) {
                let off = f64::try_from((one - other).norm() / one.norm())?;
                assert!(off < 1e-5, "pooled {q_pool}, {padding:?}: {off}");
            }
        }
        Ok(())
    }
}
