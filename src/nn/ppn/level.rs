//! One level of image features and what classes make of it.

use tch::{Kind, TchError, Tensor};

use super::positions::Positions;
use crate::nn::common::Conv2d;

/// Image cells of every class after a layer.
#[derive(Debug)]
pub(super) struct Dense {
    /// `[B K, h w, C]`.
    pub(super) cells: Tensor,
    pub(super) h: i64,
    pub(super) w: i64,
}

impl Dense {
    /// As a picture, `[B K, C, h, w]`, the channels innermost in memory.
    pub(super) fn picture(&self) -> Result<Tensor, TchError> {
        let (b, _, c) = self.cells.size3()?;
        self.cells.f_reshape([b, self.h, self.w, c])?.f_permute([0, 3, 1, 2])
    }
}

/// A layer's keys are `adapter(features) + bias + nearest(dense)`, for scores with `position` added. This holds the part that is the same
/// for all classes, and never adds up the whole before it must.
///
/// Methods take rows of `B K` pairs of image and class, the class running fastest, and the dense cells of the layer before.
#[derive(Debug)]
pub(super) struct Level {
    /// `[B, c, H W]`.
    features: Tensor,
    /// `[C, c]`, none where the features are as wide as the keys.
    adapter: Option<Tensor>,
    /// `[C]`.
    bias: Option<Tensor>,
    /// `adapter(features) + bias`, `[B, H W, C]`.
    cells: Tensor,
    /// `[H, C / 2]`.
    rows: Tensor,
    /// `[W, C / 2]`.
    columns: Tensor,
    h: i64,
    w: i64,
}

impl Level {
    /// `features` `[B, c, H, W]`; `bias` `[C]` is added where there is no adapter, which has its own.
    pub(super) fn new(
        features: &Tensor,
        adapter: Option<&Conv2d>,
        bias: Option<&Tensor>,
        positions: &Positions,
    ) -> Result<Self, TchError> {
        let (b, width, h, w) = features.size4()?;
        let features = features.f_to_kind(Kind::Float)?.f_reshape([b, width, h * w])?;
        let transposed = features.f_transpose(1, 2)?;
        let (adapter, bias, cells) = match adapter {
            Some(conv) => {
                let (weight, bias) = conv.as_linear()?;
                let cells = transposed.f_linear(&weight, bias.as_ref())?;
                (Some(weight), bias, cells)
            }
            None => {
                let cells = bias.map_or_else(|| Ok(transposed.shallow_clone()), |b| transposed.f_add(b))?;
                (None, bias.map(Tensor::shallow_clone), cells.f_contiguous()?)
            }
        };
        let half = cells.size3()?.2 / 2;
        let (rows, columns) = (positions.axis(h, half, &cells)?, positions.axis(w, half, &cells)?);
        Ok(Self { features, adapter, bias, cells, rows, columns, h, w })
    }

    /// Number of images `B`.
    pub(super) fn images(&self) -> i64 {
        self.cells.size().first().copied().unwrap_or(0)
    }

    /// Number of cells `H W`.
    pub(super) fn cells(&self) -> i64 {
        self.h * self.w
    }

    /// The level of one image.
    pub(super) fn image(&self, i: i64) -> Result<Self, TchError> {
        let share = |t: &Option<Tensor>| t.as_ref().map(Tensor::shallow_clone);
        Ok(Self {
            features: self.features.f_narrow(0, i, 1)?,
            adapter: share(&self.adapter),
            bias: share(&self.bias),
            cells: self.cells.f_narrow(0, i, 1)?,
            rows: self.rows.shallow_clone(),
            columns: self.columns.shallow_clone(),
            ..*self
        })
    }

    /// Products of `rows` `[B K, R, C]` with every cell and its position, `[B K, R, H W]`, plus `constant` `[B K, R]`.
    pub(super) fn scores(
        &self,
        rows: &Tensor,
        constant: Option<&Tensor>,
        dense: Option<&Dense>,
    ) -> Result<Tensor, TchError> {
        let (bk, r, c) = rows.size3()?;
        let images = self.images();
        let half = c / 2;
        // A position is a row's encoding and a column's: two small products instead of one with every cell.
        let mut of_rows = rows.f_narrow(2, 0, half)?.f_matmul(&self.rows.f_transpose(0, 1)?)?;
        let of_columns = rows.f_narrow(2, half, half)?.f_matmul(&self.columns.f_transpose(0, 1)?)?;
        if let Some(bias) = &self.bias {
            of_rows = of_rows.f_add(&rows.f_matmul(bias)?.f_unsqueeze(-1)?)?;
        }
        if let Some(constant) = constant {
            of_rows = of_rows.f_add(&constant.f_unsqueeze(-1)?)?;
        }
        let sum = match dense {
            Some(dense) => {
                let [up, across] = self.blocks(dense)?;
                // Cells of a block share the dense part: it is multiplied at its own resolution.
                let of_dense = rows.f_matmul(&dense.cells.f_transpose(1, 2)?)?;
                let of_dense = of_dense.f_reshape([bk, r, dense.h, 1, dense.w])?;
                let of_rows = of_rows.f_reshape([bk, r, dense.h, up, 1])?.f_add(&of_dense)?;
                let of_columns = of_columns.f_reshape([bk, r, 1, 1, dense.w, across])?;
                of_rows.f_unsqueeze(-1)?.f_add(&of_columns)?
            }
            None => of_rows.f_unsqueeze(-1)?.f_add(&of_columns.f_unsqueeze(-2)?)?,
        };
        // The classes of an image stand side by side in one product with its features.
        let sum = sum.f_reshape([images, bk / images.max(1) * r, self.cells()])?;
        let rows = rows.f_reshape([images, bk / images.max(1) * r, c])?;
        let rows = match &self.adapter {
            Some(adapter) => rows.f_matmul(adapter)?,
            None => rows,
        };
        add_product(sum, &rows, &self.features)?.f_reshape([bk, r, self.cells()])
    }

    /// Sums of the cells weighted by `attention` `[B K, R, H W]`, which sums to one over the cells: `[B K, R, C]`.
    pub(super) fn context(&self, attention: &Tensor, dense: Option<&Dense>) -> Result<Tensor, TchError> {
        let (bk, r, cells) = attention.size3()?;
        let images = self.images();
        let of_image = attention.f_reshape([images, bk / images.max(1) * r, cells])?;
        let mut seen = of_image.f_matmul(&self.features.f_transpose(1, 2)?)?;
        if let Some(adapter) = &self.adapter {
            seen = seen.f_matmul(&adapter.f_transpose(0, 1)?)?;
        }
        if let Some(bias) = &self.bias {
            seen = seen.f_add(bias)?;
        }
        let seen = seen.f_reshape([bk, r, -1])?;
        let Some(dense) = dense else { return Ok(seen) };
        let blocks = self.blocks(dense)?;
        let by_block = if blocks == [1, 1] {
            attention.shallow_clone()
        } else {
            let picture = attention.f_reshape([bk, r, self.h, self.w])?;
            let sums = picture.f_avg_pool2d(blocks, blocks, [0, 0], false, false, Some(1))?;
            sums.f_reshape([bk, r, dense.h * dense.w])?
        };
        seen.f_add(&by_block.f_matmul(&dense.cells)?)
    }

    /// The cells plus `values` `[B K, R, C]` weighted by `attention` `[B K, R, H W]`: `[B K, H W, C]`.
    pub(super) fn updated(
        &self,
        attention: &Tensor,
        values: &Tensor,
        dense: Option<&Dense>,
    ) -> Result<Tensor, TchError> {
        let (bk, _, c) = values.size3()?;
        let images = self.images();
        let weights = attention.f_transpose(1, 2)?;
        let Some(dense) = dense else {
            let classes = bk / images.max(1);
            let cells = self.cells.f_unsqueeze(1)?.f_expand([images, classes, self.cells(), c], false)?;
            return cells.f_reshape([bk, self.cells(), c])?.f_baddbmm(&weights, values, 1.0, 1.0);
        };
        let [up, across] = self.blocks(dense)?;
        let shared = self.cells.f_reshape([images, 1, dense.h, up, dense.w, across, c])?;
        let own = dense.cells.f_reshape([images, -1, dense.h, 1, dense.w, 1, c])?;
        let cells = shared.f_add(&own)?.f_reshape([bk, self.cells(), c])?;
        add_product(cells, &weights, values)
    }

    /// Cells of this level that a dense cell spans, down and across.
    fn blocks(&self, dense: &Dense) -> Result<[i64; 2], TchError> {
        if dense.h < 1 || dense.w < 1 || self.h % dense.h != 0 || self.w % dense.w != 0 {
            return Err(TchError::Shape(format!(
                "a level of {} x {} cells cannot follow one of {} x {}",
                self.h, self.w, dense.h, dense.w
            )));
        }
        Ok([self.h / dense.h, self.w / dense.w])
    }

    /// The layer's result as what the next level adds.
    pub(super) fn dense(&self, cells: Tensor) -> Dense {
        Dense { cells, h: self.h, w: self.w }
    }
}

/// `x + a b` for an `x` that nobody else holds, by batches: in place unless a gradient is wanted.
fn add_product(mut x: Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor, TchError> {
    if x.requires_grad() || a.requires_grad() || b.requires_grad() {
        x.f_baddbmm(a, b, 1.0, 1.0)
    } else {
        x.f_baddbmm_(a, b)
    }
}
