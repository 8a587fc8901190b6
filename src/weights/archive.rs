//! The zip container of a PyTorch file: where `data.pkl` and the storages lie in the mapping.

use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::error::Reason;

/// A PyTorch zip file over its bytes.
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    zip: ZipArchive<Cursor<&'a [u8]>>,
    folder: String,
}

impl<'a> Archive<'a> {
    /// Reads the central directory and finds the one folder that holds `data.pkl`.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| Reason::Archive(e.to_string()))?;
        let folders =
            zip.file_names().filter_map(|n| n.strip_suffix("/data.pkl")).filter(|f| !f.contains('/'));
        let folder = match folders.collect::<Vec<_>>().as_slice() {
            [] => return Err(Reason::Archive("it holds no data.pkl".into())),
            [one] => (*one).to_owned(),
            _ => return Err(Reason::Archive("it holds more than one data.pkl".into())),
        };
        let mut archive = Self { bytes, zip, folder };
        if archive.zip.index_for_name(&format!("{}/byteorder", archive.folder)).is_some() {
            let range = archive.entry("byteorder")?;
            if archive.bytes.get(range) != Some(b"little") {
                return Err(Reason::Archive("it was written on a big-endian machine".into()));
            }
        }
        Ok(archive)
    }

    /// The bytes of `data.pkl`.
    pub fn pickle(&mut self) -> Result<&'a [u8], Reason> {
        let range = self.entry("data.pkl")?;
        self.bytes.get(range).ok_or_else(|| Reason::Archive("data.pkl lies outside the file".into()))
    }

    /// Where storage `key` lies in the file.
    pub fn storage(&mut self, key: &str) -> Result<Range<usize>, Reason> {
        self.entry(&format!("data/{key}"))
    }

    fn entry(&mut self, name: &str) -> Result<Range<usize>, Reason> {
        let full = format!("{}/{name}", self.folder);
        let index = self
            .zip
            .index_for_name(&full)
            .ok_or_else(|| Reason::Archive(format!("entry {full} is missing")))?;
        let entry =
            self.zip.by_index_raw(index).map_err(|e| Reason::Archive(format!("entry {full}: {e}")))?;
        if entry.compression() != CompressionMethod::Stored
            || entry.encrypted()
            || entry.size() != entry.compressed_size()
        {
            return Err(Reason::NotStored(full));
        }
        let range = usize::try_from(entry.data_start())
            .ok()
            .zip(usize::try_from(entry.size()).ok())
            .and_then(|(start, len)| Some(start..start.checked_add(len)?))
            .filter(|r| r.end <= self.bytes.len());
        range.ok_or_else(|| Reason::Archive(format!("entry {full} lies outside the file")))
    }
}
