//! Stored samples to the 8-bit picture that is shown.

use super::attributes::{Format, Photometric};
use super::codec::Samples;
use super::scan::malformed;
use crate::cine::CineError;
use crate::cine::gray::Window;
use crate::frame::PixelFormat;

/// How a loop's samples are shown; fixed for the whole loop.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rendering {
    /// Rescale slope and intercept.
    pub(super) rescale: (f64, f64),
    /// Gray window, in rescaled values.
    pub(super) window: Option<Window>,
    /// First index and colours of PALETTE COLOR.
    pub(super) palette: Option<(i64, Vec<[u8; 3]>)>,
}

impl Rendering {
    /// The frame as [`PixelFormat::Gray8`] or [`PixelFormat::Rgbx`].
    ///
    /// The first frame of a deep gray loop without a window fixes the window of all.
    ///
    /// # Errors
    /// Fewer bytes than the format needs.
    pub(super) fn render(
        &mut self,
        format: &Format,
        samples: &Samples<'_>,
    ) -> Result<(PixelFormat, Vec<u8>), CineError> {
        let area = usize::from(format.rows) * usize::from(format.columns);
        let per_pixel = match samples.photometric {
            Photometric::Gray { .. } | Photometric::Palette => 1,
            Photometric::Ybr422 => 2,
            _ => 3,
        };
        let needed = area * per_pixel * usize::from(format.bits_allocated / 8);
        let bytes = samples.bytes.get(..needed).ok_or_else(|| {
            malformed(format!("a frame needs {needed} bytes, {} are there", samples.bytes.len()))
        })?;
        match samples.photometric {
            Photometric::Gray { inverted } => Ok((PixelFormat::Gray8, self.gray(format, bytes, inverted))),
            Photometric::Palette => Ok((PixelFormat::Rgbx, self.palette(format, bytes))),
            photometric => Ok((PixelFormat::Rgbx, color(format, samples.planar, photometric, bytes))),
        }
    }

    fn gray(&mut self, format: &Format, bytes: &[u8], inverted: bool) -> Vec<u8> {
        let (slope, intercept) = self.rescale;
        let shown = |value: i64| value as f64 * slope + intercept;
        let window = *self.window.get_or_insert_with(|| {
            let (low, high) = full_range(format);
            let ends = (shown(low).min(shown(high)), shown(low).max(shown(high)));
            if format.bits_stored <= 8 {
                Window::Range { low: ends.0, high: ends.1 }
            } else {
                Window::of(values(format, bytes).map(shown), ends)
            }
        });
        // At most 65536 different values: a table spares the arithmetic for every pixel.
        let (low, high) = full_range(format);
        let table: Vec<u8> = (low..=high)
            .map(|v| {
                let gray = window.map(shown(v));
                if inverted { 255 - gray } else { gray }
            })
            .collect();
        values(format, bytes).map(|v| table.get((v - low) as usize).copied().unwrap_or(0)).collect()
    }

    fn palette(&self, format: &Format, bytes: &[u8]) -> Vec<u8> {
        let (first, table) = self.palette.as_ref().map_or((0, [].as_slice()), |(f, t)| (*f, t.as_slice()));
        let last = table.len().saturating_sub(1) as i64;
        values(format, bytes)
            .flat_map(|v| {
                // Values outside the table take its nearest end (PS3.3 C.7.6.3.1.5).
                let [r, g, b] = table.get((v - first).clamp(0, last) as usize).copied().unwrap_or_default();
                [r, g, b, 255]
            })
            .collect()
    }
}

/// Lowest and highest value that can be stored.
fn full_range(format: &Format) -> (i64, i64) {
    let count = 1i64 << format.bits_stored;
    if format.signed { (-count / 2, count / 2 - 1) } else { (0, count - 1) }
}

/// Every stored value, without the bits around it.
fn values<'a>(format: &Format, bytes: &'a [u8]) -> impl Iterator<Item = i64> + 'a {
    let (stored, signed) = (u32::from(format.bits_stored), format.signed);
    let shift = u32::from(format.high_bit + 1 - format.bits_stored);
    bytes.chunks_exact(usize::from(format.bits_allocated / 8)).map(move |b| {
        let raw = b.iter().rev().fold(0u32, |n, &b| n << 8 | u32::from(b)) >> shift;
        let raw = i64::from(raw & ((1 << stored) - 1));
        if signed && raw >> (stored - 1) == 1 { raw - (1 << stored) } else { raw }
    })
}

fn color(format: &Format, planar: bool, photometric: Photometric, bytes: &[u8]) -> Vec<u8> {
    let (low, high) = full_range(format);
    let scale = Window::Range { low: low as f64, high: high as f64 };
    let narrow: Vec<u8> = if format.bits_stored == 8 && format.bits_allocated == 8 {
        bytes.to_vec()
    } else {
        values(format, bytes).map(|v| scale.map(v as f64)).collect()
    };
    if photometric == Photometric::Ybr422 {
        // Two pixels share their chroma: Y Y Cb Cr. Rows have an even length, so pairs never cross rows.
        return narrow
            .chunks_exact(4)
            .flat_map(|p| {
                let ([r, g, b], [s, h, c]) = (ybr_to_rgb([p[0], p[2], p[3]]), ybr_to_rgb([p[1], p[2], p[3]]));
                [r, g, b, 255, s, h, c, 255]
            })
            .collect();
    }
    let show = |p: [u8; 3]| {
        let [r, g, b] = if photometric == Photometric::Ybr { ybr_to_rgb(p) } else { p };
        [r, g, b, 255]
    };
    if planar {
        let (first, rest) = narrow.split_at(narrow.len() / 3);
        let (second, third) = rest.split_at(rest.len() / 2);
        first.iter().zip(second).zip(third).flat_map(|((&r, &g), &b)| show([r, g, b])).collect()
    } else {
        narrow.chunks_exact(3).flat_map(|p| show([p[0], p[1], p[2]])).collect()
    }
}

/// Full-range BT.601, as DICOM's YBR_FULL is defined (PS3.3 C.7.6.3.1.2).
fn ybr_to_rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    // A float cast saturates at 0 and 255.
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|v| v.round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primaries_survive_the_colour_transform() {
        // Y, Cb, Cr of the primaries after rounding; the way back may be one off for it.
        for (ybr, rgb) in [
            ([76, 85, 255], [254, 0, 0]),
            ([150, 44, 21], [0, 255, 1]),
            ([29, 255, 107], [0, 0, 254]),
            ([128, 128, 128], [128, 128, 128]),
        ] {
            assert_eq!(ybr_to_rgb(ybr), rgb);
        }
    }

    #[test]
    fn bits_outside_the_stored_ones_are_ignored() {
        let format = Format {
            rows: 1,
            columns: 3,
            samples: 1,
            bits_allocated: 16,
            bits_stored: 4,
            high_bit: 7,
            signed: true,
            planar: false,
            photometric: Photometric::Gray { inverted: false },
        };
        let bytes = [0x7f, 0xff, 0x80, 0x00, 0xff, 0x12];
        assert_eq!(values(&format, &bytes).collect::<Vec<_>>(), [7, -8, -1]);
    }
}
