//! The bytes of a picture as RGB, to the bit as [`Rgb`](crate::frame::Rgb) has it.

use tch::{Kind, TchError, Tensor};

use crate::frame::{ImageView, PixelFormat, Yuv, YuvColor};

/// Bytes that [`write`] needs.
pub fn len(view: &ImageView<'_>) -> usize {
    view.format().planes(view.width(), view.height()).iter().map(|(row, rows)| row * rows).sum()
}

/// Writes the rows of `view` one after the other, plane by plane, without what they are padded with.
pub fn write(view: &ImageView<'_>, out: &mut [u8]) {
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

/// The picture of which [`write`] made `bytes` `[len]`, as whole numbers 0 to 255 `[3, height, width]`, `f32`; of a gray one the only
/// channel.
///
/// # Errors
/// libtorch's.
pub fn rgb(view: &ImageView<'_>, bytes: &Tensor) -> Result<Tensor, TchError> {
    let (w, h) = (view.width() as i64, view.height() as i64);
    let mut at = 0;
    let mut planes = Vec::with_capacity(3);
    for (row, rows) in view.format().planes(view.width(), view.height()) {
        let plane = bytes.f_narrow(0, at, (row * rows) as i64)?;
        planes.push(plane.f_reshape([rows as i64, row as i64])?);
        at += (row * rows) as i64;
    }
    let float = |t: Tensor| t.f_to_kind(Kind::Float);
    match view.format() {
        PixelFormat::Gray8 => float(planes[0].f_unsqueeze(0)?),
        PixelFormat::I420 => of_yuv(view.color(), &planes[0], &planes[1], &planes[2]),
        PixelFormat::Nv12 => {
            let (rows, row) = planes[1].size2()?;
            let pairs = planes[1].f_reshape([rows, row / 2, 2])?;
            of_yuv(view.color(), &planes[0], &pairs.f_select(2, 0)?, &pairs.f_select(2, 1)?)
        }
        format => {
            // The formats left are packed; their order is known.
            let order = format.packed_rgb().unwrap_or([0, 1, 2]);
            let all = planes[0].f_reshape([h, w, 4])?.f_permute([2, 0, 1])?;
            let channels: Vec<Tensor> =
                order.iter().map(|&c| all.f_select(0, c as i64)).collect::<Result<_, _>>()?;
            float(Tensor::f_stack(&channels, 0)?)
        }
    }
}

/// Luma `[h, w]`, chroma of half the sides, rounded up.
fn of_yuv(color: YuvColor, luma: &Tensor, u: &Tensor, v: &Tensor) -> Result<Tensor, TchError> {
    let (h, w) = luma.size2()?;
    let yuv = Yuv::new(color);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Plane, Rgb, YuvMatrix};
    use crate::segment::preprocess::Picture;

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
                    let mut bytes = vec![0; len(&view)];
                    write(&view, &mut bytes);
                    let found = rgb(&view, &Tensor::from_slice(&bytes)).unwrap();
                    let found = found.expand([3, height as i64, width as i64], false);
                    let found = found.permute([1, 2, 0]).to_kind(Kind::Uint8).contiguous().view([-1]);
                    assert!(Vec::<u8>::try_from(found).unwrap() == expected.data, "{format:?} {color:?}");
                    for picture in [Picture::View(&view), Picture::Rgb(&expected)] {
                        for (y, row) in expected.data.chunks_exact(width * 3).enumerate() {
                            let mut green = vec![1; width];
                            picture.green_row(y, &mut green);
                            assert!(green.iter().eq(row.iter().skip(1).step_by(3)), "{format:?} {color:?}");
                        }
                    }
                }
            }
        }
    }
}
