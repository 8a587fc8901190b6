//! The frame index as a barcode, to prove that an output frame is the frame it claims to be.
//!
//! Three rows of eight square cells in the top left corner: a white and a black guard, 16 bits of index, 6 bits of
//! CRC, most significant bit first. The levels keep clear of black and white so that neither limited-range luma nor
//! lossy coding clips them.

const COLUMNS: usize = 8;
const ROWS: usize = 3;
const WHITE: u8 = 235;
const BLACK: u8 = 16;
/// Guards further apart than this, or there is no stamp: half of what was drawn.
const MIN_CONTRAST: u32 = 110;

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
