//! What the weights of a family are called, and files of weights made from a rule.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensorError, View};
use tch::Device;

use super::learned::PREFIX;
use crate::nn::{PpnForm, PromptPredictor, Sam, Sam2Memory};
use crate::weights::{Blank, Family, Generated, Weights, WeightsError};
use crate::whole;

/// A prompt predictor that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedPpn {
    /// Which form.
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
        reason: SafeTensorError,
        /// The file.
        path: std::path::PathBuf,
    },
}

/// Names and shapes of the tensors that the network of `family` reads, with those of a prompt predictor where asked for.
/// SAM 2's have its memory.
///
/// # Errors
/// libtorch's.
pub fn expected_tensors(
    family: Family,
    ppn: Option<&GeneratedPpn>,
) -> Result<BTreeMap<String, Vec<i64>>, WeightsError> {
    let view = Weights::new(&Blank, Device::Cpu);
    let net = Sam::new(&view, family, None)?;
    if family.is_sam2() {
        Sam2Memory::new(&view, family, net.input_size())?;
    }
    if let Some(ppn) = ppn {
        let config =
            net.ppn_config(ppn.form, &ppn.dataset, ppn.classes.clone(), crate::nn::PpnConfig::TOKENS);
        PromptPredictor::new(&view.pp(PREFIX), &config)?;
    }
    Ok(view.read())
}

/// Writes the weights that the rule of [`Generated`] gives for `family` and `seed`, as safetensors. Such a network is as fast
/// as a trained one and segments nothing: it is for timing and for comparing implementations. The file is whole or not there.
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
    let failed = |reason| GenerateError::Write { reason, path: out.to_owned() };
    let disk = |reason| failed(SafeTensorError::IoError(reason));
    let views = tensors.iter().map(|(name, shape)| {
        let sides = shape.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
        (name, ByRule { rule: &rule, name, shape, sides })
    });
    let file = whole::begin(out).map_err(disk)?;
    safetensors::serialize_to_file(views, Some(metadata), file.path()).map_err(failed)?;
    whole::finish(file, out).map_err(disk)
}

/// A tensor that is made when it is written, so that the largest network needs no room in memory.
struct ByRule<'a> {
    rule: &'a Generated,
    name: &'a str,
    shape: &'a [i64],
    sides: Vec<usize>,
}

impl View for ByRule<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.sides
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.rule.values(self.name, self.shape).into_iter().flat_map(f32::to_le_bytes).collect()
    }

    fn data_len(&self) -> usize {
        self.sides.iter().product::<usize>() * size_of::<f32>()
    }
}
