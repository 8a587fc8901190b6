//! Transfer syntaxes: which are read, and the names of those that are not.

use crate::cine::CineError;

/// Implicit VR Little Endian.
pub(super) const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
/// Explicit VR Little Endian.
pub(super) const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
/// Deflated Explicit VR Little Endian.
pub(super) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
/// Explicit VR Big Endian, retired.
const EXPLICIT_BE: &str = "1.2.840.10008.1.2.2";

/// How elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    /// Elements carry their value representation.
    pub(super) explicit: bool,
    /// Most significant byte first.
    pub(super) big_endian: bool,
}

impl Encoding {
    pub(super) const EXPLICIT: Self = Self { explicit: true, big_endian: false };
    pub(super) const IMPLICIT: Self = Self { explicit: false, big_endian: false };

    /// A 16-bit number.
    pub(super) fn u16(self, b: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) }
    }

    /// A 32-bit number.
    pub(super) fn u32(self, b: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }
    }

    /// UID under which dicom-rs reads elements written so.
    pub(super) fn uid(self) -> &'static str {
        match (self.explicit, self.big_endian) {
            (_, true) => EXPLICIT_BE,
            (true, false) => EXPLICIT_LE,
            (false, false) => IMPLICIT_LE,
        }
    }
}

/// How pixels are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// Not at all.
    Native,
    /// DICOM's run lengths.
    Rle,
    /// JPEG baseline, extended or lossless.
    Jpeg,
    /// JPEG 2000 Part 1.
    Jpeg2000,
}

/// Compression of a transfer syntax, and its name.
///
/// # Errors
/// A syntax that is not read; the message names it and says what would help.
pub(super) fn codec(uid: &str) -> Result<(Codec, &'static str), CineError> {
    let tail = uid.strip_prefix("1.2.840.10008.1.2").unwrap_or("?");
    Ok(match tail {
        "" | ".1" | ".1.99" | ".2" => (Codec::Native, "uncompressed"),
        ".1.98" => (Codec::Native, "uncompressed, encapsulated"),
        ".5" => (Codec::Rle, "RLE"),
        ".4.50" => (Codec::Jpeg, "JPEG baseline"),
        ".4.51" => (Codec::Jpeg, "JPEG extended"),
        ".4.57" | ".4.70" => (Codec::Jpeg, "JPEG lossless"),
        ".4.90" => (Codec::Jpeg2000, "JPEG 2000 lossless"),
        ".4.91" => (Codec::Jpeg2000, "JPEG 2000"),
        _ => {
            let name = match tail {
                ".4.80" => "JPEG-LS lossless",
                ".4.81" => "JPEG-LS near-lossless",
                ".4.92" | ".4.93" => "JPEG 2000 Part 2",
                ".4.94" | ".4.95" => "JPIP",
                ".4.100" | ".4.100.1" | ".4.101" | ".4.101.1" => "MPEG-2 video",
                ".4.102" | ".4.102.1" | ".4.103" | ".4.103.1" | ".4.104" | ".4.104.1" | ".4.105"
                | ".4.105.1" | ".4.106" | ".4.106.1" => "MPEG-4 AVC/H.264 video",
                ".4.107" | ".4.108" => "HEVC/H.265 video",
                ".4.110" | ".4.111" | ".4.112" => "JPEG XL",
                ".4.201" | ".4.202" | ".4.203" => "High-Throughput JPEG 2000",
                _ => "unknown",
            };
            return Err(CineError::Unsupported {
                format: "DICOM",
                problem: format!(
                    "transfer syntax {name} ({uid}) is not read; expected uncompressed, RLE, JPEG or JPEG 2000: \
                     transcode the object first"
                ),
            });
        }
    })
}

/// How the data set of a transfer syntax is written.
///
/// # Errors
/// As [`codec`], so that a file of an unread syntax is refused by name before anything else can go wrong in it.
pub(super) fn encoding(uid: &str) -> Result<Encoding, CineError> {
    codec(uid)?;
    Ok(match uid {
        IMPLICIT_LE => Encoding::IMPLICIT,
        EXPLICIT_BE => Encoding { explicit: true, big_endian: true },
        _ => Encoding::EXPLICIT,
    })
}
