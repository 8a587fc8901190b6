//! Pictures as a cine-loop: one file, a folder, or a glob pattern.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::error::guarded;
use super::timeline::Timeline;
use super::{CineError, CineFrame, CineReader, MAX_SIDE, OpenOptions, Timing, checked_area};
use crate::frame::PixelFormat;

/// Supported formats with the extensions that are picked from a folder.
const FORMATS: [(ImageFormat, &[&str]); 5] = [
    (ImageFormat::Png, &["png"]),
    (ImageFormat::Jpeg, &["jpg", "jpeg"]),
    (ImageFormat::Tiff, &["tif", "tiff"]),
    (ImageFormat::Bmp, &["bmp"]),
    (ImageFormat::Pnm, &["pnm", "pgm", "ppm", "pbm"]),
];

/// Memory a decoder may take for one picture: the largest accepted one at 8 bytes a pixel.
const MAX_DECODER_BYTES: u64 = super::MAX_PIXELS * 8;

/// Whether the first bytes are of a supported picture.
pub(super) fn looks_like(head: &[u8]) -> bool {
    // PNM and BMP have two-byte signatures, so a little more is asked of them than that.
    match image::guess_format(head) {
        Ok(ImageFormat::Pnm) => head.get(2).is_some_and(u8::is_ascii_whitespace),
        Ok(ImageFormat::Bmp) => head.get(6..10) == Some(&[0; 4]),
        Ok(format) => FORMATS.iter().any(|(f, _)| *f == format),
        Err(_) => false,
    }
}

/// Pictures in natural order of their names (`img2` before `img10`), each with its own size.
///
/// Deep pictures are scaled by their full range (16 bits: / 257) or by that of the bits in use, so brightness is comparable over
/// the loop. An alpha channel is dropped, a JPEG's or TIFF's orientation tag is applied.
#[derive(Debug)]
pub(super) struct Images {
    files: Vec<PathBuf>,
    what: &'static str,
    bits: u8,
    next: usize,
    timeline: Timeline,
    timing: Timing,
}

impl Images {
    fn new(files: Vec<PathBuf>, what: &'static str, options: OpenOptions) -> Result<Self, CineError> {
        let (timeline, timing) = Timeline::assumed(options.fps, "pictures carry no times")?;
        let bits = options.bits;
        if !(8..=16).contains(&bits) {
            return Err(bad(&format!("{bits} bits in use: expected 8 to 16")));
        }
        Ok(Self { files, what, bits, next: 0, timeline, timing })
    }

    /// One picture.
    pub(super) fn file(path: &Path, options: OpenOptions) -> Result<Self, CineError> {
        Self::new(vec![path.to_owned()], "picture", options)
    }

    /// The pictures directly inside a folder, by their extensions; hidden and other files are left alone.
    pub(super) fn folder(path: &Path, options: OpenOptions) -> Result<Self, CineError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(CineError::io("list the folder"))? {
            let entry = entry.map_err(CineError::io("list the folder"))?.path();
            let hidden = entry.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
            if !hidden && has_image_extension(&entry) && entry.is_file() {
                files.push(entry);
            }
        }
        Self::ordered(files, "folder of pictures", options)
    }

    /// The files that match a pattern; every one must be a picture.
    pub(super) fn glob(pattern: &Path, options: OpenOptions) -> Result<Self, CineError> {
        let text = pattern.to_str().ok_or_else(|| bad("a pattern must be valid UTF-8"))?;
        let paths = glob::glob(text).map_err(|e| bad(&format!("the pattern is wrong: {e}")))?;
        let mut files = Vec::new();
        for path in paths {
            let path = path.map_err(|e| {
                let at = e.path().to_owned();
                CineError::Io { action: "list the folder", cause: e.into() }.at(&at)
            })?;
            if path.is_file() {
                files.push(path);
            }
        }
        Self::ordered(files, "pictures by pattern", options)
    }

    fn ordered(mut files: Vec<PathBuf>, what: &'static str, options: OpenOptions) -> Result<Self, CineError> {
        if files.is_empty() {
            return Err(bad("no pictures found: expected PNG, JPEG, TIFF, BMP or PNM files"));
        }
        files.sort_by_cached_key(|p| natural_key(&p.to_string_lossy()));
        Self::new(files, what, options)
    }
}

impl CineReader for Images {
    fn describe(&self) -> String {
        format!("{}, {} frames", self.what, self.files.len())
    }

    fn frames(&self) -> usize {
        self.files.len()
    }

    fn timing(&self) -> Timing {
        self.timing.clone()
    }

    fn next_frame(&mut self) -> Result<Option<CineFrame>, CineError> {
        let index = self.next;
        let Some(path) = self.files.get(index) else { return Ok(None) };
        self.next += 1;
        let (format, width, height, data) =
            decode(path, self.bits).map_err(|e| e.at(path).in_frame(index))?;
        let (pts, duration) = self.timeline.at(index);
        Ok(Some(CineFrame { pts, duration, format, width, height, data }))
    }
}

fn bad(problem: &str) -> CineError {
    CineError::Unsupported { format: "images", problem: problem.to_owned() }
}

fn has_image_extension(path: &Path) -> bool {
    let Some(ext) = path.extension().and_then(|e| e.to_str()) else { return false };
    FORMATS.iter().any(|(_, names)| names.iter().any(|n| n.eq_ignore_ascii_case(ext)))
}

/// A key under which numbers inside names compare by value. Text between them compares as it is.
fn natural_key(name: &str) -> Vec<(String, usize, String)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits_at = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(digits_at);
        let (digits, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()));
        // Numbers of any length: without leading zeros, the longer one is the greater one.
        let value = digits.trim_start_matches('0');
        key.push((text.to_owned(), value.len(), value.to_owned()));
        rest = tail;
    }
    // Equal but for leading zeros: the name itself decides, so that the order never depends on the file system.
    key.push((String::new(), 0, name.to_owned()));
    key
}

fn decode(path: &Path, bits: u8) -> Result<(PixelFormat, usize, usize, Vec<u8>), CineError> {
    let file = File::open(path).map_err(CineError::io("open the file"))?;
    let mut reader = BufReader::new(file);
    let failed = |problem: String| CineError::Decode { codec: "image", problem };
    if has_more_pages(&mut reader).map_err(CineError::io("read the file"))? {
        return Err(bad("this TIFF holds several pictures: split it into one file for each"));
    }
    guarded("image", move || {
        let mut reader =
            ImageReader::new(reader).with_guessed_format().map_err(CineError::io("read the file"))?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE as u32);
        limits.max_image_height = Some(MAX_SIDE as u32);
        limits.max_alloc = Some(MAX_DECODER_BYTES);
        reader.limits(limits);
        // A PNM's header says what its brightest value is, and it is spread already.
        let bits = if reader.format() == Some(ImageFormat::Pnm) { 16 } else { bits };
        let mut decoder = reader.into_decoder().map_err(|e| failed(e.to_string()))?;
        let (w, h) = decoder.dimensions();
        checked_area(w.into(), h.into())?;
        let orientation = decoder.orientation().map_err(|e| failed(e.to_string()))?;
        let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| failed(e.to_string()))?;
        picture.apply_orientation(orientation);
        spread(&mut picture, bits)?;
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let gray =
            matches!(picture.color(), ColorType::L8 | ColorType::L16 | ColorType::La8 | ColorType::La16);
        if gray {
            return Ok((PixelFormat::Gray8, width, height, picture.into_luma8().into_raw()));
        }
        let mut data = picture.into_rgba8().into_raw();
        data.chunks_exact_mut(4).for_each(|p| p[3] = 255);
        Ok((PixelFormat::Rgbx, width, height, data))
    })
}

/// Takes a picture of 16 bits that uses the lower `bits` of them to the whole range; any other is left as it is.
fn spread(picture: &mut DynamicImage, bits: u8) -> Result<(), CineError> {
    if bits == 16 {
        return Ok(());
    }
    let top = u16::MAX >> 16_u8.saturating_sub(bits);
    let (values, channels, colours): (&mut [u16], _, _) = match picture {
        DynamicImage::ImageLuma16(p) => (p, 1, 1),
        DynamicImage::ImageLumaA16(p) => (p, 2, 1),
        DynamicImage::ImageRgb16(p) => (p, 3, 3),
        DynamicImage::ImageRgba16(p) => (p, 4, 3),
        _ => return Ok(()),
    };
    for value in values.chunks_exact_mut(channels).flat_map(|pixel| &mut pixel[..colours]) {
        if *value > top {
            return Err(bad(&format!(
                "a pixel of {value}, where {bits} bits are said to be in use: expected 0 to {top}"
            )));
        }
        // Below 2^32, and at most 65535 again.
        *value = (u32::from(*value) * u32::from(u16::MAX) / u32::from(top)) as u16;
    }
    Ok(())
}

/// Whether this is a TIFF with a second directory. The decoder shows only the first, and a loop of which one frame
/// is shown must not pass for a still.
pub(crate) fn has_more_pages(file: &mut (impl Read + Seek)) -> std::io::Result<bool> {
    let mut head = Vec::new();
    file.by_ref().take(8).read_to_end(&mut head)?;
    let number = |b: &[u8]| match head.get(..4) {
        Some(b"II*\0") => Some(b.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b))),
        Some(b"MM\0*") => Some(b.iter().fold(0u64, |n, &b| n << 8 | u64::from(b))),
        _ => None,
    };
    let mut more = false;
    if let Some(at) = head.get(4..8).and_then(number) {
        let mut field = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        file.by_ref().take(2).read_to_end(&mut field)?;
        let entries = number(&field).unwrap_or(0);
        file.seek(SeekFrom::Start(at + 2 + 12 * entries))?;
        field.clear();
        file.by_ref().take(4).read_to_end(&mut field)?;
        more = field.len() == 4 && number(&field) != Some(0);
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(more)
}

#[cfg(test)]
mod tests {
    use super::natural_key;

    #[test]
    fn numbers_in_names_compare_by_value() {
        let mut names = ["img10.png", "img2.png", "img002.png", "img1.png", "a9b10", "a9b9", "img.png", "b"];
        names.sort_by_key(|n| natural_key(n));
        assert_eq!(
            names,
            ["a9b9", "a9b10", "b", "img1.png", "img002.png", "img2.png", "img10.png", "img.png"]
        );
    }
}
