//! Square windows over `[B, H, W, C]`.

use tch::{TchError, Tensor};

#[cfg(target_arch = "x86_64")]
use crate::nn::avx512::rows::add_rows;

/// How a grid is cut into windows; the grid is padded at the bottom and on the right until they fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    /// Side of a window.
    side: i64,
    /// Windows from top to bottom and from left to right.
    grid: [i64; 2],
    /// Height and width of what is cut.
    size: [i64; 2],
}

impl Windows {
    pub(super) fn new(side: i64, size: [i64; 2]) -> Self {
        // Sizes come from tensors and are not negative.
        Self { side, grid: size.map(|n| (n + side - 1) / side), size }
    }

    /// The same windows after pooling 2x2 inside each of them.
    pub(super) fn pooled(self) -> Self {
        Self { side: self.side / 2, size: self.size.map(|n| n / 2), ..self }
    }

    fn padding(&self) -> [i64; 2] {
        [0, 1].map(|i| self.grid[i] * self.side - self.size[i])
    }

    /// Where a cell of the grids `[B, H, W]` is among those of the windows.
    #[cfg(target_arch = "x86_64")]
    fn place(&self, cell: usize) -> usize {
        // None is negative.
        let [h, w] = self.size.map(|n| n as usize);
        let ([rows, cols], s) = (self.grid.map(|n| n as usize), self.side as usize);
        let (b, y, x) = (cell / (h * w), cell / w % h, cell % w);
        ((b * rows + y / s) * cols + x / s) * s * s + y % s * s + x % s
    }

    /// `[B, H, W, C]` to `[B windows, side, side, C]`. Padding is zeros.
    pub(super) fn partition(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (b, _, _, c) = x.size4()?;
        let ([rows, cols], s) = (self.grid, self.side);
        let [bottom, right] = self.padding();
        let padded = match [bottom, right] {
            [0, 0] => x.shallow_clone(),
            _ => x.f_constant_pad_nd([0, 0, 0, right, 0, bottom])?,
        };
        padded.f_reshape([b, rows, s, cols, s, c])?.f_transpose(2, 3)?.f_reshape([b * rows * cols, s, s, c])
    }

    /// The residual sum `shortcut [B, H, W, C]` + `windows [B windows, side * side, C]`, in the grid's order and without the
    /// padding. Without padding the windows are put in order by the sum itself.
    pub(super) fn add(&self, shortcut: &Tensor, windows: &Tensor) -> Result<Tensor, TchError> {
        let (b, h, w, c) = shortcut.size4()?;
        let ([rows, cols], s) = (self.grid, self.side);
        #[cfg(target_arch = "x86_64")]
        if windows.numel() as i64 == b * rows * cols * s * s * c
            && let Some(sum) = add_rows(shortcut, windows, |row| self.place(row))?
        {
            return Ok(sum);
        }
        let ordered = windows.f_reshape([b, rows, cols, s, s, c])?.f_transpose(2, 3)?;
        if self.padding() == [0, 0] {
            shortcut.f_reshape([b, rows, s, cols, s, c])?.f_add(&ordered)?.f_reshape([b, h, w, c])
        } else {
            let padded = ordered.f_reshape([b, rows * s, cols * s, c])?;
            shortcut.f_add(&padded.f_narrow(1, 0, h)?.f_narrow(2, 0, w)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn sums_of_bfloat16_are_in_the_grids_order() -> Result<(), TchError> {
        tch::manual_seed(3);
        for (side, size, pooled) in
            [(8, [16, 24], false), (7, [16, 24], false), (14, [16, 20], true), (4, [8, 8], true)]
        {
            let windows = Windows::new(side, size);
            let windows = if pooled { windows.pooled() } else { windows };
            let [h, w] = windows.size;
            let count = 2 * windows.grid[0] * windows.grid[1];
            let shortcut = Tensor::randn([2, h, w, 32], (Kind::Float, Device::Cpu));
            let out = Tensor::randn([count, windows.side * windows.side, 32], (Kind::Float, Device::Cpu));
            let out = out.to_kind(Kind::BFloat16);
            // In `f32` it is libtorch that puts them in order.
            assert_eq!(windows.add(&shortcut, &out)?, windows.add(&shortcut, &out.to_kind(Kind::Float))?);
        }
        Ok(())
    }
}
