//! The text header of a MetaImage, PLUS sequence fields included.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Component, Path, PathBuf};

use crate::cine::{CineError, checked_area};

/// Longest line: PLUS writes one line for each field of each frame, none near this.
const MAX_LINE: u64 = 64 << 10;
/// Most files in a LIST and most frames with fields of their own.
const MAX_FRAMES: usize = 1 << 22;

/// How one number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// MET_UCHAR.
    U8,
    /// MET_CHAR.
    I8,
    /// MET_USHORT.
    U16,
    /// MET_SHORT.
    I16,
    /// MET_UINT.
    U32,
    /// MET_INT.
    I32,
    /// MET_FLOAT.
    F32,
    /// MET_DOUBLE.
    F64,
}

impl Element {
    fn named(name: &str) -> Option<Self> {
        Some(match name.strip_suffix("_ARRAY").unwrap_or(name) {
            "MET_UCHAR" => Self::U8,
            "MET_CHAR" => Self::I8,
            "MET_USHORT" => Self::U16,
            "MET_SHORT" => Self::I16,
            "MET_UINT" => Self::U32,
            "MET_INT" => Self::I32,
            "MET_FLOAT" => Self::F32,
            "MET_DOUBLE" => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of a number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Where the numbers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DataFile {
    /// Behind the header, in the same file.
    Local,
    /// In another file beside the header.
    Other(PathBuf),
    /// Each frame in a file of its own.
    List(Vec<PathBuf>),
}

/// What PLUS writes of one frame, as far as it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct FrameFields {
    /// Seconds, on the recording's clock.
    pub(super) timestamp: Option<f64>,
    /// ImageStatus is INVALID: no picture came from the scanner for it.
    pub(super) invalid: bool,
}

/// A header that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    /// Pixels per row, as stored.
    pub(super) width: usize,
    /// Rows, as stored.
    pub(super) height: usize,
    /// Frames, those marked invalid included.
    pub(super) frames: usize,
    /// 1, 3 or 4 numbers a pixel.
    pub(super) channels: usize,
    /// Kind of number.
    pub(super) element: Element,
    /// Most significant byte first.
    pub(super) big_endian: bool,
    /// The data are one zlib stream.
    pub(super) compressed: bool,
    /// Bytes to skip in the data file; `None` for "the data are at its end".
    pub(super) skip: Option<u64>,
    /// Where the data are.
    pub(super) data: DataFile,
    /// `(horizontally, vertically)`: what turns the pictures into PLUS's MF orientation.
    pub(super) flip: (bool, bool),
    /// Fields of single frames, by index.
    pub(super) fields: BTreeMap<usize, FrameFields>,
}

/// The error for a header that breaks the format's rules.
pub(super) fn malformed(problem: impl Into<String>) -> CineError {
    CineError::Malformed { format: "MetaImage", problem: problem.into() }
}

fn unsupported(problem: impl Into<String>) -> CineError {
    CineError::Unsupported { format: "MetaImage", problem: problem.into() }
}

/// Reads one line without its end; `None` at the end of the file.
fn line(from: &mut impl BufRead) -> Result<Option<String>, CineError> {
    let mut bytes = Vec::new();
    std::io::Read::take(&mut *from, MAX_LINE)
        .read_until(b'\n', &mut bytes)
        .map_err(CineError::io("read the header"))?;
    if bytes.len() as u64 == MAX_LINE {
        return Err(malformed(format!("a header line is longer than {MAX_LINE} bytes")));
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    // Names of people and rooms come in any encoding; none of the fields that are read does.
    Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
}

impl Header {
    /// Reads up to and with ElementDataFile, which is the last field; `from` then stands at the local data.
    ///
    /// # Errors
    /// A header that is incomplete or contradicts itself, or asks for something that is not read.
    pub(super) fn read(from: &mut impl BufRead) -> Result<Self, CineError> {
        let mut plain: BTreeMap<String, String> = BTreeMap::new();
        let mut fields: BTreeMap<usize, FrameFields> = BTreeMap::new();
        let mut list = Vec::new();
        while let Some(text) = line(from)? {
            if text.is_empty() {
                continue;
            }
            let Some((name, value)) = text.split_once('=').map(|(n, v)| (n.trim(), v.trim())) else {
                let start: String = text.chars().take(40).collect();
                return Err(malformed(format!("'{start}' stands where 'Name = value' was expected")));
            };
            if let Some((index, field)) = frame_field(name) {
                if fields.len() >= MAX_FRAMES {
                    return Err(malformed(format!("more than {MAX_FRAMES} frames have fields")));
                }
                match field {
                    "Timestamp" => fields.entry(index).or_default().timestamp = value.parse().ok(),
                    "ImageStatus" => fields.entry(index).or_default().invalid = value == "INVALID",
                    _ => {}
                }
            } else if KNOWN.contains(&name) {
                plain.insert(name.to_owned(), value.to_owned());
            }
            if name == "ElementDataFile" {
                if value.split_whitespace().next() == Some("LIST") {
                    while let Some(file) = line(from)? {
                        if list.len() >= MAX_FRAMES {
                            return Err(malformed(format!("the LIST names more than {MAX_FRAMES} files")));
                        }
                        if !file.is_empty() {
                            list.push(beside(&file)?);
                        }
                    }
                }
                break;
            }
        }
        build(&plain, fields, list)
    }
}

/// The fields that are read; others, of which PLUS writes many, are not kept.
const KNOWN: [&str; 13] = [
    "ObjectType",
    "NDims",
    "DimSize",
    "ElementType",
    "ElementNumberOfChannels",
    "BinaryData",
    "BinaryDataByteOrderMSB",
    "ElementByteOrderMSB",
    "CompressedData",
    "HeaderSize",
    "ElementDataFile",
    "UltrasoundImageOrientation",
    "UltrasoundImageType",
];

/// `Seq_Frame0012_Timestamp` is field `Timestamp` of frame 12.
fn frame_field(name: &str) -> Option<(usize, &str)> {
    let (index, field) = name.strip_prefix("Seq_Frame")?.split_once('_')?;
    Some((index.parse().ok()?, field))
}

fn build(
    plain: &BTreeMap<String, String>,
    fields: BTreeMap<usize, FrameFields>,
    list: Vec<PathBuf>,
) -> Result<Header, CineError> {
    let get = |name: &str| plain.get(name).map(String::as_str);
    let need = |name: &str| get(name).ok_or_else(|| malformed(format!("the field {name} is missing")));
    let flag = |name: &str| match get(name).map(str::to_ascii_lowercase).as_deref() {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(malformed(format!("{name} is '{other}', expected True or False"))),
    };
    let number = |name: &str, text: &str| {
        text.parse::<u64>().map_err(|_| malformed(format!("{name} holds '{text}', expected whole numbers")))
    };

    if get("ObjectType").is_some_and(|t| t != "Image") {
        return Err(unsupported("ObjectType is not Image"));
    }
    if get("BinaryData").is_some() && !flag("BinaryData")? {
        return Err(unsupported("data written as text (BinaryData = False) are not read"));
    }
    let dims = number("NDims", need("NDims")?)?;
    let size: Vec<u64> =
        need("DimSize")?.split_whitespace().map(|t| number("DimSize", t)).collect::<Result<_, _>>()?;
    if !(2..=4).contains(&dims) || size.len() as u64 != dims {
        return Err(malformed(format!(
            "DimSize has {} numbers and NDims is {dims}, expected 2 to 4",
            size.len()
        )));
    }
    let at = |i: usize| size.get(i).copied().unwrap_or(1);
    checked_area(at(0), at(1))?;
    if at(2) > 1 && at(3) > 1 {
        return Err(unsupported("a sequence of volumes is not read, expected a sequence of pictures"));
    }
    let frames = usize::try_from(at(2).saturating_mul(at(3))).unwrap_or(usize::MAX);
    if frames == 0 {
        return Err(malformed("it has no frames"));
    }
    let channels = get("ElementNumberOfChannels").map_or(Ok(1), |t| number("ElementNumberOfChannels", t))?;
    if !matches!(channels, 1 | 3 | 4) {
        return Err(unsupported(format!("{channels} channels are not read, expected 1, 3 or 4")));
    }
    let kind = need("ElementType")?;
    let element = Element::named(kind).ok_or_else(|| {
        unsupported(format!(
            "ElementType {kind} is not read, expected MET_ with UCHAR, CHAR, USHORT, SHORT, UINT, INT, FLOAT or DOUBLE"
        ))
    })?;
    if let Some(image) = get("UltrasoundImageType").filter(|t| t.starts_with("RF_")) {
        return Err(unsupported(format!("UltrasoundImageType {image} is echo data, not pictures")));
    }
    let skip = match get("HeaderSize") {
        None => Some(0),
        Some("-1") => None,
        Some(text) => Some(number("HeaderSize", text)?),
    };
    let data = match need("ElementDataFile")? {
        "LOCAL" | "Local" | "local" => DataFile::Local,
        text if text.split_whitespace().next() == Some("LIST") => DataFile::List(list),
        text if text.contains('%') => {
            return Err(unsupported("a numbered pattern as ElementDataFile is not read: use LIST"));
        }
        text => DataFile::Other(beside(text)?),
    };
    if matches!(&data, DataFile::List(files) if files.len() != frames) {
        return Err(malformed(format!("the LIST does not name one file for each of {frames} frames")));
    }
    Ok(Header {
        width: at(0) as usize,
        height: at(1) as usize,
        frames,
        channels: channels as usize,
        element,
        big_endian: flag("BinaryDataByteOrderMSB")? || flag("ElementByteOrderMSB")?,
        compressed: flag("CompressedData")?,
        skip,
        data,
        flip: flips(get("UltrasoundImageOrientation").unwrap_or("MF"))?,
        fields,
    })
}

/// What brings a picture into MF: rows from the skin downwards, columns towards the marked side of the probe.
///
/// PLUS names the directions of +x and +y by M(arked), U(nmarked), F(ar), N(ear). A third letter, for volumes, says
/// nothing about a picture. XX is PLUS's "not known": shown as stored.
fn flips(orientation: &str) -> Result<(bool, bool), CineError> {
    match orientation.get(..2) {
        Some("MF" | "XX") | None => Ok((false, false)),
        Some("UF") => Ok((true, false)),
        Some("MN") => Ok((false, true)),
        Some("UN") => Ok((true, true)),
        _ => Err(unsupported(format!(
            "UltrasoundImageOrientation {orientation} is not read, expected MF, UF, MN or UN"
        ))),
    }
}

/// A name that cannot lead out of the header's folder. A header is data from elsewhere; it must not make the
/// program open any file of the machine.
fn beside(name: &str) -> Result<PathBuf, CineError> {
    let path = Path::new(name);
    let inside = path.components().all(|c| matches!(c, Component::Normal(_)));
    if name.is_empty() || !inside {
        return Err(malformed(format!(
            "the data file '{name}' is refused: expected a name in the header's folder"
        )));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_folder() {
        assert!(beside("a.raw").is_ok() && beside("sub/a.raw").is_ok());
        for name in ["", "/etc/passwd", "../a.raw", "sub/../../a.raw", "./../a"] {
            assert!(beside(name).is_err(), "{name}");
        }
    }

    #[test]
    fn frame_fields_are_told_apart() {
        assert_eq!(frame_field("Seq_Frame0012_Timestamp"), Some((12, "Timestamp")));
        assert_eq!(frame_field("Seq_Frame0012_ProbeToTrackerTransformStatus").map(|f| f.0), Some(12));
        assert_eq!(frame_field("Seq_Framex_Timestamp"), None);
        assert_eq!(frame_field("DimSize"), None);
    }
}
