//! Square windows over `[B, H, W, C]`.

use tch::{Kind, TchError, Tensor};

#[cfg(target_arch = "x86_64")]
use super::avx512::rows::{Row, add_rows};
use super::common::LayerNorm;

/// When a grid is padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// Before it is normalised: padded cells are what the norm makes of zeros.
    Before,
    /// After that: padded cells are zeros.
    After,
}

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

    /// Which cell of the grids lies at a place among those of the windows, if it is not padding.
    #[cfg(target_arch = "x86_64")]
    fn cell(&self, place: usize) -> Option<usize> {
        // None is negative.
        let [h, w] = self.size.map(|n| n as usize);
        let ([rows, cols], s) = (self.grid.map(|n| n as usize), self.side as usize);
        let (window, inside) = (place / (s * s), place % (s * s));
        let (b, y, x) = (window / (rows * cols), window / cols % rows, window % cols);
        let (y, x) = (y * s + inside / s, x * s + inside % s);
        (y < h && x < w).then_some((b * h + y) * w + x)
    }

    /// `[B, H, W, C]` normalised and cut into `[B windows, side, side, C]`, in the type `kind`.
    pub(super) fn normed(
        &self,
        x: &Tensor,
        norm: &LayerNorm,
        kind: Kind,
        padding: Padding,
    ) -> Result<Tensor, TchError> {
        #[cfg(target_arch = "x86_64")]
        if let (Kind::BFloat16, (b, h, w, c)) = (kind, x.size4()?)
            && [h, w] == self.size
        {
            let ([rows, cols], s) = (self.grid, self.side);
            let none = match padding {
                Padding::Before => Row::OfZeros,
                Padding::After => Row::Zeros,
            };
            let of = |place| self.cell(place).map_or(none, Row::Of);
            if let Some(windows) = norm.rows(x, &[b * rows * cols, s, s, c], of)? {
                return Ok(windows);
            }
        }
        match padding {
            Padding::Before => norm.forward_as(&self.partition(x)?, kind),
            // Before it is cut: half as much is copied then.
            Padding::After => self.partition(&norm.forward_as(x, kind)?),
        }
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
    use tch::Device;

    use super::*;
    use crate::nn::common::roundings;
    use crate::weights::{Generated, Weights, WeightsError};

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_place_and_its_cell_belong_together() {
        for (side, [h, w]) in [(8, [16, 24]), (7, [16, 24]), (14, [16, 20]), (4, [3, 9])] {
            let windows = Windows::new(side, [h, w]);
            let cells = (2 * h * w) as usize;
            assert!((0..cells).all(|cell| windows.cell(windows.place(cell)) == Some(cell)));
            let places = (2 * windows.grid[0] * windows.grid[1] * side * side) as usize;
            assert_eq!((0..places).filter_map(|place| windows.cell(place)).count(), cells);
        }
    }

    #[test]
    fn a_grid_is_padded_before_or_after_its_norm() -> Result<(), WeightsError> {
        tch::manual_seed(7);
        let generated = Generated::new(11);
        let norm = LayerNorm::new(&Weights::new(&generated, Device::Cpu).pp("norm1"), 32, 1e-6)?;
        for (side, size) in [(8, [16, 24]), (7, [16, 24]), (14, [20, 16])] {
            let windows = Windows::new(side, size);
            let x = Tensor::randn([2, size[0], size[1], 32], (Kind::Float, Device::Cpu));
            for padding in [Padding::Before, Padding::After] {
                let exact = windows.normed(&x, &norm, Kind::Float, padding)?;
                let ours = windows.normed(&x, &norm, Kind::BFloat16, padding)?;
                assert_eq!((ours.size(), ours.kind()), (exact.size(), Kind::BFloat16));
                let off = roundings(&ours, &exact, 1e-2);
                assert!(off <= 1.02, "{side} in {size:?}, {padding:?}: {off} roundings");
            }
            let [before, after] = [Padding::Before, Padding::After]
                .map(|padding| windows.normed(&x, &norm, Kind::BFloat16, padding));
            assert_eq!(before? == after?, windows.padding() == [0, 0], "they differ in padding alone");
            let other = Tensor::zeros([2, size[1], size[0] + side, 32], (Kind::Float, Device::Cpu));
            assert!(windows.normed(&other, &norm, Kind::BFloat16, Padding::After).is_err());
        }
        Ok(())
    }

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
