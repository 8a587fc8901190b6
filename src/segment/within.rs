//! A predicted mask within a person's box.

use tch::{Kind, TchError, Tensor};

use super::device::read;
use super::network::OUTSIDE;

/// A predicted mask cut to a person's box.
pub(super) struct Within {
    /// `[1, 1, n, n]`; outside of the box nothing is of the class.
    pub(super) logits: Tensor,
    /// IoU of the box and of the smallest box around what is left of the mask; 0 if nothing is.
    pub(super) agreement: f64,
}

impl Within {
    /// Cuts `interim` logits `[1, 1, n, n]` to a box in pixels of an input with sides of `side`.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn new(interim: &Tensor, [x0, y0, x1, y1]: [f32; 4], side: i64) -> Result<Self, TchError> {
        let (_, _, rows, columns) = interim.size4()?;
        // Cells whose centres lie in it.
        let within = |low: f32, high: f32, n: i64| -> Result<Tensor, TchError> {
            let scale = n as f64 / side.max(1) as f64;
            let centres = Tensor::f_arange(n, (Kind::Float, interim.device()))?.f_add_scalar(0.5)?;
            let (low, high) = (f64::from(low) * scale, f64::from(high) * scale);
            centres.f_ge(low)?.f_logical_and(&centres.f_le(high)?)
        };
        let (x, y) = (within(x0, x1, columns)?, within(y0, y1, rows)?);
        let inside = y.f_unsqueeze(1)?.f_logical_and(&x.f_unsqueeze(0)?)?;
        let logits = interim.f_where_scalarother(&inside, OUTSIDE)?;
        let found = logits.f_gt(0.0)?.f_reshape([rows, columns])?;
        // Columns and rows with anything of the mask, columns and rows of the box; in one copy from the device.
        let sides = [found.f_any_dim(0, false)?, found.f_any_dim(1, false)?, x, y];
        let all = Vec::<bool>::try_from(&read(&Tensor::f_cat(&sides, 0)?)?)?;
        let mut rest = &all[..];
        // From the first to the last, in cells.
        let spans = [columns, rows, columns, rows].map(|n| {
            let (of, others) = rest.split_at_checked(n as usize).unwrap_or((rest, &[]));
            rest = others;
            let ends = of.iter().position(|&is| is).zip(of.iter().rposition(|&is| is));
            ends.map_or(0, |(first, last)| last + 1 - first)
        });
        let [left, whole] = [spans[0] * spans[1], spans[2] * spans[3]].map(|cells| cells as f64);
        Ok(Self { logits, agreement: left / whole.max(1.0) })
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Logits of 16 x 16 cells, 1 in `x0..x1`, `y0..y1` and -1 elsewhere.
    fn logits([x0, y0, x1, y1]: [i64; 4]) -> Tensor {
        let all = Tensor::full([1, 1, 16, 16], -1.0, (Kind::Float, Device::Cpu));
        let _ = all.narrow(2, y0, y1 - y0).narrow(3, x0, x1 - x0).fill_(1.0);
        all
    }

    #[test]
    fn a_mask_is_cut_to_the_box_and_compared_with_it() {
        // An input of 64 pixels: a cell is 4 of them.
        let cut = |mask: [i64; 4], bbox| Within::new(&logits(mask), bbox, 64).unwrap();
        let same = cut([2, 4, 6, 10], [8.0, 16.0, 24.0, 40.0]);
        assert_eq!(same.agreement, 1.0);
        let half = cut([2, 4, 4, 10], [8.0, 16.0, 24.0, 40.0]);
        assert_eq!(half.agreement, 0.5);
        // What lies outside does not count, and goes.
        let wide = cut([0, 0, 16, 16], [8.0, 16.0, 24.0, 40.0]);
        assert_eq!(wide.agreement, 1.0);
        assert_eq!(wide.logits.gt(0.0).sum(Kind::Int64).int64_value(&[]), 4 * 6);
        assert_eq!(wide.logits.min().double_value(&[]), OUTSIDE);
        for nothing in
            [cut([8, 4, 12, 10], [8.0, 16.0, 24.0, 40.0]), cut([2, 4, 6, 10], [9.0, 17.0, 9.5, 17.5])]
        {
            assert_eq!(nothing.agreement, 0.0);
        }
    }
}
