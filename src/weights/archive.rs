//! The zip container of a PyTorch file: where `data.pkl` and the storages lie in its bytes.
//!
//! Read by ourselves and not by a zip library: nothing is unpacked or copied, and what a hostile directory claims (a number
//! of entries, a size) costs no memory until the bytes for it have been found.

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::Reason;

const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const CENTRAL: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
/// Bytes of the fixed parts of these records.
const END_LEN: usize = 22;
const LOCATOR_64_LEN: usize = 20;
const CENTRAL_LEN: usize = 46;
const LOCAL_LEN: usize = 30;
/// The longest comment that may stand behind the end record.
const MAX_COMMENT: usize = 0xffff;

/// One entry as the central directory has it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Neither compressed nor encrypted.
    stored: bool,
    size: u64,
    /// Of the local header.
    offset: u64,
}

/// A PyTorch zip file over its bytes.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<&'a [u8], Entry>,
    folder: String,
}

impl<'a> Archive<'a> {
    /// Reads the central directory and finds the one folder that holds `data.pkl`.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        let entries = directory(bytes)?;
        let folders = entries.keys().filter_map(|n| std::str::from_utf8(n).ok()?.strip_suffix("/data.pkl"));
        let folder = match folders.filter(|f| !f.contains('/')).collect::<Vec<_>>().as_slice() {
            [] => return Err(Reason::Archive("it holds no data.pkl".into())),
            [one] => (*one).to_owned(),
            _ => return Err(Reason::Archive("it holds more than one data.pkl".into())),
        };
        let archive = Self { bytes, entries, folder };
        if archive.entries.contains_key(archive.full("byteorder").as_bytes()) {
            let range = archive.entry("byteorder")?;
            if archive.bytes.get(range) != Some(b"little") {
                return Err(Reason::Archive("it was written on a big-endian machine".into()));
            }
        }
        Ok(archive)
    }

    /// The bytes of `data.pkl`.
    pub fn pickle(&self) -> Result<&'a [u8], Reason> {
        let range = self.entry("data.pkl")?;
        self.bytes.get(range).ok_or_else(|| Reason::Archive("data.pkl lies outside the file".into()))
    }

    /// Where storage `key` lies in the file.
    pub fn storage(&self, key: &str) -> Result<Range<usize>, Reason> {
        self.entry(&format!("data/{key}"))
    }

    fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn entry(&self, name: &str) -> Result<Range<usize>, Reason> {
        let full = self.full(name);
        let Some(entry) = self.entries.get(full.as_bytes()) else {
            return Err(Reason::Archive(format!("entry {full} is missing")));
        };
        if !entry.stored {
            return Err(Reason::NotStored(full));
        }
        let range = data(self.bytes, entry, full.as_bytes());
        range.ok_or_else(|| Reason::Archive(format!("entry {full} lies outside the file")))
    }
}

/// Where the data of `entry` lie: behind its local header, whose variable part differs from the central one's.
fn data(bytes: &[u8], entry: &Entry, name: &[u8]) -> Option<Range<usize>> {
    let header = bytes.get(usize::try_from(entry.offset).ok()?..)?;
    let (name_len, extra_len) = (usize::from(u16_at(header, 26)?), usize::from(u16_at(header, 28)?));
    if !header.starts_with(LOCAL) || header.get(LOCAL_LEN..LOCAL_LEN + name_len) != Some(name) {
        return None;
    }
    let start = usize::try_from(entry.offset).ok()?.checked_add(LOCAL_LEN + name_len + extra_len)?;
    let end = start.checked_add(usize::try_from(entry.size).ok()?)?;
    (end <= bytes.len()).then_some(start..end)
}

/// All entries by name.
fn directory(bytes: &[u8]) -> Result<BTreeMap<&[u8], Entry>, Reason> {
    let damaged = |what: &str| Reason::Archive(what.into());
    let end = find_end(bytes).ok_or_else(|| damaged("its end is missing, the file was cut off"))?;
    let (count, range) = extent(bytes, end).ok_or_else(|| damaged("its directory lies outside the file"))?;
    let mut rest = bytes.get(range).ok_or_else(|| damaged("its directory lies outside the file"))?;
    let mut entries = BTreeMap::new();
    while !rest.is_empty() {
        let (name, entry, next) =
            central(rest).ok_or_else(|| damaged("an entry of its directory is damaged"))?;
        if entries.insert(name, entry).is_some() {
            return Err(Reason::Archive(format!("entry {} occurs twice", String::from_utf8_lossy(name))));
        }
        rest = next;
    }
    if entries.len() as u64 != count {
        return Err(damaged("its directory does not hold as many entries as it should"));
    }
    Ok(entries)
}

/// Offset of the end record: the last one whose comment ends with the file.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(END_LEN)?;
    let ends = |&at: &usize| {
        let record = &bytes[at..];
        let comment = u16_at(record, 20).map(usize::from);
        record.starts_with(END) && comment.is_some_and(|len| len == record.len() - END_LEN)
    };
    (last.saturating_sub(MAX_COMMENT)..=last).rev().find(ends)
}

/// Number of entries, and where the central directory lies.
fn extent(bytes: &[u8], end: usize) -> Option<(u64, Range<usize>)> {
    let record = bytes.get(end..)?;
    let (mut count, mut size, mut offset) =
        (u64::from(u16_at(record, 10)?), u64::from(u32_at(record, 12)?), u64::from(u32_at(record, 16)?));
    let locator = end.checked_sub(LOCATOR_64_LEN).and_then(|at| bytes.get(at..));
    if let Some(locator) = locator.filter(|l| l.starts_with(LOCATOR_64)) {
        let record = bytes.get(usize::try_from(u64_at(locator, 8)?).ok()?..)?;
        if !record.starts_with(END_64) {
            return None;
        }
        (count, size, offset) = (u64_at(record, 32)?, u64_at(record, 40)?, u64_at(record, 48)?);
    }
    let start = usize::try_from(offset).ok()?;
    let stop = start.checked_add(usize::try_from(size).ok()?)?;
    (stop <= end).then_some((count, start..stop))
}

/// The entry that `rest` begins with: its name, the entry, and what follows.
fn central(rest: &[u8]) -> Option<(&[u8], Entry, &[u8])> {
    if !rest.starts_with(CENTRAL) {
        return None;
    }
    let len = |at| u16_at(rest, at).map(usize::from);
    let name_end = CENTRAL_LEN + len(28)?;
    let extra_end = name_end + len(30)?;
    let (name, extra) = (rest.get(CENTRAL_LEN..name_end)?, rest.get(name_end..extra_end)?);
    let next = rest.get(extra_end + len(32)?..)?;
    let mut large = large_values(extra);
    // A value that does not fit its four bytes stands in the extra field, in this order.
    let mut value = |at| match u32_at(rest, at)? {
        u32::MAX => large.next(),
        small => Some(u64::from(small)),
    };
    let (size, packed, offset) = (value(24)?, value(20)?, value(42)?);
    let (flags, method) = (u16_at(rest, 8)?, u16_at(rest, 10)?);
    let stored = method == 0 && flags & 1 == 0 && size == packed;
    Some((name, Entry { stored, size, offset }, next))
}

/// The 64-bit values of an extra field.
fn large_values(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    const ID: u16 = 1;
    let mut values: &[u8] = &[];
    while let (Some(id), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(body) = extra.get(4..4 + usize::from(len)) else { break };
        if id == ID {
            values = body;
            break;
        }
        extra = &extra[4 + body.len()..];
    }
    values.chunks_exact(8).filter_map(|v| u64_at(v, 0))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
