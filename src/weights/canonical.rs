//! Names as the models' official code has them, whatever a training framework made of them.
//!
//! A file of Meta's, of MobileSAM's or of MedSAM's has these names already. Around them there may be:
//!
//! | in the file | here |
//! |---|---|
//! | `module.X` throughout (data-parallel training) | `X` |
//! | `model.X`, `model.model.X` throughout (Lightning) | `X` |
//! | `image_encoder.net.X`, `mask_decoder.net.X`, `sam_mask_decoder.net.X` | without `net.` |
//! | `X.proj.weight` beside `X.w_a.weight` (LoRA) | `X.weight` |
//! | `prompt_sampler.prompt_learner.X` | `ppn.X` |
//! | `learnable_prompts.DATASET` | `ppn.learnable_prompts.DATASET` |
//! | `prompt_sampler.prompt_encoder.X`, `prompt_sampler.prompt_learner.prompt_encoder.X` | the SAM's prompt encoder |
//!
//! The prompt encoder is `sam_prompt_encoder` and the decoder `sam_mask_decoder` in SAM 2, and `prompt_encoder` and
//! `mask_decoder` in SAM v1. Copies of one tensor must be equal.
//!
//! Left out is `obj_ptr_tpos_proj` where it is 256 x 256: the Sam2Rad code makes it in that shape, which no SAM 2 has, and
//! neither loads nor trains it.

use std::collections::BTreeMap;

use super::error::Reason;
use super::tensor_info::TensorInfo;

/// Gives every tensor its official name; returns the names that were left out.
pub(super) fn rename(tensors: &mut BTreeMap<String, TensorInfo>, file: &[u8]) -> Result<Vec<String>, Reason> {
    let prefix = wrapper(tensors);
    let is_sam2 = tensors.keys().any(|name| name[prefix..].contains("trunk."));
    let mut renamed = BTreeMap::<String, (String, TensorInfo)>::new();
    let mut set_aside = Vec::new();
    for (name, info) in &*tensors {
        let official = official(&name[prefix..], is_sam2, |sibling| {
            tensors.contains_key(&format!("{}{sibling}", &name[..prefix]))
        });
        if official.starts_with("obj_ptr_tpos_proj.") && matches!(info.shape[..], [256] | [256, 256]) {
            set_aside.push(name.clone());
            continue;
        }
        match renamed.get(&official) {
            None => {
                renamed.insert(official, (name.clone(), info.clone()));
            }
            Some((first, other)) => {
                let same = other.dtype == info.dtype && other.shape == info.shape;
                if other != info && (!same || other.data(file) != info.data(file)) {
                    return Err(Reason::Differ {
                        name: official,
                        first: first.clone(),
                        second: name.clone(),
                    });
                }
            }
        }
    }
    *tensors = renamed.into_iter().map(|(official, (_, info))| (official, info)).collect();
    Ok(set_aside)
}

/// Length of what training frameworks put before every name.
fn wrapper(tensors: &BTreeMap<String, TensorInfo>) -> usize {
    let mut len = 0;
    // The Sam2Rad code's Lightning module holds its network as `model.model` and the learned prompts as `model`: the
    // second `model.` is therefore not before every name, and is taken away name by name.
    for part in ["module.", "model."] {
        if tensors.keys().all(|name| name.get(len..).is_some_and(|rest| rest.starts_with(part))) {
            len += part.len();
        }
    }
    len
}

fn official(name: &str, is_sam2: bool, has: impl Fn(&str) -> bool) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    let (decoder, encoder) =
        if is_sam2 { ("sam_mask_decoder", "sam_prompt_encoder") } else { ("mask_decoder", "prompt_encoder") };
    let name = without_lora(name, has);
    let moved: [(&str, &str); 7] = [
        ("image_encoder.net.", "image_encoder."),
        ("sam_mask_decoder.net.", decoder),
        ("mask_decoder.net.", decoder),
        ("prompt_sampler.prompt_learner.prompt_encoder.", encoder),
        ("prompt_sampler.prompt_encoder.", encoder),
        ("prompt_sampler.prompt_learner.", "ppn"),
        ("learnable_prompts.", "ppn.learnable_prompts"),
    ];
    for (from, to) in moved {
        if let Some(rest) = name.strip_prefix(from) {
            return format!("{}.{rest}", to.trim_end_matches('.'));
        }
    }
    name
}

/// `q_proj.proj.weight` is the frozen half of a linear layer that has `q_proj.w_a.weight` beside it.
fn without_lora(name: &str, has: impl Fn(&str) -> bool) -> String {
    for leaf in ["weight", "bias"] {
        if let Some(linear) = name.strip_suffix(leaf).and_then(|stem| stem.strip_suffix(".proj."))
            && (has(&format!("{linear}.w_a.weight")) || has(&format!("model.{linear}.w_a.weight")))
        {
            return format!("{linear}.{leaf}");
        }
    }
    name.to_owned()
}
