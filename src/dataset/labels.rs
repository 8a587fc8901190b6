//! A mask file as numbers: palette indices and gray values as they are stored, never as colours. An orientation tag is applied,
//! as to the picture.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use image::codecs::bmp::BmpDecoder;
use image::codecs::pnm::PnmDecoder;
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ExtendedColorType, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Luma,
};

use crate::cine;
use crate::mask::Mask;

/// Most pixels of a mask, as of an image.
const MAX_PIXELS: u64 = 1 << 26;
/// Memory that a decoder may take.
const MAX_BYTES: usize = 8 << 26;

/// The values of a mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row by row.
    pub values: Vec<u16>,
}

impl Labels {
    /// Reads labels: of a PNG with a palette and of a BMP (8 bits) the indices, else gray values of 1 to 16 bits, stored once or in three equal
    /// colours.
    ///
    /// # Errors
    /// In words: no picture, one in colours, one of a format that blurs (JPEG), one that is too large.
    pub fn read(file: &Path) -> Result<Self, String> {
        match format(file)? {
            ImageFormat::Png => png_values(file).map(|(labels, _)| labels),
            ImageFormat::Jpeg => {
                Err("JPEG blurs labels: expected PNG, TIFF, BMP or PNM in gray, or a palette (PNG, BMP)"
                    .into())
            }
            ImageFormat::Bmp => Self::of(bmp_indices(file)?),
            ImageFormat::Pnm => pnm_values(file),
            _ => {
                let decoder = decoder(file)?;
                // The decoder makes 255 of the one bit.
                let bit = decoder.original_color_type() == ExtendedColorType::L1;
                let labels = Self::of(decoded(decoder)?)?;
                Ok(if bit { labels.scaled(1, 255) } else { labels })
            }
        }
    }

    /// The values of a gray picture, also of one that stores each three times.
    fn of(picture: DynamicImage) -> Result<Self, String> {
        let (width, height, values) = match picture {
            DynamicImage::ImageLuma8(p) => {
                (p.width(), p.height(), p.into_raw().into_iter().map(u16::from).collect())
            }
            DynamicImage::ImageLuma16(p) => (p.width(), p.height(), p.into_raw()),
            DynamicImage::ImageRgb8(p) => {
                (p.width(), p.height(), gray(p.pixels().map(|p| p.0.map(u16::from)))?)
            }
            DynamicImage::ImageRgb16(p) => (p.width(), p.height(), gray(p.pixels().map(|p| p.0))?),
            DynamicImage::ImageRgba8(_) => return Self::of(DynamicImage::ImageRgb8(picture.into_rgb8())),
            DynamicImage::ImageRgba16(_) => return Self::of(DynamicImage::ImageRgb16(picture.into_rgb16())),
            _ => return Err(COLOURS.into()),
        };
        Ok(Self { width: width as usize, height: height as usize, values })
    }

    /// Values that a decoder took from `0..=most` to `0..=full`, as they were.
    fn scaled(mut self, most: u32, full: u32) -> Self {
        for value in &mut self.values {
            *value = u16::try_from((u32::from(*value) * most + full / 2) / full).unwrap_or(u16::MAX);
        }
        self
    }

    /// The labels as a viewer shows their file, which has this tag.
    fn turned(self, orientation: Orientation) -> Result<Self, String> {
        if orientation == Orientation::NoTransforms {
            return Ok(self);
        }
        let size = u32::try_from(self.width).ok().zip(u32::try_from(self.height).ok());
        let whole = size.and_then(|(w, h)| ImageBuffer::<Luma<u16>, Vec<u16>>::from_raw(w, h, self.values));
        let mut picture = DynamicImage::ImageLuma16(whole.ok_or("it is too large")?);
        picture.apply_orientation(orientation);
        Self::of(picture)
    }

    /// Reads a binary mask: 0 where every channel is black, else 1. Of a palette the first black is outside, or index 0 where no pixel
    /// has that. Any picture will do.
    ///
    /// # Errors
    /// In words: no picture, one that is too large.
    pub fn inside(file: &Path) -> Result<Self, String> {
        if format(file)? == ImageFormat::Png
            && let Ok((mut labels, outside)) = png_values(file)
        {
            // Palettes are often filled up with black that no pixel has.
            let outside = if labels.values.contains(&outside) { outside } else { 0 };
            labels.values.iter_mut().for_each(|v| *v = u16::from(*v != outside));
            return Ok(labels);
        }
        let lossy = format(file)? == ImageFormat::Jpeg;
        let picture = picture(file)?.into_rgb16();
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        // JPEG rings around edges: there the middle decides.
        let threshold = if lossy { u16::MAX / 2 } else { 0 };
        let values = picture.pixels().map(|p| u16::from(p.0.iter().any(|v| *v > threshold))).collect();
        Ok(Self { width, height, values })
    }

    /// How many pixels have which value.
    pub fn counts(&self) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for value in &self.values {
            *counts.entry(*value).or_insert(0) += 1;
        }
        counts
    }

    /// The pixels that `inside` says yes to.
    pub fn mask(&self, inside: impl Fn(u16) -> bool) -> Option<Mask> {
        Mask::new(self.width, self.height, self.values.iter().map(|v| u8::from(inside(*v))).collect())
    }
}

const COLOURS: &str =
    "it is in colours: expected gray values that are labels, or a palette whose indices are labels";

/// Values of pixels whose three colours are equal.
fn gray(mut pixels: impl Iterator<Item = [u16; 3]>) -> Result<Vec<u16>, String> {
    pixels
        .try_fold(Vec::new(), |mut values, [r, g, b]| {
            values.push(r);
            (r == g && g == b).then_some(values)
        })
        .ok_or_else(|| COLOURS.to_owned())
}

fn format(file: &Path) -> Result<ImageFormat, String> {
    let reader = ImageReader::open(file).and_then(ImageReader::with_guessed_format);
    reader.map_err(|e| e.to_string())?.format().ok_or_else(|| "it is no picture".to_owned())
}

/// Whether `file` is a picture of 16 bits a value.
pub(super) fn is_deep(file: &Path) -> bool {
    let reader = ImageReader::open(file).and_then(ImageReader::with_guessed_format);
    let decoder = reader.ok().and_then(|reader| reader.into_decoder().ok());
    let deep = [ColorType::L16, ColorType::La16, ColorType::Rgb16, ColorType::Rgba16];
    decoder.is_some_and(|decoder| deep.contains(&decoder.color_type()))
}

fn picture(file: &Path) -> Result<DynamicImage, String> {
    decoded(decoder(file)?)
}

fn decoder(file: &Path) -> Result<impl ImageDecoder, String> {
    let mut input = BufReader::new(File::open(file).map_err(|e| e.to_string())?);
    // Only the first would be seen, and a class on another page would count as absent.
    if cine::has_more_pages(&mut input).map_err(|e| e.to_string())? {
        return Err("this TIFF holds several pictures: expected one file for each".into());
    }
    let mut reader = ImageReader::new(input).with_guessed_format().map_err(|e| e.to_string())?;
    reader.limits(limits());
    reader.into_decoder().map_err(|e| e.to_string())
}

/// Values of a PNM as they are stored: the decoder spreads them to the whole range.
fn pnm_values(file: &Path) -> Result<Labels, String> {
    let input = BufReader::new(File::open(file).map_err(|e| e.to_string())?);
    let mut decoder = PnmDecoder::new(input).map_err(|e| e.to_string())?;
    decoder.set_limits(limits()).map_err(|e| e.to_string())?;
    let most = decoder.header().maximal_sample();
    let full = if matches!(decoder.color_type(), ColorType::L8 | ColorType::Rgb8) {
        u8::MAX.into()
    } else {
        u16::MAX.into()
    };
    Ok(Labels::of(decoded(decoder)?)?.scaled(most, full))
}

fn limits() -> image::Limits {
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_BYTES as u64);
    limits
}

/// The picture of `decoder`, turned as its tag says.
fn decoded(mut decoder: impl ImageDecoder) -> Result<DynamicImage, String> {
    check_size(decoder.dimensions())?;
    let orientation = decoder.orientation().map_err(|e| e.to_string())?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn check_size((width, height): (u32, u32)) -> Result<(), String> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("it has {width}x{height} pixels: expected at most {MAX_PIXELS}"));
    }
    Ok(())
}

/// The indices of a BMP. A gray BMP is one whose palette is gray, and its indices are its values.
fn bmp_indices(file: &Path) -> Result<DynamicImage, String> {
    let open = || File::open(file).map_err(|e| e.to_string());
    let mut head = Vec::new();
    open()?.take(34).read_to_end(&mut head).map_err(|e| e.to_string())?;
    // Bits a pixel and the kind of compression; the header's first form has shorter sizes before, and no compression.
    let first_form = head.get(14..18).is_some_and(|size| size == [12, 0, 0, 0]);
    let bits = if first_form { head.get(24..26) } else { head.get(28..30) };
    let plain = first_form || head.get(30..34).is_some_and(|kind| kind == [0; 4]);
    match bits {
        Some([8, 0]) if plain => {}
        // The decoder gives indices of these alone.
        Some([24 | 32, 0]) => return picture(file),
        Some([1..=8, 0]) => {
            return Err(
                "it is a BMP of fewer than 8 bits, or compressed: expected 8 plain bits, or PNG".into()
            );
        }
        _ => return Err(COLOURS.into()),
    }
    let mut decoder = BmpDecoder::new(BufReader::new(open()?)).map_err(|e| e.to_string())?;
    decoder.set_limits(limits()).map_err(|e| e.to_string())?;
    decoder.set_indexed_color(true);
    decoded(decoder)
}

/// Stored values of a PNG, and the one that is black: 0 unless its palette says otherwise.
fn png_values(file: &Path) -> Result<(Labels, u16), String> {
    let failed = |e: png::DecodingError| e.to_string();
    let input = BufReader::new(File::open(file).map_err(|e| e.to_string())?);
    let mut decoder = png::Decoder::new_with_limits(input, png::Limits { bytes: MAX_BYTES });
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (width, height) = reader.info().size();
    check_size((width, height))?;
    let tag = reader.info().exif_metadata.as_deref().and_then(Orientation::from_exif_chunk);
    let palette = reader.info().palette.as_deref().unwrap_or_default();
    let black = palette.chunks_exact(3).position(|colour| colour == [0; 3]);
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut bytes = vec![0; size];
    let info = reader.next_frame(&mut bytes).map_err(failed)?;
    let skip = info.color_type.samples();
    let colours = if info.color_type.samples() < 3 { 1 } else { 3 };
    let bits = info.bit_depth as usize;
    let (width, height) = (width as usize, height as usize);
    let mut values = Vec::with_capacity(width * height);
    for row in bytes.chunks_exact(info.line_size.max(1)).take(height) {
        // What lies in front of each pixel's alpha, where it has any.
        let same = |pixel: &[u8], size: usize| {
            pixel.chunks_exact(size).take(colours).all(|one| Some(one) == pixel.get(..size))
        };
        if bits >= 8 && !row.chunks_exact(skip * bits / 8).all(|pixel| same(pixel, bits / 8)) {
            return Err(COLOURS.into());
        }
        match bits {
            16 => values
                .extend(row.chunks_exact(2 * skip).map(|v| u16::from_be_bytes([v[0], v[1]])).take(width)),
            8 => values.extend(row.iter().step_by(skip).map(|v| u16::from(*v)).take(width)),
            // Several pixels a byte, the first in the highest bits; never with an alpha channel.
            _ => values.extend((0..width).map(|x| {
                let at = x * bits;
                let byte = row.get(at / 8).copied().unwrap_or(0);
                u16::from(byte >> (8 - bits - at % 8)) & ((1 << bits) - 1)
            })),
        }
    }
    if values.len() != width * height {
        return Err("it ends before its last row".into());
    }
    let labels = Labels { width, height, values }.turned(tag.unwrap_or(Orientation::NoTransforms))?;
    // A palette has 256 colours at most. One that comes with other kinds of PNG is a suggestion.
    let black = black.filter(|_| info.color_type == png::ColorType::Indexed);
    Ok((labels, black.and_then(|at| u16::try_from(at).ok()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

    use super::*;

    #[test]
    fn a_pnm_has_the_labels_that_it_stores() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.pgm");
        for (bytes, expected) in [
            (&b"P5\n3 1\n2\n\x00\x01\x02"[..], [0, 1, 2]),
            (b"P5\n3 1\n127\n\x00\x01\x7f", [0, 1, 127]),
            (b"P5\n3 1\n255\n\x00\x01\xff", [0, 1, 255]),
            (b"P5\n3 1\n1000\n\x00\x00\x00\x01\x03\xe8", [0, 1, 1000]),
            (b"P2\n3 1\n7\n0 1 7\n", [0, 1, 7]),
            // In three equal colours.
            (b"P6\n3 1\n7\n\x00\x00\x00\x01\x01\x01\x07\x07\x07", [0, 1, 7]),
            // Of a bitmap 1 is black.
            (b"P1\n3 1\n1 0 1\n", [0, 1, 0]),
        ] {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(Labels::read(&file).unwrap().values, expected);
        }
    }

    #[test]
    fn of_several_pages_none_is_left_out_silently() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.tif");
        image::GrayImage::from_pixel(4, 3, Luma([2])).save(&file).unwrap();
        assert_eq!(Labels::read(&file).unwrap().values, [2; 12]);
        // Another directory behind the first.
        let mut bytes = std::fs::read(&file).unwrap();
        assert_eq!(&bytes[..4], b"II*\0");
        let at = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
        let entries = usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
        let next = at + 2 + 12 * entries;
        bytes.copy_within(4..8, next);
        std::fs::write(&file, bytes).unwrap();
        for told in [Labels::read(&file), Labels::inside(&file)] {
            assert!(told.unwrap_err().contains("several pictures"));
        }
    }

    #[test]
    fn outside_of_a_binary_mask_is_black_wherever_the_palette_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.png");
        for (palette, expected) in [
            (&[0, 0, 0, 255, 255, 255, 9, 9, 9][..], [0, 1, 1]),
            (&[255, 255, 255, 0, 0, 0, 9, 9, 9], [1, 0, 1]),
            // None is black, none that a pixel has, and all are.
            (&[255, 255, 255, 9, 9, 9, 8, 8, 8, 0, 0, 0], [0, 1, 1]),
            (&[1, 1, 1, 2, 2, 2, 3, 3, 3], [0, 1, 1]),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 1]),
        ] {
            let mut encoder = png::Encoder::new(File::create(&file).unwrap(), 3, 1);
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette(palette.to_vec());
            encoder.write_header().unwrap().write_image_data(&[0, 1, 2]).unwrap();
            assert_eq!(Labels::inside(&file).unwrap().values, expected);
            assert_eq!(Labels::read(&file).unwrap().values, [0, 1, 2], "indices are labels");
        }
    }
}
