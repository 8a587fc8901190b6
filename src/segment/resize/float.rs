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

    // Rows are resized once, when the first window that needs them comes.
    let slots = rows.widest();
    let mut ring = vec![0f32; slots * 3 * new_width];
    let mut wide = vec![[0f32; 4]; width];
    let mut next = 0;
    let (red, rest) = out.values.split_at_mut(side * side);
    let (green, blue) = rest.split_at_mut(side * side);
    let planes =
        red.chunks_exact_mut(side).zip(green.chunks_exact_mut(side)).zip(blue.chunks_exact_mut(side));
    for (((red, green), blue), (first, weights)) in planes.zip(rows.iter()) {
        for row in next.max(first)..first + weights.len() {
            for (wide, rgb) in wide.iter_mut().zip(src[row * width * 3..].chunks_exact(3)) {
                // Four lanes, so that a pixel is one vector.
                *wide = [f32::from(rgb[0]), f32::from(rgb[1]), f32::from(rgb[2]), 0.0];
            }
            along_row(&wide, &columns, &mut ring[row % slots * 3 * new_width..][..3 * new_width]);
        }
        next = next.max(first + weights.len());
        for (c, out) in [red, green, blue].into_iter().enumerate() {
            let out = &mut out[..new_width];
            out.fill(affine.offset[c]);
            for (i, &weight) in weights.iter().enumerate() {
                let row = &ring[((first + i) % slots * 3 + c) * new_width..][..new_width];
                let weight = weight * affine.scale[c];
                for (out, &v) in out.iter_mut().zip(row) {
                    *out += v * weight;
                }
            }
        }
    }
}

/// One row, three planes of `out.len() / 3`.
fn along_row(row: &[[f32; 4]], columns: &Windows<f32>, out: &mut [f32]) {
    let (red, rest) = out.split_at_mut(out.len() / 3);
    let (green, blue) = rest.split_at_mut(rest.len() / 2);
    for (((red, green), blue), (first, weights)) in red.iter_mut().zip(green).zip(blue).zip(columns.iter()) {
        let mut sums = [0f32; 4];
        for (pixel, &weight) in row[first..].iter().zip(weights) {
            for c in 0..4 {
                sums[c] += pixel[c] * weight;
            }
        }
        [*red, *green, *blue, _] = sums;
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
