//! Finds the pixel data of a DICOM file and the few elements that describe it, without trusting a length.
//!
//! The object model of dicom-rs takes a whole data set: it recurses into sequences as deep as they go and reserves
//! what a length field says, so a hostile file could exhaust the stack or the memory. This pass walks the elements
//! with seeks and a counter, keeps the top-level elements that are wanted, none of them a sequence, and leaves only
//! those to dicom-rs. It also gives the pixel data's place, so that frames are read from the file one by one.

use std::io::{Cursor, Read, Seek, SeekFrom};

use dicom_core::Tag;
use flate2::read::DeflateDecoder;

use super::syntax::{self, Encoding};
use crate::cine::{CineError, Source, read_bytes};

/// Longest single element that is kept: a frame time vector or a palette is far below.
const MAX_ELEMENT: u64 = 4 << 20;
/// Most bytes kept in all.
const MAX_KEPT: usize = 16 << 20;
/// Most bytes a deflated data set may unpack to. It has to be held in memory, as it cannot be entered halfway.
const MAX_INFLATED: u64 = 1 << 30;
/// Deepest nesting of sequences of undefined length; real objects stay below ten.
const MAX_DEPTH: usize = 64;
/// Value of a length field that says "until the delimiter".
const UNDEFINED: u32 = u32::MAX;

/// What the scan found.
pub(super) struct Layout {
    /// Transfer syntax UID; Implicit VR Little Endian's or Explicit VR Little Endian's for files without Part 10 header.
    pub(super) syntax: String,
    /// How the kept elements and native pixels are encoded.
    pub(super) encoding: Encoding,
    /// Kept elements, each as it stands in the file, in order.
    pub(super) elements: Vec<u8>,
    /// Place of the first byte of the pixel data's value.
    pub(super) pixels_at: u64,
    /// Length of the value; `None` if it is encapsulated.
    pub(super) pixels_len: Option<u64>,
    /// The value is written in 16-bit words (OW), which matters for bytes in a big-endian file.
    pub(super) pixels_in_words: bool,
    /// Bytes in `source`.
    pub(super) total: u64,
    /// The file, or the unpacked data set.
    pub(super) source: Box<dyn Source>,
}

/// The error for a file that breaks DICOM's rules.
pub(super) fn malformed(problem: impl Into<String>) -> CineError {
    CineError::Malformed { format: "DICOM", problem: problem.into() }
}

/// Header of one element, item or delimiter.
struct Header {
    group: u16,
    element: u16,
    vr: Option<[u8; 2]>,
    length: u32,
    /// The header's own bytes.
    raw: Vec<u8>,
}

/// Walks `source` up to the pixel data and keeps the elements named in `wanted`.
///
/// # Errors
/// A file that ends early, has no pixel data, or nests without end; a transfer syntax that is not supported.
pub(super) fn scan(mut source: Box<dyn Source>, wanted: &[Tag]) -> Result<Layout, CineError> {
    let mut total = source.seek(SeekFrom::End(0)).map_err(CineError::io("read the file"))?;
    let mut head = Vec::new();
    source.rewind().map_err(CineError::io("read the file"))?;
    source.as_mut().take(132).read_to_end(&mut head).map_err(CineError::io("read the file"))?;
    let mut at = if head.get(128..132) == Some(b"DICM") { 132 } else { 0 };

    let (uid, after_meta) = file_meta(source.as_mut(), at, total)?;
    at = after_meta;
    let uid = match uid {
        Some(uid) => uid,
        None => guess(source.as_mut(), at)?.to_owned(),
    };
    let encoding = syntax::encoding(&uid)?;
    if uid == syntax::DEFLATED {
        source.seek(SeekFrom::Start(at)).map_err(CineError::io("read the file"))?;
        let mut data = Vec::new();
        DeflateDecoder::new(source)
            .take(MAX_INFLATED + 1)
            .read_to_end(&mut data)
            .map_err(|e| malformed(format!("the deflated data set is damaged: {e}")))?;
        if data.len() as u64 > MAX_INFLATED {
            return Err(malformed(format!("the deflated data set holds more than {MAX_INFLATED} bytes")));
        }
        (at, total) = (0, data.len() as u64);
        source = Box::new(Cursor::new(data));
    }

    let mut elements = Vec::new();
    loop {
        let Some(header) = read_header(source.as_mut(), at, total, encoding)? else {
            return Err(malformed("it holds no Pixel Data (7FE0,0010)"));
        };
        let value_at = at + header.raw.len() as u64;
        if (header.group, header.element) == (0x7fe0, 0x0010) {
            let pixels_len = (header.length != UNDEFINED).then_some(u64::from(header.length));
            if pixels_len.is_some_and(|len| value_at.saturating_add(len) > total) {
                return Err(malformed(format!(
                    "Pixel Data says {} bytes, the file ends after {}",
                    header.length,
                    total - value_at
                )));
            }
            return Ok(Layout {
                syntax: uid,
                encoding,
                elements,
                pixels_at: value_at,
                pixels_len,
                pixels_in_words: header.vr == Some(*b"OW"),
                total,
                source,
            });
        }
        if header.length == UNDEFINED {
            at = skip_undefined(source.as_mut(), &header, value_at, total, encoding)?;
            continue;
        }
        let length = u64::from(header.length);
        at = end_of(&header, value_at, total)?;
        let tag = Tag(header.group, header.element);
        if wanted.contains(&tag) && header.vr != Some(*b"SQ") && length <= MAX_ELEMENT {
            if elements.len() + header.raw.len() + length as usize > MAX_KEPT {
                return Err(malformed(format!("its attributes take more than {MAX_KEPT} bytes")));
            }
            source.seek(SeekFrom::Start(value_at)).map_err(CineError::io("read the file"))?;
            let value = read_bytes(source.as_mut(), length).map_err(CineError::io("read the file"))?;
            elements.extend_from_slice(&header.raw);
            elements.extend_from_slice(&value);
        }
    }
}

/// Whether a file without the DICM mark is a data set nevertheless: it walks through to pixel data.
pub(super) fn is_data_set(source: Box<dyn Source>) -> bool {
    scan(source, &[]).is_ok()
}

/// Transfer syntax UID and the place behind the file meta group, which is always Explicit VR Little Endian.
fn file_meta(source: &mut dyn Source, start: u64, total: u64) -> Result<(Option<String>, u64), CineError> {
    let (mut at, mut uid) = (start, None);
    loop {
        source.seek(SeekFrom::Start(at)).map_err(CineError::io("read the file"))?;
        let mut group = Vec::new();
        source.take(2).read_to_end(&mut group).map_err(CineError::io("read the file"))?;
        if group != [2, 0] {
            return Ok((uid, at));
        }
        let Some(header) = read_header(source, at, total, Encoding::EXPLICIT)? else { return Ok((uid, at)) };
        let value_at = at + header.raw.len() as u64;
        at = end_of(&header, value_at, total)?;
        if header.element == 0x0010 {
            let value = read_bytes(source, u64::from(header.length).min(64));
            let value = value.map_err(CineError::io("read the file"))?;
            let text = String::from_utf8_lossy(&value);
            uid = Some(text.trim_end_matches(['\0', ' ']).to_owned());
        }
    }
}

/// The encoding of a data set that does not say: explicit if a value representation stands where one would.
fn guess(source: &mut dyn Source, at: u64) -> Result<&'static str, CineError> {
    source.seek(SeekFrom::Start(at)).map_err(CineError::io("read the file"))?;
    let first = read_bytes(source, 8).map_err(|_| malformed("it ends before the first element"))?;
    // A data set starts with group 0008 and even elements of it; anything else is not worth a guess.
    if first.get(..2) != Some(&[8, 0]) {
        return Err(malformed("it starts neither with the DICM mark nor with an element of group 0008"));
    }
    let explicit = first.get(4..6).is_some_and(|vr| vr.iter().all(u8::is_ascii_uppercase));
    Ok(if explicit { syntax::EXPLICIT_LE } else { syntax::IMPLICIT_LE })
}

fn end_of(header: &Header, value_at: u64, total: u64) -> Result<u64, CineError> {
    let end = value_at.saturating_add(u64::from(header.length));
    if end > total {
        return Err(malformed(format!(
            "element ({:04X},{:04X}) says {} bytes, the file ends after {}",
            header.group,
            header.element,
            header.length,
            total - value_at
        )));
    }
    Ok(end)
}

/// The header at `at`; `None` at the very end of the file.
fn read_header(
    source: &mut dyn Source,
    at: u64,
    total: u64,
    encoding: Encoding,
) -> Result<Option<Header>, CineError> {
    if at >= total {
        return Ok(None);
    }
    source.seek(SeekFrom::Start(at)).map_err(CineError::io("read the file"))?;
    let cut = |_| malformed(format!("it ends inside an element header, at byte {at}"));
    let mut raw = read_bytes(source, 8).map_err(cut)?;
    let [a, b, c, d, v, w, l, m] = raw[..] else { return Err(malformed("it ends inside an element header")) };
    let (group, element) = (encoding.u16([a, b]), encoding.u16([c, d]));
    // Items and delimiters have no value representation in any encoding.
    if group == 0xfffe || !encoding.explicit {
        return Ok(Some(Header { group, element, vr: None, length: encoding.u32([v, w, l, m]), raw }));
    }
    // An unknown representation could have either form of length: dicom-rs and this walk must not differ on it.
    let long = match &[v, w] {
        b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT"
        | b"UV" => true,
        b"AE" | b"AS" | b"AT" | b"CS" | b"DA" | b"DS" | b"DT" | b"FD" | b"FL" | b"IS" | b"LO" | b"LT"
        | b"PN" | b"SH" | b"SL" | b"SS" | b"ST" | b"TM" | b"UI" | b"UL" | b"US" => false,
        _ => {
            return Err(malformed(format!(
                "element ({group:04X},{element:04X}) has no value representation"
            )));
        }
    };
    let length = if long {
        let more = read_bytes(source, 4).map_err(cut)?;
        let [e, f, g, h] = more[..] else { return Err(malformed("it ends inside an element header")) };
        raw.extend_from_slice(&more);
        encoding.u32([e, f, g, h])
    } else {
        u32::from(encoding.u16([l, m]))
    };
    Ok(Some(Header { group, element, vr: Some([v, w]), length, raw }))
}

/// The place behind a value of undefined length: a sequence, or encapsulated data inside one.
fn skip_undefined(
    source: &mut dyn Source,
    outer: &Header,
    from: u64,
    total: u64,
    encoding: Encoding,
) -> Result<u64, CineError> {
    // What an UN element of undefined length holds is implicit, whatever is around it (PS3.5 6.2.2).
    let inside = |header: &Header, around: Encoding| match header.vr {
        Some([b'U', b'N']) => Encoding::IMPLICIT,
        _ => around,
    };
    // The encoding at each level that waits for its delimiter.
    let mut open = vec![inside(outer, encoding)];
    let mut at = from;
    while let Some(&current) = open.last() {
        let Some(header) = read_header(source, at, total, current)? else {
            return Err(malformed("it ends inside a sequence"));
        };
        at += header.raw.len() as u64;
        match (header.group, header.element) {
            (0xfffe, 0xe00d | 0xe0dd) => {
                open.pop();
            }
            _ if header.length == UNDEFINED => {
                if open.len() >= MAX_DEPTH {
                    return Err(malformed(format!("its sequences are nested deeper than {MAX_DEPTH}")));
                }
                open.push(inside(&header, current));
            }
            _ => at = end_of(&header, at, total)?,
        }
    }
    Ok(at)
}
