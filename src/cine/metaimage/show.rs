//! Stored numbers to the 8-bit picture that is shown.

use super::header::{Element, Header};
use crate::cine::gray::Window;
use crate::frame::PixelFormat;

/// A slice as [`PixelFormat::Gray8`] or [`PixelFormat::Rgbx`], upright.
///
/// The first call fixes `window` for all that follow. `bytes` has the size the header asks for.
pub(super) fn render(header: &Header, window: &mut Option<Window>, bytes: &[u8]) -> (PixelFormat, Vec<u8>) {
    let narrow: Vec<u8> = if header.element == Element::U8 {
        bytes.to_vec()
    } else {
        let fallback = full_range(header.element);
        let window = *window.get_or_insert_with(|| Window::of(values(header, bytes), fallback));
        values(header, bytes).map(|v| window.map(v)).collect()
    };
    let (format, mut shown) = match header.channels {
        1 => (PixelFormat::Gray8, narrow),
        // The fourth channel of four is alpha, which a recorded picture has no use for.
        n => (PixelFormat::Rgbx, narrow.chunks_exact(n).flat_map(|p| [p[0], p[1], p[2], 255]).collect()),
    };
    let row = header.width * shown.len() / (header.width * header.height);
    if header.flip.1 {
        let rows: Vec<&[u8]> = shown.chunks_exact(row).rev().collect();
        shown = rows.concat();
    }
    if header.flip.0 {
        let pixel = row / header.width;
        for line in shown.chunks_exact_mut(row) {
            // Reversing all bytes and then each pixel's mirrors the pixels.
            line.reverse();
            line.chunks_exact_mut(pixel).for_each(<[u8]>::reverse);
        }
    }
    (format, shown)
}

/// What a flat first frame is scaled by: the type's own range, and 0 to 1 for floating point.
fn full_range(element: Element) -> (f64, f64) {
    match element {
        Element::U8 => (0.0, 255.0),
        Element::I8 => (-128.0, 127.0),
        Element::U16 => (0.0, 65_535.0),
        Element::I16 => (-32_768.0, 32_767.0),
        Element::U32 => (0.0, f64::from(u32::MAX)),
        Element::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        Element::F32 | Element::F64 => (0.0, 1.0),
    }
}

fn values<'a>(header: &Header, bytes: &'a [u8]) -> impl Iterator<Item = f64> + 'a {
    let (element, big_endian) = (header.element, header.big_endian);
    bytes.chunks_exact(element.bytes()).map(move |b| {
        // Right-aligned in eight bytes, most significant first, whatever the size.
        let bits = if big_endian {
            b.iter().fold(0u64, |n, &b| n << 8 | u64::from(b))
        } else {
            b.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b))
        };
        match element {
            Element::U8 | Element::U16 | Element::U32 => bits as f64,
            Element::I8 => f64::from(bits as u8 as i8),
            Element::I16 => f64::from(bits as u16 as i16),
            Element::I32 => f64::from(bits as u32 as i32),
            Element::F32 => f64::from(f32::from_bits(bits as u32)),
            Element::F64 => f64::from_bits(bits),
        }
    })
}
