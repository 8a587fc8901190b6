//! A mask file as numbers: palette indices and gray values as they are stored, never as colours. An orientation tag is applied,
//! as to the picture.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use image::codecs::bmp::BmpDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Luma};

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
    /// Reads labels: of a PNG with a palette and of a BMP (8 bits) the indices, else gray values of 1 to 16 bits.
    ///
    /// # Errors
    /// In words: no picture, one in colours, one of a format that blurs (JPEG), one that is too large.
    pub fn read(file: &Path) -> Result<Self, String> {
        match format(file)? {
            ImageFormat::Png => png_values(file),
            ImageFormat::Jpeg => {
                Err("JPEG blurs labels: expected PNG, TIFF, BMP or PNM in gray, or a palette (PNG, BMP)"
                    .into())
            }
            ImageFormat::Bmp => Self::of(bmp_indices(file)?),
            _ => Self::of(picture(file)?),
        }
    }

    /// The values of a gray picture.
    fn of(picture: DynamicImage) -> Result<Self, String> {
        let (width, height, values) = match picture {
            DynamicImage::ImageLuma8(p) => {
                (p.width(), p.height(), p.into_raw().into_iter().map(u16::from).collect())
            }
            DynamicImage::ImageLuma16(p) => (p.width(), p.height(), p.into_raw()),
            _ => return Err(COLOURS.into()),
        };
        Ok(Self { width: width as usize, height: height as usize, values })
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

/// Whether `file` is a picture of 16 bits a value.
pub(super) fn is_deep(file: &Path) -> bool {
    let reader = ImageReader::open(file).and_then(ImageReader::with_guessed_format);
    let decoder = reader.ok().and_then(|reader| reader.into_decoder().ok());
    let deep = [ColorType::L16, ColorType::La16, ColorType::Rgb16, ColorType::Rgba16];
    decoder.is_some_and(|decoder| deep.contains(&decoder.color_type()))
}

fn picture(file: &Path) -> Result<DynamicImage, String> {
    let mut reader =
        ImageReader::open(file).and_then(ImageReader::with_guessed_format).map_err(|e| e.to_string())?;
    reader.limits(limits());
    decoded(reader.into_decoder().map_err(|e| e.to_string())?)
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

/// Stored values of a PNG.
fn png_values(file: &Path) -> Result<Labels, String> {
    let failed = |e: png::DecodingError| e.to_string();
    let input = BufReader::new(File::open(file).map_err(|e| e.to_string())?);
    let mut decoder = png::Decoder::new_with_limits(input, png::Limits { bytes: MAX_BYTES });
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (width, height) = reader.info().size();
    check_size((width, height))?;
    let tag = reader.info().exif_metadata.as_deref().and_then(Orientation::from_exif_chunk);
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
    Labels { width, height, values }.turned(tag.unwrap_or(Orientation::NoTransforms))
}
