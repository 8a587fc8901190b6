//! Where each frame's bytes lie in the file.

use std::io::SeekFrom;
use std::ops::Range;

use super::scan::{Layout, malformed};
use super::syntax::Codec;
use crate::cine::{CineError, Source, read_bytes};

/// Most bytes of one compressed frame.
const MAX_FRAME_BYTES: u64 = 1 << 29;
/// Most fragments: a million frames of sixteen each.
const MAX_FRAGMENTS: usize = 1 << 24;

/// Place in the file and length of a fragment's value.
type Fragment = (u64, u32);

/// A table of frames over the pixel data.
#[derive(Debug)]
pub(super) enum Frames {
    /// Equal frames one after the other.
    Native {
        /// First byte of the first frame.
        at: u64,
        /// Bytes of a frame.
        bytes: u64,
    },
    /// Frames made of one or more fragments.
    Encapsulated {
        /// Place and length of each fragment.
        fragments: Vec<Fragment>,
        /// The fragments of each frame.
        frames: Vec<Range<usize>>,
    },
}

impl Frames {
    /// Finds all frames. Uncompressed ones have `native_bytes` each.
    ///
    /// # Errors
    /// Fewer frames than `count` in the data, uncompressed data of another length, or fragments that cannot be told apart.
    pub(super) fn locate(
        layout: &mut Layout,
        codec: Codec,
        count: usize,
        native_bytes: u64,
    ) -> Result<Self, CineError> {
        match layout.pixels_len {
            Some(len) => {
                if codec != Codec::Native {
                    return Err(malformed("compressed Pixel Data must be encapsulated, these are not"));
                }
                let needed = native_bytes.saturating_mul(count as u64);
                if !holds(len, native_bytes, count as u64) {
                    return Err(malformed(format!(
                        "{count} frames of {native_bytes} bytes need {needed} bytes, Pixel Data has {len}"
                    )));
                }
                if !fits(len, needed) {
                    tracing::warn!("{} bytes behind the last frame are left out", len - needed);
                }
                Ok(Self::Native { at: layout.pixels_at, bytes: native_bytes })
            }
            None => {
                let (offsets, fragments) = items(layout)?;
                let frames = group(layout.source.as_mut(), &offsets, &fragments, count)?;
                let length = |parts: &[Fragment]| parts.iter().map(|&(_, len)| u64::from(len)).sum::<u64>();
                let lengths = frames.iter().map(|r| fragments.get(r.clone()).map_or(0, length));
                let mut wrong = lengths.enumerate().filter(|(_, len)| !holds(*len, native_bytes, 1));
                if codec == Codec::Native
                    && let Some((index, len)) = wrong.next()
                {
                    return Err(malformed(format!(
                        "frame {index} needs {native_bytes} bytes, {len} are there"
                    )));
                }
                Ok(Self::Encapsulated { fragments, frames })
            }
        }
    }

    /// The stored bytes of one frame.
    ///
    /// # Errors
    /// The file cannot be read, or the frame is absurdly large.
    pub(super) fn read(&self, source: &mut dyn Source, index: usize) -> Result<Vec<u8>, CineError> {
        let mut read = |at: u64, len: u64| {
            source
                .seek(SeekFrom::Start(at))
                .and_then(|_| read_bytes(source, len))
                .map_err(CineError::io("read the frame"))
        };
        match self {
            Self::Native { at, bytes } => read(at.saturating_add(bytes.saturating_mul(index as u64)), *bytes),
            Self::Encapsulated { fragments, frames } => {
                let parts = frames.get(index).and_then(|r| fragments.get(r.clone())).unwrap_or_default();
                let total: u64 = parts.iter().map(|&(_, len)| u64::from(len)).sum();
                if total > MAX_FRAME_BYTES {
                    return Err(malformed(format!("a frame of {total} compressed bytes is refused")));
                }
                let mut data = Vec::new();
                for &(at, len) in parts {
                    data.extend(read(at, u64::from(len))?);
                }
                Ok(data)
            }
        }
    }
}

/// Whether `len` bytes hold `count` frames of `each`. What some writers leave behind the last frame is no harm; but room for another frame, or
/// as much more for each, says that the attributes are wrong, and where the second frame begins nobody knows.
fn holds(len: u64, each: u64, count: u64) -> bool {
    let needed = each.saturating_mul(count);
    let Some(more) = len.checked_sub(needed) else { return false };
    if fits(len, needed) {
        return true;
    }
    // A byte more for each frame would be padding of frames with an odd length, which is not padded frame by frame.
    let for_each = more / count.max(1);
    more < each && (count == 1 || more % count != 0 || (each.is_multiple_of(2) && for_each < 2))
}

/// Whether a value of `len` bytes holds `needed`, with the byte that makes an odd length even.
pub(super) fn fits(len: u64, needed: u64) -> bool {
    len == needed || len == needed.next_multiple_of(2)
}

/// The basic offset table, and place and length of every fragment after it.
fn items(layout: &mut Layout) -> Result<(Vec<u32>, Vec<Fragment>), CineError> {
    let (mut at, total) = (layout.pixels_at, layout.total);
    let source = layout.source.as_mut();
    let mut offsets = None;
    let mut fragments: Vec<Fragment> = Vec::new();
    // Some writers leave the closing delimiter out; the end of the file does as well.
    while at < total {
        source.seek(SeekFrom::Start(at)).map_err(CineError::io("read the file"))?;
        let header = read_bytes(source, 8)
            .map_err(|_| malformed(format!("Pixel Data end inside fragment {}", fragments.len())))?;
        let [g, h, e, f, a, b, c, d] = header[..] else { break };
        let len = u32::from_le_bytes([a, b, c, d]);
        at += 8;
        match (u16::from_le_bytes([g, h]), u16::from_le_bytes([e, f])) {
            (0xfffe, 0xe0dd) => break,
            (0xfffe, 0xe000) if at.saturating_add(u64::from(len)) <= total => {}
            (0xfffe, 0xe000) => {
                return Err(malformed(format!(
                    "fragment {} says {len} bytes, the file ends after {}",
                    fragments.len(),
                    total - at
                )));
            }
            (group, element) => {
                return Err(malformed(format!(
                    "Pixel Data hold ({group:04X},{element:04X}) where a fragment was expected"
                )));
            }
        }
        if offsets.is_none() {
            let table = read_bytes(source, u64::from(len)).map_err(CineError::io("read the offset table"))?;
            offsets =
                Some(table.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect());
        } else if fragments.len() == MAX_FRAGMENTS {
            return Err(malformed(format!("Pixel Data hold more than {MAX_FRAGMENTS} fragments")));
        } else {
            fragments.push((at, len));
        }
        at += u64::from(len);
    }
    Ok((offsets.unwrap_or_default(), fragments))
}

/// Which fragments make which frame: one each; else by the offset table; else by the mark a compressed picture
/// starts with.
fn group(
    source: &mut dyn Source,
    offsets: &[u32],
    fragments: &[Fragment],
    count: usize,
) -> Result<Vec<Range<usize>>, CineError> {
    if fragments.len() < count {
        return Err(malformed(format!("{count} frames are promised, Pixel Data hold {}", fragments.len())));
    }
    if fragments.len() == count {
        return Ok((0..count).map(|i| i..i + 1).collect());
    }
    if count == 1 {
        return Ok(std::iter::once(0..fragments.len()).collect());
    }
    let mut starts = Vec::with_capacity(count);
    let first = fragments.first().map_or(0, |f| f.0 - 8);
    if offsets.len() == count {
        for &offset in offsets {
            // Offsets count from the header of the first fragment and point at the header of one.
            let place = first + u64::from(offset) + 8;
            let index = fragments.binary_search_by_key(&place, |f| f.0);
            let index = index.ok().filter(|i| starts.last().is_none_or(|last| i > last));
            let index =
                index.ok_or_else(|| malformed("the basic offset table does not fit the fragments"))?;
            starts.push(index);
        }
    } else {
        for (index, &(at, len)) in fragments.iter().enumerate() {
            source.seek(SeekFrom::Start(at)).map_err(CineError::io("read the file"))?;
            let mark = read_bytes(source, u64::from(len.min(3))).map_err(CineError::io("read the file"))?;
            if matches!(mark[..], [0xff, 0xd8, 0xff] | [0xff, 0x4f, 0xff]) {
                starts.push(index);
            }
        }
    }
    if starts.len() != count || starts.first() != Some(&0) {
        return Err(malformed(format!(
            "{} fragments cannot be divided into {count} frames: no offset table, and {} of them start a picture",
            fragments.len(),
            starts.len()
        )));
    }
    let ends = starts.iter().skip(1).copied().chain([fragments.len()]);
    Ok(starts.iter().copied().zip(ends).map(|(a, b)| a..b).collect())
}
