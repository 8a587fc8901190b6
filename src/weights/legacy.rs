//! The PyTorch file format from before 1.6: five pickles, then the storages one after the other.

use std::collections::BTreeMap;
use std::ops::Range;

use super::dtype::Dtype;
use super::error::Reason;
use super::pickle::{Node, Pickle};

/// The first pickle: protocol 2, a ten-byte integer that is the format's magic number.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// What the second pickle says.
const PROTOCOL: i64 = 1001;

/// A file of the old format over its bytes.
#[derive(Debug)]
pub(super) struct Legacy<'a> {
    pickle: Pickle<'a>,
    storages: BTreeMap<String, Range<usize>>,
}

impl<'a> Legacy<'a> {
    /// Reads the pickles and finds where each storage lies.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        let damaged = |what: &str| Reason::Archive(what.into());
        let mut at = 0;
        let mut next = || -> Result<Pickle<'a>, Reason> {
            let pickle = Pickle::parse_front(bytes.get(at..).unwrap_or_default())?;
            at += pickle.length();
            Ok(pickle)
        };
        next()?;
        let protocol = next()?;
        if !matches!(protocol.node(protocol.root()), Node::Int(PROTOCOL)) {
            return Err(damaged("it does not say the format's version, expected 1001"));
        }
        next()?;
        let (pickle, keys) = (next()?, next()?);
        let mut types = BTreeMap::<&str, Dtype>::new();
        for storage in pickle.storages() {
            let key = pickle.text(&storage.key);
            if *types.entry(key).or_insert(storage.dtype) != storage.dtype {
                return Err(damaged("one storage has two element types"));
            }
        }
        let Node::List(list) = keys.node(keys.root()) else {
            return Err(damaged("the list of its storages is missing"));
        };
        let mut storages = BTreeMap::new();
        for &id in list {
            let Node::Str(key) = keys.node(id) else { return Err(damaged("a storage without a name")) };
            let key = keys.text(key);
            let dtype = types.get(key).ok_or_else(|| damaged("a storage of unknown element type"))?;
            let range = storage_at(bytes, at, dtype.size())
                .ok_or_else(|| Reason::Archive(format!("storage {key} lies outside the file")))?;
            at = range.end;
            if storages.insert(key.to_owned(), range).is_some() {
                return Err(damaged("a storage occurs twice"));
            }
        }
        Ok(Self { pickle, storages })
    }

    /// The object that was saved.
    pub fn pickle(&self) -> &Pickle<'a> {
        &self.pickle
    }

    /// Where storage `key` lies in the file.
    pub fn storage(&self, key: &str) -> Result<Range<usize>, Reason> {
        let range = self.storages.get(key).cloned();
        range.ok_or_else(|| Reason::Archive(format!("storage {key} is missing")))
    }
}

/// Eight bytes with the number of elements, then the elements.
fn storage_at(bytes: &[u8], at: usize, size: usize) -> Option<Range<usize>> {
    let start = at.checked_add(8)?;
    let numel = u64::from_le_bytes(bytes.get(at..start)?.try_into().ok()?);
    let end = usize::try_from(numel).ok()?.checked_mul(size)?.checked_add(start)?;
    (end <= bytes.len()).then_some(start..end)
}
