//! torch's bilinear resize of pictures in single precision, with the normalisation that follows it.

use super::window::{Kernel, Windows};

/// What becomes of a resized value (0..=255) of each channel: `value * scale + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Factor of each channel.
    pub scale: [f32; 3],
    /// Summand of each channel.
    pub offset: [f32; 3],
}

/// Three square planes of `side` x `side` values, one after the other: where a resized picture goes.
#[derive(Debug)]
pub struct Plane3<'a> {
    /// Pixels per row and rows.
    pub side: usize,
    /// `3 * side * side` values.
    pub values: &'a mut [f32],
}

/// Resizes an RGB picture into the upper left corner of `out`; the rest of `out` is left as it is.
///
/// `antialias` widens the window where the picture shrinks, as `interpolate(..., antialias=True)` does. The new size must fit
/// `out`, sizes must not be zero and `src` must have `width * height * 3` bytes; else nothing is written.
pub fn resize_float(
    src: &[u8],
    (width, height): (usize, usize),
    (new_width, new_height): (usize, usize),
    antialias: bool,
    affine: &Affine,
    out: Plane3<'_>,
) {
    let side = out.side;
    let fits = new_width <= side && new_height <= side && out.values.len() == 3 * side * side;
    if !fits || src.len() != width * height * 3 || src.is_empty() || new_width == 0 {
        return;
    }
    let windows = |len, new_len| {
        let single = |v: f64| f64::from(v as f32);
        let windows = if antialias {
            Windows::antialiased(len, new_len, Kernel::Bilinear, single)
        } else {
            Windows::plain_bilinear(len, new_len)
        };
        windows.map(|w| w as f32)
    };
    let (columns, rows) = (windows(width, new_width), windows(height, new_height));
    let axes = Axes { columns: &columns, rows: &rows };
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(src: &[u8], size: Size, axes: Axes<'_>, affine: &Affine, out: Plane3<'_>) {
            axes.resize(src, size, affine, out);
        }
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { wide(src, [width, new_width], axes, affine, out) };
    }
    axes.resize(src, [width, new_width], affine, out);
}

/// Pixels of an old row and of a new one.
type Size = [usize; 2];

/// What each new row and column is made of.
#[derive(Clone, Copy, Debug)]
struct Axes<'a> {
    columns: &'a Windows<f32>,
    rows: &'a Windows<f32>,
}

impl Axes<'_> {
    /// Rows are made first, of whole old ones with one weight each, which is what a processor does fastest; where a picture shrinks few are left
    /// for the other axis. Inlined, so that each caller has it compiled for its own kind of processor.
    #[inline(always)]
    fn resize(self, src: &[u8], [width, new_width]: Size, affine: &Affine, out: Plane3<'_>) {
        let side = out.side;
        // One value more, so that the last pixel can be read as four values as well.
        let mut row = vec![0f32; 3 * width + 1];
        let (red, rest) = out.values.split_at_mut(side * side);
        let (green, blue) = rest.split_at_mut(side * side);
        let planes =
            red.chunks_exact_mut(side).zip(green.chunks_exact_mut(side)).zip(blue.chunks_exact_mut(side));
        for (((red, green), blue), (first, weights)) in planes.zip(self.rows.iter()) {
            row.fill(0.0);
            for (old, &weight) in src.chunks_exact(3 * width).skip(first).zip(weights) {
                for (sum, &v) in row.iter_mut().zip(old) {
                    *sum += f32::from(v) * weight;
                }
            }
            let pixels = red[..new_width].iter_mut().zip(green).zip(blue).zip(self.columns.iter());
            for (((red, green), blue), (first, weights)) in pixels {
                let mut sums = [0f32; 4];
                for (pixel, &weight) in row[3 * first..].windows(4).step_by(3).zip(weights) {
                    for (sum, &v) in sums.iter_mut().zip(pixel) {
                        *sum += v * weight;
                    }
                }
                let value = |c: usize| sums[c] * affine.scale[c] + affine.offset[c];
                (*red, *green, *blue) = (value(0), value(1), value(2));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    const PLAIN: Affine = Affine { scale: [1.0; 3], offset: [0.0; 3] };

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    #[test]
    fn every_size_agrees_with_torch() {
        for (w, h, nw, nh) in [
            (64, 48, 100, 75),
            (100, 75, 64, 64),
            (33, 70, 57, 20),
            (1, 5, 9, 9),
            (200, 3, 7, 3),
            (40, 40, 40, 40),
        ] {
            let src = noise(w * h * 3);
            let side = nw.max(nh);
            for antialias in [true, false] {
                let mut values = vec![-1f32; 3 * side * side];
                resize_float(&src, (w, h), (nw, nh), antialias, &PLAIN, Plane3 { side, values: &mut values });
                let ours = Tensor::from_slice(&values).view([3, side as i64, side as i64]);
                let theirs = Tensor::from_slice(&src).view([1, h as i64, w as i64, 3]);
                let theirs = theirs.permute([0, 3, 1, 2]).to_kind(Kind::Float).contiguous();
                let size = [nh as i64, nw as i64];
                let theirs = if antialias {
                    theirs.internal_upsample_bilinear2d_aa(size, false, None, None)
                } else {
                    theirs.upsample_bilinear2d(size, false, None, None)
                };
                let inside = ours.narrow(1, 0, size[0]).narrow(2, 0, size[1]);
                let error = f64::try_from((inside - theirs.get(0)).abs().max()).unwrap();
                assert!(error < 2e-4, "{w}x{h} to {nw}x{nh}, antialias {antialias}: {error} of 255");
                let beyond = Tensor::ones([3, side as i64, side as i64], (Kind::Bool, Device::Cpu));
                let _ = beyond.narrow(1, 0, size[0]).narrow(2, 0, size[1]).fill_(0);
                assert!(
                    ours.masked_select(&beyond).eq(-1.0).all().int64_value(&[]) == 1,
                    "padding was written"
                );
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let mut values = vec![7f32; 12];
        for (src, size, new) in
            [(5, (2, 1), (2, 2)), (6, (2, 1), (3, 1)), (0, (0, 0), (1, 1)), (6, (2, 1), (0, 1))]
        {
            let out = Plane3 { side: 2, values: &mut values };
            resize_float(&vec![1; src], size, new, true, &PLAIN, out);
            assert!(values.iter().all(|&v| v == 7.0));
        }
    }
}
