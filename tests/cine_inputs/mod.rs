//! Writers of small cine-loops for the tests of the readers.

// Each test file uses its own part of these; what cannot be written fails the test.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::Path;

use dicom_core::smallvec::SmallVec;
use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use image::ExtendedColorType;
use tempfile::{NamedTempFile, TempPath};

/// A file that vanishes with this.
pub struct Temp(TempPath);

impl Temp {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// `bytes` in a file without extension.
pub fn unchecked(bytes: &[u8]) -> Temp {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    Temp(file.into_temp_path())
}

/// A lossless JPEG of three channels (process 14, each value predicted from the one before it).
pub fn jpeg_lossless(pixels: &[[u8; 3]], width: usize) -> Vec<u8> {
    let size = [pixels.len() / width, width].map(|n| u16::try_from(n).unwrap().to_be_bytes());
    // Nine codes of four bits, for differences of 0 to 8 bits.
    let mut out = vec![0xff, 0xd8, 0xff, 0xc4, 0, 28, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend(0..=8u8);
    out.extend([0xff, 0xc3, 0, 17, 8]);
    out.extend(size.as_flattened());
    out.extend([3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
    out.extend([0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 1, 0, 0]);
    let mut bits = Vec::new();
    let mut put = |value: i32, count: u32| bits.extend((0..count).rev().map(|at| value >> at & 1));
    for (at, pixel) in pixels.iter().enumerate() {
        for (channel, value) in pixel.iter().enumerate() {
            let before = match (at / width, at % width) {
                (0, 0) => 128,
                (_, 0) => pixels[at - width][channel],
                _ => pixels[at - 1][channel],
            };
            let difference = i32::from(*value) - i32::from(before);
            let count = 32 - difference.unsigned_abs().leading_zeros();
            put(i32::try_from(count).unwrap(), 4);
            put(if difference < 0 { difference - 1 } else { difference }, count);
        }
    }
    bits.resize(bits.len().next_multiple_of(8), 1);
    for byte in bits.chunks_exact(8) {
        let byte = byte.iter().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit == 1));
        out.push(byte);
        if byte == 0xff {
            out.push(0);
        }
    }
    out.extend([0xff, 0xd9]);
    out
}

/// A DICOM object in the making.
pub struct Object(InMemDicomObject, VR);

impl Object {
    fn new(columns: u16, rows: u16, frames: u32, bits: u16, samples: u16, photometric: &str) -> Self {
        let vr = if bits == 8 { VR::OB } else { VR::OW };
        Self(InMemDicomObject::new_empty(), vr)
            .text(tags::SOP_CLASS_UID, uids::ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE)
            .text(tags::SOP_INSTANCE_UID, "2.25.7")
            .text(tags::NUMBER_OF_FRAMES, &frames.to_string())
            .text(tags::PHOTOMETRIC_INTERPRETATION, photometric)
            .number(tags::SAMPLES_PER_PIXEL, samples)
            .number(tags::PLANAR_CONFIGURATION, 0)
            .number(tags::ROWS, rows)
            .number(tags::COLUMNS, columns)
            .number(tags::BITS_ALLOCATED, bits)
            .number(tags::PIXEL_REPRESENTATION, 0)
            .bits(bits)
    }

    pub fn gray(columns: u16, rows: u16, frames: u32, bits: u16) -> Self {
        Self::new(columns, rows, frames, bits, 1, "MONOCHROME2")
    }

    pub fn color(columns: u16, rows: u16, frames: u32, photometric: &str) -> Self {
        Self::new(columns, rows, frames, 8, 3, photometric)
    }

    fn put(mut self, tag: Tag, vr: VR, value: PrimitiveValue) -> Self {
        self.0.put(DataElement::new(tag, vr, value));
        self
    }

    pub fn bits(self, stored: u16) -> Self {
        self.number(tags::BITS_STORED, stored).number(tags::HIGH_BIT, stored - 1)
    }

    pub fn number(self, tag: Tag, value: u16) -> Self {
        self.put(tag, VR::US, value.into())
    }

    pub fn text(self, tag: Tag, value: &str) -> Self {
        let vr = match tag {
            tags::SOP_CLASS_UID | tags::SOP_INSTANCE_UID => VR::UI,
            tags::NUMBER_OF_FRAMES | tags::CINE_RATE | tags::RECOMMENDED_DISPLAY_FRAME_RATE => VR::IS,
            tags::PHOTOMETRIC_INTERPRETATION => VR::CS,
            _ => VR::DS,
        };
        self.put(tag, vr, value.into())
    }

    pub fn pointer(self, to: Tag) -> Self {
        self.put(tags::FRAME_INCREMENT_POINTER, VR::AT, to.into())
    }

    /// PALETTE COLOR with 16-bit entries.
    pub fn palette(self, first: u16, colors: &[[u8; 3]]) -> Self {
        let tables = [
            (tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA),
            (tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA),
            (tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA),
        ];
        let object = self.text(tags::PHOTOMETRIC_INTERPRETATION, "PALETTE COLOR");
        tables.into_iter().enumerate().fold(object, |object, (channel, (descriptor, data))| {
            let numbers: SmallVec<_> = [colors.len() as u16, first, 16].into_iter().collect();
            let shades: SmallVec<_> = colors.iter().map(|c| u16::from(c[channel]) << 8).collect();
            object.put(descriptor, VR::US, PrimitiveValue::U16(numbers)).put(
                data,
                VR::OW,
                PrimitiveValue::U16(shades),
            )
        })
    }

    /// Uncompressed pixel data; 16-bit values least significant byte first.
    pub fn native(self, bytes: &[u8]) -> Self {
        let vr = self.1;
        let value = match vr {
            VR::OB => PrimitiveValue::U8(bytes.iter().copied().collect()),
            _ => {
                let words = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
                PrimitiveValue::U16(words.collect())
            }
        };
        self.put(tags::PIXEL_DATA, vr, value)
    }

    /// Compressed frames without an offset table.
    pub fn encapsulated(self, frames: Vec<Vec<u8>>) -> Self {
        self.encapsulated_at(frames, vec![])
    }

    /// Compressed fragments with an offset table.
    pub fn encapsulated_at(mut self, fragments: Vec<Vec<u8>>, offsets: Vec<u32>) -> Self {
        let even = fragments.into_iter().map(|mut f| {
            f.resize(f.len().next_multiple_of(2), 0);
            f
        });
        let value = PixelFragmentSequence::new(offsets, even.collect::<Vec<_>>());
        self.0.put(DataElement::new(tags::PIXEL_DATA, VR::OB, value));
        self
    }

    pub fn save(self, syntax: &str) -> Temp {
        // A syntax that dicom-rs cannot write is put into the meta group afterwards, padded to the same length.
        let known = !syntax.starts_with("1.2.3");
        let meta = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(uids::ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE)
            .media_storage_sop_instance_uid("2.25.7")
            .transfer_syntax(if known { syntax } else { uids::RLE_LOSSLESS })
            .build()
            .unwrap();
        let mut bytes = Vec::new();
        self.0.with_exact_meta(meta).write_all(&mut bytes).unwrap();
        if !known {
            let old = uids::RLE_LOSSLESS.as_bytes();
            let at = bytes.windows(old.len()).position(|w| w == old).unwrap();
            bytes[at..at + old.len()].fill(0);
            bytes[at..at + syntax.len()].copy_from_slice(syntax.as_bytes());
        }
        unchecked(&bytes)
    }
}

/// A square picture as JFIF baseline JPEG.
pub fn jpeg(pixels: &[[u8; 3]], side: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 100);
    encoder.encode(&pixels.concat(), side, side, ExtendedColorType::Rgb8).unwrap();
    out
}

/// Cuts each picture into pieces of `size`; also where each picture starts, as an offset table counts.
pub fn fragments(pictures: &[Vec<u8>], size: usize) -> (Vec<Vec<u8>>, Vec<u32>) {
    let (mut parts, mut offsets, mut at) = (Vec::new(), Vec::new(), 0);
    for picture in pictures {
        offsets.push(at);
        for part in picture.chunks(size) {
            at += 8 + part.len().next_multiple_of(2) as u32;
            parts.push(part.to_vec());
        }
    }
    (parts, offsets)
}

/// DICOM run lengths of interleaved samples, least significant byte first.
pub fn rle(pixels: &[u8], samples: usize, bytes: usize) -> Vec<u8> {
    let planes = samples * bytes;
    let mut table = vec![planes as u32];
    let mut body = Vec::new();
    for plane in 0..planes {
        table.push(64 + body.len() as u32);
        let first = plane / bytes * bytes + (bytes - 1 - plane % bytes);
        let mut rest: &[u8] = &pixels.iter().skip(first).step_by(planes).copied().collect::<Vec<_>>();
        while let Some(&value) = rest.first() {
            let run = rest.iter().take(128).take_while(|v| **v == value).count();
            if run > 1 {
                body.extend([(1 - run as i32) as u8, value]);
                rest = &rest[run..];
            } else {
                let literal = rest.windows(2).take(127).take_while(|w| w[0] != w[1]).count().max(1);
                body.push(literal as u8 - 1);
                body.extend(&rest[..literal]);
                rest = &rest[literal..];
            }
        }
        if body.len() % 2 == 1 {
            body.push(0x80);
        }
    }
    table.resize(16, 0);
    [table.iter().flat_map(|n| n.to_le_bytes()).collect(), body].concat()
}

/// A MetaImage of one file.
pub fn metaimage(fields: &str, data: &[u8], compressed: bool) -> Temp {
    let data = if compressed { zlib(data) } else { data.to_vec() };
    let compressed = if compressed { "True" } else { "False" };
    let header =
        format!("ObjectType = Image\n{fields}CompressedData = {compressed}\nElementDataFile = LOCAL\n");
    let file = tempfile::Builder::new().suffix(".mha").tempfile().unwrap();
    fs::write(file.path(), [header.as_bytes(), &data].concat()).unwrap();
    Temp(file.into_temp_path())
}

pub fn zlib(data: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(data).unwrap();
    packer.finish().unwrap()
}

/// A PNG of `width` columns.
pub fn write_png(pixels: &[[u8; 3]], width: u32) -> Temp {
    let file = tempfile::Builder::new().suffix(".png").tempfile().unwrap();
    let height = pixels.len() as u32 / width;
    image::save_buffer(file.path(), &pixels.concat(), width, height, ExtendedColorType::Rgb8).unwrap();
    Temp(file.into_temp_path())
}

/// What `gradient_rgb.j2k` holds: 16 columns, 12 rows.
pub fn gradient_rgb() -> Vec<[u8; 3]> {
    (0..12u8).flat_map(|y| (0..16u8).map(move |x| [x * 16, y * 20, (x + y) * 8])).collect()
}

/// What `gradient_gray16.j2k` holds: 16 columns, 12 rows.
pub fn gradient_gray16() -> Vec<u16> {
    (0..12u16).flat_map(|y| (0..16u16).map(move |x| x * 3000 + y * 100)).collect()
}

/// A small generator with a fixed start, so that a failure comes back.
pub struct Rng(pub u64);

impl Rng {
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}
