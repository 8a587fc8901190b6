//! What the weights of a family are called, and files of weights made from a rule.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use tch::Device;

use super::learned::PREFIX;
use crate::nn::{PpnForm, PromptPredictor, Sam};
use crate::weights::{Blank, Family, Generated, Weights, WeightsError};

/// Marks SAM 2.1 among files that otherwise are equal; `[1, 64]`.
const MARK_OF_21: &str = "no_obj_embed_spatial";

/// A prompt predictor that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedPpn {
    /// Which of the two forms.
    pub form: PpnForm,
    /// Name of its data set.
    pub dataset: String,
    /// Names of its classes.
    pub classes: Vec<String>,
    /// Whether it lies in a file of its own, to be laid over the network's.
    pub alone: bool,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The network cannot be listed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file cannot be written.
    #[error("cannot write the weights: {reason}: {}", path.display())]
    Write {
        /// What is wrong.
        reason: safetensors::SafeTensorError,
        /// The file.
        path: std::path::PathBuf,
    },
}

/// Names and shapes of the tensors that the network of `family` reads, with those of a prompt predictor where asked for.
/// SAM 2's memory is not among them.
///
/// # Errors
/// libtorch's.
pub fn expected_tensors(
    family: Family,
    ppn: Option<&GeneratedPpn>,
) -> Result<BTreeMap<String, Vec<i64>>, WeightsError> {
    let view = Weights::new(&Blank, Device::Cpu);
    let net = Sam::new(&view, family, None)?;
    if let Some(ppn) = ppn {
        let config =
            net.ppn_config(ppn.form, &ppn.dataset, ppn.classes.clone(), crate::nn::PpnConfig::TOKENS);
        PromptPredictor::new(&view.pp(PREFIX), &config)?;
    }
    Ok(view.read())
}

/// Writes the weights that the rule of [`Generated`] gives for `family` and `seed`, as safetensors. Such a network is as fast
/// as a trained one and segments nothing: it is for timing and for comparing implementations.
///
/// # Errors
/// A file that cannot be written.
pub fn generate(
    family: Family,
    seed: u64,
    ppn: Option<&GeneratedPpn>,
    out: &Path,
) -> Result<(), GenerateError> {
    let mut tensors = expected_tensors(family, ppn)?;
    if family.name().starts_with("sam2.1") {
        tensors.insert(MARK_OF_21.to_owned(), vec![1, 64]);
    }
    let mut metadata = std::collections::HashMap::from([
        ("family".to_owned(), family.name().to_owned()),
        ("generated".to_owned(), format!("by rule, seed {seed:016x}: not trained, segments nothing")),
    ]);
    if let Some(ppn) = ppn {
        if ppn.alone {
            tensors.retain(|name, _| name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('.')));
        }
        metadata.insert("classes".to_owned(), serde_json::json!(ppn.classes).to_string());
    }
    let rule = Generated::new(seed);
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape)| {
            let data = rule.values(&name, &shape).into_iter().flat_map(f32::to_le_bytes).collect();
            (name, shape.into_iter().map(|d| usize::try_from(d).unwrap_or(0)).collect(), data)
        })
        .collect();
    let failed = |reason| GenerateError::Write { reason, path: out.to_owned() };
    let views = bytes
        .iter()
        .map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(failed)?;
    safetensors::serialize_to_file(views, Some(metadata), out).map_err(failed)
}
