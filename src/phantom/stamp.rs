//! The frame index as a barcode, to prove that an output frame is the frame it claims to be.
//!
//! Three rows of eight square cells in the top left corner: a white and a black guard, 16 bits of index, 6 bits of
//! CRC, most significant bit first. The levels keep clear of black and white so that neither limited-range luma nor
//! lossy coding clips them.

const COLUMNS: usize = 8;
const ROWS: usize = 3;
const WHITE: u8 = 235;
const BLACK: u8 = 16;
/// Guards at least this far apart, or there is no stamp: more than half of what was drawn, so that neither is gray.
const MIN_CONTRAST: u32 = 128;

/// Side of a cell in a picture of this width: 4 px, and more in larger pictures.
fn cell(width: usize) -> usize {
    (width / 320 * 4).max(4)
}

/// CRC-6 with the polynomial x^6 + x + 1 (ITU-T G.704), started at all ones so that an index of 0 is not all black.
fn crc6(index: u16) -> u32 {
    let mut crc = 0x3f_u32;
    for bit in (0..16).rev() {
        let top = (crc >> 5) ^ u32::from(index >> bit & 1);
        crc = (crc << 1) & 0x3f;
        if top & 1 == 1 {
            crc ^= 0x03;
        }
    }
    crc
}

/// The 24 cells as bits, first cell in bit 23.
fn code(index: u64) -> u32 {
    let low = (index & 0xffff) as u16;
    0b10 << 22 | u32::from(low) << 6 | crc6(low)
}

/// Draws the low 16 bits of `index`. `luma` is `width` pixels a row, without padding.
pub(super) fn draw_stamp(luma: &mut [u8], width: usize, index: u64) {
    let (side, bits) = (cell(width), code(index));
    for (y, row) in luma.chunks_exact_mut(width).take(ROWS * side).enumerate() {
        for (x, px) in row.iter_mut().take(COLUMNS * side).enumerate() {
            let n = y / side * COLUMNS + x / side;
            *px = if bits >> (23 - n) & 1 == 1 { WHITE } else { BLACK };
        }
    }
}

/// The frame index, modulo 65536, that a phantom with `stamp` drew into a picture of this size.
///
/// `luma` holds rows of `width` luma samples, `stride` bytes apart. `None` where there is no stamp or it cannot be
/// read without doubt: the guards are missing, a cell is gray, or the CRC does not fit.
pub fn read_stamp(luma: &[u8], stride: usize, width: usize, height: usize) -> Option<u64> {
    let side = cell(width);
    if height < ROWS * side || width < COLUMNS * side || stride < width {
        return None;
    }
    // The middle half of a cell: its border suffers from coding.
    let (from, to) = (side / 4, side - side / 4);
    let mut levels = [0_u32; ROWS * COLUMNS];
    for (n, level) in levels.iter_mut().enumerate() {
        let (x, y) = (n % COLUMNS * side, n / COLUMNS * side);
        for row in y + from..y + to {
            let start = row.checked_mul(stride)?.checked_add(x)?;
            let cells = luma.get(start.checked_add(from)?..start.checked_add(to)?)?;
            *level += cells.iter().map(|&v| u32::from(v)).sum::<u32>();
        }
        *level /= ((to - from) * (to - from)) as u32;
    }
    let contrast = levels[0].checked_sub(levels[1]).filter(|&c| c >= MIN_CONTRAST)?;
    let middle = levels[1] + contrast / 2;
    let mut bits = 0;
    for level in levels {
        if level.abs_diff(middle) < contrast / 8 {
            return None;
        }
        bits = bits << 1 | u32::from(level > middle);
    }
    let index = u64::from(bits >> 6 & 0xffff);
    (code(index) == bits).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::super::{Phantom, PhantomConfig};
    use super::*;

    /// A quick phantom.
    fn small() -> PhantomConfig {
        PhantomConfig { width: 320, height: 240, ..PhantomConfig::default() }
    }

    fn phantom(config: &PhantomConfig) -> Phantom {
        Phantom::new(config.clone()).unwrap()
    }

    #[test]
    fn the_stamp_survives_blur_and_quantisation() {
        for (width, height) in [(64, 64), (320, 240), (640, 480), (1280, 720), (1000, 700)] {
            let config =
                PhantomConfig { width, height, stamp: true, motion_mm: 0.0, ..PhantomConfig::default() };
            let mut p = phantom(&config);
            for index in [0, 1, 2, 0x5555, 0xaaaa, 0xffff] {
                let image = p.image(index);
                assert_eq!(read_stamp(&image, width, width, height), Some(index), "{width}x{height}");
                // Limited range, a stride, then quantised to steps of 24, then a 3x3 box blur.
                let stride = width + 13;
                let mut coarse = vec![0_u8; stride * height];
                for (to, from) in coarse.chunks_exact_mut(stride).zip(image.chunks_exact(width)) {
                    for (t, f) in to.iter_mut().zip(from) {
                        let limited = 16.0 + f64::from(*f) * 219.0 / 255.0;
                        *t = ((limited / 24.0).round() * 24.0) as u8;
                    }
                }
                let mut soft = coarse.clone();
                for y in 1..height - 1 {
                    for x in 1..width - 1 {
                        let sum: u32 =
                            (0..9).map(|k| u32::from(coarse[(y + k / 3 - 1) * stride + x + k % 3 - 1])).sum();
                        soft[y * stride + x] = (sum / 9) as u8;
                    }
                }
                assert_eq!(read_stamp(&soft, stride, width, height), Some(index), "{width}x{height} blurred");
            }
            assert_eq!(read_stamp(&p.image(65_536 + 77), width, width, height), Some(77), "the index wraps");
        }
    }

    #[test]
    fn a_damaged_or_missing_stamp_is_not_read() {
        let config = PhantomConfig { stamp: true, ..small() };
        let (w, h) = (config.width, config.height);
        let image = phantom(&config).image(1234);
        // Each of the 24 cells inverted, alone and with every other.
        let invert = |image: &mut [u8], cell: usize| {
            for y in cell / 8 * 4..cell / 8 * 4 + 4 {
                for v in &mut image[y * w + cell % 8 * 4..][..4] {
                    *v = 251 - *v;
                }
            }
        };
        for first in 0..24 {
            for second in first..24 {
                let mut bad = image.clone();
                invert(&mut bad, first);
                if second > first {
                    invert(&mut bad, second);
                }
                assert_eq!(read_stamp(&bad, w, w, h), None, "cells {first} and {second} inverted");
            }
        }
        for mixed in 0..24 {
            let mut bad = image.clone();
            for y in mixed / 8 * 4..mixed / 8 * 4 + 4 {
                bad[y * w + mixed % 8 * 4..][..4].fill(125);
            }
            assert_eq!(read_stamp(&bad, w, w, h), None, "cell {mixed} gray");
        }
        for level in [0, 128, 255] {
            assert_eq!(read_stamp(&vec![level; w * h], w, w, h), None);
        }
        let plain = phantom(&PhantomConfig { stamp: false, ..config }).image(1234);
        assert_eq!(read_stamp(&plain, w, w, h), None);
        assert_eq!(read_stamp(&image[..w * 9], w, w, h), None, "too few bytes for the rows claimed");
        assert_eq!(read_stamp(&image, w - 1, w, h), None, "a stride below the width");
        assert_eq!(read_stamp(&image, usize::MAX, w, h), None);
        assert_eq!(read_stamp(&[], 0, 0, 0), None);
    }
}
