//! Tensors that training begins with where no file has them: a prompt predictor, and whatever is added to the network.

use std::cell::RefCell;
use std::collections::BTreeSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::learned::PREFIX;
use crate::nn::{in_mask_decoder, is_factor, scores_presence};
use crate::weights::{Source, WeightsError, fnv1a};

/// What is added to a network that does not have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    /// Rank of the decoder's low-rank adaptation.
    pub lora: Option<i64>,
    /// A token and a head that tell whether a class is there; SAM 2's decoders have them.
    pub object_score: bool,
}

/// Low rank beside every linear layer of some blocks of an encoder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adapted<'a> {
    /// Rank of the factors.
    pub(super) rank: i64,
    /// Names of the blocks, each with a dot behind it; empty where nothing is adapted.
    pub(super) blocks: &'a [String],
}

impl Adapted<'_> {
    /// Whether the tensor `name` is a factor of these blocks.
    pub(super) fn has(&self, name: &str) -> bool {
        is_factor(name) && self.blocks.iter().any(|block| name.starts_with(block.as_str()))
    }
}

/// The tensors of `base`, and new ones where it has none. A new tensor depends on its name, its shape and the seed alone.
///
/// - Weights of layers: uniform within `1 / sqrt(inputs)`, PyTorch's default; biases 0; norms 1.
/// - Queries: normal with deviation 1/16, as in the code of Sam2Rad's authors; the token of the object score: normal.
/// - Low rank begins as nothing: its second factor is 0.
#[derive(Debug)]
pub(super) struct Fresh<'a> {
    base: &'a dyn Source,
    encoder: Adapted<'a>,
    additions: Additions,
    seed: u64,
    made: RefCell<BTreeSet<String>>,
}

impl<'a> Fresh<'a> {
    /// `encoder` is what is adapted of the encoder.
    pub(super) fn new(base: &'a dyn Source, encoder: Adapted<'a>, additions: Additions, seed: u64) -> Self {
        Self { base, encoder, additions, seed, made: RefCell::default() }
    }

    /// The rank of new factors of the layer that the factor `name` lies beside, if it may have some.
    fn rank(&self, name: &str) -> Option<i64> {
        if self.encoder.has(name) {
            return Some(self.encoder.rank);
        }
        let transformer = in_mask_decoder(name).is_some_and(|part| part.starts_with("transformer."));
        let projection = ["q_proj.", "v_proj."].iter().any(|p| name.contains(p));
        self.additions.lora.filter(|_| transformer && projection)
    }

    /// Whether `name` may be made.
    fn may_make(&self, name: &str) -> bool {
        if is_factor(name) {
            return self.rank(name).is_some();
        }
        let predictor = name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('.'));
        predictor || scores_presence(name) && self.additions.object_score
    }
}

impl Source for Fresh<'_> {
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        if self.base.shape(name).is_some() || !self.may_make(name) {
            return self.base.read(name, shape);
        }
        self.made.borrow_mut().insert(name.to_owned());
        let values = values(name, shape, self.seed);
        Ok(Tensor::f_from_slice(&values)?.f_reshape(shape)?)
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        // Asked of optional parts alone, of which the first side may count: the rank.
        let made = || match self.rank(name) {
            Some(rank) if name.ends_with(".w_a.weight") => vec![rank, 1],
            _ => Vec::new(),
        };
        self.base.shape(name).or_else(|| self.may_make(name).then(made))
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.base.names();
        names.extend(self.made.borrow().iter().cloned());
        names
    }
}

fn values(name: &str, shape: &[i64], seed: u64) -> Vec<f32> {
    let n = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
    if name.ends_with(".w_b.weight") || name.ends_with(".bias") {
        return vec![0.0; n];
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ fnv1a(name));
    if name.contains(".learnable_prompts.") {
        (0..n).map(|_| normal(&mut rng) / 16.0).collect()
    } else if name.ends_with("obj_score_token.weight") {
        (0..n).map(|_| normal(&mut rng)).collect()
    } else if shape.len() == 1 {
        vec![1.0; n]
    } else {
        let inputs = shape.iter().skip(1).product::<i64>().max(1);
        let bound = 1.0 / (inputs as f32).sqrt();
        (0..n).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound).collect()
    }
}

/// Box and Muller's way: the crate of distributions for one value is not worth its name.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f32, f32) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Generated;

    #[test]
    fn only_what_was_asked_for_is_made() {
        let (nothing, blocks) = (Generated::new(0), ["image_encoder.blocks.11.".to_owned()]);
        let fresh = |lora| {
            let additions = Additions { lora, object_score: true };
            let encoder = Adapted { rank: 2, blocks: &blocks };
            Fresh::new(&nothing, encoder, additions, 1)
        };
        let q = "mask_decoder.transformer.layers.0.self_attn.q_proj.w_a.weight";
        assert_eq!(fresh(None).shape(q), None);
        assert_eq!(fresh(Some(4)).shape(q), Some(vec![4, 1]));
        let qkv = |block| format!("image_encoder.blocks.{block}.attn.qkv.w_a.weight");
        assert_eq!((fresh(None).shape(&qkv(11)), fresh(None).shape(&qkv(1))), (Some(vec![2, 1]), None));
        // Of the decoder two projections are adapted.
        for name in [
            "ppn.layers.0.self_attn.q_proj.w_a.weight",
            "ppn.pyramid.class.w_a.weight",
            "mask_decoder.transformer.layers.0.self_attn.k_proj.w_a.weight",
            "mask_decoder.pred_obj_score_head.layers.0.w_a.weight",
        ] {
            assert_eq!(fresh(Some(4)).shape(name), None, "{name}");
        }
        assert!(fresh(None).shape("mask_decoder.obj_score_token.weight").is_some());
        assert!(fresh(None).shape("image_encoder.adapters.0.adapters.0.weight").is_none());
    }

    #[test]
    fn new_tensors_depend_on_name_and_seed_alone() {
        let of = |name, seed| values(name, &[8, 4], seed);
        assert_eq!(of("ppn.a.weight", 1), of("ppn.a.weight", 1));
        assert_ne!(of("ppn.a.weight", 1), of("ppn.b.weight", 1));
        assert_ne!(of("ppn.a.weight", 1), of("ppn.a.weight", 2));
        assert!(of("ppn.a.weight", 1).iter().all(|v| v.abs() <= 0.5));
        assert!(of("ppn.a.bias", 1).iter().chain(&of("x.w_b.weight", 1)).all(|&v| v == 0.0));
    }
}
