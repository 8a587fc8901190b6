//! Files of tensors that a run leaves.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind, TchError, Tensor};

use super::TrainError;
use crate::whole;

/// `tensor` with 16 bits a value (IEEE), on the CPU; `None` if it has values that they cannot hold, or that are none at all.
///
/// # Errors
/// libtorch's.
pub fn halved(tensor: &Tensor) -> Result<Option<Tensor>, TchError> {
    let half = tensor.f_to_kind(Kind::Half)?.f_to_device(Device::Cpu)?;
    Ok((i64::try_from(half.f_isfinite()?.f_all()?)? != 0).then_some(half))
}

/// Writes `tensors`, which are on the CPU and of 16 bits or else written with 32, as safetensors; the file is whole or not there,
/// and `on_disk` makes sure that a power cut does not change that. A file like it that stood there is replaced.
///
/// # Errors
/// A file that cannot be written.
pub fn write_tensors(
    file: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
    on_disk: bool,
) -> Result<(), TrainError> {
    let failed = |e: safetensors::SafeTensorError| TrainError::write(file, std::io::Error::other(e));
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (dtype, kind) = match tensor.kind() {
            Kind::Half => (Dtype::F16, Kind::Half),
            _ => (Dtype::F32, Kind::Float),
        };
        let tensor = tensor.f_to_kind(kind)?.f_contiguous()?;
        let mut bytes = vec![0u8; tensor.numel() * kind.elt_size_in_bytes()];
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
    let finish = if on_disk { whole::finish_on_disk } else { whole::finish };
    finish(temporary, file).map_err(|e| TrainError::write(file, e))
}
