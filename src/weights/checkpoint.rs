//! A weights file: names, types and shapes now, tensors when asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest as _, Sha256};
use tch::{Kind, TchError, Tensor};

use super::archive::Archive;
use super::error::{CheckpointError, Reason};
use super::pickle::{Node, Pickle, TensorRef};

/// Element types that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 32-bit.
    F32,
    /// IEEE 16-bit.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE 64-bit.
    F64,
    /// Signed 64-bit.
    I64,
    /// Signed 32-bit.
    I32,
    /// Signed 16-bit.
    I16,
    /// Signed 8-bit.
    I8,
    /// Unsigned 8-bit.
    U8,
    /// One byte, zero or not.
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16 | Self::F64)
    }

    /// The same type in libtorch.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::F16 => Kind::Half,
            Self::BF16 => Kind::BFloat16,
            Self::F64 => Kind::Double,
            Self::I64 => Kind::Int64,
            Self::I32 => Kind::Int,
            Self::I16 => Kind::Int16,
            Self::I8 => Kind::Int8,
            Self::U8 => Kind::Uint8,
            Self::Bool => Kind::Bool,
        }
    }

    fn of_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype as S;
        Some(match dtype {
            S::F32 => Self::F32,
            S::F16 => Self::F16,
            S::BF16 => Self::BF16,
            S::F64 => Self::F64,
            S::I64 => Self::I64,
            S::I32 => Self::I32,
            S::I16 => Self::I16,
            S::I8 => Self::I8,
            S::U8 => Self::U8,
            S::BOOL => Self::Bool,
            _ => return None,
        })
    }
}

/// Type and shape of one tensor, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type in the file.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Elements from one index to the next, per dimension.
    strides: Vec<usize>,
    /// First to last byte of the view in the file.
    bytes: Range<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        // Checked against the file's length when the file is opened.
        self.shape.iter().product()
    }

    fn is_contiguous(&self) -> bool {
        contiguous(&self.shape) == self.strides
    }
}

fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
    }
    strides
}

/// An open weights file. Tensor data stays in the mapping until it is asked for.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    map: Mmap,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Checkpoint {
    /// Opens a PyTorch zip file (a state dict, or one under `model` or `state_dict`) or a safetensors file.
    /// Every shape, stride and offset is checked against the file here, so that reading a tensor cannot fail of them.
    ///
    /// # Errors
    /// An unreadable, damaged or hostile file; see [`Reason`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let wrap = |reason: Reason| CheckpointError { reason, path: path.to_owned() };
        let file = File::open(path).map_err(|e| wrap(e.into()))?;
        if !file.metadata().map_err(|e| wrap(e.into()))?.is_file() {
            return Err(wrap(Reason::Unknown));
        }
        // SAFETY: the mapping is read-only and lives as long as the tensors are read. A weights file is replaced by
        // renaming a new one over it, never rewritten in place, so its bytes stay what they are while mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| wrap(e.into()))?;
        let tensors = match map.get(..9) {
            Some([b'P', b'K', 3, 4, ..]) => torch_tensors(&map),
            Some([0x80, 2..=5, ..]) => Err(Reason::Legacy),
            Some([.., b'{']) => safetensors_tensors(&map),
            _ => Err(Reason::Unknown),
        };
        let tensors = tensors.map_err(wrap)?;
        if tensors.is_empty() {
            return Err(wrap(Reason::NoTensors));
        }
        Ok(Self { path: path.to_owned(), map, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors by name, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Type and shape of tensor `name`.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Copies tensor `name` out of the file: contiguous, on the CPU, in the file's type. `None` if there is no such tensor.
    ///
    /// # Errors
    /// Whatever libtorch refuses, which is running out of memory.
    pub fn tensor(&self, name: &str) -> Option<Result<Tensor, TchError>> {
        let info = self.tensors.get(name)?;
        // Any byte that is not zero means true, but libtorch trusts a bool to be 0 or 1.
        let kind = if info.dtype == Dtype::Bool { Kind::Uint8 } else { info.dtype.kind() };
        let read = || {
            let data = &self.map[info.bytes.clone()];
            let dims = |v: &[usize]| v.iter().map(|&d| d as i64).collect::<Vec<_>>();
            let flat = Tensor::f_from_data_size(data, &[(data.len() / info.dtype.size()) as i64], kind)?;
            let tensor = if info.is_contiguous() || info.numel() == 0 {
                flat.f_reshape(dims(&info.shape))?
            } else {
                flat.f_as_strided(dims(&info.shape), dims(&info.strides), 0)?.f_contiguous()?
            };
            if info.dtype == Dtype::Bool { tensor.f_ne(0) } else { Ok(tensor) }
        };
        Some(read())
    }
}

fn torch_tensors(bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>, Reason> {
    let mut archive = Archive::open(bytes)?;
    let pickle = Pickle::parse(archive.pickle()?)?;
    let mut tensors = BTreeMap::new();
    for &(key, value) in state_dict(&pickle)? {
        // A training checkpoint may keep counters beside its tensors.
        let (Node::Str(key), Node::Tensor(tensor)) = (pickle.node(key), pickle.node(value)) else { continue };
        let name = pickle.text(key);
        let place = archive.storage(pickle.text(&tensor.storage.key))?;
        let info =
            place_tensor(tensor, &place).map_err(|what| Reason::Tensor { name: name.to_owned(), what })?;
        if tensors.insert(name.to_owned(), info).is_some() {
            return Err(Reason::Duplicate(name.to_owned()));
        }
    }
    Ok(tensors)
}

/// The root dict, or the one it holds under `model` or `state_dict`.
fn state_dict<'a>(pickle: &'a Pickle<'_>) -> Result<&'a [(usize, usize)], Reason> {
    let Node::Dict(root) = pickle.root() else { return Err(Reason::NoTensors) };
    for wanted in ["model", "state_dict"] {
        for &(key, value) in root {
            if let (Node::Str(key), Node::Dict(inner)) = (pickle.node(key), pickle.node(value))
                && pickle.text(key) == wanted
            {
                return Ok(inner);
            }
        }
    }
    Ok(root)
}

/// Checks a tensor against the storage that lies at `place`.
fn place_tensor(tensor: &TensorRef, place: &Range<usize>) -> Result<TensorInfo, String> {
    let TensorRef { storage, offset, shape, strides } = tensor;
    let size = storage.dtype.size();
    if storage.numel.checked_mul(size) != Some(place.len()) {
        return Err(format!(
            "its storage should have {} elements of {size} bytes, it has {} bytes",
            storage.numel,
            place.len()
        ));
    }
    let numel = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    // Broadcast views would let a few bytes claim any amount of memory; state dicts have none.
    let Some(numel) = numel.filter(|&n| n <= storage.numel) else {
        return Err(format!("shape {shape:?} is more than its storage of {} elements", storage.numel));
    };
    let span = if numel == 0 {
        Some(0)
    } else {
        shape.iter().zip(strides).try_fold(1usize, |n, (&d, &s)| n.checked_add((d - 1).checked_mul(s)?))
    };
    let end = span.and_then(|span| span.checked_add(*offset)).filter(|&end| end <= storage.numel);
    let Some(end) = end else {
        return Err(format!(
            "shape {shape:?} with strides {strides:?} from element {offset} reaches beyond its storage of {} elements",
            storage.numel
        ));
    };
    let bytes = place.start + offset * size..place.start + end * size;
    Ok(TensorInfo { dtype: storage.dtype, shape: shape.clone(), strides: strides.clone(), bytes })
}

fn safetensors_tensors(bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>, Reason> {
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
        let strides = contiguous(&info.shape);
        tensors.insert(name, TensorInfo { dtype, shape: info.shape.clone(), strides, bytes: range });
    }
    Ok(tensors)
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
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
