//! Recorded cine-loops that GStreamer does not read: DICOM multi-frame, MetaImage, folders of images.
//!
//! [`open`] recognises the input by its content or kind and gives a [`CineReader`].

mod dicom;
mod error;
mod gray;
mod images;
mod metaimage;
mod timeline;

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::Duration;

pub use error::CineError;
pub(crate) use images::has_more_pages;

use crate::frame::{PixelFormat, Pts};

/// Largest side of a picture; the same as of an [`crate::frame::ImageView`].
const MAX_SIDE: u64 = 32_768;
/// Most pixels in a picture: 8192 x 8192, which bounds a frame's memory to some hundred MiB.
const MAX_PIXELS: u64 = 1 << 26;

/// One decoded frame, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CineFrame {
    /// From the start of the loop, as the file's timing says.
    pub pts: Pts,
    /// Until the next frame.
    pub duration: Duration,
    /// [`PixelFormat::Gray8`] or [`PixelFormat::Rgbx`], rows without padding.
    pub format: PixelFormat,
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height` or `width * height * 4` bytes.
    pub data: Vec<u8>,
}

/// Where the frames' times come from; printed and reported, so that a guess is never taken for a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Written in the file; the text names the element, `FrameTime (0018,1063)` for example.
    File(String),
    /// Not in the file; this constant rate was assumed.
    Assumed(String),
}

/// A recorded cine-loop, read frame by frame so that long ones need no memory.
pub trait CineReader: Send {
    /// What it is, in a few words: `DICOM multi-frame, JPEG baseline, 30 frames of 320x240`.
    fn describe(&self) -> String;
    /// Number of frames.
    fn frames(&self) -> usize;
    /// Where the times come from.
    fn timing(&self) -> Timing;
    /// The next frame; `None` after the last.
    ///
    /// # Errors
    /// A frame that cannot be read or decoded; the message names the frame.
    fn next_frame(&mut self) -> Result<Option<CineFrame>, CineError>;
}

/// The kinds of input read here. Everything else is for GStreamer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A DICOM object, with or without the Part 10 header.
    Dicom,
    /// A MetaImage header (`.mhd`) or file (`.mha`), PLUS sequences included.
    MetaImage,
    /// One PNG, JPEG, TIFF, BMP or PNM picture.
    Image,
    /// A folder of pictures.
    Folder,
    /// A path with `*`, `?` or `[...]` that names no existing file.
    Glob,
}

/// What the caller may decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenOptions {
    /// Frames per second where the file says no times; 30 if not given. The file's own times always win.
    pub fps: Option<f64>,
    /// How many of their bits PNG and TIFF pictures of 16 bits a value use, 8 to 16. Other formats say it themselves, or (MetaImage)
    /// are shown by the range of their values.
    pub bits: u8,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { fps: None, bits: 16 }
    }
}

/// Which kind of input `path` is, by its content; `None` if it is none of ours or cannot be read.
///
/// Devices, pipes and sockets are never opened.
pub fn recognise(path: &Path) -> Option<Kind> {
    let Ok(meta) = fs::metadata(path) else {
        return path.to_string_lossy().contains(['*', '?', '[']).then_some(Kind::Glob);
    };
    if meta.is_dir() {
        return Some(Kind::Folder);
    }
    if !meta.is_file() {
        return None;
    }
    let mut file = File::open(path).ok()?;
    let mut head = Vec::new();
    file.by_ref().take(512).read_to_end(&mut head).ok()?;
    if head.get(128..132) == Some(b"DICM") {
        Some(Kind::Dicom)
    } else if metaimage::looks_like(path, &head) {
        Some(Kind::MetaImage)
    } else if images::looks_like(&head) {
        Some(Kind::Image)
    } else if dicom::looks_headerless(file, &head) {
        Some(Kind::Dicom)
    } else {
        None
    }
}

/// Opens a cine-loop; frames of files without times last 1/30 s.
///
/// # Errors
/// As [`open_with`].
pub fn open(path: &Path) -> Result<Box<dyn CineReader>, CineError> {
    open_with(path, OpenOptions::default())
}

/// Opens a cine-loop: reads the header and checks it against the file's size, decodes nothing yet.
///
/// # Errors
/// A file that cannot be read, is not ours ([`CineError::NotCine`]), contradicts its format, or uses a part of it
/// that is not supported; a senseless rate. The message ends with the path.
pub fn open_with(path: &Path, options: OpenOptions) -> Result<Box<dyn CineReader>, CineError> {
    let reader: Result<Box<dyn CineReader>, CineError> = match recognise(path) {
        Some(Kind::Dicom) => dicom::Dicom::open(path, options).map(|r| Box::new(r) as _),
        Some(Kind::MetaImage) => metaimage::MetaImage::open(path, options).map(|r| Box::new(r) as _),
        Some(Kind::Image) => images::Images::file(path, options).map(|r| Box::new(r) as _),
        Some(Kind::Folder) => images::Images::folder(path, options).map(|r| Box::new(r) as _),
        Some(Kind::Glob) => images::Images::glob(path, options).map(|r| Box::new(r) as _),
        None => match File::open(path) {
            Ok(_) => Err(CineError::NotCine),
            Err(cause) => Err(CineError::Io { action: "open the file", cause }),
        },
    };
    reader.map_err(|e| e.at(path))
}

/// A file, or what was unpacked from one.
trait Source: Read + Seek + Send {}
impl<T: Read + Seek + Send> Source for T {}

/// `width * height` of a picture that is worth reading.
fn checked_area(width: u64, height: u64) -> Result<usize, CineError> {
    let area = width.saturating_mul(height);
    if area == 0 || width > MAX_SIDE || height > MAX_SIDE || area > MAX_PIXELS {
        return Err(CineError::Size { width, height });
    }
    usize::try_from(area).map_err(|_| CineError::Size { width, height })
}

/// Reads exactly `len` bytes. Memory grows with what is there, not with what was promised.
fn read_bytes(from: &mut (impl Read + ?Sized), len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(len).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < len {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("the data end after {} of {len} bytes", bytes.len()),
        ));
    }
    Ok(bytes)
}
