//! MetaImage (`.mha`, `.mhd`), and the sequences PLUS writes in it.

mod header;
mod show;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::ZlibDecoder;

use self::header::{DataFile, Element, Header, malformed};
use super::gray::Window;
use super::timeline::Timeline;
use super::{CineError, CineFrame, CineReader, OpenOptions, Timing, read_bytes};

/// Deflate packs at most this many bytes into one; a header that promises more cannot be true.
const MAX_RATIO: u64 = 1032;

/// Whether a file is a MetaImage: by its extension, or by the fields such a header starts with.
pub(super) fn looks_like(path: &Path, head: &[u8]) -> bool {
    let named = path.extension().and_then(|e| e.to_str());
    named.is_some_and(|e| e.eq_ignore_ascii_case("mha") || e.eq_ignore_ascii_case("mhd"))
        || [b"ObjectType = Image".as_slice(), b"NDims = "].iter().any(|start| head.starts_with(start))
}

/// Where the next frame's bytes come from.
enum Data {
    /// One stream over all frames, bounded by the header's size.
    Stream(Box<dyn Read + Send>),
    /// A file for each frame.
    Files(Vec<PathBuf>),
}

/// A MetaImage read slice by slice as a cine-loop.
///
/// MET_UCHAR is shown as it is; other numbers are scaled so that the first frame's minimum is 0 and its maximum 255,
/// and so for all frames. Pictures come out in PLUS's MF orientation. Frames whose ImageStatus is INVALID carry no
/// picture and are left out; where there are timestamps, the frame before them lasts until the next one.
pub(super) struct MetaImage {
    path: PathBuf,
    header: Header,
    data: Data,
    /// Index of the next slice in the file.
    slice: usize,
    /// Number of frames given out.
    given: usize,
    valid: usize,
    window: Option<Window>,
    timeline: Timeline,
    timing: Timing,
}

impl MetaImage {
    /// Reads the header and compares its promises with the size of the data.
    pub(super) fn open(path: &Path, options: OpenOptions) -> Result<Self, CineError> {
        let file = File::open(path).map_err(CineError::io("open the file"))?;
        let mut reader = BufReader::new(file);
        let header = Header::read(&mut reader)?;
        let invalid = header.fields.iter().filter(|(i, f)| f.invalid && **i < header.frames).count();
        let valid = header.frames - invalid;
        if valid == 0 {
            return Err(malformed("all frames are marked INVALID"));
        }
        let data = open_data(path, &header, reader)?;
        let (timeline, timing) = times(&header, options)?;
        let window = (header.element == Element::U8).then_some(Window::Range { low: 0.0, high: 255.0 });
        let path = path.to_owned();
        Ok(Self { path, header, data, slice: 0, given: 0, valid, window, timeline, timing })
    }

    fn is_invalid(&self, slice: usize) -> bool {
        self.header.fields.get(&slice).is_some_and(|f| f.invalid)
    }

    /// The bytes of the next slice.
    fn bytes(&mut self) -> Result<Vec<u8>, CineError> {
        let len = slice_bytes(&self.header);
        match &mut self.data {
            Data::Stream(stream) => read_bytes(stream, len).map_err(CineError::io("read the frame")),
            Data::Files(files) => {
                let Some(path) = files.get(self.slice) else {
                    return Err(malformed("the LIST is too short"));
                };
                let mut file = open_other(path, &self.header, len)?;
                let read = if self.header.compressed {
                    read_bytes(&mut ZlibDecoder::new(file), len)
                } else {
                    read_bytes(&mut file, len)
                };
                read.map_err(|e| CineError::io("read the frame")(e).at(path))
            }
        }
    }

    fn frame(&mut self) -> Result<Option<CineFrame>, CineError> {
        while self.slice < self.header.frames {
            let slice = self.slice;
            let bytes = self.bytes();
            self.slice += 1;
            let bytes = bytes.map_err(|e| e.in_frame(slice))?;
            if self.is_invalid(slice) {
                continue;
            }
            let (format, data) = show::render(&self.header, &mut self.window, &bytes);
            let (pts, duration) = self.timeline.at(self.given);
            self.given += 1;
            let (width, height) = (self.header.width, self.header.height);
            return Ok(Some(CineFrame { pts, duration, format, width, height, data }));
        }
        Ok(None)
    }
}

impl CineReader for MetaImage {
    fn describe(&self) -> String {
        let Header { width, height, frames, compressed, .. } = self.header;
        let packed = if compressed { "zlib" } else { "uncompressed" };
        let left_out = match frames - self.valid {
            0 => String::new(),
            n => format!(", {n} more marked INVALID left out"),
        };
        format!("MetaImage, {packed}, {} frames of {width}x{height}{left_out}", self.valid)
    }

    fn frames(&self) -> usize {
        self.valid
    }

    fn timing(&self) -> Timing {
        self.timing.clone()
    }

    fn next_frame(&mut self) -> Result<Option<CineFrame>, CineError> {
        let frame = self.frame().map_err(|e| e.at(&self.path));
        if frame.is_err() && matches!(self.data, Data::Stream(_)) {
            // A broken stream has lost its place; a later frame would show the wrong pixels.
            self.slice = self.header.frames;
        }
        frame
    }
}

/// Bytes of a slice; the header has checked that the area is sane.
fn slice_bytes(header: &Header) -> u64 {
    (header.width * header.height * header.channels * header.element.bytes()) as u64
}

fn open_data(path: &Path, header: &Header, mut local: BufReader<File>) -> Result<Data, CineError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let needed = slice_bytes(header).saturating_mul(header.frames as u64);
    let file = match &header.data {
        DataFile::List(files) => return Ok(Data::Files(files.iter().map(|f| folder.join(f)).collect())),
        DataFile::Other(name) => open_other(&folder.join(name), header, needed)?,
        DataFile::Local => {
            // The data start right behind ElementDataFile, wherever HeaderSize says.
            let at = local.stream_position().map_err(CineError::io("read the file"))?;
            check_size(header, local.get_ref(), at, needed)?;
            local
        }
    };
    Ok(Data::Stream(if header.compressed {
        Box::new(ZlibDecoder::new(file).take(needed))
    } else {
        Box::new(file.take(needed))
    }))
}

/// A data file beside the header, at its first number.
fn open_other(path: &Path, header: &Header, needed: u64) -> Result<BufReader<File>, CineError> {
    let open = || {
        let mut file = File::open(path).map_err(CineError::io("open the data file"))?;
        let meta = file.metadata().map_err(CineError::io("read the data file"))?;
        if !meta.is_file() {
            return Err(malformed("the data file is not a regular file"));
        }
        let at = match header.skip {
            Some(at) => at,
            None if header.compressed => {
                return Err(malformed("HeaderSize = -1 says nothing where the data are compressed"));
            }
            None => meta.len().saturating_sub(needed),
        };
        check_size(header, &file, at, needed)?;
        file.seek(SeekFrom::Start(at)).map_err(CineError::io("read the data file"))?;
        Ok(BufReader::new(file))
    };
    open().map_err(|e: CineError| e.at(path))
}

fn check_size(header: &Header, file: &File, at: u64, needed: u64) -> Result<(), CineError> {
    let len = file.metadata().map_err(CineError::io("read the file"))?.len();
    let there = len.saturating_sub(at);
    let most = if header.compressed { there.saturating_mul(MAX_RATIO) } else { there };
    if needed > most {
        let what = if header.compressed { " compressed" } else { "" };
        return Err(malformed(format!(
            "the header promises {} frames, {needed} bytes; there are {there}{what} bytes of data",
            header.frames
        )));
    }
    Ok(())
}

/// The sequence's timestamps, those of left-out frames too, if every frame has one and they rise; else a rate.
fn times(header: &Header, options: OpenOptions) -> Result<(Timeline, Timing), CineError> {
    if header.fields.values().all(|f| f.timestamp.is_none()) {
        return Timeline::assumed(options.fps, "the file gives no timestamps");
    }
    // As many fields as frames, so an absurd number of frames allocates nothing.
    let stamps: Vec<Option<f64>> = if header.fields.len() < header.frames {
        vec![None]
    } else {
        (0..header.frames)
            .map(|i| header.fields.get(&i).copied().unwrap_or_default())
            .filter(|f| !f.invalid)
            .map(|f| f.timestamp)
            .collect()
    };
    let rising = match stamps.iter().position(Option::is_none) {
        Some(_) => Err("some frames have none".to_owned()),
        None => Timeline::from_seconds(&stamps.into_iter().flatten().collect::<Vec<_>>()),
    };
    match rising {
        Ok(timeline) => Ok((timeline, Timing::File("Seq_Frame Timestamp".to_owned()))),
        Err(why) => Timeline::assumed(options.fps, &format!("the file's timestamps are not usable: {why}")),
    }
}
