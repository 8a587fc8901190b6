//! Pillow's antialiased resize of 8-bit pictures, to the byte: along the rows first, then along the columns, in fixed point
//! with rounding to 8 bits in between.
//!
//! Pillow 13 begins with the columns where that is less work, which changes some bytes by one. The networks were trained and
//! published with the versions before it, so the order here is fixed.

use super::window::{Kernel, Windows};

/// Bits after the point: 32 less 8 for the value and 2 for weights outside 0..=1.
const BITS: u32 = 22;
const HALF: i32 = 1 << (BITS - 1);

/// Resizes `src`, rows of `width` pixels of `C` bytes.
///
/// Sizes must not be zero and `src` must have `width * height * C` bytes; else the answer is black.
pub fn resize_pil<const C: usize>(
    src: &[u8],
    (width, height): (usize, usize),
    (new_width, new_height): (usize, usize),
    kernel: Kernel,
) -> Vec<u8> {
    let mut dst = vec![0; new_width * new_height * C];
    let (row_len, new_row_len) = (width * C, new_width * C);
    if src.len() != row_len * height || src.is_empty() || dst.is_empty() {
        return dst;
    }
    let fixed = |len, new_len| Windows::antialiased(len, new_len, kernel, |v| v).map(to_fixed);
    // An axis that keeps its length is not touched.
    let (wide, tall) = (new_width == width, new_height == height);
    match (wide, tall) {
        (true, true) => dst.copy_from_slice(src),
        (false, true) => along_rows::<C>(src, row_len, &fixed(width, new_width), new_row_len, &mut dst),
        (true, false) => along_columns(src, row_len, &fixed(height, new_height), &mut dst),
        (false, false) => {
            let mut between = vec![0; new_row_len * height];
            along_rows::<C>(src, row_len, &fixed(width, new_width), new_row_len, &mut between);
            along_columns(&between, new_row_len, &fixed(height, new_height), &mut dst);
        }
    }
    dst
}

/// Rounds halves away from zero.
fn to_fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << BITS);
    (scaled + if weight < 0.0 { -0.5 } else { 0.5 }) as i32
}

/// What [`to_fixed`] leaves of a weight.
pub(super) fn fixed_weight(weight: f64) -> f32 {
    (f64::from(to_fixed(weight)) / f64::from(1 << BITS)) as f32
}

fn to_byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

fn along_rows<const C: usize>(
    src: &[u8],
    row_len: usize,
    windows: &Windows<i32>,
    new_row_len: usize,
    dst: &mut [u8],
) {
    for (row, out) in src.chunks_exact(row_len).zip(dst.chunks_exact_mut(new_row_len)) {
        for (out, (first, weights)) in out.chunks_exact_mut(C).zip(windows.iter()) {
            let mut sums = [HALF; C];
            for (pixel, &weight) in row[first * C..].chunks_exact(C).zip(weights) {
                for c in 0..C {
                    sums[c] += i32::from(pixel[c]) * weight;
                }
            }
            for c in 0..C {
                out[c] = to_byte(sums[c]);
            }
        }
    }
}

fn along_columns(src: &[u8], row_len: usize, windows: &Windows<i32>, dst: &mut [u8]) {
    let mut sums = vec![0; row_len];
    for (out, (first, weights)) in dst.chunks_exact_mut(row_len).zip(windows.iter()) {
        sums.fill(HALF);
        for (row, &weight) in src[first * row_len..].chunks_exact(row_len).zip(weights) {
            for (sum, &v) in sums.iter_mut().zip(row) {
                *sum += i32::from(v) * weight;
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = to_byte(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_picture_stays_flat_at_any_size() {
        for kernel in [Kernel::Bilinear, Kernel::Bicubic] {
            for (w, h, nw, nh) in
                [(64, 48, 102, 77), (37, 53, 9, 11), (30, 7, 30, 9), (1, 9, 28, 9), (5, 5, 5, 5)]
            {
                for v in [0, 1, 127, 255] {
                    let out = resize_pil::<3>(&vec![v; w * h * 3], (w, h), (nw, nh), kernel);
                    assert_eq!(out, vec![v; nw * nh * 3], "{w}x{h} to {nw}x{nh}");
                }
            }
        }
    }

    #[test]
    fn a_picture_that_is_too_short_is_black() {
        assert_eq!(resize_pil::<3>(&[9; 11], (2, 2), (1, 1), Kernel::Bilinear), [0; 3]);
        assert!(resize_pil::<1>(&[], (0, 0), (0, 3), Kernel::Bicubic).is_empty());
    }
}
