//! One compressed frame to samples, and samples to the picture that is shown.

use std::borrow::Cow;
use std::io::Cursor;

use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dicom_pixeldata::PixelDecoder;
use jpeg_decoder::{CodingProcess, ColorTransform, Decoder};

use super::attributes::{Format, Photometric};
use super::rle;
use super::syntax::Codec;
use crate::cine::CineError;
use crate::cine::error::guarded;

/// Samples of one frame: 8 or 16 bits, least significant byte first.
pub(super) struct Samples<'a> {
    /// The bytes.
    pub(super) bytes: Cow<'a, [u8]>,
    /// All of one channel, then all of the next.
    pub(super) planar: bool,
    /// What they mean now; a decoder may have undone the colour transform.
    pub(super) photometric: Photometric,
}

/// Unpacks a frame.
///
/// # Errors
/// Data that the decoder does not take, or whose size is not that of the attributes.
pub(super) fn decode<'a>(
    codec: Codec,
    syntax: &str,
    format: &Format,
    data: &'a [u8],
) -> Result<Samples<'a>, CineError> {
    let area = usize::from(format.rows) * usize::from(format.columns);
    let (samples, bytes) = (usize::from(format.samples), usize::from(format.bits_allocated / 8));
    match codec {
        Codec::Native => {
            Ok(Samples { bytes: Cow::Borrowed(data), planar: format.planar, photometric: format.photometric })
        }
        Codec::Rle => Ok(Samples {
            bytes: Cow::Owned(rle::decode(data, area, samples, bytes)?),
            planar: false,
            // Run lengths cannot hold half-resolution chroma: objects that say so hold it in full.
            photometric: match format.photometric {
                Photometric::Ybr422 => Photometric::Ybr,
                other => other,
            },
        }),
        Codec::Jpeg => guarded("JPEG", || jpeg(format, data, area * samples * bytes)),
        Codec::Jpeg2000 => guarded("JPEG 2000", || jpeg_2000(syntax, format, data)),
    }
}

/// What decoded colours mean, given that `undone` tells whether the decoder undid a colour transform.
fn after(format: &Format, undone: bool) -> Photometric {
    match format.photometric {
        gray @ (Photometric::Gray { .. } | Photometric::Palette) => gray,
        _ if undone => Photometric::Rgb,
        Photometric::Ybr422 => Photometric::Ybr,
        other => other,
    }
}

fn jpeg<'a>(format: &Format, data: &[u8], expected: usize) -> Result<Samples<'a>, CineError> {
    let bad = |problem: String| CineError::Decode { codec: "JPEG", problem };
    let failed = |e: jpeg_decoder::Error| bad(e.to_string());
    let mut decoder = Decoder::new(Cursor::new(data));
    decoder.set_max_decoding_buffer_size(expected);
    decoder.read_info().map_err(failed)?;
    let info = decoder.info().ok_or_else(|| bad("it has no frame header".into()))?;
    let found = (info.width, info.height, info.pixel_format.pixel_bytes());
    let per_pixel = expected / (usize::from(format.rows) * usize::from(format.columns));
    if found != (format.columns, format.rows, per_pixel) {
        return Err(bad(format!(
            "the picture is {}x{} with {} bytes a pixel, the attributes say {}x{} with {per_pixel}",
            found.0, found.1, found.2, format.columns, format.rows
        )));
    }
    let transformed = format.samples == 3 && jpeg_is_ybr(data, format.photometric);
    if format.samples == 3 {
        decoder.set_color_transform(if transformed { ColorTransform::YCbCr } else { ColorTransform::RGB });
    }
    let mut bytes = decoder.decode().map_err(failed)?;
    if bytes.len() != expected {
        return Err(bad(format!("{} bytes came out, expected {expected}", bytes.len())));
    }
    // 16-bit samples come out in this machine's order; everything after this takes the least significant first.
    if format.bits_allocated == 16 && cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(2).for_each(|b| b.swap(0, 1));
    }
    // Of a lossless stream the decoder undoes no transform, whatever it was told.
    let undone = !transformed || info.coding_process != CodingProcess::Lossless;
    Ok(Samples { bytes: Cow::Owned(bytes), planar: false, photometric: after(format, undone) })
}

/// Whether a three-channel JPEG holds luma and chroma.
///
/// The stream itself knows best, as attributes are often left over from the scanner's frame buffer: an Adobe
/// marker, a JFIF marker, or channels named R, G, B. Only a stream that is silent is read as the attributes say.
fn jpeg_is_ybr(data: &[u8], photometric: Photometric) -> bool {
    let mut at = 2;
    let mut jfif = false;
    while let Some(&[0xff, marker, high, low]) = data.get(at..at + 4) {
        if marker == 0xff {
            at += 1;
            continue;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = data.get(at + 4..at + 2 + length.max(2)).unwrap_or_default();
        match marker {
            0xe0 if body.starts_with(b"JFIF\0") => jfif = true,
            0xee if body.starts_with(b"Adobe") && body.len() >= 12 => return body[11] == 1,
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                // Precision, height, width, count; then three bytes for each channel, its name first.
                let name = |i: usize| body.get(6 + 3 * i).copied();
                let rgb = [name(0), name(1), name(2)] == [Some(b'R'), Some(b'G'), Some(b'B')];
                return !rgb && (jfif || photometric != Photometric::Rgb);
            }
            0xda | 0xd9 => break,
            _ => {}
        }
        at += 2 + length.max(2);
    }
    photometric != Photometric::Rgb
}

fn jpeg_2000<'a>(syntax: &str, format: &Format, data: &[u8]) -> Result<Samples<'a>, CineError> {
    let bad = |problem: String| CineError::Decode { codec: "JPEG 2000", problem };
    let header = Codestream::parse(data).ok_or_else(|| bad("it has no codestream header".into()))?;
    let expected = (u32::from(format.columns), u32::from(format.rows), format.samples);
    let found = (header.width, header.height, header.components);
    // The decoder allocates what the codestream says, so its sizes are checked before it sees them.
    if found != expected || header.subsampled {
        return Err(bad(format!(
            "the picture is {}x{} with {} {}channels, the attributes say {}x{} with {}",
            found.0,
            found.1,
            found.2,
            if header.subsampled { "subsampled " } else { "" },
            expected.0,
            expected.1,
            expected.2
        )));
    }
    let meta = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(super::ULTRASOUND_MULTIFRAME)
        .media_storage_sop_instance_uid("2.25.1")
        .transfer_syntax(syntax)
        .build()
        .map_err(|e| bad(e.to_string()))?;
    let number = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    let name = if format.samples == 3 { "RGB" } else { "MONOCHROME2" };
    let object = InMemDicomObject::from_element_iter([
        number(tags::ROWS, format.rows),
        number(tags::COLUMNS, format.columns),
        number(tags::SAMPLES_PER_PIXEL, format.samples),
        number(tags::PLANAR_CONFIGURATION, 0),
        number(tags::BITS_ALLOCATED, format.bits_allocated),
        number(tags::BITS_STORED, format.bits_stored),
        number(tags::HIGH_BIT, format.high_bit),
        number(tags::PIXEL_REPRESENTATION, u16::from(format.signed)),
        DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, PrimitiveValue::from(name)),
        DataElement::new(tags::PIXEL_DATA, VR::OB, PixelFragmentSequence::new_fragments(vec![data.to_vec()])),
    ]);
    let object = object.with_exact_meta(meta);
    let decoded = object.decode_pixel_data_frame(0).map_err(|e| bad(e.to_string()))?;
    Ok(Samples {
        bytes: Cow::Owned(decoded.data().to_vec()),
        planar: false,
        photometric: after(format, header.transformed || format.photometric == Photometric::YbrJpeg2000),
    })
}

/// What the main header of a JPEG 2000 codestream says.
struct Codestream {
    width: u32,
    height: u32,
    components: u16,
    subsampled: bool,
    /// The components are transformed; the decoder undoes it.
    transformed: bool,
}

impl Codestream {
    fn parse(data: &[u8]) -> Option<Self> {
        // Bare in DICOM, but some writers leave the JP2 boxes around it.
        let start = data.windows(4).take(512).position(|w| w == [0xff, 0x4f, 0xff, 0x51])?;
        let mut at = start + 2;
        let mut found: Option<Self> = None;
        loop {
            let &[0xff, marker, high, low] = data.get(at..at + 4)? else { return None };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if marker == 0x90 || length < 2 {
                return found;
            }
            let body = data.get(at + 4..at + 2 + length)?;
            let long = |i: usize| body.get(i..i + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
            if marker == 0x51 {
                let components = body.get(34..36).map(|b| u16::from_be_bytes([b[0], b[1]]))?;
                let channels = body.get(36..).unwrap_or_default().chunks_exact(3);
                found = Some(Self {
                    width: long(2)?.checked_sub(long(10)?)?,
                    height: long(6)?.checked_sub(long(14)?)?,
                    components,
                    subsampled: channels.take(usize::from(components)).any(|c| c[1] != 1 || c[2] != 1),
                    transformed: false,
                });
            } else if marker == 0x52 {
                let transformed = body.get(4) == Some(&1);
                found = found.map(|f| Self { transformed, ..f });
            }
            at += 2 + length;
        }
    }
}
