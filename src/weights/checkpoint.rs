//! A weights file: names, types and shapes now, tensors when asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::SafeTensorError;
use sha2::{Digest as _, Sha256};
use tch::{Kind, TchError, Tensor};

use super::dtype::Dtype;
use super::error::{CheckpointError, Reason};
use super::tensor_info::TensorInfo;
use super::{canonical, legacy, torch};

/// How a file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PyTorch 1.6 and later: a zip file with a pickle and storages.
    TorchZip,
    /// PyTorch before 1.6: pickles and storages in a row.
    TorchLegacy,
    /// safetensors.
    Safetensors,
}

impl Format {
    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::TorchZip => "torch-zip",
            Self::TorchLegacy => "torch-legacy",
            Self::Safetensors => "safetensors",
        }
    }
}

/// Metadata with the handling of pictures that a network was trained with, where it is not its family's own.
pub const PREPROCESS: &str = "preprocess";

/// Metadata with the SHA-256 of the file that a converted one was made from.
pub const SOURCE_SHA256: &str = "source_sha256";
/// Part of the names that only the Sam2Rad authors' code gives.
const SAM2RAD: &str = "prompt_sampler.";
/// Longest safetensors header accepted in bytes; the largest SAM's has 0.1 MB.
const MAX_HEADER: usize = 4 << 20;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;
/// How much more than the file all its tensors together may be: some share their elements, few do.
const MAX_SHARED: usize = 4;

/// What a reader finds in a file, with the file's own names.
#[derive(Debug)]
pub(super) struct Contents {
    pub format: Format,
    pub under: Option<&'static str>,
    pub root_keys: Vec<String>,
    pub foreign: Vec<String>,
    pub metadata: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// The bytes of a file, wherever they are.
#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Held(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

/// An open weights file. Tensor data stays in the mapping until it is asked for.
///
/// Tensors have the names of the models' official code, whatever the file calls them: what Lightning, the Sam2Rad
/// code and LoRA put around a name is taken away.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    bytes: Bytes,
    contents: Contents,
    set_aside: Vec<String>,
}

impl Checkpoint {
    /// Opens a PyTorch file (a state dict, or one under `model` or `state_dict`) or a safetensors file.
    /// Every shape, stride and offset is checked against the file here, so that reading a tensor cannot fail of them.
    ///
    /// # Errors
    /// An unreadable, damaged or hostile file; see [`Reason`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let wrap = |reason: Reason| CheckpointError { reason, path: path.to_owned() };
        // Asked before it is opened: opening a pipe would wait for whoever writes into it.
        if !std::fs::metadata(path).map_err(|e| wrap(e.into()))?.is_file() {
            return Err(wrap(Reason::Unknown));
        }
        let file = File::open(path).map_err(|e| wrap(e.into()))?;
        // SAFETY: the mapping is read-only and lives as long as the tensors are read. A weights file is replaced by
        // renaming a new one over it, never rewritten in place, so its bytes stay what they are while mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| wrap(e.into()))?;
        Self::read(path, Bytes::Mapped(map)).map_err(wrap)
    }

    /// Reads a file that is in memory; `path` is its name in messages.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        Self::read(path, Bytes::Held(bytes))
            .map_err(|reason| CheckpointError { reason, path: path.to_owned() })
    }

    fn read(path: &Path, bytes: Bytes) -> Result<Self, Reason> {
        let mut contents = if bytes.starts_with(b"PK\x03\x04") {
            torch::read_zip(&bytes)
        } else if bytes.starts_with(legacy::MAGIC) {
            torch::read_legacy(&bytes)
        } else if bytes.get(8) == Some(&b'{') {
            read_safetensors(&bytes)
        } else {
            Err(Reason::Unknown)
        }?;
        if contents.tensors.is_empty() {
            return Err(Reason::NoTensors);
        }
        check_sizes(&contents.tensors, bytes.len())?;
        if contents.tensors.keys().any(|name| name.contains(SAM2RAD)) {
            contents.metadata.entry(PREPROCESS.into()).or_insert_with(|| "sam2rad".into());
        }
        let set_aside = canonical::rename(&mut contents.tensors, &bytes)?;
        Ok(Self { path: path.to_owned(), bytes, contents, set_aside })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the file is made.
    pub fn format(&self) -> Format {
        self.contents.format
    }

    /// The key of the root object under which the state dict was found; `None` where the root is the state dict.
    pub fn under(&self) -> Option<&'static str> {
        self.contents.under
    }

    /// Keys of the root object, in the file's order; none where the root is the state dict.
    pub fn root_keys(&self) -> &[String] {
        &self.contents.root_keys
    }

    /// What the file says of itself: safetensors' metadata, or the texts and integers beside a state dict.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.contents.metadata
    }

    /// Python objects beside the state dict that were passed over, as `module.name`. Nothing of them was executed.
    pub fn foreign(&self) -> &[String] {
        &self.contents.foreign
    }

    /// Names in the file that belong to no network and were left out.
    pub fn set_aside(&self) -> &[String] {
        &self.set_aside
    }

    /// All tensors by name, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.contents.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Type and shape of tensor `name`.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.contents.tensors.get(name)
    }

    /// The elements of tensor `name` in C order, little-endian, in the file's type. `None` if there is no such tensor.
    pub fn data(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        Some(self.info(name)?.data(&self.bytes))
    }

    /// Copies tensor `name` out of the file: contiguous, on the CPU, in the file's type. `None` if there is no such tensor.
    ///
    /// # Errors
    /// Whatever libtorch refuses, which is running out of memory.
    pub fn tensor(&self, name: &str) -> Option<Result<Tensor, TchError>> {
        let info = self.info(name)?;
        // Any byte that is not zero means true, but libtorch trusts a bool to be 0 or 1.
        let kind = if info.dtype == Dtype::Bool { Kind::Uint8 } else { info.dtype.kind() };
        let read = || {
            let dims: Vec<i64> = info.shape.iter().map(|&d| d as i64).collect();
            let tensor = Tensor::f_from_data_size(&info.data(&self.bytes), &dims, kind)?;
            if info.dtype == Dtype::Bool { tensor.f_ne(0) } else { Ok(tensor) }
        };
        Some(read())
    }
}

/// Refuses what the readers let past because it takes no bytes of the file, and would take any amount of memory later: sizes
/// beside a size of zero, and many tensors over the same bytes.
fn check_sizes(tensors: &BTreeMap<String, TensorInfo>, len: usize) -> Result<(), Reason> {
    let mut total = 0usize;
    for (name, info) in tensors {
        let sizes = info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
        if info.shape.len() > MAX_DIMENSIONS || sizes.is_none_or(|n| n > len) {
            let mut what = format!("an absurd shape, {:?}", info.shape);
            what.truncate(200);
            return Err(Reason::Tensor { name: name.clone(), what });
        }
        total = total.saturating_add(info.numel().saturating_mul(info.dtype.size()));
    }
    if total > len.saturating_mul(MAX_SHARED) {
        return Err(Reason::Archive(format!("its tensors are {total} bytes together, the file has {len}")));
    }
    Ok(())
}

/// The crate adds up what a header says without looking; no offset may lie outside of the file.
fn check_header(bytes: &[u8]) -> Result<(), SafeTensorError> {
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else { return Ok(()) };
    let Some(header) = usize::try_from(u64::from_le_bytes(*len)).ok().and_then(|len| rest.get(..len)) else {
        return Ok(());
    };
    if header.len() > MAX_HEADER {
        return Err(SafeTensorError::HeaderTooLarge);
    }
    // What is no JSON the crate refuses, with the place.
    let Ok(entries) = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(header) else {
        return Ok(());
    };
    for (name, entry) in entries {
        let end = entry.get("data_offsets").and_then(|o| o.get(1)).and_then(serde_json::Value::as_u64);
        if end.is_some_and(|end| end > bytes.len() as u64) {
            return Err(SafeTensorError::InvalidOffset(name));
        }
    }
    Ok(())
}

fn read_safetensors(bytes: &[u8]) -> Result<Contents, Reason> {
    check_header(bytes)?;
    let (header, metadata) = safetensors::SafeTensors::read_metadata(bytes)?;
    // Eight bytes of header length, the header, then the data that the offsets count from.
    let start = header + 8;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let wrong = |what: String| Reason::Tensor { name: name.clone(), what };
        let dtype = Dtype::of_safetensors(info.dtype)
            .ok_or_else(|| wrong(format!("element type {:?} is not supported", info.dtype)))?;
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        let expected = info.shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d));
        if range.end > bytes.len() || Some(range.len()) != expected {
            return Err(wrong(format!("shape {:?} does not fit {} bytes", info.shape, range.len())));
        }
        tensors.insert(name, TensorInfo::contiguous(dtype, info.shape.clone(), range));
    }
    let metadata = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Contents {
        format: Format::Safetensors,
        under: None,
        root_keys: Vec::new(),
        foreign: Vec::new(),
        metadata,
        tensors,
    })
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of a file in lower-case hex, read in pieces.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hex(&hash.finalize()))
}
