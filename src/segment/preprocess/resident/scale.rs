//! A picture on the device as a network's input.

use tch::{Device, TchError, Tensor};

use super::super::input::{DEVIATION, MEAN, SAM1_DEVIATION, SAM1_MEAN};
use super::super::{Placement, Preprocess};
use crate::segment::resize::{Axis, Kernel};

/// Old positions of an axis beyond which its matrix takes more memory than a frame is worth.
const LONGEST: usize = 8192;
/// Pixels of a frame beyond which what is made of it on the way, about 40 bytes of each, is.
const MOST_PIXELS: usize = 4096 * 4096;
/// Set to 1, these round what is multiplied to ten bits, which no resize of bytes can bear.
const TF32: [&str; 2] = ["TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE"];

/// What becomes of the sums of an axis, or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    /// Nothing.
    None,
    /// To a byte after each axis, halves up.
    EachUp,
    /// To a byte at the end, halves to even.
    LastEven,
    /// A quarter of them to a byte at the end, halves up.
    LastQuarterUp,
}

/// How values become the network's.
#[derive(Debug)]
enum Values {
    /// Divided by the first number, less the mean, divided by the deviation; `[3, 1, 1]`.
    Normal(f64, Tensor, Tensor),
    /// The smallest to 0, the largest to 1.
    Range,
}

/// From pixels on the device to an input, for frames of one size. It computes what [`Preprocess::input`] does on the CPU: in the same
/// type and, where that rounds to bytes, but for sums that lie on the border of two.
#[derive(Debug)]
pub struct Scaler {
    /// `[width, new width]`; `None` leaves the axis as it is.
    columns: Option<Tensor>,
    /// `[new height, height]`.
    rows: Option<Tensor>,
    rounding: Rounding,
    /// Of the sums, before they are rounded.
    factor: f64,
    values: Values,
}

impl Scaler {
    /// For frames that lie as `placement` says, on `device`; `None` if their input is to be made on the CPU.
    ///
    /// # Errors
    /// libtorch's.
    pub fn new(how: Preprocess, placement: &Placement, device: Device) -> Result<Option<Self>, TchError> {
        let ((w, h), (nw, nh)) = (placement.frame, placement.scaled);
        let rounds = || TF32.iter().any(|name| std::env::var_os(name).is_some_and(|v| v == "1"));
        if w.max(h) > LONGEST || w * h > MOST_PIXELS || device.is_cuda() && rounds() {
            return Ok(None);
        }
        let mut factor = 1.0;
        // An axis that keeps its length is not touched.
        let axis =
            |len, new_len, of: &dyn Fn(usize, usize) -> Axis| (len != new_len).then(|| of(len, new_len));
        let both = |of: &dyn Fn(usize, usize) -> Axis| (axis(w, nw, of), axis(h, nh, of));
        let ((columns, rows), rounding) = match how {
            // The spline has a memory along its axes.
            Preprocess::MedSam => return Ok(None),
            Preprocess::LiteMedSam if (w, h) == (nw, nh) => ((None, None), Rounding::None),
            // Its fixed point rounds in between.
            Preprocess::LiteMedSam if nw > w || nh > h => return Ok(None),
            Preprocess::LiteMedSam if w.is_multiple_of(nw) && h.is_multiple_of(nh) => {
                factor = 1.0 / ((w / nw) * (h / nh)) as f64;
                let quarter = (w / nw, h / nh) == (2, 2);
                (both(&Axis::boxes), if quarter { Rounding::LastQuarterUp } else { Rounding::LastEven })
            }
            Preprocess::LiteMedSam => (both(&Axis::area), Rounding::LastEven),
            Preprocess::Sam1 => (both(&|a, b| Axis::pil(a, b, Kernel::Bilinear)), Rounding::EachUp),
            Preprocess::Sam2Video => (both(&|a, b| Axis::pil(a, b, Kernel::Bicubic)), Rounding::EachUp),
            Preprocess::Sam2 => (both(&|a, b| Axis::bilinear(a, b, true)), Rounding::None),
            Preprocess::Sam2Rad | Preprocess::Sam2RadSquare => {
                (both(&|a, b| Axis::bilinear(a, b, false)), Rounding::None)
            }
        };
        let channels = |of: [f64; 3]| {
            Tensor::f_from_slice(&of.map(|v| v as f32))?.f_reshape([3, 1, 1])?.f_to_device(device)
        };
        let values = match how {
            Preprocess::LiteMedSam | Preprocess::MedSam => Values::Range,
            Preprocess::Sam1 => Values::Normal(
                1.0,
                channels(SAM1_MEAN.map(f64::from))?,
                channels(SAM1_DEVIATION.map(f64::from))?,
            ),
            Preprocess::Sam2 | Preprocess::Sam2Video | Preprocess::Sam2Rad | Preprocess::Sam2RadSquare => {
                Values::Normal(255.0, channels(MEAN)?, channels(DEVIATION)?)
            }
        };
        let matrix = |axis: Axis| {
            let size = [axis.new_len as i64, axis.len as i64];
            Tensor::f_from_slice(&axis.weights)?.f_reshape(size)?.f_to_device(device)
        };
        let rows = rows.map(matrix).transpose()?;
        let columns = columns.map(|axis| matrix(axis)?.f_tr()?.f_contiguous()).transpose()?;
        Ok(Some(Self { columns, rows, rounding, factor, values }))
    }

    /// Values 0 to 255 `[3, height, width]`, or `[1, height, width]` of a gray picture, as input `[1, 3, side, side]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn input(&self, pixels: &Tensor, placement: &Placement) -> Result<Tensor, TchError> {
        let mut values = pixels.shallow_clone();
        for (axis, across) in [(&self.columns, true), (&self.rows, false)] {
            let Some(axis) = axis else { continue };
            values = if across { values.f_matmul(axis)? } else { axis.f_matmul(&values)? };
            if self.rounding == Rounding::EachUp {
                values = values.f_add_scalar(0.5)?.f_floor()?.f_clamp(0.0, 255.0)?;
            }
        }
        values = match self.rounding {
            Rounding::None | Rounding::EachUp => values,
            Rounding::LastEven => values.f_mul_scalar(self.factor)?.f_round()?.f_clamp(0.0, 255.0)?,
            Rounding::LastQuarterUp => values.f_add_scalar(2.0)?.f_mul_scalar(self.factor)?.f_floor()?,
        };
        values = match &self.values {
            Values::Normal(scale, mean, deviation) => {
                values.f_div_scalar(*scale)?.f_sub(mean)?.f_div(deviation)?
            }
            Values::Range => {
                let of = |t: Tensor| t.f_reshape([1, 1, 1]);
                let (low, high) = (of(values.f_min()?)?, of(values.f_max()?)?);
                values.f_sub(&low)?.f_div(&high.f_sub(&low)?.f_clamp_min(1e-8)?)?
            }
        };
        let (side, (width, height)) = (placement.side, placement.scaled);
        let input = values.f_expand([1, 3, height as i64, width as i64], false)?;
        if !placement.is_padded() {
            return input.f_contiguous();
        }
        input.f_constant_pad_nd([0, (side - width) as i64, 0, (side - height) as i64])
    }
}
