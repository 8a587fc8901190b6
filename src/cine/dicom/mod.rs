//! DICOM single-frame and multi-frame objects.

mod attributes;
mod codec;
mod fragments;
mod rle;
mod scan;
mod show;
mod syntax;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use self::attributes::{Attributes, Format, Photometric};
use self::fragments::Frames;
use self::show::Rendering;
use self::syntax::Codec;
use super::timeline::Timeline;
use super::{CineError, CineFrame, CineReader, OpenOptions, Source, Timing};

/// SOP class named in the objects that are handed to dicom-rs; it asks for one and does not look at it.
const ULTRASOUND_MULTIFRAME: &str = "1.2.840.10008.5.1.4.1.1.3.1";

/// Whether a file without the DICM mark is a DICOM data set; `head` are its first bytes.
pub(super) fn looks_headerless(file: File, head: &[u8]) -> bool {
    // Group 0002 or 0008: the only ones such a file can start with.
    matches!(head.get(..2), Some([2 | 8, 0])) && scan::is_data_set(Box::new(BufReader::new(file)))
}

/// A DICOM object, read frame by frame.
///
/// Gray values are shown through the file's first window if it has one, else by their full range up to 8 bits and
/// by the first frame's minimum and maximum beyond; the same for every frame. Icon images, overlays, VOI and
/// modality tables are not applied.
pub(super) struct Dicom {
    path: PathBuf,
    source: Box<dyn Source>,
    syntax: String,
    syntax_name: &'static str,
    codec: Codec,
    big_endian: bool,
    format: Format,
    frames: Frames,
    count: usize,
    next: usize,
    rendering: Rendering,
    timeline: Timeline,
    timing: Timing,
}

impl Dicom {
    /// Reads the attributes and finds the frames.
    pub(super) fn open(path: &Path, options: OpenOptions) -> Result<Self, CineError> {
        let file = File::open(path).map_err(CineError::io("open the file"))?;
        let mut layout = scan::scan(Box::new(BufReader::new(file)), &attributes::WANTED)?;
        let (codec, syntax_name) = syntax::codec(&layout.syntax)?;
        let attributes = Attributes::parse(&layout)?;
        let format = attributes.format()?;
        let count = attributes.frames()?;
        let big_endian = layout.encoding.big_endian;
        if big_endian && layout.pixels_in_words && format.bits_allocated == 8 {
            return Err(CineError::Unsupported {
                format: "DICOM",
                problem: "bytes in big-endian words are not read: transcode the object first".into(),
            });
        }
        let odd = format.columns % 2 == 1;
        let packed = format.photometric == Photometric::Ybr422 && codec == Codec::Native;
        let channel =
            u64::from(format.rows) * u64::from(format.columns) * u64::from(format.bits_allocated / 8);
        let full = channel.saturating_mul(3).saturating_mul(count as u64);
        if packed && layout.pixels_len.is_some_and(|len| fragments::fits(len, full)) {
            return Err(scan::malformed(format!(
                "the label says 4:2:2 (YBR_FULL_422), which are {} bytes here, the data are full-rate ({full} bytes): the \
                 Photometric Interpretation may need to be YBR_FULL or RGB",
                full / 3 * 2
            )));
        }
        if packed && (odd || format.planar || format.bits_allocated != 8) {
            return Err(scan::malformed(
                "uncompressed YBR_FULL_422 must have an even number of columns, 8 bits and interleaved samples",
            ));
        }
        let per_pixel = match format.photometric {
            Photometric::Ybr422 => 2,
            _ => u64::from(format.samples),
        };
        let frames = Frames::locate(&mut layout, codec, count, channel * per_pixel)?;
        let (timeline, timing) = attributes.timeline(count, options)?;
        let palette = match format.photometric {
            Photometric::Palette => Some(attributes.palette()?),
            _ => None,
        };
        let rendering = Rendering { rescale: attributes.rescale(), window: attributes.window(), palette };
        Ok(Self {
            path: path.to_owned(),
            source: layout.source,
            syntax: layout.syntax,
            syntax_name,
            codec,
            big_endian,
            format,
            frames,
            count,
            next: 0,
            rendering,
            timeline,
            timing,
        })
    }

    fn frame(&mut self, index: usize) -> Result<CineFrame, CineError> {
        let mut data = self.frames.read(self.source.as_mut(), index)?;
        if self.big_endian && self.format.bits_allocated == 16 {
            data.chunks_exact_mut(2).for_each(|b| b.swap(0, 1));
        }
        let samples = codec::decode(self.codec, &self.syntax, &self.format, &data)?;
        let (format, data) = self.rendering.render(&self.format, &samples)?;
        let (pts, duration) = self.timeline.at(index);
        let (width, height) = (usize::from(self.format.columns), usize::from(self.format.rows));
        Ok(CineFrame { pts, duration, format, width, height, data })
    }
}

impl CineReader for Dicom {
    fn describe(&self) -> String {
        let kind = if self.count == 1 { "DICOM" } else { "DICOM multi-frame" };
        let Self { syntax_name, count, format, .. } = self;
        format!("{kind}, {syntax_name}, {count} frames of {}x{}", format.columns, format.rows)
    }

    fn frames(&self) -> usize {
        self.count
    }

    fn timing(&self) -> Timing {
        self.timing.clone()
    }

    fn next_frame(&mut self) -> Result<Option<CineFrame>, CineError> {
        let index = self.next;
        if index >= self.count {
            return Ok(None);
        }
        self.next += 1;
        self.frame(index).map(Some).map_err(|e| e.in_frame(index).at(&self.path))
    }
}
