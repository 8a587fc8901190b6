//! A mark in the picture: which frame this is and when it arrived, to be read off the frame that a person would see.
//!
//! Twelve by seven square cells, drawn three times: at the right edge below the status line and below the middle, and at the left
//! edge between them, where neither the status, the legend nor "RESEARCH USE ONLY" is drawn. Four guards (white, black, white,
//! black), 24 bits of frame, 40 bits of microseconds, 16 bits of CRC, most significant bit first. A class's tint moves both levels
//! alike; a copy that a contour or a label crosses is refused by the CRC, and another stands for it, or all together.

use crate::frame::{ImageView, ImageViewMut, PixelFormat};

const COLUMNS: usize = 12;
const ROWS: usize = 7;
const CELLS: usize = COLUMNS * ROWS;
/// As in [`crate::phantom::read_stamp`]: clear of what limited range clips.
const WHITE: u8 = 235;
const BLACK: u8 = 16;
/// Guards at least this far apart, or there is no mark. A tint of half the picture's strength leaves 110.
const MIN_CONTRAST: u32 = 80;
const COPIES: usize = 3;
/// Left and upper ends of the copies, as shares of the room that a copy leaves.
const PLACES: [(f64, f64); COPIES] = [(1.0, 0.22), (1.0, 0.66), (0.0, 0.44)];
const FRAME_BITS: u32 = 24;
const TIME_BITS: u32 = 40;

/// What a frame's mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Number of the frame, modulo 2^24.
    pub frame: u32,
    /// When it arrived, in microseconds of the run's clock, modulo 2^40 (twelve days).
    pub micros: u64,
}

/// Why a picture has no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// No room for the mark.
    #[error("a picture of {width}x{height} pixels has no room for the mark: expected at least {}x{}", smallest().0, smallest().1)]
    Size {
        /// Width of the picture.
        width: usize,
        /// Height of the picture.
        height: usize,
    },
}

/// The smallest picture with room for all copies.
fn smallest() -> (usize, usize) {
    (COLUMNS * cell(0), 4 * ROWS * cell(0))
}

/// Side of a cell in a picture of this width: 4 px, and more in larger pictures.
fn cell(width: usize) -> usize {
    (width / 640 * 4).max(4)
}

/// CRC-16/CCITT of the 64 bits, started at all ones so that zeros are not all black.
fn crc(payload: u64) -> u16 {
    payload.to_be_bytes().into_iter().fold(0xffff_u16, |mut crc, byte| {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
        }
        crc
    })
}

/// The 84 cells as bits, first cell in bit 83.
fn code(payload: u64) -> u128 {
    0b1010 << 80 | u128::from(payload) << 16 | u128::from(crc(payload))
}

/// Left and upper ends of the copies.
fn places(width: usize, height: usize) -> Result<[(usize, usize); COPIES], MarkError> {
    let side = cell(width);
    let small = smallest();
    if width < small.0 || height < small.1.max(4 * ROWS * side) {
        return Err(MarkError::Size { width, height });
    }
    let room = (width - COLUMNS * side, height - ROWS * side);
    let at = |room: usize, share: f64| (room as f64 * share) as usize;
    Ok(PLACES.map(|(x, y)| (at(room.0, x), at(room.1, y))))
}

/// Draws `mark` into its places of `image`.
///
/// # Errors
/// A picture without room.
pub fn draw_mark(image: &mut ImageViewMut<'_>, mark: Mark) -> Result<(), MarkError> {
    let (width, height) = {
        let view = image.as_view();
        (view.width(), view.height())
    };
    let (step, samples) = luma(image.as_view().format());
    let side = cell(width);
    let frame = u64::from(mark.frame) & ((1 << FRAME_BITS) - 1);
    let bits = code(frame << TIME_BITS | mark.micros & ((1 << TIME_BITS) - 1));
    let copies = places(width, height)?;
    let plane = image.plane_mut(0);
    for (left, top) in copies {
        for y in 0..ROWS * side {
            let start = (top + y) * plane.stride + left * step;
            let row = plane.data.get_mut(start..start + COLUMNS * side * step).unwrap_or_default();
            for (x, pixel) in row.chunks_exact_mut(step).enumerate() {
                let n = y / side * COLUMNS + x / side;
                let level = if bits >> (CELLS - 1 - n) & 1 == 1 { WHITE } else { BLACK };
                for sample in pixel.iter_mut().take(samples) {
                    *sample = level;
                }
            }
        }
    }
    Ok(())
}

/// Bytes from one sample of luma to the next, and how many bytes of a pixel carry its colour.
fn luma(format: PixelFormat) -> (usize, usize) {
    match format {
        PixelFormat::Gray8 | PixelFormat::I420 | PixelFormat::Nv12 => (1, 1),
        PixelFormat::Rgba | PixelFormat::Bgra | PixelFormat::Rgbx | PixelFormat::Bgrx => (4, 3),
    }
}

/// The mark of `image`, from whichever copy can be read without doubt, else from all of them together; `None` if that fails, too.
pub fn read_mark(image: &ImageView<'_>) -> Option<Mark> {
    let copies = places(image.width(), image.height()).ok()?.map(|at| levels(image, at));
    let [a, b, c] = copies;
    let each = [a?, b?, c?];
    // Where one copy is crossed the others outweigh it: what crosses it also brings its levels nearer to each other.
    let together = std::array::from_fn(|n| each.iter().map(|levels| levels[n]).sum::<u32>() / COPIES as u32);
    each.iter().chain([&together]).find_map(decoded)
}

/// Mean levels of the cells of the copy whose left upper corner is given.
fn levels(image: &ImageView<'_>, (left, top): (usize, usize)) -> Option<[u32; CELLS]> {
    let side = cell(image.width());
    let (step, samples) = luma(image.format());
    // In packed formats green is the second byte in either order, and nearest to luma.
    let offset = samples / 2;
    // The middle half of a cell: its border suffers from coding.
    let (from, to) = (side / 4, side - side / 4);
    let mut levels = [0_u32; CELLS];
    for (n, level) in levels.iter_mut().enumerate() {
        let (x, y) = (left + n % COLUMNS * side, top + n / COLUMNS * side);
        for row in y + from..y + to {
            let cells = image.row(0, row).get((x + from) * step..(x + to) * step)?;
            *level += cells.iter().skip(offset).step_by(step).map(|&v| u32::from(v)).sum::<u32>();
        }
        *level /= ((to - from) * (to - from)) as u32;
    }
    Some(levels)
}

fn decoded(levels: &[u32; CELLS]) -> Option<Mark> {
    let white = levels[0].min(levels[2]);
    let black = levels[1].max(levels[3]);
    let contrast = white.checked_sub(black).filter(|&c| c >= MIN_CONTRAST)?;
    let middle = black + contrast / 2;
    let bits = levels.iter().fold(0_u128, |bits, &level| bits << 1 | u128::from(level > middle));
    let payload = (bits >> 16) as u64;
    (code(payload) == bits)
        .then_some(Mark { frame: (payload >> TIME_BITS) as u32, micros: payload & ((1 << TIME_BITS) - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Plane, PlaneMut, YuvColor};

    const MARKS: [Mark; 4] = [
        Mark { frame: 0, micros: 0 },
        Mark { frame: 1, micros: 999_999 },
        Mark { frame: 0xff_ffff, micros: (1 << 40) - 1 },
        Mark { frame: 0x5a_5a5a, micros: 0x55_aaaa_5555 },
    ];

    fn view(format: PixelFormat, w: usize, h: usize, data: &[u8], step: usize) -> Option<Mark> {
        let planes = vec![Plane { data, stride: w * step }];
        read_mark(&ImageView::new(format, w, h, YuvColor::default(), planes).unwrap())
    }

    fn marked(format: PixelFormat, w: usize, h: usize, step: usize, mark: Mark) -> Vec<u8> {
        let mut data = vec![120_u8; w * h * step];
        let planes = vec![PlaneMut { data: &mut data, stride: w * step }];
        let mut image = ImageViewMut::new(format, w, h, YuvColor::default(), planes).unwrap();
        draw_mark(&mut image, mark).unwrap();
        data
    }

    #[test]
    fn a_mark_survives_tint_and_quantisation() {
        for (w, h) in [(64, 112), (160, 120), (640, 480), (1281, 721)] {
            for (format, step) in [(PixelFormat::Gray8, 1), (PixelFormat::Bgrx, 4)] {
                for mark in MARKS {
                    let mut data = marked(format, w, h, step, mark);
                    assert_eq!(view(format, w, h, &data, step), Some(mark), "{w}x{h} {format:?}");
                    for v in &mut data {
                        // Limited range, steps of 12, then a tint of a third towards gray.
                        let limited = 16.0 + f64::from(*v) * 219.0 / 255.0;
                        let coarse = (limited / 12.0).round() * 12.0;
                        *v = (coarse * 0.67 + 130.0 * 0.33) as u8;
                    }
                    assert_eq!(view(format, w, h, &data, step), Some(mark), "{w}x{h} {format:?} tinted");
                }
            }
        }
    }

    #[test]
    fn one_copy_is_enough_and_damage_is_not_read() {
        let (w, h) = (320, 240);
        let data = marked(PixelFormat::Gray8, w, h, 1, MARKS[3]);
        let copies = places(w, h).unwrap();
        for kept in 0..COPIES {
            let mut half = data.clone();
            for (left, top) in (0..COPIES).filter(|copy| *copy != kept).map(|copy| copies[copy]) {
                for y in 0..ROWS * 4 {
                    half[(top + y) * w + left..][..COLUMNS * 4].fill(90);
                }
            }
            assert_eq!(view(PixelFormat::Gray8, w, h, &half, 1), Some(MARKS[3]), "copy {kept} alone");
        }
        // A stripe across another row of each copy: none can be read alone.
        let mut crossed = data.clone();
        for (row, (left, top)) in copies.into_iter().enumerate() {
            for y in 0..4 {
                for v in &mut crossed[(top + (2 + row) * 4 + y) * w + left..][..COLUMNS * 4] {
                    *v = 100 + *v / 8;
                }
            }
            crossed[top * w + left..][..4].fill(200);
        }
        assert_eq!(view(PixelFormat::Gray8, w, h, &crossed, 1), Some(MARKS[3]), "all together");
        // The same cell of all copies inverted: every one of them is noticed.
        for n in 0..CELLS {
            let mut bad = data.clone();
            for (left, top) in copies {
                for y in 0..4 {
                    for v in &mut bad[(top + n / COLUMNS * 4 + y) * w + left + n % COLUMNS * 4..][..4] {
                        *v = 251 - *v;
                    }
                }
            }
            assert_eq!(view(PixelFormat::Gray8, w, h, &bad, 1), None, "cell {n} inverted");
        }
        assert_eq!(view(PixelFormat::Gray8, w, h, &vec![0; w * h], 1), None);
        let mut small = vec![0_u8; 40 * 40];
        let planes = vec![PlaneMut { data: &mut small, stride: 40 }];
        let mut image = ImageViewMut::new(PixelFormat::Gray8, 40, 40, YuvColor::default(), planes).unwrap();
        assert_eq!(draw_mark(&mut image, MARKS[0]), Err(MarkError::Size { width: 40, height: 40 }));
    }
}
