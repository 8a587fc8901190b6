//! The predictor as a file.

use std::collections::HashMap;

use tch::Kind;

use super::journal::Epoch;
use super::lesson::Lesson;
use super::optimizer::Optimizer;
use super::output::{halved, write_tensors};
use super::{DecoderTuning, TrainError, TrainSpec};
use crate::nn::scores_presence;
use crate::segment::{BASE_SHA256, DECODER, INPUT_SIZE, Segmenter as _};

/// What a run has come to.
#[derive(Clone, Copy, Debug)]
pub struct Predictor<'a> {
    /// The run.
    pub spec: &'a TrainSpec,
    /// Its configuration as text.
    pub settings: &'a str,
    /// The network and the pictures.
    pub lesson: &'a Lesson<'a>,
    /// What was learned.
    pub optimizer: &'a Optimizer,
}

impl Predictor<'_> {
    /// Writes it with whatever was trained beside it under `names`, as it is after `epoch`.
    ///
    /// # Errors
    /// A file that cannot be written; values that 16 bits cannot hold where 16 bits were asked for.
    pub fn write(&self, names: &[&str], epoch: &Epoch) -> Result<(), TrainError> {
        let net = &self.lesson.net;
        let mut tensors = self.optimizer.weights()?;
        // Until the decoder's stage what was drawn to tell whether a class is there has learned nothing, and would empty masks by chance.
        tensors.retain(|name, _| {
            !(scores_presence(name) && net.drawn.contains(name) && self.optimizer.is_untouched(name))
        });
        for (name, tensor) in &net.carried {
            tensors.insert(name.clone(), tensor.shallow_clone());
        }
        let text = |value: serde_json::Value| value.to_string();
        // What a decoder that is left as it is was trained with before is true of this file too.
        let decoder = if self.spec.teaches_decoder() {
            self.spec.decoder.name()
        } else {
            net.says.get(DECODER).map_or(DecoderTuning::Frozen.name(), String::as_str)
        };
        // How pictures are to be handled, and the classes of data sets that are carried along; the run's own come after.
        let mut metadata: HashMap<String, String> = net.says.clone().into_iter().collect();
        metadata.extend([
            ("family".to_owned(), net.family.name().to_owned()),
            (DECODER.to_owned(), decoder.to_owned()),
            (BASE_SHA256.to_owned(), net.sam.info().weights_sha256.clone()),
            (INPUT_SIZE.to_owned(), net.sam.info().input_size.to_string()),
            ("data_sha256".to_owned(), self.lesson.material.hash.clone()),
            ("config".to_owned(), self.settings.to_owned()),
            ("seed".to_owned(), self.spec.seed.to_string()),
            ("epoch".to_owned(), epoch.epoch.to_string()),
            ("metrics".to_owned(), text(serde_json::json!(epoch.validation))),
        ]);
        for set in &self.lesson.material.datasets {
            let classes: Vec<&str> = set.classes.iter().map(|class| class.name.as_str()).collect();
            metadata.insert(format!("classes.{}", set.name), text(serde_json::json!(classes)));
        }
        if self.spec.half {
            for (name, tensor) in &mut tensors {
                *tensor = halved(tensor)?.ok_or_else(|| {
                    let what = format!("{name} has values that 16 bits cannot hold: expected half = false");
                    TrainError::Setting(what)
                })?;
            }
        } else {
            for tensor in tensors.values_mut() {
                *tensor = tensor.f_to_kind(Kind::Float)?;
            }
        }
        names.iter().try_for_each(|name| {
            write_tensors(&self.spec.out.join(name), &tensors, metadata.clone(), /* on disk */ true)
        })
    }
}
