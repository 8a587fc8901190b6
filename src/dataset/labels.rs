//! A mask file as numbers: palette indices and gray values as they are stored, never as colours.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader};

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
    /// Reads labels: of a PNG with a palette the indices, else gray values of 1 to 16 bits.
    ///
    /// # Errors
    /// In words: no picture, one in colours, one of a format that blurs (JPEG), one that is too large.
    pub fn read(file: &Path) -> Result<Self, String> {
        match format(file)? {
            ImageFormat::Png => png_values(file),
            ImageFormat::Jpeg => {
                Err("JPEG blurs labels: expected PNG, TIFF, BMP or PNM in gray, or PNG with a palette".into())
            }
            _ => {
                let (width, height, values) = match picture(file)? {
                    DynamicImage::ImageLuma8(p) => {
                        (p.width(), p.height(), p.into_raw().into_iter().map(u16::from).collect())
                    }
                    DynamicImage::ImageLuma16(p) => (p.width(), p.height(), p.into_raw()),
                    _ => return Err(COLOURS.into()),
                };
                Ok(Self { width: width as usize, height: height as usize, values })
            }
        }
    }

    /// Reads a binary mask: 0 where every channel is black, or the palette's index 0, else 1. Any picture will do.
    ///
    /// # Errors
    /// In words: no picture, one that is too large.
    pub fn inside(file: &Path) -> Result<Self, String> {
        let binary = |mut labels: Self| {
            labels.values.iter_mut().for_each(|v| *v = u16::from(*v != 0));
            labels
        };
        if format(file)? == ImageFormat::Png
            && let Ok(labels) = png_values(file)
        {
            return Ok(binary(labels));
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

fn format(file: &Path) -> Result<ImageFormat, String> {
    let reader = ImageReader::open(file).and_then(ImageReader::with_guessed_format);
    reader.map_err(|e| e.to_string())?.format().ok_or_else(|| "it is no picture".to_owned())
}

fn picture(file: &Path) -> Result<DynamicImage, String> {
    let mut reader =
        ImageReader::open(file).and_then(ImageReader::with_guessed_format).map_err(|e| e.to_string())?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_BYTES as u64);
    reader.limits(limits);
    reader.decode().map_err(|e| e.to_string())
}

/// Stored values of a PNG.
fn png_values(file: &Path) -> Result<Labels, String> {
    let failed = |e: png::DecodingError| e.to_string();
    let input = BufReader::new(File::open(file).map_err(|e| e.to_string())?);
    let mut decoder = png::Decoder::new_with_limits(input, png::Limits { bytes: MAX_BYTES });
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (width, height) = reader.info().size();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("it has {width}x{height} pixels: expected at most {MAX_PIXELS}"));
    }
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut bytes = vec![0; size];
    let info = reader.next_frame(&mut bytes).map_err(failed)?;
    let skip = match info.color_type {
        png::ColorType::Indexed | png::ColorType::Grayscale => 1,
        png::ColorType::GrayscaleAlpha => 2,
        png::ColorType::Rgb | png::ColorType::Rgba => return Err(COLOURS.into()),
    };
    let bits = info.bit_depth as usize;
    let (width, height) = (width as usize, height as usize);
    let mut values = Vec::with_capacity(width * height);
    for row in bytes.chunks_exact(info.line_size.max(1)).take(height) {
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
    Ok(Labels { width, height, values })
}
