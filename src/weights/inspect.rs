//! What a checkpoint is, beside what a network expects of it.

use std::collections::{BTreeMap, BTreeSet};

use tch::Tensor;

use super::checkpoint::Checkpoint;
use super::family::Family;
use super::source::{Blank, Source};
use super::view::WeightsError;

/// A source that a network can be built from to learn what it expects: the optional parts are those of the checkpoint,
/// the values are blank. Nothing is read of the file.
#[derive(Debug)]
pub struct Outline<'a>(pub &'a Checkpoint);

impl Source for Outline<'_> {
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        Blank.read(name, shape)
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        Source::shape(self.0, name)
    }

    fn names(&self) -> Vec<String> {
        Source::names(self.0)
    }
}

/// A tensor of another shape than expected.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Misshapen {
    /// Name of the tensor.
    pub name: String,
    /// Shape that the network needs.
    pub expected: Vec<i64>,
    /// Shape in the file.
    pub found: Vec<i64>,
}

/// A checkpoint's tensors against a network's.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Comparison {
    /// Expected, and not in the file.
    pub missing: Vec<String>,
    /// In the file, and not expected.
    pub unexpected: Vec<String>,
    /// In the file, in another shape.
    pub misshapen: Vec<Misshapen>,
}

impl Comparison {
    /// Compares with `expected`; `known` are names that the network may be given and does not need.
    pub fn new(
        checkpoint: &Checkpoint,
        expected: &BTreeMap<String, Vec<i64>>,
        known: &BTreeSet<String>,
    ) -> Self {
        let mut found = Self::default();
        for (name, shape) in expected {
            match Source::shape(checkpoint, name) {
                None => found.missing.push(name.clone()),
                Some(other) if other != *shape => found.misshapen.push(Misshapen {
                    name: name.clone(),
                    expected: shape.clone(),
                    found: other,
                }),
                Some(_) => {}
            }
        }
        let other = checkpoint.tensors().map(|(name, _)| name);
        let other = other.filter(|&name| !expected.contains_key(name) && !known.contains(name));
        found.unexpected = other.map(str::to_owned).collect();
        found
    }

    /// Whether the file is what the network expects.
    pub fn fits(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }
}

/// Facts of a checkpoint that need no network.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Facts {
    /// How the file is made.
    pub format: &'static str,
    /// The key under which the state dict was found; `None` where it is the root.
    pub under: Option<&'static str>,
    /// Keys beside and with that one.
    pub root_keys: Vec<String>,
    /// Version of the family's line: 1, 2 or 2.1.
    pub version: Option<&'static str>,
    /// Number of tensors.
    pub tensors: usize,
    /// Elements of all floating-point tensors, running statistics and other buffers with them.
    pub elements: u64,
    /// Tensors per element type.
    pub dtypes: BTreeMap<String, usize>,
    /// Rank of the LoRA in its mask decoder.
    pub lora_rank: Option<usize>,
    /// Rank of the LoRA in its image encoder.
    pub encoder_lora_rank: Option<usize>,
    /// Whether it has encoder adapters.
    pub adapters: bool,
    /// Whether it has a prompt predictor.
    pub prompt_predictor: bool,
    /// Names of the data sets that it has learned prompts for.
    pub learned_prompts: Vec<String>,
    /// What the file says of itself.
    pub metadata: BTreeMap<String, String>,
    /// Python objects beside the state dict, passed over.
    pub foreign: Vec<String>,
    /// Tensors that were left out.
    pub set_aside: Vec<String>,
}

impl Facts {
    /// Reads them off `checkpoint`.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let family = Family::recognise(checkpoint).ok();
        let mut facts = Self {
            format: checkpoint.format().name(),
            under: checkpoint.under(),
            root_keys: checkpoint.root_keys().to_vec(),
            version: family.map(version),
            tensors: 0,
            elements: 0,
            dtypes: BTreeMap::new(),
            lora_rank: None,
            encoder_lora_rank: None,
            adapters: false,
            prompt_predictor: false,
            learned_prompts: Vec::new(),
            metadata: checkpoint.metadata().clone(),
            foreign: checkpoint.foreign().to_vec(),
            set_aside: checkpoint.set_aside().to_vec(),
        };
        for (name, info) in checkpoint.tensors() {
            facts.tensors += 1;
            if info.dtype.is_float() {
                facts.elements = facts.elements.saturating_add(info.numel() as u64);
            }
            *facts.dtypes.entry(info.dtype.to_string()).or_default() += 1;
            if name.ends_with(".w_a.weight") {
                let of_encoder = name.starts_with("image_encoder.");
                let rank = if of_encoder { &mut facts.encoder_lora_rank } else { &mut facts.lora_rank };
                *rank = info.shape.first().copied();
            }
            facts.adapters |= name.starts_with("image_encoder.adapters.");
            match name.strip_prefix("ppn.learnable_prompts.") {
                Some(set) => facts.learned_prompts.push(set.to_owned()),
                None => facts.prompt_predictor |= name.starts_with("ppn."),
            }
        }
        facts
    }
}

fn version(family: Family) -> &'static str {
    if family.name().starts_with("sam2.1") {
        "2.1"
    } else if family.name().starts_with("sam2") {
        "2"
    } else {
        "1"
    }
}
