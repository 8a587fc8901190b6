//! Square windows over `[B, H, W, C]`.

use tch::{Device, Kind, TchError, Tensor};

#[cfg(target_arch = "x86_64")]
use super::avx512::rows::{Row, add_rows};
use super::common::{LayerNorm, add_to};

/// Padded values for each place of the windows from which on cutting what layers say costs less than asking them about padding as well: the
/// width by the share of padding. It did at 161 (SAM 2.1 tiny at 512, x 0.95 of its encoder), not at 108 (LiteMedSAM) and 63.
const WORTH: i64 = 144;

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
    /// Linear layers take the grid's cells and one row of padding, and windows are cut of what they say.
    by_cells: bool,
}

impl Windows {
    pub(super) fn new(side: i64, size: [i64; 2]) -> Self {
        // Sizes come from tensors and are not negative.
        Self { side, grid: size.map(|n| (n + side - 1) / side), size, by_cells: false }
    }

    /// The same for attention `width` wide on `device`. Padded cells are all alike, so its linear layers are asked about one of them: rows
    /// `[B H W + 1, C]` go in, and windows are [cut](Self::to_windows) of what comes out. On a CPU, where there is enough padding: a GPU has to
    /// be told first which cell goes where, and what is cut is three to six times as wide.
    pub(super) fn of_layers(self, width: i64, device: Device) -> Self {
        let places: i64 = self.grid.iter().map(|n| n * self.side).product();
        let padded = places - self.size.iter().product::<i64>();
        Self { by_cells: device == Device::Cpu && padded * width >= WORTH * places, ..self }
    }

    /// The same windows after pooling 2x2 inside each of them.
    pub(super) fn pooled(self) -> Self {
        Self { side: self.side / 2, size: self.size.map(|n| n / 2), ..self }
    }

    fn padding(&self) -> [i64; 2] {
        [0, 1].map(|i| self.grid[i] * self.side - self.size[i])
    }

    /// Where a cell of the grids `[B, H, W]` is among those of the windows.
    fn place(&self, cell: usize) -> usize {
        // None is negative.
        let [h, w] = self.size.map(|n| n as usize);
        let ([rows, cols], s) = (self.grid.map(|n| n as usize), self.side as usize);
        let (b, y, x) = (cell / (h * w), cell / w % h, cell % w);
        ((b * rows + y / s) * cols + x / s) * s * s + y % s * s + x % s
    }

    /// Which cell of the grids lies at a place among those of the windows, if it is not padding.
    fn cell(&self, place: usize) -> Option<usize> {
        // None is negative.
        let [h, w] = self.size.map(|n| n as usize);
        let ([rows, cols], s) = (self.grid.map(|n| n as usize), self.side as usize);
        let (window, inside) = (place / (s * s), place % (s * s));
        let (b, y, x) = (window / (rows * cols), window / cols % rows, window % cols);
        let (y, x) = (y * s + inside / s, x * s + inside % s);
        (y < h && x < w).then_some((b * h + y) * w + x)
    }

    /// `[B, H, W, C]` normalised and cut into `[B windows, side, side, C]`, in the type `kind`; or rows `[B H W + 1, C]`, see
    /// [`of_layers`](Self::of_layers).
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
            // None is negative.
            let cells = (b * h * w) as usize;
            let found = if self.by_cells {
                norm.rows(x, &[b * h * w + 1, c], |row| if row < cells { Row::Of(row) } else { none })?
            } else {
                norm.rows(x, &[b * rows * cols, s, s, c], |place| self.cell(place).map_or(none, Row::Of))?
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        match padding {
            Padding::Before => norm.forward_as(&self.partition(x)?, kind),
            // Before it is cut: half as much is copied then.
            Padding::After => self.partition(&norm.forward_as(x, kind)?),
        }
    }

    /// `[B, H, W, C]` to `[B windows, side, side, C]`, or to rows `[B H W + 1, C]`. Padding is zeros.
    pub(super) fn partition(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (b, h, w, c) = x.size4()?;
        if [h, w] != self.size {
            return Err(TchError::Shape(format!("expected a grid of {:?}, got {:?}", self.size, [h, w])));
        }
        if self.by_cells {
            return Tensor::f_cat(
                &[x.f_reshape([-1, c])?, x.f_new_zeros([1, c], (x.kind(), x.device()))?],
                0,
            );
        }
        let ([rows, cols], s) = (self.grid, self.side);
        let [bottom, right] = self.padding();
        let padded = match [bottom, right] {
            [0, 0] => x.shallow_clone(),
            _ => x.f_constant_pad_nd([0, 0, 0, right, 0, bottom])?,
        };
        padded.f_reshape([b, rows, s, cols, s, c])?.f_transpose(2, 3)?.f_reshape([b * rows * cols, s, s, c])
    }

    /// What a layer says of rows `[B H W + 1, C]`, as windows `[B windows, side, side, C]`; nothing changes where it was of windows.
    pub(super) fn to_windows(self, said: Tensor) -> Result<Tensor, TchError> {
        if !self.by_cells {
            return Ok(said);
        }
        let ([h, w], [rows, cols], s) = (self.size, self.grid, self.side);
        let (with_padding, c) = said.size2()?;
        let (cells, b) = (with_padding - 1, (with_padding - 1) / (h * w).max(1));
        let places = b * rows * cols * s * s;
        let of: Vec<i64> =
            (0..places as usize).map(|place| self.cell(place).map_or(cells, |cell| cell as i64)).collect();
        let (of, kind) = (Tensor::f_from_slice(&of)?, said.kind());
        // Gradients of all padding are added up in the row's own type.
        let said = if said.requires_grad() { said.f_to_kind(Kind::Float)? } else { said };
        said.f_index_select(0, &of)?.f_to_kind(kind)?.f_reshape([b * rows * cols, s, s, c])
    }

    /// Windows `[B windows, side * side, C]` as cells `[B H W, C]` without the padding, for a layer to take; nothing changes where it takes
    /// windows.
    pub(super) fn to_cells(self, windows: Tensor) -> Result<Tensor, TchError> {
        if !self.by_cells {
            return Ok(windows);
        }
        let ([h, w], [rows, cols]) = (self.size, self.grid);
        let (count, _, c) = windows.size3()?;
        let cells = count / (rows * cols).max(1) * h * w;
        let of: Vec<i64> = (0..cells as usize).map(|cell| self.place(cell) as i64).collect();
        windows.f_reshape([-1, c])?.f_index_select(0, &Tensor::f_from_slice(&of)?)
    }

    /// The residual sum `shortcut [B, H, W, C]` + `windows [B windows, side * side, C]`, in the grid's order and without the
    /// padding. Without padding the windows are put in order by the sum itself. Cells `[B H W, C]` are in order.
    pub(super) fn add(&self, shortcut: &Tensor, windows: Tensor) -> Result<Tensor, TchError> {
        let (b, h, w, c) = shortcut.size4()?;
        if self.by_cells {
            return add_to(windows.f_reshape(shortcut.size())?, shortcut);
        }
        let ([rows, cols], s) = (self.grid, self.side);
        #[cfg(target_arch = "x86_64")]
        if windows.numel() as i64 == b * rows * cols * s * s * c
            && let Some(sum) = add_rows(shortcut, &windows, |row| self.place(row))?
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
    use super::*;
    use crate::nn::common::roundings;
    use crate::weights::{Generated, Weights, WeightsError};

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
            for windows in [windows, Windows { by_cells: true, ..windows }] {
                assert!(windows.normed(&other, &norm, Kind::BFloat16, Padding::After).is_err());
            }
        }
        Ok(())
    }

    #[test]
    fn layers_are_asked_about_cells_where_padding_is_much() -> Result<(), WeightsError> {
        tch::manual_seed(5);
        let generated = Generated::new(12);
        let norm = LayerNorm::new(&Weights::new(&generated, Device::Cpu).pp("norm1"), 384, 1e-6)?;
        let worth = |side, size| Windows::new(side, size).of_layers(384, Device::Cpu).by_cells;
        assert!(worth(14, [32, 32]) && worth(14, [4, 4]) && worth(7, [12, 8]));
        assert!(!worth(14, [64, 64]) && !worth(8, [128, 128]) && !worth(14, [28, 14]));
        assert!(!Windows::new(14, [32, 32]).of_layers(384, Device::Cuda(0)).by_cells);
        for (side, size) in [(14, [32, 32]), (14, [4, 6]), (4, [6, 10])] {
            let whole = Windows::new(side, size);
            let cells = Windows { by_cells: true, ..whole };
            let x = Tensor::randn([2, size[0], size[1], 384], (Kind::Float, Device::Cpu));
            for kind in [Kind::Float, Kind::BFloat16] {
                for padding in [Padding::Before, Padding::After] {
                    let windows = whole.normed(&x, &norm, kind, padding)?;
                    let rows = cells.normed(&x, &norm, kind, padding)?;
                    assert_eq!(rows.size(), [2 * size[0] * size[1] + 1, 384]);
                    assert_eq!(cells.to_windows(rows)?, windows, "{side} in {size:?}, {kind:?}, {padding:?}");
                    assert_eq!(whole.to_windows(windows.shallow_clone())?, windows);
                    for (whole, cells, side) in
                        [(whole, cells, side), (whole.pooled(), cells.pooled(), side / 2)]
                    {
                        let said = windows.f_narrow(1, 0, side)?.f_narrow(2, 0, side)?;
                        let said = said.f_reshape([-1, side * side, 384])?;
                        let [h, w] = whole.size;
                        let shortcut = x.f_narrow(1, 0, h)?.f_narrow(2, 0, w)?.f_contiguous()?;
                        let same = cells.to_cells(said.shallow_clone())?;
                        assert_eq!(same.size(), [2 * h * w, 384]);
                        let sum = cells.add(&shortcut, same)?;
                        assert_eq!(sum, whole.add(&shortcut, said)?);
                    }
                }
            }
            assert_eq!(cells.to_windows(cells.partition(&x)?)?, whole.partition(&x)?);
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
            let exact = windows.add(&shortcut, out.to_kind(Kind::Float))?;
            assert_eq!(windows.add(&shortcut, out)?, exact);
        }
        Ok(())
    }
}
