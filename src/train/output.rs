//! Files of tensors that a run leaves.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use tch::{Kind, Tensor};

use super::TrainError;
use crate::whole;

/// Bits of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// As many as in memory.
    Full,
    /// 16, IEEE.
    Half,
}

/// Writes `tensors`, which are on the CPU, as safetensors; the file is whole or not there. A file like it that stood there is replaced.
///
/// # Errors
/// A file that cannot be written; a value that 16 bits cannot hold.
pub fn write_tensors(
    file: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
    width: Width,
) -> Result<(), TrainError> {
    let failed = |e: safetensors::SafeTensorError| TrainError::write(file, std::io::Error::other(e));
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = match width {
            Width::Full => tensor.f_to_kind(Kind::Float)?,
            Width::Half => {
                let half = tensor.f_to_kind(Kind::Half)?;
                if i64::try_from(half.f_isfinite()?.f_all()?)? == 0 {
                    let what = format!("{name} has values that 16 bits cannot hold: expected half = false");
                    return Err(TrainError::Setting(what));
                }
                half
            }
        };
        let tensor = tensor.f_contiguous()?;
        let dtype = if width == Width::Half { Dtype::F16 } else { Dtype::F32 };
        let mut bytes = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        let shape = tensor.size().iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect::<Vec<_>>();
        parts.push((name.as_str(), dtype, shape, bytes));
    }
    let mut views = Vec::with_capacity(parts.len());
    for (name, dtype, shape, bytes) in &parts {
        views.push((*name, TensorView::new(*dtype, shape.clone(), bytes).map_err(failed)?));
    }
    let temporary = whole::begin(file).map_err(|e| TrainError::write(file, e))?;
    safetensors::serialize_to_file(views, Some(metadata), temporary.path()).map_err(failed)?;
    temporary.persist(file).map_err(|e| TrainError::write(file, e.error))?;
    Ok(())
}
