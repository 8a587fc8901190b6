//! What the network of a family reads from a checkpoint, found by building it from an outline.

use tch::Device;

use super::learned::{PREFIX, form};
use crate::nn::{PromptPredictor, Sam, learnable_prompts};
use crate::weights::{Checkpoint, Comparison, Family, Outline, Source, Weights, WeightsError};

/// Compares `checkpoint` with the network of `family` and with the prompt predictor that the checkpoint has, LoRA and adapters
/// with them. With `over`, the file lies over another and need only have what it has: its predictor.
///
/// # Errors
/// libtorch's; low-rank factors or adapters of shapes that no network of the family takes.
pub fn compare(family: Family, checkpoint: &Checkpoint, over: bool) -> Result<Comparison, WeightsError> {
    let outline = Outline(checkpoint);
    let view = Weights::new(&outline, Device::Cpu);
    let net = Sam::new(&view, family, None)?;
    let w = view.pp(PREFIX);
    for (dataset, classes, tokens) in learnable_prompts(checkpoint, PREFIX) {
        let names = vec![String::new(); usize::try_from(classes).unwrap_or(0)];
        PromptPredictor::new(&w, &net.ppn_config(form(checkpoint), &dataset, names, tokens))?;
    }
    let mut expected = view.read();
    if over {
        expected.retain(|name, _| name.starts_with(PREFIX) || Source::shape(checkpoint, name).is_some());
    }
    let unused: std::collections::BTreeSet<String> = view.unused().into_iter().collect();
    let known = checkpoint.tensors().map(|(name, _)| name.to_owned()).filter(|name| !unused.contains(name));
    Ok(Comparison::new(checkpoint, &expected, &known.collect()))
}
