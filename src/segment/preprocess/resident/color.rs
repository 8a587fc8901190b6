//! The bytes of a picture as RGB, to the bit as [`Rgb`](crate::frame::Rgb) has it.

use tch::{Kind, TchError, Tensor};

use crate::frame::{ImageView, PixelFormat, Rgb, Yuv, YuvColor};

/// A picture whose bytes are to be sent.
#[derive(Clone, Copy, Debug)]
pub enum Picture<'a> {
    /// As the stream has it.
    View(&'a ImageView<'a>),
    /// As packed RGB, where somebody has needed that anyway.
    Rgb(&'a Rgb),
}

/// How the bytes of a picture lie, without what its rows are padded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    width: usize,
    height: usize,
    /// `None` is three bytes a pixel.
    format: Option<PixelFormat>,
    color: YuvColor,
}

impl Picture<'_> {
    /// Width and height.
    pub fn size(&self) -> (usize, usize) {
        match self {
            Self::View(view) => (view.width(), view.height()),
            Self::Rgb(rgb) => (rgb.width, rgb.height),
        }
    }

    /// The green of row `y`, into as many bytes as the row has pixels; zero where it has not.
    pub fn green_row(&self, y: usize, out: &mut [u8]) {
        match self {
            Self::View(view) => view.green_row(y, out),
            Self::Rgb(rgb) => {
                out.fill(0);
                let row = rgb.data.get(y * rgb.width * 3..).unwrap_or_default();
                out.iter_mut().zip(row.as_chunks::<3>().0).for_each(|(out, px)| *out = px[1]);
            }
        }
    }

    /// Whether it has all of its pixels, and any.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::View(_) => true,
            Self::Rgb(rgb) => !rgb.data.is_empty() && rgb.data.len() == self.layout().bytes(),
        }
    }

    /// How its bytes will lie.
    pub fn layout(&self) -> Layout {
        let (width, height) = self.size();
        match self {
            Self::View(view) => Layout { width, height, format: Some(view.format()), color: view.color() },
            Self::Rgb(_) => Layout { width, height, format: None, color: YuvColor::default() },
        }
    }

    /// Writes its rows one after the other, plane by plane, into [`Layout::bytes`] bytes.
    pub fn write(&self, out: &mut [u8]) {
        match self {
            Self::Rgb(rgb) => out.iter_mut().zip(&rgb.data).for_each(|(out, v)| *out = *v),
            Self::View(view) => {
                let planes = view.format().planes(view.width(), view.height());
                let mut rest = out;
                for (plane, (row, rows)) in planes.into_iter().enumerate() {
                    let (own, after) = rest.split_at_mut((row * rows).min(rest.len()));
                    for (y, out) in own.chunks_exact_mut(row).enumerate() {
                        out.copy_from_slice(view.row(plane, y));
                    }
                    rest = after;
                }
            }
        }
    }
}

impl Layout {
    /// Rows and bytes of a row of each plane.
    fn planes(&self) -> Vec<(usize, usize)> {
        match self.format {
            Some(format) => format.planes(self.width, self.height),
            None => vec![(3 * self.width, self.height)],
        }
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.planes().iter().map(|(row, rows)| row * rows).sum()
    }

    /// The picture that `bytes` `[len]` hold as whole numbers 0 to 255 `[3, height, width]`, `f32`; of a gray one the only channel.
    ///
    /// # Errors
    /// libtorch's.
    pub fn rgb(&self, bytes: &Tensor) -> Result<Tensor, TchError> {
        let (w, h) = (self.width as i64, self.height as i64);
        let mut at = 0;
        let mut planes = Vec::with_capacity(3);
        for (row, rows) in self.planes() {
            let plane = bytes.f_narrow(0, at, (row * rows) as i64)?;
            planes.push(plane.f_reshape([rows as i64, row as i64])?);
            at += (row * rows) as i64;
        }
        let pixels = |of: i64| planes[0].f_reshape([h, w, of])?.f_permute([2, 0, 1]);
        let float = |t: Tensor| t.f_to_kind(Kind::Float);
        match self.format {
            None => float(pixels(3)?),
            Some(PixelFormat::Gray8) => float(planes[0].f_unsqueeze(0)?),
            Some(PixelFormat::I420) => self.of_yuv(&planes[0], &planes[1], &planes[2]),
            Some(PixelFormat::Nv12) => {
                let (rows, row) = planes[1].size2()?;
                let pairs = planes[1].f_reshape([rows, row / 2, 2])?;
                self.of_yuv(&planes[0], &pairs.f_select(2, 0)?, &pairs.f_select(2, 1)?)
            }
            Some(format) => {
                // The formats left are packed; their order is known.
                let order = format.packed_rgb().unwrap_or([0, 1, 2]);
                let all = pixels(4)?;
                let channels: Vec<Tensor> =
                    order.iter().map(|&c| all.f_select(0, c as i64)).collect::<Result<_, _>>()?;
                float(Tensor::f_stack(&channels, 0)?)
            }
        }
    }

    /// Luma `[h, w]`, chroma of half the sides, rounded up.
    fn of_yuv(&self, luma: &Tensor, u: &Tensor, v: &Tensor) -> Result<Tensor, TchError> {
        let (w, h) = (self.width as i64, self.height as i64);
        let yuv = Yuv::new(self.color);
        let by = |t: &Tensor, factor: i32| t.f_mul_scalar(i64::from(factor));
        let whole = |t: &Tensor, less: i32| t.f_to_kind(Kind::Int)?.f_sub_scalar(i64::from(less));
        let wide = |t: &Tensor| -> Result<Tensor, TchError> {
            let (rows, columns) = t.size2()?;
            let cells =
                whole(t, 128)?.f_reshape([rows, 1, columns, 1])?.f_expand([rows, 2, columns, 2], false)?;
            cells.f_reshape([2 * rows, 2 * columns])?.f_narrow(0, 0, h)?.f_narrow(1, 0, w)
        };
        let luma = by(&whole(luma, yuv.y_off)?, yuv.y)?;
        let (u, v) = (wide(u)?, wide(v)?);
        let red = luma.f_add(&by(&v, yuv.rv)?)?;
        let green = luma.f_add(&by(&u, yuv.gu)?)?.f_add(&by(&v, yuv.gv)?)?;
        let blue = luma.f_add(&by(&u, yuv.bu)?)?;
        let mut sums = Tensor::f_stack(&[red, green, blue], 0)?.f_add_scalar_(0x8000)?;
        let mut bytes = sums.f_bitwise_right_shift_tensor_scalar_(16)?;
        bytes.f_clamp_(0, 255)?.f_to_kind(Kind::Float)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Plane, YuvMatrix};

    #[test]
    fn every_format_is_the_rgb_of_the_cpu_to_the_bit() {
        let colors = [YuvMatrix::Bt601, YuvMatrix::Bt709, YuvMatrix::Bt2020]
            .into_iter()
            .flat_map(|matrix| [false, true].map(|full_range| YuvColor { matrix, full_range }));
        let colors: Vec<YuvColor> = colors.collect();
        for format in PixelFormat::ALL {
            for (width, height) in [(64, 48), (33, 7), (1, 1), (2, 5)] {
                // Rows with padding that is not to be seen.
                let planes: Vec<(Vec<u8>, usize)> = format
                    .planes(width, height)
                    .iter()
                    .enumerate()
                    .map(|(plane, (row, rows))| {
                        let stride = row + 5;
                        let noise = |i: usize| ((i * 7919 + plane * 31) % 251) as u8 + (i % 5) as u8;
                        ((0..stride * rows).map(noise).collect(), stride)
                    })
                    .collect();
                for &color in &colors {
                    let planes =
                        planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
                    let view = ImageView::new(format, width, height, color, planes).unwrap();
                    let expected = Rgb::from(&view);
                    for picture in [Picture::View(&view), Picture::Rgb(&expected)] {
                        let layout = picture.layout();
                        let mut bytes = vec![0; layout.bytes()];
                        picture.write(&mut bytes);
                        let found = layout.rgb(&Tensor::from_slice(&bytes)).unwrap();
                        let mut green = vec![1; width];
                        picture.green_row(height - 1, &mut green);
                        let last = expected.data[(height - 1) * width * 3..].as_chunks::<3>().0;
                        assert!(green.iter().eq(last.iter().map(|px| &px[1])), "{format:?} {color:?}");
                        let found = found.expand([3, height as i64, width as i64], false);
                        let found = found.permute([1, 2, 0]).to_kind(Kind::Uint8).contiguous().view([-1]);
                        assert!(Vec::<u8>::try_from(found).unwrap() == expected.data, "{format:?} {color:?}");
                    }
                }
            }
        }
    }
}
