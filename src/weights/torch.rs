//! The state dict of a PyTorch file: zip, or the format from before PyTorch 1.6.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::archive::Archive;
use super::checkpoint::{Contents, Format};
use super::error::Reason;
use super::legacy::Legacy;
use super::pickle::{Id, Node, Pickle, TensorRef};
use super::tensor_info::TensorInfo;

/// Keys that hold the state dict where the root is something larger: Meta's files, Lightning's.
const UNDER: [&str; 2] = ["model", "state_dict"];
/// Longest text of the root that counts as metadata.
const MAX_METADATA: usize = 256;

/// Reads the zip format.
pub(super) fn read_zip(bytes: &[u8]) -> Result<Contents, Reason> {
    let archive = Archive::open(bytes)?;
    let pickle = Pickle::parse(archive.pickle()?)?;
    contents(&pickle, Format::TorchZip, |key| archive.storage(key))
}

/// Reads the format from before PyTorch 1.6.
pub(super) fn read_legacy(bytes: &[u8]) -> Result<Contents, Reason> {
    let legacy = Legacy::open(bytes)?;
    contents(legacy.pickle(), Format::TorchLegacy, |key| legacy.storage(key))
}

fn contents(
    pickle: &Pickle<'_>,
    format: Format,
    mut storage: impl FnMut(&str) -> Result<Range<usize>, Reason>,
) -> Result<Contents, Reason> {
    let root = match pickle.node(pickle.root()) {
        Node::Dict(root) => root,
        _ => return Err(pickle.foreign_under([pickle.root()]).unwrap_or(Reason::NoTensors)),
    };
    let (under, state) = state_dict(pickle, root);
    // What stands in a state dict must be what a state dict is made of. Beside it a training checkpoint keeps settings
    // and callbacks, which are of no use here and are never made.
    if let Some(foreign) = pickle.foreign_under(state.iter().flat_map(|&(key, value)| [key, value])) {
        return Err(foreign);
    }
    let mut tensors = BTreeMap::new();
    for &(key, value) in state {
        // A training checkpoint may keep counters beside its tensors.
        let (Node::Str(key), Node::Tensor(tensor)) = (pickle.node(key), pickle.node(value)) else { continue };
        let name = pickle.text(key);
        let place = storage(pickle.text(&tensor.storage.key))?;
        let info =
            place_tensor(tensor, &place).map_err(|what| Reason::Tensor { name: name.to_owned(), what })?;
        if tensors.insert(name.to_owned(), info).is_some() {
            return Err(Reason::Duplicate(name.to_owned()));
        }
    }
    let texts = |id: Id| match pickle.node(id) {
        // Looked at only where it is short: a long one may stand behind thousands of keys.
        Node::Str(text) if text.len() <= MAX_METADATA => Some(pickle.text(text).to_owned()),
        Node::Int(value) => Some(value.to_string()),
        _ => None,
    };
    let mut metadata = BTreeMap::new();
    let mut root_keys = Vec::new();
    let mut seen = BTreeSet::new();
    if under.is_some() {
        for &(key, value) in root {
            let Some(key) = texts(key) else { continue };
            if !seen.insert(key.clone()) {
                continue;
            }
            if let Some(value) = texts(value) {
                metadata.insert(key.clone(), value);
            }
            root_keys.push(key);
        }
    }
    let foreign = pickle.foreign().into_iter().collect();
    Ok(Contents { format, under, root_keys, foreign, metadata, tensors })
}

/// The root dict, or the one it holds under one of [`UNDER`], with that key.
fn state_dict<'a>(pickle: &'a Pickle<'_>, root: &'a [(Id, Id)]) -> (Option<&'static str>, &'a [(Id, Id)]) {
    for wanted in UNDER {
        for &(key, value) in root {
            if let (Node::Str(key), Node::Dict(inner)) = (pickle.node(key), pickle.node(value))
                && key.len() == wanted.len()
                && pickle.text(key) == wanted
            {
                return (Some(wanted), inner);
            }
        }
    }
    (None, root)
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
