//! From any checkpoint to safetensors, with the official names.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::View;

use super::checkpoint::Checkpoint;
use super::dtype::Dtype;
use super::tensor_info::TensorInfo;
use crate::whole;

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A value is too large for the type asked for.
    #[error("tensor {name} holds a value that {to} cannot: {value}")]
    Range {
        /// Name of the tensor.
        name: String,
        /// Type asked for.
        to: Dtype,
        /// The value.
        value: f64,
    },
    /// The file cannot be written.
    #[error("cannot write the weights")]
    Io(#[from] std::io::Error),
    /// The format refuses what it is given.
    #[error("cannot write the weights")]
    Safetensors(#[from] safetensors::SafeTensorError),
}

/// Writes all tensors of `checkpoint` to `path` as safetensors, which is whole or not there. Floating-point tensors become
/// `dtype` where that is given; others stay as they are. What the file said of itself is kept, with `metadata` over it.
///
/// One tensor at a time is in memory.
///
/// # Errors
/// See [`ConvertError`]. `path` is then as it was.
pub fn convert(
    checkpoint: &Checkpoint,
    path: &Path,
    dtype: Option<Dtype>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), ConvertError> {
    let mut all: HashMap<String, String> = checkpoint.metadata().clone().into_iter().collect();
    all.extend(metadata.clone());
    let failed = RefCell::new(None);
    let views = checkpoint.tensors().map(|(name, info)| {
        let to = dtype.filter(|_| info.dtype.is_float()).unwrap_or(info.dtype);
        (name, Converted { checkpoint, name, info, to, failed: &failed })
    });
    let file = whole::begin(path)?;
    safetensors::serialize_to_file(views, Some(all), file.path())?;
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    Ok(whole::finish_on_disk(file, path)?)
}

/// One tensor on its way; converted when it is written.
struct Converted<'a> {
    checkpoint: &'a Checkpoint,
    name: &'a str,
    info: &'a TensorInfo,
    to: Dtype,
    /// The writer's interface has no way to say that a value does not fit.
    failed: &'a RefCell<Option<ConvertError>>,
}

impl View for Converted<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        self.to.to_safetensors()
    }

    fn shape(&self) -> &[usize] {
        &self.info.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data = self.checkpoint.data(self.name).unwrap_or_default();
        match (self.info.dtype, self.to) {
            // Any byte that is not zero means true; readers trust it to be 0 or 1.
            (Dtype::Bool, _) => data.iter().map(|&b| u8::from(b != 0)).collect(),
            (from, to) if from == to => data,
            (from, to) => {
                let mut out = Vec::with_capacity(self.data_len());
                for raw in data.chunks_exact(from.size()) {
                    let value = read(from, raw);
                    if !write(to, value, &mut out) {
                        let error = ConvertError::Range { name: self.name.to_owned(), to, value };
                        self.failed.borrow_mut().get_or_insert(error);
                    }
                }
                out.into()
            }
        }
    }

    fn data_len(&self) -> usize {
        self.info.numel() * self.to.size()
    }
}

/// One floating-point element; every type fits into `f64`.
fn read(from: Dtype, raw: &[u8]) -> f64 {
    match (from, raw) {
        (Dtype::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
        (Dtype::F16, &[a, b]) => f16::from_le_bytes([a, b]).into(),
        (Dtype::BF16, &[a, b]) => bf16::from_le_bytes([a, b]).into(),
        // Only floating-point tensors are converted, and their elements have their type's size.
        _ => f64::NAN,
    }
}

/// Whether `value` fits; a finite one must not become infinite.
fn write(to: Dtype, value: f64, out: &mut Vec<u8>) -> bool {
    let becomes_infinite = match to {
        Dtype::F32 => {
            let v = value as f32;
            out.extend(v.to_le_bytes());
            v.is_infinite()
        }
        Dtype::F16 => {
            let v = f16::from_f32(value as f32);
            out.extend(v.to_le_bytes());
            v.is_infinite()
        }
        Dtype::BF16 => {
            let v = bf16::from_f32(value as f32);
            out.extend(v.to_le_bytes());
            v.is_infinite()
        }
        _ => {
            out.extend(value.to_le_bytes());
            false
        }
    };
    !(becomes_infinite && value.is_finite())
}
